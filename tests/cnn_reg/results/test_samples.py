from __future__ import annotations

import numpy as np
import pytest

from cnn_reg.data import pathfinder, sources
from cnn_reg.results.samples import draw_samples, pathfinder_sample, same_class_sample


@pytest.mark.parametrize(("distance", "label", "title"), [(0, 1, "positive, 0 pixels apart"), (160, 0, "negative, 160 pixels apart")])
def test_two_pictures_of_the_source_on_white(distance, label, title):
    source = sources.load("digits", "test")
    picture = same_class_sample(source, distance, label, seed=3)
    assert picture.title == title
    left = 112 - 32 - distance // 2
    found = []
    for start in (left, left + 32 + distance):
        square = np.round(255 * picture.pixels[:, start : start + 32]).astype(np.uint8)
        matches = [number for number, image in enumerate(source.images) if np.array_equal(image.permute(1, 2, 0).numpy(), square)]
        assert matches
        found.append({int(source.classes[number]) for number in matches})
    assert bool(found[0] & found[1]) == bool(label)
    outside = np.ones((32, 224), dtype=bool)
    for start in (left, left + 32 + distance):
        outside[:, start : start + 32] = False
    assert (picture.pixels[outside] == 1).all()


@pytest.mark.parametrize(("length", "label"), [(6, 1), (9, 0)])
def test_a_scene_of_the_generator(length, label):
    picture = pathfinder_sample(length, label, seed=1)
    images, labels, _ = pathfinder.generate(length, 64, 1)
    first = labels.tolist().index(label)
    np.testing.assert_array_equal(np.round(255 * picture.pixels).astype(np.uint8), images[first])


def test_the_figure_needs_a_known_source_and_a_known_format(tmp_path):
    with pytest.raises(ValueError, match="unknown source 'digit'"):
        draw_samples(tmp_path / "a.png", "digit")
    with pytest.raises(ValueError, match="a figure is written as"):
        draw_samples(tmp_path / "a.txt", "digits")
    assert list(tmp_path.iterdir()) == []
