"""The pictures that Pathfinder images are made of: paddles, the places they occupy, and circles, each as a small array drawn once."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LENGTH, THICKNESS, MARGIN, RADIUS, ANTIALIAS = 5, 2, 3, 3, 2
REACH = LENGTH + THICKNESS + MARGIN  # pixels of a paddle's picture to each side of its end
SEEDS = 360  # orientations of a path's first paddle
ARM = LENGTH + MARGIN  # pixels from a pivot to the head of the paddle that turns about it

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Paddles(NamedTuple):
    """Everything that can be pasted, and the ways in which a path can begin and go on.

    A row stands for a paddle at one angle: the first 360 for seeds, whole degrees from -180, drawn from the tail to the head; then one
    for each place that the head of a further paddle can have about its pivot, drawn from the head back.

    Attributes:
        headings: ``(rows,)`` radians in which the path goes; an angle t points to (sin t, cos t) in (row, column).
        moves: ``(rows, 2)`` how far the pivot moves to be that of the next paddle.
        bitmaps: ``(rows, 21, 21)`` the paddle, drawn from the middle; not clipped, so values overshoot 1.
        masks: ``(rows, 21, 21)`` the place it occupies, from 0 to 1.
        covered: ``(rows, most, 2)`` pixels relative to the middle of which it occupies half or more; the last fills up.
        pivots: ``(360, 2)`` pivot of a seed relative to its tail.
        turns: ``(rows - 360, 2)`` head relative to the pivot.
        disc: ``(pixels, 2)`` pixels within the margin of a pixel.
        circle: ``(20, 20)`` the circle whose middle is at (10, 10), from 0 to 1.

    Example:
        >>> made = paddles()
        >>> made.bitmaps.shape[0] == SEEDS + len(made.turns)
        True
    """

    headings: NDArray[np.float64]
    moves: Ints
    bitmaps: Floats
    masks: Floats
    covered: Ints
    pivots: Ints
    turns: Ints
    disc: Ints
    circle: Floats


@functools.cache
def paddles() -> Paddles:
    """All paddles, drawn at twice the size and reduced with Lanczos' filter.

    Example:
        >>> made = paddles()
        >>> bool(1.21 < made.bitmaps.max() < 1.22), float(made.masks.min()), float(made.masks.max())
        (True, 0.0, 1.0)
    """
    seeds, turns = np.radians(np.arange(-180, 180)), _turns()
    turned = np.arctan2(turns[:, 0], turns[:, 1])
    headings = np.concatenate([seeds, turned])
    drawn = [_draw(angle) for angle in [*seeds, *(turned + np.pi)]]
    masks = np.stack([mask for _, mask in drawn])
    places = [np.argwhere(mask >= 0.5) - REACH for mask in masks]
    most = max(map(len, places))
    return Paddles(
        headings=headings,
        moves=np.array([step(angle, LENGTH + 2 * MARGIN) for angle in headings]),
        bitmaps=np.stack([bitmap for bitmap, _ in drawn]),
        masks=masks,
        covered=np.stack([np.concatenate([place, np.repeat(place[-1:], most - len(place), axis=0)]) for place in places]),
        pivots=np.array([np.add(step(angle, LENGTH), step(angle + np.pi, ARM)) for angle in seeds]),
        turns=turns,
        disc=np.argwhere(_disc(MARGIN)) - MARGIN,
        circle=_circle(),
    )


def step(angle: float, distance: float) -> tuple[int, int]:
    """The move by a distance along an angle, rounded up in both coordinates.

    Example:
        >>> step(math.pi / 2, 8), step(0.1, 8)
        ((8, 0), (1, 8))
    """
    exact = (distance * math.sin(angle), distance * math.cos(angle))
    return math.ceil(exact[0] - 1e-9), math.ceil(exact[1] - 1e-9)  # sin(pi) is not quite 0


def _turns() -> Ints:
    """The pixels met on a circle about the pivot, going round it in steps of one pixel's length, each once."""
    around = np.arange(0, 2 * math.pi, 1 / ARM)
    exact = ARM * np.stack([np.sin(around), np.cos(around)], axis=1)
    return np.unique(np.floor(exact).astype(np.int64), axis=0)


def _draw(angle: float) -> tuple[Floats, Floats]:
    from PIL import Image, ImageDraw
    from scipy import ndimage

    middle = REACH * ANTIALIAS
    large = Image.new("F", (2 * middle + 1, 2 * middle + 1), 0)
    rows, columns = step(angle, LENGTH * ANTIALIAS)
    ends = [(middle, middle), (middle + columns, middle + rows)]
    ImageDraw.Draw(large).line(ends, fill=1, width=THICKNESS * ANTIALIAS)
    occupied = ndimage.binary_dilation(np.asarray(large) > 0, _disc(MARGIN * ANTIALIAS))
    return _reduce(large, 2 * REACH + 1), np.clip(_reduce(Image.fromarray(occupied.astype(np.float32)), 2 * REACH + 1), 0, 1)


def _circle() -> Floats:
    from PIL import Image

    size, radius = 2 * REACH * ANTIALIAS, RADIUS * ANTIALIAS
    large = np.zeros((size, size), dtype=np.float32)
    middle = slice(size // 2 - radius, size // 2 + radius + 1)
    large[middle, middle] = _disc(radius)
    return np.clip(_reduce(Image.fromarray(large), size // ANTIALIAS), 0, 1)


def _disc(radius: int) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(rows**2 + columns**2 <= radius**2)


def _reduce(large: Any, size: int) -> Floats:
    from PIL import Image

    return np.array(large.resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32)
