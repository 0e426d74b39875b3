from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from cnn_reg.data import baseline, scenes
from cnn_reg.data.pathfinder import PIECE, generate, pieces

# Of 100 images a length of the published generator: paddles, mean at 300 with its deviation over images, share above 127, standard
# deviation at 150, distance of the circles with its deviation, connected and not, and what a band of distances predicts.
PUBLISHED = {
    3: (36, 0.00418, 0.00007, 0.00436, 0.0396, (26.1, 1.8), (37.3, 14.5), 0.95),
    5: (28, 0.00334, 0.00006, 0.00348, 0.0357, (46.3, 3.3), (52.9, 16.9), 0.85),
    7: (40, 0.00461, 0.00007, 0.00481, 0.0414, (65.8, 5.8), (71.4, 18.2), 0.83),
    9: (48, 0.00542, 0.00009, 0.00564, 0.0445, (85.3, 7.6), (90.6, 18.2), 0.75),
    11: (49, 0.00552, 0.00009, 0.00575, 0.0449, (102.5, 12.1), (104.3, 22.2), 0.74),
}


@pytest.mark.parametrize("length", sorted(PUBLISHED))
def test_statistics_are_the_published_generators(length):
    count = 1000
    images, labels, metadata = generate(length, count, seed=1)
    paddles, mean, spread, bright, deviation, connected, apart, band = PUBLISHED[length]
    found = baseline.statistics(images, labels, metadata["distance"])
    assert abs(metadata["paddles"].mean() - paddles) <= 0.5  # a distractor is skipped now and then
    # Four standard errors of the published mean of 100, and half of the last digit that is printed.
    error = 4 * spread * np.sqrt(1 / 100 + 1 / count) + 0.5e-5
    assert abs(found["mean"] - mean) < error
    assert abs(found["bright"] - bright) < 2 * error  # bright pixels spread about as much as the mean; twice to be safe
    assert abs(found["mean_std"] / spread - 1) < 4 / np.sqrt(200) + 0.08
    small = functional.interpolate(torch.from_numpy(images[:200, None]).float() / 255, size=150, mode="bilinear", antialias=True)
    assert abs(small.std().item() - deviation) < 0.0005
    for (center, width), name in ((connected, "connected"), (apart, "apart")):
        assert abs(found[name] - center) < 4 * width * np.sqrt(1 / 50 + 1 / 500) + 0.05
        assert abs(found[f"{name}_std"] / width - 1) < 4 * np.sqrt(1 / 100 + 1 / 1000) + 0.02
    # A share measured on 500 images, and the published one's own error of .03.
    assert abs(baseline.halves(metadata["distance"], labels) - band) < 0.03 + 3 * np.sqrt(band * (1 - band) / 500)
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / np.sqrt(count)


def test_an_image_depends_on_its_number_alone():
    images, labels, metadata = generate(7, 230, seed=3)
    again = generate(7, 230, seed=3, workers=3)
    assert (images == again.images).all()
    part = generate(7, 60, seed=3, first=120, workers=2)
    assert (images[120:180] == part.images).all()
    assert (labels[120:180] == part.labels).all()
    assert all((metadata[name][120:180] == part.metadata[name]).all() for name in metadata)


def test_pieces_are_the_whole():
    whole = generate(3, PIECE + 20, seed=9)
    made = list(pieces(3, PIECE + 20, seed=9))
    assert (np.concatenate([piece.images for piece in made]) == whole.images).all()
    assert (np.concatenate([piece.labels for piece in made]) == whole.labels).all()


@pytest.mark.parametrize("other", [{"seed": 1}, {"path_length": 5}, {"matched": True}])
def test_everything_else_gives_other_images(other):
    given = {"path_length": 7, "num_images": 5, "seed": 0}
    pairs = zip(generate(**given).images, generate(**given | other).images)
    assert all((one != two).any() for one, two in pairs)


def test_the_images_are_bright_and_of_their_kind():
    images, labels, metadata = generate(9, 20, seed=0)
    assert (images.dtype, images.shape, labels.dtype) == (np.uint8, (20, 300, 300), np.uint8)
    assert (images.reshape(20, -1).max(axis=1) == 255).all()
    assert set(labels) == {0, 1}
    for image, circles in zip(images, metadata["circles"]):
        for row, column in circles:
            disc = image[row - 1 : row + 2, column - 1 : column + 2]
            assert disc.min() > 150, "a circle is filled"


def test_distances_are_those_of_the_circles():
    metadata = generate(5, 50, seed=0).metadata
    circles = metadata["circles"].astype(float)
    assert np.allclose(metadata["distance"], np.hypot(*(circles[:, 0] - circles[:, 1]).T))


@pytest.mark.parametrize("length", [3, 7])
def test_matched_images_have_the_same_distances_in_both_classes(length):
    _, labels, metadata = generate(length, 800, seed=2, matched=True)
    one, other = (np.sort(metadata["distance"][labels == label]) for label in (0, 1))
    grid = np.concatenate([one, other])
    gap = np.abs(np.searchsorted(one, grid, "right") / len(one) - np.searchsorted(other, grid, "right") / len(other)).max()
    # Kolmogorov and Smirnov's bound at a level of 1e-4, and a pixel, by which two distances may differ that count as the same.
    shift = np.searchsorted(one, grid + scenes.MATCH, "right") - np.searchsorted(one, grid, "right")
    assert gap < 2.23 * np.sqrt(1 / len(one) + 1 / len(other)) + 0.5 * shift.max() / len(one)
    assert abs(baseline.halves(metadata["distance"], labels) - 0.5) < 4 * 0.5 / np.sqrt(400)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((2, 5), ValueError, "path_length must be from 3 to 20; got 2"),
        ((21, 5), ValueError, "path_length must be from 3 to 20; got 21"),
        ((7.5, 5), TypeError, r"path_length must be an integer; got 7\.5"),
        ((7, 0), ValueError, "num_images must be at least 1; got 0"),
        ((7, 1, -1), ValueError, "seed must be at least 0; got -1"),
        ((7, 1, 2**63), ValueError, "seed must fit into 64 bits"),
    ],
)
def test_impossible_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        generate(*arguments)


def test_the_longest_paths_fit():
    images = generate(20, 3, seed=0).images
    assert images.shape == (3, 300, 300)
