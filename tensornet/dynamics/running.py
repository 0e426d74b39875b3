"""Runs an experiment in a folder: records as they come, checkpoints, a summary; resumes where it was interrupted."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from tensornet.dynamics.experiments import Experiment
from tensornet.dynamics.report import summarise
from tensornet.dynamics.training import Training
from tensornet.files.runs import Run
from tensornet.interrupts import signals

CHECKPOINT_SECONDS = 20.0  # between checkpoints


def run_experiment(
    experiment: Experiment,
    folder: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    resume: bool = False,
    watch: Callable[[Training, list[dict[str, Any]]], None] | None = None,
) -> Training:
    """Runs an experiment to its end, or to Ctrl-C or SIGTERM, after which it can be resumed.

    A signal that comes too late to interrupt the run, which is complete then, is passed on.

    Args:
        experiment: What to do.
        folder: The run's folder, as of :class:`tensornet.files.runs.Run`.
        device: Where to compute.
        resume: Continue the run that is in the folder.
        watch: Called after every record, with all records so far.

    Returns:
        The training; its ``ended`` is empty when it was interrupted.

    Raises:
        ValueError: The folder holds a run and ``resume`` is false, or another run.
        KeyboardInterrupt: Ctrl-C or SIGTERM came during the last step.
        OSError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from tensornet.dynamics.experiments import experiment
        >>> run_experiment(experiment("quick-tensor", {"max_steps": "40"}), tempfile.mkdtemp()).step
        40
    """
    run = Run(folder, asdict(experiment), resume=resume)
    training = Training(experiment, device)
    state = run.restore()
    if state is not None:
        training.load(state)
    records, saved = run.records(), time.monotonic()
    with signals() as arrived:
        for record in training.run(lambda: bool(arrived())):
            run.record(**record)
            records.append(record)
            if watch:
                watch(training, records)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                run.checkpoint(training.state())
                saved = time.monotonic()
    run.checkpoint(training.state())
    if training.ended:
        run.finish(
            ended=training.ended,
            steps=training.step,
            seconds=round(training.seconds, 2),
            **summarise(records),
            true_ranks=training.true_ranks,
            way=training.objective.way,
            device=str(device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            machine=platform.processor() or platform.machine(),
        )
        if arrived():
            raise KeyboardInterrupt
    return training
