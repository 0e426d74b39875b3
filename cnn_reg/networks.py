"""Networks by name: those of the experiments, and any function of a package that returns a module."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cnn_reg.models import resnet18, resnet34
from tensornet.checks import line

_OWN: dict[str, Callable[..., nn.Module]] = {"resnet18": resnet18, "resnet34": resnet34}


class Repeated(nn.Module):
    """A network of color images on grey ones, whose one channel it repeats.

    Example:
        >>> Repeated(nn.Conv2d(3, 5, 1), 3)(torch.rand(2, 1, 4, 4)).shape
        torch.Size([2, 5, 4, 4])
    """

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs on the repeated channel."""
        outputs: Tensor = self.network(images.expand(-1, self.channels, -1, -1))
        return outputs


def build_network(name: str, in_channels: int, image_size: tuple[int, int], *, dropout: float = 0.0, width: float = 1.0) -> nn.Module:
    """A network of one logit, with weights drawn from torch's global random numbers.

    Args:
        name: ``resnet18``, ``resnet34``, or ``package:function``. The function is called with those of ``in_channels=...`` and
            ``num_classes=1`` that it takes; so torchvision's networks have one logit. A network of three channels gets a grey image's
            channel three times.
        in_channels: Of the images.
        image_size: Rows and columns of the images, on which the network is tried.
        dropout: Of the experiments' networks.
        width: Of the experiments' networks.

    Raises:
        ValueError: There is no such function, it fails, or what it returns is no network of one logit on such images.

    Example:
        >>> build_network("torchvision.models:squeezenet1_1", 1, (64, 64))(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 1])
    """
    if name in _OWN:
        network: nn.Module = _OWN[name](in_channels, dropout, width=width)
        return network
    if dropout or width != 1:
        raise ValueError(f"dropout and width are of resnet18 and resnet34; {name} takes none")
    function = _function(name)
    try:
        network = function(**_arguments(function, in_channels))
    except Exception as error:  # noqa: BLE001, programs of users raise what they will
        raise ValueError(f"model {name} fails: {line(error)}") from None
    if not isinstance(network, nn.Module):
        raise ValueError(f"model {name} must return a torch.nn.Module; got {type(network).__name__}")
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    if in_channels == 1 and first is not None and first.in_channels == 3:
        network = Repeated(network, 3)
    _try(name, network, (2, in_channels, *image_size))
    return network


def _function(name: str) -> Callable[..., Any]:
    package, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(package), function)
    except Exception as error:  # noqa: BLE001, programs of users raise what they will
        raise ValueError(f"model {name} cannot be found: {line(error)}") from None
    if not callable(found):
        raise ValueError(f"model {name} must be a function; got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _arguments(function: Callable[..., Any], in_channels: int) -> dict[str, int]:
    parameters = inspect.signature(function).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    found = {"in_channels": in_channels} if "in_channels" in parameters else {}
    return {**found, "num_classes": 1} if "num_classes" in parameters or anything else found


def _try(name: str, network: nn.Module, shape: tuple[int, ...]) -> None:
    try:
        with torch.no_grad(), torch.random.fork_rng():
            outputs = copy.deepcopy(network).train()(torch.rand(shape))  # some have other outputs in training
    except Exception as error:  # noqa: BLE001, programs of users raise what they will
        raise ValueError(f"model {name} fails on images of shape {shape}: {line(error)}") from None
    if not isinstance(outputs, Tensor) or outputs.numel() != shape[0]:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"model {name} must return one logit an image; got {got} for {shape[0]} images")
