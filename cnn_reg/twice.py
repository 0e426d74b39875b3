"""A network made fast to differentiate twice."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from cnn_reg.batchnorm import TwiceBatchNorm2d
from cnn_reg.convolution import TwiceConv2d
from cnn_reg.models import DropoutConv2d

Network = TypeVar("Network", bound=nn.Module)


class TwiceDropoutConv2d(DropoutConv2d, TwiceConv2d):
    """:class:`cnn_reg.models.DropoutConv2d` whose convolution is a :class:`cnn_reg.convolution.TwiceConv2d`.

    Example:
        >>> twice_differentiable(DropoutConv2d(nn.Conv2d(1, 2, 3, bias=False), dropout=0.5)).dropout
        0.5
    """


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: TwiceBatchNorm2d,
    nn.Conv2d: TwiceConv2d,
    DropoutConv2d: TwiceDropoutConv2d,
}


def twice_differentiable(network: Network) -> Network:
    """The same network, whose convolutions and batch normalisations over images have closed-form second derivatives from now on.

    Layers stay the same objects with the same weights, statistics, hooks and names; what they compute stays the same up to rounding.
    Other subclasses of torch's layers are left alone, since they may compute something else. Transforms of ``torch.func`` and
    ``torch.fx`` do not see through the new layers.

    Example:
        >>> network = twice_differentiable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
        >>> [type(layer).__name__ for layer in network]
        ['TwiceConv2d', 'TwiceBatchNorm2d', 'ReLU']
    """
    for layer in network.modules():
        layer.__class__ = _CLASSES.get(type(layer), type(layer))
    return network
