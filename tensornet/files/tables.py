"""Tables of indices and values, one entry of a tensor a row: CSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".csv", ".parquet")


def read_table(path: Path) -> tuple[tuple[str, ...], NDArray[Any], NDArray[Any]]:
    r"""Names of the columns, indices ``(B, N)`` and values ``(B,)``; NaN for a value that is empty.

    A CSV file may begin with a line of names.

    Raises:
        ValueError: The file is of another kind, truncated or empty, or a cell is no number or an index no integer from 0.
        OSError: It cannot be opened.
        ModuleNotFoundError: PyArrow is needed for a Parquet file, and not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "ratings.csv")
        >>> characters = path.write_text("user,item,rating\n0,0,4.5\n1,2,\n")
        >>> read_table(path)
        (('user', 'item', 'rating'), array([[0, 0], [1, 2]]), array([4.5, nan]))
    """
    names, columns = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if len(columns) < 2:
        raise ValueError(f"a table needs a column for every mode and a last one of values; got {len(columns)} column")
    if not len(columns[0]):
        raise ValueError("the table has no rows")
    for name, column in zip(names, columns[:-1]):
        wrong = ~((column >= 0) & (column < 2**53) & (column == np.floor(column)))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"indices must be integers from 0; got {column[row]:g} in row {row + 1} of the column {name!r}")
    return tuple(names), np.stack(columns[:-1], 1).astype(np.int64), columns[-1]


def write_table(path: Path, indices: NDArray[Any], values: NDArray[Any], names: Sequence[str] = ()) -> None:
    """Writes a table with a row for every entry.

    Args:
        path: Ends in ``.csv`` or ``.parquet``.
        indices: ``(B, N)``.
        values: ``(B,)``.
        names: Of the ``N + 1`` columns.

    Raises:
        OSError: The folder is missing, or cannot be written to.
        ModuleNotFoundError: PyArrow is needed for a Parquet file, and not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "entries.csv")
        >>> write_table(path, np.array([[0, 3]]), np.array([0.5]))
        >>> path.read_text().split()
        ['mode0,mode1,value', '0,3,0.5']
    """
    names = list(names) or _usual_names(indices.shape[1] + 1)
    if path.suffix.lower() == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table([*indices.T, values], names=names), path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([*row, value] for row, value in zip(indices.tolist(), values.tolist()))


def _usual_names(count: int) -> list[str]:
    return [f"mode{mode}" for mode in range(count - 1)] + ["value"]


def _read_csv(path: Path) -> tuple[list[str], list[NDArray[Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = [(line, row) for line, row in enumerate(csv.reader(file), 1) if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"no table of text ({error})") from None
    if not rows:
        raise ValueError("the table is empty")
    first = [cell.strip() for cell in rows[0][1]]
    names = _usual_names(len(first)) if all(map(_is_number, first)) else first
    body = rows if all(map(_is_number, first)) else rows[1:]
    for line, row in body:
        if len(row) != len(first):
            raise ValueError(f"every line needs {len(first)} cells; got {len(row)} in line {line}")
    lines = [line for line, _ in body]
    return names, [_numbers(name, lines, [row[place] for _, row in body]) for place, name in enumerate(names)]


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip() or "nan")
    except ValueError:
        return False
    return True


def _numbers(name: str, lines: Sequence[int], cells: Sequence[str]) -> NDArray[Any]:
    try:
        return np.array([float(cell) if cell else np.nan for cell in map(str.strip, cells)])
    except ValueError:
        line, cell = next((line, cell) for line, cell in zip(lines, cells) if not _is_number(cell))
        raise ValueError(f"numbers are needed; got {cell!r} in line {line}, column {name!r}") from None


def _read_parquet(path: Path) -> tuple[list[str], list[NDArray[Any]]]:
    import pyarrow
    from pyarrow import parquet

    with path.open("rb") as file:
        try:
            table = parquet.read_table(file)
            names = list(table.column_names)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"no Parquet file, or truncated ({error})") from None
    columns = []
    for name, column in zip(names, table.columns):
        kind = column.type
        if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
            raise ValueError(f"numbers are needed; got {kind} in the column {name!r}")
        columns.append(column.cast(pyarrow.float64(), safe=False).to_numpy())
    return names, columns
