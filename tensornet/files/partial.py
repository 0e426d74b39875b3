"""Partly known tensors in files: arrays with NaN, tables of entries, and pictures with masks."""

from __future__ import annotations

import lzma
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tensornet.files import pictures, tables
from tensornet.files.storage import replacing

ARRAYS = (".npy", ".npz")
SUFFIXES = ARRAYS + tables.SUFFIXES + pictures.SUFFIXES
BROKEN = (OSError, EOFError, MemoryError, RuntimeError, SyntaxError, lzma.LZMAError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
MOST_ROWS = 10**7  # of a table that is written without its rows having been asked for


@dataclass(frozen=True)
class Partial:
    """Entries of a tensor, some of which are known.

    Attributes:
        sizes: Mode sizes.
        indices: Indices of the known entries, ``(B, N)``.
        values: Their values, ``(B,)``.
        kind: What they come from.
        names: Names of a table's columns, that of the values last.
        wanted: Entries that a table lists without a value, ``(M, N)``; ``None`` where it lists none.

    Raises:
        ValueError: No entry is known, or a known one is infinite.

    Example:
        >>> Partial.of_array(np.array([[1.0, np.nan], [2.0, 3.0]])).indices.tolist()
        [[0, 0], [1, 0], [1, 1]]
    """

    sizes: tuple[int, ...]
    indices: NDArray[Any]
    values: NDArray[Any]
    kind: Literal["array", "table", "picture"] = "array"
    names: tuple[str, ...] = ()
    wanted: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if not len(self.values):
            raise ValueError("all entries are missing; at least one must be known")
        finite = np.isfinite(self.values)
        if not finite.all():
            row = int(np.argmin(finite))
            raise ValueError(f"known entries must be finite; got {self.values[row]} at {tuple(self.indices[row].tolist())}")

    @classmethod
    def of_array(cls, array: NDArray[Any], mask: NDArray[Any] | None = None, *, kind: Literal["array", "picture"] = "array") -> Partial:
        """The entries of an array that are not NaN and, with a mask, where that is not 0.

        Args:
            array: Numbers.
            mask: Of the array's shape or of its first axes', so that entries along the others are known or missing together.
            kind: What the array comes from.

        Raises:
            ValueError: The array holds no numbers or no entries, the mask does not fit, no entry is known, or one is infinite.

        Example:
            >>> Partial.of_array(np.zeros((2, 2, 3)), np.eye(2)).values.shape
            (6,)
        """
        if array.dtype.kind not in "biufc":
            raise ValueError(f"an array of numbers is needed; got the dtype {array.dtype}")
        if not array.ndim or not array.size:
            raise ValueError(f"an array with axes and entries is needed; got the shape {array.shape}")
        known = ~np.isnan(array)
        if mask is not None:
            if mask.shape != array.shape[: mask.ndim]:
                raise ValueError(f"a mask needs the shape of the array or of its first axes; got {mask.shape} for {array.shape}")
            known &= (mask != 0).reshape(mask.shape + (1,) * (array.ndim - mask.ndim))
        values = array[known].astype(np.complex128 if array.dtype.kind == "c" else np.float64)
        return cls(array.shape, np.stack(np.nonzero(known), 1), values, kind)

    def missing(self) -> NDArray[Any]:
        """Indices of the entries to fill in, ``(M, N)``: those listed without a value, or else all that are not known.

        Raises:
            ValueError: These are too many to be listed.

        Example:
            >>> Partial.of_array(np.array([[1.0, np.nan], [np.nan, 3.0]])).missing().tolist()
            [[0, 1], [1, 0]]
        """
        if self.wanted is not None:
            return self.wanted
        if math.prod(self.sizes) > MOST_ROWS:
            raise ValueError(
                f"a tensor of {' x '.join(map(str, self.sizes))} has too many missing entries to be listed; list the wanted ones "
                f"without a value"
            )
        unknown = np.ones(self.sizes, dtype=bool)
        unknown[tuple(self.indices.T)] = False
        return np.stack(np.nonzero(unknown), 1)

    def fill(self, completed: NDArray[Any]) -> NDArray[Any]:
        """The completed tensor with the known entries as they were given.

        Example:
            >>> Partial.of_array(np.array([1.0, np.nan])).fill(np.array([1.5, 2.5]))
            array([1. , 2.5])
        """
        filled = completed.astype(np.result_type(completed.dtype, self.values.dtype))
        filled[tuple(self.indices.T)] = self.values
        return filled

    def chosen(self, share: float, seed: int) -> NDArray[Any]:
        """A random share of the known entries, ``(B,)`` booleans; of a picture, pixels with all their channels.

        Example:
            >>> int(Partial.of_array(np.zeros((4, 5))).chosen(0.3, 0).sum())
            6
        """
        units = np.arange(len(self.values))
        if self.kind == "picture":
            units = np.unique(self.indices[:, 0] * self.sizes[1] + self.indices[:, 1], return_inverse=True)[1].reshape(-1)
        count = int(units.max()) + 1
        keep = np.zeros(count, dtype=bool)
        keep[np.random.default_rng(seed).permutation(count)[: max(1, round(share * count))]] = True
        return keep[units]


def read(path: str | os.PathLike[str], mask: str | os.PathLike[str] | None = None) -> Partial:
    """The known entries in a file.

    Arrays (``.npy``, ``.npz`` with one array) have NaN for missing entries. Tables (``.csv``, ``.parquet``) have a column of integers
    from 0 for every mode, and a last column of values; entries without a value, or without a row, are missing. Pictures, with values
    from 0 to 255 and modes rows, columns and (unless grey) channels, may have an alpha channel, below 128 where pixels are missing.

    Args:
        path: The file.
        mask: An array or a picture that is 0 (black) where entries of an array, or pixels of a picture, are missing.

    Raises:
        ValueError: A file is empty, truncated or of another kind, holds no numbers, or no known entries.
        OSError: It cannot be opened.
        ModuleNotFoundError: Pillow or PyArrow is needed, and not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "numbers.npy")
        >>> np.save(path, np.array([[1.0, np.nan], [np.nan, 2.0]]))
        >>> read(path).values.tolist()
        [1.0, 2.0]
    """
    path = Path(path)
    suffix = known_suffix(path)
    if suffix in tables.SUFFIXES:
        if mask is not None:
            raise ValueError(f"{path}: a table takes no mask; leave missing entries out")
        with _named(path):
            names, indices, values = tables.read_table(path)
            known = ~np.isnan(values)
            wanted = None if known.all() else indices[~known]
            return Partial(tuple((indices.max(0) + 1).tolist()), indices[known], values[known], "table", names, wanted)
    with _named(path):
        array, opaque = (_read_array(path), None) if suffix in ARRAYS else pictures.read_picture(path)
        if opaque is not None:
            array[~opaque] = np.nan
    known = None
    if mask is not None:
        with _named(Path(mask)):
            known = _read_mask(Path(mask))
    with _named(path):
        return Partial.of_array(array, known, kind="array" if suffix in ARRAYS else "picture")


def known_suffix(path: str | os.PathLike[str], known: Sequence[str] = SUFFIXES) -> str:
    """The suffix of a file's name, in lower case, which is one of those ``known``.

    Raises:
        ValueError: It is none of them.

    Example:
        >>> known_suffix("Photo.PNG")
        '.png'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ValueError(f"the name of a file must end in {', '.join(known)}; got {Path(path).name!r}")
    return suffix


def check_output(path: str | os.PathLike[str], sizes: Sequence[int]) -> None:
    """Finds out, before any work is done, whether a tensor of these sizes can be written to a file.

    Raises:
        ValueError: The suffix is unknown, or a picture cannot hold such a tensor.
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> check_output("tensor.png", (4, 4, 4))
        Traceback (most recent call last):
            ...
        ValueError: a picture needs the shape (rows, columns) or (rows, columns, 3); got (4, 4, 4) for tensor.png
    """
    path = Path(path)
    if known_suffix(path) in pictures.SUFFIXES and (len(sizes) < 2 or tuple(sizes[2:]) not in ((), (3,))):
        raise ValueError(f"a picture needs the shape (rows, columns) or (rows, columns, 3); got {tuple(sizes)} for {path.name}")
    check_place(path)


def check_place(path: str | os.PathLike[str]) -> None:
    """Finds out, before any work is done, whether a file can be written.

    Raises:
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> check_place("absent/tensor.npy")
        Traceback (most recent call last):
            ...
        FileNotFoundError: the folder absent does not exist
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"a file is to be written, but {path} is a folder")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"the folder {path.parent} cannot be written to")


