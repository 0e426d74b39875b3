"""Tables, and how they are written as Markdown and CSV."""

from __future__ import annotations

import csv
import html
import io
import os
from typing import NamedTuple

from tensornet.checks import line
from tensornet.files.storage import replacing

Cell = str | int | float | bool | None


class Table(NamedTuple):
    """Rows of cells under column names.

    Attributes:
        columns: The names.
        rows: As many cells each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def as_markdown(table: Table) -> str:
    r"""A table in Markdown; what a cell holds is text there, whatever it is.

    Example:
        >>> print(as_markdown(Table(("a", "b"), ((1, "x|y"),))), end="")
        | a | b |
        | --- | --- |
        | 1 | x\|y |
    """
    rows = [[escape_markdown(shown(cell)) for cell in row] for row in (table.columns, *table.rows)]
    rows.insert(1, ["---"] * len(table.columns))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def escape_markdown(text: str) -> str:
    r"""A text as Markdown that shows it as it is, in one line.

    Example:
        >>> print(escape_markdown("a_b <c>"))
        a\_b &lt;c&gt;
    """
    text = html.escape(line(text), quote=False)
    return "".join(f"\\{letter}" if letter in "\\|`*_[]" else letter for letter in text)


def shown(cell: Cell) -> str:
    """A cell as text; nothing for ``None``.

    Example:
        >>> shown(0.5), shown(None)
        ('0.5', '')
    """
    return "" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell)


def as_csv(table: Table) -> str:
    """A table as comma-separated values.

    Example:
        >>> print(as_csv(Table(("a", "b"), ((1, "x,y"), (None, True)))), end="")
        a,b
        1,"x,y"
        ,True
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Writes a text file, atomically.

    Raises:
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp(), "table.md")
        >>> write_text(path, "| a |\n")
        >>> path.read_text()
        '| a |\n'
    """
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8", errors="replace")
