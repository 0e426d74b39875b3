"""``cnn-reg data``: makes the files of the data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from cnn_reg.data import baseline, pair_file, pathfinder_file, sources
from tensornet.cli.arguments import examples, positive, seed

PAIRS = {"train": 5_000, "test": 10_000}
SHOWN = 2_000  # images at most from which the statistics of pixels are taken


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["data", "pathfinder", "--path-length", "7", "--out", "images.safetensors"]).num_images
        20000
    """
    parser = commands.add_parser("data", help="make the files of the data sets", description="Makes the files of the data sets.")
    kinds = parser.add_subparsers(metavar="COMMAND", title="data sets", required=True)
    _add_pathfinder(kinds)
    _add_same_class(kinds)


def _add_pathfinder(kinds: Any) -> None:
    parser = kinds.add_parser(
        "pathfinder",
        help="images of paths: are two circles on the same one?",
        description=(
            "Draws Pathfinder images, 300 x 300, into a file. Each depends only on seed, path length and its number. Ctrl-C keeps what\n"
            "there is, and the same command continues. At the end it prints statistics, and how often the distance of the circles alone\n"
            "predicts the label."
        ),
        epilog=examples("cnn-reg data pathfinder --path-length 7 --num-images 20000 --seed 0 --out pathfinder-7.safetensors"),
    )
    parser.add_argument(
        "--path-length", type=positive, required=True, metavar="N", help="paddles of a path, from 3 to 20; the paper: 3 to 11"
    )
    parser.add_argument("--num-images", type=positive, default=20_000, metavar="N", help="how many (default 20000, half to test on)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the images (default 0)")
    parser.add_argument(
        "--matched", action="store_true", help="the same distances of the circles in both classes, so that they say nothing"
    )
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write")
    parser.set_defaults(run=run_pathfinder)


def _add_same_class(kinds: Any) -> None:
    parser = kinds.add_parser(
        "same-class",
        help="pairs of pictures: do both show the same class?",
        description="Draws pairs of pictures into a file. It holds their numbers alone, and serves every distance between the pictures.",
        epilog=examples(
            "cnn-reg data same-class --source cifar10 --split train --num-pairs 5000 --out pairs-train.safetensors",
            "cnn-reg data same-class --source digits --split test --num-pairs 1000 --out digits-test.safetensors",
        ),
    )
    parser.add_argument("--source", default="cifar10", metavar="NAME", help=f"{', '.join(sources.NAMES)} (default cifar10)")
    parser.add_argument("--split", choices=tuple(PAIRS), default="train", help="which of the source's pictures (default train)")
    parser.add_argument("--num-pairs", type=positive, metavar="N", help="how many (default 5000 to train, 10000 to test)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the pairs (default 0)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where CIFAR10 lies, or is downloaded to")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write")
    parser.set_defaults(run=run_same_class)


def run_pathfinder(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg data pathfinder --help``.

    Raises:
        ValueError: The path length does not fit, or there are other images at the place.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> out = str(Path(tempfile.mkdtemp(), "images.safetensors"))
        >>> line = ["data", "pathfinder", "--path-length", "3", "--num-images", "20", "--out", out]
        >>> run_pathfinder(parser.parse_args(line), Console(quiet=True))
        0
    """
    count, done = arguments.num_images, 0
    columns = ("[progress.description]{task.description}", BarColumn(), "{task.completed}/{task.total}", "{task.fields[rate]}")
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("drawing", total=count, rate="")
        try:
            for done in pathfinder_file.write(
                arguments.out, arguments.path_length, count, arguments.seed, matched=arguments.matched, workers=arguments.workers
            ):
                bar.update(task, completed=done)
                bar.update(task, rate=f"{bar.tasks[0].finished_speed or bar.tasks[0].speed or 0:.0f} images/s")
        except KeyboardInterrupt:
            console.print(f"Interrupted; {done} of {count} images are kept, and the same command continues.", highlight=False)
            return 130
    _tell(arguments.out, console)
    return 0


def _tell(path: Path, console: Console) -> None:
    found = pathfinder_file.read(path)
    labels, distances = found.known["labels"], found.known["distance"]
    shown = baseline.statistics(found.images(0, SHOWN), labels[:SHOWN], distances[:SHOWN])
    lines = [
        f"{len(labels)} images in {path} ({path.stat().st_size / 1e6:.1f} MB), {int(labels.sum())} of them connected.",
        f"Mean {shown['mean']:.5f} (deviation over images {shown['mean_std']:.5f}), {shown['bright']:.5f} of the pixels above 127.",
        f"Distance of the circles: {shown['connected']:.1f} +- {shown['connected_std']:.1f} connected, "
        f"{shown['apart']:.1f} +- {shown['apart_std']:.1f} not.",
    ]
    if len(labels) > 1:
        share = baseline.halves(distances, labels)
        lines.append(f"The distance alone predicts {share:.3f} of the labels (a band chosen on one half, measured on the other).")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def run_same_class(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg data same-class --help``.

    Raises:
        ValueError: There is no such source.
        OSError: CIFAR10 cannot be had, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> out = str(Path(tempfile.mkdtemp(), "pairs.safetensors"))
        >>> run_same_class(parser.parse_args(["data", "same-class", "--source", "random", "--out", out]), Console(quiet=True))
        0
    """
    count = arguments.num_pairs or PAIRS[arguments.split]
    made = pair_file.write(arguments.out, arguments.source, arguments.split, count, arguments.seed, folder=arguments.folder)
    console.print(
        f"{count} pairs of {made['config']['title']}, {arguments.split} pictures, in {arguments.out}; {int(made['labels'].sum())} are of "
        "one class. The file serves every distance.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0
