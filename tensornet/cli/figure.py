"""``tensornet figure``: the paper's figures from the records of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tensornet.cli.arguments import examples
from tensornet.dynamics.plotting import FIGURES, changed, check_suffix, draw, find_runs, panels_of_figure


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["figure", "8", "--runs", "runs", "--out", "8.png"]).number
        '8'
    """
    parser = commands.add_parser(
        "figure",
        help="draw Figure 1, 8, 9 or 10 of the paper from finished or unfinished runs",
        description="Draws a figure of the paper from the records of runs of `tensornet dynamics`, wherever they lie below a folder.\n"
        "A run that is missing is named in the figure. Of several runs of an experiment, that of the smallest seed is drawn; one with\n"
        "fields set otherwise than the paper's only where there is no other, and the figure says so.",
        epilog=examples("tensornet figure 1 --runs runs --out figure1.png", "tensornet figure 8 --runs docs/records --out figure8.pdf"),
    )
    parser.add_argument("number", choices=list(FIGURES), metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="folder with the runs' folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG, SVG or PDF file")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``tensornet figure --help``.

    Raises:
        ValueError: There is no such folder, none of the figure's runs is in it, a run is damaged, or the file's suffix is unknown.
        OSError: The file cannot be written.

    Example:
        >>> run.__module__
        'tensornet.cli.figure'
    """
    check_suffix(arguments.out)
    panels = panels_of_figure(arguments.number, find_runs(arguments.runs))
    if all(panel.run is None for panel in panels):
        raise ValueError(f"there is no run of {', '.join(panel.title for panel in panels)} in {arguments.runs}")
    draw(panels, arguments.out)
    for panel in panels:
        if panel.run is None:
            console.print(f"There is no run of {panel.title} in {arguments.runs}.", highlight=False, soft_wrap=True)
    for run in {panel.run.folder: panel.run for panel in panels if panel.run}.values():
        other = f", with {', '.join(changed(run))}" if changed(run) else ""
        console.print(
            f"{run.config['name']}: {run.folder} (seed {run.config['seed']}{other})", highlight=False, markup=False, soft_wrap=True
        )
    console.print(f"Figure {arguments.number} is in {arguments.out}.", highlight=False, soft_wrap=True)
    return 0
