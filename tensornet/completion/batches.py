"""The entries of a step, in parts that fit into memory: all entries, prepared once, or batches of a source, read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tensornet.completion.order import Order, Piece, shared
from tensornet.completion.sources import Block, Source
from tensornet.completion.survey import Survey, taken, trained
from tensornet.distributed import Processes
from tensornet.evaluation.observed import Observed, observe
from tensornet.shape import Shape

NUMBERS = 2**24  # of the tables of a part, at about one row an entry
MOST = 2**17  # entries of a part
LEAST = 2**10


class Batches(Protocol):
    """What the steps of a training are made of.

    Attributes:
        random: Whether a step takes a random batch, and not all entries.
    """

    random: bool

    def size(self, step: int) -> int:
        """Number of entries of a step, in all processes together.

        Example:
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> Prepared(make_shape(ModeTree.star(1), 3, 1), (np.array([[2]]), np.array([0.5])), 1, dtype=torch.float32).size(7)
            1
        """
        ...

    def parts(self, step: int) -> Iterator[tuple[Any, Tensor]]:
        """This process's entries of a step: indices, prepared or not, and values.

        Example:
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> entries = Prepared(make_shape(ModeTree.star(1), 3, 1), (np.array([[2]]), np.array([0.5])), 1, dtype=torch.float32)
            >>> [values for _, values in entries.parts(0)]
            [tensor([0.5000])]
        """
        ...


class Prepared:
    """All entries in every step; they lie in memory and are prepared once.

    Args:
        shape: Tree and sizes of the factorization.
        entries: This process's entries.
        count: Number of entries of all processes.
        dtype: Of the values.
        device: Where to train.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> entries = Prepared(make_shape(ModeTree.star(1), 3, 1), (np.array([[2]]), np.array([0.5])), 1, dtype=torch.float32)
        >>> entries.observed.samples
        1
    """

    random = False

    def __init__(self, shape: Shape, entries: Block, count: int, *, dtype: torch.dtype, device: torch.device | str | None = None) -> None:
        self.observed: Observed = observe(shape, torch.as_tensor(entries[0]), device)
        self._values = torch.as_tensor(entries[1]).to(device, dtype)
        self._count = count

    def size(self, step: int) -> int:  # noqa: ARG002, every step is like the others
        """See :class:`Batches`.

        Example:
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> Prepared(make_shape(ModeTree.star(1), 3, 1), (np.array([[2]]), np.array([0.5])), 1, dtype=torch.float32).size(7)
            1
        """
        return self._count

    def parts(self, step: int) -> Iterator[tuple[Any, Tensor]]:  # noqa: ARG002
        """See :class:`Batches`.

        Example:
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> entries = Prepared(make_shape(ModeTree.star(1), 3, 1), (np.array([[2]]), np.array([0.5])), 1, dtype=torch.float32)
            >>> len(list(entries.parts(0)))
            1
        """
        if len(self._values):
            yield self.observed, self._values


class Streamed:
    """Random batches of a source's entries, or all of them in every step; in memory are one part and a few blocks.

    Args:
        shape: Tree and sizes of the factorization.
        source: The entries.
        found: What is known of them.
        batch_size: Entries of a step; ``None`` for all.
        seed: Of the order.
        processes: Who shares every batch.
        dtype: Of the values.
        device: Where to train.

    Example:
        >>> from tensornet.completion.sources import MemoryEntries
        >>> from tensornet.completion.survey import survey
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> entries = MemoryEntries(np.array([[0, 1], [2, 0], [1, 1]]), np.array([1.0, 2.0, 3.0]))
        >>> found = survey(entries, share=0.0, seed=0, sizes=None, processes=Processes())
        >>> shape = make_shape(ModeTree.star(2), found.sizes, 1)
        >>> batches = Streamed(shape, entries, found, 2, seed=0, processes=Processes(), dtype=torch.float32)
        >>> [indices.tolist() for step in (0, 1) for indices, values in batches.parts(step)]
        [[[0, 1]], [[2, 0], [1, 1]]]
    """

    def __init__(
        self,
        shape: Shape,
        source: Source,
        found: Survey,
        batch_size: int | None,
        *,
        seed: int,
        processes: Processes,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
    ) -> None:
        self._source, self._found, self._processes = source, found, processes
        self._dtype, self._device = dtype, device
        self._order = None if batch_size is None else Order(found.lengths, batch_size, seed)
        self._part = max(LEAST, min(MOST, NUMBERS // sum(columns for _, columns in shape.weights)))
        self._open: dict[tuple[int, int], Block] = {}
        self.random = batch_size is not None

    def size(self, step: int) -> int:
        """See :class:`Batches`.

        Example:
            >>> from tensornet.completion.sources import MemoryEntries
            >>> from tensornet.completion.survey import survey
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> entries = MemoryEntries(np.array([[0, 1], [2, 0], [1, 1]]), np.array([1.0, 2.0, 3.0]))
            >>> found = survey(entries, share=0.0, seed=0, sizes=None, processes=Processes())
            >>> shape = make_shape(ModeTree.star(2), found.sizes, 1)
            >>> batches = Streamed(shape, entries, found, None, seed=0, processes=Processes(), dtype=torch.float32)
            >>> batches.size(0)
            3
        """
        return sum(piece.stop - piece.start for piece in self._pieces(step))

    def parts(self, step: int) -> Iterator[tuple[Any, Tensor]]:
        """See :class:`Batches`.

        Raises:
            ValueError: A file has changed in the meantime.

        Example:
            >>> from tensornet.completion.sources import MemoryEntries
            >>> from tensornet.completion.survey import survey
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> entries = MemoryEntries(np.array([[0, 1], [2, 0], [1, 1]]), np.array([1.0, 2.0, 3.0]))
            >>> found = survey(entries, share=0.0, seed=0, sizes=None, processes=Processes())
            >>> shape = make_shape(ModeTree.star(2), found.sizes, 1)
            >>> batches = Streamed(shape, entries, found, None, seed=0, processes=Processes(), dtype=torch.float32)
            >>> [indices.shape for indices, _ in batches.parts(0)]
            [torch.Size([3, 2])]
        """
        pieces = self._pieces(step)
        mine = shared(pieces, self._processes.share(sum(piece.stop - piece.start for piece in pieces)))
        collected: list[Block] = []
        length = 0
        for piece in mine:
            for first in range(piece.start, piece.stop, self._part):
                rows = self._rows(piece._replace(start=first, stop=min(piece.stop, first + self._part)))
                if collected and length + len(rows[1]) > self._part:
                    yield self._tensors(collected)
                    collected, length = [], 0
                collected.append(rows)
                length += len(rows[1])
        if collected:
            yield self._tensors(collected)
        for piece in pieces:
            if piece.stop == self._found.lengths[piece.block]:  # by another process, maybe
                self._open.pop((piece.turn, piece.block), None)

    def _pieces(self, step: int) -> list[Piece]:
        if self._order is not None:
            return self._order.pieces(step)
        return [Piece(0, block, 0, int(length)) for block, length in enumerate(self._found.lengths)]

    def _rows(self, piece: Piece) -> Block:
        """The entries of a piece; its block stays open until all of it was taken."""
        key = piece.turn, piece.block
        if key not in self._open:
            entries = trained(self._source, self._found, piece.block)
            self._open[key] = entries if self._order is None else taken(entries, self._order.permutation(piece))
        indices, values = self._open[key]
        if piece.stop == len(values):
            del self._open[key]
        return indices[piece.start : piece.stop], values[piece.start : piece.stop]

    def _tensors(self, collected: list[Block]) -> tuple[Tensor, Tensor]:
        indices, values = (np.concatenate(arrays) for arrays in zip(*collected))
        return torch.from_numpy(indices).to(self._device), torch.from_numpy(values).to(self._device, self._dtype)
