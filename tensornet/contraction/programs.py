"""Runs plans on the tensors of a network: whole or in slices, as one node of autograd's graph with its own backward pass.

Where torch has to see every operation (double backward, torch.func, forward mode), the same program runs as recorded torch operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from tensornet.contraction import kernels
from tensornet.contraction.adjoint import reverse
from tensornet.contraction.kernels import Steps, bind, empty
from tensornet.contraction.lowering import Program, Sizes, lower
from tensornet.contraction.plan import Plan


def run_plan(plan: Plan, operands: tuple[Tensor, ...], out: Tensor | None, recording: bool) -> Tensor:
    """Contracts the plan's network of operands.

    Args:
        plan: The plan.
        operands: The network's tensors, contiguous, of one dtype and on one device.
        out: Contiguous tensor to write the result into; not where gradients are recorded.
        recording: Whether gradients are wanted.

    Raises:
        TypeError: ``out`` is no tensor.
        ValueError: ``out`` does not fit.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> plan = make_plan(make_shape(ModeTree.star(2), 4, 5))
        >>> run_plan(plan, (torch.ones(4, 5), torch.ones(4, 5), torch.ones(5, 1)), None, recording=False)[0]
        tensor([5., 5., 5., 5.])
    """
    recorded = _must_record()
    if out is not None:
        _check_out(out, plan.network.output_sizes, operands[0], recording or recorded)
    if torch.is_autocast_enabled(operands[0].device.type):
        with torch.autocast(operands[0].device.type, enabled=False):
            return run_plan(plan, operands, out, recording)
    if recorded:
        return _arranged(_record(plan, operands), plan)
    if recording:
        return _arranged(_Contraction.apply(plan, *operands), plan)
    if plan.slices:
        return _run_slices(plan, operands, out)
    program = plan.program
    if out is None or program.permutation:
        result = _arranged(_run(program, list(operands))[-1], plan)
        return result if out is None else out.copy_(result)
    _run(program, list(operands), out=out.view(program.operations[-1].result))
    return out


def _check_out(out: Tensor, sizes: tuple[int, ...], like: Tensor, recording: bool) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a tensor; got {type(out).__name__}")
    if recording:
        raise ValueError("out= cannot be used where gradients are recorded; use torch.no_grad()")
    if tuple(out.shape) != sizes or out.dtype != like.dtype or out.device != like.device or not out.is_contiguous():
        raise ValueError(
            f"out must be a contiguous tensor of shape {sizes}, {like.dtype} on {like.device}; "
            f"got shape {tuple(out.shape)}, {out.dtype} on {out.device}{'' if out.is_contiguous() else ', not contiguous'}"
        )


def _must_record() -> bool:
    """Whether torch has to see every operation: in torch.func and in forward-mode differentiation."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def _is_batched(tensor: Tensor) -> bool:
    return torch._C._functorch.is_batchedtensor(tensor) or torch._C._functorch.is_legacy_batchedtensor(tensor)


def _arranged(result: Tensor, plan: Plan) -> Tensor:
    """The result of a program with its axes in the asked order."""
    permutation = () if plan.slices else plan.program.permutation
    return result.permute(permutation) if permutation else result


