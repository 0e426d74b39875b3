"""A network made fast to differentiate twice."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from cnn_reg.batchnorm import TwiceBatchNorm2d
from cnn_reg.convolution import TwiceConv2d

Network = TypeVar("Network", bound=nn.Module)
_CLASSES: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: TwiceBatchNorm2d, nn.Conv2d: TwiceConv2d}


def twice_differentiable(network: Network) -> Network:
    """The same network, whose convolutions and batch normalisations over images have closed-form second derivatives from now on.

    Layers stay the same objects with the same weights, statistics, hooks and names; what they compute stays the same up to rounding.
    Subclasses of torch's layers are left alone, since they may compute something else.

    Example:
        >>> network = twice_differentiable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
        >>> [type(layer).__name__ for layer in network]
        ['TwiceConv2d', 'TwiceBatchNorm2d', 'ReLU']
    """
    for layer in network.modules():
        layer.__class__ = _CLASSES.get(type(layer), type(layer))
    return network
