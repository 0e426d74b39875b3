"""Folders of runs as trainings leave them, with records that are made up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from cnn_reg.config import Config, as_dict
from tensornet import __version__
from tensornet.files.runs import Run


def made_run(
    folder: Path, config: Config, accuracy: float = 0.75, *, epochs: int = 3, finished: bool = True, version: str = __version__
) -> Run:
    """A run's folder; accuracies rise to the given one."""
    run = Run(folder, {**as_dict(config), "version": version})
    for epoch in range(1, epochs + 1):
        share = math.log(1 + epoch) / math.log(1 + epochs)
        run.record(
            epoch=epoch,
            train_loss=0.7 - 0.3 * share,
            train_accuracy=0.5 + 0.45 * share,
            penalty=None,
            cosine=0.99,
            cosine_quantiles=[0.9, 0.97, 0.99, 1.0, 1.0],
            left_out=0,
            test_loss=0.7 - 0.1 * share,
            test_accuracy=0.5 + (accuracy - 0.5) * share,
            seconds=50.0,
            images_per_second=80.0,
        )
    if finished:
        baseline = {"distance_only_accuracy": 0.83 if config.dataset == "pathfinder" else None}
        run.finish(train_accuracy=0.95, test_accuracy=accuracy, training_seconds=50.0 * epochs, device="cpu, 1 threads", **baseline)
    return run


def made_study(folder: Path) -> None:
    """Twelve finished runs: path lengths 5 and 7, with and without the penalty, three seeds."""
    means = {(5, 0.0): 0.52, (5, 3.0): 0.67, (7, 0.0): 0.49, (7, 3.0): 0.52}
    same: dict[str, Any] = {"train_images": 4000, "test_images": 1000, "image_size": 100, "width": 0.25, "epochs": 40}
    for (length, coefficient), mean in means.items():
        for seed, more in enumerate((-0.01, 0.0, 0.02)):
            config = Config(path_length=length, coefficient=coefficient, seed=seed, **same)
            made_run(folder / f"length-{length}-coefficient-{coefficient:g}-seed-{seed}", config, mean + more, epochs=40)


def without_convolutions() -> nn.Module:
    """A network of one's own, for grey images of 32 x 32."""
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 1))
