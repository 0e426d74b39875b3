"""``tensornet complete``: fills in the missing entries of an array, a table or a picture."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn
from rich.table import Table

from tensornet.cli import peers
from tensornet.cli.arguments import INTERRUPTED, device, examples, positive, seed, share, sizes, tree
from tensornet.completion.completer import TensorCompleter
from tensornet.completion.fitting import Progress as Seen
from tensornet.contraction.execute import available_memory
from tensornet.files import partial, tables
from tensornet.files.partial import Partial
from tensornet.files.pictures import photograph
from tensornet.files.runs import Run

Entries = tuple[NDArray[Any], NDArray[Any]]  # indices (B, N) and values (B,)
SHARE = 0.3  # of the photograph's pixels that are known
HELD_OUT = 0.02  # share of a picture's known pixels that chooses the best state
STATE_BYTES = 32  # for every weight: itself, its gradient, and copies in the optimizer and in the states that are kept
SECONDS = 2.0  # at least, between checkpoints


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
            "Known entries of arrays and pictures stay as they are. A few are held out of the training to choose the best state, and to\n"
            "end it when they no longer improve; errors that are shown are mean squares relative to the variance of the known entries.\n"
            "Ctrl-C ends the training, and what has been learned is written; with --run, the same command continues it."
        ),
        epilog=examples(
            "tensornet complete --out photograph.png",
            "tensornet complete measurements.npy --out completed.npy",
            "tensornet complete ratings.csv --out predictions.csv --ranks 10 --smooth none",
            "tensornet complete damaged.png --mask mask.png --out repaired.png --run repair",
            "tensornet complete photograph.jpg --fraction 0.1 --out from-a-tenth.png",
        ),
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="what to complete; by default the photograph")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the result; needed with a file")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="array, or picture of black for missing and white for known entries")
    parser.add_argument(
        "--fraction",
        type=share,
        metavar="F",
        help="keep only this share of the known entries (pixels), and report the error on the others (default for the photograph 0.3)",
    )
    parser.add_argument("--tree", type=tree, metavar="TREE", help="nested modes, such as ((0,1),(2,3)) (default balanced)")
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
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of all random choices (default 0)")
    parser.add_argument("--device", type=device, default="cpu", metavar="D", help="where to compute: cpu, cuda, ... (default cpu)")
    parser.add_argument("--run", dest="folder", type=Path, metavar="DIR", help="folder for checkpoints; a run that is there is continued")
    parser.add_argument("--no-peers", action="store_true", help="leave TensorLy out")
    parser.set_defaults(run=run)


def _smooth(text: str) -> Any:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    found = sizes(text)
    return dict(enumerate(found)) if isinstance(found, tuple) else found


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
    fraction = arguments.fraction or (None if arguments.file else SHARE)
    known, hidden = _hide(_read(arguments), fraction, arguments.seed)
    _check_sizes(known, arguments.ranks or 1)
    if arguments.tree and arguments.tree.order != len(known.sizes):
        raise ValueError(f"--tree needs the {len(known.sizes)} modes of the entries; got {arguments.tree.order}")
    if isinstance(arguments.smooth, dict) and len(arguments.smooth) != len(known.sizes):
        raise ValueError(f"--smooth needs one length or {len(known.sizes)}, one a mode; got {len(arguments.smooth)}")
    if arguments.out:
        if arguments.file and arguments.out.exists() and arguments.out.samefile(arguments.file):
            raise ValueError(f"--out must be another file than the one to complete; got {arguments.out} for both")
        _check_output(arguments.out, known)
    count = f"{len(known.values)} of {math.prod(known.sizes)} entries known"
    name = arguments.file or "The photograph china.jpg of scikit-learn"
    console.print(f"{name}: {' x '.join(map(str, known.sizes))}, {count}", highlight=False, soft_wrap=True)
    completer = TensorCompleter(
        arguments.tree or "auto",
        mode_sizes=known.sizes,
        ranks=arguments.ranks or "auto",
        smooth=arguments.smooth,
        steps=arguments.steps,
        seed=arguments.seed,
        device=arguments.device,
    )
    start = time.perf_counter()
    _fit(completer, known, arguments, console)
    seconds = time.perf_counter() - start
    _tell(completer, arguments, console)
    if arguments.out:
        _write(arguments.out, known, completer)
        console.print(f"The result is in {arguments.out}.", highlight=False, soft_wrap=True)
    if len(hidden[1]) and not completer.interrupted_:
        _report(known, hidden, completer, seconds, arguments, console)
    return INTERRUPTED if completer.interrupted_ else 0


def _tell(completer: TensorCompleter, arguments: Any, console: Console) -> None:
    """Says how the training ended, and with what."""
    best = completer.state_["best"]
    how = "Interrupted" if completer.interrupted_ else "Ended" if completer.n_iter_ == completer.steps else "No longer improved, ended"
    console.print(
        f"{how} after {completer.n_iter_} steps; the best state, of step {best['step']}, has the error {best['error']:.4f} "
        f"(tree {completer.htf_.tree.to_nested()}, rank {max(completer.htf_.ranks.values())}).",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if completer.interrupted_ and arguments.folder:
        console.print("The same command continues it.", highlight=False)


def _read(arguments: Any) -> Partial:
    if arguments.file is None:
        if arguments.mask:
            raise ValueError("--mask needs a file to complete")
        return Partial.of_array(photograph(), kind="picture")
    if not arguments.out:
        raise ValueError("--out is needed with a file to complete")
    given = partial.read(arguments.file, arguments.mask)
    if not arguments.fraction and given.wanted is None and len(np.unique(given.indices, axis=0)) == math.prod(given.sizes):
        raise ValueError(f"{arguments.file}: no entry is missing, so there is nothing to complete; --mask or --fraction can hide some")
    return given


def _hide(given: Partial, fraction: float | None, number: int) -> tuple[Partial, Entries]:
    """What to learn from, and the entries that are hidden from the learner."""
    keep = given.chosen(fraction, number) if fraction else np.ones(len(given.values), dtype=bool)
    return replace(given, indices=given.indices[keep], values=given.values[keep]), (given.indices[~keep], given.values[~keep])


def _check_output(path: Path, known: Partial) -> None:
    partial.check_output(path, known.sizes)
    if path.suffix.lower() in tables.SUFFIXES:
        known.missing()
    elif 32 * math.prod(known.sizes) > available_memory(torch.device("cpu")):
        raise ValueError(f"an array of {' x '.join(map(str, known.sizes))} does not fit into memory; a table of the wanted entries may")


def _check_sizes(known: Partial, ranks: int) -> None:
    needed = STATE_BYTES * ranks * sum(known.sizes)
    if needed > available_memory(torch.device("cpu")):
        names = " x ".join(map(str, known.sizes))
        raise ValueError(f"the weights for {names} entries do not fit into memory; indices without gaps, or fewer --ranks, need less")


def _fit(completer: TensorCompleter, known: Partial, arguments: Any, console: Console) -> None:
    """Fits, with a progress bar and, where a folder is given, checkpoints."""
    store = Run(arguments.folder, _configuration(completer, known), resume=True) if arguments.folder else None
    state = store.restore() if store else None
    train, rest = (known.indices, known.values), None
    if known.kind == "picture":  # held out channel by channel, they would be too easy to predict from the other channels
        chosen = known.chosen(HELD_OUT, arguments.seed + 1)
        if not chosen.all():
            train, rest = ((known.indices[where], known.values[where]) for where in (~chosen, chosen))
    columns = ("[progress.description]{task.description}", BarColumn(), "{task.completed}/{task.total}", "{task.fields[errors]}")
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("learning", total=completer.steps, errors="", completed=state["step"] if state else 0)
        saved = time.perf_counter()

        def show(seen: Seen) -> None:
            nonlocal saved
            held_out = "" if seen.held_out is None else f", held out {seen.held_out:.4f}"
            bar.update(task, completed=seen.step, errors=f"loss {seen.loss:.4f}{held_out}")
            if store:
                store.record(step=seen.step, loss=seen.loss, held_out=seen.held_out)
                if seen.step == seen.steps or time.perf_counter() - saved > SECONDS:
                    store.checkpoint(seen.state)
                    saved = time.perf_counter()

        completer.fit(*train, held_out=rest, callback=show, state=state)
    if store:
        store.checkpoint(completer.state_)
        if not completer.interrupted_:
            store.finish(steps=completer.n_iter_, best=completer.state_["best"]["step"], error=completer.state_["best"]["error"])


def _configuration(completer: TensorCompleter, known: Partial) -> dict[str, Any]:
    """What determines a run: the parameters, and a digest of the entries."""
    digest = hashlib.sha256(np.ascontiguousarray(known.indices).tobytes() + known.values.tobytes()).hexdigest()
    parameters = {name: value for name, value in completer.get_params().items() if name not in ("device", "warm_start")}
    return {
        "entries": digest,
        **{name: value if isinstance(value, str | int | float | None) else str(value) for name, value in parameters.items()},
    }


def _write(path: Path, known: Partial, completer: TensorCompleter) -> None:
    if path.suffix.lower() in tables.SUFFIXES:
        missing = known.missing()
        partial.write_entries(path, missing, completer.predict(missing).cpu().numpy(), known.names)
    else:
        partial.write(path, known.fill(completer.complete().cpu().numpy()))


def _report(known: Partial, hidden: Entries, completer: TensorCompleter, seconds: float, arguments: Any, console: Console) -> None:
    """Prints how well the hidden entries were predicted, beside TensorLy's best."""
    measure, name = (_psnr, "PSNR on hidden pixels") if known.kind == "picture" else (_r_squared, "R^2 on hidden entries")
    table = Table("method", "setting", name, "time", title_justify="left")
    quality = measure(completer.predict(hidden[0]).cpu().numpy(), hidden[1])
    table.add_row("tensornet", f"rank {max(completer.htf_.ranks.values())}", f"{quality:.2f}", f"{seconds:.1f} s")
    for method, settings in (
        {} if arguments.no_peers else peers.completions(known.sizes, known.indices, known.values, arguments.seed)
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
