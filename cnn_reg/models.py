"""The networks of the experiments: torchvision's ResNets with one logit, the paper's dropout, and fewer channels for small studies."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from tensornet.checks import integer, real


class DropoutConv2d(nn.Conv2d):
    """A convolution without bias, some of whose inputs are dropped in training. Its state is that of the convolution.

    Args:
        convolution: The convolution whose sizes and weights it takes over.
        dropout: Probability with which an entry of the input is dropped.

    Example:
        >>> layer = DropoutConv2d(nn.Conv2d(1, 2, 3, bias=False), dropout=0.5)
        >>> layer(torch.ones(4, 1, 8, 8)).shape
        torch.Size([4, 2, 6, 6])
        >>> list(layer.state_dict())
        ['weight']
    """

    def __init__(self, convolution: nn.Conv2d, dropout: float) -> None:
        channels = convolution.in_channels, convolution.out_channels
        super().__init__(*channels, convolution.kernel_size, convolution.stride, convolution.padding, bias=False)  # type: ignore[arg-type]
        self.weight = convolution.weight
        self.dropout = dropout

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """The convolution of what dropout leaves of the input."""
        return super().forward(nn.functional.dropout(input, self.dropout, self.training))

    def extra_repr(self) -> str:
        """The convolution's sizes and the probability."""
        return f"{super().extra_repr()}, dropout={self.dropout}"  # type: ignore[no-untyped-call]


def resnet18(in_channels: int = 3, dropout: float = 0.0, *, width: float = 1.0) -> nn.Module:
    """ResNet18 with one logit, weights drawn from torch's global random state as torchvision does.

    Args:
        in_channels: Channels of the images.
        dropout: Probability of the dropout before the first convolutions of 128, 256 and 512 channels (Appendix D.2.2).
        width: Factor of all numbers of channels, 64 to 512; .25 for studies on a processor.

    Returns:
        A network from (batch, in_channels, rows, columns) to (batch, 1), whose state has torchvision's names.

    Raises:
        TypeError: An argument is no number.
        ValueError: There are no channels, or ``dropout`` is not in [0, 1).

    Example:
        >>> resnet18(in_channels=1, dropout=0.5, width=0.25)(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 1])
    """
    return _adapted(torchvision.models.resnet18(num_classes=1), in_channels, dropout, width)


def resnet34(in_channels: int = 3, dropout: float = 0.0, *, width: float = 1.0) -> nn.Module:
    """ResNet34 with one logit; the arguments, result and errors are those of :func:`resnet18`.

    Example:
        >>> resnet34(in_channels=1, width=0.125)(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 1])
    """
    return _adapted(torchvision.models.resnet34(num_classes=1), in_channels, dropout, width)


def _adapted(network: nn.Module, in_channels: int, dropout: float, width: float) -> nn.Module:
    in_channels = integer("in_channels", in_channels, least=1)
    dropout = real("dropout", dropout, below=1)
    if not 64 * real("width", width) >= 1:
        raise ValueError(f"width must leave at least one of 64 channels; got {width}")
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d):
            inputs = in_channels if name == "conv1" else round(layer.in_channels * width)
            network.set_submodule(name, _resized(layer, inputs, round(layer.out_channels * width)))
        elif isinstance(layer, nn.BatchNorm2d) and width != 1:
            network.set_submodule(name, nn.BatchNorm2d(round(layer.num_features * width)))
        elif isinstance(layer, nn.Linear) and width != 1:
            network.set_submodule(name, nn.Linear(round(layer.in_features * width), layer.out_features))
    if dropout:
        for stage in ("layer2", "layer3", "layer4"):
            name = f"{stage}.0.conv1"
            network.set_submodule(name, DropoutConv2d(network.get_submodule(name), dropout))  # type: ignore[arg-type]
    return network


def _resized(layer: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """The same convolution with other numbers of channels, initialised as torchvision's networks are."""
    if (inputs, outputs) == (layer.in_channels, layer.out_channels):
        return layer
    resized = nn.Conv2d(inputs, outputs, layer.kernel_size, layer.stride, layer.padding, bias=False)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(resized.weight, mode="fan_out", nonlinearity="relu")
    return resized
