"""A small task and a small network with everything that makes resuming hard: batch normalisation, dropout, random regions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from cnn_reg.config import Config
from cnn_reg.data import StoredImages
from cnn_reg.regions import Region, sample_disjoint_regions
from cnn_reg.tasks import Task

SIZE = 12


def dots(count: int, seed: int) -> StoredImages:
    """Images of noise with two bright or dark dots; the label says whether the dots are alike."""
    generator = torch.Generator().manual_seed(seed)
    images = 120 + 15 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    signs = torch.randint(2, (count, 2), generator=generator) * 2.0 - 1
    images[:, 0, 2, 2] += 80 * signs[:, 0]
    images[:, 0, 9, 9] += 80 * signs[:, 1]
    return StoredImages(images.clamp(0, 255).to(torch.uint8), (signs.prod(1) > 0).float(), "dots")


def shades(count: int, seed: int) -> StoredImages:
    """Images as bright as their label."""
    labels = torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return StoredImages((255 * labels)[:, None, None].expand(-1, SIZE, SIZE).clone(), labels, "shades")


def draw(generator: torch.Generator) -> tuple[Region, Region]:
    """Two patches of 2 x 2."""
    return sample_disjoint_regions(SIZE, 2, generator)


def make_task(train: int = 24, test: int = 16, validation: int = 0, kind: Callable[[int, int], StoredImages] = dots) -> Task:
    """Images of one kind."""
    return Task("dots", kind(train + validation, 0), kind(test, 1), draw, validation)


def make_model(dropout: float = 0.3, batch_norm: bool = True) -> nn.Module:
    """A small network of one logit."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6) if batch_norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(6 * SIZE * SIZE // 4, 1),
    )


def make_config(**changes: object) -> Config:
    """Three epochs of three steps."""
    fields: dict[str, object] = {"train_images": 24, "test_images": 16, "image_size": SIZE}
    fields |= {"batch_size": 8, "epochs": 3, "coefficient": 1.0}
    return Config(**{**fields, **changes})  # type: ignore[arg-type]
