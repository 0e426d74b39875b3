"""Whole Pathfinder images, compiled: two paths, distractors and two circles, down to the pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cnn_reg.data.counter import Stream, begin, below
from cnn_reg.data.paddles import Floats, Ints, Paddles
from cnn_reg.data.snakes import PATH_TRIES, compiled, grow_free, grow_pair, paste, rebuild

SIZE = 300  # pixels, both ways
DISTRACTOR_PADDLES = 90  # of all distractors together, about
RESTARTS = 100_000  # of one image at most
MATCH = 1.0  # pixels by which two distances may differ that count as the same


@compiled
def _choose(stream: Stream, tips: Ints, label: int, matched: bool) -> int:
    """Which circles are drawn, as twice the path at whose origin one is plus the path at whose end the other is; -1 for none.

    With ``matched``, the two pairs of circles whose distances agree best, one pair on one path and one on both, are the choices of the
    two labels, and none is chosen where they do not agree.
    """
    if not matched:
        origin = below(stream, 2)
        return 2 * origin + (origin if label else 1 - origin)
    closest, chosen = MATCH, -1
    for same in range(2):
        for other in range(2):
            difference = abs(_distance(tips, same, same) - _distance(tips, other, 1 - other))
            if difference < closest:
                closest, chosen = difference, 3 * same if label else 1 + other
    return chosen


@compiled
def _distance(tips: Ints, origin: int, end: int) -> float:
    return math.hypot(tips[origin, 0, 0] - tips[end, 1, 0], tips[origin, 0, 1] - tips[end, 1, 1])


@compiled
def _scene(
    stream: Stream, made: Paddles, occupancy: Floats, length: int, matched: bool, placed: Ints, circles: Ints
) -> tuple[int, int, int, int]:
    """Draws where everything is; returns the label (-1 where paths of this length find no room), restarts, paddles and skipped."""
    tips = np.zeros((2, 2, 2), dtype=np.int64)
    label, chosen, restarts = below(stream, 2), -1, -1
    while chosen < 0:
        restarts += 1
        if restarts > RESTARTS:
            return -1, restarts, 0, 0
        if grow_pair(stream, made, occupancy, length, placed, tips):
            chosen = _choose(stream, tips, label, matched)
    circles[0], circles[1] = tips[chosen // 2, 0], tips[chosen % 2, 1]
    count, skipped = 2 * length, 0
    for _ in range(-(-DISTRACTOR_PADDLES // length)):
        tried = 0
        while tried < PATH_TRIES and not grow_free(stream, made, occupancy, length // 3, placed, count):
            rebuild(occupancy, made, placed, count, 2 * length - 2)
            tried += 1
        if tried < PATH_TRIES:
            count += length // 3
        else:
            skipped += 1
    return label, restarts, count, skipped


@compiled
def _render(made: Paddles, placed: Ints, circles: Ints, canvas: Floats, image: NDArray[np.uint8]) -> None:
    canvas[:] = 0
    for index in range(len(placed)):
        paste(canvas, made.bitmaps[placed[index, 0]], placed[index, 1], placed[index, 2])
    for index in range(2):
        paste(canvas, made.circle, circles[index, 0], circles[index, 1])
    scale = np.float32(255) / canvas.max()
    for row in range(SIZE):
        for column in range(SIZE):
            image[row, column] = np.uint8(canvas[row, column] * scale)


@compiled
def draw_scenes(
    made: Paddles, seed: int, length: int, matched: bool, first: int, images: NDArray[np.uint8], circles: Ints, counts: Ints
) -> int:
    """Draws images number ``first``, ``first + 1``, and so on, as many as ``images`` has room for.

    Args:
        made: All paddles.
        seed: With the length, the variant and the number of an image, all that it depends on.
        length: Paddles of the two paths.
        matched: Distances of the circles are distributed alike in both classes.
        first: Number of the first image.
        images: ``(n, 300, 300)``, overwritten.
        circles: ``(n, 2, 2)`` row and column of the two circles, overwritten.
        counts: ``(n, 4)`` label, restarts, paddles, skipped distractors; overwritten.

    Returns:
        The number of an image that is not there, since paths of this length found no room, or -1.

    Example:
        >>> from cnn_reg.data.paddles import paddles
        >>> images = np.zeros((1, SIZE, SIZE), dtype=np.uint8)
        >>> circles, counts = np.zeros((1, 2, 2), dtype=np.int64), np.zeros((1, 4), dtype=np.int64)
        >>> draw_scenes(paddles(), 0, 7, False, 0, images, circles, counts), int(images.max())
        (-1, 255)
    """
    stream = np.zeros(1, dtype=np.uint64)
    occupancy = np.zeros((SIZE, SIZE), dtype=np.float32)
    canvas = np.zeros((SIZE, SIZE), dtype=np.float32)
    placed = np.zeros((2 * length + (DISTRACTOR_PADDLES // length + 1) * (length // 3), 3), dtype=np.int64)
    for index in range(len(images)):
        begin(stream, (seed, length, int(matched), first + index))
        label, restarts, paddles, skipped = _scene(stream, made, occupancy, length, matched, placed, circles[index])
        if label < 0:
            return first + index
        counts[index, 0], counts[index, 1], counts[index, 2], counts[index, 3] = label, restarts, paddles, skipped
        _render(made, placed[:paddles], circles[index], canvas, images[index])
    return -1
