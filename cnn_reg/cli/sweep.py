"""``cnn-reg sweep``: the runs of a figure or of a grid of one's own, on whatever machines there are."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cnn_reg.cli.options import add_data
from cnn_reg.cli.sweep_tables import following, show_end, show_plan
from cnn_reg.config import Config
from cnn_reg.sweeps.cluster import ray_cluster
from cnn_reg.sweeps.costs import operations
from cnn_reg.sweeps.executors import Executor, in_process
from cnn_reg.sweeps.grid import Grid
from cnn_reg.sweeps.grids import named_grid, parse_changes, read_grid
from cnn_reg.sweeps.jobs import Job, Outcome, Place, State
from cnn_reg.sweeps.paper import NAMES, SCALES
from cnn_reg.sweeps.pool import local_processes
from cnn_reg.sweeps.search import tune
from cnn_reg.sweeps.sweep import check_folder, run_jobs, with_chosen, write_listing
from tensornet.cli.arguments import examples, positive
from tensornet.files.runs import SUMMARY
from tensornet.files.storage import read_json
from tensornet.interrupts import signals

NOT_ALL_DONE = 1  # exit code


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["sweep", "fig6-pathfinder", "--out", "runs/fig6"]).scale
        'full'
    """
    parser = commands.add_parser(
        "sweep",
        help="make the runs of a figure, or of a grid of your own",
        description=(
            f"Makes all runs of a figure ({', '.join(NAMES)}),\n"
            "or of a grid in a TOML file. Runs that are done are never repeated, interrupted ones go on from their checkpoints, and\n"
            "failed ones are recorded with their reason and tried again by the next call. Several calls may work in one folder at once.\n"
            "Ctrl-C and SIGTERM leave everything so that the same command goes on."
        ),
        epilog=examples(
            "cnn-reg sweep fig6-pathfinder --scale small --out runs/fig6 --dry-run",
            "cnn-reg sweep fig6-pathfinder --scale small --out runs/fig6",
            "cnn-reg sweep fig11-pathfinder --out runs/fig11 --per-device 2 --set seed=0,1",
            "cnn-reg sweep grid.toml --out /shared/grid --ray auto",
        ),
    )
    parser.add_argument("grid", metavar="NAME_OR_FILE", help="one of the figures above, or a file that ends in .toml")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the sweep")
    parser.add_argument("--scale", default="full", metavar="SIZE", help=f"of a figure: {', '.join(SCALES)} (default full)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of all runs; with commas, an axis")
    parser.add_argument("--dry-run", action="store_true", help="only list the runs, what they cost, and what is done")
    parser.add_argument(
        "--device", default="auto", metavar="D", help="cpu, cuda (all GPUs), cuda:1, or auto (default): GPUs where there are any"
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="runs at a time here (default: one a GPU, or one a core); 1: in this process"
    )
    parser.add_argument("--per-device", type=positive, default=1, metavar="K", help="runs that share a GPU (default 1)")
    parser.add_argument("--threads", type=positive, metavar="N", help="of each run (default: its share of the cores; 1 on a cluster)")
    parser.add_argument("--ray", metavar="ADDRESS", help="do the runs on a Ray cluster, auto or host:port, that shares the folder")
    add_data(parser)
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg sweep --help``.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: The grid is unknown or wrong, arguments do not fit together, or the folder holds another sweep.
        OSError: A file cannot be read or written, or no cluster answers.

    Example:
        >>> import tempfile
        >>> from cnn_reg.cli import main
        >>> out = tempfile.mkdtemp() + "/sweep"
        >>> main(["sweep", "fig6-pathfinder", "--scale", "small", "--set", "seed=0", "--out", out, "--dry-run"])  # doctest: +ELLIPSIS
        fig6-pathfinder (small): 4 runs...
        0
    """
    grid = chosen_grid(arguments)
    root, data = arguments.out.absolute(), arguments.data.absolute() if arguments.data else None
    check_folder(root, grid)
    for config in grid.configs():
        operations(config)  # a network that cannot be built is told before anything is written
    if arguments.dry_run:
        show_plan(console, with_chosen(root, grid), root)
        return 0
    start = time.monotonic()
    with _executor(arguments) as execute, signals() as arrived:

        def go(runs: Sequence[tuple[str, Config]], what: str) -> dict[Job, Outcome]:
            jobs = [Job(config, root, data) for _, config in runs]
            with following(console, jobs, what) as on_outcome:
                return run_jobs(jobs, execute, stopping=lambda: bool(arrived()), on_outcome=on_outcome)

        tuned = grid
        with contextlib.suppress(_StoppedError):
            tuned = _tuned(grid, root, go)
            go(tuned.labelled(), grid.name)
            write_listing(root, grid, tuned.labelled())  # again, since calls that began meanwhile leave out what was not begun then
    done = show_end(console, tuned, root, time.monotonic() - start)
    return 128 + arrived() if arrived() else (0 if done else NOT_ALL_DONE)


class _StoppedError(RuntimeError):
    """The search came to no end, so that the sweep's runs are not known."""


