"""``tensornet dynamics``: runs an experiment of the paper's dynamics, shows its components live, and draws its figure."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from tensornet.cli.arguments import INTERRUPTED, assignment, device, examples, seed
from tensornet.cli.sparklines import WIDTH, sparkline
from tensornet.dynamics.experiments import EXPERIMENTS, Experiment, experiment
from tensornet.dynamics.plotting import draw, find_runs, panels_of_run, panels_of_sweep
from tensornet.dynamics.report import learned, lines
from tensornet.dynamics.running import run_experiment
from tensornet.dynamics.training import Training, make_problem
from tensornet.files.runs import SUMMARY
from tensornet.files.storage import read_json

SHOWN = 6  # components shown live
FIGURE = "figure.png"
LINES = 20.0  # seconds between lines of progress where there is no terminal
REFRESH = 0.25  # seconds between pictures of the components


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["dynamics", "fig8", "--out", "run", "--set", "ranks=128"]).set
        [('ranks', '128')]
    """
    parser = commands.add_parser(
        "dynamics",
        help="watch a factorization learn ranks one at a time (Figures 1, 8, 9 and 10)",
        description="Runs an experiment on the dynamics of gradient descent, with records and checkpoints in a folder, and draws its\n"
        "figure at the end; after a sweep, one of all its runs too. Ctrl-C ends it with a checkpoint, from which --resume goes on.\n\n"
        "experiments: " + ", ".join(EXPERIMENTS),
        epilog=examples(
            "tensornet dynamics quick-hierarchical --out run",
            "tensornet dynamics fig1-hierarchical --out run --seed 1",
            "tensornet dynamics fig8 --out run --set ranks=128 --set init_std=0.03",
            "tensornet dynamics quick-matrix --out runs --sweep init_std=0.1,0.01,0.001 --sweep seed=0,1,2",
        ),
    )
    parser.add_argument("experiment", choices=list(EXPERIMENTS), metavar="EXPERIMENT", help="see above")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder; with --sweep, that of the runs' folders")
    parser.add_argument("--seed", type=seed, metavar="N", help="of everything random (default 0)")
    parser.add_argument("--device", type=device, default=torch.device("cpu"), metavar="D", help="where to compute (default cpu)")
    parser.add_argument("--set", type=assignment, action="append", default=[], metavar="KEY=VALUE", help="overrides a field; repeatable")
    parser.add_argument(
        "--sweep",
        type=assignment,
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="runs all values; commas in parentheses part none; repeatable",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``tensornet dynamics --help``.

    Raises:
        ValueError: A field or value is wrong, or the folder holds another run.
        OSError: The folder cannot be written to.

    Example:
        >>> import argparse, tempfile
        >>> chosen = argparse.Namespace(experiment="quick-tensor", out=Path(tempfile.mkdtemp(), "run"), seed=1, resume=False, sweep=[])
        >>> chosen.device, chosen.set = torch.device("cpu"), [("max_steps", "40")]
        >>> run(chosen, Console(quiet=True))
        0
    """
    settings = dict(arguments.set)
    if arguments.seed is not None:
        settings["seed"] = str(arguments.seed)
    chosen = [(folder, experiment(arguments.experiment, made)) for folder, made in _folders(arguments.out, settings, arguments.sweep)]
    for _, one in chosen:
        make_problem(one, torch.Generator())  # before any of them is run, what cannot be made is said
    for folder, one in chosen:
        if not _run_one(console, one, folder, arguments):
            return INTERRUPTED
    if arguments.sweep:
        panels = panels_of_sweep([folder for folder, _ in chosen], find_runs(arguments.out))
        draw(panels, arguments.out / FIGURE, columns=len(_values(arguments.sweep[-1][1])))
        console.print(f"The figure of all runs is in {arguments.out / FIGURE}.", highlight=False, soft_wrap=True)
    return 0


def _folders(out: Path, settings: Mapping[str, str], sweep: Sequence[tuple[str, str]]) -> list[tuple[Path, dict[str, str]]]:
    """The runs' folders with their settings: one, or one for every combination of swept values."""
    if not sweep:
        return [(out, dict(settings))]
    choices = [[(key, value) for value in _values(values)] for key, values in sweep]
    found = []
    for combination in itertools.product(*choices):
        name = ",".join(f"{key}={value}" for key, value in combination)
        found.append((out / name, {**settings, **dict(combination)}))
    return found


def _values(text: str) -> list[str]:
    """The values between commas, each once; a comma in parentheses belongs to a value."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return list(dict.fromkeys(value.strip() for value in found))


def _run_one(console: Console, one: Experiment, folder: Path, arguments: Any) -> bool:
    """Runs one experiment; false when it was interrupted."""
    console.print(_headline(one), highlight=False, soft_wrap=True)
    start = said = time.perf_counter()
    shown = -math.inf
    with Live(console=console, refresh_per_second=4) as live:

        def watch(training: Training, records: list[dict[str, Any]]) -> None:
            nonlocal said, shown
            now = time.perf_counter()
            if training.ended or now - shown > REFRESH:
                live.update(_view(records, now - start, training.step, max(8, min(WIDTH, console.width - 30))))
                shown = now
            if not console.is_terminal and now - said > LINES:
                console.print(_status(records, now - start, training.step), highlight=False, soft_wrap=True)
                said = now

        training = run_experiment(one, folder, device=arguments.device, resume=arguments.resume, watch=watch)
    if not console.is_terminal:
        console.print()  # the last line has not ended
    found = next((found for found in find_runs(folder) if found.folder == folder), None)
    if found is not None:
        for text in lines(found.config, found.records, read_json(folder / SUMMARY) if training.ended else {}):
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not training.ended:
        console.print(f"Interrupted at step {training.step}; the same command with --resume goes on.", highlight=False, soft_wrap=True)
        return False
    if found is None:
        console.print(f"The run {training.ended} before its first record.", highlight=False)
        return True
    draw(panels_of_run(found), folder / FIGURE)
    console.print(f"The figure is in {folder / FIGURE}.", highlight=False, soft_wrap=True)
    return True


def _headline(one: Experiment) -> str:
    sizes = " x ".join(map(str, one.mode_sizes))
    what = "entries" if one.task == "completion" else "measurements"
    return f"{one.name}, seed {one.seed}: {sizes} from {one.samples} {what}, {one.kind} factorization with {one.ranks} components a node"


def _view(records: Sequence[Mapping[str, Any]], seconds: float, step: int, width: int) -> RenderableType:
    """The largest components over the records as lines of bars, the number learned so far, loss and error."""
    last = records[-1]
    what, name = _shown(last)
    curves = [[record[what][name][place] for record in records] for place in range(min(SHOWN, len(last[what][name])))]
    top = max(curves[0])
    rows = [Text(f"{place:2}  {sparkline(curve, top, width):{width}}  {curve[-1]:.3g}") for place, curve in enumerate(curves, 1)]
    title = f"{'local components' if what == 'norms' else 'singular values'} at {name}"
    return Group(Text(title), *rows, Text(_status(records, seconds, step)))


def _shown(record: Mapping[str, Any]) -> tuple[str, str]:
    """What of a record is shown: local components of the root, or singular values where there are none."""
    what = "norms" if record["norms"] else "singular"
    return what, list(record[what])[-1 if what == "norms" else 0]


def _status(records: Sequence[Mapping[str, Any]], seconds: float, step: int) -> str:
    last = records[-1]
    count = len(learned(records, *_shown(last)).values)
    return f"step {step}, loss {last['loss']:.2e}, reconstruction error {last['error']:.4f}, {count} above threshold, {seconds:.0f} s"
