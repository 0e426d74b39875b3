from __future__ import annotations

import itertools

import numpy as np
import pytest

from cnn_reg.data.baseline import accuracy, band, halves, statistics


def test_the_band_is_the_best_of_all():
    random = np.random.default_rng(0)
    for _ in range(30):
        distances, labels = random.integers(0, 12, 20), random.integers(0, 2, 20)
        found = accuracy(distances, labels, band(distances, labels))
        every = [accuracy(distances, labels, (low, high)) for low, high in itertools.combinations_with_replacement(range(12), 2)]
        assert found == max(every)


def test_distances_that_say_nothing_predict_half():
    random = np.random.default_rng(1)
    distances, labels = random.normal(size=4000), random.integers(0, 2, 4000)
    assert abs(halves(distances, labels) - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_separate_distances_predict_all():
    distances = np.tile([1.0, 1.0, 5.0, 5.0], 10)
    assert halves(distances, distances < 3) == 1


def test_statistics_of_a_class_that_is_absent():
    found = statistics(np.zeros((2, 4, 4), dtype=np.uint8), [1, 1], [1.0, 3.0])
    assert np.isnan(found["apart"])
    assert (found["connected"], found["connected_std"]) == (2, 1)


def test_bad_input():
    with pytest.raises(ValueError, match=r"one distance and one label a sample are needed; got shapes \(2,\) and \(3,\)"):
        band([1, 2], [0, 1, 1])
    with pytest.raises(ValueError, match=r"shapes \(0,\) and \(0,\)"):
        band([], [])
    with pytest.raises(ValueError, match="two samples are needed; got 1"):
        halves([1], [1])
