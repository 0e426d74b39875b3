"""The floor: what the best known plan costs at the rates that this machine shows for its very shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import cast

import torch
from torch import Tensor

from bench.contestants import Contestant
from bench.paths import Product
from bench.timing import Timing
from bench.workloads import Case, Workload

DOMINANT = 0.9  # share of the plan's operations over which the matrix-product rate is measured


@dataclass(frozen=True)
class Floor:
    """The least time of a workload: ``max(flops / matrix_rate, moved / bandwidth)``, from probes timed beside the contestants.

    Attributes:
        flops: Operations of the best plan, three times those of its forward direction where gradients are wanted.
        covered: Operations of the probe ``products``, the plan's dominating matrix products.
        moved: Bytes that any program reads and writes: weights, indices or inputs, the result, and the gradients.
        probes: ``products`` into warm memory; ``copy`` of as many bytes as are moved, within warm memory; ``fresh`` and ``warm``:
            writing the result into memory that has just been allocated, and into memory that has not.
    """

    flops: int
    covered: int
    moved: int
    probes: tuple[Contestant, ...]

    def timing(self, probed: Sequence[Timing]) -> Timing:
        """The floor in every round, of the probes' timings."""
        products, copies = probed[:2]
        share = self.flops / self.covered if self.covered else 0.0
        return Timing(tuple(max(share * product, copy) for product, copy in zip(products.samples, copies.samples)), products.calls)

    def fresh(self, probed: Sequence[Timing]) -> float:
        """Seconds more that writing the result costs in fresh memory."""
        return max(0.0, probed[2].median - probed[3].median)

    def rates(self, probed: Sequence[Timing]) -> dict[str, float]:
        """Operations and bytes a second that the probes showed."""
        return {"matrix_rate": self.covered / probed[0].median, "bandwidth": self.moved / probed[1].median}


