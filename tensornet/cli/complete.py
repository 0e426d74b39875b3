"""``tensornet complete``: fills in the missing entries of an array, a table or a picture."""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tensornet.checks import choice
from tensornet.cli import peers
from tensornet.cli.arguments import INTERRUPTED, assignment, device, examples, positive, seed, share, tree
from tensornet.cli.given import LEARNED, Entries, open_given, read_given
from tensornet.cli.learning import learn
from tensornet.completion.completer import TensorCompleter
from tensornet.completion.fitting import Settings
from tensornet.completion.survey import check_validation
from tensornet.distributed import ProcessEndedError, Processes, processes
from tensornet.files import partial, tables
from tensornet.files.objects import save
from tensornet.files.partial import Partial
from tensornet.interrupts import signals

HELD_OUT = 0.02  # share of a picture's known pixels that chooses the best state, unless another one is set
SETTINGS = {  # of TensorCompleter, which --set changes
    "penalty": float,
    "weight_decay": float,
    "optimizer": str,
    "lr": float,
    "validation": float,
    "patience": int,
    "init_scale": float,
}


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["complete", "table.csv", "--out", "full.csv"]).file
        PosixPath('table.csv')
    """
    parser = commands.add_parser(
        "complete",
        help="fill in the missing entries of an array, a table or a picture",
        description=(
            "Fills in the missing entries of a file:\n"
            "  .npy, .npz      an array of numbers, NaN where they are missing\n"
            "  .csv, .parquet  a table with a column of integers from 0 for every mode, and a last column of values; entries without\n"
            "                  a value are filled in, or all that are not listed where every row has one; the result lists these\n"
            "  pictures        transparent pixels are missing\n"
            "or, without a file, of a photograph that scikit-learn ships, beside TensorLy's masked CP and Tucker decompositions.\n"
            "The result is written in one of these formats too, or as .safetensors: what was learned, for tensornet.load and its predict.\n"
            "Known entries of arrays and pictures stay as they are. A few are held out of the training to choose the best state, and to\n"
            "end it when they no longer improve; errors that are shown are mean squares relative to the variance of the known entries.\n"
            "Ctrl-C ends the training, and what has been learned is written; with --run, the same command continues it.\n"
            "Entries that do not fit into memory stay on the disk with --stream or --values; only .safetensors can then be written.\n"
            "torchrun starts several processes that share the entries of every step (-- keeps options from torchrun)."
        ),
        epilog=examples(
            "tensornet complete --out photograph.png",
            "tensornet complete measurements.npy --out completed.npy",
            "tensornet complete ratings.csv --out predictions.csv --ranks 10 --smooth none",
            "tensornet complete damaged.png --mask mask.png --out repaired.png --run repair",
            "tensornet complete photograph.jpg --fraction 0.1 --out from-a-tenth.png",
            "tensornet complete ratings.parquet --stream --batch 100000 --out ratings.safetensors",
            "tensornet complete order8.npy --out full.npy --set penalty=0 --set weight_decay=0 --set init_scale=0.001",
            "torchrun --nproc-per-node 2 -m -- tensornet complete indices.npy --values values.npy --batch 100000 --out learned.safetensors",
        ),
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="what to complete; by default the photograph")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the result; needed with a file")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="array, or picture of black for missing and white for known entries")
    parser.add_argument(
        "--values",
        type=Path,
        metavar="FILE",
        help=".npy file of the values (B,) of the indices (B, N) in FILE, also .npy; both stay on the disk",
    )
    parser.add_argument("--stream", action="store_true", help="leave a .parquet table on the disk, and read its row groups when needed")
    parser.add_argument(
        "--fraction",
        type=share,
        metavar="F",
        help="keep only this share of the known entries (pixels), and report the error on the others (default for the photograph 0.3)",
    )
    parser.add_argument("--tree", type=tree, metavar="TREE", help="such as ((0,1),(2,3)) (default: a star up to order 3, else balanced)")
    parser.add_argument(
        "--ranks",
        type=positive,
        metavar="R",
        help="local components of every interior node (default 128, fewer where few entries are known)",
    )
    parser.add_argument(
        "--smooth",
        type=_smooth,
        default="auto",
        metavar="LENGTHS",
        help="correlation length of the modes in indices, or one each such as 5,5,0; none for none (default: estimated of the entries)",
    )
    parser.add_argument("--steps", type=positive, default=1000, metavar="N", help="steps at most (default 1000)")
    parser.add_argument("--batch", type=positive, metavar="N", help="entries of a step, in a random order (default: all in every step)")
    parser.add_argument(
        "--set",
        type=assignment,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"another setting of TensorCompleter: {', '.join(SETTINGS)}; may be repeated",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of all random choices (default 0)")
    parser.add_argument("--device", type=device, default="cpu", metavar="D", help="where to compute: cpu, cuda, ... (default cpu)")
    parser.add_argument("--run", dest="folder", type=Path, metavar="DIR", help="folder for checkpoints; a run that is there is continued")
    parser.add_argument("--no-peers", action="store_true", help="leave TensorLy out")
    parser.set_defaults(run=run)


def _smooth(text: str) -> Any:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"a length is needed, several with commas between, auto or none; got {text!r}") from None
    return dict(enumerate(found)) if len(found) > 1 else found[0]


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``tensornet complete --help``.

    Raises:
        ValueError: A file holds something else, or arguments do not fit together.
        OSError: A file cannot be read or written.
        MemoryLimitError: The completed array does not fit into memory.

    Example:
        >>> import tempfile
        >>> from tensornet.cli.arguments import Parser
        >>> path = Path(tempfile.mkdtemp(), "grid.npy")
        >>> np.save(path, np.where(np.eye(6), np.nan, np.add.outer(np.arange(6.0), np.arange(6))))
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> chosen = parser.parse_args(["complete", str(path), "--out", str(path.with_name("out.npy")), "--steps", "20"])
        >>> run(chosen, Console(quiet=True))
        0
        >>> bool(np.isfinite(np.load(path.with_name("out.npy"))).all())
        True
    """
    with processes(arguments.device) as (joined, place):
        if joined.rank:  # the first process speaks for all
            console = Console(quiet=True)
            warnings.simplefilter("ignore")
        try:
            with signals() if joined.size > 1 else contextlib.nullcontext():
                return _complete(arguments, console, joined, place)
        except ProcessEndedError:  # where torchrun sends SIGTERM to the others: they end by themselves, once they have said why
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise


