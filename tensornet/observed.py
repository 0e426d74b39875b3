"""Which rows of which tables an evaluation needs: everything about it that does not depend on the weights.

The *table* of a node has a row of ``R_parent`` numbers for each wanted choice of indices of the node's modes (Equation 3), or for each
sample of the network's inputs (Appendix A). It is a product of rows of the children's tables, multiplied by the node's weight matrix.
This file decides which rows every table has, so that none is computed twice, and folds nodes that compute alike into a
:class:`Group`, whose tables are computed together.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tensornet.shape import Shape

# Work is counted in multiply-adds of a matrix product, forward and backward together.
GATHER = 7  # work of gathering a number as a factor and summing its gradient
CROSS = 4  # work of multiplying a number by broadcasting and summing its gradient
WIDEST_JOIN = 8  # most columns for which all combinations of two tables come of one matrix product of them
WORTH = 0.9  # share of the work below which telling samples apart is worth it


@dataclass(frozen=True)
class Part:
    """One factor of the products of a group: tables of an earlier group, one for every member, which follow each other there.

    Attributes:
        group: Place of the earlier group.
        first: Place in it of the first member's table.
        size: Number of rows of these tables together.
        rows: For every row of the products, its row in these tables, put under each other; ``None`` for all rows in their order.
    """

    group: int
    first: int
    size: int
    rows: Tensor | None = None

    @cached_property
    def bags(self) -> tuple[Tensor, Tensor]:
        """Rows of the products sorted by :attr:`rows`, and where those of each row of the tables begin: how gradients are summed."""
        assert self.rows is not None
        if self.size <= 2**16:
            small = self.rows.numpy(force=True).astype(np.uint16)  # NumPy sorts 16 bits by radix, many times faster
            order = torch.from_numpy(np.argsort(small, kind="stable")).to(self.rows)
        else:
            order = torch.sort(self.rows, stable=True).indices.to(self.rows.dtype)
        counts = torch.bincount(self.rows, minlength=self.size)
        return order, (counts.cumsum(0) - counts).to(self.rows.dtype)

    def to(self, device: torch.device | str) -> Part:
        """The same part on another device."""
        return self if self.rows is None else replace(self, rows=self.rows.to(device))

    def cut(self, members: int, start: int, stop: int) -> Part:
        """The part for some of the rows of every member's products."""
        return self if self.rows is None else replace(self, rows=self.rows.view(members, -1)[:, start:stop].flatten())


@dataclass(frozen=True)
class Group:
    """Nodes whose tables are computed together.

    Attributes:
        count: Number of members.
        nodes: The members as nodes of the tree, whose weight matrices are applied; empty for the partial products into which a
            node with more than two children is split.
        arity: Number of children of these nodes.
        columns: Numbers in a row of the tables.
        parts: One or two factors; none for leaves.
        crossed: The rows are all combinations of the rows of two parts, those of the second part running fastest.
        joined: These combinations come of one matrix product of the two parts.
        picks: For leaves of which fewer rows are wanted than there are: the wanted rows, ``(count, rows)``.
    """

    count: int
    nodes: tuple[int, ...]
    arity: int
    columns: int
    parts: tuple[Part, ...]
    crossed: bool = False
    joined: bool = False
    picks: Tensor | None = None

    def to(self, device: torch.device | str) -> Group:
        """The same group on another device."""
        picks = None if self.picks is None else self.picks.to(device)
        return replace(self, parts=tuple(part.to(device) for part in self.parts), picks=picks)

    def cut(self, start: int, stop: int) -> Group:
        """The group for some of the samples."""
        picks = None if self.picks is None else self.picks[:, start:stop]
        return replace(self, parts=tuple(part.cut(self.count, start, stop) for part in self.parts), picks=picks)


class Stages(NamedTuple):
    """The steps of an evaluation."""

    shared: tuple[Group, ...]  # those for tables that samples share
    chunks: tuple[tuple[Group, ...], ...] = ()  # the others, once for every chunk of samples; none where all tables are shared
    bounds: tuple[tuple[int, int], ...] = ()  # the first sample of every chunk, and the first one after it

    def to(self, device: torch.device | str) -> Stages:
        """The same steps on another device."""
        shared = tuple(group.to(device) for group in self.shared)
        return Stages(shared, tuple(tuple(group.to(device) for group in chunk) for chunk in self.chunks), self.bounds)


