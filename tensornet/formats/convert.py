"""Exact conversions between hierarchical tensor factorizations and the hierarchical Tucker format."""

from __future__ import annotations

import torch

from tensornet.formats.ht import HT
from tensornet.htf import HTF


def to_ht(htf: HTF) -> HT:
    """The end tensor of a factorization as a hierarchical Tucker format, exactly.

    The transfer tensor of a node is its weight on the superdiagonal: ``T[r, ..., r, s] = W[r, s]``, of size ``R`` to the number of
    children, times ``R_parent``.

    Raises:
        ValueError: The factorization has several outputs, or does not combine its children by products.

    Example:
        >>> from tensornet.tree import ModeTree
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=2, init_std=1.0)
        >>> to_ht(htf).ranks
        {(0,): 2, (1,): 2, (2,): 2, (3,): 2, (0, 1): 2, (2, 3): 2}
    """
    if htf.outputs > 1:
        raise ValueError(f"the hierarchical Tucker format has one output; got {htf.outputs}")
    if htf.combination.pooling != "product" or htf.combination.activation is not None:
        raise ValueError(f"the hierarchical Tucker format needs product pooling without activation; got {htf.combination}")
    tensors = []
    for weight, below in zip(htf.weight_list(), htf.tree.child_ids):
        rank, columns = weight.shape
        if below:
            diagonal = torch.arange(rank, device=weight.device)
            tensor = weight.new_zeros((rank,) * len(below) + (columns,))
            weight = tensor.index_put((diagonal,) * len(below), weight)
        tensors.append(weight)
    return HT(htf.tree, tuple(tensors))


def to_htf(ht: HT) -> HTF:
    """A factorization whose end tensor is a hierarchical Tucker format, exactly.

    A node gets a local component for every combination of its children's columns, so that ``R_node`` is the product of the
    children's ranks: a factorization has no mixing of columns but by such components.

    Example:
        >>> from tensornet.tree import ModeTree
        >>> ht = HT(ModeTree.star(2), (torch.eye(2), torch.eye(3), torch.ones(2, 3, 1)))
        >>> to_htf(ht).ranks
        {(0, 1): 6}
    """
    weights = [tensor.reshape(-1, tensor.shape[-1]) for tensor in ht.tensors]
    for below, tensor in zip(ht.tree.child_ids, ht.tensors):
        if below:
            chosen = torch.unravel_index(torch.arange(tensor[..., 0].numel(), device=tensor.device), tensor.shape[:-1])
            for child, columns in zip(below, chosen):
                weights[child] = weights[child][:, columns]
    return HTF.from_weights(ht.tree, dict(zip(ht.tree.nodes, weights)))
