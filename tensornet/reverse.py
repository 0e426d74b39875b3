"""Evaluation by sweeps, shared tables first and then chunks of samples, with the backward pass written out.

Automatic differentiation of a sweep would sum the gradients of gathered rows one by one, and keep and copy more than is needed. So
where first derivatives of products are asked for, a :class:`torch.autograd.Function` stands in. Of many samples it keeps nothing, and
computes each chunk again on the way back, so that memory stays small and numbers stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tensornet.folding import Group, Part, Stages
from tensornet.sweep import Rules, Step, Table, multiply, stacked, sweep


def evaluate(stages: Stages, weights: Sequence[Tensor], inputs: Sequence[Tensor], rules: Rules) -> tuple[Tensor, Tensor | None]:
    """The root's table, ``values * 2**exponents``: ``(rows, outputs)`` and ``(rows,)``, the latter ``None`` where all are 0.

    Args:
        stages: The steps.
        weights: The weight of every node.
        inputs: For every leaf its inputs ``(B, D_n)``; none where leaves' tables are their weights.
        rules: How children are combined.

    Example:
        >>> from tensornet.folding import every_entry
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> shape = make_shape(ModeTree.star(2), mode_sizes=2, ranks=3)
        >>> evaluate(every_entry(shape)[0], [torch.ones(size) for size in shape.weights], (), Rules("product", None, 15))[0].T
        tensor([[3., 3., 3., 3.]])
    """
    with _full_precision(weights[0]):
        if rules.pooling != "product" or rules.activation or not _differentiates_once([*weights, *inputs]):
            return _up(stages, weights, inputs, rules, None)
        tensors = list({id(weight): weight for weight in weights}.values())
        slots = {id(weight): slot for slot, weight in enumerate(tensors)}
        values, exponents = _Evaluation.apply(stages, [slots[id(weight)] for weight in weights], rules, *tensors, *inputs)
        return values, exponents


def _full_precision(weight: Tensor) -> AbstractContextManager[Any]:
    """Long products do without automatic mixed precision."""
    kind = weight.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _differentiates_once(tensors: Sequence[Tensor]) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return any(tensor.requires_grad for tensor in tensors)


@dataclass
class _Kept:
    """What is kept of an evaluation for the way back: shared tables, and what :class:`Step` says of shared and of all other groups."""

    tables: dict[int, Table] = field(default_factory=dict)
    shared: list[Step] = field(default_factory=list)
    rest: list[Step] = field(default_factory=list)  # only with a single chunk


def _up(
    stages: Stages, weights: Sequence[Tensor], inputs: Sequence[Tensor], rules: Rules, kept: _Kept | None
) -> tuple[Tensor, Tensor | None]:
    tables: dict[int, Table] = {} if kept is None else kept.tables
    sweep(stages.shared, 0, tables, weights, (), rules, None if kept is None else kept.shared)
    steps = kept.rest if kept is not None and len(stages.chunks) == 1 else None
    roots = [_up_chunk(stages, chunk, tables, weights, inputs, rules, steps) for chunk in range(len(stages.chunks))]
    roots = roots or [tables[len(stages.shared) - 1]]
    exponents = [root.exponents[0] for root in roots if root.exponents is not None]
    if len(roots) == 1:
        return roots[0].values[0], exponents[0] if exponents else None
    return torch.cat([root.values[0] for root in roots]), torch.cat(exponents) if exponents else None


def _up_chunk(
    stages: Stages,
    chunk: int,
    tables: dict[int, Table],
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor],
    rules: Rules,
    steps: list[Step] | None,
) -> Table:
    """The root's table for a chunk of samples."""
    groups = stages.shared + stages.chunks[chunk]
    own = dict(tables)
    given = inputs if len(stages.chunks) == 1 else [values[slice(*stages.bounds[chunk])] for values in inputs]
    sweep(groups, len(stages.shared), own, weights, given, rules, steps)
    return own[len(groups) - 1]


