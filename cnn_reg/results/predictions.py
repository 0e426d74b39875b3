"""What a network says of single images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_reg.data import ImageSet
from tensornet.checks import integer

LOOKED_AT = 256  # images among which the samples are the first


class Sample(NamedTuple):
    """An image and what a network says of it.

    Attributes:
        number: Of the image in its set.
        picture: ``(rows, columns)`` or ``(rows, columns, 3)`` bytes.
        label: 0 or 1.
        probability: Of the label 1, as the network says.
    """

    number: int
    picture: NDArray[np.uint8]
    label: int
    probability: float

    @property
    def right(self) -> bool:
        """Whether the network is right."""
        return (self.probability > 0.5) == (self.label == 1)


def sample_predictions(network: nn.Module, data: ImageSet, count: int = 4) -> tuple[list[Sample], list[Sample]]:
    """The first images of a set that a network is right on, and the first that it is wrong on, among the first 256.

    Args:
        network: On the device of the images; it ends in the mode it was in.
        data: Images with labels.
        count: How many of each kind, at most.

    Raises:
        ValueError: ``count`` is below 1.

    Example:
        >>> from cnn_reg.data import StoredImages
        >>> data = StoredImages(torch.tensor([[[0, 0]], [[0, 255]]], dtype=torch.uint8), [1, 1], "two")
        >>> brightness = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
        >>> _ = nn.init.ones_(brightness[1].weight), nn.init.zeros_(brightness[1].bias)
        >>> right, wrong = sample_predictions(brightness, data)
        >>> [sample.number for sample in right], [sample.number for sample in wrong]
        ([1], [0])
    """
    integer("count", count, least=1)
    numbers = torch.arange(min(LOOKED_AT, len(data)))
    training = network.training
    try:
        with torch.no_grad():
            outputs = [network.eval()(data.batch(part)).flatten().double() for part in numbers.split(64)]
    finally:
        network.train(training)
    probabilities = torch.cat(outputs).sigmoid().tolist()
    found: tuple[list[Sample], list[Sample]] = ([], [])
    for number, probability in zip(numbers.tolist(), probabilities):
        sample = Sample(number, np.zeros((0, 0), dtype=np.uint8), int(data.labels[number]), probability)
        chosen = found[0 if sample.right else 1]
        if len(chosen) < count:
            chosen.append(sample._replace(picture=as_picture(data.batch(torch.tensor([number]))[0])))
    return found


def as_picture(image: Tensor) -> NDArray[np.uint8]:
    """An image ``(channels, rows, columns)`` of any range as bytes from black to white, without empty rows above and below a strip.

    Example:
        >>> as_picture(torch.tensor([[[-1.0, 1.0], [0.0, 0.0]]])).tolist()
        [[0, 255], [128, 128]]
    """
    values = image.detach().cpu().float()
    filled = torch.nonzero((values != values[:, :1, :1]).any(2).any(0)).flatten()
    if len(filled) and 2 * int(filled[-1] - filled[0] + 1) < values.shape[1]:
        values = values[:, filled[0] : filled[-1] + 1]
    low, high = values.min(), values.max()
    scaled = ((values - low) * (255 / (high - low) if high > low else 0)).round().to(torch.uint8)
    return (scaled[0] if len(scaled) == 1 else scaled.permute(1, 2, 0)).numpy()
