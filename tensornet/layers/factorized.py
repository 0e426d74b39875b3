"""Linear and convolution layers whose weights are end tensors of factorizations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tensornet.arrays import check_like
from tensornet.checks import integers
from tensornet.htf import HTF
from tensornet.layers.initial import unit_scale
from tensornet.tree import ModeTree, Nested, Node


class HTFLinear(nn.Module):
    """A linear layer ``y = W x + b`` whose weight is the end tensor of a factorization, ``(..., prod(in)) -> (..., prod(out))``.

    The modes of the end tensor are the factors of the numbers of outputs, then of inputs; the weight is its reshaping. Every entry of the
    initial weight has variance ``1 / inputs``.

    Args:
        in_sizes: Factors of the number of inputs.
        out_sizes: Factors of the number of outputs.
        ranks: As for :class:`HTF`.
        tree: Mode tree over ``out_sizes`` and ``in_sizes``; by default the balanced tree over pairs of an output and an input factor.
        bias: Whether a vector is added.
        generator: Source of randomness.
        dtype: Type of the weights.
        device: Where the weights are made.

    Attributes:
        htf: The factorization.
        bias: The bias, or ``None``.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument is out of its range, or ``tree`` does not have one mode a factor.

    Example:
        >>> layer = HTFLinear((8, 8), (4, 4), ranks=5)
        >>> layer(torch.ones(7, 64)).shape
        torch.Size([7, 16])
        >>> layer.htf.tree.to_nested()
        ((0, 2), (1, 3))
    """

    def __init__(
        self,
        in_sizes: Sequence[int],
        out_sizes: Sequence[int],
        ranks: int | Mapping[Node, int],
        *,
        tree: ModeTree | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_sizes, self.out_sizes = integers("in_sizes", in_sizes), integers("out_sizes", out_sizes)
        tree = _paired(len(self.out_sizes), len(self.in_sizes)) if tree is None else tree
        self.htf = HTF(tree, (*self.out_sizes, *self.in_sizes), ranks, dtype=dtype, device=device)
        unit_scale(self.htf, generator, leaves=1.0, last=math.prod(self.in_sizes) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(math.prod(self.out_sizes), dtype=dtype, device=device)) if bias else None

    @property
    def weight(self) -> Tensor:
        """The weight ``(outputs, inputs)``, contracted anew at every access.

        Example:
            >>> HTFLinear((8, 8), (4, 4), ranks=5).weight.shape
            torch.Size([16, 64])
        """
        return self.htf.contract().reshape(math.prod(self.out_sizes), math.prod(self.in_sizes))

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs @ weight.T + bias``.

        Raises:
            TypeError: The inputs are no tensor of the weight's type.
            ValueError: Their last axis has a wrong size, or they are on another device.

        Example:
            >>> layer = HTFLinear((3, 4), (2,), ranks=3, bias=False, dtype=torch.float64)
            >>> torch.allclose(layer(torch.ones(1, 12, dtype=torch.float64)), layer.weight.sum(1))
            True
        """
        check_like(inputs, next(self.htf.parameters()))
        if inputs.shape[-1:] != (math.prod(self.in_sizes),):
            raise ValueError(f"inputs need the shape (..., {math.prod(self.in_sizes)}); got {tuple(inputs.shape)}")
        return functional.linear(inputs, self.weight, self.bias)


class HTFConv2d(nn.Module):
    """A convolution whose weight is the end tensor of a factorization: ``(B, prod(in), H, W) -> (B, prod(out), H', W')``.

    The modes of the end tensor are the factors of the numbers of output channels, then of input channels, then the kernel's two axes.

    Args:
        in_sizes: Factors of the number of input channels.
        out_sizes: Factors of the number of output channels.
        kernel_size: Size of the kernel along both axes.
        ranks: As for :class:`HTF`.
        stride: Distance of neighbouring outputs.
        padding: Zeros around the inputs.
        tree: Mode tree over all modes; by default as for :class:`HTFLinear`, with the kernel's axes after the pairs.
        bias: Whether a vector is added.
        generator: Source of randomness.
        dtype: Type of the weights.
        device: Where the weights are made.

    Attributes:
        kernel: The weight as that of an :class:`HTFLinear` from patches to output channels.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument is out of its range, or ``tree`` does not have one mode a factor.

    Example:
        >>> HTFConv2d((4, 4), (8, 4), 3, ranks=6, padding=1)(torch.ones(2, 16, 10, 10)).shape
        torch.Size([2, 32, 10, 10])
    """

    def __init__(
        self,
        in_sizes: Sequence[int],
        out_sizes: Sequence[int],
        kernel_size: int,
        ranks: int | Mapping[Node, int],
        *,
        stride: int = 1,
        padding: int = 0,
        tree: ModeTree | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        kernel_size, self.stride = integers("kernel_size and stride", (kernel_size, stride))
        (self.padding,) = integers("padding", padding, least=0)
        sizes = (*integers("in_sizes", in_sizes), kernel_size, kernel_size)
        self.kernel = HTFLinear(sizes, out_sizes, ranks, tree=tree, bias=bias, generator=generator, dtype=dtype, device=device)

    @property
    def weight(self) -> Tensor:
        """The weight ``(out channels, in channels, kernel_size, kernel_size)``, contracted anew at every access.

        Example:
            >>> HTFConv2d((4, 4), (8, 4), 3, ranks=6).weight.shape
            torch.Size([32, 16, 3, 3])
        """
        width = self.kernel.in_sizes[-1]
        weight: Tensor = self.kernel.weight.unflatten(1, (-1, width, width))
        return weight

    def forward(self, inputs: Tensor) -> Tensor:
        """The convolution, as ``torch.nn.functional.conv2d`` with :attr:`weight`.

        Raises:
            TypeError: The inputs are no tensor of the weight's type.
            ValueError: They are no images with the right number of channels and of at least the kernel's size, or on another device.

        Example:
            >>> layer = HTFConv2d((2, 2), (3,), 1, ranks=2, stride=2)
            >>> layer(torch.zeros(1, 4, 8, 8)).shape
            torch.Size([1, 3, 4, 4])
        """
        check_like(inputs, next(self.kernel.htf.parameters()))
        channels, least = math.prod(self.kernel.in_sizes[:-2]), self.kernel.in_sizes[-1] - 2 * self.padding
        if inputs.ndim != 4 or inputs.shape[1] != channels or min(inputs.shape[2:]) < least:
            wanted = f"(B, {channels}, H, W)" + (f" with H and W of at least {least}" if least > 1 else "")
            raise ValueError(f"inputs need the shape {wanted}; got {tuple(inputs.shape)}")
        return functional.conv2d(inputs, self.weight, self.kernel.bias, self.stride, self.padding)


def _paired(first: int, second: int) -> ModeTree:
    """The balanced tree over the pairs ``(n, first + n)``; the modes without a partner come after them, each on its own."""
    both = min(first, second)
    parts: list[Nested] = [(mode, first + mode) for mode in range(both)]
    parts += [*range(both, first), *range(first + both, first + second)]
    while len(parts) > 1:
        parts = [tuple(parts[place : place + 2]) if place + 1 < len(parts) else parts[place] for place in range(0, len(parts), 2)]
    return ModeTree.from_nested(parts[0])