class _Evaluation(torch.autograd.Function):
    """The evaluation of products; its backward pass is written out, or recorded where it is to be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, stages: Stages, slots: list[int], rules: Rules, *tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        ctx.given = stages, slots, rules
        ctx.kept = _Kept()
        ctx.save_for_backward(*tensors)
        values, exponents = _up(stages, *_sorted_out(slots, tensors), rules, ctx.kept)
        if exponents is not None:
            ctx.mark_non_differentiable(exponents)
        return values, exponents

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        with _full_precision(gradients[0]):
            found = _recorded(ctx, gradients[0]) if torch.is_grad_enabled() else _written_out(ctx, gradients[0])
        return None, None, None, *found


def _recorded(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    stages, slots, rules = ctx.given
    tensors, needs = ctx.saved_tensors, ctx.needs_input_grad[3:]
    values, _ = _up(stages, *_sorted_out(slots, tensors), rules, None)
    wanted = [tensor for tensor, need in zip(tensors, needs) if need]
    found = iter(torch.autograd.grad(values, wanted, gradient, create_graph=True))
    return [next(found) if need else None for need in needs]


def _written_out(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    stages, slots, rules = ctx.given
    weights, inputs = _sorted_out(slots, ctx.saved_tensors)
    kept, ctx.kept = ctx.kept, None
    if kept is None:  # the graph was retained for a second time
        _up(stages, weights, inputs, rules, kept := _Kept())
    gradient = gradient.unsqueeze(0)
    descent = _Descent(slots, ctx.needs_input_grad[3:])
    for chunk, (start, stop) in enumerate(stages.bounds):
        if len(stages.bounds) > 1:
            _up_chunk(stages, chunk, kept.tables, weights, inputs, rules, kept.rest)
        groups = stages.shared + stages.chunks[chunk]
        descent.tables[len(groups) - 1] = gradient[:, start:stop].contiguous()
        descent.down(groups, len(stages.shared), kept.rest, add=chunk > 0)
    if not stages.bounds:
        descent.tables[len(stages.shared) - 1] = gradient.contiguous()
    descent.down(stages.shared, 0, kept.shared, add=False)
    return descent.results()


def _sorted_out(slots: list[int], tensors: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
    return [tensors[slot] for slot in slots], tensors[max(slots) + 1 :]


class _Descent:
    """Gradients on the way back: of weights, summed; of inputs, by chunks; and of tables, by the places of their groups."""

    def __init__(self, slots: Sequence[int], needs: Sequence[bool]) -> None:
        self.slots = slots
        self.needs = needs
        self.weights: list[Tensor | None] = [None] * (max(slots) + 1)
        self.inputs: list[list[Tensor]] = [[] for _ in needs[len(self.weights) :]]
        self.tables: dict[int, Tensor] = {}

    def results(self) -> list[Tensor | None]:
        """The gradients of unique weights and inputs."""
        inputs = [torch.cat(chunks) if len(chunks) > 1 else chunks[0] if chunks else None for chunks in self.inputs]
        return [gradient if need else None for gradient, need in zip(self.weights + inputs, self.needs)]

    def down(self, groups: Sequence[Group], start: int, steps: list[Step], *, add: bool) -> None:
        """Goes through the groups from ``start`` on; sets the gradients of tables before, or adds to them."""
        self.groups, self.adds = groups, add
        for place in range(len(groups) - 1, start - 1, -1):
            group, step, gradient = groups[place], steps.pop(), self.tables.pop(place)
            if step.product is None:
                self._leaves(group, step, gradient)
            elif group.joined:
                self._join(group, step, gradient)
            else:
                if any(self.needs[self.slots[node]] for node in group.nodes):
                    self._add(group.nodes, _of_weights(step, gradient))
                if group.parts:
                    self._product(group, step, _of_product(step, gradient))
                elif any(self.needs[len(self.weights) + node] for node in group.nodes):
                    for node, of_input in zip(group.nodes, _of_product(step, gradient)):
                        self.inputs[node].append(of_input)

    def _add(self, nodes: Sequence[int], gradients: Tensor) -> None:
        for node, gradient in zip(nodes, gradients):
            slot = self.slots[node]
            if self.needs[slot]:
                known = self.weights[slot]
                self.weights[slot] = gradient if known is None else known.add_(gradient)

    def _leaves(self, group: Group, step: Step, gradient: Tensor) -> None:
        if group.picks is None:
            self._add(group.nodes, gradient)
            return
        assert step.matrix is not None
        for node, weight, rows, of_rows in zip(group.nodes, step.matrix, group.picks, gradient):
            slot = self.slots[node]
            if self.needs[slot]:
                known = self.weights[slot]
                self.weights[slot] = (torch.zeros_like(weight) if known is None else known).index_add_(0, rows, of_rows)

    def _join(self, group: Group, step: Step, gradient: Tensor) -> None:
        assert step.product is not None
        first, second = step.factors
        gradient = gradient.reshape(*first.shape[:2], -1)
        of_right = torch.bmm(gradient.mT, first.conj()).unflatten(1, (second.shape[1], -1))
        self._add(group.nodes, (of_right * second.conj().unsqueeze(2)).sum(1).mT)
        self._pass_on(group, step, 0, torch.bmm(gradient, step.product.conj()))
        self._pass_on(group, step, 1, (of_right * stacked(step.matrix).mH.unsqueeze(-3)).sum(2))

    def _product(self, group: Group, step: Step, gradient: Tensor) -> None:
        if len(step.factors) == 1:
            self._pass_on(group, step, 0, gradient)
            return
        first, second = (factor.conj() for factor in step.factors)
        if group.crossed:
            gradient = gradient.unflatten(1, (first.shape[1], second.shape[1]))
            self._pass_on(group, step, 0, (gradient * second.unsqueeze(1)).sum(2))
            self._pass_on(group, step, 1, (gradient * first.unsqueeze(2)).sum(1))
        else:
            self._pass_on(group, step, 0, gradient, second)
            self._pass_on(group, step, 1, gradient, first)

    def _pass_on(self, group: Group, step: Step, position: int, gradient: Tensor, other: Tensor | None = None) -> None:
        """Hands the gradient of a factor, times the other factor, to the group whose tables the factor comes of."""
        part, scale = group.parts[position], step.scales[position]
        if part.rows is not None:
            if other is not None:
                gradient = torch.mul(gradient, other, out=None if other.is_complex() else other)  # no one needs it again
            self._pass_rows(group, part, part.rows, scale, gradient)
        elif self.groups[part.group].count == group.count:
            gradient = gradient if other is None else gradient * other
            self.tables[part.group] = gradient if scale is None else gradient * scale
        else:
            target = self._target(group, part, gradient.shape[1], gradient)
            if other is not None:
                torch.mul(gradient, other, out=target)
            else:
                target.copy_(gradient)
            if scale is not None:
                target.mul_(scale)

    def _pass_rows(self, group: Group, part: Part, rows: Tensor, scale: Tensor | None, gradient: Tensor) -> None:
        """Sums the gradients of rows that were gathered from one row."""
        size = part.size // group.count
        if 2 * len(rows) < part.size:  # then the tables are not gone through
            if scale is not None:
                gradient = gradient * scale.flatten(0, 1).index_select(0, rows).view(group.count, -1, 1)
            target = self._target(group, part, size, gradient)
            (target if self.adds else target.zero_()).flatten(0, 1).index_add_(0, rows, gradient.flatten(0, 1))
            return
        sums = _collected(gradient.flatten(0, 1), part, rows).unflatten(0, (group.count, size))
        sums = sums if scale is None else sums * scale
        if self.adds:
            self._target(group, part, size, gradient).add_(sums)
        elif self.groups[part.group].count == group.count:
            self.tables[part.group] = sums
        else:
            self._target(group, part, size, gradient).copy_(sums)

    def _target(self, group: Group, part: Part, size: int, like: Tensor) -> Tensor:
        """The place of a part's gradient among those of its group."""
        known = self.tables.get(part.group)
        if known is None:
            known = self.tables[part.group] = like.new_empty(self.groups[part.group].count, size, like.shape[2])
        return known.narrow(0, part.first, group.count)


