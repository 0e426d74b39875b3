"""Entries that are evaluated many times, prepared: which rows every node's table needs.

A node needs a row for every distinct choice of indices of its modes among the samples. Where these are nearly all possible ones, or
nearly one a sample, it is less work to take them all, or the samples themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tensornet.arrays import as_tensor
from tensornet.checks import line
from tensornet.evaluation.folding import WIDEST_JOIN, Fold, Product, Rows, Stages, chosen, filled, outlined, rows_of, split
from tensornet.shape import Shape

# Work is counted in multiply-adds of a matrix product, forward and backward together.
GATHER = 7  # work of gathering a number as a factor and summing its gradient
CROSS = 4  # work of multiplying a number by broadcasting and summing its gradient

FEW = 16  # tables of which the samples are this many times the entries have all entries, whatever occurs
PAYS = 4096  # samples from which the search for rows that occur several times pays within one evaluation
MOSTLY = 0.85  # share of distinct ones above which the samples themselves are the rows


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
        with torch.inference_mode(False):
            last = None if self.last is None else self.last.to(device)
            place = torch.empty(0, device=device).device  # with an index, where one was left out
            return replace(self, stages=self.stages.to(device), last=last, device=place)


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
        >>> dict(zip(shape.tree.interior[:2], observed.rows[4:]))
        {(0, 1): 3, (2, 3): 100}
    """
    if torch.compiler.is_compiling():  # how many rows there are depends on the indices
        eager: Callable[..., Observed] = torch.compiler.disable(observe)
        return eager(shape, indices, device)
    with torch.inference_mode(False):  # whose tensors could not be used in training
        return _searched(shape, _checked(shape, indices, device))


def _searched(shape: Shape, columns: Tensor) -> Observed:
    samples = columns.shape[1]
    products = split(shape, samples)
    stages, tables = chosen(products, lambda product, parts: _wanted(shape, columns, product, parts), samples, columns.device)
    return Observed(shape, samples, _numbers(products, tables), stages, tables[-1].codes, columns.device)


def once(shape: Shape, indices: Any, device: torch.device | str | None = None) -> Observed:
    """The entries prepared for a single evaluation; the arguments and errors are those of :func:`observe`.

    With few samples, the search for rows that occur several times costs more than it saves. What is left to decide does not depend on
    the indices, so that it is decided once for a number of samples.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> once(make_shape(ModeTree.star(2), 100, 4), [[0, 1], [0, 1]]).rows  # two rows, although one would do
        (2, 2, 2)
    """
    if torch.compiler.is_compiling():
        return observe(shape, indices, device)
    with torch.inference_mode(False):
        columns = _checked(shape, indices, device)
        samples = columns.shape[1]
        if samples >= PAYS:
            return _searched(shape, columns)
        outline, numbers = _outline(shape, samples, columns.device.type == "cpu")
        codes = outline.rows[-1].codes
        last = None if codes is None else rows_of(codes.to(columns.device), columns)
        return Observed(shape, samples, numbers, filled(outline, columns), last, columns.device)


@lru_cache(maxsize=64)
def _outline(shape: Shape, samples: int, cpu: bool) -> tuple[Fold, tuple[int, ...]]:
    """The steps where every choice of indices is taken to occur once; and the numbers of rows of the nodes' tables."""

    def choose(product: Product, parts: Sequence[Rows]) -> Rows:
        if len(parts) < 2:
            return _single(product, parts, samples, torch.tensor([product.node, 1]))
        first, second = parts
        one_a_sample = Rows(samples, True, None, (first.codes, second.codes))
        if first.codes is None or second.codes is None:
            return one_a_sample
        entries = first.number * second.number
        if not _all_pay(shape, product, entries, samples):
            return one_a_sample
        above = first.codes.clone()
        above[1::2] *= second.number
        return Rows(entries, codes=torch.cat([second.codes, above]), crossed=True)

    products = split(shape, samples)
    outline = outlined(products, choose, samples, cpu=cpu)
    return outline, _numbers(products, outline.rows)


def _numbers(products: Sequence[Product], tables: Sequence[Rows]) -> tuple[int, ...]:
    """Numbers of rows of the nodes' tables, by node id."""
    found = {product.node: rows.number for product, rows in zip(products, tables)}
    return tuple(found[node] for node in sorted(found) if node >= 0)


