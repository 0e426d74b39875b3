"""Hierarchical tensor factorizations as layers of a network: a classifier, factorized linear and convolution weights.

A factorization is the weight space of a deep convolutional network with product pooling (Appendix A of the paper), or of the
generalized ones of Cohen and Shashua 2016. Modes are places of an image or a sequence, each with the vector that a feature
map makes of what is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tensornet.arrays import check_like, check_real, fill_normal
from tensornet.checks import integers, real
from tensornet.circuit import PRODUCT, Activation, Pooling
from tensornet.features import AffineFeatures
from tensornet.htf import HTF
from tensornet.tree import ModeTree, Nested, Node

LOGIT_SCALE = 10.0  # initial: with 10 classes, confidences of up to 0.999


class HTFClassifier(nn.Module):
    """A classifier of images or sequences: feature map, then the network of a factorization with one output a class.

    Inputs are images ``(B, C, *size)`` or ``(B, *size)``, or where ``size`` has one axis sequences ``(B, L, C)`` or ``(B, L)``; the form
    without channels is for one channel. Outputs are logits ``(B, classes)``. The defaults want inputs from 0 to 1.

    By default the logits of product pooling are ``logit_scale * y / |y|``, where ``y = <x_1 o ... o x_N, W_H>`` are the outputs of the
    factorization and the learned ``logit_scale`` is one number. Products over many modes vary over many orders of magnitude between
    samples; without this, training is unstable. It departs from the multilinear model in the confidence alone: the order of the classes
    is the one of ``y``, and dividing the channels of every node of the network by their norm would give the same. It is computed of
    logarithms, so that any number of modes is in range.

    For product pooling, the weights start near those for which all intermediate results are 1 (identities, and at the leaves the vector
    whose product with the features of constant inputs from 0 to 1 is nearest to 1), plus noise; for other poolings, normal with a
    variance that keeps the scale of activations: ``1 / rows``, or ``2 / rows`` with ReLU.

    Args:
        size: Size of an image along each axis, or the length of a sequence.
        classes: Number of classes, at least 2.
        channels: Number of channels of the inputs.
        features: Feature map from ``(B, N, C)`` to ``(B, N', D)``; its attribute ``grid``, if it has one, is the grid of the ``N'`` places.
            By default ``AffineFeatures(center=0.5, scale=0.5)``.
        tree: Mode tree over the places; by default ``ModeTree.grid`` with ``window``.
        window: Pooling window of the default tree.
        ranks: Numbers of channels within the network, as for :class:`HTF`.
        shared: Nodes of one height share their weights. Places are then told apart by the tree alone, which wants features of patches.
        pooling: ``"product"``, ``"max"`` or ``"mean"``.
        activation: Applied before pooling: ``None`` or ``"relu"``.
        normalize: Whether logits are normalised as above; by default for product pooling only.
        noise: Relative size of the noise in the initial weights for product pooling.
        generator: Source of randomness.
        dtype: Real floating type of the weights.
        device: Where the weights are made.

    Attributes:
        features: The feature map.
        htf: The factorization.
        logit_scale: The learned scale, or ``None``.

    Raises:
        TypeError: An argument has a wrong type, or ``dtype`` is complex.
        ValueError: An argument is out of its range, ``tree`` does not have one mode a place, or features of inputs from 0 to 1 have
            another shape than said above or are not finite.

    Example:
        >>> HTFClassifier((8, 8), classes=10)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 10])
        >>> HTFClassifier(20, classes=3, channels=4, tree=ModeTree.chain(20))(torch.rand(5, 20, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        size: int | Sequence[int],
        classes: int,
        *,
        channels: int = 1,
        features: nn.Module | None = None,
        tree: ModeTree | None = None,
        window: int | Sequence[int] = 2,
        ranks: int | Mapping[Node, int] = 16,
        shared: bool = False,
        pooling: Pooling = "product",
        activation: Activation = None,
        normalize: bool | None = None,
        noise: float = 0.3,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        dtype = dtype or torch.get_default_dtype()
        self.size, (self.channels, self.classes) = integers("size", size), integers("channels and classes", (channels, classes))
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2; got {classes}")
        check_real("dtype", dtype)
        real("noise", noise)
        self.features = features if features is not None else AffineFeatures(center=0.5, scale=0.5)
        typical = _typical_features(self.features, math.prod(self.size), self.channels, dtype, device)
        grid = getattr(self.features, "grid", self.size)
        if tree is None:
            tree = ModeTree.grid(grid, window)
        if not isinstance(tree, ModeTree):
            raise TypeError(f"tree must be a ModeTree; got {type(tree).__name__}")
        if tree.order != typical.shape[1]:
            raise ValueError(f"tree needs one mode for each of the {typical.shape[1]} places of the features; got {tree.order} modes")
        self.htf = HTF(
            tree,
            typical.shape[2],
            ranks,
            outputs=classes,
            shared=shared,
            pooling=pooling,
            activation=activation,
            dtype=dtype,
            device=device,
        )
        if pooling == "product":
            _near_one(self.htf, typical.flatten(0, 1), noise, generator)
        else:
            gain = 2.0 if activation else 1.0
            _unit_scale(self.htf, generator, leaves=gain / typical.shape[2], gain=gain)
        normalize = pooling == "product" if normalize is None else normalize
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE, dtype=dtype, device=device)) if normalize else None

    def forward(self, inputs: Tensor) -> Tensor:
        """The logits ``(B, classes)``.

        Raises:
            TypeError: The inputs are no tensor, or of another type than the weights.
            ValueError: They have a wrong shape or are on another device.

        Example:
            >>> model = HTFClassifier((4, 4), 3, pooling="max", activation="relu")
            >>> torch.equal(model(torch.ones(2, 4, 4)), model.htf(model.features(torch.ones(2, 16))))
            True
        """
        features = self.features(self._places(inputs))
        features = features.to(next(self.htf.parameters()).dtype)  # automatic mixed precision may have made them shorter
        if self.logit_scale is None:
            return cast(Tensor, self.htf(features))
        if self.htf.combination != PRODUCT:
            return self.logit_scale * functional.normalize(self.htf(features), dim=-1)
        signs, sizes = self.htf(features, log=True)
        norms = torch.logsumexp(2 * sizes, -1, keepdim=True) / 2
        logits: Tensor = self.logit_scale * signs * (sizes - norms.clamp_min(torch.finfo(norms.dtype).min)).exp()
        return logits

    def _places(self, inputs: Tensor) -> Tensor:
        """Inputs by place, ``(B, N, C)``."""
        check_like(inputs, next(self.htf.parameters()))
        given, sequence = tuple(inputs.shape[1:]), len(self.size) == 1
        if self.channels == 1 and given == self.size:
            return inputs.flatten(1).unsqueeze(2)
        wanted = (*self.size, self.channels) if sequence else (self.channels, *self.size)
        if given != wanted:
            plain = f" or (B, {', '.join(map(str, self.size))})" if self.channels == 1 else ""
            raise ValueError(f"inputs need the shape (B, {', '.join(map(str, wanted))}){plain}; got {tuple(inputs.shape)}")
        return inputs if sequence else inputs.flatten(2).mT


