"""Elementwise products, summed over axes, as nests of compiled loops: one pass over memory where torch makes two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tensornet.compiled import SMALL, CompiledCall, compilable
from tensornet.contraction.lowering import Operation, Sizes

_SMALL_UNSUMMED = 1 << 15  # the same without sums: results as large as the loops, which two threads write in less time
_MOST_TERMS = 512  # of a sum, which is added up in the numbers' own precision
_KEPT, _SUMMED = 3, 2  # axes of the loops besides the innermost one

Axis = tuple[int, int, int, int]  # size, and strides of the left factor, the right one and the result


def nest(operation: Operation, strides: Sizes, left: Tensor, right: Tensor, out: Tensor) -> CompiledCall | None:
    """The elementwise product of two tensors, summed as the operation says, as a function that writes it to ``out``.

    ``None`` where compiled loops cannot do it, or are of no use: for empty or large tensors, other than real numbers on the CPU, many axes,
    sums of many terms, and where no axis of the result is contiguous in all three tensors.

    Args:
        operation: An operation of the kind ``"multiply"``.
        strides: Strides of its result.
        left: The left factor, from its first number on.
        right: The right factor.
        out: The result.

    Example:
        >>> operation = Operation("multiply", 0, 1, (3,), (2, 3), (3, 1), (2, 3), (3, 1), summed=(0,))
        >>> left, right, out = torch.ones(2, 3), torch.arange(6.0), torch.empty(3)
        >>> nest(operation, (1,), left, right, out)()
        >>> out
        tensor([3., 5., 7.])
    """
    sizes = [0 if 0 in pair else max(pair) for pair in zip(operation.left_view, operation.right_view)]
    terms = math.prod(sizes[axis] for axis in operation.summed)
    largest = SMALL if operation.summed else _SMALL_UNSUMMED
    if not compilable(left) or not 0 < math.prod(sizes) <= largest or terms > _MOST_TERMS:
        return None
    axes = _axes(operation, strides)
    if axes is None:
        return None
    return CompiledCall(multiply_sum, left, right, out, torch.tensor(axes).view(-1))


def _axes(operation: Operation, strides: Sizes) -> list[Axis] | None:
    """The axes of the loops, from the outermost to the innermost."""
    kept, summed = [], []
    remaining = iter(strides)
    for place, (rows, columns) in enumerate(zip(operation.left_view, operation.right_view)):
        left = operation.left_strides[place] if rows > 1 else 0
        right = operation.right_strides[place] if columns > 1 else 0
        if place in operation.summed:
            summed.append((max(rows, columns), left, right, 0))
        else:
            kept.append((max(rows, columns), left, right, next(remaining)))
    outer, inner = _merged(kept), _merged(summed)
    contiguous = next((axis for axis in outer if axis[1:] == (1, 1, 1)), None)
    if contiguous is None or len(outer) > _KEPT + 1 or len(inner) > _SUMMED:
        return None
    outer.remove(contiguous)
    one = (1, 0, 0, 0)
    return [*[one] * (_KEPT - len(outer)), *outer, *[one] * (_SUMMED - len(inner)), *inner, contiguous]


def _merged(axes: Sequence[Axis]) -> list[Axis]:
    """The axes without those of size 1, and with one in place of two that follow each other in all three tensors."""
    merged: list[Axis] = []
    for axis in axes:
        if axis[0] == 1:
            continue
        if merged and all(outer == axis[0] * inner for outer, inner in zip(merged[-1][1:], axis[1:])):
            axis = (merged.pop()[0] * axis[0], *axis[1:])
        merged.append(axis)
    return merged


def multiply_sum(left: Any, right: Any, out: Any, axes: Any) -> None:
    """``out[..., q] = sum left[..., q] * right[..., q]``, over four places of the inner summed axis at a time.

    Args:
        left: Numbers.
        right: Numbers.
        out: Numbers, which are overwritten.
        axes: Size and strides of three axes that are kept, two that are summed, and the innermost one, which is contiguous.

    Example:
        >>> out = [0.0]
        >>> multiply_sum([3.0], [5.0], out, [1, 0, 0, 0] * 5 + [1, 1, 1, 1])
        >>> out
        [15.0]
    """
    inner, left_step, right_step, width = axes[16], axes[17], axes[18], axes[20]
    first = 1 + (inner - 1) % 4  # places before those that are done by fours
    for a in range(axes[0]):
        for b in range(axes[4]):
            for c in range(axes[8]):
                o = a * axes[3] + b * axes[7] + c * axes[11]
                for outer in range(axes[12]):
                    x = a * axes[1] + b * axes[5] + c * axes[9] + outer * axes[13]
                    y = a * axes[2] + b * axes[6] + c * axes[10] + outer * axes[14]
                    for place in range(first):
                        if outer + place == 0:
                            for q in range(width):
                                out[o + q] = left[x + q] * right[y + q]
                        else:
                            for q in range(width):
                                out[o + q] += left[x + q] * right[y + q]
                        x += left_step
                        y += right_step
                    for _ in range(first, inner, 4):
                        x1, x2, x3 = x + left_step, x + 2 * left_step, x + 3 * left_step
                        y1, y2, y3 = y + right_step, y + 2 * right_step, y + 3 * right_step
                        for q in range(width):
                            half = left[x + q] * right[y + q] + left[x1 + q] * right[y1 + q]
                            out[o + q] += half + (left[x2 + q] * right[y2 + q] + left[x3 + q] * right[y3 + q])
                        x += 4 * left_step
                        y += 4 * right_step
