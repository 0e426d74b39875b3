"""``cnn-reg report``: a run, or all runs of a folder, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from cnn_reg.cli.options import add_data
from cnn_reg.results.named import folder_charts
from cnn_reg.results.records import read_runs
from cnn_reg.results.run_page import run_page
from cnn_reg.results.sweep_page import sweep_page
from cnn_reg.results.tables import write_text
from tensornet.cli.arguments import device, examples
from tensornet.files.runs import CONFIG

PAGE = "report.html"


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["report", "runs/a"]).out is None
        True
    """
    parser = commands.add_parser(
        "report",
        help="show a run or a sweep as one HTML page",
        description=(
            "Writes one page that needs no other file and no network. Of a run's folder: configuration, curves, test images with\n"
            "predictions, pictures of locality, and a table of the epochs. Of a folder of runs: the figure, a table of all runs, and a\n"
            "few lines on each."
        ),
        epilog=examples("cnn-reg report runs/study", "cnn-reg report runs/pathfinder-7-resnet18-coefficient-9-seed-0 --out page.html"),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run's folder, or one with runs below it")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page (default {PAGE} in the folder)")
    add_data(parser)
    parser.add_argument("--device", type=device, default="cpu", metavar="D", help="where to compute (default cpu)")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg report --help``.

    Raises:
        ValueError: There is no run in the folder that can be read.
        OSError: The page cannot be written.

    Example:
        >>> run.__name__
        'run'
    """
    folder, out = arguments.folder, arguments.out or arguments.folder / PAGE
    if (folder / CONFIG).exists():
        page = run_page(folder, data=arguments.data, device=arguments.device)
    else:
        records = read_runs(folder)
        if not records:
            raise ValueError(f"there are no runs in {folder}")
        page = sweep_page(folder, records, folder_charts(folder, records))
    write_text(out, page)
    console.print(f"The page is {out} ({len(page) / 1e6:.1f} MB).", highlight=False, soft_wrap=True)
    return 0
