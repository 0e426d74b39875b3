"""Seeded random cases, and trees, used by all tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tensornet.formats.ht import HT
from tensornet.tree import ModeTree, Node

Array = np.ndarray[Any, Any]
ORDER_4 = {
    "balanced": ModeTree.balanced(4),
    "chain": ModeTree.chain(4),
    "star": ModeTree.star(4),
    "random": ModeTree.random(4, seed=3),
    "crossed": ModeTree.from_nested(((0, 2), (1, 3))),
}


def random_array(rng: np.random.Generator, size: tuple[int, ...], dtype: Any = np.float64) -> Array:
    """Standard normal numbers, with independent real and imaginary parts where ``dtype`` is complex."""
    values = rng.standard_normal(size)
    if np.issubdtype(np.dtype(dtype), np.complexfloating):
        values = values + 1j * rng.standard_normal(size)
    return values.astype(dtype)


def random_case(
    seed: int,
    max_order: int = 5,
    max_arity: int = 5,
    dtype: Any = np.float64,
    outputs: int = 1,
    *,
    max_mode_size: int = 4,
    max_rank: int = 4,
    unary: float = 0.3,
) -> tuple[ModeTree, dict[Node, Array]]:
    """A random tree (crossed modes, nodes with a single child) with weights of unequal mode sizes and ranks.

    Args:
        seed: The same seed gives the same case.
        max_order: Largest number of modes; the smallest is 1.
        max_arity: Largest number of children of a node.
        dtype: Type of the weights, real or complex.
        outputs: Columns of the root's weight.
        max_mode_size: Largest mode size; the smallest is 1.
        max_rank: Largest rank; the smallest is 1.
        unary: Probability of a single-child node above a node.

    Example:
        >>> tree, weights = random_case(0)
        >>> set(weights) == set(tree.nodes)
        True
    """
    rng = np.random.default_rng(seed)
    order = int(rng.integers(1, max_order + 1))
    tree = ModeTree.random(order, max_arity=max_arity, seed=seed, unary=unary)
    rows = [int(rng.integers(1, (max_mode_size if node < order else max_rank) + 1)) for node in range(len(tree.nodes))]
    columns = [rows[parent] if parent >= 0 else outputs for parent in tree.parent_ids]
    return tree, {node: random_array(rng, (rows[place], columns[place]), dtype) for place, node in enumerate(tree.nodes)}


def random_ht(seed: int, dtype: Any = np.float64, shift: int = 0) -> HT:
    """A random format of a random tree; ``shift`` draws another of the same tree and sizes."""
    rng = np.random.default_rng(seed)
    order = int(rng.integers(1, 6))
    tree = ModeTree.random(order, seed=seed, unary=0.2)
    sizes = rng.integers(1, 5, order)
    rng = np.random.default_rng([seed, shift])
    ranks = [*rng.integers(1, 4, len(tree.nodes) - 1), 1]
    axes = [(sizes[place],) if place < order else tuple(ranks[child] for child in below) for place, below in enumerate(tree.child_ids)]
    return HT(tree, tuple(torch.from_numpy(random_array(rng, (*axis, rank), dtype)) for axis, rank in zip(axes, ranks)))
