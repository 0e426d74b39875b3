"""Slow references written word by word from the paper, in numpy alone, that share nothing with the library but the mode tree."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from tensornet.tree import ModeTree, Node

Array = np.ndarray[Any, Any]


def end_tensor(tree: ModeTree, weights: Mapping[Node, Array]) -> Array:
    """The end tensor (Equation 3); of a root weight with ``K > 1`` columns, the ``K`` end tensors along a last axis.

    Example:
        >>> tree = ModeTree.from_nested((1, 0))
        >>> weights = {(0,): np.array([[1.0], [2.0]]), (1,): np.array([[3.0], [4.0]]), (0, 1): np.array([[1.0]])}
        >>> end_tensor(tree, weights).tolist()
        [[3.0, 4.0], [6.0, 8.0]]
    """
    tensors: dict[Node, list[Array]] = {}  # by node: the intermediate tensors W^(node, r), one for every column r of its weight
    for node in tree.nodes:
        weight = np.asarray(weights[node])
        below = tree.children(node)
        if not below:
            tensors[node] = [weight[:, column] for column in range(weight.shape[1])]
            continue
        order = np.argsort([mode for child in below for mode in child], kind="stable")  # the mode permutation
        tensors[node] = []
        for column in range(weight.shape[1]):
            terms = (
                weight[row, column] * reduce(np.multiply.outer, [tensors[child][row] for child in below]) for row in range(weight.shape[0])
            )
            tensors[node].append(np.transpose(sum(terms), order))
    result = tensors[tree.root]
    return result[0] if len(result) == 1 else np.stack(result, axis=-1)


def measure(tensor: Array, vectors: list[Array]) -> Any:
    """The inner product of the outer product of ``vectors`` with the first axes of ``tensor`` (Proposition 3), nothing conjugated."""
    return np.tensordot(reduce(np.multiply.outer, vectors), tensor, axes=len(vectors))