@dataclass(frozen=True)
class Observed:
    """Indices of entries, prepared for any number of evaluations; made by :func:`observe`.

    Attributes:
        shape: Tree and sizes of the factorizations to which it applies.
        samples: Number of entries.
        rows: Number of rows that are computed for every node, by node id.
        stages: The steps of the evaluation.
        last: For every sample its row in the root's table, where that table is shared.
        device: Where the preparation lies.
    """

    shape: Shape
    samples: int
    rows: tuple[int, ...]
    stages: Stages = field(repr=False)
    last: Tensor | None = field(repr=False)
    device: torch.device

    def to(self, device: torch.device | str) -> Observed:
        """The same preparation on another device.

        Example:
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> observe(make_shape(ModeTree.star(2), 3, 4), [[0, 1]]).to("cpu").samples
            1
        """
        last = None if self.last is None else self.last.to(device)
        return replace(self, stages=self.stages.to(device), last=last, device=torch.device(device))


class Product(NamedTuple):
    """A leaf, or a product of one or two others with the node's weight applied; nodes with more children take several."""

    node: int  # -1 without weight
    parts: tuple[int, ...]
    arity: int
    width: int  # numbers in a row of the product
    columns: int  # numbers in a row of the table


class Rows(NamedTuple):
    """The rows of one table."""

    count: int
    samples: bool = False  # the rows are the samples
    codes: Tensor | None = None  # the row of every sample, where the rows are not the samples
    picks: tuple[Tensor | None, ...] = (None, None)  # for every part, its row for each row of the product
    crossed: bool = False


def observe(shape: Shape, indices: Any, device: torch.device | str | None = None) -> Observed:
    """Prepares the evaluation of the given entries, so that training loops pay for it once.

    For every node the distinct sub-indices among the samples are found, and the least work decides whether the node's table has all
    its entries, those that occur, or one a sample.

    Args:
        shape: Tree and sizes of the factorization.
        indices: ``(B, N)`` integers, from 0 to below the mode sizes.
        device: Where the evaluations will run; where the indices lie, when absent.

    Raises:
        TypeError: The indices are no integers.
        ValueError: They have a wrong shape or are out of range.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> shape = make_shape(ModeTree.perfect(4), mode_sizes=10, ranks=7)
        >>> observed = observe(shape, [[number % 3, number % 3, number // 10, number % 10] for number in range(100)])
        >>> dict(zip(shape.tree.interior, observed.rows[4:]))
        {(0, 1): 3, (2, 3): 100, (0, 1, 2, 3): 100}
    """
    columns = _checked(shape, indices, device)
    samples = columns.shape[1]
    products = _split(shape, samples)
    fold = _fold(products, lambda product, parts: _wanted(shape, columns, product, parts))
    by_node = {product.node: row.count for product, row in zip(products, fold.rows)}
    rows = tuple(by_node[node] for node in range(len(shape.tree.nodes)))
    stages = _stages(fold, samples, columns.device)
    return Observed(shape, samples, rows, stages, fold.rows[-1].codes, columns.device)


def every_sample(shape: Shape, samples: int, device: torch.device) -> Stages:
    """The steps that evaluate the network of Appendix A, where every table has one row a sample."""
    return _stages(_sample_fold(shape), samples, device)


@lru_cache(maxsize=64)
def _sample_fold(shape: Shape) -> Fold:
    return _fold(_split(shape, 0), lambda product, parts: Rows(0, samples=True))


@lru_cache(maxsize=64)
def every_entry(shape: Shape) -> tuple[Stages, tuple[int, ...]]:
    """The steps that compute all entries, and the modes in the order in which the root's rows run over them, the last fastest."""
    products = _split(shape, math.prod(shape.mode_sizes))
    fold = _fold(
        products,
        lambda product, parts: Rows(math.prod(part.count for part in parts) if parts else product.width, crossed=len(parts) > 1),
    )
    order: list[int] = []
    waiting = [len(products) - 1]
    while waiting:
        place = waiting.pop()
        if fold.parts[place]:
            waiting.extend(reversed(fold.parts[place]))
        else:
            order.append(products[place].node)
    return Stages(fold.groups), tuple(order)


