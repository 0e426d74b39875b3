"""The operations of programs as functions on tensors, with all that is known beforehand decided beforehand.

A small contraction takes a few microseconds an operation, so that shapes, strides and the ways to compute are fixed when a program is
bound, once, to the kind of numbers and of device that it will run on. Large results on the CPU lie in huge pages where the system has
them, since filling fresh small pages costs more than the arithmetic of a large contraction.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from functools import cache
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


Kernel = Callable[..., Tensor]  # computes an operation from views of its factors, into ``out`` where it is given
Reader = Callable[[Sequence[Any]], Tensor]
Steps = tuple[tuple[Kernel, Reader, Reader, Sizes], ...]  # of every operation also the readers of its factors, and the slots dead after it
Factor = tuple[Sizes, Sizes]  # shape and strides of a view


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
    steps: list[tuple[Kernel, Reader, Reader, Sizes]] = []
    for operation, dead in zip(operations, last_use):
        left, right = factors(operation)
        reusable = operation.left in dead and operation.left >= len(shapes)
        read_left = _reader(operation.left, left, known)
        read_right = read_left if operation.kind == "copy" else _reader(operation.right, right, known)
        steps.append((kernel(operation, dtype, cpu=cpu, reusable=reusable), read_left, read_right, dead))
        known.append(operation.result)
    return tuple(steps)


def run(steps: Steps, slots: list[Any], *, out: Tensor | None = None, keep: bool = False) -> None:
    """Runs bound operations and appends their results to ``slots``.

    Args:
        steps: What :func:`bind` made.
        slots: The inputs.
        out: Where to write the last result, of the last operation's shape.
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
    for place, (compute, read_left, read_right, dead) in enumerate(steps):
        slots.append(compute(read_left(slots), read_right(slots), out=out if place == last else None))
        if not keep:
            for slot in dead:
                slots[slot] = None


def kernel(operation: Operation, dtype: torch.dtype, *, cpu: bool, reusable: bool = False) -> Kernel:
    """The function that computes an operation from views of its factors, as :func:`factors` gives them.

    Its result is contiguous, or written into an argument ``out``, which may have other strides.

    Args:
        operation: The operation.
        dtype: Type of all numbers.
        cpu: Whether they lie in the CPU's memory.
        reusable: Whether the left factor's memory is the operation's to overwrite.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> product = make_plan(make_shape(ModeTree.star(2), 4, 5)).program.operations[-1]
        >>> kernel(product, torch.float32, cpu=True)(torch.ones(4, 5), torch.ones(5, 4)).shape
        torch.Size([4, 4])
    """
    huge = cpu and math.prod(operation.left_view if operation.summed else operation.result) * dtype.itemsize >= _HUGE
    if operation.kind == "product":
        # the CPU's matrix product is slow where the rows of a large result do not begin at the cache's lines
        *batch, rows, columns = operation.result
        blocked = cpu and not batch and rows * columns >= _BLOCKED and columns * dtype.itemsize % _CACHE_LINE != 0
        return _product(operation, huge=huge, blocked=blocked)
    if operation.kind == "copy":
        return _copy(operation)
    if operation.summed:
        return _summed(operation, huge=huge, reusable=reusable)
    return _multiply(operation, huge=huge)


def factors(operation: Operation) -> tuple[Factor, Factor]:
    """Views of both factors, one without those leading axes of size 1 that broadcasting restores: more are read as they are.

    Example:
        >>> factors(Operation("multiply", 0, 1, (3, 4), (3, 4), (4, 1), (1, 4), (0, 1)))
        (((3, 4), (4, 1)), ((4,), (1,)))
    """
    left, right = (operation.left_view, operation.left_strides), (operation.right_view, operation.right_strides)
    if operation.kind == "multiply":
        if left[0][:1] != (1,):
            right = _without_leading_ones(*right)
        elif right[0][:1] != (1,):
            left = _without_leading_ones(*left)
    return left, right


def _product(operation: Operation, *, huge: bool, blocked: bool) -> Kernel:
    result = operation.result
    multiply: Kernel = torch.mm if len(result) == 2 else torch.bmm
    if not huge and not blocked:
        return multiply

    def compute(first: Tensor, second: Tensor, out: Tensor | None = None) -> Tensor:
        out = empty(result, first) if out is None else out
        if not blocked:
            return multiply(first, second, out=out)
        rows = _BLOCK_ROWS * torch.get_num_threads()
        for start in range(0, result[0], rows):
            torch.mm(first[start : start + rows], second, out=out[start : start + rows])
        return out

    return compute


def _multiply(operation: Operation, *, huge: bool) -> Kernel:
    result = operation.result
    plain = cache(lambda: not huge and _is_contiguous_product(operation))  # found out where it is needed

    def compute(first: Tensor, second: Tensor, out: Tensor | None = None) -> Tensor:
        if out is None and plain():
            return torch.mul(first, second)
        return torch.mul(first, second, out=empty(result, first) if out is None else out)

    return compute


def _summed(operation: Operation, *, huge: bool, reusable: bool) -> Kernel:
    view, (*axes, last) = operation.left_view, reversed(operation.summed)

    def compute(first: Tensor, second: Tensor, out: Tensor | None = None) -> Tensor:
        result = torch.mul(first, second, out=first if reusable else empty(view, first) if huge else None)
        for axis in axes:  # one by one, which is several times faster than together
            result = torch.sum(result, axis)
        return torch.sum(result, last).contiguous() if out is None else torch.sum(result, last, out=out)

    return compute


def _copy(operation: Operation) -> Kernel:
    result = operation.result

    def compute(first: Tensor, _: Tensor, out: Tensor | None = None) -> Tensor:
        return (empty(result, first) if out is None else out).copy_(first)

    return compute


def _reader(slot: int, factor: Factor, shapes: Sequence[Sizes]) -> Reader:
    """Reads a strided view of a slot."""
    view, strides = factor
    if view == shapes[slot] and strides == contiguous_strides(view):
        return itemgetter(slot)
    return lambda slots: cast(Tensor, slots[slot].as_strided(view, strides))


def _without_leading_ones(view: Sizes, strides: Sizes) -> Factor:
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
