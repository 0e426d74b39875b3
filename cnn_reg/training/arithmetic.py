"""How numbers are computed during a training: TF32, deterministic algorithms, autocast, random numbers; all as before afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from cnn_reg.checkpoint import random_state, seed_all, set_random_state
from cnn_reg.config import Config


@contextlib.contextmanager
def arithmetic(config: Config, device: torch.device | str, seed: int) -> Iterator[None]:
    """Settings of the process and random numbers of a training, which end with the block.

    Args:
        config: Whose ``tf32`` and ``deterministic`` are set. Deterministic algorithms are an error where an operation has none.
        device: Where the training computes.
        seed: Of the global random numbers, of which torch's initialise networks and drop units.

    Example:
        >>> with arithmetic(Config(), "cpu", seed=3):
        ...     torch.initial_seed()
        3
    """
    device = torch.device(device)
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which cuBLAS refuses
    drawn = random_state()
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
        torch.backends.cudnn.benchmark = not config.deterministic
        torch.use_deterministic_algorithms(config.deterministic)
        seed_all(seed)
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        set_random_state(drawn)


def autocast(config: Config, device: torch.device | str) -> torch.autocast:
    """Mixed precision for a block, where the configuration asks for it.

    Example:
        >>> with autocast(Config(precision="bfloat16"), "cpu"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bfloat16")
