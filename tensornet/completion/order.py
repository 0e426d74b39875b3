"""The order in which batches take the entries: random, a function of seed and step alone, and with few blocks open at a time.

A pass goes over the blocks in a random order, dealt out to several lanes. A batch takes the same share of every lane, and of a block its
entries in a random order. So a batch mixes many blocks, every entry comes once a pass, no permutation of all entries is stored, and the
order neither depends on the number of processes nor has a state of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LANES = 64  # at most
OPEN = 2**20  # entries of open blocks, unless the blocks are so large that there would be fewer lanes than
FEWEST = 4


class Piece(NamedTuple):
    """Consecutive entries of a block, in the order of :meth:`Order.permutation`."""

    turn: int  # number of the pass
    block: int
    start: int
    stop: int


class Order:
    """Batches of a source's entries.

    Args:
        lengths: Numbers of entries of the blocks.
        batch_size: Entries of a batch; batches of a pass differ a little, so that they are even.
        seed: Of the order.

    Attributes:
        steps: Batches in a pass.

    Example:
        >>> order = Order([5, 3], batch_size=4, seed=0)
        >>> order.steps, order.pieces(0)
        (2, [Piece(turn=0, block=0, start=0, stop=2), Piece(turn=0, block=1, start=0, stop=2)])
    """

    def __init__(self, lengths: Sequence[int] | NDArray[Any], batch_size: int, seed: int) -> None:
        self._lengths, self._seed = np.asarray(lengths), seed
        self.steps = -(-int(self._lengths.sum()) // batch_size)
        wanted = min(LANES, max(FEWEST, OPEN // int(self._lengths.max())))
        self._lanes = min(wanted, batch_size, len(self._lengths))  # with more, a batch could be empty
        self._dealt = lru_cache(maxsize=1)(self._deal)

    def pieces(self, step: int) -> list[Piece]:
        """The entries of a batch; steps count from 0 and go on from pass to pass.

        Example:
            >>> sum(piece.stop - piece.start for step in (2, 3) for piece in Order([5, 3], 4, seed=0).pieces(step))
            8
        """
        turn, step = divmod(step, self.steps)
        found = []
        for lane, (blocks, ends) in enumerate(self._dealt(turn)):
            shift = lane * self.steps // self._lanes  # so that not all lanes round alike
            start, stop = ((int(ends[-1]) * place + shift) // self.steps for place in (step, step + 1))
            for place in range(int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(ends, stop)) + 1):
                before = int(ends[place]) - int(self._lengths[blocks[place]])
                piece = Piece(turn, int(blocks[place]), max(start, before) - before, min(stop, int(ends[place])) - before)
                if piece.stop > piece.start:
                    found.append(piece)
        return found

    def permutation(self, piece: Piece) -> NDArray[Any]:
        """The random order of the entries in a piece's block.

        Example:
            >>> sorted(Order([5, 3], 4, seed=0).permutation(Piece(0, 1, 0, 1)).tolist())
            [0, 1, 2]
        """
        random = np.random.default_rng((self._seed, 1 + piece.turn, 1 + piece.block))  # a 0 at the end would not count
        return random.permutation(int(self._lengths[piece.block]))

    def _deal(self, turn: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """For every lane its blocks, and the sums of their lengths up to each."""
        blocks = np.random.default_rng((self._seed, 1 + turn)).permutation(len(self._lengths))
        return [(blocks[lane :: self._lanes], np.cumsum(self._lengths[blocks[lane :: self._lanes]])) for lane in range(self._lanes)]


def shared(pieces: Sequence[Piece], share: range) -> list[Piece]:
    """Of pieces laid one after the other, those or their parts that fall into a range of places.

    Example:
        >>> shared([Piece(0, 7, 0, 3), Piece(0, 2, 4, 9)], range(2, 5))
        [Piece(turn=0, block=7, start=2, stop=3), Piece(turn=0, block=2, start=4, stop=6)]
    """
    found, first = [], 0
    for piece in pieces:
        start = piece.start + max(0, share.start - first)
        stop = min(piece.stop, piece.start + share.stop - first)
        if stop > start:
            found.append(piece._replace(start=start, stop=stop))
        first += piece.stop - piece.start
    return found
