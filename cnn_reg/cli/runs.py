"""``cnn-reg runs``: the runs in a folder as a table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cnn_reg.results.listings import read_listings
from cnn_reg.results.records import STATES, Record, read_runs
from cnn_reg.results.rows import common_task, full_table, runs_table
from cnn_reg.results.tables import Table as Rows
from cnn_reg.results.tables import as_csv, as_markdown, shown, write_text
from tensornet.cli.arguments import examples

_COLORS = {"finished": "green", "running": "cyan", "unfinished": "yellow", "failed": "red", "unreadable": "magenta"}
WIDE = 110  # columns of a terminal in which there is room for folders
LONGEST = 1000  # columns of a table
_NUMBERS = ("done", "test", "train", "time")


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["runs", "runs/study"]).folder.name
        'study'
    """
    parser = commands.add_parser(
        "runs",
        help="list runs with their states and accuracies",
        description=(
            "Lists all runs in a folder and below it: what they are, accuracies in percent, the time of their steps, and why they failed.\n"
            "An unfinished run was interrupted, or is running outside of a sweep; a folder that is damaged, or of another program or\n"
            "version, is unreadable."
        ),
        epilog=examples("cnn-reg runs runs/study", "cnn-reg runs runs --csv runs.csv --markdown runs.md"),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the runs lie, at any depth")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all that is known, with all fields of the configurations")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table that is shown")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg runs --help``.

    Raises:
        ValueError: There is no such folder.
        OSError: A file cannot be written.

    Example:
        >>> import tempfile
        >>> from cnn_reg.cli import main
        >>> main(["runs", tempfile.mkdtemp()])
        No runs.
        0
    """
    records = read_runs(arguments.folder)
    table = runs_table(records, arguments.folder)
    if records:
        _show(table, common_task(records), console)
    console.print(_counted(records, arguments.folder), highlight=False, soft_wrap=True)
    if arguments.csv:
        write_text(arguments.csv, as_csv(full_table(records, arguments.folder)))
    if arguments.markdown:
        write_text(arguments.markdown, as_markdown(table))
    return 0


def _show(table: Rows, task: str | None, console: Console) -> None:
    """The table, with folders where there is room for them, and below it the notes, which are long."""
    wide = console.width >= WIDE
    kept = table.columns[: -1 if wide else -2]
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(task) if task else None, title_justify="left")
    for name in kept:
        grid.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for row in table.rows:
        grid.add_row(*(Text(shown(cell), _COLORS.get(shown(cell), "")) for cell in row[: len(kept)]))
    grid.width = Measurement.get(console, console.options.update(max_width=LONGEST), grid).maximum
    console.print(grid, crop=False, soft_wrap=True)  # a row that is too long goes on in the next line, whole
    for row in table.rows:
        if row[-1]:
            console.print(Text(f"{row[-2]}: {row[-1]}"), soft_wrap=True)
    if not wide:
        console.print(f"From {WIDE} columns on the folders are shown too; --csv and --markdown have them in any case.", soft_wrap=True)


def _counted(records: list[Record], folder: Path) -> str:
    counts = Counter(record.state for record in records)
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    there = {record.config for record in records}
    absent = len({config for listing in read_listings(folder) for _, config in listing.runs} - there)
    parts += [f"{absent} of a sweep not begun"] if absent else []
    return f"{len(records)} runs: {', '.join(parts)}." if parts else "No runs."
