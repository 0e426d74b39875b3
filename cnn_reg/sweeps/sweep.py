"""A sweep in its folder: what it lists, where its runs stand, and doing what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from cnn_reg.config import Config, as_dict, run_id
from cnn_reg.sweeps.executors import LOOK, Executor
from cnn_reg.sweeps.grid import Grid
from cnn_reg.sweeps.jobs import LISTING, LOCK, Job, Outcome, State, state_of
from cnn_reg.sweeps.search import identity
from tensornet import __version__
from tensornet.files.runs import CONFIG
from tensornet.files.storage import read_json, write_json

_ENTRY = {"id", "folder", "variant", "fields"}  # what a listing says of a run


def check_folder(root: Path, grid: Grid) -> None:
    """Checks that a folder can be this sweep's: it is not there yet, or holds no other.

    Raises:
        ValueError: It holds another sweep.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> write_listing(root, Grid("lengths"), Grid("lengths").labelled())
        >>> check_folder(root, Grid("seeds"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: a folder holds one sweep; ... has lengths (own), got seeds (own)
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f"a sweep needs a folder; {root} is a file")
    if (root / LISTING).exists():
        found = read_json(root / LISTING)
        there = f"{found.get('name')} ({found.get('scale')})" if isinstance(found, dict) else "something else"
        if there != f"{grid.name} ({grid.scale})":
            raise ValueError(f"a folder holds one sweep; {root} has {there}, got {grid.name} ({grid.scale})")


def write_listing(
    root: Path,
    grid: Grid,
    runs: Iterable[tuple[str, Config]],
    trials: Iterable[tuple[str, Config]] = (),
    chosen: dict[str, dict[str, float]] | None = None,
) -> None:
    """Writes what a sweep consists of to ``sweep.json``: what reports and figures start from.

    Every run has its ``id``, its ``folder`` in that of the sweep, its ``variant`` and its ``fields``. What other calls with other changes
    have listed stays so, once it is begun, but for runs with values that the search no longer chooses. Calls that write at once wait for
    each other.

    Args:
        root: The sweep's folder, made where absent.
        grid: The sweep, with its search.
        runs: Names of variants and configurations.
        trials: The same of the search's runs.
        chosen: What the search found, by variant and field; by default what the same search has found before.

    Raises:
        ValueError: The folder holds another sweep.
        OSError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> root, grid = Path(tempfile.mkdtemp()), Grid("seeds", axes={"seed": (0, 1)})
        >>> write_listing(root, grid, grid.labelled())
        >>> [run["fields"]["seed"] for run in read_json(root / "sweep.json")["runs"]]
        [0, 1]
    """
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / LOCK):
        check_folder(root, grid)
        found = read_json(root / LISTING) if (root / LISTING).exists() else {}
        chosen = _chosen(found, grid) if chosen is None else chosen
        known: dict[str, Any] = {"name": grid.name, "scale": grid.scale, "note": grid.remark, "version": __version__}
        known |= {"search": identity(grid), "chosen": chosen}
        kept = [entry for entry in _begun(root, found, "runs") if _agrees(entry, chosen)]
        parts = {"trials": _merged(root, trials, _begun(root, found, "trials")), "runs": _merged(root, runs, kept)}
        write_json(root / LISTING, {**known, **parts})


def _begun(root: Path, listing: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """Entries of a listing, which may be of another version, whose runs are begun."""
    entries = listing.get(part)
    usable = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [entry for entry in usable if entry.keys() == _ENTRY and (root / str(entry["folder"]) / CONFIG).exists()]


def _agrees(entry: dict[str, Any], chosen: dict[str, dict[str, float]]) -> bool:
    return all(entry["fields"].get(name) == value for name, value in chosen.get(entry["variant"], {}).items())


def _merged(root: Path, runs: Iterable[tuple[str, Config]], others: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    entries = [_entry(root, *run) for run in runs]
    fields = [entry["fields"] for entry in entries]
    return entries + [entry for entry in others if entry["fields"] not in fields]


def _entry(root: Path, variant: str, config: Config) -> dict[str, Any]:
    folder = Job(config, root).folder.name
    return {"id": run_id(config, __version__), "folder": folder, "variant": variant, "fields": as_dict(config)}


def with_chosen(root: Path, grid: Grid) -> Grid:
    """The grid with what the same search in the folder chose before; the grid itself where nothing was chosen.

    Example:
        >>> with_chosen(Path("no such folder"), Grid("seeds")) == Grid("seeds")
        True
    """
    chosen = _chosen(read_json(root / LISTING), grid) if (root / LISTING).exists() else {}
    return grid.tuned(chosen) if chosen else grid


def _chosen(listing: dict[str, Any], grid: Grid) -> dict[str, dict[str, float]]:
    """What a listing says that this search has chosen."""
    return dict(listing.get("chosen") or {}) if grid.search and listing.get("search") == identity(grid) else {}


def states(jobs: Iterable[Job]) -> dict[Job, State]:
    """Where the runs of jobs stand.

    Example:
        >>> [state.value for state in states([Job(Config(), Path("no such folder"))]).values()]
        ['waiting']
    """
    return {job: state_of(job.folder) for job in jobs}


def run_jobs(
    jobs: Sequence[Job],
    execute: Executor,
    *,
    stopping: Callable[[], bool] = lambda: False,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> dict[Job, Outcome]:
    """Does the jobs that are not done, and returns what became of each that was begun, or done already.

    A run that another process is doing is waited for, and taken over should that process end before it is done. One that was interrupted
    though nobody asked this sweep to stop, since somebody ended its process, goes on.

    Args:
        jobs: What to do, in this order.
        execute: Who does it.
        stopping: Asked now and then; once it says yes, everything is left so that it can go on later.
        on_outcome: Called with every outcome.

    Example:
        >>> import tempfile
        >>> from cnn_reg.sweeps.executors import in_process
        >>> from cnn_reg.sweeps.jobs import Place
        >>> config = Config(train_images=8, test_images=4, image_size=32, width=0.1, batch_size=4, epochs=1)
        >>> job = Job(config, Path(tempfile.mkdtemp()))
        >>> run_jobs([job], in_process(Place()))[job].state.value
        'done'
    """
    found = {job: Outcome(job, State.DONE) for job, state in states(jobs).items() if state is State.DONE}
    left = [job for job in jobs if job not in found]
    while left and not stopping():
        busy = []
        for outcome in execute(left, stopping):
            if outcome.state is State.RUNNING or (outcome.state is State.INTERRUPTED and not stopping()):
                busy.append(outcome.job)
            elif outcome.state is not State.WAITING:
                found[outcome.job] = outcome
                on_outcome(outcome)
        left = busy
        if left and not stopping():
            time.sleep(LOOK)
    return found
