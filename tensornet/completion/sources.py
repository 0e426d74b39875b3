"""Where observed entries come from: the interface of sources, entries in memory, and checks of a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tensornet.files.entries import usual_edges

Block = tuple[NDArray[Any], NDArray[Any]]  # indices (b, N) and values (b,)


class Source(Protocol):
    """Observed entries, read in blocks; anything with these attributes will do.

    Attributes:
        order: Number of modes.
        edges: First place of every block, in ascending order from 0, and the number of entries as the last.
    """

    order: int
    edges: NDArray[Any]

    def read(self, block: int) -> Block:
        """Integer indices ``(b, N)`` and values ``(b,)`` of a block.

        Example:
            >>> MemoryEntries(np.array([[0, 1]]), np.array([0.5])).read(0)
            (array([[0, 1]]), array([0.5]))
        """
        ...


class MemoryEntries:
    """Entries that are in memory.

    Args:
        indices: ``(B, N)`` integers.
        values: ``(B,)``.

    Example:
        >>> MemoryEntries(np.array([[0, 1], [1, 0]]), np.array([0.5, 1.5])).edges
        array([0, 2])
    """

    def __init__(self, indices: NDArray[Any], values: NDArray[Any]) -> None:
        self._indices, self._values = indices, values
        self.order = indices.shape[1]
        self.edges = usual_edges(len(values))

    def read(self, block: int) -> Block:
        """Indices and values of a block.

        Example:
            >>> MemoryEntries(np.array([[0, 1]]), np.array([0.5])).read(0)
            (array([[0, 1]]), array([0.5]))
        """
        places = slice(self.edges[block], self.edges[block + 1])
        return self._indices[places], self._values[places]


def largest(block: Block, first: int, sizes: Sequence[int] | None) -> NDArray[Any]:
    """The largest index of every mode in a block that is not empty, which is checked.

    Args:
        block: Indices and values.
        first: Number of the block's first row; rows count from 0.
        sizes: Mode sizes; without them, indices must only not be negative.

    Raises:
        ValueError: A value is not finite, or an index is out of range; the error names the first such row.

    Example:
        >>> largest((np.array([[0, 1], [2, 0]]), np.array([0.5, 1.5])), 1000, None)
        array([2, 1])
    """
    indices, values = block
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"values must be finite, and missing entries left out; got {values[row]} in row {first + row}")
    columns = indices.T.copy()  # along which extremes are found far faster
    most: NDArray[Any] = columns.max(1)
    if (columns.min(1) >= 0).all() and (sizes is None or (most < sizes).all()):
        return most
    wrong = indices < 0 if sizes is None else (indices < 0) | (indices >= sizes)
    row, mode = (int(place) for place in np.argwhere(wrong)[0])
    where = f"for mode {mode}{'' if sizes is None else f' of size {sizes[mode]}'} in row {first + row}"
    raise ValueError(f"indices must be from 0 to below the mode's size; got {indices[row, mode]} {where}")
