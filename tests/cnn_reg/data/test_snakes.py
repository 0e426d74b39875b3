from __future__ import annotations

import math

import numpy as np
import pytest

from cnn_reg.data import snakes
from cnn_reg.data.counter import begin
from cnn_reg.data.paddles import REACH, SEEDS, paddles

MADE = paddles()


def stream(*key: int) -> np.ndarray:
    made = np.zeros(1, dtype=np.uint64)
    begin(made, key)
    return made


def empty() -> np.ndarray:
    return np.zeros((300, 300), dtype=np.float32)


def candidates(occupancy, pivot, heading):
    """The probabilities of the protocol, written as loops: from every sampled angle to a place, its real angle and its weight."""
    weights = {}
    for sample in np.arange(0, 360, 360 / (2 * math.pi * 8)):
        exact = (pivot[0] + 8 * math.sin(math.radians(sample)), pivot[1] + 8 * math.cos(math.radians(sample)))
        if not all(0 <= value < 300 for value in exact):
            continue
        row, column = int(exact[0]), int(exact[1])
        turn = abs(math.atan2(row - pivot[0], column - pivot[1]) - heading)
        turn = min(turn, 2 * math.pi - turn)
        near = [
            occupancy[row + i, column + j]
            for i in range(-3, 4)
            for j in range(-3, 4)
            if i * i + j * j <= 9 and 0 <= row + i < 300 and 0 <= column + j < 300
        ]
        weights[row, column] = math.cos(min(1.8 * turn, math.pi / 2)) ** 2 * (1 - max(near))
    total = sum(weights.values())
    return {place: weight / total for place, weight in weights.items() if weight > 1e-12}


def test_a_path_goes_on_with_the_protocols_probabilities():
    occupancy = empty()
    occupancy[140:150, 160:180] = 0.4  # in the way, in part
    occupancy[155:158, 165:170] = 1.0
    path = np.array([150, 147, 180, 150, 150])
    expected = candidates(occupancy, (150, 158), 0.0)
    random, counts = stream(1), {}
    for _ in range(20_000):
        grown, placed = path.copy(), np.zeros((1, 3), dtype=np.int64)
        if snakes.extend(random, MADE, occupancy.copy(), grown, placed, 0):
            place = (int(placed[0, 1]), int(placed[0, 2]))
            counts[place] = counts.get(place, 0) + 1
    # A candidate that collides is drawn again, at most three times; others keep their proportions.
    drawn = sum(counts.values())
    share = sum(expected[place] for place in counts)
    assert set(counts) <= set(expected)
    for place, count in counts.items():
        p = expected[place] / share
        assert abs(count / drawn - p) < 4.5 * math.sqrt(p * (1 - p) / drawn), place


def test_without_room_no_path_goes_on():
    full = np.ones((300, 300), dtype=np.float32)
    path, placed = np.array([150, 147, 180, 150, 150]), np.zeros((1, 3), dtype=np.int64)
    assert not snakes.extend(stream(1), MADE, full, path, placed, 0)


@pytest.mark.parametrize("heading", [0, 90, 180, 270])
def test_at_the_edge_of_the_image(heading):
    occupancy, path = empty(), np.array([3, 3, heading, 3, 3])
    placed = np.zeros((1, 3), dtype=np.int64)
    if snakes.extend(stream(heading), MADE, occupancy, path, placed, 0):
        assert (placed[0, 1:] >= 0).all()


def test_the_newest_paddle_is_not_yet_in_the_occupancy():
    occupancy, path = empty(), np.array([150, 147, 180, 150, 150])
    placed = np.zeros((2, 3), dtype=np.int64)
    assert snakes.extend(stream(1), MADE, occupancy, path, placed, 0)
    first = empty()
    snakes.paste(first, MADE.masks[180], 150, 150)
    assert (occupancy == first).all()


def test_paste_is_a_maximum_cut_at_the_edges():
    target = np.full((30, 30), 0.25, dtype=np.float32)
    picture = np.zeros((21, 21), dtype=np.float32)
    picture[REACH:, REACH:] = 1
    snakes.paste(target, picture, 25, 2)
    assert (target[25:, 2:13] == 1).all()
    assert target[:25].max() == 0.25
    assert (target == 0.25).sum() == 900 - 5 * 11


def test_two_paths_start_near_each_other_in_the_centre():
    placed, tips = np.zeros((14, 3), dtype=np.int64), np.zeros((2, 2, 2), dtype=np.int64)
    random, seen = stream(5), []
    for _ in range(300):
        if snakes.grow_pair(random, MADE, empty(), 7, placed, tips):
            kind, row, column = placed[0]
            dilated = MADE.covered[kind] + (row, column)
            assert dilated.min() >= 54
            assert dilated.max() < 300 - 54
            assert (tips[0, 0] == (row, column)).all()
            assert (tips[:, 1] == placed[-2:, 1:]).all()
            assert (placed[:2, 0] < SEEDS).all()
            assert (placed[2:, 0] >= SEEDS).all()
            seen.append(np.linalg.norm(tips[0, 0] - tips[1, 0]))
    assert len(seen) > 100
    assert np.abs(np.array(seen) - 27).max() <= math.sqrt(0.5)


def test_a_free_place_is_uniform_over_all_free_places():
    occupancy = np.ones((300, 300), dtype=np.float32)
    occupancy[100:104, 100:106] = 0.29
    covered = np.array([[0, 0], [1, 1]])
    random, counts = stream(2), np.zeros((300, 300), dtype=int)
    for _ in range(300):  # so small a place is listed, since drawing blindly does not find it
        row, column = snakes._free_place(random, occupancy, covered)
        counts[row, column] += 1
    assert counts[100:103, 100:105].sum() == 300
    assert ((counts[100:103, 100:105] - 20) ** 2 / 20).sum() < 42.6  # the quantile 0.9999 for 14 degrees of freedom
    assert snakes._free_place(random, np.ones((300, 300), dtype=np.float32), covered) == (-1, -1)


def test_rebuilding_gives_what_pasting_gave():
    occupancy, placed = empty(), np.zeros((9, 3), dtype=np.int64)
    snakes.clear(occupancy)
    random = stream(4)
    done = [snakes.grow_free(random, MADE, occupancy, 3, placed, 3 * index) for index in range(3)]
    assert done == [True] * 3
    again = empty()
    snakes.rebuild(again, MADE, placed, 9, -1)
    assert (again == occupancy).all()
    snakes.rebuild(again, MADE, placed, 9, 8)
    assert (again != occupancy).any()
