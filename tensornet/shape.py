"""The shape of a hierarchical tensor factorization: tree, mode sizes, ranks and number of outputs, checked once.

Everything that is planned, and not computed, depends on a :class:`Shape` alone. It is immutable and hashable, so that plans can be
cached by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tensornet.checks import integer
from tensornet.tree import ModeTree, Node, check_tree

MOST_DEFAULT_WEIGHTS = 10**8  # default ranks that ask for more weights than this are refused


@dataclass(frozen=True)
class Shape:
    """Sizes of all weight matrices of a factorization (Section 3.2).

    Attributes:
        tree: The mode tree.
        mode_sizes: ``D_0 .. D_{N-1}``.
        rank_sizes: ``R`` of every interior node, in the order of ``tree.interior``.
        outputs: Columns of the root's weight matrix (1 in the paper).

    Example:
        >>> shape = make_shape(ModeTree.perfect(4), mode_sizes=3, ranks=5)
        >>> shape.weights  # leaves, then interior nodes
        ((3, 5), (3, 5), (3, 5), (3, 5), (5, 5), (5, 5), (5, 1))
    """

    tree: ModeTree
    mode_sizes: tuple[int, ...]
    rank_sizes: tuple[int, ...]
    outputs: int = 1
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given, wanted = (len(self.mode_sizes), len(self.rank_sizes)), (self.tree.order, len(self.tree.interior))
        smallest = min(*self.mode_sizes, *self.rank_sizes, self.outputs)
        if given != wanted or smallest < 1:
            raise ValueError(
                f"a shape needs (mode sizes, ranks) of the numbers {wanted}, and every size at least 1; got the numbers {given} and a "
                f"smallest size of {smallest}"
            )
        object.__setattr__(self, "_hash", hash((self.tree, self.mode_sizes, self.rank_sizes, self.outputs)))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def weights(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns ``(R_node, R_parent)`` of every node's weight matrix, by node id."""
        rows = self.mode_sizes + self.rank_sizes
        return tuple((rows[node], rows[parent] if parent >= 0 else self.outputs) for node, parent in enumerate(self.tree.parent_ids))

    @cached_property
    def ranks(self) -> dict[Node, int]:
        """``{interior node: R_node}``."""
        return dict(zip(self.tree.interior, self.rank_sizes))

    @property
    def end_sizes(self) -> tuple[int, ...]:
        """Sizes of the end tensor: the mode sizes, and a last axis of ``outputs`` where there are several."""
        return self.mode_sizes + ((self.outputs,) if self.outputs > 1 else ())


def make_shape(
    tree: ModeTree,
    mode_sizes: int | Sequence[int] | None = None,
    ranks: int | Mapping[Node, int] | None = None,
    outputs: int = 1,
) -> Shape:
    """Checks and completes the sizes of a factorization.

    Args:
        tree: The mode tree.
        mode_sizes: One size for all modes, or a sequence or array with one a mode; 2 by default.
        ranks: One rank for all interior nodes, or one a node. By default, ranks that can represent every tensor.
        outputs: Number of outputs, at least 1.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A size is missing or below 1, or the default ranks would be enormous.

    Example:
        >>> make_shape(ModeTree.star(3), ranks={(0, 1, 2): 7}).rank_sizes
        (7,)
    """
    check_tree(tree)
    sizes = _mode_sizes(tree, mode_sizes)
    outputs = integer("outputs", outputs, 1)
    if ranks is None:
        return Shape(tree, sizes, _default_ranks(tree, sizes, outputs), outputs)
    if not isinstance(ranks, Mapping):
        return Shape(tree, sizes, (integer("ranks", ranks, 1),) * len(tree.interior), outputs)
    known = {tree.id(node): rank for node, rank in ranks.items()}
    missing = [node for node in tree.interior if tree.id(node) not in known]
    if missing or len(known) != len(tree.interior):
        named = f"missing {missing[0]}" if missing else f"{tree.nodes[min(known)]} is a leaf"
        raise ValueError(f"ranks needs one entry per interior node; got {len(known)} for {len(tree.interior)} nodes ({named})")
    return Shape(tree, sizes, tuple(integer(f"ranks[{tree.nodes[place]}]", known[place], 1) for place in sorted(known)), outputs)


