"""Runs programs on torch tensors: contraction to end tensors, slices, projections and Gram matrices, with gradients.

Where gradients are not recorded, and inside the backward pass of :class:`_Contraction`, results are written into memory that this
module allocates: on Linux in huge pages, since filling fresh small pages costs more than the arithmetic of a large contraction.
Everywhere else (double backward, torch.func, forward mode) the same program runs as recorded torch operations.
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from torch import Tensor

from tensornet.lowering import Operation, Program, lower
from tensornet.network import Request
from tensornet.plan import CPU, CUDA, Plan, make_plan
from tensornet.shape import Shape

_HUGE = 32 << 20  # bytes from which CPU tensors are put into huge pages; below, the C library reuses memory that is warm
_HUGE_PAGE = 2 << 20
_BLOCKED = 2 << 20  # entries from which a product whose rows are not aligned is computed in blocks of rows,
_BLOCK_ROWS = 256  # so many a thread
_CACHE_LINE = 64
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
        memory_limit: Bytes that intermediate results and the result may take together; by default what is free on the device.
        out: Contiguous tensor to write the result into; not where gradients are recorded.

    Returns:
        Tensor of shape ``mode_sizes`` (and ``outputs`` last, when above 1) with the asked changes. Where modes cross in the tree it
        may be a permuted view, as torch.einsum's results are.

    Raises:
        MemoryLimitError: The contraction does not fit; nothing has been allocated.
        ValueError: A mode, an index or a size does not fit the factorization.

    Example:
        >>> from tensornet import HTF, ModeTree
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=5)
        >>> part = contract(htf.shape, htf.weight_list(), fixed={0: 1, 3: 2})
        >>> bool(torch.allclose(part, htf.contract()[1, :, :, 2]))
        True
    """
    if torch.compiler.is_compiling():  # plans are not for tracing; the contraction becomes one call between two graphs
        eager: Callable[..., Tensor] = torch.compiler.disable(contract)
        return eager(shape, weights, fixed=fixed, projected=projected, memory_limit=memory_limit, out=out)
    request = _END_TENSOR
    if fixed or projected:
        request = Request.make(fixed=fixed or (), projected={mode: _width(mode, matrix) for mode, matrix in (projected or {}).items()})
    plan = plan_contraction(shape, request, weights[0].dtype, weights[0].device, memory_limit)
    return _execute(plan, _operands(shape, weights, fixed or {}, projected or {}), out)


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
    plan = plan_contraction(shape, Request.make(gram=modes), weights[0].dtype, weights[0].device, memory_limit)
    operands = _operands(shape, weights, {}, {})
    rows = math.prod(shape.mode_sizes[mode] for mode in modes)
    return _execute(plan, (*operands, *(operand.conj().resolve_conj() for operand in operands)), None).reshape(rows, rows)


_END_TENSOR = Request()


def plan_contraction(shape: Shape, request: Request, dtype: torch.dtype, device: torch.device, memory_limit: int | None = None) -> Plan:
    """The plan by which :func:`contract` would do what is asked, within ``memory_limit`` or the memory that is free.

    Raises:
        MemoryLimitError: The contraction does not fit.
        ValueError: The request does not fit the factorization, or the limit is negative.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> plan_contraction(make_shape(ModeTree.star(2), 4, 5), Request(), torch.float32, torch.device("cpu")).peak_bytes
        144
    """
    machine = CUDA if device.type == "cuda" else CPU
    itemsize = dtype.itemsize
    plan = make_plan(shape, request, itemsize=itemsize, machine=machine)
    if memory_limit is None:
        if plan.peak_bytes < _LOOKED_UP:
            return plan
        memory_limit = available_memory(device)
    elif memory_limit < 0:
        raise ValueError(f"memory_limit must be a number of bytes; got {memory_limit}")
    if plan.peak_bytes <= memory_limit:
        return plan
    return make_plan(shape, request, itemsize=itemsize, machine=machine, memory_limit=memory_limit)


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
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))


