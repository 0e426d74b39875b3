from __future__ import annotations

import numpy as np
import pytest
import torch

from cnn_reg.data import SameClassPairs
from cnn_reg.data.same_class import draw_pairs
from cnn_reg.data.sources import CIFAR10_MOMENTS

PICTURES = torch.randint(256, (60, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(60) % 10


@pytest.mark.parametrize(("distance", "first"), [(0, 80), (40, 60), (80, 40), (120, 20), (160, 0), (7, 77)])
def test_images_are_composed_as_in_the_protocol(distance, first):
    made = SameClassPairs(PICTURES, CLASSES, 12, distance, seed=3)
    assert (made.image_size, made.channels, len(made)) == ((224, 224), 3, 12)
    mean, std = (torch.tensor(values)[:, None, None] for values in CIFAR10_MOMENTS)
    for index, (left, right) in enumerate(made.pairs.tolist()):
        expected = torch.zeros(3, 224, 224)
        expected[:, 96:128, first : first + 32] = (PICTURES[left] / 255 - mean) / std
        expected[:, 96:128, first + 32 + distance : first + 64 + distance] = (PICTURES[right] / 255 - mean) / std
        image, label = made[index]
        assert torch.allclose(image, expected, atol=1e-5)
        assert label == (CLASSES[left] == CLASSES[right])


def test_the_same_pairs_serve_every_distance():
    near, far = (SameClassPairs(PICTURES, CLASSES, 50, distance, seed=1) for distance in (0, 160))
    assert torch.equal(near.pairs, far.pairs)
    assert torch.equal(near.labels, far.labels)
    other = SameClassPairs(PICTURES, CLASSES, 50, 0, seed=2)
    assert not torch.equal(near.pairs, other.pairs)


def test_pairs_are_drawn_with_the_protocols_probabilities():
    classes = torch.tensor([0] * 8 + [1] * 2 + [2] * 6)[torch.randperm(16)]
    count = 40_000
    pairs = draw_pairs(classes, count, seed=0)
    kinds = classes[pairs]
    same = kinds[:, 0] == kinds[:, 1]
    sizes = torch.bincount(classes).double()
    expected = torch.zeros(16, 16, dtype=torch.float64)
    for i, j in np.ndindex(16, 16):
        own, other = classes[i], classes[j]
        left = 1 / 3 / sizes[own]  # the class uniform, then the picture
        right = 1 / sizes[own] if own == other else 1 / (16 - sizes[own])
        expected[i, j] = left * right / 2
    counts = torch.bincount(pairs[:, 0] * 16 + pairs[:, 1], minlength=256).double().reshape(16, 16)
    assert expected.sum() == pytest.approx(1)
    chi = ((counts - count * expected) ** 2 / (count * expected)).sum()
    assert chi < 255 + 4 * np.sqrt(2 * 255)
    assert abs(same.double().mean() - 0.5) < 4 * 0.5 / np.sqrt(count)


def test_one_channel_and_other_sizes():
    made = SameClassPairs(PICTURES[:, :1, :28, :28], CLASSES, 9, 160)
    assert made.channels == 1
    assert made.squares == ((98, 4, 28, 28), (98, 192, 28, 28))
    every = made.batch(torch.arange(9))
    assert every.shape == (9, 1, 224, 224)
    assert every[:, :, :98].abs().max() == 0


def test_a_strip_and_a_smaller_scale():
    strip = SameClassPairs(PICTURES, CLASSES, 4, 80, image_size=(32, 224))
    whole = SameClassPairs(PICTURES, CLASSES, 4, 80)
    numbers = torch.arange(4)
    assert torch.equal(strip.batch(numbers), whole.batch(numbers)[:, :, 96:128])
    half = SameClassPairs(PICTURES, CLASSES, 4, 80, scale=0.5)
    assert half.image_size == (112, 112)
    assert half.squares == ((48, 20, 16, 16), (48, 76, 16, 16))
    assert torch.equal(half.labels, whole.labels)


def test_moving_keeps_everything():
    made = SameClassPairs(PICTURES, CLASSES, 4, 80, name="a name")
    moved = made.to("meta")
    assert isinstance(moved, SameClassPairs)
    assert {moved.pictures.device.type, moved.pairs.device.type, moved.labels.device.type} == {"meta"}
    assert (moved.name, moved.squares, made.pictures.device.type) == ("a name", made.squares, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": 161}, "two pictures of 32 x 32 in 224 x 224 can be at most 160 apart; got 161"),
        ({"distance": -1}, "distance must be at least 0; got -1"),
        ({"num_pairs": 0}, "num_pairs must be at least 1; got 0"),
        ({"scale": 0}, "scale must be above 0 and at most 1; got 0"),
        ({"image_size": (32, 60)}, "two pictures of 32 x 32 do not fit beside each other into 32 x 60"),
        ({"image_size": (20, 224)}, "do not fit beside each other into 20 x 224"),
        ({"labels": CLASSES[:5]}, r"labels must be one integer an image; got shape \(5,\) for 60 images"),
        ({"labels": torch.zeros(60, dtype=torch.int64)}, "pairs of different classes need two classes; got 1"),
        ({"images": PICTURES.float()}, "images must be uint8"),
        ({"images": PICTURES.permute(0, 2, 3, 1)}, r"images must be uint8 of shape \(n, 1 or 3, rows, columns\); .* \(60, 32, 32, 3\)"),
        ({"pairs": torch.full((4, 2), 60)}, "pairs must be 4 pairs of numbers below 60"),
    ],
)
def test_bad_input(change, message):
    given = {"images": PICTURES, "labels": CLASSES, "num_pairs": 4, "distance": 0}
    with pytest.raises(ValueError, match=message):
        SameClassPairs(**given | change)


@pytest.mark.parametrize("size", range(56, 225, 7))
def test_the_largest_distance_fits_at_every_scale(size):
    pictures = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    made = SameClassPairs(pictures, torch.arange(4) % 2, 3, 160, scale=size / 224)
    (_, left, _, width), (_, right, _, _) = made.squares
    assert left >= 0
    assert right + width <= made.image_size[1]
    assert abs((right - left - width) - 160 * size / 224) < 2.5
