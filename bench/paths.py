"""The einsum of a mode tree, and what a pairwise path through an einsum costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import opt_einsum

from tensornet import ModeTree


@dataclass(frozen=True)
class Product:
    """A (batched) matrix product ``(batch, rows, inner) x (batch, inner, columns)``; without sum where ``inner`` is 1."""

    batch: int
    rows: int
    columns: int
    inner: int

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return self.batch * self.rows * self.columns * (2 * self.inner if self.inner > 1 else 1)


@dataclass(frozen=True)
class Einsum:
    """An einsum: one label string an operand, the output's labels, and all sizes."""

    terms: tuple[str, ...]
    output: str
    sizes: dict[str, int]

    @property
    def equation(self) -> str:
        """The equation as einsum functions take it."""
        return ",".join(self.terms) + "->" + self.output

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the operands."""
        return [tuple(self.sizes[label] for label in term) for term in self.terms]

    def size(self, labels: str | frozenset[str]) -> int:
        """Number of entries of a tensor with these labels."""
        return math.prod(self.sizes[label] for label in labels)


def tree_einsum(tree: ModeTree, mode_sizes: Sequence[int], ranks: Sequence[int], samples: int = 0, *, gathered: bool = False) -> Einsum:
    """The einsum over all weight matrices whose value is the end tensor, or the entries or outputs of ``samples`` samples.

    A node's rank is one label, shared by the node and all its children; the root's weight is a vector.

    Args:
        tree: Mode tree.
        mode_sizes: ``D_n``.
        ranks: Rank of every interior node.
        samples: Number of samples, 0 for the end tensor.
        gathered: Whether a leaf's operand is its weight's rows at the samples' indices, instead of an input and the weight.
    """
    label = opt_einsum.get_symbol
    count = len(tree.nodes)
    batch = label(count)
    sizes = {label(node): size for node, size in enumerate((*mode_sizes, *ranks))}
    terms = [label(node) + (label(parent) if parent >= 0 else "") for node, parent in enumerate(tree.parent_ids)]
    if not samples:
        return Einsum(tuple(terms), "".join(map(label, range(tree.order))), sizes)
    sizes[batch] = samples
    if gathered:
        terms[: tree.order] = [batch + term[1] for term in terms[: tree.order]]
        sizes = {name: size for name, size in sizes.items() if any(name in term for term in terms)}
    else:
        terms += [batch + label(mode) for mode in range(tree.order)]
    return Einsum(tuple(terms), batch, sizes)


@dataclass(frozen=True)
class PathCost:
    """Costs of a path: its products, the entries of the largest result, and of all results together."""

    products: tuple[Product, ...]
    largest: int
    total: int

    @property
    def flops(self) -> int:
        """Floating point operations of all products."""
        return sum(product.flops for product in self.products)


def path_cost(einsum: Einsum, path: Sequence[Sequence[int]]) -> PathCost:
    """Costs of a path in opt_einsum's format; operands that are contracted together are taken in pairs."""
    terms = [frozenset(term) for term in einsum.terms]
    kept = frozenset(einsum.output)
    products: list[Product] = []
    results: list[int] = [0]
    for step in path:
        chosen = [terms.pop(place) for place in sorted(step, reverse=True)]
        while len(chosen) > 1:
            right, left = chosen.pop(0), chosen.pop(0)
            needed = kept.union(*terms, *chosen)
            shared, result = left & right, (left | right) & needed
            products.append(
                Product(
                    einsum.size(shared & needed),
                    einsum.size((left - right) & needed),
                    einsum.size((right - left) & needed),
                    einsum.size((left | right) - needed),
                )
            )
            results.append(einsum.size(result))
            chosen.insert(0, result)
        terms.append(chosen[0])
    return PathCost(tuple(products), max(results), sum(results))