def _wanted(shape: Shape, columns: Tensor, product: Product, parts: Sequence[Rows]) -> Rows:
    """The cheapest set of rows of a product's table that serves the samples with these indices."""
    samples = columns.shape[1]
    if len(parts) < 2:
        return _single(product, parts, samples, None if parts else columns[product.node])
    first, second = parts
    one_a_sample = Rows(samples, True, None, (first.codes, second.codes))
    if first.codes is None or second.codes is None:
        return one_a_sample
    keys, entries = torch.add(second.codes, first.codes, alpha=second.number), first.number * second.number
    all_of_them = Rows(entries, codes=keys, crossed=True)
    if FEW * entries <= samples:
        return all_of_them
    distinct = _estimate(keys, entries)
    if distinct >= MOSTLY * samples:  # so are those of all nodes above
        return all_of_them if _all_pay(shape, product, entries, samples) else one_a_sample
    if _crossed_work(product, entries) <= distinct * _work(product):
        return all_of_them
    values, codes = torch.unique(keys, return_inverse=True)
    step = 1 << max(0, len(values).bit_length() - 4)  # few different numbers, so that nodes fold
    values = torch.nn.functional.pad(values, (0, -len(values) % step))
    return Rows(len(values), False, codes, (values // second.number, values % second.number))


def _single(product: Product, parts: Sequence[Rows], samples: int, codes: Tensor | None) -> Rows:
    """The rows of a leaf, whose indices are the codes, or of a node with a single child."""
    if parts:
        return Rows(parts[0].number, parts[0].samples, parts[0].codes)
    return Rows(product.width, codes=codes) if product.width <= samples else Rows(samples, True, None, (codes,))


def _work(product: Product) -> int:
    """Work of one row of a product of two gathered factors."""
    return product.width * (_matrix(product) + 2 * GATHER)


def _crossed_work(product: Product, entries: int) -> int:
    """Work of all combinations of the rows of two factors."""
    matrix = _matrix(product)
    return entries * product.width * (matrix if 0 < matrix <= WIDEST_JOIN else matrix + CROSS)


def _matrix(product: Product) -> int:
    return product.columns if product.node >= 0 else 0


def _all_pay(shape: Shape, product: Product, entries: int, samples: int) -> bool:
    """Whether a table of all entries is less work than one row a sample, where nearly all samples differ."""
    gathered_again = 0 if product.node == len(shape.tree.nodes) - 1 else GATHER * product.columns * samples
    return FEW * entries <= samples or _crossed_work(product, entries) + gathered_again <= samples * _work(product)


def _estimate(keys: Tensor, most: int) -> float:
    """About how many of the keys, which are below ``most``, are distinct: linear counting in a table of marks."""
    bits = (4 * len(keys)).bit_length()
    if most > 2**bits:
        keys = (keys * -7046029254386353131 >> (64 - bits)) & (2**bits - 1)  # multiplicative hashing, wrapping around
    marks = torch.zeros(min(most, 2**bits), dtype=torch.bool, device=keys.device)
    marks[keys] = True
    found = int(torch.count_nonzero(marks))
    return found if most <= 2**bits else -(2.0**bits) * math.log1p(-found / 2**bits)


def _checked(shape: Shape, indices: Any, device: torch.device | str | None) -> Tensor:
    """The indices as int64 with a row for every mode."""
    try:
        rows = np.asarray(indices) if isinstance(indices, list | tuple) else indices
    except ValueError as error:
        raise TypeError(f"indices must be an array of numbers; got {type(indices).__name__} ({line(error)})") from None
    given = as_tensor("indices", rows)
    order = shape.tree.order
    if given.ndim != 2 or given.shape[1] != order:
        raise ValueError(f"indices need the shape (B, {order}), a row for every entry; got {tuple(given.shape)}")
    if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool:
        raise TypeError(f"indices must be integers; got {given.dtype}")
    # a copy: never the caller's memory, or a tensor of inference mode
    columns = given.to(device=device, dtype=torch.int64).t().clone(memory_format=torch.contiguous_format)
    if not columns.numel():
        return columns
    sizes = torch.tensor(shape.mode_sizes, device=columns.device)
    least, most = torch.aminmax(columns, dim=1)
    if bool(((least < 0) | (most >= sizes)).any()):
        row, mode = ((columns < 0) | (columns >= sizes[:, None])).t().nonzero()[0].tolist()
        found = int(columns[mode, row]) % 2**64 if given.dtype == torch.uint64 else int(columns[mode, row])
        raise ValueError(
            f"indices must be from 0 to below the mode's size; got {found} in row {row} for mode {mode} of size {shape.mode_sizes[mode]}"
        )
    return columns
