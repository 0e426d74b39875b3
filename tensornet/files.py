"""Reading partly known tensors from files, and writing completed ones: NumPy arrays, tables, and pictures with masks."""

from __future__ import annotations

import csv
import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensornet.storage import replacing

Array = NDArray[Any]
ARRAYS, TABLES, PICTURES = (".npy", ".npz"), (".csv", ".parquet"), (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
SUFFIXES = ARRAYS + TABLES + PICTURES
LARGEST_TABLE = 10**8  # entries of a table that are written without being listed
HALF = 128  # from which a pixel of a mask or an alpha channel counts as known


@dataclass(frozen=True)
class Partial:
    """Entries of a tensor, of which some are known.

    Attributes:
        sizes: Mode sizes.
        indices: ``(B, N)`` indices of the known entries.
        values: ``(B,)`` their values.
        columns: Names of a table's columns, the values' last; empty for other files.
        wanted: ``(M, N)`` entries that a table lists without a value; ``None`` for all that are not known.

    Raises:
        ValueError: No entry is known, none is missing, or a known one is infinite.

    Example:
        >>> Partial.of_array(np.array([[1.0, np.nan], [2.0, 3.0]])).indices.tolist()
        [[0, 0], [1, 0], [1, 1]]
    """

    sizes: tuple[int, ...]
    indices: Array
    values: Array
    columns: tuple[str, ...] = ()
    wanted: Array | None = None

    def __post_init__(self) -> None:
        if not len(self.values):
            raise ValueError("all entries are missing; at least one must be known")
        if not np.isfinite(self.values).all():
            row = int(np.flatnonzero(~np.isfinite(self.values))[0])
            raise ValueError(f"known entries must be finite; got {self.values[row]} at {tuple(self.indices[row].tolist())}")
        if self.wanted is None and len(np.unique(self._codes(), axis=0)) == math.prod(self.sizes):
            raise ValueError("no entry is missing, so there is nothing to complete; give a mask, or NaN for the missing ones")

    def _codes(self) -> Array:
        return np.ravel_multi_index(tuple(self.indices.T), self.sizes) if math.prod(self.sizes) < 2**62 else self.indices

    @classmethod
    def of_array(cls, array: Array, mask: Array | None = None) -> Partial:
        """The entries of an array that are not NaN and, with a mask, where that is not 0.

        Args:
            array: Numbers.
            mask: Of the array's shape, or without some of its last axes, which then are known or missing together.

        Raises:
            ValueError: The array holds no numbers or has no axes, the mask does not fit, or see :class:`Partial`.

        Example:
            >>> Partial.of_array(np.zeros((2, 2, 3)), np.eye(2)).values.shape
            (6,)
        """
        if array.dtype.kind not in "biufc":
            raise ValueError(f"an array of numbers is needed; got the dtype {array.dtype}")
        if not array.ndim or not array.size:
            raise ValueError(f"an array with at least one axis and one entry is needed; got the shape {array.shape}")
        known = ~np.isnan(array)
        if mask is not None:
            if mask.shape != array.shape[: mask.ndim]:
                raise ValueError(f"a mask needs the array's shape, or its first axes; got {mask.shape} for {array.shape}")
            known &= (mask != 0).reshape(mask.shape + (1,) * (array.ndim - mask.ndim))
        values = array[known].astype(np.complex128 if array.dtype.kind == "c" else np.float64)
        return cls(array.shape, np.stack(np.nonzero(known), 1), values)

    def fill(self, completed: Array) -> Array:
        """The completed tensor with the known entries as they were given.

        Example:
            >>> Partial.of_array(np.array([1.0, np.nan])).fill(np.array([1.5, 2.5]))
            array([1. , 2.5])
        """
        filled = completed.astype(np.result_type(completed.dtype, self.values.dtype))
        filled[tuple(self.indices.T)] = self.values
        return filled


def read(path: str | os.PathLike[str], mask: str | os.PathLike[str] | None = None) -> Partial:
    r"""The known entries in a file.

    Arrays (``.npy``, ``.npz`` with one array) have NaN for missing entries. Tables (``.csv``, ``.parquet``) have a column of integers
    per mode, counted from 0, and a last column of values; entries without a value, or without a row, are missing. Pictures, with
    values from 0 to 255 and modes rows, columns and (unless grey) channels, have an alpha channel below 128 for missing pixels.

    Args:
        path: The file.
        mask: An array or a picture that is 0 (black) where entries of an array or pixels of a picture are missing.

    Raises:
        ValueError: The file is empty, truncated or of another kind, holds no numbers, or has no known or no missing entries.
        OSError: It cannot be opened.
        ModuleNotFoundError: Pillow or PyArrow is needed, and not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "table.csv")
        >>> characters = path.write_text("user,item,rating\n0,0,4.5\n1,2,3\n")
        >>> partial = read(path)
        >>> partial.sizes, partial.values.tolist()
        ((2, 3), [4.5, 3.0])
    """
    path = Path(path)
    suffix = known_suffix(path)
    with _named(path):
        if suffix in TABLES:
            if mask is not None:
                raise ValueError("a table takes no mask; leave missing entries out")
            return _of_table(*(_read_csv if suffix == ".csv" else _read_parquet)(path))
        array, alpha = (_read_array(path), None) if suffix in ARRAYS else _read_picture(path)
    if mask is not None:
        mask = Path(mask)
        with _named(mask):
            alpha = _read_mask(mask)
    with _named(path):
        return Partial.of_array(array, alpha)


def known_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file's name, in lower case.

    Raises:
        ValueError: Files with this suffix are neither read nor written.

    Example:
        >>> known_suffix("Photo.PNG")
        '.png'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"a file's name must end in one of {', '.join(SUFFIXES)}; got {Path(path).name!r}")
    return suffix


