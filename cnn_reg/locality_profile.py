"""How local a network is, as the numbers of its picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cnn_reg.locality import cosines_by_distance, effective_receptive_field, estimated_separation
from cnn_reg.regions import Region

DISTANCES = 8  # at which |cos| is measured


def locality_profile(title: str, network: nn.Module, images: Tensor) -> dict[str, Any]:
    """Everything that :func:`cnn_reg.figures.draw_locality` draws of a network, as numbers and lists.

    Patches have a fiftieth of the images' side, at least 2 pixels; the two regions are squares of a quarter of the side, at opposite
    borders, halfway up.

    Args:
        title: Of the network.
        network: In any mode; it is left as it was.
        images: ``(b, channels, rows, columns)``, at least two, on the network's device.

    Raises:
        ValueError: There are fewer than two images, or they are too small.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
        >>> found = locality_profile("one layer", net, torch.rand(4, 1, 24, 24))
        >>> round(found["cosines"][-1]["mean"], 3), found["rank"] <= 4
        (1.0, True)
    """
    size = min(images.shape[2:])
    patch = max(2, size // 50)
    distances = sorted({round(2 * patch * (0.7 * size / (2 * patch)) ** (step / (DISTANCES - 1))) for step in range(DISTANCES)})
    generator = torch.Generator().manual_seed(0)
    cosines = cosines_by_distance(network, images, distances, patch_size=patch, generator=generator)
    field = effective_receptive_field(network, images)
    side = size // 4
    middle = (size - side) // 2
    separation = estimated_separation(network, images, Region(middle, 0, side, side), Region(middle, size - side, side, side))
    return {
        "title": title,
        "cosines": [{"distance": row.distance, "mean": row.mean, "quantiles": list(row.quantiles), "zero": row.zero} for row in cosines],
        "field": field.energy.tolist(),
        "radius": field.radius,
        "singular_values": separation.singular_values.tolist(),
        "rank": separation.rank,
        "effective_rank": separation.effective_rank,
    }
