"""Figure 5: what the images of both data sets look like."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cnn_reg.data import SameClassPairs, sources
from cnn_reg.data.pathfinder import generate
from tensornet.dynamics.plotting import check_suffix
from tensornet.files.storage import replacing

if TYPE_CHECKING:
    from cnn_reg.data.sources import Source

STRIP = (32, 224)  # rows and columns of Is Same Class without its padding
LABELS = {1: "positive", 0: "negative"}
DRAWN = 64  # images among which the first of a label is taken


class Picture(NamedTuple):
    """One picture of the figure.

    Attributes:
        title: What it shows.
        pixels: ``(rows, columns)`` or ``(rows, columns, 3)``, from 0 to 1.
    """

    title: str
    pixels: NDArray[np.float32]


def draw_samples(path: str | os.PathLike[str], source: str = "cifar10", *, seed: int = 0, folder: Path | None = None) -> None:
    """Draws Figure 5: samples of Is Same Class, 0 and 160 pixels apart, and of Pathfinder, path lengths 6 and 9, and writes it, atomically.

    As in the paper, Is Same Class is shown on white and without its padding.

    Args:
        path: Where to write, as PNG, PDF or SVG by the suffix.
        source: Of the pictures of Is Same Class; the figure says so where it is a stand-in of CIFAR10.
        seed: Of both data sets.
        folder: Where CIFAR10 lies or is downloaded to.

    Raises:
        ValueError: The suffix or the source is unknown.
        OSError: CIFAR10 cannot be had, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "figure5.png")
        >>> draw_samples(path, "random")
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    from matplotlib.figure import Figure

    check_suffix(Path(path))
    found = sources.load(source, "test", folder)
    strips = [same_class_sample(found, 0, 1, seed), same_class_sample(found, 160, 0, seed)]
    scenes = [pathfinder_sample(6, 1, seed), pathfinder_sample(9, 0, seed)]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25], squeeze=False)[0]
    left.suptitle(f"Is Same Class, {found.name}", fontsize=11)
    right.suptitle("Pathfinder", fontsize=11)
    panels = [*zip(left.subplots(2, 1), strips), *zip(right.subplots(1, 2), scenes)]
    for axes, picture in panels:
        axes.imshow(picture.pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(picture.title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    with replacing(path) as new:
        figure.savefig(new, dpi=200)


def same_class_sample(source: Source, distance: int, label: int, seed: int) -> Picture:
    """The first image of Is Same Class with a label, without its padding, on white.

    Example:
        >>> picture = same_class_sample(sources.load("random", "test"), 160, 0, seed=0)
        >>> picture.title, picture.pixels.shape, float(picture.pixels[0, 100, 0])
        ('negative, 160 pixels apart', (32, 224, 3), 1.0)
    """
    made = SameClassPairs.of(source, DRAWN, distance, seed=seed, image_size=STRIP)
    number = int((made.labels == label).nonzero()[0])
    image = made.batch(torch.tensor([number]))[0] * made.std[:, None, None] + made.mean[:, None, None]
    white = torch.ones(STRIP, dtype=torch.bool)
    for top, left, rows, columns in made.squares:
        white[top : top + rows, left : left + columns] = False
    image[:, white] = 1.0
    return Picture(f"{LABELS[label]}, {distance} pixels apart", image.clamp(0, 1).permute(1, 2, 0).numpy())


def pathfinder_sample(path_length: int, label: int, seed: int) -> Picture:
    """The first image of Pathfinder with a label.

    Example:
        >>> picture = pathfinder_sample(6, 1, seed=0)
        >>> picture.title, picture.pixels.shape
        ('positive, path length 6', (300, 300))
    """
    images, labels, _ = generate(path_length, DRAWN, seed)
    number = int(np.flatnonzero(labels == label)[0])
    return Picture(f"{LABELS[label]}, path length {path_length}", images[number].astype(np.float32) / 255)
