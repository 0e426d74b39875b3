"""Is Same Class: do two pictures, at a chosen distance from each other, show the same class (Section 6)?"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_reg.data.image_set import ImageSet, channel_moments, normalise, resize
from cnn_reg.data.sources import CIFAR10_MOMENTS, Source
from tensornet.checks import integer

IMAGE_SIZE = (224, 224)


class SameClassPairs(ImageSet):
    """Images of two pictures each, in one row, with zeros around; the label says whether both are of one class.

    For every image, a fair coin is the label; then a class, uniform, and a picture of it, uniform; then a second one of the same class
    or of the others, uniform. Only the pictures and the numbers of the pairs are kept, and images are composed when they are asked
    for, so the same pairs serve every distance. Pictures are normalised before they are placed; so the zeros around them are the mean
    color.

    Args:
        images: ``(n, channels, rows, columns)`` uint8, such as CIFAR10's pictures.
        labels: ``(n,)`` integers, the pictures' classes.
        num_pairs: How many images to draw.
        distance: Pixels between the two pictures. In 224 columns and for pictures of 32, from 0 to 160.
        seed: Of the pairs.
        pairs: ``(num_pairs, 2)`` numbers of pictures, in place of drawn ones.
        name: For titles.
        moments: Mean and standard deviation of every channel, of values from 0 to 1; by default CIFAR10's for three channels, and for
            other numbers those of the pictures.
        image_size: Rows and columns; the paper's 224 x 224 by default.
        scale: Everything, image size, pictures and distance, is made smaller by this factor, for studies on small machines.

    Raises:
        ValueError: The distance does not fit, a class is missing, or shapes do not fit.

    Example:
        >>> pictures = torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8)
        >>> made = SameClassPairs(pictures, torch.arange(20) % 4, num_pairs=6, distance=40)
        >>> image, label = made[0]
        >>> len(made), image.shape, made.squares
        (6, torch.Size([3, 224, 224]), ((96, 60, 32, 32), (96, 132, 32, 32)))
    """

    def __init__(
        self,
        images: Tensor | NDArray[np.uint8],
        labels: Tensor | NDArray[Any],
        num_pairs: int,
        distance: int,
        *,
        seed: int = 0,
        pairs: Tensor | None = None,
        name: str = "pairs of pictures",
        moments: tuple[Tensor, Tensor] | None = None,
        image_size: tuple[int, int] = IMAGE_SIZE,
        scale: float = 1.0,
    ) -> None:
        pictures, classes = _check(images, labels)
        if moments is None:
            given = torch.tensor(CIFAR10_MOMENTS)
            moments = (given[0], given[1]) if pictures.shape[1] == 3 else channel_moments(pictures)
        self.mean, self.std = (values.to(pictures.device) for values in moments)
        self.distance, self.name = integer("distance", distance, least=0), name
        self.pairs = draw_pairs(classes, num_pairs, seed) if pairs is None else _check_pairs(pairs, num_pairs, len(pictures))
        self.pairs = self.pairs.to(pictures.device)
        same = classes[self.pairs[:, 0]] == classes[self.pairs[:, 1]]
        self.labels = same.to(torch.float32)
        if not 0 < scale <= 1:
            raise ValueError(f"scale must be above 0 and at most 1; got {scale}")
        rows, columns = (round(scale * size) for size in pictures.shape[2:])
        self.pictures = resize(pictures, (rows, columns))
        self.channels = pictures.shape[1]
        self.image_size: tuple[int, int] = (round(scale * image_size[0]), round(scale * image_size[1]))
        apart = round(scale * self.distance)
        if self.distance <= image_size[1] - 2 * pictures.shape[3]:  # what fits at full size fits at every scale, rounding aside
            apart = min(apart, self.image_size[1] - 2 * columns)
        self.squares = _squares(self.image_size, (rows, columns), apart)

    @classmethod
    def of(cls, source: Source, num_pairs: int, distance: int, **options: Any) -> SameClassPairs:
        """Pairs of a source's pictures, with its name and moments.

        Example:
            >>> from cnn_reg.data import sources
            >>> SameClassPairs.of(sources.load("random", "test"), 10, 160).name
            'random (not CIFAR10), 160 pixels apart'
        """
        name = f"{source.name}, {distance} pixels apart"
        return cls(source.images, source.classes, num_pairs, distance, name=name, moments=source.moments, **options)

    def batch(self, indices: Tensor) -> Tensor:
        """The images with the given numbers, ``(b, channels, rows, columns)`` float32, composed on the device.

        Example:
            >>> made = SameClassPairs(torch.full((8, 1, 32, 32), 9, dtype=torch.uint8), torch.arange(8) % 2, 5, 0)
            >>> made.batch(torch.tensor([4, 0])).shape
            torch.Size([2, 1, 224, 224])
        """
        chosen = self.pairs[indices.to(self.pairs.device)]
        made = torch.zeros(len(chosen), self.channels, *self.image_size, device=self.pairs.device)
        for side, (top, left, rows, columns) in enumerate(self.squares):
            made[:, :, top : top + rows, left : left + columns] = normalise(self.pictures[chosen[:, side]], self.mean, self.std)
        return made


def draw_pairs(classes: Tensor, num_pairs: int, seed: int) -> Tensor:
    """Numbers of pictures ``(num_pairs, 2)``, of one class with probability one half.

    Raises:
        ValueError: There are fewer than two classes.

    Example:
        >>> classes = torch.arange(100) % 10
        >>> pairs = draw_pairs(classes, 1000, seed=0)
        >>> 0.4 < (classes[pairs[:, 0]] == classes[pairs[:, 1]]).float().mean().item() < 0.6
        True
    """
    count = integer("num_pairs", num_pairs, least=1)
    generator = torch.Generator().manual_seed(integer("seed", seed, least=0))
    values = classes.unique().cpu()
    if len(values) < 2:
        raise ValueError(f"pairs of different classes need two classes; got {len(values)}")
    members = [torch.nonzero(classes.cpu() == value).flatten() for value in values]
    sizes = torch.tensor([len(numbers) for numbers in members])
    starts = sizes.cumsum(0) - sizes

    def below(limits: Tensor | int) -> Tensor:
        return (torch.rand(count, generator=generator, dtype=torch.float64) * limits).long()

    same = below(2) == 1
    first = below(len(values))
    begin, size = starts[first], sizes[first]
    left = begin + below(size)
    within = begin + below(size)
    outside = below(len(classes) - size)
    outside = outside + size * (outside >= begin)  # the pictures of all other classes, counted past this one's
    return torch.cat(members)[torch.stack([left, torch.where(same, within, outside)], dim=1)]


def digest(source: Source) -> str:
    """A text that two sources share only if they hold the same pictures and classes in the same order.

    Example:
        >>> from cnn_reg.data import sources
        >>> digest(sources.load("random", "test")) == digest(sources.load("random", "train"))
        False
    """
    made = hashlib.sha256(source.images.cpu().numpy().tobytes())
    made.update(source.classes.cpu().numpy().tobytes())
    return made.hexdigest()


def _squares(image: tuple[int, int], picture: tuple[int, int], distance: int) -> tuple[tuple[int, int, int, int], ...]:
    """Top, left, height and width of both pictures."""
    top, left = (image[0] - picture[0]) // 2, image[1] // 2 - picture[1] - distance // 2
    right = left + picture[1] + distance
    if top < 0 or left < 0 or right + picture[1] > image[1]:
        most = max(0, image[1] - 2 * picture[1])
        raise ValueError(
            f"two pictures of {picture[0]} x {picture[1]} in {image[0]} x {image[1]} can be at most {most} apart; got {distance}"
            if top >= 0 and image[1] >= 2 * picture[1]
            else f"two pictures of {picture[0]} x {picture[1]} do not fit beside each other into {image[0]} x {image[1]}"
        )
    return (top, left, *picture), (top, right, *picture)


def _check(images: Tensor | NDArray[np.uint8], labels: Tensor | NDArray[Any]) -> tuple[Tensor, Tensor]:
    pictures = torch.as_tensor(images)
    classes = torch.as_tensor(labels).to(pictures.device)
    if pictures.dtype != torch.uint8 or pictures.dim() != 4 or pictures.shape[1] not in (1, 3) or not len(pictures):
        raise ValueError(
            f"images must be uint8 of shape (n, 1 or 3, rows, columns); got {str(pictures.dtype).removeprefix('torch.')} of shape "
            f"{tuple(pictures.shape)}"
        )
    if classes.shape != pictures.shape[:1] or classes.is_floating_point():
        raise ValueError(f"labels must be one integer an image; got shape {tuple(classes.shape)} for {len(pictures)} images")
    return pictures, classes


def _check_pairs(pairs: Tensor, num_pairs: int, count: int) -> Tensor:
    if pairs.shape != (num_pairs, 2) or pairs.dtype != torch.int64 or not ((pairs >= 0) & (pairs < count)).all():
        raise ValueError(f"pairs must be {num_pairs} pairs of numbers below {count}; got shape {tuple(pairs.shape)}")
    return pairs
