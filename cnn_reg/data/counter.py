"""Random numbers that depend on a key alone, compiled: the generator splitmix64, begun at a hash of the key.

A stream is an array of one unsigned integer, its state. Every number adds a constant to the state and mixes its bits (Steele, Lea and
Flood, Fast splittable pseudorandom number generators, 2014). Streams of different keys begin at states that the same mixing spreads
over all 2**64.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Stream = NDArray[np.uint64]
_ADDED = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@njit(cache=True, nogil=True)
def _mix(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def begin(stream: Stream, key: tuple[int, ...]) -> None:
    """Puts a stream to the start of those numbers that belong to the key.

    Example:
        >>> stream = np.zeros(1, dtype=np.uint64)
        >>> begin(stream, (0, 7))
        >>> first = uniform(stream)
        >>> begin(stream, (0, 7))
        >>> uniform(stream) == first
        True
    """
    stream[0] = np.uint64(0)
    for part in key:
        stream[0] = _mix(stream[0] + _ADDED + np.uint64(part))


@njit(cache=True, nogil=True)
def uniform(stream: Stream) -> float:
    """The next number, uniform over the multiples of 2**-53 from 0 to below 1.

    Example:
        >>> stream = np.zeros(1, dtype=np.uint64)
        >>> round(uniform(stream), 6)  # the reference's first output from the seed 0 is 0xe220a8397b1dcdaf
        0.883311
    """
    stream[0] += _ADDED
    return np.float64(_mix(stream[0]) >> np.uint64(11)) * 2.0**-53


@njit(cache=True, nogil=True)
def below(stream: Stream, count: int) -> int:
    """The next number, uniform over the integers from 0 to below ``count``.

    Example:
        >>> stream = np.zeros(1, dtype=np.uint64)
        >>> below(stream, 10)
        8
    """
    return int(uniform(stream) * count)