class _Contraction(torch.autograd.Function):
    """A whole contraction as one node of the graph, so that small ones are not slowed down by many nodes."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *operands: Tensor) -> Tensor:
        ctx.plan = plan
        if plan.slices:
            ctx.save_for_backward(*operands)
            return _run_slices(plan, operands, None)
        slots = _run(plan.program, list(operands), keep=True)
        ctx.save_for_backward(*slots[:-1])  # intermediate results too, so that torch frees them as soon as it may
        return cast(Tensor, slots[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plan, slots, gradient, needed = ctx.plan, ctx.saved_tensors, gradients[0], ctx.needs_input_grad[1:]
        operands = slots[: len(needed)]
        if torch.is_grad_enabled() or _is_batched(gradient):  # to be differentiated again, or several at once
            with torch.enable_grad():  # views, so that paths between the operands do not count
                operands = [operand.view_as(operand) for operand in operands]
                result = _record(plan, operands)
            wanted = [operand for operand, need in zip(operands, needed) if need]
            found = iter(torch.autograd.grad(result, wanted, gradient, create_graph=torch.is_grad_enabled()))
            return None, *(next(found) if need else None for need in needed)
        if plan.slices:
            return None, *_run_slices_backward(plan, operands, gradient, needed)
        return None, *_run_backward(plan.program, list(slots), gradient, needed)


# Programs


@lru_cache(maxsize=1024)
def _sliced_program(plan: Plan, window: tuple[tuple[int, int], ...]) -> Program:
    """The program of a slice of a plan; ``window`` holds the sizes of the labels that are sliced."""
    return lower(plan.network, plan.ssa_path, {**plan.network.sizes, **dict(window)})


@lru_cache(maxsize=1024)
def _bound(program: Program, dtype: torch.dtype, cpu: bool) -> Steps:
    return bind(program.operations, program.last_use, program.operands, dtype, cpu=cpu)


@lru_cache(maxsize=1024)
def _bound_adjoint(program: Program, needed: tuple[bool, ...], dtype: torch.dtype, cpu: bool) -> tuple[Steps, tuple[tuple[int, Any], ...]]:
    """The reverse of a program, and for every operand the slot of its gradient (or -1) and the shape to give it (or ``None``)."""
    adjoint = reverse(program, needed)
    shapes: list[Sizes] = [*program.operands, *(operation.result for operation in program.operations[:-1]), program.stored]
    made = [*shapes, *(operation.result for operation in adjoint.operations)]
    gradients = [(slot, None if made[slot] == shape else shape) for slot, shape in zip(adjoint.gradients, program.operands)]
    return bind(adjoint.operations, adjoint.last_use, shapes, dtype, cpu=cpu), tuple(gradients)


def _run(program: Program, slots: list[Any], *, out: Tensor | None = None, keep: bool = False) -> list[Any]:
    """All slots after running a program on its operands; ``None`` for those that are no longer needed, unless ``keep`` is set."""
    like = slots[0]
    kernels.run(_bound(program, like.dtype, like.device.type == "cpu"), slots, out=out, keep=keep)
    if out is None and program.stored != program.operations[-1].result:
        slots[-1].resize_(program.stored)  # in place, since a view could not be changed in place by who gets it
    return slots


def _run_backward(program: Program, slots: list[Any], gradient: Tensor, needed: tuple[bool, ...]) -> list[Tensor | None]:
    """Gradients of the operands that need one; ``slots`` are those of the forward run but its result."""
    steps, gradients = _bound_adjoint(program, needed, gradient.dtype, gradient.device.type == "cpu")
    if gradient.is_complex():
        gradient = gradient.conj().resolve_conj()
    slots.append(gradient if gradient.is_contiguous() else empty(gradient.shape, gradient).copy_(gradient))
    kernels.run(steps, slots)
    found = [None if slot < 0 else slots[slot] if shape is None else slots[slot].view(shape) for slot, shape in gradients]
    return [None if one is None else one.conj() for one in found] if gradient.is_complex() else found


def _record(plan: Plan, operands: Sequence[Tensor]) -> Tensor:
    """The result of :class:`_Contraction`, by operations that torch records."""
    if not plan.slices:
        return _record_program(plan.program, operands)
    total: Tensor | None = None
    for window in _windows(plan):
        part = _permute_to_output(_record_program(_window_program(plan, window), _cut_all(plan, operands, window)), plan, window)
        padding: list[int] = []
        for label in reversed(plan.network.output):
            start, length = window.get(label, (0, plan.network.sizes[label]))
            padding += [start, plan.network.sizes[label] - start - length]
        part = torch.nn.functional.pad(part, padding)
        total = part if total is None else total + part
    assert total is not None
    return total


def _record_program(program: Program, operands: Sequence[Tensor]) -> Tensor:
    slots = list(operands)
    for operation in program.operations:
        result = _recorded_view(slots[operation.left], operation.left_view, operation.left_strides)
        if operation.kind != "copy":
            other = _recorded_view(slots[operation.right], operation.right_view, operation.right_strides)
            result = torch.matmul(result, other) if operation.kind == "product" else result * other
        slots.append(result)
    return slots[-1].reshape(program.stored)


def _recorded_view(tensor: Tensor, view: Sizes, strides: Sizes) -> Tensor:
    """A strided view of what is contiguous in theory, by operations that have derivatives and batching rules of their own."""
    axes = sorted((axis for axis, size in enumerate(view) if size != 1), key=lambda axis: -strides[axis])
    stored = tensor.reshape([view[axis] for axis in axes])
    return stored.permute([axes.index(axis) for axis in sorted(axes)]).reshape(view)


# Slices

Window = dict[int, tuple[int, int]]  # label -> start and length


def _windows(plan: Plan) -> Iterator[Window]:
    """The slices of a plan."""
    ranges = []
    for label, parts in plan.slices:
        length = -(-plan.network.sizes[label] // parts)
        starts = range(0, plan.network.sizes[label], length)
        ranges.append([(label, (start, min(length, plan.network.sizes[label] - start))) for start in starts])
    for chosen in itertools.product(*ranges):
        yield dict(chosen)


def _window_program(plan: Plan, window: Window) -> Program:
    return _sliced_program(plan, tuple((label, length) for label, (_, length) in window.items()))


def _cut(tensor: Tensor, labels: Sequence[int], window: Window) -> Tensor:
    for axis, label in enumerate(labels):
        if label in window:
            tensor = tensor.narrow(axis, *window[label])
    return tensor


def _cut_all(plan: Plan, operands: Sequence[Tensor], window: Window) -> list[Tensor]:
    return [_cut(operand, labels, window).contiguous() for operand, labels in zip(operands, plan.network.operands)]


def _permute_to_output(result: Tensor, plan: Plan, window: Window) -> Tensor:
    permutation = _window_program(plan, window).permutation
    return result.permute(permutation) if permutation else result


def _run_slices(plan: Plan, operands: Sequence[Tensor], out: Tensor | None) -> Tensor:
    total = empty(plan.network.output_sizes, operands[0]) if out is None else out
    total.zero_()
    for window in _windows(plan):
        part = _run(_window_program(plan, window), _cut_all(plan, operands, window))[-1]
        _cut(total, plan.network.output, window).add_(_permute_to_output(part, plan, window))
    return total


def _run_slices_backward(plan: Plan, operands: Sequence[Tensor], gradient: Tensor, needed: tuple[bool, ...]) -> list[Tensor | None]:
    """Gradients slice by slice; the intermediate results of each are computed again, so that memory stays within the limit."""
    totals = [torch.zeros_like(operand) if need else None for operand, need in zip(operands, needed)]
    for window in _windows(plan):
        program = _window_program(plan, window)
        *slots, _ = _run(program, _cut_all(plan, operands, window), keep=True)
        incoming = _cut(gradient, plan.network.output, window)
        if program.permutation:
            inverse = sorted(range(len(program.permutation)), key=program.permutation.__getitem__)
            incoming = incoming.permute(inverse)
        for total, labels, part in zip(totals, plan.network.operands, _run_backward(program, slots, incoming, needed)):
            if total is not None and part is not None:
                _cut(total, labels, window).add_(part)
    return totals
