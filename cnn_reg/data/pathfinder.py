"""Pathfinder images: are two circles on the same dashed path (Section 6; Linsley et al., 2018)?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn_reg.data.paddles import paddles
from tensornet.checks import integer

SHORTEST, LONGEST = 3, 20  # paddles of a path: shorter ones leave no distractors, longer ones find no room
SIZE = 300  # pixels, both ways
CHUNK = 50  # images that a thread draws in one go
PIECE = 500  # images that are in memory together where many are drawn

Metadata = dict[str, NDArray[np.int64] | NDArray[np.float64]]


class Images(NamedTuple):
    """Images, labels and what is known of them.

    Attributes:
        images: ``(n, 300, 300)`` uint8, white on black.
        labels: ``(n,)`` uint8, 1 where both circles are on one path.
        metadata: Arrays by name: ``circles`` ``(n, 2, 2)``, row and column of the circle at a path's origin and of that at a path's
            end; ``distance`` ``(n,)`` between them in pixels; ``restarts`` ``(n,)`` of the two paths until there was room for both;
            ``paddles`` ``(n,)`` and ``skipped`` ``(n,)``, distractors for which there was no room.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    metadata: Metadata


def generate(path_length: int, num_images: int, seed: int = 0, *, first: int = 0, matched: bool = False, workers: int = 1) -> Images:
    """Draws images; each depends only on seed, path length, variant and its own number.

    Both classes show two paths of the same length that start near each other, distractors, and two circles; they differ in where the
    second circle is. The distance of the circles alone predicts the label rather well (:func:`cnn_reg.data.baseline.halves`), unless
    ``matched`` is set: then both classes have the same distances. To this end, two paths are kept only if they offer a pair of circles
    on one path and a pair on both whose distances differ by less than a pixel, and the label says which pair is drawn.

    Args:
        path_length: Paddles of a path, from 3 to 20.
        num_images: How many images.
        seed: From 0 to below ``2**63``.
        first: Number of the first image; images 0 to 9 are those that one obtains by 0 to 4 and 5 to 9.
        matched: Both classes have the same distances of the circles.
        workers: Threads. They change nothing but the time it takes.

    Raises:
        TypeError: An argument is no integer.
        ValueError: An argument is out of range, or paths of this length find no room.

    Example:
        >>> images, labels, metadata = generate(7, 4, seed=0)
        >>> images.shape, images.dtype, labels.shape, metadata["circles"].shape
        ((4, 300, 300), dtype('uint8'), (4,), (4, 2, 2))
    """
    length = check_length(path_length)
    count, start = integer("num_images", num_images, least=1), integer("first", first, least=0)
    number = integer("seed", seed, least=0)
    from cnn_reg.data.scenes import draw_scenes

    images = np.zeros((count, SIZE, SIZE), dtype=np.uint8)
    circles, counts = np.zeros((count, 2, 2), dtype=np.int64), np.zeros((count, 4), dtype=np.int64)

    def draw(begin: int) -> int:
        part = slice(begin, begin + CHUNK)
        return int(draw_scenes(paddles(), number, length, bool(matched), start + begin, images[part], circles[part], counts[part]))

    paddles()  # once, before threads ask for it
    with ThreadPoolExecutor(integer("workers", workers, least=1)) as pool:
        missing = max(pool.map(draw, range(0, count, CHUNK)))
    if missing >= 0:
        raise ValueError(f"paths of {length} paddles do not fit into the image: none were found for image {missing} of seed {number}")
    distance = np.linalg.norm(circles[:, 0] - circles[:, 1], axis=1)
    names = ("restarts", "paddles", "skipped")
    more: Metadata = {name: counts[:, place].copy() for place, name in enumerate(names, start=1)}
    return Images(images, counts[:, 0].astype(np.uint8), {"circles": circles, "distance": distance, **more})


def pieces(path_length: int, num_images: int, seed: int = 0, *, matched: bool = False, workers: int = 1) -> Iterator[Images]:
    """The same images as :func:`generate` draws, up to 500 at a time.

    Raises:
        TypeError: An argument is no integer.
        ValueError: An argument is out of range, or paths of this length find no room.

    Example:
        >>> [len(piece.images) for piece in pieces(3, 510)]
        [500, 10]
    """
    count = integer("num_images", num_images, least=1)
    for first in range(0, count, PIECE):
        yield generate(path_length, min(PIECE, count - first), seed, first=first, matched=matched, workers=workers)


def check_length(path_length: int) -> int:
    """The path length, an integer from 3 to 20.

    Raises:
        TypeError: It is no integer.
        ValueError: It is out of range.

    Example:
        >>> check_length(9)
        9
    """
    length = integer("path_length", path_length)
    if not SHORTEST <= length <= LONGEST:
        raise ValueError(f"path_length must be from {SHORTEST} to {LONGEST}; got {length}")
    return length
