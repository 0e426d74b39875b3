"""``Program`` -> ``Program``: the reverse of a program, which pulls a gradient of its result back to its operands; no tensors.

Every operation is linear in each of its factors, so that the gradient of a factor is again a product of the operation's gradient and
the other factor: of matrices for a matrix product, elementwise and summed over the broadcast axes for an elementwise one. Nothing is
conjugated: for complex numbers, conjugate the gradient that comes in and those that come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tensornet.contraction.lowering import Operation, Program, Sizes, contiguous_strides, last_use

_TURNED = 1 << 22  # multiply-adds of a product from which it is worth it to store a gradient transposed


@dataclass(frozen=True, eq=False)
class Adjoint:
    """The reverse of a program.

    Attributes:
        operations: What is done, in order. Slots hold those of the program first, where the gradient of the result, as it is stored,
            takes the place of the result; then the results of these operations.
        last_use: For every operation, the slots of intermediate results and their gradients that are not read again after it.
        gradients: For every operand the slot of its gradient, with the shape that the operand has; -1 where none is wanted.
    """

    operations: tuple[Operation, ...]
    last_use: tuple[tuple[int, ...], ...]
    gradients: tuple[int, ...]


def reverse(program: Program, needed: Sequence[bool]) -> Adjoint:
    """The reverse of a program, for those operands whose gradients are needed.

    Args:
        program: The program.
        needed: For every operand, whether its gradient is needed.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> program = make_plan(make_shape(ModeTree.star(2), 4, 5)).program
        >>> [operation.kind for operation in reverse(program, [True, True, False]).operations]
        ['product', 'product', 'multiply']
    """
    count = len(program.operands)
    wanted = list(needed)
    for operation in program.operations:
        wanted.append(wanted[operation.left] or wanted[operation.right])
    fresh = len(wanted)
    found = {fresh - 1: (fresh - 1, contiguous_strides(program.operations[-1].result))}  # slot -> slot of its gradient, strides there
    operations: list[Operation] = []
    for place in reversed(range(len(program.operations))):
        operation = program.operations[place]
        incoming, strides = found.pop(count + place, (-1, ()))
        if incoming < 0:
            continue
        left = _Factor(operation.left, operation.left_view, operation.left_strides)
        right = _Factor(operation.right, operation.right_view, operation.right_strides)
        gradient = _Factor(incoming, operation.result, strides)
        for own, other in ((left, right), (right, left))[: 1 if operation.kind == "copy" else 2]:
            if not wanted[own.slot]:
                continue
            result = program.operands[own.slot] if own.slot < count else program.operations[own.slot - count].result
            strides = contiguous_strides(result)
            if operation.kind == "multiply":
                made = _of_factor(own, other, gradient)
            elif operation.kind == "copy":
                made = _of_copied(own, gradient)
            else:
                turned = None
                work = math.prod(operation.result) * operation.left_view[-1]
                if work >= _TURNED and own.slot >= count and (own.strides[-1] == 1) != (gradient.strides[-1] == 1):
                    turned = _turned_strides(result, own.view if own.strides[-1] == 1 else own.turned.view)
                strides = turned or strides
                made = _of_matrix(own, other, gradient, left=own is left, as_stored=not turned)
            found[own.slot] = fresh + len(operations), strides
            operations.append(made)
    finished = tuple(operations)
    dead = tuple(tuple(slot for slot in slots if slot != fresh - 1) for slots in last_use(finished, count))
    slots = tuple(found.get(slot, (-1, ()))[0] for slot in range(count))
    return Adjoint(finished, tuple(tuple(slot for slot in gone if slot not in slots) for gone in dead), slots)


@dataclass(frozen=True)
class _Factor:
    """A strided view of a slot."""

    slot: int
    view: Sizes
    strides: Sizes

    @property
    def turned(self) -> _Factor:
        """The transposed matrix, or matrices."""
        return _Factor(self.slot, (*self.view[:-2], *reversed(self.view[-2:])), (*self.strides[:-2], *reversed(self.strides[-2:])))

    def permuted(self, order: Sequence[int]) -> _Factor:
        """The view with its axes in another order."""
        return _Factor(self.slot, tuple(self.view[axis] for axis in order), tuple(self.strides[axis] for axis in order))


def _of_matrix(own: _Factor, other: _Factor, gradient: _Factor, *, left: bool, as_stored: bool) -> Operation:
    """For ``Z = X Y``: ``dX = dZ Y^T`` and ``dY = X^T dZ``, or the transpose of that.

    Of the two, libraries are up to a third faster with the one whose long rows run as those of ``dZ``; but gradients of operands must
    be stored as these are.
    """
    first, second = (gradient, other.turned) if left else (other.turned, gradient)
    if (own.strides[-1] != 1) == as_stored:
        first, second = second.turned, first.turned
    shape = (*first.view[:-1], second.view[-1])
    return Operation("product", first.slot, second.slot, shape, first.view, first.strides, second.view, second.strides)


def _turned_strides(shape: Sizes, matrix: Sizes) -> Sizes | None:
    """Strides of a tensor that is the transpose of a matrix in memory; ``None`` where an axis lies across rows and columns."""
    if len(matrix) > 2:
        return None
    rows = next((axis for axis in range(len(shape) + 1) if math.prod(shape[:axis]) == matrix[0]), None)
    if rows is None:
        return None
    return (*contiguous_strides(shape[:rows]), *(matrix[0] * stride for stride in contiguous_strides(shape[rows:])))


def _of_factor(own: _Factor, other: _Factor, gradient: _Factor) -> Operation:
    """For ``Z = X * Y`` with broadcasting: ``dX = sum dZ * Y`` over the axes along which X is broadcast, in the order X is stored in."""
    axes = range(len(own.view))
    summed = tuple(axis for axis in axes if own.view[axis] == 1 != gradient.view[axis])
    stored = iter(sorted((axis for axis in axes if axis not in summed), key=lambda axis: -own.strides[axis]))
    order = [axis if axis in summed else next(stored) for axis in axes]
    gradient, other = gradient.permuted(order), other.permuted(order)
    shape = tuple(size for axis, size in enumerate(gradient.view) if axis not in summed)
    return Operation(
        "multiply", gradient.slot, other.slot, shape, gradient.view, gradient.strides, other.view, other.strides, summed=summed
    )


def _of_copied(own: _Factor, gradient: _Factor) -> Operation:
    gradient = gradient.permuted(sorted(range(len(own.view)), key=lambda axis: -own.strides[axis]))
    return Operation("copy", gradient.slot, gradient.slot, gradient.view, gradient.view, gradient.strides)
