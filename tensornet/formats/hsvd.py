"""The hierarchical singular value decomposition: a tensor as a hierarchical Tucker format, with a bound on the error."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tensornet.arrays import as_tensor, check_finite
from tensornet.formats.ht import HT, at_least_float32
from tensornet.tree import ModeTree, check_tree


def hsvd(tensor: Any, tree: ModeTree, *, rtol: float | None = None, atol: float | None = None, max_rank: int | None = None) -> HT:
    """A tensor in the hierarchical Tucker format, within a tolerance in the Frobenius norm.

    The tensor is first split exactly, from the leaves to the root, and then truncated; see :meth:`HT.truncate`.

    Args:
        tensor: Tensor or array with one axis per mode. Integers are taken as floats, types of 16 bits as float32.
        tree: The mode tree.
        rtol: Tolerance beside the norm of the tensor.
        atol: Tolerance; with ``rtol``, the larger of both counts. Without either, what rounding may have made is cut off.
        max_rank: Largest rank of any node.

    Returns:
        The format, whose ``error_bound`` bounds its distance to the tensor, rounding aside.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: The order of ``tensor`` is not that of ``tree``, or an entry is not finite.

    Example:
        >>> ht = hsvd(torch.eye(4, dtype=torch.float64).reshape(2, 2, 2, 2), ModeTree.perfect(4))
        >>> ht.ranks
        {(0,): 2, (1,): 2, (2,): 2, (3,): 2, (0, 1): 4, (2, 3): 4}
    """
    check_tree(tree)
    given = as_tensor("tensor", tensor)
    if not (given.is_floating_point() or given.is_complex()):
        given = given.to(torch.get_default_dtype())
    given = at_least_float32(given)
    check_finite("tensor", given)
    if given.dim() != tree.order:
        raise ValueError(f"tensor needs one axis per mode of the tree; got {given.dim()} axes for {tree.order} modes")
    if not given.numel():
        raise ValueError(f"tensor needs at least one entry; got the shape {tuple(given.shape)}")
    return _exact(given, tree).truncate(rtol=rtol, atol=atol, max_rank=max_rank)


def _exact(core: Tensor, tree: ModeTree) -> HT:
    """The format with orthonormal frames that is this tensor: every node takes its part of the core by a QR decomposition."""
    tensors: list[Tensor] = []
    axes = list(range(tree.order))  # the node that each axis of the core belongs to
    for place, below in enumerate(tree.child_ids):
        chosen = list(below) or [place]
        core = core.movedim([axes.index(node) for node in chosen], list(range(len(chosen))))
        axes = chosen + [node for node in axes if node not in chosen]
        sizes, rest = core.shape[: len(chosen)], core.shape[len(chosen) :]
        if place == len(tree.nodes) - 1:
            return HT(tree, (*tensors, core.reshape(*sizes, 1)))
        basis, factor = torch.linalg.qr(core.reshape(math.prod(sizes), -1))
        tensors.append(basis.reshape(*sizes, -1))
        core, axes = factor.reshape(-1, *rest), [place, *axes[len(chosen) :]]
    raise AssertionError("the last node is the root")
