"""What is learned: images with labels, how regions are drawn, and what the distance alone predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cnn_reg.regions import Region


class Images(Protocol):
    """A data set as the training needs it.

    Example:
        >>> data: Images = TensorImages(torch.zeros(4, 1, 8, 8), torch.tensor([0.0, 1.0, 0.0, 1.0]))
        >>> data.batch(torch.tensor([0, 2])).shape
        torch.Size([2, 1, 8, 8])
    """

    @property
    def name(self) -> str:
        """What it is called in titles and tables, stand-ins marked as such."""

    @property
    def channels(self) -> int:
        """Of every image."""

    @property
    def labels(self) -> Tensor:
        """0 or 1 of every image (n,), as floating point, on the device."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Tensor:
        """Images (b, C, H, W), normalised, on the device.

        Example:
            >>> TensorImages(torch.arange(4.0).reshape(4, 1, 1, 1), torch.zeros(4)).batch(torch.tensor([2])).item()
            2.0
        """


class TensorImages:
    """Images that are there as one tensor.

    Args:
        images: (n, C, H, W), normalised.
        labels: (n,), 0 or 1.
        name: What they are called in titles and tables.

    Raises:
        ValueError: The shapes do not fit together.

    Example:
        >>> data = TensorImages(torch.zeros(4, 3, 8, 8), torch.zeros(4), "nothing")
        >>> len(data), data.channels
        (4, 3)
    """

    def __init__(self, images: Tensor, labels: Tensor, name: str = "images") -> None:
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(f"images need the shape (n, C, H, W) and labels (n,); got {tuple(images.shape)} and {tuple(labels.shape)}")
        self.images, self.labels, self.name = images, labels, name
        self.channels = images.shape[1]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """The images of the given indices.

        Example:
            >>> TensorImages(torch.arange(4.0).reshape(4, 1, 1, 1), torch.zeros(4)).batch(torch.tensor([2])).item()
            2.0
        """
        return self.images[indices]


@dataclass(frozen=True)
class Task:
    """Images to learn from and to test with, and the regions of the penalty.

    Args:
        train: For training; its last ``validation`` images choose the best epoch instead.
        test: For the reported accuracy.
        regions: Draws a pair of disjoint regions.
        validation: How many of ``train``'s images are held out.
        baseline: Accuracy on ``test`` of the best prediction from a distance alone, where there is such a shortcut.

    Raises:
        ValueError: ``validation`` leaves nothing to train with.

    Example:
        >>> from cnn_reg.regions import sample_disjoint_regions
        >>> data = TensorImages(torch.zeros(4, 1, 8, 8), torch.zeros(4))
        >>> Task(data, data, lambda generator: sample_disjoint_regions(8, 2, generator), validation=1).training_images
        3
    """

    train: Images
    test: Images
    regions: Callable[[torch.Generator], tuple[Region, Region]]
    validation: int = 0
    baseline: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation < len(self.train):
            raise ValueError(f"validation must leave images to train with; got {self.validation} of {len(self.train)}")

    @property
    def training_images(self) -> int:
        """How many images are trained with."""
        return len(self.train) - self.validation
