"""One pass over observed entries before anything is learned: are they valid, how large are the modes, what is held out, mean and spread.

Mean and spread are put together from those of the blocks in the order of the blocks, so that they are the same bits for any number of
processes.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tensornet.completion.sources import Block, Source, largest
from tensornet.distributed import Processes

MOST_HELD_OUT = 2**18  # entries, which stay in memory; they tell a mean squared error to about .5 %


@dataclass(frozen=True)
class Survey:
    """What is known of the entries of a source.

    Attributes:
        sizes: For every mode its largest index plus 1, or the given size.
        held_out: Places of the entries that are held out, in ascending order.
        lengths: Numbers of entries to train on, one a block.
        offset: Mean of the entries to train on.
        scale: Their standard deviation, or 1 where that is 0.
        rest: Indices and values of the entries that are held out.
    """

    sizes: tuple[int, ...]
    held_out: NDArray[Any]
    lengths: NDArray[Any]
    offset: complex
    scale: float
    rest: Block

    @property
    def count(self) -> int:
        """Number of entries to train on.

        Example:
            >>> from tensornet.completion.sources import MemoryEntries
            >>> entries = MemoryEntries(np.arange(100)[:, None], np.ones(100))
            >>> survey(entries, share=0.2, seed=0, sizes=None, processes=Processes()).count
            80
        """
        return int(self.lengths.sum())


class _Part(NamedTuple):
    """What is known of a block: the largest indices, and number, mean and sum of squared deviations of the entries to train on."""

    most: NDArray[Any]
    number: int
    mean: complex
    squares: float


def survey(source: Source, *, share: float, seed: int, sizes: Sequence[int] | None, processes: Processes) -> Survey:
    """Goes once over the entries; every process over a part of the blocks.

    Args:
        source: The entries.
        share: Of the entries to hold out, of which there are at most 262144; they are chosen by the seed.
        seed: See above.
        sizes: Mode sizes, if these are given.
        processes: Who takes part.

    Raises:
        TypeError: The share is no number.
        ValueError: It is out of range, there are no entries or fewer than processes, a value is not finite, or an index is out of range.

    Example:
        >>> from tensornet.completion.sources import MemoryEntries
        >>> entries = MemoryEntries(np.array([[0, 1], [2, 0]]), np.array([1.0, 3.0]))
        >>> found = survey(entries, share=0.0, seed=0, sizes=None, processes=Processes())
        >>> found.sizes, found.offset, found.scale
        ((3, 2), 2.0, 1.0)
    """
    count = int(source.edges[-1])
    if not count or not source.order:
        raise ValueError(f"at least one observed entry is needed; got indices of the shape {(count, source.order)}")
    held_out = _chosen(count, share, seed)
    if count - len(held_out) < processes.size:
        raise ValueError(f"every process needs an entry to train on; got {count - len(held_out)} for {processes.size} processes")
    blocks = processes.share(len(source.edges) - 1)
    mine = processes.together(lambda: [_looked_at(source, block, held_out, sizes) for block in blocks])
    seen = [each for of_process in processes.gather(mine) for each in of_process]
    parts = [part for part, _ in seen if part is not None]
    offset, scale = _merged(parts)
    most = np.max([part.most for part in parts], axis=0)
    rest = tuple(np.concatenate(arrays) for arrays in zip(*(rest for _, rest in seen)))
    return Survey(
        tuple(int(index) + 1 for index in most) if sizes is None else tuple(sizes),
        held_out,
        np.diff(source.edges) - np.diff(np.searchsorted(held_out, source.edges)),
        offset,
        scale,
        (rest[0], rest[1]),
    )


def trained(source: Source, found: Survey, block: int) -> Block:
    """Indices of a block's entries to train on, and their values, centred and scaled.

    Example:
        >>> from tensornet.completion.sources import MemoryEntries
        >>> entries = MemoryEntries(np.array([[0, 1], [2, 0]]), np.array([1.0, 3.0]))
        >>> trained(entries, survey(entries, share=0.0, seed=0, sizes=None, processes=Processes()), 0)[1]
        array([-1.,  1.])
    """
    (indices, values), _ = _divided(source.read(block), int(source.edges[block]), found.held_out)
    return indices, scaled(values, found)


def scaled(values: NDArray[Any], found: Survey) -> NDArray[Any]:
    """Values, centred and scaled, in double precision.

    Example:
        >>> scaled(np.array([3]), Survey((4,), np.arange(0), np.array([1]), 2.0, 0.5, (np.zeros((0, 1)), np.zeros(0))))
        array([2.])
    """
    result: NDArray[Any] = (_wide(values) - found.offset) / found.scale
    return result


def taken(entries: Block, places: NDArray[Any]) -> Block:
    """Some of a block's entries.

    Example:
        >>> taken((np.array([[0, 1], [2, 0]]), np.array([0.5, 1.5])), np.array([1]))
        (array([[2, 0]]), array([1.5]))
    """
    return entries[0].take(places, 0), entries[1].take(places)  # many times as fast as entries[0][places]


def check_validation(share: float) -> None:
    """Checks a share of entries to be held out.

    Raises:
        TypeError: It is no number.
        ValueError: It is not from 0 to below 1.

    Example:
        >>> check_validation(0.05)
    """
    if not isinstance(share, numbers.Real):
        raise TypeError(f"validation must be a number; got {share!r}")
    if not 0 <= share < 1:
        raise ValueError(f"validation must be a share from 0 to below 1; got {share}")


def _chosen(count: int, share: float, seed: int) -> NDArray[Any]:
    check_validation(share)
    number = min(int(count * share), MOST_HELD_OUT, count - 1)
    return np.sort(np.random.default_rng(seed).choice(count, number, replace=False, shuffle=False))


def _divided(entries: Block, first: int, held_out: NDArray[Any]) -> tuple[Block, Block]:
    """The entries of a block that begins at a place to train on, and those held out."""
    places = held_out[slice(*np.searchsorted(held_out, (first, first + len(entries[1]))))] - first
    if not len(places):
        return entries, (entries[0][:0], entries[1][:0])
    keep = np.ones(len(entries[1]), dtype=bool)
    keep[places] = False
    return taken(entries, np.flatnonzero(keep)), taken(entries, places)


def _looked_at(source: Source, block: int, held_out: NDArray[Any], sizes: Sequence[int] | None) -> tuple[_Part | None, Block]:
    """What a block adds to the survey; nothing where it has no entries."""
    entries, first = source.read(block), int(source.edges[block])
    (_, values), rest = _divided(entries, first, held_out)
    if not len(entries[1]):
        return None, rest
    values = _wide(values)
    most = largest(entries, first, sizes)
    mean = values.mean().item() if len(values) else 0.0
    return _Part(most, len(values), mean, float(np.square(np.abs(values - mean)).sum())), rest


def _merged(parts: Sequence[_Part]) -> tuple[complex, float]:
    """Mean and standard deviation of all parts, by the update of Chan, Golub and LeVeque."""
    count, mean, squares = 0, parts[0].mean * 0, 0.0
    for part in parts:
        if part.number:
            total = count + part.number
            way = part.mean - mean
            squares += part.squares + abs(way) * abs(way) * (count * part.number / total)
            mean, count = mean + way * (part.number / total), total
    scale = math.sqrt(squares / count)
    if not math.isfinite(scale):
        raise ValueError("the squares of the values must not overflow; divide values above 1e150 by their size")
    return mean, scale or 1.0


def _wide(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
