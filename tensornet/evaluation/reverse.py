"""Evaluation by sweeps, shared tables first and then chunks of samples, with the backward pass written out.

Automatic differentiation of a sweep would sum the gradients of gathered rows one by one, and keep and copy more than is needed. So
where first derivatives of products are asked for, a :class:`torch.autograd.Function` stands in. Chunks are small enough for the
processor's cache. Of many samples nothing is kept, and each chunk is computed again on the way back, so that memory stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tensornet.evaluation.folding import Group, Part, Stages
from tensornet.evaluation.sweep import Rules, Step, Table, collected, multiply, restored, stacked, sweep


def evaluate(stages: Stages, weights: Sequence[Tensor], inputs: Sequence[Tensor], rules: Rules) -> tuple[Tensor, Tensor | None]:
    """The root's table, ``values * 2**exponents``: ``(rows, outputs)`` and ``(rows,)``, the latter ``None`` where all are 0.

    Args:
        stages: The steps.
        weights: The weight of every node.
        inputs: For every leaf its inputs ``(B, D_n)``; none where leaves' tables are their weights.
        rules: How children are combined.

    Example:
        >>> from tensornet.evaluation.folding import every_entry
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> shape = make_shape(ModeTree.star(2), mode_sizes=2, ranks=3)
        >>> evaluate(every_entry(shape)[0], [torch.ones(size) for size in shape.weights], (), Rules("product", None, 15))[0].T
        tensor([[3., 3., 3., 3.]])
    """
    with _full_precision(weights[0]):
        recorded = torch.compiler.is_compiling() or _must_record()
        differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*weights, *inputs))
        if recorded or not differentiated or rules.pooling != "product" or rules.activation:
            return _up(stages, weights, inputs, rules, plain=not (recorded or differentiated))
        tensors = list({id(weight): weight for weight in weights}.values())
        slots = {id(weight): slot for slot, weight in enumerate(tensors)}
        values, exponents = _Evaluation.apply(stages, [slots[id(weight)] for weight in weights], rules, *tensors, *inputs)
        return values, exponents


def _full_precision(weight: Tensor) -> AbstractContextManager[Any]:
    """Long products do without automatic mixed precision."""
    kind = weight.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _must_record() -> bool:
    """Whether torch has to see every operation: in torch.func and in forward-mode differentiation."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


class _Trace(NamedTuple):
    """What is kept of a sweep for the way back."""

    tables: dict[int, Table]
    steps: list[Step]


@dataclass
class _Kept:
    """What is kept of an evaluation for the way back: of the sweep of shared tables, and of those of all chunks or none."""

    shared: _Trace = field(default_factory=lambda: _Trace({}, []))
    chunks: list[_Trace] = field(default_factory=list)


def _up(
    stages: Stages, weights: Sequence[Tensor], inputs: Sequence[Tensor], rules: Rules, kept: _Kept | None = None, *, plain: bool
) -> tuple[Tensor, Tensor | None]:
    tables: dict[int, Table] = {} if kept is None else kept.shared.tables
    sweep(stages.shared, 0, tables, weights, (), rules, None if kept is None else kept.shared.steps, plain=plain)
    if not stages.chunks:
        return _row(tables[len(stages.shared) - 1])
    chunks = _Chunks(stages, tables, weights, inputs, rules, plain)
    roots = []
    for chunk in range(len(stages.chunks)):
        trace = None
        if kept is not None and stages.kept:
            kept.chunks.append(trace := _Trace({}, []))
        roots.append(_row(chunks.up(chunk, trace)))
    if len(roots) == 1:
        return roots[0]
    exponents = [exponents for _, exponents in roots if exponents is not None]
    return torch.cat([values for values, _ in roots]), torch.cat(exponents) if exponents else None


def _row(table: Table) -> tuple[Tensor, Tensor | None]:
    """The only table of the root's group."""
    return table.values[0], None if table.exponents is None else table.exponents[0]


class _Chunks:
    """Evaluation of chunks of samples on the shared tables."""

    def __init__(
        self,
        stages: Stages,
        tables: dict[int, Table],
        weights: Sequence[Tensor],
        inputs: Sequence[Tensor],
        rules: Rules,
        plain: bool,
    ) -> None:
        self.stages, self.tables, self.weights, self.rules, self.plain = stages, tables, weights, rules, plain
        self.matrices = collected(stages.chunks[0], weights)
        sizes = [stop - start for start, stop in stages.bounds]
        self.inputs = list(zip(*(values.split(sizes) for values in inputs))) if inputs else [()] * len(sizes)

    def up(self, chunk: int, trace: _Trace | None) -> Table:
        """The root's table."""
        groups, start = self.stages.shared + self.stages.chunks[chunk], len(self.stages.shared)
        tables, steps = ({}, None) if trace is None else trace
        tables.update(self.tables)
        sweep(groups, start, tables, self.weights, self.inputs[chunk], self.rules, steps, matrices=self.matrices, plain=self.plain)
        return tables[len(groups) - 1]


