"""A whole training: epochs until it is over, a record and a checkpoint each, and the summary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cnn_reg.training.trainer import Trainer
from tensornet.files.runs import Run


class InterruptedTrainingError(RuntimeError):
    """The training was asked to stop, and has written its state."""


class DivergedError(RuntimeError):
    """The loss is no longer finite."""


def train(
    trainer: Trainer,
    run: Run | None,
    *,
    on_step: Callable[[Trainer], None] = lambda _: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> str:
    """Trains until the recipe says that it is over, and returns why.

    Args:
        trainer: In whichever state; it goes on from there.
        run: Gets a record and a checkpoint after every epoch; ``None`` in all processes but the first.
        on_step: Called after every step.
        on_epoch: Called with every epoch's record.
        stopping: Asked after every step; once it says yes, in any process, the state is written and the training interrupted.

    Raises:
        InterruptedTrainingError: ``stopping`` said yes.
        DivergedError: The training loss of an epoch is not finite. The checkpoint stays that of the epoch before.

    Example:
        >>> from torch import nn
        >>> from cnn_reg.config import Config
        >>> from cnn_reg.tasks import make_task
        >>> config = Config(train_images=8, test_images=4, image_size=8, batch_size=4, epochs=2)
        >>> train(Trainer(config, make_task(config), nn.Sequential(nn.Flatten(), nn.Linear(64, 1))), None)
        '2 epochs'
    """
    while trainer.done is None:
        for step in trainer.epoch_steps():
            on_step(trainer)
            if trainer.processes.any(stopping()):
                _write(trainer, run)
                raise InterruptedTrainingError(f"stopped after step {step} of {trainer.steps} of epoch {trainer.epoch + 1}")
        record = trainer.finish_epoch()
        if not math.isfinite(record["train_loss"]):
            raise DivergedError(f"the training loss of epoch {trainer.epoch} is {record['train_loss']}; try a smaller learning_rate")
        if run is not None:
            run.record(**record)
        _write(trainer, run)
        on_epoch(record)
    return trainer.done


def _write(trainer: Trainer, run: Run | None) -> None:
    state = trainer.state()
    if run is not None:
        run.checkpoint(state)


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What came out of a training: accuracies at its last epoch as published, and at the epoch that is best on the validation images.

    Example:
        >>> records = [
        ...     {"epoch": 1, "train_accuracy": 0.7, "validation_accuracy": 0.8, "test_accuracy": 0.75, "seconds": 2.0},
        ...     {"epoch": 2, "train_accuracy": 0.9, "validation_accuracy": 0.6, "test_accuracy": 0.5, "seconds": 2.0},
        ... ]
        >>> summarize(records)["test_accuracy"], summarize(records)["best_validation"]["test_accuracy"]
        (0.5, 0.75)
    """
    last = records[-1]
    summary = {
        "epochs": last["epoch"],
        "train_accuracy": last["train_accuracy"],
        "test_accuracy": last["test_accuracy"],
        "cosine": last.get("cosine"),
        "training_seconds": round(sum(record["seconds"] for record in records), 3),
    }
    if "validation_accuracy" in last:
        best = max(records, key=lambda record: record["validation_accuracy"])  # the first of several
        summary["best_validation"] = {name: best[name] for name in ("epoch", "validation_accuracy", "test_accuracy")}
    return summary
