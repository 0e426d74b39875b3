"""Feature maps: what is at a place of an image or a sequence as the vector ``x_n`` of its mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tensornet.arrays import check_like, check_real, fill_normal
from tensornet.checks import finite, integers

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}  # by number of axes


class AffineFeatures(nn.Module):
    """Feature map ``x -> (1, (x - center) / scale)``: inputs ``(B, N)`` or ``(B, N, C)``, features ``(B, N, 1 + C)``.

    With it a factorization is a polynomial in the inputs, of degree at most 1 in each. With inputs of a magnitude around 1 after
    centring, products over many modes keep their scale, since the first feature is 1.

    Args:
        center: Subtracted from the inputs.
        scale: The inputs are divided by it.

    Raises:
        TypeError: An argument is no number.
        ValueError: One is not finite, or ``scale`` is 0.

    Example:
        >>> AffineFeatures()(torch.tensor([[0.0, 0.5]]))
        tensor([[[1.0000, 0.0000],
                 [1.0000, 0.5000]]])
        >>> AffineFeatures(center=0.5, scale=0.5)(torch.zeros(7, 64, 3)).shape
        torch.Size([7, 64, 4])
    """

    def __init__(self, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.center, self.scale = finite("center", center), finite("scale", scale)
        if scale == 0:
            raise ValueError("scale must be a number other than 0; got 0")

    def forward(self, inputs: Tensor) -> Tensor:
        """The features ``(B, N, 1 + C)``.

        Raises:
            TypeError: The inputs are no tensor of a floating type.
            ValueError: Their shape is wrong.

        Example:
            >>> AffineFeatures(center=1.0)(torch.tensor([[3.0]])).tolist()
            [[[1.0, 2.0]]]
        """
        values = (_by_place(inputs) - self.center) / self.scale
        return torch.cat([torch.ones_like(values[..., :1]), values], -1)

    def extra_repr(self) -> str:
        """One line for ``print``."""
        return f"center={self.center}, scale={self.scale}"


class TrigonometricFeatures(nn.Module):
    """Feature map ``x -> (cos(pi x / 2), sin(pi x / 2))``, ``(B, N)`` or ``(B, N, C)`` to ``(B, N, 2 C)``, for inputs from 0 to 1.

    The map of Stoudenmire and Schwab 2016. The cosines of all channels come first, and all is divided by ``sqrt(C)``, so that every
    feature vector has norm 1 and the outer product of any number of them as well.

    Example:
        >>> TrigonometricFeatures()(torch.tensor([[0.0, 1.0]])).round(decimals=3).abs()
        tensor([[[1., 0.],
                 [0., 1.]]])
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """The features ``(B, N, 2 C)``.

        Raises:
            TypeError: The inputs are no tensor of a floating type.
            ValueError: Their shape is wrong.

        Example:
            >>> TrigonometricFeatures()(torch.rand(5, 64, 3)).norm(dim=-1).allclose(torch.ones(5, 64))
            True
        """
        angles = _by_place(inputs) * (math.pi / 2)
        features: Tensor = torch.cat([angles.cos(), angles.sin()], -1) / angles.shape[-1] ** 0.5
        return features


class PatchFeatures(nn.Module):
    """Learned features of local patches, the "representation layer" of Cohen and Shashua 2016, as a map of inputs at places.

    The places, in row-major order, are put back on the grid ``size``; a convolution and ReLU follow, ``relu(<w_d, patch> + b_d)``, and
    a constant feature 1 before the learned ones keeps the scale of products over many modes. ``(B, N)`` or ``(B, N, C)`` to
    ``(B, N', 1 + features)``, where ``N'`` is the number of places of :attr:`grid`.

    Args:
        size: Size of the image or sequence along each of its one to three axes.
        features: Number of learned features.
        channels: Number ``C`` of channels of the inputs.
        patch: Size of a patch along every axis.
        stride: Distance of neighbouring patches. Patches lap over the border (with zeros) where needed to cover everything.
        generator: Source of randomness.
        dtype: Type of the weights.
        device: Where the weights are made.

    Attributes:
        grid: Number of patches along each axis.

    Raises:
        TypeError: A size is no integer, or ``dtype`` is not a real floating type.
        ValueError: A size is below 1, or there are more than three axes.

    Example:
        >>> PatchFeatures((8, 8), 5)(torch.rand(7, 64)).shape
        torch.Size([7, 64, 6])
        >>> PatchFeatures((8, 8), 5, patch=2, stride=2).grid
        (4, 4)
    """

    def __init__(
        self,
        size: int | Sequence[int],
        features: int = 8,
        *,
        channels: int = 1,
        patch: int = 3,
        stride: int = 1,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.size = integers("size", size)
        if len(self.size) not in CONVOLUTIONS:
            raise ValueError(f"size must have one to three axes; got {self.size}")
        features, channels, patch, stride = integers("features, channels, patch and stride", (features, channels, patch, stride))
        check_real("dtype", dtype)
        self.grid = tuple(-(-length // stride) for length in self.size)
        padded = [max((count - 1) * stride + patch - length, 0) for length, count in zip(self.size, self.grid)]
        self.padding = [side for total in reversed(padded) for side in (total // 2, total - total // 2)]
        self.convolution = CONVOLUTIONS[len(self.size)](channels, features, patch, stride, device=device, dtype=dtype)
        fill_normal(self.convolution.weight, (2 / math.prod(self.convolution.weight.shape[1:])) ** 0.5, generator)
        nn.init.zeros_(cast(Tensor, self.convolution.bias))

    def forward(self, inputs: Tensor) -> Tensor:
        """The features ``(B, N', 1 + features)``.

        Raises:
            TypeError: The inputs are no tensor of the weights' type.
            ValueError: Their shape is wrong, or they are on another device.

        Example:
            >>> PatchFeatures(28, 4, channels=3, patch=4, stride=4)(torch.rand(2, 28, 3)).shape
            torch.Size([2, 7, 5])
        """
        values = _by_place(inputs)
        check_like(values, self.convolution.weight)
        wanted = (math.prod(self.size), self.convolution.in_channels)
        if values.shape[1:] != wanted:
            raise ValueError(f"inputs need the shape (B, {wanted[0]}, {wanted[1]}); got {tuple(inputs.shape)}")
        images = functional.pad(values.mT.unflatten(2, self.size), self.padding)
        learned = self.convolution(images).relu().flatten(2).mT
        return torch.cat([torch.ones_like(learned[..., :1]), learned], -1)


def _by_place(inputs: Any) -> Tensor:
    """Inputs ``(B, N)`` or ``(B, N, C)`` as ``(B, N, C)``."""
    if not isinstance(inputs, Tensor) or not inputs.dtype.is_floating_point:
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"inputs of a feature map must be a tensor of a real floating type; got {kind}")
    if inputs.ndim not in (2, 3):
        raise ValueError(f"inputs of a feature map need the shape (B, N) or (B, N, C); got {tuple(inputs.shape)}")
    return inputs.unsqueeze(2) if inputs.ndim == 2 else inputs