def write(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Writes an array or, as the file's suffix says, a picture, atomically.

    Raises:
        ValueError: See :func:`check_output`.
        OSError: The folder is missing, or cannot be written to.
        ModuleNotFoundError: Pillow is needed, and not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "tensor.npz")
        >>> write(path, np.array([[1.0, 2.0]]))
        >>> np.load(path)["arr_0"].tolist()
        [[1.0, 2.0]]
    """
    check_output(path, array.shape)
    suffix = known_suffix(path)
    with replacing(path) as new:
        if suffix in pictures.SUFFIXES:
            pictures.write_picture(new, array.real)
            return
        with new.open("wb") as file:  # to a name that ends in .NPY NumPy would add another suffix
            if suffix == ".npy":
                np.save(file, array, allow_pickle=False)
            else:
                np.savez_compressed(file, array, allow_pickle=False)


def write_entries(path: str | os.PathLike[str], indices: NDArray[Any], values: NDArray[Any], names: Sequence[str] = ()) -> None:
    """Writes a table of entries, atomically; see :func:`tensornet.files.tables.write_table`.

    Raises:
        OSError: The folder is missing, or cannot be written to.
        ModuleNotFoundError: PyArrow is needed, and not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "entries.csv")
        >>> write_entries(path, np.array([[0, 3]]), np.array([0.5]), ["user", "item", "rating"])
        >>> path.read_text().split()
        ['user,item,rating', '0,3,0.5']
    """
    with replacing(path) as new:
        tables.write_table(new, indices, values, names)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        if path.is_file() and not path.stat().st_size:
            raise ValueError("the file is empty")
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _read_array(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        if not file.peek(6).startswith((b"\x93NUMPY", b"PK")):  # NumPy would advise to load it unsafely
            raise ValueError("no NumPy file")
        try:
            found = np.load(file, allow_pickle=False)
            array: Any = found
            if not isinstance(found, np.ndarray):
                if len(found.files) != 1:
                    raise ValueError(f"one array is needed; got {len(found.files)} ({', '.join(found.files)})")
                array = found[found.files[0]]
        except BROKEN as error:
            raise ValueError(f"no NumPy file, or truncated ({error})") from None
    if not isinstance(array, np.ndarray):
        raise ValueError("no NumPy file, but an archive of other data")
    return array


def _read_mask(path: Path) -> NDArray[Any]:
    suffix = known_suffix(path)
    if suffix in pictures.SUFFIXES:
        return pictures.read_mask(path)
    if suffix not in ARRAYS:
        raise ValueError("a mask is an array or a picture")
    mask = _read_array(path)
    if mask.dtype.kind not in "biuf":
        raise ValueError(f"a mask needs numbers or booleans; got the dtype {mask.dtype}")
    known: NDArray[Any] = np.nan_to_num(mask) != 0
    return known
