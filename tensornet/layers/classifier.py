"""A classifier of images or sequences whose weights are a factorization.

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

from tensornet.arrays import check_like, check_real
from tensornet.checks import integers, real
from tensornet.evaluation.circuit import PRODUCT, Activation, Pooling
from tensornet.htf import HTF
from tensornet.layers.features import AffineFeatures
from tensornet.layers.initial import near_one, unit_scale
from tensornet.tree import ModeTree, Node

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
            near_one(self.htf, typical.flatten(0, 1), noise, generator)
        else:
            gain = 2.0 if activation else 1.0
            unit_scale(self.htf, generator, leaves=gain / typical.shape[2], gain=gain)
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
