"""Observed entries that stay on the disk and are read block by block: a pair of ``.npy`` files, or a Parquet table.

The files are read and not mapped: a mapped file counts as memory of the process, and reading beyond its end kills it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensornet.checks import line

BLOCK = 2**14  # entries in a block of files that have none of their own


def usual_edges(count: int) -> NDArray[Any]:
    """First places of blocks of equal length, and the number of entries as the last.

    Example:
        >>> usual_edges(40000)
        array([    0, 16384, 32768, 40000])
    """
    return np.append(np.arange(0, count, BLOCK), count)


class ArrayEntries:
    """Entries in two ``.npy`` files: integer indices ``(B, N)`` and values ``(B,)``.

    Args:
        indices: File of the indices.
        values: File of the values.

    Attributes:
        order: Number of modes.
        edges: First place of every block, and the number of entries as the last.

    Raises:
        ValueError: A file is of another kind, truncated or empty, or their lengths differ.
        OSError: One cannot be opened.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "indices.npy", np.array([[0, 3], [2, 1]], np.uint8))
        >>> np.save(folder / "values.npy", np.array([0.5, 1.5]))
        >>> entries = ArrayEntries(folder / "indices.npy", folder / "values.npy")
        >>> entries.order, entries.edges
        (2, array([0, 2]))
    """

    def __init__(self, indices: str | os.PathLike[str], values: str | os.PathLike[str]) -> None:
        self._indices, self._values = _Rows(indices, "iu", 2, "integers of the shape (B, N)"), _Rows(values, "biufc", 1, "numbers (B,)")
        if self._indices.shape[0] != self._values.shape[0]:
            raise ValueError(
                f"there must be as many indices as values; got {self._indices.shape[0]} in {self._indices.path} and "
                f"{self._values.shape[0]} in {self._values.path}"
            )
        self.order = self._indices.shape[1]
        self.edges = usual_edges(self._values.shape[0])

    def read(self, block: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Indices ``(b, N)`` and values ``(b,)`` of a block.

        Raises:
            ValueError: A file has become shorter.

        Example:
            >>> import tempfile
            >>> folder = Path(tempfile.mkdtemp())
            >>> np.save(folder / "indices.npy", np.array([[0, 3], [2, 1]]))
            >>> np.save(folder / "values.npy", np.array([0.5, 1.5]))
            >>> ArrayEntries(folder / "indices.npy", folder / "values.npy").read(0)
            (array([[0, 3],
                   [2, 1]]), array([0.5, 1.5]))
        """
        first, last = int(self.edges[block]), int(self.edges[block + 1])
        return self._indices.read(first, last), self._values.read(first, last)