# Factorized weights


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
        _unit_scale(self.htf, generator, leaves=1.0, last=math.prod(self.in_sizes) ** -0.5)
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


# Helpers


def _paired(first: int, second: int) -> ModeTree:
    """The balanced tree over the pairs ``(n, first + n)``; the modes without a partner come after them, each on its own."""
    both = min(first, second)
    parts: list[Nested] = [(mode, first + mode) for mode in range(both)]
    parts += [*range(both, first), *range(first + both, first + second)]
    while len(parts) > 1:
        parts = [tuple(parts[place : place + 2]) if place + 1 < len(parts) else parts[place] for place in range(0, len(parts), 2)]
    return ModeTree.from_nested(parts[0])


def _unit_scale(htf: HTF, generator: torch.Generator | None, *, leaves: float, gain: float = 1.0, last: float = 1.0) -> None:
    """Normal weights: of variance ``leaves`` at the leaves, ``gain / rows`` above them, and ``last**2`` times this at the root.

    With 1 for ``leaves`` and ``gain``, every entry of the end tensor has variance ``last**2``, as a sum over the rows of every node of
    products of independent numbers.
    """
    for node, weight in _distinct(htf):
        variance = leaves if node < htf.tree.order else gain / weight.shape[0]
        fill_normal(weight, variance**0.5 * (last if node == len(htf.tree.nodes) - 1 else 1.0), generator)


def _near_one(htf: HTF, features: Tensor, noise: float, generator: torch.Generator | None) -> None:
    """Weights near those with which all products are 1, the root's excepted: see :class:`HTFClassifier`; ``features`` are ``(S, D)``."""
    wide = features.double()
    if not wide.isfinite().all():
        raise ValueError("features must be finite for inputs from 0 to 1; got NaN or infinity")
    start = torch.linalg.pinv(wide, rtol=1e-2).sum(1)  # least squares for "product with the features = 1"
    spread = max(wide.square().sum(1).mean().sqrt().item(), torch.finfo(features.dtype).tiny)
    for node, weight in _distinct(htf):
        rows, columns = weight.shape
        if node < htf.tree.order:
            fill_normal(weight, noise / spread, generator)
            weight.data += start.to(weight.dtype).unsqueeze(1)
        elif node < len(htf.tree.nodes) - 1:
            fill_normal(weight, noise / rows**0.5, generator)
            weight.data += torch.arange(rows, device=weight.device).unsqueeze(1) == torch.arange(columns, device=weight.device) % rows
        else:
            fill_normal(weight, rows**-0.5, generator)


def _distinct(htf: HTF) -> list[tuple[int, Tensor]]:
    """Every weight once, with the id of the first node that has it."""
    found: dict[int, tuple[int, Tensor]] = {}
    for node, weight in enumerate(htf.weight_list()):
        found.setdefault(id(weight), (node, weight))
    return list(found.values())


def _typical_features(features: nn.Module, places: int, channels: int, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    """Features ``(9, N', D)`` of constant inputs from 0 to 1."""
    if not isinstance(features, nn.Module):
        raise TypeError(f"features must be a torch module; got {type(features).__name__}")
    inputs = torch.linspace(0, 1, 9, dtype=dtype, device=device).view(-1, 1, 1).expand(-1, places, channels)
    training = features.training
    try:
        with torch.no_grad():
            found = features.eval()(inputs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"features must take inputs (B, {places}, {channels}) of {dtype}; {str(error).partition(chr(10))[0]}") from error
    finally:
        features.train(training)
    if not isinstance(found, Tensor) or found.ndim != 3:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"features must map (B, {places}, {channels}) to (B, N, D); got {shape}")
    return found