def _split(shape: Shape, samples: int) -> list[Product]:
    """All nodes as products of at most two factors, children before parents; small tables are multiplied with each other first."""
    products: list[Product] = []
    sizes: list[int] = []
    places: list[int] = []

    def add(product: Product, size: int) -> int:
        products.append(product)
        sizes.append(size)
        return len(products) - 1

    for node, below in enumerate(shape.tree.child_ids):
        width, columns = shape.weights[node]
        waiting = [(sizes[places[child]], places[child]) for child in below]
        heapq.heapify(waiting)
        while len(waiting) > 2:
            (size, first), (other, second) = heapq.heappop(waiting), heapq.heappop(waiting)
            size = min(size * other, samples)
            heapq.heappush(waiting, (size, add(Product(-1, (first, second), 0, width, width), size)))
        size = min(math.prod(size for size, _ in waiting) if below else width, samples)
        places.append(add(Product(node, tuple(place for _, place in waiting), len(below), width, columns), size))
    return products


class Fold(NamedTuple):
    """Products folded into groups."""

    rows: list[Rows]  # of every product
    parts: list[tuple[int, ...]]  # of every product, in the order in which the groups take them
    groups: tuple[Group, ...]
    shared: int  # number of groups, the first ones, whose rows are not the samples
    numbers: int  # numbers that each sample takes in the others


def _stages(fold: Fold, samples: int, device: torch.device) -> Stages:
    shared, later = fold.groups[: fold.shared], fold.groups[fold.shared :]
    if not later:
        return Stages(shared)
    kept = most_kept(device, len(later))
    if samples * fold.numbers <= kept:
        return Stages(shared, (later,), ((0, samples),))
    length = kept // 2 // fold.numbers + 1
    bounds = tuple((start, min(start + length, samples)) for start in range(0, samples, length))
    return Stages(shared, tuple(tuple(group.cut(*bound) for group in later) for bound in bounds), bounds)


def most_kept(device: torch.device, steps: int) -> int:
    """Most numbers of samples that are kept for the backward pass; with more, samples are taken in chunks and computed again.

    On a CPU, where fresh memory and numbers that leave the cache cost more than arithmetic, these are few, but enough for each step
    to outweigh its call.
    """
    return max(min(2**27, 2**23 * steps), 2**18 * steps) if device.type == "cpu" else 2**30


def _fold(products: Sequence[Product], choose: Callable[[Product, Sequence[Rows]], Rows]) -> Fold:
    """Groups the products that have equal sizes, kinds of rows and, recursively, parts; larger tables are first parts."""
    rows: list[Rows] = []
    below: list[tuple[int, ...]] = []
    group_of: list[int] = []
    members: list[list[int]] = []
    known: dict[Any, int] = {}
    for place, product in enumerate(products):
        parts = product.parts
        if len(parts) > 1 and _rank(rows[parts[0]], group_of[parts[0]]) > _rank(rows[parts[1]], group_of[parts[1]]):
            parts = parts[::-1]
        row = choose(product, [rows[part] for part in parts])
        key = (product[2:], product.node < 0, row.count, row.samples, row.crossed, *(group_of[part] for part in parts))
        group = known.setdefault(key, len(known))
        if group == len(members):
            members.append([])
        members[group].append(place)
        rows.append(row)
        below.append(parts)
        group_of.append(group)
    shared_first = sorted(range(len(members)), key=lambda group: rows[members[group][0]].samples)
    moved = {group: place for place, group in enumerate(shared_first)}
    groups = _ordered(products, rows, below, [moved[group] for group in group_of], members[-1], len(members))
    alone = [product for product, row in zip(products, rows) if row.samples]
    numbers = sum((len(product.parts) + 1) * product.width + product.columns for product in alone)
    return Fold(rows, below, groups, sum(not rows[run[0]].samples for run in members), numbers)


def _rank(row: Rows, group: int) -> tuple[bool, int, int]:
    return not row.samples, -row.count, group


def _ordered(
    products: Sequence[Product], rows: Sequence[Rows], below: Sequence[tuple[int, ...]], group_of: Sequence[int], top: list[int], count: int
) -> tuple[Group, ...]:
    """The groups, with members in the order in which the groups above take them, so that every part is one run of tables."""
    runs: list[list[int]] = [[] for _ in range(count)]
    runs[-1] = top
    groups: list[Group] = []
    for run in reversed(runs):
        parts = []
        for position in range(len(below[run[0]])):
            factors = [below[place][position] for place in run]
            source, size = group_of[factors[0]], rows[factors[0]].count
            picks = [rows[place].picks[position] for place in run]
            parts.append(Part(source, len(runs[source]), len(run) * size, _under_each_other(picks, size)))
            runs[source] += factors
        product, row = products[run[0]], rows[run[0]]
        nodes = tuple(products[place].node for place in run) if product.node >= 0 else ()
        joined = row.crossed and bool(nodes) and product.columns <= WIDEST_JOIN
        leaf_picks = [] if parts else [pick for place in run if (pick := rows[place].picks[0]) is not None]
        picked = torch.stack(leaf_picks) if leaf_picks else None
        groups.append(Group(len(run), nodes, product.arity, product.columns, tuple(parts), row.crossed, joined, picked))
    return tuple(reversed(groups))


