"""What training needs of a data set, and the plain kind: images stored as bytes on a device."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tensornet.checks import integer

RESIZED = 32  # images resized at once, which the processor's caches hold; all at once takes twice the time
NOT_CIFAR10 = "not CIFAR10"  # in the name of every stand-in


class ImageSet(ABC):
    """Images with a label each, composed and normalised on a device when they are asked for.

    Attributes:
        image_size: Rows and columns.
        channels: Channels.
        labels: ``(n,)`` float32, 0 or 1, on the device.
        name: For titles; a stand-in's says that it is not CIFAR10.
    """

    image_size: tuple[int, int]
    channels: int
    labels: Tensor
    name: str

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """The images with the given numbers, ``(b, channels, rows, columns)`` float32, normalised, on the device.

        Example:
            >>> made = StoredImages(torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2), [0, 1, 1], "three")
            >>> made.batch(torch.tensor([0, 2])).shape
            torch.Size([2, 1, 2, 2])
        """

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        place = range(len(self))[index]  # an index error where there is none
        return self.batch(torch.tensor([place], device=self.labels.device))[0], self.labels[place]

    def to(self, device: torch.device | str) -> Self:
        """The same images on a device.

        Example:
            >>> StoredImages(torch.zeros(1, 2, 2, dtype=torch.uint8), [0], "one").to("cpu").name
            'one'
        """
        moved = copy.copy(self)
        vars(moved).update({name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)})
        return moved


class StoredImages(ImageSet):
    """Images as bytes on a device, normalised when they are asked for.

    Args:
        images: ``(n, rows, columns)`` or ``(n, channels, rows, columns)`` uint8.
        labels: ``(n,)`` of 0 and 1.
        name: For titles.
        moments: Mean and standard deviation of every channel, of values from 0 to 1; those of these images by default.

    Raises:
        ValueError: Shapes or types do not fit.

    Example:
        >>> made = StoredImages(torch.tensor([[[0, 255]], [[255, 0]]], dtype=torch.uint8), [0, 1], "two")
        >>> made.batch(torch.tensor([1])).tolist()
        [[[[1.0, -1.0]]]]
    """

    def __init__(
        self,
        images: Tensor | NDArray[np.uint8],
        labels: Tensor | NDArray[np.uint8] | Sequence[int],
        name: str,
        moments: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        pixels = torch.as_tensor(images)
        if pixels.dtype != torch.uint8 or pixels.dim() not in (3, 4) or not pixels.numel():
            raise ValueError(f"images must be uint8 of shape (n, rows, columns) or (n, channels, rows, columns); got {_shown(pixels)}")
        self.images = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels
        self.labels = torch.as_tensor(labels).to(self.images.device, torch.float32)
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"one label an image is needed; got {_shown(self.labels)} for {len(self.images)} images")
        self.channels = self.images.shape[1]
        self.image_size: tuple[int, int] = (self.images.shape[2], self.images.shape[3])
        self.name = name
        self.mean, self.std = moments or channel_moments(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """The images with the given numbers, ``(b, channels, rows, columns)`` float32, normalised, on the device.

        Example:
            >>> StoredImages(torch.zeros(3, 2, 2, dtype=torch.uint8), [0, 1, 1], "three").batch(torch.tensor([2])).shape
            torch.Size([1, 1, 2, 2])
        """
        return normalise(self.images[indices.to(self.images.device)], self.mean, self.std)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bytes as numbers from 0 to 1, less the mean, over the standard deviation, by channel; one pass over the result.

    Example:
        >>> normalise(torch.tensor([[[[255]]]], dtype=torch.uint8), torch.tensor([0.5]), torch.tensor([0.25])).item()
        2.0
    """
    scale = 1 / (255 * std)
    return pixels.to(torch.float32).mul_(scale[:, None, None]).sub_((mean / std)[:, None, None])


def channel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel of ``(n, channels, rows, columns)`` bytes, of values from 0 to 1.

    A channel that does not vary has the deviation 1, so that it can be divided by.

    Example:
        >>> channel_moments(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1))
        (tensor([0.5000]), tensor([0.5000]))
    """
    means, squares = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).double()
        values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
        means.append((counts * values).sum() / counts.sum())
        squares.append((counts * (values - means[-1]) ** 2).sum() / counts.sum())
    std = torch.stack(squares).sqrt()
    return torch.stack(means).float(), torch.where(std > 0, std, 1.0).float()


def resize(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bytes ``(n, channels, rows, columns)`` of another size, bilinear, antialiased.

    Example:
        >>> resize(torch.zeros(1, 1, 300, 300, dtype=torch.uint8), 150).shape
        torch.Size([1, 1, 150, 150])
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    shape = (integer("size", rows, least=1), integer("size", columns, least=1))
    if shape == tuple(images.shape[2:]):
        return images
    made = images.new_empty((*images.shape[:2], *shape))
    for begin in range(0, len(images), RESIZED):
        part = images[begin : begin + RESIZED].float()
        reduced = functional.interpolate(part, size=shape, mode="bilinear", antialias=True)
        made[begin : begin + RESIZED] = reduced.round_().clamp_(0, 255).to(torch.uint8)
    return made


def _shown(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
