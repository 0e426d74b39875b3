"""The random numbers of a process as data, so that a training that continues draws what an uninterrupted one would."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The states of all global random number generators: Python's, NumPy's, torch's on the CPU and on the current CUDA device.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(()).item(), random.random(), np.random.random()
        >>> set_random_state(state)
        >>> first == (torch.rand(()).item(), random.random(), np.random.random())
        True
    """
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002, the global generator is what models of others may use
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Continues from states that :func:`random_state` gave.

    Example:
        >>> set_random_state(random_state())
    """
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_all(seed: int) -> None:
    """Starts all these generators anew.

    Example:
        >>> state = random_state()
        >>> seed_all(3)
        >>> torch.initial_seed()
        3
        >>> set_random_state(state)
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
