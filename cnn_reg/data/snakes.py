"""Paths of paddles ("snakes") that grow where there is room, compiled.

Occupancy is an image of values from 0 to 1 that says which pixels are taken. A path's newest paddle enters it only when the path is
extended again, so that the next one may stand beside it. A path is an array of five integers: row and column of its pivot, the row of
its newest paddle in the table of paddles, and the row and column from which that is drawn. Placed paddles are listed likewise, by their
row in the table and where they are drawn from.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cnn_reg.data.counter import Stream, below, uniform
from cnn_reg.data.paddles import REACH, SEEDS, Floats, Ints, Paddles

BORDER = 22  # pixels along every side that stay free
SEED_DISTANCE = 27
CENTRE = 2 * SEED_DISTANCE  # the first paddle keeps this far from every side
CONTINUITY = 1.8
TRIES = 3  # of one paddle
PATH_TRIES = 5  # of a distractor
FREE = 0.3  # occupancy at most where a path may begin
FULL = 1.8  # occupancy and mask together below this where a paddle may be
LEAST = 1e-4  # weights together at least
BLIND = 1000  # places tried at random before all are listed

compiled = njit(cache=True, nogil=True)


@compiled
def paste(target: Floats, picture: Floats, row: int, column: int) -> None:
    """Combines a picture with a target by maximum, its middle (row and column 10) at the given place, cut at the edges.

    Example:
        >>> target = np.zeros((30, 30), dtype=np.float32)
        >>> paste(target, np.ones((20, 20), dtype=np.float32), 0, 0)
        >>> int(target.sum())
        100
    """
    top, left = row - REACH, column - REACH
    for i in range(max(0, -top), min(picture.shape[0], target.shape[0] - top)):
        for j in range(max(0, -left), min(picture.shape[1], target.shape[1] - left)):
            target[top + i, left + j] = max(target[top + i, left + j], picture[i, j])


@compiled
def clear(occupancy: Floats) -> None:
    """Empties an occupancy but for the border.

    Example:
        >>> occupancy = np.ones((300, 300), dtype=np.float32)
        >>> clear(occupancy)
        >>> int(occupancy.sum()) == 300**2 - 256**2
        True
    """
    occupancy[:] = 1
    occupancy[BORDER:-BORDER, BORDER:-BORDER] = 0


@compiled
def rebuild(occupancy: Floats, made: Paddles, placed: Ints, count: int, left_out: int) -> None:
    """Makes the occupancy of the placed paddles anew, one of them left out.

    Example:
        >>> from cnn_reg.data.paddles import paddles
        >>> occupancy = np.zeros((300, 300), dtype=np.float32)
        >>> rebuild(occupancy, paddles(), np.array([[0, 150, 150]]), 1, -1)
        >>> bool(occupancy[150, 150] > 0.9), float(occupancy[150, 170])
        (True, 0.0)
    """
    clear(occupancy)
    for index in range(count):
        if index != left_out:
            paste(occupancy, made.masks[placed[index, 0]], placed[index, 1], placed[index, 2])


@compiled
def _begin(path: Ints, made: Paddles, kind: int, row: int, column: int, placed: Ints, count: int) -> None:
    path[0], path[1] = row + made.pivots[kind, 0], column + made.pivots[kind, 1]
    path[2], path[3], path[4] = kind, row, column
    placed[count, 0], placed[count, 1], placed[count, 2] = kind, row, column


@compiled
def _enter(occupancy: Floats, made: Paddles, path: Ints) -> None:
    paste(occupancy, made.masks[path[2]], path[3], path[4])


@compiled
def _fits(occupancy: Floats, mask: Floats, row: int, column: int) -> bool:
    top, left = row - REACH, column - REACH
    for i in range(max(0, -top), min(mask.shape[0], occupancy.shape[0] - top)):
        for j in range(max(0, -left), min(mask.shape[1], occupancy.shape[1] - left)):
            if occupancy[top + i, left + j] + mask[i, j] >= FULL:
                return False
    return True


@compiled
def _room(occupancy: Floats, disc: Ints, row: int, column: int) -> float:
    """One less the largest occupancy within the margin of a pixel."""
    largest = 0.0
    for index in range(len(disc)):
        i, j = row + disc[index, 0], column + disc[index, 1]
        if 0 <= i < occupancy.shape[0] and 0 <= j < occupancy.shape[1]:
            largest = max(largest, occupancy[i, j])
    return 1 - largest


@compiled
def extend(stream: Stream, made: Paddles, occupancy: Floats, path: Ints, placed: Ints, count: int) -> bool:
    """Adds a paddle to a path, listed at ``placed[count]``; false where there is no room for it.

    Example:
        >>> from cnn_reg.data.paddles import paddles
        >>> stream, occupancy = np.zeros(1, dtype=np.uint64), np.zeros((300, 300), dtype=np.float32)
        >>> path, placed = np.array([150, 147, 180, 150, 150]), np.zeros((1, 3), dtype=np.int64)
        >>> extend(stream, paddles(), occupancy, path, placed, 0), path[:2].tolist()
        (True, [150, 158])
    """
    row, column = path[0] + made.moves[path[2], 0], path[1] + made.moves[path[2], 1]
    sums = np.zeros(len(made.turns))
    total = 0.0
    for turn in range(len(made.turns)):
        i, j = row + made.turns[turn, 0], column + made.turns[turn, 1]
        if 0 <= i < occupancy.shape[0] and 0 <= j < occupancy.shape[1]:
            angle = abs(made.headings[SEEDS + turn] - made.headings[path[2]])
            angle = CONTINUITY * min(angle, 2 * math.pi - angle)
            if angle < math.pi / 2:
                total += math.cos(angle) ** 2 * _room(occupancy, made.disc, i, j)
        sums[turn] = total
    if total < LEAST:
        return False
    for _ in range(TRIES):
        turn = int(np.searchsorted(sums, uniform(stream) * total, side="right"))
        i, j = row + made.turns[turn, 0], column + made.turns[turn, 1]
        if _fits(occupancy, made.masks[SEEDS + turn], i, j):
            _enter(occupancy, made, path)
            path[0], path[1] = row, column
            path[2], path[3], path[4] = SEEDS + turn, i, j
            placed[count, 0], placed[count, 1], placed[count, 2] = SEEDS + turn, i, j
            return True
    return False


@compiled
def grow_pair(stream: Stream, made: Paddles, occupancy: Floats, length: int, placed: Ints, tips: Ints) -> bool:
    """Two paths of ``length`` paddles that start near each other and grow in turn; false where one finds no room.

    Fills the first ``2 * length`` rows of ``placed``, the paths' paddles in turn, and ``tips``, by path (first, second), end (origin,
    terminal) and coordinate. The first path's last paddle does not enter the occupancy.

    Example:
        >>> from cnn_reg.data.paddles import paddles
        >>> stream, occupancy = np.zeros(1, dtype=np.uint64), np.zeros((300, 300), dtype=np.float32)
        >>> placed, tips = np.zeros((6, 3), dtype=np.int64), np.zeros((2, 2, 2), dtype=np.int64)
        >>> grow_pair(stream, paddles(), occupancy, 3, placed, tips)
        True
        >>> bool(26 <= np.linalg.norm(tips[0, 0] - tips[1, 0]) <= 28)
        True
    """
    clear(occupancy)
    paths = np.zeros((2, 5), dtype=np.int64)
    kind = below(stream, SEEDS)
    for axis in range(2):
        least, most = made.covered[kind, :, axis].min(), made.covered[kind, :, axis].max()
        tips[0, 0, axis] = CENTRE - least + below(stream, occupancy.shape[axis] - 2 * CENTRE - most + least)
    _begin(paths[0], made, kind, tips[0, 0, 0], tips[0, 0, 1], placed, 0)
    angle = math.radians(below(stream, 360))
    tips[1, 0, 0] = round(tips[0, 0, 0] + SEED_DISTANCE * math.sin(angle))
    tips[1, 0, 1] = round(tips[0, 0, 1] + SEED_DISTANCE * math.cos(angle))
    _begin(paths[1], made, below(stream, SEEDS), tips[1, 0, 0], tips[1, 0, 1], placed, 1)
    for index in range(2, 2 * length):
        if not extend(stream, made, occupancy, paths[index % 2], placed, index):
            return False
    tips[:, 1] = paths[:, 3:]
    _enter(occupancy, made, paths[1])
    return True


@compiled
def grow_free(stream: Stream, made: Paddles, occupancy: Floats, length: int, placed: Ints, count: int) -> bool:
    """A path of ``length`` paddles anywhere there is room, listed from ``placed[count]`` on; false where it finds none.

    After a failure the occupancy holds part of the path.

    Example:
        >>> from cnn_reg.data.paddles import paddles
        >>> stream, occupancy = np.zeros(1, dtype=np.uint64), np.ones((300, 300), dtype=np.float32)
        >>> placed = np.zeros((3, 3), dtype=np.int64)
        >>> grow_free(stream, paddles(), occupancy, 3, placed, 0)
        False
        >>> clear(occupancy)
        >>> grow_free(stream, paddles(), occupancy, 3, placed, 0)
        True
    """
    kind = below(stream, SEEDS)
    row, column = _free_place(stream, occupancy, made.covered[kind])
    if row < 0:
        return False
    path = np.zeros(5, dtype=np.int64)
    _begin(path, made, kind, row, column, placed, count)
    for index in range(1, length):
        if not extend(stream, made, occupancy, path, placed, count + index):
            return False
    _enter(occupancy, made, path)
    return True


@compiled
def _free_place(stream: Stream, occupancy: Floats, covered: Ints) -> tuple[int, int]:
    """One of the places where a paddle may begin, each as likely as any other; (-1, -1) where there is none."""
    height, width = occupancy.shape
    for _ in range(BLIND):
        row, column = below(stream, height), below(stream, width)
        if _free(occupancy, covered, row, column):
            return row, column
    free = [(row, column) for row in range(height) for column in range(width) if _free(occupancy, covered, row, column)]
    return free[below(stream, len(free))] if len(free) else (-1, -1)


@compiled
def _free(occupancy: Floats, covered: Ints, row: int, column: int) -> bool:
    for index in range(len(covered)):
        i, j = row + covered[index, 0], column + covered[index, 1]
        if not (0 <= i < occupancy.shape[0] and 0 <= j < occupancy.shape[1] and occupancy[i, j] <= FREE):
            return False
    return True