def _under_each_other(picks: Sequence[Tensor | None], count: int) -> Tensor | None:
    """Rows of tables of ``count`` rows, as rows of all these tables put under each other."""
    given = [pick for pick in picks if pick is not None]
    if not given:
        return None
    stacked = torch.stack(given) if len(given) > 1 else given[0][None]
    if len(given) > 1:
        stacked += torch.arange(0, len(given) * count, count, device=stacked.device)[:, None]
    rows = stacked.flatten()
    return rows.to(torch.int32) if max(len(given) * count, len(rows)) < 2**31 else rows


def _wanted(shape: Shape, columns: Tensor, product: Product, parts: Sequence[Rows]) -> Rows:
    """The cheapest set of rows of a product's table that serves the samples with these indices."""
    samples = columns.shape[1]
    if not parts:
        codes = columns[product.node]
        return Rows(product.width, codes=codes) if product.width <= samples else Rows(samples, True, None, (codes,))
    if len(parts) == 1:
        return Rows(parts[0].count, parts[0].samples, parts[0].codes)
    first, second = parts
    one_a_sample = Rows(samples, True, None, (first.codes, second.codes))
    if first.codes is None or second.codes is None:
        return one_a_sample
    weighted, entries = product.node >= 0, first.count * second.count
    matrix = product.columns if weighted else 0
    spread = 0 if weighted and matrix <= WIDEST_JOIN else CROSS
    later = 0 if product.node == len(shape.tree.nodes) - 1 else GATHER * product.columns * samples
    most = samples * product.width * (matrix + 2 * GATHER)
    crossed = entries * product.width * (matrix + spread) + later
    keys = torch.add(second.codes, first.codes, alpha=second.count)
    if crossed <= most and 4 * entries <= samples:
        return Rows(entries, codes=keys, crossed=True)
    distinct = _estimate(keys, entries) * product.width * (matrix + 2 * GATHER) + later
    if distinct < WORTH * min(crossed, most):
        values, codes = torch.unique(keys, return_inverse=True)
        step = 1 << max(0, len(values).bit_length() - 4)  # few different counts, so that nodes fold
        values = torch.nn.functional.pad(values, (0, -len(values) % step))
        return Rows(len(values), False, codes, (values // second.count, values % second.count))
    return Rows(entries, codes=keys, crossed=True) if crossed <= most else one_a_sample


def _estimate(keys: Tensor, most: int) -> float:
    """About how many of the keys, which are below ``most``, are distinct: linear counting in a table of marks."""
    bits = (16 * len(keys)).bit_length()
    if most > 2**bits:
        keys = (keys * -7046029254386353131 >> (64 - bits)) & (2**bits - 1)  # multiplicative hashing, wrapping around
    marks = torch.zeros(min(most, 2**bits), dtype=torch.bool, device=keys.device)
    marks[keys] = True
    found = int(marks.sum())
    return found if most <= 2**bits else -(2.0**bits) * math.log1p(-found / 2**bits)


def _checked(shape: Shape, indices: Any, device: torch.device | str | None) -> Tensor:
    """The indices as int64 with a row for every mode."""
    try:
        given = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"indices must be an array of integers; got {type(indices).__name__} ({error})") from None
    order = shape.tree.order
    if given.ndim != 2 or given.shape[1] != order:
        raise ValueError(f"indices need the shape (B, {order}), a row for every entry; got {tuple(given.shape)}")
    if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool:
        raise TypeError(f"indices must be integers; got {given.dtype}")
    columns = given.to(device=device, dtype=torch.int64).t().contiguous()
    if not columns.numel():
        return columns
    sizes = torch.tensor(shape.mode_sizes, device=columns.device)
    if bool(((~columns).amax(1) >= 0).any() | (columns.amax(1) >= sizes).any()):  # ~index >= 0 for negative ones; amin is slow
        row, mode = ((columns < 0) | (columns >= sizes[:, None])).t().nonzero()[0].tolist()
        raise ValueError(
            f"indices must be from 0 to below the mode's size; got {int(columns[mode, row])} in row {row} "
            f"for mode {mode} of size {shape.mode_sizes[mode]}"
        )
    return columns
