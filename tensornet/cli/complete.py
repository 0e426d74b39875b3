"""``tensornet complete``: fills in the missing entries of an array, a table or a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tensornet import files
from tensornet.cli import peers
from tensornet.cli.arguments import device, examples, positive, seed, share, sizes, tree
from tensornet.completion import TensorCompleter
from tensornet.files import Array, Partial
from tensornet.runs import Run
from tensornet.tree import ModeTree

CHECKPOINTS = 10  # a training


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["complete", "array.npy"]).steps
        400
    """
    parser = commands.add_parser(
        "complete",
        help="fill in the missing entries of an array, a table or a picture",
        description="Fills in what is missing in FILE: an array (.npy, .npz) with NaNs, a table (.csv, .parquet) of integer columns, "
        "counted from 0, and a value column, or a picture with an alpha channel or a mask. Without FILE: a photograph of which only a "
        "share of the pixels is known, with the error on the hidden ones beside TensorLy's masked CP and Tucker decompositions.",
        epilog=examples(
            "tensornet complete --out photograph.png",
            "tensornet complete measured.npy --out filled.npy --ranks 20",
            "tensornet complete ratings.csv --out predicted.csv --run folder   # again, after an interruption: it resumes",
            "tensornet complete damaged.png --mask known.png --out repaired.png",
        ),
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="what to complete; a photograph of scikit-learn's by default")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the completed tensor goes (completed, with FILE's suffix)")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="picture or array that is 0 where FILE is not known")
    parser.add_argument(
        "--fraction", type=share, default=0.3, metavar="P", help="share of the photograph's pixels that is known (default 0.3)"
    )
    parser.add_argument("--tree", type=tree, metavar="TREE", help="nested modes, such as ((0,1),2)")
    parser.add_argument("--ranks", type=sizes, metavar="R", help="local components of the interior nodes, or of each, children first")
    parser.add_argument("--steps", type=positive, default=400, metavar="N", help="training steps at most (default 400)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the initial weights, and of the photograph's known pixels")
    parser.add_argument("--device", type=device, default="cpu", help="where the computation runs (default cpu)")
    parser.add_argument(
        "--run", dest="folder", type=Path, metavar="DIR", help="folder of checkpoints, from which an interrupted run resumes"
    )
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``tensornet complete --help``.

    Raises:
        ValueError: A file is damaged or of another kind, or an option does not fit it.
        OSError: A file cannot be read or written.

    Example:
        >>> import tempfile
        >>> from tensornet.cli.arguments import Parser
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "a.npy", np.array([[1.0, 2.0], [2.0, np.nan]]))
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> chosen = parser.parse_args(["complete", str(folder / "a.npy"), "--out", str(folder / "b.npy"), "--steps", "5"])
        >>> run(chosen, Console(quiet=True))
        0
        >>> np.load(folder / "b.npy").shape
        (2, 2)
    """
    truth: Array | None = None
    if arguments.file is None:
        if arguments.mask is not None:
            raise ValueError("--mask says what of FILE is known; give a FILE with it")
        truth = _photograph()
        known = np.random.default_rng(arguments.seed).random(truth.shape[:2]) < arguments.fraction
        partial = Partial.of_array(truth, known)
        console.print(
            f"A photograph of {truth.shape[0]} x {truth.shape[1]} pixels, of which {known.mean():.0%} are known in all three channels."
        )
    else:
        partial = files.read(arguments.file, arguments.mask)
    out = arguments.out or Path("completed").with_suffix(arguments.file.suffix if arguments.file else ".png")
    if partial.wanted is None or files.known_suffix(out) not in files.TABLES:
        files.check_output(out, partial.sizes)
    completer = _completer(arguments, partial)
    _fit(completer, arguments, partial, console)
    if completer.interrupted_:
        console.print("Interrupted: the best state so far is written.")
    if partial.wanted is not None and files.known_suffix(out) in files.TABLES:
        files.write_table(out, partial.wanted, completer.predict(partial.wanted).cpu().numpy(), partial.columns)
    else:
        completed = completer.complete().cpu().numpy()
        filled = partial.fill(completed)
        files.write(out, filled)
        if truth is not None and not completer.interrupted_:
            console.print(_comparison(truth, partial, completed, console))
    console.print(f"Written: {out}", highlight=False)
    return 130 if completer.interrupted_ else 0


def _photograph() -> Array:
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image("china.jpg"), dtype=np.float64)


def _completer(arguments: Any, partial: Partial) -> TensorCompleter:
    nodes: Any = arguments.tree or "auto"
    ranks: Any = arguments.ranks or "auto"
    if isinstance(ranks, tuple):
        if not isinstance(nodes, ModeTree) or len(ranks) != len(nodes.interior):
            raise ValueError("--ranks needs one number, or with --tree one per interior node, children first")
        ranks = dict(zip(nodes.interior, ranks))
    return TensorCompleter(
        nodes,
        mode_sizes=partial.sizes,
        ranks=ranks,
        steps=arguments.steps,
        seed=arguments.seed,
        device=arguments.device,
    )


def _fit(completer: TensorCompleter, arguments: Any, partial: Partial, console: Console) -> None:
    """Trains with a progress bar; with a folder, from its newest checkpoint and with new ones."""
    folder = None
    if arguments.folder is not None:
        config = {**completer.get_params(), "entries": len(partial.values), "sum": float(np.abs(partial.values).sum())}
        folder = Run(arguments.folder, {name: str(value) for name, value in config.items()}, resume=True)
    state = folder.restore() if folder else None
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console.quiet) as bar:
        task = bar.add_task("starting", total=completer.steps)

        def show(progress: Any) -> None:
            held_out = "" if progress.held_out is None else f"   held out {progress.held_out:.4f}"
            bar.update(task, completed=progress.step, description=f"step {progress.step}   loss {progress.loss:.4f}{held_out}")
            if folder and (progress.step % max(1, completer.steps // CHECKPOINTS) == 0 or progress.step == completer.steps):
                folder.record(step=progress.step, loss=progress.loss, held_out=progress.held_out)
                folder.checkpoint(progress.state)

        completer.fit(partial.indices, partial.values, callback=show, state=state)
    if folder:
        folder.checkpoint(completer.state_)
        if not completer.interrupted_:
            folder.finish(steps=completer.n_iter_)


def _comparison(truth: Array, partial: Partial, completed: Array, console: Console) -> Table:
    """Peak signal-to-noise ratios on the hidden pixels, TensorLy's decompositions on the same known pixels among them."""
    mask = np.zeros(truth.shape)
    mask[tuple(partial.indices.T)] = 1
    found = {"tensornet": _psnr(truth, completed, mask)}
    with console.status("TensorLy's decompositions of the same pixels"):
        for name, ways in peers.completions(partial.sizes, partial.indices, partial.values, 0).items():
            for setting, complete in ways:
                found[f"{name}, {setting}"] = _psnr(truth, complete(), mask)
    table = Table(title="On the hidden pixels")
    table.add_column("")
    table.add_column("PSNR", justify="right")
    for name, value in found.items():
        table.add_row(name, f"{value:.2f} dB")
    return table


def _psnr(truth: Array, completed: Array, mask: Array) -> float:
    error = float(np.square(np.clip(completed, 0, 255) - truth)[mask == 0].mean())
    return 10 * math.log10(255**2 / error)