def _complete(arguments: Any, console: Console, joined: Processes, place: torch.device) -> int:
    settings = _settings(arguments.set)
    held_out_share = settings.get("validation", HELD_OUT)
    data = joined.together(lambda: open_given(arguments) if arguments.stream or arguments.values else read_given(arguments, held_out_share))
    name = arguments.file or "The photograph china.jpg of scikit-learn"
    console.print(f"{name}: {data.text}", highlight=False, soft_wrap=True)
    completer = TensorCompleter(
        arguments.tree or "auto",
        mode_sizes=data.known.sizes if data.known else None,
        ranks=arguments.ranks or "auto",
        smooth=arguments.smooth,
        steps=arguments.steps,
        batch_size=arguments.batch,
        seed=arguments.seed,
        device=place,
        **settings,
    )
    start = time.perf_counter()
    learn(completer, data.given, data.held_out, data.digest, arguments.folder, joined, console)
    seconds = time.perf_counter() - start
    learned = math.isfinite(completer.state_["best"]["error"])  # not so before the first step, and where the loss was never finite

    def end() -> None:
        if not learned:
            console.print("Nothing was learned, and nothing is written.", highlight=False)
            return
        _tell(completer, arguments, console)
        if arguments.out:
            _write(arguments.out, data.known, completer)
            console.print(f"The result is in {arguments.out}.", highlight=False, soft_wrap=True)
        if data.known and len(data.hidden[1]):
            _report(data.known, data.hidden, completer, seconds, arguments, console)

    joined.together(end if joined.rank == 0 else (lambda: None))
    return INTERRUPTED if completer.interrupted_ else 0 if learned else 2


