"""Data sets: drawing Pathfinder images, and composing a batch that is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cnn_reg.data import ImageSet, SameClassPairs, pathfinder, splits

IMAGES, BATCH, ROUNDS = 500, 64, 5


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("length", "matched"), [(3, False), (5, False), (7, False), (9, False), (11, False), (7, True)])
def test_drawing(benchmark: Any, length: int, matched: bool, workers: int) -> None:
    """Images of one path length; the extra field says how many a second."""
    pathfinder.generate(length, 2, matched=matched)  # compiled
    benchmark.group = f"pathfinder {length}{' matched' if matched else ''}"
    benchmark.pedantic(pathfinder.generate, (length, IMAGES), {"matched": matched, "workers": workers}, rounds=ROUNDS)
    benchmark.extra_info["images_per_second"] = round(IMAGES / benchmark.stats.stats.median)


def test_reducing(benchmark: Any) -> None:
    """Images drawn and reduced to 150 x 150, as in training without a file."""
    splits.generate_splits(7, 2, 2)
    benchmark.pedantic(splits.generate_splits, (7, IMAGES // 2, IMAGES // 2), rounds=ROUNDS)
    benchmark.extra_info["images_per_second"] = round(IMAGES / benchmark.stats.stats.median)


def _pathfinder() -> ImageSet:
    return splits.generate_splits(7, 2 * BATCH, 2).train


def _same_class() -> ImageSet:
    return SameClassPairs(torch.randint(256, (1000, 3, 32, 32), dtype=torch.uint8), torch.arange(1000) % 10, 2 * BATCH, 160)


@pytest.mark.parametrize("make", [_pathfinder, _same_class], ids=["pathfinder-150", "same-class-224"])
def test_composing(benchmark: Any, make: Any) -> None:
    """A batch of 64, composed and normalised."""
    made, indices = make(), torch.randperm(2 * BATCH)[:BATCH]
    benchmark.group = "composing a batch"
    benchmark.pedantic(made.batch, (indices,), rounds=50, iterations=5, warmup_rounds=3)
