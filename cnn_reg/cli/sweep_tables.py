"""What ``cnn-reg sweep`` shows: the runs and their costs, how far they are, and what came of them."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cnn_reg.config import as_dict, run_id
from cnn_reg.results.wording import varying
from cnn_reg.sweeps import costs
from cnn_reg.sweeps.grid import Grid
from cnn_reg.sweeps.jobs import Job, Outcome, State, failure_of
from cnn_reg.sweeps.paper import NAMES
from cnn_reg.sweeps.search import trial_config
from cnn_reg.sweeps.sweep import states
from tensornet import __version__

LOOK = 2.0  # seconds between looks at the records of runs
PERIOD = 3600.0  # seconds over which the speed is taken that the time left is estimated from


def show_plan(console: Console, grid: Grid, root: Path) -> None:
    """Prints the runs of a sweep, where they stand, and what is left to do.

    Example:
        >>> show_plan(Console(), Grid("one", base={"epochs": 2, "coefficient": 0}), Path("no such folder"))  # doctest: +ELLIPSIS
        one (own): 1 run, 1 waiting
        state    10^15 operations  time  id
        waiting  ...
        Left: ... x 10^15 operations at most; how long that takes is told once a run is done.
    """
    runs = {Job(config, root): name for name, config in grid.labelled()}
    known = states(runs)
    rates = costs.measured((job.config, job.folder) for job in runs)
    differing = varying([job.config for job in runs])
    named = ["variant"] if any(runs.values()) else []
    rows = [["state", *named, *differing, "10^15 operations", "time", "id"]]
    left, seconds = 0.0, 0.0
    for job, name in runs.items():
        epochs = 0 if known[job] is State.DONE else max(0, job.config.epochs - costs.epochs_done(job.folder))
        work, time = costs.operations(job.config, epochs), rates.seconds(job.config, epochs)
        left, seconds = left + work, seconds + (time or 0.0)
        fields = [f"{as_dict(job.config).get(field, '')}" for field in differing]
        shown = [*([name] if named else []), *fields, f"{work / 1e15:.3g}", _time(time), run_id(job.config, __version__)]
        rows.append([known[job].value, *shown])
    say = functools.partial(console.print, soft_wrap=True, highlight=False, markup=False)
    say(f"{_title(grid)}: {_count(len(runs), 'run')}, {_tally(known.values())}")
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if grid.search:
        say(_search(grid))
    done = sum(state is State.DONE for state in known.values())
    told = f"about {_time(seconds)} one after the other, at the speed of the {_count(done, 'run')} done"
    what = "Left, besides the search" if grid.search else "Left"
    say(f"{what}: {left / 1e15:.3g} x 10^15 operations at most; {told if done else 'how long that takes is told once a run is done'}.")
    for job, state in known.items():
        if state is State.FAILED:
            say(f"failed: {job.folder.name}: {failure_of(job.folder)['reason']}")


def _search(grid: Grid) -> str:
    assert grid.search is not None
    tuned = [variant for variant in grid.variants if variant.ranges]
    work = sum(costs.operations(trial_config(grid, variant, variant.values())) for variant in tuned) * grid.search.trials
    names = ", ".join(f"{variant.name} ({', '.join(variant.ranges)})" for variant in tuned)
    place = ", ".join(f"{name} {value}" for name, value in grid.search.at.items())
    return (
        f"Before, {_count(grid.search.trials, 'run')} for each of {names} choose values, which replace those above, at {place}: "
        f"{work / 1e15:.3g} x 10^15 operations more."
    )


@contextlib.contextmanager
def following(console: Console, jobs: Sequence[Job], what: str) -> Iterator[Callable[[Outcome], None]]:
    """Shows how far runs are, from their records, wherever they are done; and a line for each that ends.

    Example:
        >>> with following(Console(), [], "sweep") as on_outcome:
        ...     pass
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    whole = [costs.operations(job.config) for job in jobs]
    ended = {job for job, state in states(jobs).items() if state is State.DONE}
    over = threading.Event()

    def share() -> float:
        epochs = {job: None if job in ended else costs.epochs_done(job.folder) for job in jobs}
        return sum(costs.operations(job.config, count) for job, count in epochs.items())

    with Progress(*columns, console=console, transient=True, speed_estimate_period=PERIOD) as bar:
        task = bar.add_task(what, total=sum(whole), completed=int(share()))

        def look() -> None:
            while not over.wait(LOOK):
                with contextlib.suppress(OSError):  # of a shared folder that is away for a moment
                    bar.update(task, completed=share(), description=f"{what}: {len(ended)} of {len(jobs)} runs")

        def on_outcome(outcome: Outcome) -> None:
            if outcome.state in (State.DONE, State.FAILED):
                ended.add(outcome.job)
            console.print(_ended(outcome), soft_wrap=True, highlight=False, markup=False)

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        try:
            yield on_outcome
        finally:
            over.set()
            looking.join()


def _ended(outcome: Outcome) -> str:
    name = outcome.job.folder.name
    if outcome.state is not State.DONE:
        return f"{outcome.state}: {name}{f': {outcome.reason}' if outcome.reason else ''}"
    summary = outcome.summary
    if not summary:
        return f"done: {name}"
    return f"done: {name}: test accuracy {summary['test_accuracy']:.4f}, {summary['ended']}, {_time(summary['training_seconds'])}"


def show_end(console: Console, grid: Grid, root: Path, seconds: float) -> bool:
    """Prints in a few lines what became of a sweep and how to go on, and returns whether all of it is done.

    Example:
        >>> show_end(Console(), Grid("one"), Path("runs/one"), seconds=3)  # doctest: +ELLIPSIS
        one (own): 1 run, 1 waiting, after 0:00:03. ...
        False
    """
    jobs = [Job(config, root) for config in grid.configs()]
    known = states(jobs)
    lines = [f"{_title(grid)}: {_count(len(jobs), 'run')}, {_tally(known.values())}, after {_time(seconds)}. All is in {root}."]
    left = {state for state in known.values() if state is not State.DONE}
    if State.FAILED in left:
        lines.append("The same command tries failed runs again; their failure.json holds the reasons.")
    elif left:
        lines.append("Not all is done; the same command goes on.")
    if grid.name in NAMES:
        lines.append(f"The figure: cnn-reg figure {grid.name} --runs {root} --out {root / grid.name}.png")
    for text in lines:
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    return not left


def _title(grid: Grid) -> str:
    return f"{grid.name} ({grid.scale}{f'; {grid.remark}' if grid.remark else ''})"


def _tally(known: Any) -> str:
    counted = Counter(known)
    return ", ".join(f"{counted[state]} {state}" for state in State if counted[state]) or "none"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