def _settings(assignments: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Arguments of the completer that are set by name."""
    found: dict[str, Any] = {}
    for name, text in assignments:
        choice("setting", name, SETTINGS)
        try:
            found[name] = SETTINGS[name](text)
        except ValueError:
            raise ValueError(f"{name} must be {'an integer' if SETTINGS[name] is int else 'a number'}; got {text!r}") from None
    check_validation(found.get("validation", 0))
    Settings((), **{name: value for name, value in found.items() if name != "validation"})  # checks them
    return found


def _tell(completer: TensorCompleter, arguments: Any, console: Console) -> None:
    """Says how the training ended, and with what."""
    best = completer.state_["best"]
    how = "Interrupted" if completer.interrupted_ else "Ended" if completer.n_iter_ == completer.steps else "No longer improved, ended"
    found = completer.hierarchical_ranks_
    rank = "" if found else f", rank {max(completer.htf_.ranks.values())}"
    console.print(
        f"{how} after {completer.n_iter_} steps; the best state, of step {best['step']}, has the error {best['error']:.4g} "
        f"(tree {completer.htf_.tree.to_nested()}{rank}).",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if found:
        console.print(f"With hierarchical ranks up to {max(found.values())} it is {completer.error_:.4g}.", highlight=False)
    if completer.interrupted_ and arguments.folder:
        console.print("The same command continues it.", highlight=False)


def _write(path: Path, known: Partial | None, completer: TensorCompleter) -> None:
    if known is None or path.suffix.lower() == LEARNED:
        save(path, completer)
    elif path.suffix.lower() in tables.SUFFIXES:
        missing = known.missing()
        partial.write_entries(path, missing, completer.predict(missing).cpu().numpy(), known.names)
    else:
        partial.write(path, known.fill(completer.complete().cpu().numpy()))


def _report(known: Partial, hidden: Entries, completer: TensorCompleter, seconds: float, arguments: Any, console: Console) -> None:
    """Prints how well the hidden entries were predicted, beside TensorLy's best unless the training was interrupted."""
    measure, name = (_psnr, "PSNR on hidden pixels") if known.kind == "picture" else (_r_squared, "R^2 on hidden entries")
    table = Table("method", "setting", name, "time", title_justify="left")
    quality = measure(completer.predict(hidden[0]).cpu().numpy(), hidden[1])
    ranks = completer.hierarchical_ranks_ or completer.htf_.ranks
    table.add_row("tensornet", f"rank {max(ranks.values())}", f"{quality:.2f}", f"{seconds:.1f} s")
    for method, settings in (
        {} if arguments.no_peers or completer.interrupted_ else peers.completions(known.sizes, known.indices, known.values, arguments.seed)
    ).items():
        found = []
        for setting, complete in settings:
            with console.status(f"{method}, {setting}"):
                start = time.perf_counter()
                predicted = complete()[tuple(hidden[0].T)]
                found.append((measure(predicted, hidden[1]), setting, time.perf_counter() - start))
        quality, setting, seconds = max(found)
        table.add_row(method, f"{setting}, best of {len(found)}", f"{quality:.2f}", f"{seconds:.1f} s")
    console.print(table)


def _psnr(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in decibels of values from 0 to 255."""
    return float(10 * np.log10(255**2 / max(np.square(np.clip(predicted, 0, 255) - true).mean(), 1e-12)))


def _r_squared(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    spread = np.square(np.abs(true - true.mean())).mean()
    return float(1 - np.square(np.abs(predicted - true)).mean() / spread) if spread else math.nan