class ParquetEntries:
    """Entries in a Parquet table: a column of integers for every mode, and a last one of values. A block is a row group.

    Args:
        path: The file.

    Attributes:
        order: Number of modes.
        edges: First place of every block, and the number of entries as the last.

    Raises:
        ValueError: The file is of another kind, truncated or empty, or a column has a wrong type.
        OSError: It cannot be opened.
        ModuleNotFoundError: PyArrow is not installed.

    Example:
        >>> import tempfile, pyarrow
        >>> from pyarrow import parquet
        >>> path = Path(tempfile.mkdtemp(), "entries.parquet")
        >>> parquet.write_table(pyarrow.table([[0, 2, 1], [3, 1, 0], [0.5, 1.5, 2.5]], names=["user", "item", "rating"]), path, 2)
        >>> entries = ParquetEntries(path)
        >>> entries.order, entries.edges
        (2, array([0, 2, 3]))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        self.path = Path(path)
        with self.path.open("rb"):  # a missing or unreadable file is reported as such
            pass
        with self._readable():
            self._file = parquet.ParquetFile(self.path)
        schema = self._file.schema_arrow
        if len(schema) < 2:
            raise ValueError(f"{self.path}: a table needs a column for every mode and a last one of values; got {len(schema)} column")
        for place, field in enumerate(schema):
            last = place == len(schema) - 1
            if not (pyarrow.types.is_integer(field.type) or (last and pyarrow.types.is_floating(field.type))):
                raise ValueError(f"{self.path}: {'numbers' if last else 'integers'} are needed; got {field.type} in {field.name!r}")
        self.order = len(schema) - 1
        metadata = self._file.metadata
        self.edges = np.cumsum([0, *(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))])

    def read(self, block: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Indices ``(b, N)`` and values ``(b,)`` of a row group; NaN for a value that is missing.

        Raises:
            ValueError: The row group is damaged, or an index is missing.

        Example:
            >>> import tempfile, pyarrow
            >>> from pyarrow import parquet
            >>> path = Path(tempfile.mkdtemp(), "entries.parquet")
            >>> parquet.write_table(pyarrow.table([[0, 2], [3, 1], [0.5, 1.5]], names=["user", "item", "rating"]), path)
            >>> ParquetEntries(path).read(0)
            (array([[0, 3],
                   [2, 1]]), array([0.5, 1.5]))
        """
        with self._readable():
            table = self._file.read_row_group(block, use_threads=False)
        for name, column in zip(table.column_names[:-1], table.columns):
            if column.null_count:
                row = int(self.edges[block]) + int(np.argmax(column.is_null().to_numpy()))
                raise ValueError(f"{self.path}: an index is missing in row {row}, column {name!r}")
        columns = [column.to_numpy() for column in table.columns]
        kind = np.result_type(*columns[:-1])
        kind = np.dtype(np.int64) if kind.kind == "f" else kind  # no integers hold those of int64 and uint64
        return np.stack(columns[:-1], 1, dtype=kind, casting="unsafe"), columns[-1]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow

        try:
            yield
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path}: no Parquet file, or truncated ({line(error)})") from None


def open_entries(path: str | os.PathLike[str], values: str | os.PathLike[str] | None = None) -> ArrayEntries | ParquetEntries:
    """The entries in a Parquet table, or in an ``.npy`` file of indices and one of their values.

    Raises:
        ValueError: The files are none such.
        OSError: One cannot be opened.
        ModuleNotFoundError: PyArrow is needed, and not installed.

    Example:
        >>> open_entries("entries.csv")
        Traceback (most recent call last):
            ...
        ValueError: entries are streamed from a .parquet table, or from an .npy file of indices and one of values; got entries.csv
    """
    suffixes = tuple(Path(name).suffix.lower() for name in (path, values) if name is not None)
    if suffixes == (".parquet",):
        return ParquetEntries(path)
    if suffixes == (".npy", ".npy") and values is not None:
        return ArrayEntries(path, values)
    names = os.fspath(path) if values is None else f"{os.fspath(path)} and {os.fspath(values)}"
    raise ValueError(f"entries are streamed from a .parquet table, or from an .npy file of indices and one of values; got {names}")


class _Rows:
    """Rows of an array in an ``.npy`` file, read when asked for."""

    def __init__(self, path: str | os.PathLike[str], kinds: str, axes: int, wanted: str) -> None:
        self.path = Path(path)
        with self.path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError(f"{self.path}: no NumPy file")
        try:
            mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError, SyntaxError) as error:
            raise ValueError(f"{self.path}: no NumPy file, or truncated ({line(error)})") from None
        self.shape, self.dtype, self._offset = mapped.shape, mapped.dtype, getattr(mapped, "offset", 0)
        if self.dtype.kind not in kinds or len(self.shape) != axes:
            raise ValueError(f"{self.path}: {wanted} are needed; got {self.dtype} of the shape {self.shape}")
        if not mapped.flags.c_contiguous:
            raise ValueError(f"{self.path}: an array stored row by row is needed; got one stored column by column")

    def read(self, first: int, last: int) -> NDArray[Any]:
        row = self.shape[1] if len(self.shape) > 1 else 1
        offset = self._offset + first * row * self.dtype.itemsize
        found = np.fromfile(self.path, self.dtype, (last - first) * row, offset=offset)
        if len(found) < (last - first) * row:
            raise ValueError(f"{self.path}: the file has become shorter; rows {first} to {last - 1} are missing")
        return found.reshape(-1, *self.shape[1:]).astype(self.dtype.newbyteorder("="), copy=False)
