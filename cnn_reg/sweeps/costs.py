"""What runs cost: counted operations, and from those of finished runs the seconds of others."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from cnn_reg.config import Config
from cnn_reg.networks import build_network
from cnn_reg.tasks import image_shape
from tensornet.files.runs import RECORDS, SUMMARY, read_records
from tensornet.files.storage import read_json

PLAIN, PENALIZED = 3, 12  # passes that a step is worth: forward and two backward; four times as much with the penalty


@functools.lru_cache
def forward_operations(model: str, width: float, channels: int, image_size: int) -> int:
    """Multiplications and additions of a network on one image.

    Example:
        >>> forward_operations("resnet18", 1.0, 3, 224)
        3627123712
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), FlopCounterMode(display=False) as counted:
        build_network(model, channels, (image_size, image_size), width=width)(torch.zeros(2, channels, image_size, image_size))
    return int(counted.get_total_flops()) // 2


def operations(config: Config, epochs: int | None = None) -> float:
    """Multiplications and additions of a run's epochs, all of them by default: the training as if it went on to the last one, and tests.

    Example:
        >>> operations(Config(coefficient=0)) < operations(Config()) < 4 * operations(Config(coefficient=0))
        True
    """
    channels, size, _ = image_shape(config)
    once = forward_operations(config.model, config.width, channels, size)
    training = config.train_images * (PENALIZED if config.coefficient else PLAIN)
    return float(once * (training + config.validation_images + config.test_images) * (config.epochs if epochs is None else epochs))


def epochs_done(folder: Path) -> int:
    """Epochs that the run in a folder has behind it.

    Example:
        >>> epochs_done(Path("no such folder"))
        0
    """
    return len(read_records(folder / RECORDS))


@dataclass(frozen=True)
class Rates:
    """What an operation took in runs that are done, medians over them.

    Args:
        plain: Seconds in runs without the penalty, if there are any.
        penalized: In those with it.

    Example:
        >>> Rates(None, None).seconds(Config()) is None
        True
    """

    plain: float | None
    penalized: float | None

    def seconds(self, config: Config, epochs: int | None = None) -> float | None:
        """What a run's epochs may take, all of them by default; ``None`` where no run is done.

        Example:
            >>> config = Config(coefficient=0)
            >>> Rates(1e-12, None).seconds(config) == 1e-12 * operations(config)
            True
        """
        pair = (self.penalized, self.plain) if config.coefficient else (self.plain, self.penalized)
        rate = next((known for known in pair if known is not None), None)
        return None if rate is None else rate * operations(config, epochs)


def measured(runs: Iterable[tuple[Config, Path]]) -> Rates:
    """The rates of the runs that are done.

    Example:
        >>> measured([(Config(), Path("no such folder"))])
        Rates(plain=None, penalized=None)
    """
    found: dict[bool, list[float]] = {False: [], True: []}
    for config, folder in runs:
        if (folder / SUMMARY).exists():
            summary = read_json(folder / SUMMARY)
            found[bool(config.coefficient)].append(summary["training_seconds"] / operations(config, summary["epochs"]))
    return Rates(*(statistics.median(known) if known else None for known in found.values()))
