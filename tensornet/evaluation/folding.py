"""The steps of an evaluation, which depend on the tree and the sizes but not on the weights.

The *table* of a node has a row of ``R_parent`` numbers for each wanted choice of indices of the node's modes (Equation 3), or for each
sample of the network's inputs (Appendix A). It is a product of rows of the children's tables, multiplied by the node's weight matrix.
This file folds nodes that compute alike into a :class:`Group`, whose tables are computed together, and puts the groups in order.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tensornet.shape import Shape

# On a CPU, a table with a row a sample is computed by itself where its samples take this many numbers: calls no longer cost much then,
# and few tables at a time stay in the cache.
APART = 2**17
AT_ONCE = 3 * 2**16  # numbers that a chunk of samples takes in each of these tables, for every thread
WIDEST_JOIN = 8  # most columns for which all combinations of two tables come of one matrix product of them


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

    def _to(self, device: torch.device | str) -> Part:
        return self if self.rows is None else replace(self, rows=self.rows.to(device))

    def _filled(self, members: int, columns: Tensor) -> Part:
        if self.rows is None:
            return self
        first = torch.arange(0, self.size, self.size // members, device=columns.device).unsqueeze(1)
        rows = rows_of(self.rows.view(members, -1).to(columns.device) - first, columns) + first
        return replace(self, rows=rows.flatten().to(_index_type(self.size, rows.numel())))

    def _cut(self, members: int, start: int, stop: int) -> Part:
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

    def _to(self, device: torch.device | str) -> Group:
        picks = None if self.picks is None else self.picks.to(device)
        return replace(self, parts=tuple(part._to(device) for part in self.parts), picks=picks)

    def _filled(self, columns: Tensor) -> Group:
        picks = None if self.picks is None else rows_of(self.picks.to(columns.device), columns)
        return replace(self, parts=tuple(part._filled(self.count, columns) for part in self.parts), picks=picks)

    def _cut(self, start: int, stop: int) -> Group:
        picks = None if self.picks is None else self.picks[:, start:stop]
        return replace(self, parts=tuple(part._cut(self.count, start, stop) for part in self.parts), picks=picks)


class Stages(NamedTuple):
    """The steps of an evaluation, in order: the groups of shared tables, then those of each chunk of samples."""

    shared: tuple[Group, ...]
    chunks: tuple[tuple[Group, ...], ...] = ()  # none where all tables are shared; their parts count on from ``shared``
    bounds: tuple[tuple[int, int], ...] = ()  # the first sample of every chunk, and the first one after it
    kept: bool = True  # for a backward pass the numbers of samples are kept, and not computed again

    def to(self, device: torch.device | str) -> Stages:
        """The same steps on another device.

        Example:
            >>> Stages(()).to("cpu").chunks
            ()
        """
        shared = tuple(group._to(device) for group in self.shared)
        return self._replace(shared=shared, chunks=tuple(tuple(group._to(device) for group in chunk) for chunk in self.chunks))


class Product(NamedTuple):
    """A leaf, or a product of one or two others with the node's weight applied; nodes with more children take several."""

    node: int  # -1 without weight
    parts: tuple[int, ...]
    arity: int
    width: int  # numbers in a row of the product
    columns: int  # numbers in a row of the table


class Rows(NamedTuple):
    """The rows of one table."""

    number: int
    samples: bool = False  # the rows are the samples
    codes: Tensor | None = None  # the row of every sample, where the rows are not the samples
    picks: tuple[Tensor | None, ...] = (None, None)  # for every part, its row for each row of the product
    crossed: bool = False


class Fold(NamedTuple):
    """Products folded into groups."""

    rows: list[Rows]  # of every product
    parts: list[tuple[int, ...]]  # of every product, in the order in which the groups take them
    groups: tuple[Group, ...]
    shared: int  # number of groups, the first ones, whose rows are not the samples
    numbers: int  # numbers that each sample takes in the others


def every_sample(shape: Shape, samples: int, device: torch.device) -> Stages:
    """The steps that evaluate the network of Appendix A, where every table has one row a sample.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> stages = every_sample(make_shape(ModeTree.perfect(8)), 100, torch.device("cpu"))
        >>> [group.count for group in stages.chunks[0]]
        [8, 4, 2, 1]
    """
    folded = _sample_fold(shape, False)
    if device.type == "cpu" and not torch.compiler.is_compiling() and samples * folded.numbers >= APART * len(folded.rows):
        folded = _sample_fold(shape, True)
    return _staged(folded, samples, device)


def _sample_fold(shape: Shape, apart: bool) -> Fold:
    return _known_sample_fold(shape, apart)


# What torch.compiler.assume_constant_result does, without its import of the compiler: torch.compile is not to trace the search.
_sample_fold._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def _known_sample_fold(shape: Shape, apart: bool) -> Fold:
    return _fold(split(shape, 0), lambda *_: Rows(0, samples=True), 0 if apart else math.inf)


