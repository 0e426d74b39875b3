"""``cnn-reg locality``: pictures of how local trained networks are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from cnn_reg.config import Config
from cnn_reg.figures import draw_locality
from cnn_reg.locality import cosines_by_distance, effective_receptive_field, estimated_separation
from cnn_reg.networks import build_network
from cnn_reg.regions import Region
from cnn_reg.tasks import Task, make_task
from tensornet.cli.arguments import device, examples, positive
from tensornet.files.runs import CHECKPOINT, CONFIG
from tensornet.files.storage import read_json, read_nested, write_json

IMAGES = 32  # measured with
DISTANCES = 8  # measured at


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
            "outputs over a grid of inputs in two regions (a lower bound of the separation rank, Definition 6 of the paper)."
        ),
        epilog=examples("cnn-reg locality runs/plain runs/regularized --out locality.png"),
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="a run's folder, or its checkpoint")
    parser.add_argument("--out", type=Path, default=Path("locality.png"), metavar="FILE", help="the picture (default locality.png)")
    parser.add_argument("--images", type=positive, default=IMAGES, metavar="N", help=f"test images (default {IMAGES})")
    parser.add_argument("--untrained", action="store_true", help="also show the first run's network before training")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets' files")
    parser.add_argument("--device", type=device, default="cpu", metavar="D", help="where to compute (default cpu)")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg locality --help``.

    Raises:
        ValueError: A checkpoint is damaged or of another program, or the runs have images of several sizes.
        OSError: A file cannot be read or written.

    Example:
        >>> run.__name__
        'run'
    """
    loaded = [_load(path) for path in arguments.checkpoints]
    sizes = {config.image_size for config, _ in loaded}
    if len(sizes) > 1:
        raise ValueError(f"runs are compared on images of one size; got {', '.join(map(str, sorted(sizes)))}")
    task = make_task(loaded[0][0], arguments.data, arguments.device)
    networks = [(_title(config), _network(config, task, state)) for config, state in loaded]
    if arguments.untrained:
        torch.manual_seed(loaded[0][0].seed)
        networks.insert(0, ("before training", _network(loaded[0][0], task, None)))
    images = task.test.batch(torch.arange(min(arguments.images, len(task.test))))
    found = [
        measure(title, net.to(images.device), images, task) for title, net in track(networks, "measuring", console=console, transient=True)
    ]
    table = Table("network", "mean |cos| near", "far", "receptive radius", "separation rank", "effective rank", title=task.title)
    for row in found:
        near, far = row["cosines"][0], row["cosines"][-1]
        cells = (f"{near['mean']:.4f}", f"{far['mean']:.4f}", f"{row['radius']:.1f} px", str(row["rank"]), f"{row['effective_rank']:.2f}")
        table.add_row(row["title"], *cells)
    console.print(table)
    draw_locality(arguments.out, found, title=task.title)
    write_json(arguments.out.with_suffix(".json"), found)
    console.print(
        f"The picture is {arguments.out}, its numbers are in {arguments.out.with_suffix('.json')}.", soft_wrap=True, highlight=False
    )
    return 0


def measure(title: str, network: nn.Module, images: torch.Tensor, task: Task) -> dict[str, Any]:
    """Everything that is drawn of a network, as numbers and lists.

    Example:
        >>> measure.__name__
        'measure'
    """
    size = min(task.test.image_size)
    generator = torch.Generator().manual_seed(0)
    patch = max(2, size // 50)
    distances = [round(2 * patch * (0.7 * size / (2 * patch)) ** (step / (DISTANCES - 1))) for step in range(DISTANCES)]
    cosines = cosines_by_distance(network, images, sorted(set(distances)), patch_size=patch, generator=generator)
    field = effective_receptive_field(network, images)
    side = size // 4
    middle = (size - side) // 2
    separation = estimated_separation(network, images, Region(middle, 0, side, side), Region(middle, size - side, side, side))
    return {
        "title": title,
        "cosines": [{"distance": row.distance, "mean": row.mean, "quantiles": list(row.quantiles), "zero": row.zero} for row in cosines],
        "field": field.energy.tolist(),
        "radius": field.radius,
        "singular_values": separation.singular_values.tolist(),
        "rank": separation.rank,
        "effective_rank": separation.effective_rank,
    }


def _load(path: Path) -> tuple[Config, dict[str, Any]]:
    folder = path if path.is_dir() else path.parent
    fields = read_json(folder / CONFIG)
    if not isinstance(fields, dict) or "version" not in fields:
        raise ValueError(f"{folder / CONFIG} is no configuration of cnn-reg train")
    try:
        config = Config(**{name: value for name, value in fields.items() if name != "version"})
    except TypeError as error:
        raise ValueError(f"{folder / CONFIG} is no configuration of cnn-reg train ({error})") from None
    state = read_nested(folder / CHECKPOINT if path.is_dir() else path, kind="checkpoint")["state"]
    return config, state["model"]


def _title(config: Config) -> str:
    return f"coefficient {config.coefficient:g}, seed {config.seed}"


def _network(config: Config, task: Task, state: dict[str, Any] | None) -> nn.Module:
    network = build_network(config.model, task.train.channels, task.train.image_size, dropout=config.dropout, width=config.width)
    if state is not None:
        try:
            network.load_state_dict(state)
        except RuntimeError:
            raise ValueError(f"the checkpoint is not of the network {config.model} of its configuration") from None
    return network
