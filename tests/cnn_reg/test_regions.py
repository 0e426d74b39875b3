"""Regions: what they contain, what is refused, and that pairs are drawn uniformly."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from cnn_reg.regions import Region, region_index, region_mask, sample_disjoint_regions

EVERY_KIND = [
    Region(1, 2, 2, 2),
    [7, 8, 12, 13],
    (13, 12, 8, 7),
    {8, 7, 13, 12},
    np.array([7, 8, 12, 13]),
    torch.tensor([[7, 8], [12, 13]]),
    torch.zeros(4, 5, dtype=torch.bool).index_fill_(1, torch.tensor([2, 3]), True) & torch.tensor([[False], [True], [True], [False]]),
    np.isin(np.arange(20), [7, 8, 12, 13]),
]


@pytest.mark.parametrize("region", EVERY_KIND, ids=lambda region: type(region).__name__)
def test_every_kind_of_region_picks_the_same_places(region):
    values = torch.arange(60).reshape(3, 4, 5)
    picked = values[(slice(None), *region_index(region, (4, 5)))].flatten(1)
    assert picked.tolist() == [[base + place for place in (7, 8, 12, 13)] for base in (0, 20, 40)]
    assert region_mask(region, (4, 5)).flatten().nonzero().flatten().tolist() == [7, 8, 12, 13]


@pytest.mark.parametrize(
    ("region", "size", "error", "message"),
    [
        (Region(0, 3, 1, 3), (4, 5), ValueError, r"must lie in the image of 4 x 5; got Region\(top=0, left=3, height=1, width=3\)"),
        (Region(0, 0, 1, 1), (9,), ValueError, r"a Region is a rectangle of an image; the places have the shape \(9,\)"),
        ([0, 20], (4, 5), ValueError, "indices must be from 0 to 19; got 20"),
        ([-1], (4, 5), ValueError, "indices must be from 0 to 19; got -1"),
        ([], (4, 5), ValueError, r"needs at least one place; got \[\]"),
        (set(), (4, 5), ValueError, r"needs at least one place; got set\(\)"),
        (torch.zeros(4, 5, dtype=torch.bool), (4, 5), ValueError, "needs at least one place"),
        (torch.ones(5, 4, dtype=torch.bool), (4, 5), ValueError, r"needs the shape \(4, 5\) of the places; got \(5, 4\)"),
        ([0.5], (4, 5), TypeError, "boolean mask or integer indices; got numbers of type torch.float32"),
        ("left", (4, 5), TypeError, "boolean mask or integer indices; got 'left'"),
        (None, (4, 5), TypeError, "boolean mask or integer indices; got None"),
    ],
)
def test_impossible_regions_are_refused(region, size, error, message):
    with pytest.raises(error, match=message):
        region_mask(region, size)
    with pytest.raises(error, match=message):
        region_index(region, size)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ((-1, 0, 1, 1), ValueError, "a region's top must be at least 0; got -1"),
        ((0, 0, 0, 1), ValueError, "a region's height must be at least 1; got 0"),
        ((0, 0, 1, 1.5), TypeError, "a region's width must be an integer; got 1.5"),
        ((0, True, 1, 1), TypeError, "a region's left must be an integer; got True"),
    ],
)
def test_a_region_validates_itself(values, error, message):
    with pytest.raises(error, match=message):
        Region(*values)


def _disjoint(one: Region, other: Region) -> bool:
    return abs(one.top - other.top) >= one.height or abs(one.left - other.left) >= one.width  # both have the same size


@pytest.mark.parametrize(("image", "patch"), [((4, 5), (2, 2)), ((3, 4), (1, 2)), ((2, 5), (2, 2)), ((3, 1), (1, 1)), ((5, 5), (3, 2))])
def test_pairs_are_uniform(image, patch):
    """Chi-squared of all possible pairs; its mean is the number of degrees of freedom, its deviation the root of twice that."""
    corners = list(itertools.product(range(image[0] - patch[0] + 1), range(image[1] - patch[1] + 1)))
    regions = [Region(*corner, *patch) for corner in corners]
    partners = {one: [other for other in regions if _disjoint(one, other)] for one in regions}
    able = [one for one in regions if partners[one]]
    expected = {(one, other): 1 / len(able) / len(partners[one]) for one in able for other in partners[one]}
    draws = 4000
    generator = torch.Generator().manual_seed(1)
    seen = Counter(sample_disjoint_regions(image, patch, generator) for _ in range(draws))
    assert set(seen) <= set(expected)
    freedom = len(expected) - 1
    chi = sum((seen[pair] - draws * share) ** 2 / (draws * share) for pair, share in expected.items())
    assert abs(chi - freedom) < 4.5 * (2 * freedom) ** 0.5


def test_the_generator_decides():
    def draw(seed: int) -> list[tuple[Region, Region]]:
        generator = torch.Generator().manual_seed(seed)
        return [sample_disjoint_regions(150, 2, generator) for _ in range(5)]

    assert draw(3) == draw(3) != draw(4)


@pytest.mark.parametrize(
    ("image", "patch", "error", "message"),
    [
        (3, 2, ValueError, "two disjoint 2 x 2 patches do not fit into an image of 3 x 3"),
        ((3, 5), (4, 1), ValueError, "two disjoint 4 x 1 patches do not fit into an image of 3 x 5"),
        (1, 1, ValueError, "two disjoint 1 x 1 patches do not fit"),
        (0, 1, ValueError, "image_size must be at least 1; got 0"),
        (8, 0, ValueError, "patch_size must be at least 1; got 0"),
        (8, 2.5, TypeError, "patch_size must be an integer; got 2.5"),
        ((3, 8, 8), 2, ValueError, r"image_size needs one number, or rows and columns; got \(3, 8, 8\)"),
    ],
)
def test_impossible_sizes_are_refused(image, patch, error, message):
    with pytest.raises(error, match=message):
        sample_disjoint_regions(image, patch)