def every_entry(shape: Shape) -> tuple[Stages, tuple[int, ...]]:
    """The steps that compute all entries, and the modes in the order in which the root's rows run over them, the last fastest.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> every_entry(make_shape(ModeTree.from_nested(((2, 0), 1))))[1]
        (0, 2, 1)
    """
    folded = _known_entry_fold(shape)
    order: list[int] = []
    waiting = [len(folded.parts) - 1]
    while waiting:
        place = waiting.pop()
        if folded.parts[place]:
            waiting.extend(reversed(folded.parts[place]))
        else:
            order.append(place)
    return Stages(folded.groups), tuple(order)


@lru_cache(maxsize=64)
def _known_entry_fold(shape: Shape) -> Fold:
    def cross(product: Product, parts: Sequence[Rows]) -> Rows:
        return Rows(math.prod(part.number for part in parts) if parts else product.width, crossed=len(parts) > 1)

    return _fold(split(shape, math.prod(shape.mode_sizes)), cross, math.inf)


def outlined(products: Sequence[Product], choose: Callable[[Product, Sequence[Rows]], Rows], samples: int, *, cpu: bool) -> Fold:
    """The products in groups, for rows that ``choose`` finds without indices; :func:`filled` completes them.

    In place of the rows of the samples, codes are modes and strides ``(mode, stride, mode, stride, ...)``.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> def crossed(product, parts):
        ...     return Rows(9, crossed=True) if parts else Rows(3, codes=torch.tensor([product.node, 1]))
        >>> len(outlined(split(make_shape(ModeTree.star(2), 3, 4), 5), crossed, 5, cpu=True).groups)
        2
    """
    return _fold(products, choose, APART / max(samples, 1) if cpu else math.inf)


def filled(outline: Fold, columns: Tensor) -> Stages:
    """The steps of an outline for indices ``(N, B)``.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> def gathered(product, parts):
        ...     codes = torch.tensor([product.node, 1])
        ...     return Rows(4, True, None, (parts[0].codes, parts[1].codes)) if parts else Rows(3, codes=codes)
        >>> outline = outlined(split(make_shape(ModeTree.star(2), 3, 4), 4), gathered, 4, cpu=True)
        >>> [part.rows.tolist() for part in filled(outline, torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]])).chunks[0][0].parts]
        [[0, 1, 2, 2], [1, 1, 0, 2]]
    """
    groups = tuple(group._filled(columns) for group in outline.groups)
    return _staged(outline._replace(groups=groups), columns.shape[1], columns.device)


def rows_of(codes: Tensor, columns: Tensor) -> Tensor:
    """Rows of the samples in a table of all entries: sums of indices times strides.

    Args:
        codes: Modes and strides ``(..., 2 * k)``, alternating.
        columns: Indices ``(N, B)``.

    Returns:
        ``(..., B)``.

    Example:
        >>> rows_of(torch.tensor([1, 3, 0, 1]), torch.tensor([[0, 1, 2], [1, 1, 0]]))
        tensor([3, 4, 2])
    """
    return (columns[codes[..., 0::2]] * codes[..., 1::2].unsqueeze(-1)).sum(-2)


def chosen(
    products: Sequence[Product], choose: Callable[[Product, Sequence[Rows]], Rows], samples: int, device: torch.device
) -> tuple[Stages, list[Rows]]:
    """The steps in which every product has the rows that ``choose`` finds from those of its parts, and these rows.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> products = split(make_shape(ModeTree.star(2)), 5)
        >>> chosen(products, lambda product, parts: Rows(5, samples=True), 5, torch.device("cpu"))[0].bounds
        ((0, 5),)
    """
    folded = _fold(products, choose, APART / max(samples, 1) if device.type == "cpu" else math.inf)
    return _staged(folded, samples, device), folded.rows


def split(shape: Shape, samples: int) -> list[Product]:
    """All nodes as products of at most two factors, children before parents; small tables are multiplied with each other first.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> [product.parts for product in split(make_shape(ModeTree.star(4)), 100)[4:]]
        [(0, 1), (2, 3), (4, 5)]
    """
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