def check_output(path: str | os.PathLike[str], sizes: Sequence[int]) -> None:
    """Finds out, before any work is done, whether a tensor of these sizes can be written to ``path``.

    Raises:
        ValueError: The suffix is unknown, or a picture cannot hold such a tensor.
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> check_output("tensor.png", (4, 4, 4))
        Traceback (most recent call last):
            ...
        ValueError: a picture needs the shape (rows, columns), or (rows, columns, 3); got (4, 4, 4) for tensor.png
    """
    path = Path(path)
    suffix = known_suffix(path)
    if suffix in PICTURES and not (len(sizes) == 2 or (len(sizes) == 3 and sizes[2] == 3)):
        raise ValueError(f"a picture needs the shape (rows, columns), or (rows, columns, 3); got {tuple(sizes)} for {path.name}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"a file is to be written, but {path} is a folder")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"the folder of {path} cannot be written to")


def write(path: str | os.PathLike[str], array: Array) -> None:
    """Writes a tensor, atomically: an array, a picture (values from 0 to 255), or a table of all entries, by the file's suffix.

    Raises:
        ValueError: See :func:`check_output`.
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "tensor.csv")
        >>> write(path, np.array([[1.0, 2.0]]))
        >>> path.read_text().split()
        ['mode0,mode1,value', '0,0,1.0', '0,1,2.0']
    """
    path = Path(path)
    check_output(path, array.shape)
    suffix = known_suffix(path)
    if suffix in TABLES:
        indices = np.stack(np.unravel_index(np.arange(array.size), array.shape), 1)
        write_table(path, indices, array.reshape(-1))
        return
    with replacing(path) as new:
        if suffix == ".npy":
            np.save(new, array, allow_pickle=False)
        elif suffix == ".npz":
            np.savez_compressed(new, array)
        else:
            _pillow().fromarray(np.clip(np.rint(array.real), 0, 255).astype(np.uint8)).save(new)


def write_table(path: str | os.PathLike[str], indices: Array, values: Array, columns: Sequence[str] = ()) -> None:
    """Writes a table with a row per entry, atomically.

    Args:
        path: Ends in ``.csv`` or ``.parquet``.
        indices: ``(B, N)``.
        values: ``(B,)``.
        columns: Names of the ``N + 1`` columns.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "entries.csv")
        >>> write_table(path, np.array([[0, 3]]), np.array([0.5]), ["user", "item", "rating"])
        >>> path.read_text().split()
        ['user,item,rating', '0,3,0.5']
    """
    path = Path(path)
    names = list(columns) or [f"mode{mode}" for mode in range(indices.shape[1])] + ["value"]
    with replacing(path) as new:
        if known_suffix(path) == ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.table([*indices.T, values], names=names), new)
            return
        with new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows([*row, value] for row, value in zip(indices.tolist(), values.tolist()))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        if path.is_file() and not path.stat().st_size:
            raise ValueError("the file is empty")
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _read_array(path: Path) -> Array:
    with path.open("rb"):  # a missing or unreadable file is reported as such
        pass
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            if len(found.files) != 1:
                raise ValueError(f"one array is needed; got {len(found.files)} ({', '.join(found.files)})")
            array: Array = found[found.files[0]]
            return array
    except (OSError, EOFError, zipfile.BadZipFile, MemoryError, SyntaxError) as error:
        raise ValueError(f"no NumPy file, or truncated ({error})") from None