def _width(mode: int, matrix: Tensor) -> int:
    if not isinstance(matrix, Tensor):
        raise TypeError(f"projected needs tensors; got {type(matrix).__name__} for mode {mode}")
    if matrix.ndim not in (1, 2) or 0 in matrix.shape:
        raise ValueError(f"projected needs vectors (D,) or matrices (D, E); got shape {tuple(matrix.shape)} for mode {mode}")
    return 0 if matrix.ndim == 1 else matrix.shape[1]


def _operands(shape: Shape, weights: Sequence[Tensor], fixed: Mapping[int, int], projected: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
    """The network's operands in its order."""
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


def _execute(plan: Plan, operands: tuple[Tensor, ...], out: Tensor | None) -> Tensor:
    recorded = _must_record()
    recording = torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)
    if out is not None:
        _check_out(out, plan.network.output_sizes, operands[0], recording or recorded)
    if torch.is_autocast_enabled(operands[0].device.type):
        with torch.autocast(operands[0].device.type, enabled=False):
            return _execute(plan, operands, out)
    if recorded:
        return _arranged(_record(plan, operands), plan)
    if recording:
        return _arranged(_Contraction.apply(plan, *operands), plan)
    with torch.no_grad():
        if plan.slices:
            return _run_slices(plan, operands, out)
        program = _program(plan)
        if out is None:
            return _arranged(_run(program, operands)[-1], plan)
        if program.permutation:
            return out.copy_(_arranged(_run(program, operands)[-1], plan))
        _run(program, operands, out=out)
        return out


def _check_out(out: Tensor, sizes: tuple[int, ...], like: Tensor, recording: bool) -> None:
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


def _arranged(result: Tensor, plan: Plan) -> Tensor:
    """The result of a program with its axes in the asked order."""
    permutation = () if plan.slices else _program(plan).permutation
    return result.permute(permutation) if permutation else result


class _Contraction(torch.autograd.Function):
    """A whole contraction as one node of the graph, so that small ones are not slowed down by many nodes."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *operands: Tensor) -> Tensor:
        ctx.plan = plan
        ctx.save_for_backward(*operands)
        if plan.slices:
            return _run_slices(plan, operands, None)
        *slots, result = _run(_program(plan), operands, keep=True)
        ctx.intermediates = slots[len(operands) :]
        return cast(Tensor, result)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plan, operands, gradient = ctx.plan, ctx.saved_tensors, gradients[0]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            wanted = [operand for operand, need in zip(operands, needed) if need]
            found = iter(torch.autograd.grad(_record(plan, operands), wanted, gradient, create_graph=True))
            return None, *(next(found) if need else None for need in needed)
        if plan.slices:
            return None, *_run_slices_backward(plan, operands, gradient, needed)
        return None, *_run_backward(_program(plan), [*operands, *ctx.intermediates, None], gradient, needed)


# Programs


@lru_cache(maxsize=1024)
def _program(plan: Plan, window: tuple[tuple[int, int], ...] = ()) -> Program:
    """The program of a plan; ``window`` holds the sizes of the labels that are sliced."""
    return lower(plan, {**plan.network.sizes, **dict(window)})


def _run(program: Program, operands: Sequence[Tensor], *, out: Tensor | None = None, keep: bool = False) -> list[Any]:
    """All slots after running a program without recording; ``None`` for those that are no longer needed, unless ``keep`` is set.

    The last slot is a new tensor, or ``out``, in the order in which the program stores its result.
    """
    slots: list[Any] = list(operands)
    like = operands[0]
    huge = _HUGE // like.dtype.itemsize
    last = len(program.operations) - 1
    for place, operation in enumerate(program.operations):
        if place == last:
            result = _empty(program.stored, like) if out is None else out
            _apply(operation, slots[operation.left], slots[operation.right], result.view(operation.result))
        else:
            target = _empty(operation.result, like) if operation.entries >= huge else None
            result = _apply(operation, slots[operation.left], slots[operation.right], target)
        slots.append(result)
        if not keep:
            for slot in program.last_use[place]:
                slots[slot] = None
    return slots


def _apply(operation: Operation, left: Tensor, right: Tensor, target: Tensor | None) -> Tensor:
    """The contiguous result of an operation, in ``target`` where that is given."""
    if operation.kind == "product":
        first, second = _matrices(operation, left, right)
        if len(operation.result) == 3:
            return torch.bmm(first, second) if target is None else torch.bmm(first, second, out=target)
        if target is None:
            return torch.mm(first, second)
        if operation.entries >= _BLOCKED and _is_slow_whole(target):
            rows = _BLOCK_ROWS * torch.get_num_threads()
            for start in range(0, first.shape[0], rows):
                torch.mm(first[start : start + rows], second, out=target[start : start + rows])
            return target
        return torch.mm(first, second, out=target)
    first = left.as_strided(operation.left_view, operation.left_strides)
    if operation.kind == "copy":
        return (torch.empty(operation.result, dtype=left.dtype, device=left.device) if target is None else target).copy_(first)
    second = right.as_strided(operation.right_view, operation.right_strides)
    return torch.mul(first, second).contiguous() if target is None else torch.mul(first, second, out=target)


def _is_slow_whole(target: Tensor) -> bool:
    """Whether the CPU's matrix product is faster in blocks of rows: its rows do not begin at the cache's lines."""
    return target.device.type == "cpu" and target.shape[1] * target.dtype.itemsize % _CACHE_LINE != 0


def _matrices(operation: Operation, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of a product as (batched) matrices ``(m, k)`` and ``(k, n)``."""
    first = left if left.shape == operation.left_view else left.view(operation.left_view)
    second = right if right.shape == operation.right_view else right.view(operation.right_view)
    return first.mT if operation.left_flipped else first, second.mT if operation.right_flipped else second