def shape_of_weights(tree: ModeTree, sizes: Mapping[Node, tuple[int, ...]]) -> Shape:
    """The shape that weight matrices of the given sizes have together.

    Raises:
        TypeError: ``tree`` is no mode tree.
        ValueError: A node is missing or unknown, a weight is no matrix, or neighbours do not fit together.

    Example:
        >>> shape_of_weights(ModeTree.star(2), {(0,): (3, 4), (1,): (2, 4), (0, 1): (4, 1)}).mode_sizes
        (3, 2)
    """
    check_tree(tree)
    given = {tree.id(node): tuple(size) for node, size in sizes.items()}
    missing = [node for place, node in enumerate(tree.nodes) if place not in given]
    if missing:
        raise ValueError(f"weights needs one matrix per node; got {len(given)} for {len(tree.nodes)} nodes (missing {missing[0]})")
    for place, size in given.items():
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"a weight must be a non-empty matrix (R_node, R_parent); got the shape {size} for node {tree.nodes[place]}")
    for place, parent in enumerate(tree.parent_ids):
        if parent >= 0 and given[place][1] != given[parent][0]:
            raise ValueError(
                f"the columns of a node's weight must be the rows of its parent's; got {given[place]} for node {tree.nodes[place]} and "
                f"{given[parent]} for its parent {tree.nodes[parent]}"
            )
    rows = [given[place][0] for place in range(len(tree.nodes))]
    return Shape(tree, tuple(rows[: tree.order]), tuple(rows[tree.order :]), given[len(tree.nodes) - 1][1])


def _mode_sizes(tree: ModeTree, sizes: Any) -> tuple[int, ...]:
    if sizes is None:
        return (2,) * tree.order
    if hasattr(sizes, "tolist"):  # an array or a tensor
        sizes = sizes.tolist()
    if not isinstance(sizes, Sequence):
        return (integer("mode_sizes", sizes, 1),) * tree.order
    if len(sizes) != tree.order:
        raise ValueError(f"mode_sizes needs one size per mode; got {len(sizes)} for {tree.order} modes")
    return tuple(integer(f"mode_sizes[{mode}]", size, 1) for mode, size in enumerate(sizes))


def _default_ranks(tree: ModeTree, sizes: tuple[int, ...], outputs: int) -> tuple[int, ...]:
    """Ranks with which every tensor of these sizes can be represented.

    A node must be able to produce ``R_parent`` arbitrary tensors over its modes. It can with one component for each of these
    tensors and each basis tensor of all its children but the largest, which then supplies an arbitrary factor; and never needs
    more than one component for each of its own basis tensors.
    """
    products = list(sizes)
    for below in tree.child_ids[tree.order :]:
        products.append(math.prod(products[child] for child in below))
    rows = list(products)
    total = 0
    for place in range(len(products) - 1, tree.order - 1, -1):
        parent = tree.parent_ids[place]
        wanted = rows[parent] if parent >= 0 else outputs
        largest = max(products[child] for child in tree.child_ids[place])
        rows[place] = products[place] // largest * min(largest, wanted)
        total += rows[place] * (wanted + sum(sizes[child] for child in tree.child_ids[place] if child < tree.order))
    if total > MOST_DEFAULT_WEIGHTS:
        largest = max(rows[tree.order :])
        raise ValueError(
            f"ranks that can represent every tensor of these sizes need {_about(total)} weights (ranks up to {_about(largest)}); "
            f"give smaller ones with ranks="
        )
    return tuple(rows[tree.order :])


def _about(number: int) -> str:
    return str(number) if number < 10**6 else f"about 1e{math.floor(math.log10(number))}"