Go = Callable[[Sequence[tuple[str, Config]], str], dict[Job, Outcome]]


def _tuned(grid: Grid, root: Path, go: Go) -> Grid:
    """The grid without ranges, listed in the folder."""
    if grid.search is None:
        write_listing(root, grid, grid.labelled())
        return grid
    trials: dict[Config, str] = {}

    def score(runs: Sequence[tuple[str, Config]]) -> list[float | None]:
        trials.update({config: name for name, config in runs})
        write_listing(root, grid, [], [(name, config) for config, name in trials.items()])
        outcomes = go(runs, f"search for {grid.name}")
        states = {job.config: outcome.state for job, outcome in outcomes.items()}
        if not all(states.get(config) in (State.DONE, State.FAILED) for _, config in runs):
            raise _StoppedError
        known = {
            job.config: outcome.summary or read_json(job.folder / SUMMARY)
            for job, outcome in outcomes.items()
            if outcome.state is State.DONE
        }
        return [known[config]["test_accuracy"] if config in known else None for _, config in runs]

    chosen = tune(grid, score)
    tuned = grid.tuned(chosen)
    write_listing(root, grid, tuned.labelled(), [(name, config) for config, name in trials.items()], chosen)
    return tuned


def chosen_grid(arguments: Any) -> Grid:
    """The grid that the arguments ask for.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: The grid is unknown or wrong.
        OSError: A file cannot be read.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> chosen_grid(parser.parse_args(["sweep", "fig11-pathfinder", "--out", "runs", "--set", "epochs=7"])).configs()[0].epochs
        7
    """
    if arguments.grid.endswith(".toml"):
        if arguments.scale != "full":
            raise ValueError(f"--scale is for the paper's figures; {arguments.grid} describes one size")
        grid = read_grid(arguments.grid)
    else:
        grid = named_grid(arguments.grid, arguments.scale)
    return grid.override(parse_changes(arguments.set))


@contextlib.contextmanager
def _executor(arguments: Any) -> Iterator[Executor]:
    if arguments.ray:
        if arguments.workers:
            raise ValueError("--workers is for this machine; a Ray cluster does as many runs at a time as its resources allow")
        options = {"device": arguments.device, "per_device": arguments.per_device, "threads": arguments.threads or 1}
        with ray_cluster(arguments.ray, **options) as execute:
            yield execute
        return
    where = places(arguments.device, arguments.workers, arguments.per_device, arguments.threads)
    if arguments.workers == 1:
        yield in_process(where[0])
        return
    with local_processes(where) as execute:
        yield execute


def places(device: str, workers: int | None = None, per_device: int = 1, threads: int | None = None) -> list[Place]:
    """Where runs are computed on this machine: one place for every run at a time.

    Args:
        device: ``cpu``, ``cuda`` for all GPUs, ``cuda:1`` for one of them, ``auto`` for GPUs where there are any.
        workers: How many places; by default one a GPU and per_device, or one a core.
        per_device: Runs that share a GPU.
        threads: Of each run; by default its share of the cores.

    Raises:
        ValueError: There is no such device, or ``per_device`` is given without a GPU.

    Example:
        >>> places("cpu", workers=2, threads=1)
        [Place(device='cpu', threads=1), Place(device='cpu', threads=1)]
    """
    gpus, cores = torch.cuda.device_count(), _cores()
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cpu":
        if per_device > 1:
            raise ValueError("--per-device is for GPUs; on the CPU, --workers is the number of runs at a time")
        devices = ["cpu"]
        workers = workers or cores
    else:
        known = [f"cuda:{number}" for number in range(gpus)]
        devices = known if device == "cuda" else [device]
        if not known or not set(devices) <= set(known):
            raise ValueError(f"no device {device!r} here; there are cpu{''.join(f', {name}' for name in known)}")
        workers = workers or len(devices) * per_device
        if workers > len(devices) * per_device:
            raise ValueError(f"{workers} workers on {len(devices)} GPUs need --per-device {-(-workers // len(devices))}")
    return [Place(devices[worker % len(devices)], threads or max(1, cores // workers)) for worker in range(workers)]


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