def _run_backward(program: Program, slots: list[Any], gradient: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of the operands that need one; ``slots`` are those of the forward run."""
    count = program.operand_count
    wanted = list(needed)
    for operation in program.operations:
        wanted.append(wanted[operation.left] or wanted[operation.right])
    gradients: list[Tensor | None] = [None] * len(wanted)
    gradients[-1] = _contiguous(gradient)
    for place in reversed(range(len(program.operations))):
        operation = program.operations[place]
        incoming = gradients[count + place]
        left, right = slots[operation.left], slots[operation.right]
        gradients[count + place] = slots[count + place] = None
        if incoming is None or left is None or right is None:
            continue
        incoming = incoming.view(operation.result)
        if operation.kind == "product":
            first, second = _matrices(operation, left, right)
            if wanted[operation.left]:
                factors = (second.conj(), incoming.mT) if operation.left_flipped else (incoming, second.mH)
                gradients[operation.left] = _multiply_matrices(*factors).view(left.shape)
            if wanted[operation.right]:
                factors = (incoming.mT, first.conj()) if operation.right_flipped else (first.mH, incoming)
                gradients[operation.right] = _multiply_matrices(*factors).view(right.shape)
            continue
        views = (operation.left_view, operation.left_strides), (operation.right_view, operation.right_strides)
        for side, (slot, own, other) in enumerate(((operation.left, left, right), (operation.right, right, left))):
            if not wanted[slot] or (operation.kind == "copy" and side):
                continue
            result = _empty(own.shape, own)
            view = result.as_strided(*views[side])
            if operation.kind == "copy":
                view.copy_(incoming)
            else:
                _reduce(incoming, other.as_strided(*views[1 - side]).conj(), view)
            gradients[slot] = result
    return gradients[:count]


def _multiply_matrices(first: Tensor, second: Tensor) -> Tensor:
    if first.ndim == 3:
        return torch.bmm(first, second, out=_empty((first.shape[0], first.shape[1], second.shape[2]), first))
    return torch.mm(first, second, out=_empty((first.shape[0], second.shape[1]), first))


def _reduce(gradient: Tensor, factor: Tensor, target: Tensor) -> None:
    """``gradient * factor``, summed over the axes along which ``target`` has size 1, into ``target``."""
    axes = [axis for axis, (whole, size) in enumerate(zip(gradient.shape, target.shape)) if size == 1 != whole]
    if axes:
        product = torch.mul(gradient, factor, out=_empty(gradient.shape, gradient))
        torch.sum(product, axes, keepdim=True, out=target)
    else:
        torch.mul(gradient, factor, out=target)


def _record(plan: Plan, operands: Sequence[Tensor]) -> Tensor:
    """The result of :class:`_Contraction`, by operations that torch records."""
    if not plan.slices:
        return _record_program(_program(plan), operands)
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
        left, right = slots[operation.left].contiguous(), slots[operation.right].contiguous()
        if operation.kind == "product":
            result = torch.matmul(*_matrices(operation, left, right))
        else:
            result = left.as_strided(operation.left_view, operation.left_strides)
            if operation.kind == "multiply":
                result = result * right.as_strided(operation.right_view, operation.right_strides)
        slots.append(result.contiguous())
    return slots[-1].reshape(program.stored)


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
    return _program(plan, tuple((label, length) for label, (_, length) in window.items()))


def _cut(tensor: Tensor, labels: Sequence[int], window: Window) -> Tensor:
    for axis, label in enumerate(labels):
        if label in window:
            tensor = tensor.narrow(axis, *window[label])
    return tensor


def _cut_all(plan: Plan, operands: Sequence[Tensor], window: Window) -> list[Tensor]:
    return [_cut(_labelled(operand, labels), labels, window).contiguous() for operand, labels in zip(operands, plan.network.operands)]


def _labelled(operand: Tensor, labels: Sequence[int]) -> Tensor:
    """An operand with one axis a label: a root with one output loses its column."""
    return operand if operand.ndim == len(labels) else operand.reshape(operand.shape[: len(labels)])


def _permute_to_output(result: Tensor, plan: Plan, window: Window) -> Tensor:
    permutation = _window_program(plan, window).permutation
    return result.permute(permutation) if permutation else result


def _run_slices(plan: Plan, operands: Sequence[Tensor], out: Tensor | None) -> Tensor:
    total = _empty(plan.network.output_sizes, operands[0]) if out is None else out
    total.zero_()
    for window in _windows(plan):
        part = _run(_window_program(plan, window), _cut_all(plan, operands, window))[-1]
        _cut(total, plan.network.output, window).add_(_permute_to_output(part, plan, window))
    return total


def _run_slices_backward(plan: Plan, operands: Sequence[Tensor], gradient: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
    """Gradients slice by slice; the intermediate results of each are computed again, so that memory stays within the limit."""
    totals = [torch.zeros_like(operand) if need else None for operand, need in zip(operands, needed)]
    for window in _windows(plan):
        program = _window_program(plan, window)
        slots = _run(program, _cut_all(plan, operands, window), keep=True)
        incoming = _cut(gradient, plan.network.output, window)
        if program.permutation:
            inverse = sorted(range(len(program.permutation)), key=program.permutation.__getitem__)
            incoming = incoming.permute(inverse)
        for total, labels, part in zip(totals, plan.network.operands, _run_backward(program, slots, incoming, needed)):
            if total is not None and part is not None:
                _cut(_labelled(total, labels), labels, window).add_(part)
    return totals


# Memory


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """New memory for a contiguous tensor; large ones on the CPU lie in huge pages where the system has them."""
    size = math.prod(shape) * like.dtype.itemsize
    if size < _HUGE or like.device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(shape)
    block = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    data = torch.frombuffer(block, dtype=torch.uint8)
    start = -data.data_ptr() % _HUGE_PAGE
    return data[start : start + size].view(like.dtype).view(shape)


def _contiguous(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_contiguous() else _empty(tensor.shape, tensor).copy_(tensor)
