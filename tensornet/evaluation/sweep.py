"""The sweep from leaves to root: products of rows, matrix products with the weights, and powers of two that keep numbers in range.

A sweep follows the groups of :mod:`tensornet.evaluation.folding`, in differentiable operations throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tensornet.evaluation.folding import Group

LARGE = 2**14  # on a CPU, weights with more numbers than this are multiplied one by one instead of being copied into a batch


@dataclass(frozen=True)
class Rules:
    """How a node combines its children.

    Attributes:
        pooling: ``"product"``, ``"max"`` or ``"mean"``.
        activation: ``"relu"`` or ``None``.
        budget: Most weights multiplied into a product before rows are scaled by powers of two; 0 scales the rows of all factors.
    """

    pooling: str
    activation: str | None
    budget: int


class Table(NamedTuple):
    """The tables of a group, ``values * 2**exponents``."""

    values: Tensor  # (members, rows, columns)
    exponents: Tensor | None  # (members, rows); None for 0
    factors: int  # most weights multiplied into a value since rows were last scaled


class Step(NamedTuple):
    """What the backward pass needs of a group; factors and product only where they are kept, see :func:`restored`."""

    matrix: Tensor | list[Tensor] | None  # weights, stacked or one by one
    scales: tuple[Tensor | None, ...]
    factors: tuple[Tensor, ...] = ()
    product: Tensor | None = None  # what the weights are multiplied with


def sweep(
    groups: Sequence[Group],
    start: int,
    tables: dict[int, Table],
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor],
    rules: Rules,
    steps: list[Step] | None = None,
    *,
    matrices: Sequence[Tensor | list[Tensor] | None] = (),
    plain: bool = False,
) -> None:
    """Computes the tables of the groups from ``start`` on, and drops those that no later group takes.

    For a backward pass of inputs, a CPU keeps the tables of all groups but leaves: the rest is computed again faster than memory is
    filled.

    Args:
        groups: All groups.
        start: Place of the first one to compute.
        tables: The tables by place; the new ones are added.
        weights: The weight of every node.
        inputs: For every leaf its inputs ``(B, D_n)``; without them, a leaf's table is its weight.
        rules: How parts are combined.
        steps: Where the needs of a backward pass are appended.
        matrices: What :func:`collected` made of the weights from ``start`` on, where it is used again.
        plain: No operation is recorded by automatic differentiation, which allows faster ones.

    Example:
        >>> from tensornet import HTF, ModeTree
        >>> from tensornet.evaluation import circuit
        >>> htf = HTF(ModeTree.star(2), 3, 4)
        >>> circuit.grid(htf.shape, htf.weight_list(), combination=circuit.Combination()).shape  # sweeps over all entries
        torch.Size([3, 3])
    """
    matrices = matrices or collected(groups[start:], weights)
    lean = steps is not None and len(inputs) > 0 and weights[0].device.type == "cpu"
    taken: dict[int, int] = {}
    for place in range(start, len(groups)):
        group, matrix = groups[place], matrices[place - start]
        exponents, count = None, 0
        factors: tuple[Tensor, ...] = ()
        scales: tuple[Tensor | None, ...] = ()
        if group.parts:
            factors, scales, exponents, count = _factors(group, tables, rules)
            product: Tensor | None
            if group.joined and rules.pooling == "product":
                product = _joining(factors[1], matrix)
                values = torch.bmm(factors[0], product.mT).view(group.count, -1, group.columns)
            else:
                own = plain and (steps is None or (lean and (scales[0] is not None or not groups[group.parts[0].group].parts)))
                product = _combined(group, factors, rules.pooling, own=own)
                values = multiply(product, matrix, plain)
        else:
            product = _inputs(group, inputs)
            values = _leaves(group, matrix, product, plain)
        if rules.activation and group.nodes and group.nodes[0] < len(weights) - 1:
            values = values.relu()
        for part in group.parts:
            taken[part.group] = taken.get(part.group, 0) + group.count
            if taken[part.group] == groups[part.group].count and not (lean and (part.group < start or groups[part.group].parts)):
                del tables[part.group]
        given = len(group.parts) == 0 and len(inputs) > 0  # a leaf's inputs are a factor too
        tables[place] = Table(values, exponents, count + bool(group.nodes) + given)
        if steps is not None:
            steps.append(Step(matrix, scales) if lean and group.parts else Step(matrix, scales, factors, product))


def restored(groups: Sequence[Group], start: int, steps: Sequence[Step], tables: dict[int, Table]) -> Step:
    """The last of the steps, with its factors and product, which are computed again where only tables were kept.

    Args:
        groups: All groups.
        start: Place of the group of the first step.
        steps: What :func:`sweep` appended, without those of groups behind.
        tables: The tables that were kept; those of leaves are added.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> from tensornet.evaluation.folding import every_sample
        >>> shape = make_shape(ModeTree.star(3), 2, 4)
        >>> groups, tables, steps = every_sample(shape, 5, torch.device("cpu")).chunks[0], {}, []
        >>> inputs = [torch.ones(5, 2)] * 3
        >>> sweep(groups, 0, tables, [torch.ones(size) for size in shape.weights], inputs, Rules("product", None, 15), steps, plain=True)
        >>> restored(groups, 0, steps, tables).product.shape
        torch.Size([1, 5, 4])
    """
    step, group = steps[-1], groups[start + len(steps) - 1]
    if step.factors or not group.parts:
        return step
    factors = []
    for part, scale in zip(group.parts, step.scales):
        if part.group not in tables:
            leaf = steps[part.group - start]
            tables[part.group] = Table(_leaves(groups[part.group], leaf.matrix, leaf.product, True), None, 1)
        values = _run(tables[part.group], part.first, group.count).values
        factors.append(values if scale is None else values * scale)
    return Step(step.matrix, step.scales, tuple(factors), _combined(group, factors, "product", own=False))


def collected(groups: Sequence[Group], weights: Sequence[Tensor]) -> list[Tensor | list[Tensor] | None]:
    """The weights of every group, stacked or, where that would copy much, one by one.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> from tensornet.evaluation.folding import every_sample
        >>> shape = make_shape(ModeTree.star(3), 2, 4)
        >>> groups = every_sample(shape, 1, torch.device("cpu")).chunks[0]
        >>> [matrix.shape for matrix in collected(groups, [torch.ones(size) for size in shape.weights]) if matrix is not None]
        [torch.Size([3, 2, 4]), torch.Size([1, 4, 1])]
    """
    return [_matrix([weights[node] for node in group.nodes]) for group in groups]


def _matrix(weights: list[Tensor]) -> Tensor | list[Tensor] | None:
    if not weights:
        return None
    first = weights[0]
    if len(weights) == 1:
        return first.unsqueeze(0)
    if first.numel() > LARGE and first.device.type == "cpu":
        return weights
    if all(weight is first for weight in weights):
        return first.expand(len(weights), *first.shape)
    return torch.stack(weights)


def multiply(product: Tensor, matrix: Tensor | list[Tensor] | None, plain: bool) -> Tensor:
    """The rows of every member multiplied with its weight; ``plain`` operations are not differentiable, and copy less.

    Example:
        >>> multiply(torch.ones(1, 2, 3), torch.ones(1, 3, 4), plain=False).shape
        torch.Size([1, 2, 4])
    """
    if matrix is None:
        return product
    if isinstance(matrix, Tensor):
        return torch.bmm(product, matrix)
    if not plain:
        return torch.stack([rows @ weight for rows, weight in zip(product, matrix)])
    values = product.new_empty(*product.shape[:2], matrix[0].shape[1])
    for rows, weight, out in zip(product, matrix, values):
        torch.mm(rows, weight, out=out)
    return values


def stacked(matrix: Tensor | list[Tensor] | None) -> Tensor:
    """The weights of a group as one tensor.

    Example:
        >>> stacked([torch.ones(3, 4), torch.ones(3, 4)]).shape
        torch.Size([2, 3, 4])
    """
    assert matrix is not None
    return matrix if isinstance(matrix, Tensor) else torch.stack(matrix)


def power_of_two(exponents: Tensor, dtype: torch.dtype) -> Tensor:
    """``2**exponents``, exact, for exponents of normal numbers of ``dtype`` (those of float32 where that is shorter).

    Example:
        >>> power_of_two(torch.tensor([-1, 3]), torch.float32).tolist()
        [0.5, 8.0]
    """
    if dtype == torch.float64:
        return ((exponents.to(torch.int64) + 1023) << 52).view(dtype)
    return ((exponents.to(torch.int32) + 127) << 23).view(torch.float32).to(dtype)


def _inputs(group: Group, inputs: Sequence[Tensor]) -> Tensor | None:
    if not inputs:
        return None
    return inputs[group.nodes[0]].unsqueeze(0) if group.count == 1 else torch.stack([inputs[node] for node in group.nodes])


def _leaves(group: Group, matrix: Tensor | list[Tensor] | None, inputs: Tensor | None, plain: bool) -> Tensor:
    if inputs is not None:
        return multiply(inputs, matrix, plain)
    if group.picks is None:
        return stacked(matrix)
    assert matrix is not None
    return torch.stack([weight.index_select(0, rows) for weight, rows in zip(matrix, group.picks)])


def _factors(
    group: Group, tables: dict[int, Table], rules: Rules
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...], Tensor | None, int]:
    """The factors of a group's products, scaled where too many weights would be multiplied, with the sum of their exponents."""
    parts = [_run(tables[part.group], part.first, group.count) for part in group.parts]
    scales: list[Tensor | None] = [None] * len(parts)
    count = parts[0].factors if len(parts) == 1 else parts[0].factors + parts[1].factors
    if count > rules.budget and rules.pooling == "product":
        for place in sorted(range(len(parts)), key=lambda place: parts[place].values.shape[1]):
            if count > rules.budget and (parts[place].factors > 1 or not rules.budget):
                count -= parts[place].factors - 1
                scales[place], parts[place] = _scaled(parts[place], alone=not rules.budget)
    values, exponents = [], []
    for part, table in zip(group.parts, parts):
        values.append(table.values if part.rows is None else _take(table.values, part.rows))
        exponents.append(None if table.exponents is None else _take(table.exponents, part.rows))
    return tuple(values), tuple(scales), _sum(group, values, exponents), count


