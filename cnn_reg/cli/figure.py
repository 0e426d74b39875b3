"""``cnn-reg figure``: the figures of Section 6 from the records of runs, and of any other runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.console import Console

from cnn_reg.results.charts import Chart
from cnn_reg.results.named import FIGURES, figure_charts
from cnn_reg.results.plots import draw_charts
from cnn_reg.results.records import read_runs
from cnn_reg.results.rows import charts_table
from cnn_reg.results.samples import draw_samples
from cnn_reg.results.tables import as_csv, as_markdown, escape_markdown, write_text
from tensornet.cli.arguments import examples, seed
from tensornet.dynamics.plotting import check_suffix

SAMPLES = "fig5"
UNIT = "Test accuracy in percent."
BEGIN = {".md": f"## .*\n\n{re.escape(UNIT)}\n", ".csv": "(task,)?line,"}  # of the tables


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["figure", "fig6-pathfinder", "--runs", "runs", "--out", "6.png"]).name
        'fig6-pathfinder'
    """
    parser = commands.add_parser(
        "figure",
        help="draw Figure 5, 6, 11, 12 or 13 of the paper, or one of any runs",
        description=(
            "Draws accuracy against path length or distance from the records of runs, wherever they lie below a folder: a line for\n"
            "each setting, means and standard deviations over seeds, the paper's accuracies as faint lines. A table lies beside the\n"
            "picture, as Markdown and CSV. Runs that are missing do not stop it; the figure says which they are.\n"
            "  figN-same-class, figN-pathfinder   Figures 6, 11, 12 and 13\n"
            "  runs                               whatever runs there are; axis and lines are the fields in which they differ\n"
            "  fig5                               sample pictures of both data sets; takes --source in place of --runs"
        ),
        epilog=examples(
            "cnn-reg figure fig6-pathfinder --runs runs/fig6-pathfinder --out figure6.png",
            "cnn-reg figure runs --runs runs/study --out study.pdf",
            "cnn-reg figure fig5 --source digits --out figure5.png",
        ),
    )
    names = (SAMPLES, *FIGURES)
    parser.add_argument("name", choices=names, metavar="FIGURE", help=", ".join(names))
    parser.add_argument("--runs", type=Path, metavar="DIR", help="folder with the runs' folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG, PDF or SVG file")
    parser.add_argument("--source", default="cifar10", metavar="NAME", help="of fig5: cifar10, or a stand-in by name (default cifar10)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="of fig5: where CIFAR10 lies or is downloaded to")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of fig5: of the images (default 0)")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg figure --help``.

    Raises:
        ValueError: There is no such folder or no run in it, the file's suffix is unknown, or where the tables go lies something else.
        OSError: A file cannot be written, or CIFAR10 cannot be had.

    Example:
        >>> import tempfile
        >>> from cnn_reg.cli import main
        >>> main(["figure", "fig5", "--source", "random", "--out", tempfile.mkdtemp() + "/5.png"])  # doctest: +ELLIPSIS
        The figure is ...5.png.
        0
    """
    check_suffix(arguments.out)
    if arguments.name == SAMPLES:
        draw_samples(arguments.out, arguments.source, seed=arguments.seed, folder=arguments.data)
        console.print(f"The figure is {arguments.out}.", highlight=False, soft_wrap=True)
        return 0
    if arguments.runs is None:
        raise ValueError(f"{arguments.name} is drawn from runs; give their folder with --runs")
    tables = [arguments.out.with_suffix(suffix) for suffix in BEGIN]
    for path in tables:
        if path.exists() and not re.match(BEGIN[path.suffix], path.read_text(encoding="utf-8", errors="replace")):
            raise ValueError(f"the table of {arguments.out} would replace {path}, which is none; give the figure another name")
    charts = figure_charts(arguments.name, arguments.runs, read_runs(arguments.runs))
    draw_charts(arguments.out, charts)
    write_text(tables[0], "\n".join(map(_section, charts)))
    write_text(tables[1], as_csv(charts_table(charts)))
    for chart in charts:
        for text in (chart.title, *chart.notes):
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    console.print(f"The figure is {arguments.out}, its table {tables[0]} and {tables[1]}.", highlight=False, soft_wrap=True)
    return 0


def _section(chart: Chart) -> str:
    notes = "".join(f"\n{escape_markdown(note)}\n" for note in chart.notes)
    return f"## {escape_markdown(chart.title)}\n\n{UNIT}\n\n{as_markdown(charts_table([chart]))}{notes}"