class _Evaluation(torch.autograd.Function):
    """The evaluation of products; its backward pass is written out, or recorded where it is to be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, stages: Stages, slots: list[int], rules: Rules, *tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        ctx.given = stages, slots, rules
        ctx.kept = _Kept()
        ctx.save_for_backward(*tensors)
        values, exponents = _up(stages, *_sorted_out(slots, tensors), rules, ctx.kept, plain=True)
        if exponents is not None:
            ctx.mark_non_differentiable(exponents)
        return values, exponents

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0]
        with _full_precision(gradient):
            recorded = torch.is_grad_enabled() or _is_batched(gradient)
            found = _recorded(ctx, gradient) if recorded else _written_out(ctx, gradient)
        return None, None, None, *found


def _is_batched(tensor: Tensor) -> bool:
    return torch._C._functorch.is_batchedtensor(tensor) or torch._C._functorch.is_legacy_batchedtensor(tensor)


def _recorded(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    """Gradients by operations that torch sees: those that are differentiated themselves, and many at once."""
    stages, slots, rules = ctx.given
    needs, again = ctx.needs_input_grad[3:], torch.is_grad_enabled()
    with torch.enable_grad():
        # Partial derivatives are wanted, also where one tensor is given twice or computed from another: hence new views.
        tensors = [tensor.view_as(tensor) for tensor in ctx.saved_tensors]
        values, _ = _up(stages, *_sorted_out(slots, tensors), rules, plain=False)
        wanted = [tensor for tensor, need in zip(tensors, needs) if need]
        found = iter(torch.autograd.grad(values, wanted, gradient, create_graph=again))
    return [next(found) if need else None for need in needs]


def _written_out(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    stages, slots, rules = ctx.given
    weights, inputs = _sorted_out(slots, ctx.saved_tensors)
    kept, ctx.kept = ctx.kept, None
    if kept is None:  # the graph was retained for a second time
        _up(stages, weights, inputs, rules, kept := _Kept(), plain=True)
    gradient = gradient.unsqueeze(0)
    descent = _Descent(slots, ctx.needs_input_grad[3:])
    chunks = None if kept.chunks or not stages.chunks else _Chunks(stages, kept.shared.tables, weights, inputs, rules, plain=True)
    for chunk, (start, stop) in enumerate(stages.bounds):
        trace = _Trace({}, [])
        if chunks is None:
            trace, kept.chunks[chunk] = kept.chunks[chunk], trace
        else:
            chunks.up(chunk, trace)
        groups = stages.shared + stages.chunks[chunk]
        descent.tables[len(groups) - 1] = gradient[:, start:stop].contiguous()
        descent.down(groups, len(stages.shared), trace, add=chunk > 0)
    if not stages.chunks:
        descent.tables[len(stages.shared) - 1] = gradient.contiguous()
    descent.down(stages.shared, 0, kept.shared, add=False)
    return descent.results(stages.shared + (stages.chunks[0] if stages.chunks else ()))


def _sorted_out(slots: list[int], tensors: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
    return [tensors[slot] for slot in slots], tensors[max(slots) + 1 :]


class _Descent:
    """Gradients on the way back: of weights, summed; of inputs, by chunks; and of tables, by the places of their groups."""

    def __init__(self, slots: Sequence[int], needs: Sequence[bool]) -> None:
        self.slots = slots
        self.needs = needs
        self.count = max(slots) + 1  # of unique weights
        self.all = all(needs[: self.count])
        self.sums: dict[int, Tensor] = {}  # of the weights of groups, by place
        self.rows: dict[int, Tensor] = {}  # of weights of leaves of which rows are picked, by node
        self.inputs: list[list[Tensor]] = [[] for _ in needs[self.count :]]
        self.tables: dict[int, Tensor] = {}

    def results(self, groups: Sequence[Group]) -> list[Tensor | None]:
        """The gradients of unique weights and inputs."""
        found = [*self.rows.items(), *((node, of) for place, sums in self.sums.items() for node, of in zip(groups[place].nodes, sums))]
        weights: list[Tensor | None] = [None] * self.count
        for node, gradient in found:
            known = weights[self.slots[node]]
            weights[self.slots[node]] = gradient if known is None else known.add_(gradient)
        inputs = [torch.cat(chunks) if len(chunks) > 1 else chunks[0] if chunks else None for chunks in self.inputs]
        return [gradient if need else None for gradient, need in zip(weights + inputs, self.needs)]

    def down(self, groups: Sequence[Group], start: int, trace: _Trace, *, add: bool) -> None:
        """Goes through the groups from ``start`` on; sets the gradients of tables before, or adds to them."""
        self.groups, self.adds = groups, add
        for place in range(len(groups) - 1, start - 1, -1):
            group, gradient = groups[place], self.tables.pop(place)
            step = restored(groups, start, trace.steps, trace.tables)
            trace.steps.pop()
            trace.tables.pop(place, None)
            needed = group.nodes and (self.all or any(self.needs[self.slots[node]] for node in group.nodes))
            if step.product is None:
                if needed:
                    self._leaves(place, group, step, gradient)
            elif group.joined:
                self._join(place, group, step, gradient)
            else:
                if needed:
                    self.sums[place] = _of_weights(step, gradient, self.sums.get(place))
                if group.parts:
                    reused = step.product if len(group.parts) > 1 else None  # no one needs it again
                    self._product(group, step, _of_product(step, gradient, reused))
                elif any(self.needs[self.count + node] for node in group.nodes):
                    for node, of_input in zip(group.nodes, _of_product(step, gradient)):
                        self.inputs[node].append(of_input)

    def _add(self, place: int, gradients: Tensor) -> None:
        known = self.sums.get(place)
        self.sums[place] = gradients if known is None else known.add_(gradients)

    def _leaves(self, place: int, group: Group, step: Step, gradient: Tensor) -> None:
        if group.picks is None:
            self._add(place, gradient)
            return
        assert step.matrix is not None
        for node, weight, rows, of_rows in zip(group.nodes, step.matrix, group.picks, gradient):
            if self.needs[self.slots[node]]:
                known = self.rows.get(node)
                self.rows[node] = (torch.zeros_like(weight) if known is None else known).index_add_(0, rows, of_rows)

    def _join(self, place: int, group: Group, step: Step, gradient: Tensor) -> None:
        assert step.product is not None
        first, second = step.factors
        gradient = gradient.reshape(*first.shape[:2], -1)
        of_right = torch.bmm(gradient.mT, first.conj()).unflatten(1, (second.shape[1], -1))
        self._add(place, (of_right * second.conj().unsqueeze(2)).sum(1).mT)
        self._pass_on(group, step, 0, torch.bmm(gradient, step.product.conj()))
        self._pass_on(group, step, 1, (of_right * stacked(step.matrix).mH.unsqueeze(-3)).sum(2))

    def _product(self, group: Group, step: Step, gradient: Tensor) -> None:
        if len(step.factors) == 1:
            self._pass_on(group, step, 0, gradient)
            return
        first, second = step.factors
        if first.is_complex():
            first, second = first.conj(), second.conj()
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
        reused = None if other is None or other.is_complex() else other  # no one needs it again
        if part.rows is not None:
            if other is not None:
                gradient = torch.mul(gradient, other, out=reused)
            self._pass_rows(group, part, part.rows, scale, gradient)
        elif self.groups[part.group].count == group.count:
            if other is not None:
                gradient = torch.mul(gradient, other, out=reused)
            self.tables[part.group] = gradient if scale is None else gradient.mul_(scale)
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


def _of_product(step: Step, gradient: Tensor, out: Tensor | None = None) -> Tensor:
    if step.matrix is None:
        return gradient
    if isinstance(step.matrix, list):
        return multiply(gradient, [weight.mH for weight in step.matrix], True)
    return torch.bmm(gradient, _adjoint(step.matrix), out=out)


def _of_weights(step: Step, gradient: Tensor, known: Tensor | None) -> Tensor:
    """The gradients of a group's weights, added to those known."""
    assert step.product is not None
    if not isinstance(step.matrix, list):
        rows = _adjoint(step.product)
        return torch.bmm(rows, gradient) if known is None else known.baddbmm_(rows, gradient)
    sums = gradient.new_zeros(len(step.matrix), *step.matrix[0].shape) if known is None else known
    for rows, above, out in zip(step.product, gradient, sums):
        out.addmm_(rows.mH, above)
    return sums


def _adjoint(matrices: Tensor) -> Tensor:
    return matrices.mH if matrices.is_complex() else matrices.transpose(1, 2)  # the latter is cheaper


def _collected(gradient: Tensor, part: Part, rows: Tensor) -> Tensor:
    """Sums of the rows of a gradient that belong to one row of the part's tables."""
    if gradient.device.type != "cpu":
        return gradient.new_zeros(part.size, gradient.shape[1]).index_add_(0, rows, gradient)
    numbers = torch.view_as_real(gradient.resolve_conj()).flatten(1) if gradient.is_complex() else gradient
    order, begins = part.bags
    sums = embedding_bag(order, numbers, begins, mode="sum")
    return torch.view_as_complex(sums.unflatten(1, (-1, 2))) if gradient.is_complex() else sums
