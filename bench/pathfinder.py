"""``python -m bench.pathfinder PICTURE``: samples as a picture, and the table of their statistics for the documents."""

from __future__ import annotations

import sys

import numpy as np
import torch
from PIL import Image

from cnn_reg.data import baseline, pathfinder
from cnn_reg.data.image_set import resize

LENGTHS, COUNT = (3, 5, 7, 9, 11), 2000


def picture(path: str) -> None:
    """One image of every length and class, connected above, written to ``path``."""
    rows = []
    for label in (1, 0):
        shown = []
        for length in LENGTHS:
            made = pathfinder.generate(length, 20)
            shown.append(np.pad(made.images[np.flatnonzero(made.labels == label)[0]], 2, constant_values=90))
        rows.append(np.concatenate(shown, axis=1))
    pixels = np.concatenate(rows)
    small = (pixels.shape[1] * 3 // 5, pixels.shape[0] * 3 // 5)
    Image.fromarray(pixels).resize(small, Image.Resampling.LANCZOS).quantize(16).save(path, optimize=True)


def row(length: int) -> str:
    """A line of the table."""
    made = pathfinder.generate(length, COUNT)
    distance = made.metadata["distance"]
    found = baseline.statistics(made.images, made.labels, distance)
    std = (resize(torch.from_numpy(made.images).unsqueeze(1), 150).float() / 255).std().item()
    matched = pathfinder.generate(length, COUNT, matched=True)
    cells = (
        str(length),
        f"{made.metadata['paddles'].mean():.2f}",
        f"{found['mean']:.5f} ({found['mean_std']:.5f})",
        f"{found['bright']:.5f}",
        f"{std:.4f}",
        f"{found['connected']:.1f} +- {found['connected_std']:.1f}",
        f"{found['apart']:.1f} +- {found['apart_std']:.1f}",
        f"{baseline.halves(distance, made.labels):.3f}",
        f"{baseline.halves(matched.metadata['distance'], matched.labels):.3f}",
        f"{made.metadata['restarts'].mean():.2f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    picture(sys.argv[1])
    for one in LENGTHS:
        print(row(one))
