from __future__ import annotations

import math

import numpy as np

from cnn_reg.data import paddles as module
from cnn_reg.data.paddles import REACH, SEEDS, paddles, step

MADE = paddles()


def test_steps_are_rounded_up_per_coordinate():
    for degrees in range(-180, 180):
        angle = math.radians(degrees)
        row, column = step(angle, 11)
        assert 0 <= row - 11 * math.sin(angle) + 1e-8 < 1
        assert 0 <= column - 11 * math.cos(angle) + 1e-8 < 1
    assert step(math.pi, 8) == (0, -8)  # sin(pi) is not quite 0


def test_bitmaps_overshoot_and_masks_do_not():
    assert 1.21 < MADE.bitmaps.max() < 1.22
    assert (MADE.masks.min(), MADE.masks.max()) == (0, 1)


def test_a_paddle_lies_along_its_heading():
    grid = np.arange(-REACH, REACH + 1)
    for kind in range(0, SEEDS, 7):
        weight = np.clip(MADE.bitmaps[kind], 0, None)
        center = np.array([(weight.sum(1) * grid).sum(), (weight.sum(0) * grid).sum()]) / weight.sum()
        heading = np.array([math.sin(MADE.headings[kind]), math.cos(MADE.headings[kind])])
        assert np.abs(center - 2.5 * heading).max() < 0.8  # rounding up and the even width move it by half a pixel


def test_further_paddles_are_drawn_from_the_head_back():
    for turn, head in enumerate(MADE.turns):
        bitmap = MADE.bitmaps[SEEDS + turn]
        near = -np.sign(np.round(head / np.linalg.norm(head))).astype(int) * 2  # two pixels towards the pivot
        assert bitmap[tuple(REACH + near)] > bitmap[tuple(REACH - near)]


def test_candidates_are_the_pixels_of_a_circle_each_once():
    radius = np.linalg.norm(MADE.turns + 0.5, axis=1)  # pixels begin at their corner
    assert len(np.unique(MADE.turns, axis=0)) == len(MADE.turns) == 49
    assert np.abs(radius - 8).max() < 0.75


def test_a_pivot_is_the_point_behind_the_head():
    back = 8 - 5
    for kind in range(SEEDS):
        exact = -back * np.array([math.sin(MADE.headings[kind]), math.cos(MADE.headings[kind])])
        assert (MADE.pivots[kind] - exact > -1e-8).all()
        assert (MADE.pivots[kind] - exact < 2).all()


def test_covered_pixels_are_those_of_the_mask():
    for kind in (0, 45, 200, SEEDS + 3):
        shown = np.zeros((21, 21), dtype=bool)
        shown[tuple((MADE.covered[kind] + REACH).T)] = True
        assert (shown == (MADE.masks[kind] >= 0.5)).all()


def test_the_circle_is_round_and_has_its_area():
    assert abs(MADE.circle.sum() / (113 / 4) - 1) < 0.02  # 113 pixels are within 6 of a pixel, and it is drawn at twice the size
    assert (MADE.circle[3:18, 3:18] >= 0).all()
    assert np.allclose(MADE.circle, MADE.circle.T)


def test_pixels_within_the_margin():
    assert len(MADE.disc) == 29
    assert (np.linalg.norm(MADE.disc, axis=1) <= module.MARGIN).all()
