"""The operations of programs as functions on tensors, with all that is known beforehand decided beforehand.

A small contraction takes a few microseconds an operation, so that shapes, strides and the ways to compute are fixed when a program is
bound, once, to the kind of numbers and of device that it will run on. Large results on the CPU lie in huge pages where the system has
them, since filling fresh small pages costs more than the arithmetic of a large contraction.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, cast

import torch
from torch import Tensor

from tensornet.contraction.lowering import Operation, Sizes, contiguous_strides

_HUGE = 32 << 20  # bytes from which CPU tensors are put into huge pages; below, the C library reuses memory that is warm
_HUGE_PAGE = 2 << 20
_BLOCKED = 2 << 20  # entries from which a product whose rows are not aligned is computed in blocks of rows,
_BLOCK_ROWS = 256  # so many a thread
_CACHE_LINE = 64


# Computes one operation from the slots, into a second argument where one is given, and returns its contiguous result.
Kernel = Callable[..., Tensor]
Steps = tuple[tuple[Kernel, Sizes], ...]  # for every operation its kernel, and the slots that are not needed after it


def bind(operations: Sequence[Operation], last_use: Sequence[Sizes], shapes: Sequence[Sizes], dtype: torch.dtype, *, cpu: bool) -> Steps:
    """Prepares operations for tensors of one dtype on one kind of device.

    Args:
        operations: The operations.
        last_use: For every operation, the slots that are not needed after it.
        shapes: Shapes of the inputs.
        dtype: Type of all numbers.
        cpu: Whether the tensors lie in the CPU's memory.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> program = make_plan(make_shape(ModeTree.star(2), 4, 5)).program
        >>> len(bind(program.operations, program.last_use, program.operands, torch.float32, cpu=True))
        2
    """
    known = list(shapes)
    steps: list[tuple[Kernel, Sizes]] = []
    for operation, dead in zip(operations, last_use):
        huge = cpu and math.prod(operation.left_view if operation.summed else operation.result) * dtype.itemsize >= _HUGE
        if operation.kind == "product":
            # the CPU's matrix product is slow where the rows of a large result do not begin at the cache's lines
            *batch, rows, columns = operation.result
            blocked = cpu and not batch and rows * columns >= _BLOCKED and columns * dtype.itemsize % _CACHE_LINE != 0
            kernel = _product(operation, known, huge=huge, blocked=blocked)
        elif operation.kind == "copy":
            kernel = _copy(operation, known)
        elif operation.summed:
            kernel = _summed(operation, known, huge=huge, reusable=operation.left in dead and operation.left >= len(shapes))
        else:
            kernel = _multiply(operation, known, huge=huge)
        known.append(operation.result)
        steps.append((kernel, dead))
    return tuple(steps)


def run(steps: Steps, slots: list[Any], *, out: Tensor | None = None, keep: bool = False) -> None:
    """Runs bound operations and appends their results to ``slots``.

    Args:
        steps: What :func:`bind` made.
        slots: The inputs.
        out: Where to write the last result.
        keep: Keep intermediate results that are no longer needed; otherwise ``None`` takes their places.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> program = make_plan(make_shape(ModeTree.star(2), 4, 5)).program
        >>> slots = [torch.ones(4, 5), torch.ones(4, 5), torch.ones(5, 1)]
        >>> run(bind(program.operations, program.last_use, program.operands, torch.float32, cpu=True), slots)
        >>> slots[-1].tolist()[0]
        [5.0, 5.0, 5.0, 5.0]
    """
    last = len(steps) - 1
    for place, (kernel, dead) in enumerate(steps):
        slots.append(kernel(slots) if place < last or out is None else kernel(slots, out))
        if not keep:
            for slot in dead:
                slots[slot] = None


def _product(operation: Operation, shapes: Sequence[Sizes], *, huge: bool, blocked: bool) -> Kernel:
    result = operation.result
    read_left = _reader(operation.left, operation.left_view, operation.left_strides, shapes)
    read_right = _reader(operation.right, operation.right_view, operation.right_strides, shapes)
    multiply = torch.mm if len(result) == 2 else torch.bmm

    def kernel(slots: Sequence[Any], out: Tensor | None = None) -> Tensor:
        first, second = read_left(slots), read_right(slots)
        if out is None:
            if not huge and not blocked:
                return multiply(first, second)
            out = empty(result, first)
        target = out.view(result)
        if not blocked:
            return multiply(first, second, out=target)
        rows = _BLOCK_ROWS * torch.get_num_threads()
        for start in range(0, result[0], rows):
            torch.mm(first[start : start + rows], second, out=target[start : start + rows])
        return target

    return kernel


def _multiply(operation: Operation, shapes: Sequence[Sizes], *, huge: bool) -> Kernel:
    result = operation.result
    read_left, read_right = _broadcast_readers(operation, shapes)
    plain = not huge and _is_contiguous_product(operation)

    def kernel(slots: Sequence[Any], out: Tensor | None = None) -> Tensor:
        first, second = read_left(slots), read_right(slots)
        if plain and out is None:
            return torch.mul(first, second)
        return torch.mul(first, second, out=empty(result, first) if out is None else out.view(result))

    return kernel


def _summed(operation: Operation, shapes: Sequence[Sizes], *, huge: bool, reusable: bool) -> Kernel:
    read_left, read_right = _broadcast_readers(operation, shapes)
    view, axes = operation.left_view, tuple(reversed(operation.summed))

    def kernel(slots: Sequence[Any], out: Tensor | None = None) -> Tensor:
        first, second = read_left(slots), read_right(slots)
        result = torch.mul(first, second, out=first if reusable else empty(view, first) if huge else None)
        for axis in axes:  # one by one, which is several times faster than together
            result = torch.sum(result, axis)
        return result.contiguous() if out is None else out.copy_(result)

    return kernel


def _copy(operation: Operation, shapes: Sequence[Sizes]) -> Kernel:
    result = operation.result
    read = _reader(operation.left, operation.left_view, operation.left_strides, shapes)

    def kernel(slots: Sequence[Any], out: Tensor | None = None) -> Tensor:
        first = read(slots)
        return (empty(result, first) if out is None else out.view(result)).copy_(first)

    return kernel


def _reader(slot: int, view: Sizes, strides: Sizes, shapes: Sequence[Sizes]) -> Callable[[Sequence[Any]], Tensor]:
    """Reads a strided view of a slot."""
    if view == shapes[slot] and strides == contiguous_strides(view):
        return itemgetter(slot)
    return lambda slots: cast(Tensor, slots[slot].as_strided(view, strides))


def _broadcast_readers(operation: Operation, shapes: Sequence[Sizes]) -> tuple[Callable[[Sequence[Any]], Tensor], ...]:
    """Readers of both factors, one without those leading axes of size 1 that broadcasting restores: more are read as they are."""
    left, right = (operation.left_view, operation.left_strides), (operation.right_view, operation.right_strides)
    if left[0][:1] != (1,):
        right = _without_leading_ones(*right)
    elif right[0][:1] != (1,):
        left = _without_leading_ones(*left)
    return _reader(operation.left, *left, shapes), _reader(operation.right, *right, shapes)


def _without_leading_ones(view: Sizes, strides: Sizes) -> tuple[Sizes, Sizes]:
    start = next((axis for axis, size in enumerate(view) if size != 1), len(view))
    return view[start:], strides[start:]


def _is_contiguous_product(operation: Operation) -> bool:
    """Whether torch gives the elementwise product of the views a contiguous layout of its own accord."""
    left = torch.empty_strided(operation.left_view, operation.left_strides, device="meta")
    return torch.mul(left, torch.empty_strided(operation.right_view, operation.right_strides, device="meta")).is_contiguous()


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """New memory for a contiguous tensor; large ones on the CPU lie in huge pages where the system has them.

    Example:
        >>> empty((4, 3), torch.zeros(1)).shape
        torch.Size([4, 3])
    """
    size = math.prod(shape) * like.dtype.itemsize
    if size < _HUGE or like.device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(shape)
    block = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(block, dtype=torch.uint8).data_ptr() % _HUGE_PAGE
    return torch.frombuffer(block, dtype=like.dtype, offset=start, count=math.prod(shape)).resize_(shape)
