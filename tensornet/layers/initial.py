"""Initial weights of layers: of unit scale, or near those with which all products are one."""

from __future__ import annotations

import torch
from torch import Tensor

from tensornet.arrays import fill_normal
from tensornet.htf import HTF


def unit_scale(htf: HTF, generator: torch.Generator | None, *, leaves: float, gain: float = 1.0, last: float = 1.0) -> None:
    """Normal weights: of variance ``leaves`` at the leaves, ``gain / rows`` above them, and ``last**2`` times this at the root.

    With 1 for ``leaves`` and ``gain``, every entry of the end tensor has variance ``last**2``, as a sum over the rows of every node of
    products of independent numbers.

    Args:
        htf: What is filled.
        generator: Source of randomness.
        leaves: Variance of the weights of leaves.
        gain: Variance of a sum over the rows of a weight above the leaves, in units of that of its terms.
        last: Standard deviation by which the root's weight is multiplied.

    Example:
        >>> from tensornet.tree import ModeTree
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=10, ranks=30)
        >>> unit_scale(htf, torch.Generator().manual_seed(0), leaves=1.0)
        >>> bool(0.8 < htf.contract().std() < 1.25)
        True
    """
    for node, weight in _distinct(htf):
        variance = leaves if node < htf.tree.order else gain / weight.shape[0]
        fill_normal(weight, variance**0.5 * (last if node == len(htf.tree.nodes) - 1 else 1.0), generator)


def near_one(htf: HTF, features: Tensor, noise: float, generator: torch.Generator | None) -> None:
    """Weights near those with which all products are 1, the root's excepted: see :class:`tensornet.HTFClassifier`.

    Args:
        htf: What is filled.
        features: Features ``(S, D)`` with which the leaves are to give 1.
        noise: Standard deviation of what is added to a product.
        generator: Source of randomness.

    Raises:
        ValueError: A feature is NaN or infinite.

    Example:
        >>> from tensornet.tree import ModeTree
        >>> htf = HTF(ModeTree.star(2), mode_sizes=2, ranks=3)
        >>> near_one(htf, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), noise=0.0, generator=None)
        >>> bool(torch.allclose(htf.weights[0,], torch.tensor([[1.0], [0.0]]), atol=1e-6))
        True
    """
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
