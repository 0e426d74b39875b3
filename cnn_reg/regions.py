"""Disjoint regions of an image or sequence: rectangles, masks and sets of places; drawing two rectangles at random."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeAlias

import torch

from tensornet.checks import integer, integers, short


@dataclass(frozen=True)
class Region:
    """A rectangle of an image.

    Args:
        top: Its first row.
        left: Its first column.
        height: How many rows it has.
        width: How many columns it has.

    Raises:
        TypeError: One of them is no integer.
        ValueError: The place is negative, or the rectangle is empty.

    Example:
        >>> Region(top=96, left=0, height=32, width=32)
        Region(top=96, left=0, height=32, width=32)
    """

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, least in (("top", 0), ("left", 0), ("height", 1), ("width", 1)):
            object.__setattr__(self, name, integer(f"a region's {name}", getattr(self, name), least))


AnyRegion: TypeAlias = Region | torch.Tensor | Sequence[SupportsIndex] | Set[SupportsIndex] | Any
"""A rectangle; a boolean mask over the places; or the indices of places, counted row by row over an image or along a sequence.

Masks and indices may be tensors, NumPy arrays, lists or sets.
"""

Index: TypeAlias = tuple[slice | torch.Tensor, ...]
"""What picks a region's places out of an array of all places."""


def region_mask(region: AnyRegion, size: Sequence[int]) -> torch.Tensor:
    """Which places a region has, as a boolean tensor of shape ``size``.

    Args:
        region: A rectangle, a mask or a set of indices.
        size: Rows and columns of the image, the length of the sequence, or the sizes of any other array of places.

    Raises:
        TypeError: The region is none of these.
        ValueError: It is empty, reaches outside, or is a rectangle of something that is no image.

    Example:
        >>> region_mask(Region(0, 1, 1, 2), (2, 4)).int()
        tensor([[0, 1, 1, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
        >>> region_mask([0, 3], (4,))
        tensor([ True, False, False,  True])
    """
    shape = tuple(size)
    mask = torch.zeros(shape, dtype=torch.bool)
    if isinstance(region, Region):
        mask[_rectangle(region, shape)] = True
        return mask
    places = _as_tensor(region)
    if places.dtype == torch.bool:
        if tuple(places.shape) not in (shape, (math.prod(shape),)):
            raise ValueError(f"a region's mask needs the shape {shape} of the places; got {tuple(places.shape)}")
        mask = places.reshape(shape)
    elif places.is_floating_point() or places.is_complex():
        raise TypeError(f"a region is a Region, a boolean mask or integer indices; got numbers of type {places.dtype}")
    else:
        outside = places[(places < 0) | (places >= mask.numel())]
        if outside.numel():
            raise ValueError(f"a region's indices must be from 0 to {mask.numel() - 1}; got {int(outside.flatten()[0])}")
        mask.view(-1)[places.flatten().long()] = True
    if not mask.any():
        raise ValueError(f"a region needs at least one place; got {short(region)}")
    return mask


def region_index(region: AnyRegion, size: Sequence[int]) -> Index:
    """What picks the region's places out of a tensor whose last axes are ``size``: slices of a rectangle, else an index an axis.

    Raises:
        TypeError: As of :func:`region_mask`.
        ValueError: As of :func:`region_mask`.

    Example:
        >>> region_index(Region(0, 1, 1, 2), (2, 4))
        (slice(0, 1, None), slice(1, 3, None))
        >>> region_index({5, 2}, (2, 4))
        (tensor([0, 1]), tensor([2, 1]))
    """
    if isinstance(region, Region):
        return _rectangle(region, tuple(size))
    return tuple(region_mask(region, size).nonzero(as_tuple=True))


def sample_disjoint_regions(
    image_size: int | Sequence[int], patch_size: int | Sequence[int], generator: torch.Generator | None = None
) -> tuple[Region, Region]:
    """Two patches that do not overlap: the first uniform, the second uniform over all that do not overlap the first.

    In small images some patches overlap all others; the first is uniform over the rest. Both are drawn directly, without rejection.

    Args:
        image_size: Rows and columns of the image; one number for a square.
        patch_size: Rows and columns of both patches; one number for squares.
        generator: Source of randomness; torch's global one by default.

    Raises:
        TypeError: A size is no integer.
        ValueError: A size is not positive, or the image has no two such patches.

    Example:
        >>> first, second = sample_disjoint_regions(150, 2, torch.Generator().manual_seed(0))
        >>> first.height, first.width
        (2, 2)
        >>> sample_disjoint_regions(3, 2)
        Traceback (most recent call last):
        ValueError: two disjoint 2 x 2 patches do not fit into an image of 3 x 3
    """
    image, patch = _two("image_size", image_size), _two("patch_size", patch_size)
    grid = tuple(whole - part + 1 for whole, part in zip(image, patch))  # places of a patch's corner
    if min(grid) < 1 or not any(whole >= 2 * part for whole, part in zip(image, patch)):
        raise ValueError(f"two disjoint {patch[0]} x {patch[1]} patches do not fit into an image of {image[0]} x {image[1]}")
    # Corners within part - 1 of every other corner: of patches that overlap all others.
    stuck = [range(max(0, count - part), min(part, count)) for count, part in zip(grid, patch)]
    first = _draw_outside(grid, stuck, generator)
    near = [range(max(0, place - part + 1), min(count, place + part)) for place, count, part in zip(first, grid, patch)]
    second = _draw_outside(grid, near, generator)
    return Region(*first, *patch), Region(*second, *patch)


def _draw_outside(grid: Sequence[int], hole: Sequence[range], generator: torch.Generator | None) -> tuple[int, int]:
    """A place of a grid, uniform over those outside a rectangle of it."""
    rows, columns = hole
    free = grid[1] - len(columns)  # of each row that the hole cuts
    above = rows.start * grid[1]
    beside = len(rows) * free
    count = grid[0] * grid[1] - len(rows) * len(columns)
    device = generator.device if generator is not None else "cpu"
    drawn = int(torch.randint(count, (), generator=generator, device=device))
    if above <= drawn < above + beside:
        row, column = divmod(drawn - above, free)
        return rows.start + row, column if column < columns.start else column + len(columns)
    if drawn >= above:
        drawn += len(rows) * len(columns)
    return divmod(drawn, grid[1])


def _rectangle(region: Region, size: tuple[int, ...]) -> tuple[slice, ...]:
    if len(size) != 2:
        raise ValueError(f"a Region is a rectangle of an image; the places have the shape {size}, whose regions are masks or indices")
    if region.top + region.height > size[0] or region.left + region.width > size[1]:
        raise ValueError(f"a region must lie in the image of {size[0]} x {size[1]}; got {region}")
    return slice(region.top, region.top + region.height), slice(region.left, region.left + region.width)


def _as_tensor(region: AnyRegion) -> torch.Tensor:
    values = sorted(region) if isinstance(region, Set) else region
    if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 0:
        return torch.zeros(0, dtype=torch.long)
    try:
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"a region is a Region, a boolean mask or integer indices; got {short(region)}") from None


def _two(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    given = integers(name, size)
    if len(given) > 2:
        raise ValueError(f"{name} needs one number, or rows and columns; got {given}")
    return given[0], given[-1]
