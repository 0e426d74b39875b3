"""Evaluation by sweeps, shared tables first and then chunks of samples, with the backward pass written out.

Automatic differentiation of a sweep would sum the gradients of gathered rows one by one, and keep and copy more than is needed. So
where first derivatives of products are asked for, a :class:`torch.autograd.Function` stands in. Of many samples it keeps nothing, and
computes each chunk again on the way back, so that memory stays small and the numbers stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tensornet.observed import Group, Part, Stages
from tensornet.sweep import Rules, Step, Table, multiply, stacked, sweep


def evaluate(stages: Stages, weights: Sequence[Tensor], inputs: Sequence[Tensor], rules: Rules) -> tuple[Tensor, Tensor | None]:
    """The root's table as values ``(rows, outputs)`` and exponents ``(rows,)``, or ``None`` where these are all 0.

    Args:
        stages: The steps.
        weights: The weight of every node.
        inputs: For every leaf its inputs ``(B, D_n)``; none where leaves' tables are their weights.
        rules: How children are combined.
    """
    if rules.pooling != "product" or rules.activation or not _differentiates_once([*weights, *inputs]):
        return _up(stages, weights, inputs, rules, None)
    tensors = list({id(weight): weight for weight in weights}.values())
    slots = {id(weight): slot for slot, weight in enumerate(tensors)}
    values, exponents = _Evaluation.apply(stages, [slots[id(weight)] for weight in weights], rules, *tensors, *inputs)
    return values, exponents


def _differentiates_once(tensors: Sequence[Tensor]) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return any(tensor.requires_grad for tensor in tensors)


@dataclass
class _Kept:
    """What is kept of a sweep for the way back."""

    tables: dict[int, Table]
    shared: list[Step]
    chunks: list[list[Step]]


def _up(
    stages: Stages, weights: Sequence[Tensor], inputs: Sequence[Tensor], rules: Rules, kept: _Kept | None
) -> tuple[Tensor, Tensor | None]:
    tables: dict[int, Table] = {} if kept is None else kept.tables
    sweep(stages.shared, 0, tables, weights, (), rules, None if kept is None else kept.shared)
    results = []
    for place in range(len(stages.chunks)):
        steps: list[Step] = []
        results.append(_up_chunk(stages, place, tables, weights, inputs, rules, None if kept is None else steps))
        if kept is not None and len(stages.chunks) == 1:
            kept.chunks.append(steps)
    if not results:
        results = [tables[len(stages.shared) - 1]]
    exponents = [table.exponents[0] for table in results if table.exponents is not None]
    if len(results) == 1:
        return results[0].values[0], exponents[0] if exponents else None
    return torch.cat([table.values[0] for table in results]), torch.cat(exponents) if exponents else None


def _up_chunk(
    stages: Stages,
    place: int,
    tables: dict[int, Table],
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor],
    rules: Rules,
    steps: list[Step] | None,
) -> Table:
    groups = stages.shared + stages.chunks[place]
    given = [values[slice(*stages.bounds[place])] for values in inputs]
    own = dict(tables)
    sweep(groups, len(stages.shared), own, weights, given, rules, steps)
    return own[len(groups) - 1]


class _Evaluation(torch.autograd.Function):
    """The evaluation of products; its backward pass is written out, or recorded where it is to be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, stages: Stages, slots: list[int], rules: Rules, *tensors: Tensor) -> Any:
        ctx.given = stages, slots, rules
        ctx.kept = _Kept({}, [], [])
        ctx.save_for_backward(*tensors)
        values, exponents = _up(stages, *_sorted_out(slots, tensors), rules, ctx.kept)
        if exponents is not None:
            ctx.mark_non_differentiable(exponents)
        return values, exponents

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        stages, slots, rules = ctx.given
        tensors, needs = ctx.saved_tensors, ctx.needs_input_grad[3:]
        weights, inputs = _sorted_out(slots, tensors)
        if torch.is_grad_enabled():
            values, _ = _up(stages, weights, inputs, rules, None)
            wanted = [tensor for tensor, need in zip(tensors, needs) if need]
            found = iter(torch.autograd.grad(values, wanted, gradient, create_graph=True))
            return None, None, None, *(next(found) if need else None for need in needs)
        kept, ctx.kept = ctx.kept, None
        if kept is None:  # the graph was retained for a second time
            kept = _Kept({}, [], [])
            _up(stages, weights, inputs, rules, kept)
        sums = _Sums(slots, needs)
        above: dict[int, Tensor] = {}
        for place, bounds in enumerate(stages.bounds):
            steps = kept.chunks[place] if kept.chunks else []
            if not steps:
                _up_chunk(stages, place, kept.tables, weights, inputs, rules, steps)
            groups = stages.shared + stages.chunks[place]
            above[len(groups) - 1] = gradient[slice(*bounds)].unsqueeze(0).contiguous()
            _down(groups, len(stages.shared), steps, above, sums, add=place > 0)
        if not stages.chunks:
            above[len(stages.shared) - 1] = gradient.unsqueeze(0).contiguous()
        _down(stages.shared, 0, kept.shared, above, sums, add=False)
        return None, None, None, *sums.results()


