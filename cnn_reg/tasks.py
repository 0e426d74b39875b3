"""What is learned: images with labels, how regions are drawn, and what the distance of the circles predicts by itself."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cnn_reg.config import Config
from cnn_reg.data import ImageSet, SameClassPairs, sources
from cnn_reg.data.split_cache import cached_splits
from cnn_reg.data.splits import generate_splits, load_splits
from cnn_reg.regions import Region, sample_disjoint_regions

Draw = Callable[[torch.Generator], tuple[Region, Region]]
SAME_CLASS_SIZE = 224  # rows and columns of the images of Is Same Class


@dataclass(frozen=True)
class Task:
    """Images to learn from and to test with, and the regions of the penalty.

    Args:
        title: Of pictures and reports; stand-ins are marked in it.
        train: For training; its last ``validation`` images choose the best epoch instead.
        test: For the reported accuracy.
        regions: Draws a pair of disjoint regions.
        validation: How many of ``train``'s images are held out.
        baseline: Accuracy on ``test`` of the best prediction from a distance alone, where there is such a shortcut.

    Raises:
        ValueError: ``validation`` leaves nothing to train with.

    Example:
        >>> from cnn_reg.data import StoredImages
        >>> data = StoredImages(torch.zeros(4, 8, 8, dtype=torch.uint8), [0, 1, 1, 0], "black")
        >>> Task("black", data, data, lambda generator: sample_disjoint_regions(8, 2, generator), validation=1).training_images
        3
    """

    title: str
    train: ImageSet
    test: ImageSet
    regions: Draw
    validation: int = 0
    baseline: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation < len(self.train):
            raise ValueError(f"validation must leave images to train with; got {self.validation} of {len(self.train)}")

    @property
    def training_images(self) -> int:
        """How many images are trained with."""
        return len(self.train) - self.validation


def image_shape(config: Config) -> tuple[int, int, int]:
    """Channels, rows and columns of a configuration's images, without making any.

    Example:
        >>> image_shape(Config()), image_shape(Config(dataset="same-class", image_size=224))
        ((1, 150, 150), (3, 224, 224))
    """
    return (1 if config.dataset == "pathfinder" else 3, config.image_size, config.image_size)


def make_task(config: Config, data: Path | None = None, device: torch.device | str = "cpu", *, cache: Path | None = None) -> Task:
    """The task of a configuration, with its images on the device.

    Pathfinder's regions are two patches that do not overlap, drawn anew; those of Is Same Class the squares of the two pictures, in
    random order (Appendix D.2.2).

    Args:
        config: Which images, how many, and of which size.
        data: The folder where CIFAR10 lies or is downloaded to, by default one below the user's cache. Of Pathfinder, a file of images
            that ``cnn-reg data`` made; by default, and with a folder, they are made.
        device: Where the images are kept.
        cache: Folder where Pathfinder images are kept once they are made; by default they are made anew.

    Raises:
        ValueError: There are no such images, or other ones in the file.
        OSError: Images cannot be read or downloaded.

    Example:
        >>> config = Config(path_length=3, train_images=20, test_images=10, image_size=32)
        >>> task = make_task(config)
        >>> task.title, task.train.image_size, len(task.test)
        ('Pathfinder, path length 3', (32, 32), 10)
    """
    return _pathfinder(config, data, cache, device) if config.dataset == "pathfinder" else _same_class(config, data, device)


def _pathfinder(config: Config, data: Path | None, cache: Path | None, device: torch.device | str) -> Task:
    counts = config.train_images + config.validation_images, config.test_images
    if data is not None and not data.is_dir():
        wanted = {"path_length": config.path_length, "seed": config.data_seed, "matched": config.matched}
        made = load_splits(data, *counts, size=config.image_size, wanted=wanted)
    else:
        made = (functools.partial(cached_splits, cache) if cache else generate_splits)(
            config.path_length,
            *counts,
            config.data_seed,
            size=config.image_size,
            matched=config.matched,
            workers=os.cpu_count() or 1,
        )

    def regions(generator: torch.Generator) -> tuple[Region, Region]:
        return sample_disjoint_regions(config.image_size, config.patch_size, generator)

    train, test = made.train.to(device), made.test.to(device)
    return Task(train.name, train, test, regions, config.validation_images, made.distance_accuracy)


def _same_class(config: Config, data: Path | None, device: torch.device | str) -> Task:
    splits = []
    for split, count in (("train", config.train_images + config.validation_images), ("test", config.test_images)):
        source = sources.load(config.source, split, data)
        scale = config.image_size / SAME_CLASS_SIZE
        splits.append(SameClassPairs.of(source, count, config.distance, seed=config.data_seed, scale=scale).to(device))
    squares = [Region(*square) for square in splits[0].squares]

    def regions(generator: torch.Generator) -> tuple[Region, Region]:
        left = int(torch.randint(2, (), generator=generator))
        return squares[left], squares[1 - left]

    return Task(f"Is Same Class, {splits[0].name}", splits[0], splits[1], regions, config.validation_images)
