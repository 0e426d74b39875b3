"""A configuration trained in a run's folder, from nothing or from where it was interrupted: records, checkpoints, curves, summary."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cnn_reg.config import Config, as_dict, run_id
from cnn_reg.figures import draw_curves
from cnn_reg.networks import build_network
from cnn_reg.tasks import Task, make_task
from cnn_reg.training.arithmetic import arithmetic
from cnn_reg.training.loop import summarize, train
from cnn_reg.training.trainer import Trainer
from cnn_reg.twice import twice_differentiable
from tensornet import __version__
from tensornet.distributed import ALONE, Processes
from tensornet.files.runs import SUMMARY, Run
from tensornet.files.storage import read_json

CURVES = "curves.png"


@dataclass(frozen=True)
class Watch:
    """Whom a run tells how it goes; nobody by default.

    Args:
        say: Called with lines of text.
        on_start: Called once, before the first step.
        on_step: Called after every step.
        on_epoch: Called with every epoch's record.

    Example:
        >>> Watch(say=print).say("begun")
        begun
    """

    say: Callable[[str], None] = field(default_factory=lambda: _ignore)
    on_start: Callable[[Trainer], None] = field(default_factory=lambda: _ignore)
    on_step: Callable[[Trainer], None] = field(default_factory=lambda: _ignore)
    on_epoch: Callable[[dict[str, Any]], None] = field(default_factory=lambda: _ignore)


def _ignore(_: object) -> None:
    pass


def run_config(
    config: Config,
    folder: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    joined: Processes = ALONE,
    data: Path | None = None,
    cache: Path | None = None,
    resume: bool = False,
    watch: Watch | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains in a folder, and returns the summary, which is empty in all processes but the first.

    Args:
        config: What determines the run.
        folder: Where its files lie.
        device: Where to compute.
        joined: This process among those that train together.
        data: As of :func:`cnn_reg.tasks.make_task`.
        cache: Folder of images that were made before, for runs that have the same.
        resume: Go on with the run that is in the folder, if there is one; one that is complete is left as it is.
        watch: Who is told how it goes.
        stopping: Asked after every step; once it says yes, a checkpoint is written and the run interrupted.

    Raises:
        ValueError: The folder holds another run, or one that ``resume`` does not allow to go on; or there are no such data.
        OSError: A file cannot be read or written.
        InterruptedTrainingError: ``stopping`` said yes.
        DivergedError: The loss is no longer finite.

    Example:
        >>> import tempfile
        >>> config = Config(train_images=8, test_images=4, image_size=32, width=0.1, batch_size=4, epochs=1)
        >>> summary = run_config(config, tempfile.mkdtemp())
        >>> summary["epochs"], summary["ended"]
        (1, '1 epochs')
    """
    watch, folder, place = watch or Watch(), Path(folder), torch.device(device)
    with _current(place), arithmetic(config, place, config.seed):
        record = Run(folder, {**as_dict(config), "version": __version__}, resume=resume) if joined.rank == 0 else None
        if resume and (folder / SUMMARY).exists():
            watch.say(f"{folder} is complete.")
            done: dict[str, Any] = read_json(folder / SUMMARY)
            return done
        start = time.perf_counter()
        task = make_task(config, data, place, cache=cache)
        watch.say(f"{task.title}: made or loaded in {time.perf_counter() - start:.1f} s")
        trainer = _trainer(config, task, place, joined, record, watch)
        watch.on_start(trainer)
        ended = train(trainer, record, on_step=watch.on_step, on_epoch=watch.on_epoch, stopping=stopping)
        return {} if record is None else _finish(record, config, task, ended, place, joined)


def _current(place: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Makes a GPU the one whose random numbers a checkpoint keeps."""
    return torch.cuda.device(place) if place.type == "cuda" else contextlib.nullcontext()


def _trainer(config: Config, task: Task, place: torch.device, joined: Processes, record: Run | None, watch: Watch) -> Trainer:
    model = build_network(config.model, task.train.channels, task.train.image_size, dropout=config.dropout, width=config.width)
    if config.coefficient:
        model = twice_differentiable(model)
    trainer = Trainer(config, task, model, device=place, processes=joined)
    if joined.rank:
        torch.manual_seed(config.seed + joined.rank)  # the same weights, but other units dropped
    state = joined.gather(None if record is None else record.restore())[0]
    if state is not None:
        trainer.set(state)
        watch.say(f"continued after epoch {trainer.epoch}, step {trainer.step} of {trainer.steps}")
    return trainer


def _finish(record: Run, config: Config, task: Task, ended: str, place: torch.device, joined: Processes) -> dict[str, Any]:
    records = record.records()
    summary = {
        "task": task.title,
        "model": config.model,
        "coefficient": config.coefficient,
        "seed": config.seed,
        "ended": ended,
        **summarize(records),
        "distance_only_accuracy": task.baseline,
        "run_id": run_id(config, __version__),
        "version": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else f"{place.type}, {torch.get_num_threads()} threads",
        "processes": joined.size,
        "full_run": full_run(config),
    }
    title = f"{task.title}, {config.model}, coefficient {config.coefficient:g}, seed {config.seed}"
    draw_curves(record.folder / CURVES, records, title=title, baseline=task.baseline)
    record.finish(**summary)
    return summary


def full_run(config: Config) -> str:
    """The command of the paper's recipe for a configuration's data and network.

    Example:
        >>> from cnn_reg.config import preset
        >>> full_run(preset("quick"))
        'cnn-reg train --preset paper --dataset pathfinder --path-length 3 --model resnet18 --device cuda'
    """
    options = {"pathfinder": ("path_length",), "same-class": ("distance", "source")}[config.dataset]
    chosen = [f"--{name.replace('_', '-')} {getattr(config, name)}" for name in ("dataset", *options, "model")]
    return f"cnn-reg train --preset paper {' '.join(chosen)} --device cuda"


def folder_name(config: Config) -> str:
    """The name of a run's folder: what is trained, and the run's id.

    Example:
        >>> folder_name(Config(path_length=9)).rpartition("-")[0]
        'pathfinder-9-resnet18-coefficient-9-seed-0'
    """
    task = f"pathfinder-{config.path_length}" if config.dataset == "pathfinder" else f"same-class-{config.source}-{config.distance}"
    name = f"{task}-{config.model.replace(':', '.')}-coefficient-{config.coefficient:g}-seed-{config.seed}"
    return f"{name}-{run_id(config, __version__)}"
