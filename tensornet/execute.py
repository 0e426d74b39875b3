"""Runs plans on torch tensors: contraction to end tensors, slices, projections and Gram matrices, with gradients.

A contraction is one node of autograd's graph, with its own backward pass. Where torch has to see every operation (double backward,
torch.func, forward mode), the same program runs as recorded torch operations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from torch import Tensor

from tensornet import kernels
from tensornet.adjoint import reverse
from tensornet.costs import CPU, CUDA
from tensornet.kernels import Steps, bind, empty
from tensornet.lowering import Program, Sizes, lower
from tensornet.network import Request
from tensornet.plan import Plan, make_plan
from tensornet.shape import Shape

_LOOKED_UP = 64 << 20  # bytes from which a contraction is held against the memory that is free


def contract(
    shape: Shape,
    weights: Sequence[Tensor],
    *,
    fixed: Mapping[int, int] | None = None,
    projected: Mapping[int, Tensor] | None = None,
    memory_limit: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The end tensor of Equation 3, or a part or projection of it.

    Args:
        shape: Tree and sizes.
        weights: One weight a node, in the order of ``shape.tree.nodes``.
        fixed: ``{mode: index}``: the slice of the end tensor at these indices, without those modes.
        projected: ``{mode: vector (D_mode,) or matrix (D_mode, E)}``: the end tensor contracted with them along these modes; a
            vector's mode vanishes, a matrix's takes size ``E``. Nothing is conjugated.
        memory_limit: Bytes that intermediate results and the result may take together; by default what is free on the device. With
            gradients, intermediate results are kept, and the backward pass takes up to as much again.
        out: Contiguous tensor to write the result into; not where gradients are recorded.

    Returns:
        Tensor of shape ``mode_sizes`` (and ``outputs`` last, when above 1) with the asked changes. Where modes cross in the tree it
        may be a permuted view, as torch.einsum's results are.

    Raises:
        MemoryLimitError: The contraction does not fit; nothing has been allocated.
        TypeError: A mode or an index is no integer, a projection or ``out`` no tensor.
        ValueError: A mode, an index or a size does not fit the factorization.

    Example:
        >>> from tensornet import HTF, ModeTree
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=5)
        >>> part = contract(htf.shape, htf.weight_list(), fixed={0: 1, 3: 2})
        >>> bool(torch.allclose(part, htf.contract()[1, :, :, 2]))
        True
    """
    if torch.compiler.is_compiling():
        return _uncompiled(contract)(shape, weights, fixed=fixed, projected=projected, memory_limit=memory_limit, out=out)
    request = _END_TENSOR
    if fixed or projected:
        _check_mappings(fixed, projected)
        request = Request.make(fixed=fixed or (), projected={mode: _width(mode, matrix) for mode, matrix in (projected or {}).items()})
    operands = _operands(shape, weights, fixed or {}, projected or {}, request)
    recording = _is_recording(operands)
    plan = plan_contraction(shape, request, weights[0].dtype, weights[0].device, memory_limit, recorded=recording)
    return _execute(plan, operands, out, recording)


def gram(shape: Shape, weights: Sequence[Tensor], modes: Sequence[int], *, memory_limit: int | None = None) -> Tensor:
    """The Gram matrix ``[[W; I]] [[W; I]]^H`` of the end tensor's matricization by ``modes`` (Definition 3), without the end tensor.

    Rows are ordered as in :func:`tensornet.matricize`, the first mode fastest; several outputs count as columns.

    Raises:
        MemoryLimitError: The contraction does not fit; nothing has been allocated.
        ValueError: A mode is out of range or repeated.

    Example:
        >>> from tensornet import HTF, ModeTree, matricize
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=5, init_std=1.0)
        >>> matrix = matricize(htf.contract(), [0, 1])
        >>> bool(torch.allclose(gram(htf.shape, htf.weight_list(), [0, 1]), matrix @ matrix.T, rtol=1e-3))
        True
    """
    if torch.compiler.is_compiling():
        return _uncompiled(gram)(shape, weights, modes, memory_limit=memory_limit)
    request = Request.make(gram=modes)
    operands = _operands(shape, weights, {}, {}, request)
    recording = _is_recording(operands)
    plan = plan_contraction(shape, request, weights[0].dtype, weights[0].device, memory_limit, recorded=recording)
    rows = math.prod(shape.mode_sizes[mode] for mode in request.gram or ())
    conjugated = tuple(operand.conj().resolve_conj() for operand in operands)
    return _execute(plan, (*operands, *conjugated), None, recording).reshape(rows, rows)