def _sorted_out(slots: list[int], tensors: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
    return [tensors[slot] for slot in slots], tensors[max(slots) + 1 :]


class _Sums:
    """Gradients of the weights, summed, and of the inputs, by chunks."""

    def __init__(self, slots: Sequence[int], needs: Sequence[bool]) -> None:
        self.slots = slots
        self.weights: list[Tensor | None] = [None] * (max(slots) + 1)
        self.inputs: list[list[Tensor]] = [[] for _ in needs[len(self.weights) :]]
        self.needs = needs

    def wants_weights(self, nodes: Sequence[int]) -> bool:
        return any(self.needs[self.slots[node]] for node in nodes)

    def wants_inputs(self, nodes: Sequence[int]) -> bool:
        return any(self.needs[len(self.weights) + node] for node in nodes)

    def add(self, nodes: Sequence[int], gradients: Tensor | Sequence[Tensor]) -> None:
        for node, gradient in zip(nodes, gradients):
            slot = self.slots[node]
            known = self.weights[slot]
            if self.needs[slot]:
                self.weights[slot] = gradient if known is None else known.add_(gradient)

    def add_rows(self, nodes: Sequence[int], matrix: Tensor | list[Tensor], picks: Tensor, gradients: Tensor) -> None:
        for node, weight, rows, gradient in zip(nodes, matrix, picks, gradients):
            slot = self.slots[node]
            known = self.weights[slot]
            if self.needs[slot]:
                self.weights[slot] = (torch.zeros_like(weight) if known is None else known).index_add_(0, rows, gradient)

    def results(self) -> list[Tensor | None]:
        inputs = [torch.cat(chunks) if len(chunks) > 1 else chunks[0] if chunks else None for chunks in self.inputs]
        return [gradient if need else None for gradient, need in zip(self.weights + inputs, self.needs)]


def _down(groups: Sequence[Group], start: int, steps: list[Step], above: dict[int, Tensor], sums: _Sums, add: bool) -> None:
    """From the gradients of tables that are taken from ``above`` to those of weights, inputs and tables before ``start``.

    The gradients of the latter are put into ``above``, or added to those there.
    """
    for place in range(len(groups) - 1, start - 1, -1):
        group, step, gradient = groups[place], steps.pop(), above.pop(place)
        if not group.parts and step.product is None:
            assert step.matrix is not None
            if group.picks is None:
                sums.add(group.nodes, gradient)
            else:
                sums.add_rows(group.nodes, step.matrix, group.picks, gradient)
            continue
        if group.joined:
            of_factors, of_weights = _of_join(step, gradient)
            sums.add(group.nodes, of_weights)
            for position, of_factor in enumerate(of_factors):
                _pass_on(groups, group, step, position, of_factor, above, add)
            continue
        if sums.wants_weights(group.nodes):
            sums.add(group.nodes, _of_weights(step, gradient))
        if group.parts:
            _pass_product(groups, group, step, _of_product(step, gradient), above, add)
        elif sums.wants_inputs(group.nodes):
            for node, of_input in zip(group.nodes, _of_product(step, gradient)):
                sums.inputs[node].append(of_input)


def _of_product(step: Step, gradient: Tensor) -> Tensor:
    matrix = step.matrix
    return multiply(gradient, [weight.mH for weight in matrix] if isinstance(matrix, list) else matrix if matrix is None else matrix.mH, True)


def _of_weights(step: Step, gradient: Tensor) -> Tensor | list[Tensor]:
    assert step.product is not None
    if isinstance(step.matrix, list):
        return [rows.mH @ above for rows, above in zip(step.product, gradient)]
    return torch.bmm(step.product.mH, gradient)


def _of_join(step: Step, gradient: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    assert step.product is not None
    first, second = step.factors
    gradient = gradient.reshape(*first.shape[:2], -1)
    of_right = torch.bmm(gradient.mT, first.conj()).unflatten(1, (second.shape[1], -1))
    of_second = (of_right * stacked(step.matrix).mH.unsqueeze(-3)).sum(2)
    of_weights = (of_right * second.conj().unsqueeze(2)).sum(1).mT
    return (torch.bmm(gradient, step.product.conj()), of_second), of_weights


def _pass_product(groups: Sequence[Group], group: Group, step: Step, gradient: Tensor, above: dict[int, Tensor], add: bool) -> None:
    if len(step.factors) == 1:
        _pass_on(groups, group, step, 0, gradient, above, add)
        return
    first, second = (factor.conj() for factor in step.factors)
    if group.crossed:
        gradient = gradient.unflatten(1, (first.shape[1], second.shape[1]))
        _pass_on(groups, group, step, 0, (gradient * second.unsqueeze(1)).sum(2), above, add)
        _pass_on(groups, group, step, 1, (gradient * first.unsqueeze(2)).sum(1), above, add)
    else:
        _pass_on(groups, group, step, 0, gradient * second, above, add)
        _pass_on(groups, group, step, 1, gradient * first, above, add)


def _pass_on(
    groups: Sequence[Group], group: Group, step: Step, position: int, gradient: Tensor, above: dict[int, Tensor], add: bool
) -> None:
    """Hands the gradient of a factor to the group whose tables it comes of."""
    part, scale = group.parts[position], step.scales[position]
    sparse = part.rows is not None and 2 * len(part.rows) < part.size
    if sparse:
        gradient = gradient.flatten(0, 1)
        gradient = gradient if scale is None else gradient * scale.flatten(0, 1).index_select(0, part.rows)
    else:
        gradient = gradient if part.rows is None else _collected(gradient.flatten(0, 1), part).unflatten(0, (group.count, -1))
        gradient = gradient if scale is None else gradient * scale
    count = groups[part.group].count
    if count == group.count and not sparse and part.group not in above:
        above[part.group] = gradient
        return
    if part.group not in above:
        above[part.group] = gradient.new_empty(count, part.size // group.count if sparse else gradient.shape[1], gradient.shape[-1])
    target = above[part.group].narrow(0, part.first, group.count)
    later = add and part.rows is not None
    if sparse:
        (target if later else target.zero_()).flatten(0, 1).index_add_(0, part.rows, gradient)
    elif later:
        target.add_(gradient)
    else:
        target.copy_(gradient)


def _collected(gradient: Tensor, part: Part) -> Tensor:
    """Sums of the rows that were gathered from one row."""
    assert part.rows is not None
    if gradient.device.type != "cpu":
        return gradient.new_zeros(part.size, gradient.shape[1]).index_add_(0, part.rows, gradient)
    numbers = torch.view_as_real(gradient.resolve_conj()).flatten(1) if gradient.is_complex() else gradient
    order, begins = part.bags
    sums = embedding_bag(order, numbers, begins, mode="sum")
    return torch.view_as_complex(sums.unflatten(1, (-1, 2))) if gradient.is_complex() else sums
