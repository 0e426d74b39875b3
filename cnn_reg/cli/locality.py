"""``cnn-reg locality``: pictures of how local trained networks are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cnn_reg.cli.options import add_data
from cnn_reg.config import Config, as_dict
from cnn_reg.figures import draw_locality
from cnn_reg.locality_profile import locality_profile
from cnn_reg.networks import build_network
from cnn_reg.results.wording import varying, words
from cnn_reg.tasks import make_task
from cnn_reg.trained import load_network
from tensornet.cli.arguments import device, examples, positive
from tensornet.files.storage import write_json

IMAGES = 32  # measured with


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["locality", "runs/a"]).images
        32
    """
    parser = commands.add_parser(
        "locality",
        help="show how local trained networks are",
        description=(
            "Measures the networks of one or several runs on test images, and draws them side by side: mean |cos| by the distance between\n"
            "patches (what the penalty lowers), the effective receptive field of the last convolution, and the singular values of the\n"
            "outputs over a grid of inputs in two regions (a lower bound of the separation rank, Definition 6 of the paper). All are\n"
            "measured on the test images of the first run."
        ),
        epilog=examples("cnn-reg locality runs/plain runs/regularized --out locality.png"),
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="a run's folder, or its checkpoint")
    parser.add_argument("--out", type=Path, default=Path("locality.png"), metavar="FILE", help="the picture (default locality.png)")
    parser.add_argument("--images", type=positive, default=IMAGES, metavar="N", help=f"test images (default {IMAGES})")
    parser.add_argument("--untrained", action="store_true", help="also show the first run's network before training")
    add_data(parser)
    parser.add_argument("--device", type=device, default="cpu", metavar="D", help="where to compute (default cpu)")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg locality --help``.

    Raises:
        ValueError: A checkpoint is damaged or of another program, or the runs' images are of several data sets or sizes.
        OSError: A file cannot be read or written.

    Example:
        >>> run.__name__
        'run'
    """
    loaded = [load_network(path) for path in arguments.checkpoints]
    kinds = sorted({f"{config.dataset} at {config.image_size}" for config, _ in loaded})
    if len(kinds) > 1:
        raise ValueError(f"runs are compared on images of one data set and size; got {', '.join(kinds)}")
    task = make_task(loaded[0][0], arguments.data, arguments.device)
    varied = varying([config for config, _ in loaded])
    differing = {"coefficient", "seed", *varied} - {"test_images"}
    title = f"{task.title} (the first run's images)" if {"path_length", "distance"} & set(varied) else task.title
    networks = [(_title(config, differing), network) for config, network in loaded]
    if arguments.untrained:
        first = loaded[0].config
        torch.manual_seed(first.seed)
        network = build_network(first.model, task.train.channels, task.train.image_size, dropout=first.dropout, width=first.width)
        networks.insert(0, ("before training", network))
    images = task.test.batch(torch.arange(min(arguments.images, len(task.test))))
    found = [
        locality_profile(title, network.to(images.device), images)
        for title, network in track(networks, "measuring", console=console, transient=True)
    ]
    table = Table("network", "mean |cos| near", "far", "receptive radius", "separation rank", "effective rank", title=title)
    for row in found:
        near, far = row["cosines"][0], row["cosines"][-1]
        cells = (f"{near['mean']:.4f}", f"{far['mean']:.4f}", f"{row['radius']:.1f} px", str(row["rank"]), f"{row['effective_rank']:.2f}")
        table.add_row(row["title"], *cells)
    console.print(table)
    draw_locality(arguments.out, found, title=title)
    write_json(arguments.out.with_suffix(".json"), found)
    console.print(
        f"The picture is {arguments.out}, its numbers are in {arguments.out.with_suffix('.json')}.", soft_wrap=True, highlight=False
    )
    return 0


def _title(config: Config, fields: Collection[str]) -> str:
    return words((name, value) for name, value in as_dict(config).items() if name in fields)