def make_floor(case: Case, known: Sequence[int] = ()) -> Floor:
    """Prepares the floor of a workload.

    Args:
        case: The workload and its tensors.
        known: Operations of the forward direction in plans found by others; the floor takes the smallest number of all.
    """
    workload, like = case.workload, case.weights[0]
    products = best_products(case)
    passes = 3 if workload.backward else 1
    result = math.prod(workload.mode_sizes) if workload.task == "end" else workload.samples
    weights = sum(weight.numel() for weight in case.weights)
    moved = like.element_size() * (weights + result) * (2 if workload.backward else 1)
    for given in (case.indices, case.inputs):
        moved += 0 if given is None else given.numel() * given.element_size()
    chosen = _dominating(products)
    runs = [_multiplications(product, workload.backward, like) for product in chosen]
    source = torch.ones(max(1, moved // 2), dtype=torch.uint8, device=like.device)
    target, warm = torch.zeros_like(source), like.new_zeros(result)
    probes = {
        "products": lambda: [run() for run in runs],
        "copy": lambda: target.copy_(source),
        "fresh": lambda: like.new_empty(result).fill_(1),
        "warm": lambda: warm.fill_(1),
    }
    return Floor(
        min([_flops(products), *known]) * passes,
        _flops(chosen) * passes,
        moved,
        tuple(Contestant(name, cast(Callable[[], Sequence[Tensor]], run), lambda given: given) for name, run in probes.items()),
    )


def best_products(case: Case) -> list[Product]:
    """The products of the cheapest plan along the tree."""
    workload = case.workload
    if workload.task == "end":
        return _cheapest(end_plans(workload))
    if case.indices is None:
        rows = [workload.samples] * len(workload.tree.nodes)
        leaves = [Product(1, workload.samples, *reversed(workload.sizes[mode])) for mode in range(workload.tree.order)]
        return leaves + _upward(workload, rows)
    entries = _upward(workload, [_distinct(case.indices, modes) for modes in workload.tree.nodes])
    return _cheapest([entries, *end_plans(workload)]) if workload.task == "step" else entries


def end_plans(workload: Workload) -> Iterator[list[Product]]:
    """For every interior node and every bipartition of what meets there, the plan that ends in one product of the two parts.

    Below the node, tensors are built from the leaves upward; what lies outside it is built from the root downward. A tensor over
    modes with ``s`` entries and a node's rank ``R`` is an ``s x R`` matrix; those that meet at a node share its rank.
    """
    tree, sizes = workload.tree, workload.sizes
    root = len(tree.nodes) - 1
    below = list(workload.mode_sizes)
    built: list[list[Product]] = [[] for _ in range(tree.order)]
    for node in range(tree.order, root + 1):
        rows = [below[child] for child in tree.child_ids[node]]
        below.append(math.prod(rows))
        joined = [*_kronecker(rows, sizes[node][0]), Product(1, below[node], *reversed(sizes[node]))]
        built.append([*chain.from_iterable(built[child] for child in tree.child_ids[node]), *joined])
    outside: dict[int, list[Product]] = {root: []}
    for node in range(root, tree.order - 1, -1):
        rank = sizes[node][0]
        meeting = {child: (below[child], built[child]) for child in tree.child_ids[node]}
        if node != root:
            meeting[node] = (below[root] // below[node], outside[node])
        before = list(chain.from_iterable(products for _, products in meeting.values()))
        for part in _parts(list(meeting)):
            left = [meeting[place][0] for place in part]
            right = [rows for place, (rows, _) in meeting.items() if place not in part]
            yield [*before, *_kronecker(left, rank), *_kronecker(right, rank), Product(1, math.prod(left), math.prod(right), rank)]
        for child in tree.child_ids[node]:
            if child >= tree.order:
                others = [given for place, given in meeting.items() if place != child]
                rows = [size for size, _ in others]
                steps = [*_kronecker(rows, rank), Product(1, math.prod(rows), sizes[child][0], rank)]
                outside[child] = [*chain.from_iterable(products for _, products in others), *steps]


def _cheapest(plans: Iterator[list[Product]] | Sequence[list[Product]]) -> list[Product]:
    return min(plans, key=_flops)


def _parts(members: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """One side of every bipartition into two non-empty parts; a single member is paired with nothing."""
    first, *others = members
    for size in range(max(1, len(others))):
        for rest in combinations(others, size):
            yield (first, *rest)


def _kronecker(rows: Sequence[int], rank: int) -> list[Product]:
    """The columnwise Kronecker product of matrices with these rows, from left to right."""
    return [Product(rank, math.prod(rows[:place]), rows[place], 1) for place in range(1, len(rows))]


def _upward(workload: Workload, rows: Sequence[int]) -> list[Product]:
    """Evaluation from the leaves to the root with so many samples at every node."""
    products = []
    for node in range(workload.tree.order, len(rows)):
        rank, columns = workload.sizes[node]
        products.append(Product(1, rows[node] * rank * (len(workload.tree.child_ids[node]) - 1), 1, 1))
        products.append(Product(1, rows[node], columns, rank))
    return products


def _distinct(indices: Tensor, modes: Sequence[int]) -> int:
    return len(indices[:, list(modes)].unique(dim=0))


def _flops(products: Sequence[Product]) -> int:
    return sum(product.flops for product in products)


def _dominating(products: Sequence[Product]) -> list[Product]:
    """The largest matrix products of a plan, until they make up most of its operations in matrix products."""
    matrix = sorted((product for product in products if product.inner > 1), key=lambda product: -product.flops)
    total, chosen = _flops(matrix), 0
    while _flops(matrix[:chosen]) < DOMINANT * total:
        chosen += 1
    return matrix[:chosen]


def _multiplications(product: Product, backward: bool, like: Tensor) -> Callable[[], object]:
    left = torch.randn(product.rows, product.inner, dtype=like.dtype, device=like.device)
    right = torch.randn(product.columns, product.inner, dtype=like.dtype, device=like.device)
    out = left.new_zeros(product.rows, product.columns)
    if not backward:
        return lambda: torch.mm(left, right.t(), out=out)
    left_gradient, right_gradient = torch.zeros_like(left), torch.zeros_like(right)

    def run() -> None:
        torch.mm(left, right.t(), out=out)
        torch.mm(out, right, out=left_gradient)
        torch.mm(out.t(), left, out=right_gradient)

    return run