def _fold(products: Sequence[Product], choose: Callable[[Product, Sequence[Rows]], Rows], apart: float) -> Fold:
    """Groups the products that have equal sizes, kinds of rows and, recursively, parts; larger tables are first parts.

    Products with a row a sample stay apart where a row takes ``apart`` numbers or more.
    """
    rows = [Rows(0)] * len(products)
    below: list[tuple[int, ...]] = [()] * len(products)
    group_of = [0] * len(products)
    members: list[list[int]] = []
    known: dict[Any, int] = {}
    numbers = 0
    for place in range(len(products)) if apart == math.inf else _depth_first(products):
        product = products[place]
        parts = product.parts
        if len(parts) > 1 and _rank(rows[parts[0]], group_of[parts[0]]) > _rank(rows[parts[1]], group_of[parts[1]]):
            parts = parts[::-1]
        row = choose(product, [rows[part] for part in parts])
        size = (len(parts) + 1) * product.width + product.columns if row.samples else 0
        numbers += size
        own = place if row.samples and size >= apart else -1
        key = (product[2:], product.node < 0, row.number, row.samples, row.crossed, own, *(group_of[part] for part in parts))
        group = known.setdefault(key, len(known))
        if group == len(members):
            members.append([])
        members[group].append(place)
        rows[place], below[place], group_of[place] = row, parts, group
    shared_first = sorted(range(len(members)), key=lambda group: rows[members[group][0]].samples)
    moved = {group: place for place, group in enumerate(shared_first)}
    groups = _ordered(products, rows, below, [moved[group] for group in group_of], len(members))
    return Fold(rows, below, groups, sum(not rows[run[0]].samples for run in members), numbers)


def _depth_first(products: Sequence[Product]) -> list[int]:
    """Parts before products, and the part with more below it first: few tables are needed at a time."""
    sizes: list[int] = []
    for product in products:
        sizes.append(1 + sum(sizes[part] for part in product.parts))
    order, waiting = [], [len(products) - 1]
    while waiting:
        place = waiting.pop()
        order.append(place)
        waiting.extend(sorted(products[place].parts, key=sizes.__getitem__, reverse=True))
    return order[::-1]


def _rank(row: Rows, group: int) -> tuple[bool, int, int]:
    return not row.samples, -row.number, group


def _ordered(
    products: Sequence[Product], rows: Sequence[Rows], below: Sequence[tuple[int, ...]], group_of: Sequence[int], count: int
) -> tuple[Group, ...]:
    """The groups, with members in the order in which the groups above take them, so that every part is one run of tables."""
    runs: list[list[int]] = [[] for _ in range(count)]
    runs[-1].append(len(products) - 1)
    groups: list[Group] = []
    for run in reversed(runs):
        parts = []
        for position in range(len(below[run[0]])):
            factors = [below[place][position] for place in run]
            source, size = group_of[factors[0]], rows[factors[0]].number
            picks = [pick for place in run if (pick := rows[place].picks[position]) is not None]
            parts.append(Part(source, len(runs[source]), len(run) * size, _under_each_other(picks, size)))
            runs[source] += factors
        product, row = products[run[0]], rows[run[0]]
        nodes = tuple(products[place].node for place in run) if product.node >= 0 else ()
        joined = row.crossed and bool(nodes) and product.columns <= WIDEST_JOIN
        picks = [] if parts else [pick for place in run if (pick := rows[place].picks[0]) is not None]
        picked = torch.stack(picks) if picks else None
        groups.append(Group(len(run), nodes, product.arity, product.columns, tuple(parts), row.crossed, joined, picked))
    return tuple(reversed(groups))


def _under_each_other(picks: Sequence[Tensor], count: int) -> Tensor | None:
    """Rows of tables of ``count`` rows, as rows of all these tables put under each other."""
    if not picks:
        return None
    rows = torch.stack(list(picks))
    if len(picks) > 1:
        rows += torch.arange(0, len(picks) * count, count, device=rows.device)[:, None]
    return rows.flatten().to(_index_type(len(picks) * count, rows.numel()))


def _index_type(*numbers: int) -> torch.dtype:
    return torch.int32 if max(numbers) < 2**31 else torch.int64


def _staged(folded: Fold, samples: int, device: torch.device) -> Stages:
    shared, rest = folded.groups[: folded.shared], folded.groups[folded.shared :]
    if not rest:
        return Stages(shared)
    most = _most_kept(device, len(rest))
    kept = samples * folded.numbers <= most
    length = samples if kept else most // 2 // folded.numbers + 1
    cut = any(group.picks is not None or any(part.rows is not None for part in group.parts) for group in rest)
    if device.type == "cpu" and not cut:
        threads = 1 if torch.compiler.is_compiling() else torch.get_num_threads()  # which torch.compile cannot trace
        length = min(length, threads * AT_ONCE * len(folded.rows) // folded.numbers + 1)
    count = max(1, -(-samples // max(length, 1)))
    bounds = tuple((samples * place // count, samples * (place + 1) // count) for place in range(count))
    if len(bounds) == 1 or not cut:
        return Stages(shared, (rest,) * len(bounds), bounds, kept)
    return Stages(shared, tuple(tuple(group._cut(*bound) for group in rest) for bound in bounds), bounds, kept)


def _most_kept(device: torch.device, steps: int) -> int:
    """Most numbers of samples that are kept for the backward pass; with more, samples are taken in chunks and computed again.

    On a CPU, where fresh memory costs more than arithmetic, these are few, but enough for each step to outweigh its call.
    """
    return max(min(2**27, 2**23 * steps), 2**18 * steps) if device.type == "cpu" else 2**30