def _pillow() -> Any:
    from PIL import Image

    return Image


def _read_picture(path: Path) -> tuple[Array, Array | None]:
    """The pixels as floating numbers, and where they are known; ``None`` for everywhere."""
    pillow = _pillow()
    with path.open("rb"):
        pass
    try:
        with warnings.catch_warnings(), pillow.open(path) as picture:
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
            picture.load()
    except (OSError, SyntaxError, pillow.DecompressionBombError) as error:
        raise ValueError(f"no picture, or truncated ({error})") from None
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise ValueError(f"a picture with 8 bits per channel is needed; got the mode {picture.mode}")
    alpha = None
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3] >= HALF
    grey = picture.mode in ("1", "L", "LA")
    return np.asarray(picture.convert("L" if grey else "RGB")).astype(np.float64), alpha


def _read_mask(path: Path) -> Array:
    if known_suffix(path) in ARRAYS:
        return np.nan_to_num(_read_array(path))
    if path.suffix.lower() not in PICTURES:
        raise ValueError("a mask is an array or a picture")
    pixels, _ = _read_picture(path)
    return (pixels if pixels.ndim == 2 else pixels.mean(2)) >= HALF


def _read_csv(path: Path) -> tuple[list[str], list[Array]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = [(line, row) for line, row in enumerate(csv.reader(file), 1) if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"no table of text ({error})") from None
    if not rows:
        raise ValueError("the table is empty")
    width = len(rows[0][1])
    names = [name.strip() for name in rows[0][1]] if not all(_is_number(cell) for cell in rows[0][1]) else []
    body = rows[bool(names) :]
    for line, row in body:
        if len(row) != width:
            raise ValueError(f"every line needs {width} cells; got {len(row)} in line {line}")
    names = names or [f"mode{mode}" for mode in range(width - 1)] + ["value"]
    lines = [line for line, _ in body]
    return names, [_column(name, lines, [row[place] for _, row in body]) for place, name in enumerate(names)]


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _column(name: str, lines: Sequence[int], cells: Sequence[str]) -> Array:
    try:
        return np.array([cell.strip() or "nan" for cell in cells], dtype=np.str_).astype(np.float64)
    except ValueError:
        line, cell = next((line, cell) for line, cell in zip(lines, cells) if not _is_number(cell))
        raise ValueError(f"numbers are needed; got {cell!r} in line {line}, column {name!r}") from None


def _read_parquet(path: Path) -> tuple[list[str], list[Array]]:
    import pyarrow
    import pyarrow.parquet

    with path.open("rb") as file:
        try:
            table = pyarrow.parquet.read_table(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"no Parquet file, or truncated ({error})") from None
    columns = []
    for name, column in zip(table.column_names, table.columns):
        kind = column.type
        if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)):
            raise ValueError(f"numbers are needed; got {kind} in column {name!r}")
        columns.append(column.cast(pyarrow.float64(), safe=False).to_numpy())
    return list(table.column_names), columns


def _of_table(names: list[str], columns: list[Array]) -> Partial:
    if len(columns) < 2:
        raise ValueError(f"a table needs a column per mode and a last one of values; got {len(columns)} column(s)")
    if not len(columns[0]):
        raise ValueError("the table has no rows")
    for name, column in zip(names, columns[:-1]):
        wrong = ~((column >= 0) & (column < 2**53) & (column == np.floor(column)))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"indices must be integers from 0; got {column[row]:g} in row {row + 1}, column {name!r}")
    indices = np.stack(columns[:-1], 1).astype(np.int64)
    known = ~np.isnan(columns[-1])
    wanted = indices[~known] if not known.all() else None
    sizes = tuple((indices.max(0) + 1).tolist())
    return Partial(sizes, indices[known], columns[-1][known], tuple(names), wanted)
