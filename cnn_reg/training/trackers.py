"""Records of a training sent to TensorBoard and Weights & Biases, which are loaded only when asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Tracker = Callable[[Mapping[str, Any]], None]


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a record, without its epoch.

    Example:
        >>> numbers({"epoch": 1, "train_loss": 0.5, "penalty": None, "cosine_quantiles": [0.1, 0.9]})
        {'train_loss': 0.5}
    """
    return {name: float(value) for name, value in record.items() if isinstance(value, int | float) and name != "epoch"}


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[Tracker]:
    """A function that writes an epoch's record as TensorBoard's events into a folder.

    Raises:
        ModuleNotFoundError: The package tensorboard is not installed.

    Example:
        >>> with tensorboard(Path("run")) as track:  # doctest: +SKIP
        ...     track({"epoch": 1, "train_loss": 0.5})
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def track(record: Mapping[str, Any]) -> None:
            for name, value in numbers(record).items():
                writer.add_scalar(name, value, record["epoch"])
            writer.flush()

        yield track


@contextlib.contextmanager
def wandb(folder: Path, project: str, run_id: str, config: Mapping[str, Any]) -> Iterator[Tracker]:
    """A function that sends an epoch's record to Weights & Biases, where a run of the same id is continued.

    Raises:
        ModuleNotFoundError: The package wandb is not installed.

    Example:
        >>> with wandb(Path("run"), "locality", "0123456789ab", {"seed": 0}) as track:  # doctest: +SKIP
        ...     track({"epoch": 1, "train_loss": 0.5})
    """
    import wandb as service

    with service.init(project=project, id=run_id, resume="allow", dir=str(folder), config=dict(config)) as run:
        yield lambda record: run.log(numbers(record), step=record["epoch"])