_END_TENSOR = Request()


def _uncompiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that torch.compile calls between two graphs: plans are not for tracing."""
    return cast(Callable[..., Tensor], torch.compiler.disable(function))


def _is_recording(operands: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)


def plan_contraction(
    shape: Shape,
    request: Request,
    dtype: torch.dtype,
    device: torch.device,
    memory_limit: int | None = None,
    *,
    recorded: bool = False,
) -> Plan:
    """The plan by which :func:`contract` would do what is asked, within ``memory_limit`` or the memory that is free.

    Where it is ``recorded`` for a gradient, all intermediate results are kept, and count.

    Raises:
        MemoryLimitError: The contraction does not fit.
        TypeError: The limit is no number.
        ValueError: The request does not fit the factorization, or the limit is negative.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> plan_contraction(make_shape(ModeTree.star(2), 4, 5), Request(), torch.float32, torch.device("cpu")).peak_bytes
        144
    """
    machine = CUDA if device.type == "cuda" else CPU
    itemsize = dtype.itemsize
    plan = make_plan(shape, request, itemsize=itemsize, machine=machine, recorded=recorded)
    if memory_limit is None:
        if plan.peak_bytes < _LOOKED_UP:
            return plan
        memory_limit = available_memory(device)
    elif not isinstance(memory_limit, int | float):
        raise TypeError(f"memory_limit must be a number of bytes; got {memory_limit!r}")
    elif not memory_limit >= 0:
        raise ValueError(f"memory_limit must be a number of bytes; got {memory_limit}")
    if plan.peak_bytes <= memory_limit:
        return plan
    return make_plan(shape, request, itemsize=itemsize, machine=machine, memory_limit=int(memory_limit), recorded=recorded)


def available_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device now, as the system tells.

    Example:
        >>> available_memory(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = int(psutil.virtual_memory().available)
    try:  # a container may be allowed less than the machine has
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used -= int(kinds.get("inactive_file", 0))  # contents of files, which are dropped when memory is needed
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))


def _width(mode: int, matrix: Tensor) -> int:
    if not isinstance(matrix, Tensor):
        raise TypeError(f"projected needs tensors; got {type(matrix).__name__} for mode {mode}")
    if matrix.ndim not in (1, 2) or 0 in matrix.shape:
        raise ValueError(f"projected needs vectors (D,) or matrices (D, E); got shape {tuple(matrix.shape)} for mode {mode}")
    return 0 if matrix.ndim == 1 else matrix.shape[1]


def _check_mappings(fixed: Any, projected: Any) -> None:
    for name, given in (("fixed", fixed), ("projected", projected)):
        if not isinstance(given or {}, Mapping):
            raise TypeError(f"{name} must be a mapping from modes; got {type(given).__name__}")


def _operands(
    shape: Shape, weights: Sequence[Tensor], fixed: Mapping[int, int], projected: Mapping[int, Tensor], request: Request
) -> tuple[Tensor, ...]:
    """The network's operands in its order."""
    request.check(shape.tree.order)
    operands = [weight if weight.is_contiguous() else weight.contiguous() for weight in weights]
    for mode, index in fixed.items():
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise TypeError(f"fixed needs integer indices; got {index!r} for mode {mode}")
        if not 0 <= index < shape.mode_sizes[mode]:
            raise ValueError(f"an index must be from 0 to {shape.mode_sizes[mode] - 1}; got {index} for mode {mode}")
        operands[mode] = operands[mode][index]
    for mode, matrix in sorted(projected.items()):
        if matrix.shape[0] != shape.mode_sizes[mode]:
            raise ValueError(f"a projection of mode {mode} needs {shape.mode_sizes[mode]} rows; got shape {tuple(matrix.shape)}")
        if matrix.dtype != weights[0].dtype or matrix.device != weights[0].device:
            raise ValueError(
                f"projections must have the weights' dtype and device; got {matrix.dtype} on {matrix.device} for mode {mode}, "
                f"weights are {weights[0].dtype} on {weights[0].device}"
            )
        operands.append(matrix.contiguous())
    return tuple(operands)


def _execute(plan: Plan, operands: tuple[Tensor, ...], out: Tensor | None, recording: bool) -> Tensor:
    recorded = _must_record()
    if out is not None:
        _check_out(out, plan.network.output_sizes, operands[0], recording or recorded)
    if torch.is_autocast_enabled(operands[0].device.type):
        with torch.autocast(operands[0].device.type, enabled=False):
            return _execute(plan, operands, out, recording)
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
    _run(program, list(operands), out=out)
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