def _of_product(step: Step, gradient: Tensor) -> Tensor:
    if isinstance(step.matrix, list):
        return multiply(gradient, [weight.mH for weight in step.matrix], True)
    return gradient if step.matrix is None else torch.bmm(gradient, step.matrix.mH)


def _of_weights(step: Step, gradient: Tensor) -> Tensor:
    assert step.product is not None
    if isinstance(step.matrix, list):
        sums = gradient.new_empty(len(step.matrix), *step.matrix[0].shape)
        for rows, above, out in zip(step.product, gradient, sums):
            torch.mm(rows.mH, above, out=out)
        return sums
    return torch.bmm(step.product.mH, gradient)


def _collected(gradient: Tensor, part: Part, rows: Tensor) -> Tensor:
    """Sums of the rows of a gradient that belong to one row of the part's tables."""
    if gradient.device.type != "cpu":
        return gradient.new_zeros(part.size, gradient.shape[1]).index_add_(0, rows, gradient)
    numbers = torch.view_as_real(gradient.resolve_conj()).flatten(1) if gradient.is_complex() else gradient
    order, begins = part.bags
    sums = embedding_bag(order, numbers, begins, mode="sum")
    return torch.view_as_complex(sums.unflatten(1, (-1, 2))) if gradient.is_complex() else sums