def _run(table: Table, first: int, count: int) -> Table:
    if count == table.values.shape[0]:
        return table
    exponents = None if table.exponents is None else table.exponents.narrow(0, first, count)
    return Table(table.values.narrow(0, first, count), exponents, table.factors)


def _take(tables: Tensor, rows: Tensor | None) -> Tensor:
    if rows is None:
        return tables
    count = tables.shape[0]
    return tables.flatten(0, 1).index_select(0, rows).view(count, rows.shape[0] // count, *tables.shape[2:])


def _sum(group: Group, values: Sequence[Tensor], exponents: Sequence[Tensor | None]) -> Tensor | None:
    given = [exponent for exponent in exponents if exponent is not None]
    if not given:
        return None
    if not group.crossed:
        return given[0] if len(given) == 1 else given[0] + given[1]
    zeros = [value.new_zeros(value.shape[:2], dtype=torch.int32) for value in values]
    first, second = (zero if exponent is None else exponent for zero, exponent in zip(zeros, exponents))
    return (first.unsqueeze(2) + second.unsqueeze(1)).flatten(1)


def _scaled(table: Table, alone: bool) -> tuple[Tensor, Table]:
    """A table with its rows scaled to a size of about 1 by powers of two, constants for differentiation; and these powers.

    The size of a row is the sum of its absolute values over the square root of their number: far faster than their maximum, and at
    most that square root from it. Rows that are zero or not finite stay so. Where all factors of every product are scaled, a third of
    the range above 1 is used as well, for products of rows whose large numbers stand in different columns.
    """
    values = table.values.detach()
    numbers = torch.view_as_real(values).flatten(-2) if values.is_complex() else values
    dtype, width = numbers.dtype, numbers.shape[-1]
    size = numbers.abs() @ numbers.new_full((width,), width**-0.5)
    if dtype == torch.float64:
        bits, digits, bias, most = size.view(torch.int64), 52, 1023, 1022
    else:
        bits, digits, bias, most = size.to(torch.float32).view(torch.int32), 23, 127, 14 if dtype == torch.float16 else 126
    lift = most // 3 if alone else 0
    exponents = (bits >> digits).sub_(bias).clamp_(lift - most, most)
    if lift:
        exponents.sub_(lift)
    scale = ((bias - exponents) << digits).view(torch.float64 if digits == 52 else torch.float32).to(dtype).unsqueeze(-1)
    exponents = exponents.to(torch.int32)
    return scale, Table(table.values * scale, exponents if table.exponents is None else table.exponents + exponents, 1)


def _combined(group: Group, factors: Sequence[Tensor], pooling: str, *, own: bool) -> Tensor:
    if len(factors) == 1:
        return factors[0]
    if own and pooling == "product" and not group.crossed:  # then factors are no weights, and used nowhere else
        return torch.mul(*factors, out=factors[0])
    first, second = (factors[0].unsqueeze(2), factors[1].unsqueeze(1)) if group.crossed else factors
    if pooling == "product":
        product = first * second
    elif pooling == "max":
        product = torch.maximum(first, second)
    else:
        product = (first + second) / max(group.arity, 1)
    return product.flatten(1, 2) if group.crossed else product


def _joining(second: Tensor, matrix: Tensor | list[Tensor] | None) -> Tensor:
    """What the first factor is multiplied with to get all combinations of rows: ``second[s, r] * W[r, p]`` in row ``(s, p)``."""
    return (second.unsqueeze(2) * stacked(matrix).mT.unsqueeze(-3)).flatten(1, 2)
