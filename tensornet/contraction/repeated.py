"""A contraction to the end tensor and its reverse, prepared once on memory of their own, for loops that repeat them.

``Shape`` -> ``Plan`` -> ``Program`` and ``Adjoint`` -> batches of operations (:mod:`tensornet.contraction.batching`) -> calls of torch
whose arguments, views of memory that never moves, are made beforehand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from tensornet.contraction.adjoint import reverse
from tensornet.contraction.batching import Layout, Place, Placed, reuse
from tensornet.contraction.execute import plan_contraction
from tensornet.contraction.kernels import empty, factors, kernel
from tensornet.contraction.lowering import Sizes
from tensornet.contraction.network import Request
from tensornet.contraction.plan import MemoryLimitError, memory
from tensornet.shape import Shape

_WEIGHTS, _GRADIENTS, _INCOMING = range(3)  # the first buffers


class RepeatedContraction:
    """The end tensor of weights that lie side by side in one vector, and the pullback of gradients of it, both again and again.

    Nodes that are alike are computed together where the tree's order lets their weights lie at equal distances, as it does for
    perfect trees. No memory is allocated by a call but for sums, and nothing is recorded for automatic differentiation.

    Args:
        shape: Tree and sizes.
        weights: All weights, each flattened, in the order of ``shape.tree.nodes``; real numbers. Its values may change between calls.
        gradients: A vector of that size, where gradients are written.
        needed: For every weight, whether its gradient is wanted; of others, the part of ``gradients`` stays as it is.

    Attributes:
        end: The end tensor, of the shape ``mode_sizes`` (and ``outputs`` last, when above 1); :meth:`contract` overwrites it.
        end_gradient: A tensor of that shape, from which :meth:`pull_back` reads the gradient of the end tensor.

    Raises:
        MemoryLimitError: The contraction does not fit into the memory that is free, or only in slices.
        ValueError: The vectors do not fit the shape.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> weights, gradients = torch.ones(25), torch.zeros(25)
        >>> repeated = RepeatedContraction(make_shape(ModeTree.star(2), 2, 5), weights, gradients, [True] * 3)
        >>> repeated.contract()
        tensor([[5., 5.],
                [5., 5.]])
        >>> repeated.end_gradient.copy_(torch.eye(2))
        tensor([[1., 0.],
                [0., 1.]])
        >>> repeated.pull_back()
        >>> gradients[:10]
        tensor([1., 1., 1., 1., 1., 1., 1., 1., 1., 1.])
    """

    def __init__(self, shape: Shape, weights: Tensor, gradients: Tensor, needed: Sequence[bool]) -> None:
        sizes = [rows * columns for rows, columns in shape.weights]
        for name, vector in (("weights", weights), ("gradients", gradients)):
            given = f"{vector.dtype} {tuple(vector.shape)}"
            if vector.shape != (sum(sizes),) or not vector.is_contiguous() or vector.dtype != weights.dtype or vector.is_complex():
                raise ValueError(f"{name} must be a contiguous vector of {sum(sizes)} real numbers; got {given}")
        plan = plan_contraction(shape, Request(), weights.dtype, weights.device, recorded=True)
        if plan.slices:
            raise MemoryLimitError(f"repeated contractions need {memory(plan.output_bytes)} for the end tensor, and more for what is kept")
        program = plan.program
        adjoint = reverse(program, needed)
        result = len(program.operands) + len(program.operations) - 1
        operands = [Place(_WEIGHTS, start) for start in itertools.accumulate(sizes[:-1], initial=0)]
        layout = Layout([sum(sizes), sum(sizes), math.prod(shape.end_sizes)], operands)
        forward = layout.placed(layout.add(program.operations))
        end = forward[-1].result
        layout.places[result] = Place(_INCOMING)
        targets = {slot: Place(_GRADIENTS, place.offset) for slot, place in zip(adjoint.gradients, operands) if slot >= 0}
        backward = layout.placed(layout.add(adjoint.operations, targets, late=True))
        memories = reuse([*forward, *backward], layout.buffers, kept=[_WEIGHTS, _GRADIENTS, _INCOMING, end.buffer])
        buffers = [weights.detach(), gradients]
        for number in range(_INCOMING, len(memories)):
            buffers.append(empty((layout.buffers[number],), weights) if memories[number] == number else buffers[memories[number]])
        self._forward = [_call(placed, buffers) for placed in forward]
        self._backward = [_call(placed, buffers) for placed in backward]
        self.end, self.end_gradient = buffers[end.buffer].view(program.stored), buffers[_INCOMING].view(program.stored)
        if program.permutation:  # the program stores the end tensor's axes in another order
            stored, stored_gradient = (tensor.permute(program.permutation) for tensor in (self.end, self.end_gradient))
            self.end, self.end_gradient = (empty(shape.end_sizes, weights) for _ in range(2))
            self._forward.append(partial(self.end.copy_, stored))
            self._backward.insert(0, partial(stored_gradient.copy_, self.end_gradient))

    @torch.no_grad()
    def contract(self) -> Tensor:
        """The end tensor of the weights as they are now, :attr:`end`.

        Example:
            >>> RepeatedContraction.contract.__name__
            'contract'
        """
        for call in self._forward:
            call()
        return self.end

    @torch.no_grad()
    def pull_back(self) -> None:
        """Writes the gradients of the weights that belong to :attr:`end_gradient` and the latest :meth:`contract`.

        Example:
            >>> RepeatedContraction.pull_back.__name__
            'pull_back'
        """
        for call in self._backward:
            call()


def _call(placed: Placed, buffers: Sequence[Tensor]) -> Callable[[], Tensor]:
    """One operation on views of buffers."""
    operation = placed.operation

    def view(buffer: int, offset: int, sizes: Sizes, strides: Sizes) -> Tensor:
        return buffers[buffer].as_strided(sizes, strides, buffers[buffer].storage_offset() + offset)

    left_factor, right_factor = factors(operation)
    left = view(operation.left, placed.left, *left_factor)
    right = left if operation.kind == "copy" else view(operation.right, placed.right, *right_factor)
    out = view(placed.result.buffer, placed.result.offset, operation.result, placed.strides)
    return partial(kernel(operation, left.dtype, cpu=left.device.type == "cpu"), left, right, out)
