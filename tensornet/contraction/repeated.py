"""A contraction to the end tensor and its reverse, prepared once on memory of their own, for loops that repeat them.

``Shape`` -> ``Plan`` -> ``Program`` and ``Adjoint`` -> batches of operations (:mod:`tensornet.contraction.batching`) -> calls of torch
whose arguments, views of memory that never moves, are made beforehand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor
from torch.autograd.graph import increment_version

from tensornet.checks import short
from tensornet.contraction.adjoint import reverse
from tensornet.contraction.batching import Layout, Place, Placed, reuse
from tensornet.contraction.execute import need_memory, plan_contraction
from tensornet.contraction.kernels import empty, factors, kernel
from tensornet.contraction.lowering import Sizes
from tensornet.contraction.nests import nest
from tensornet.contraction.network import Request
from tensornet.contraction.plan import MemoryLimitError, memory
from tensornet.shape import Shape

_WEIGHTS, _GRADIENTS, _INCOMING = range(3)  # the first buffers


class RepeatedContraction:
    """The end tensor of weights that lie side by side in one vector, and the pullback of a gradient of it, prepared for many times.

    Nodes that are alike are computed together where their weights lie at equal distances. A call allocates no memory but for sums, and
    records nothing for automatic differentiation.

    Args:
        shape: Tree and sizes.
        weights: All weights, each flattened; real numbers. Its values may change between calls.
        gradients: A vector of that size, where gradients are written.
        needed: For every node, whether the gradient of its weight is wanted; of others, the part of ``gradients`` stays as it is.
        order: Ids of all nodes in the order in which their weights lie in the vectors; that of ``shape.tree.nodes`` by default. Nodes
            of a level that lie side by side are the most that can be computed together.

    Attributes:
        end: The end tensor, of the shape ``mode_sizes`` (and ``outputs`` last, when above 1); :meth:`contract` overwrites it.
        end_gradient: A tensor of that shape, from which :meth:`pull_back` reads the gradient of the end tensor.

    Raises:
        MemoryLimitError: The contraction does not fit into the memory that is free, or only in slices.
        ValueError: The vectors, ``needed`` or ``order`` do not fit the shape.

    Example:
        >>> import torch
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

    def __init__(
        self, shape: Shape, weights: Tensor, gradients: Tensor, needed: Sequence[bool], order: Sequence[int] | None = None
    ) -> None:
        order = range(len(shape.weights)) if order is None else order
        starts = _checked(shape, weights, gradients, needed, order)
        plan = plan_contraction(shape, Request(), weights.dtype, weights.device, recorded=True)
        if plan.slices:
            raise MemoryLimitError(f"repeated contractions need {memory(plan.output_bytes)} for the end tensor, and more for what is kept")
        program = plan.program
        adjoint = reverse(program, needed)
        operands = [Place(_WEIGHTS, start) for start in starts]
        layout = Layout([len(weights), len(weights), math.prod(shape.end_sizes)], operands)
        forward = layout.placed(layout.add(program.operations))
        end = forward[-1].result.buffer
        layout.places[-1] = Place(_INCOMING)
        targets = {slot: Place(_GRADIENTS, start) for slot, start in zip(adjoint.gradients, starts) if slot >= 0}
        backward = layout.placed(layout.add(adjoint.operations, targets, late=True))
        memories = reuse([*forward, *backward], layout.buffers, kept=[_WEIGHTS, _GRADIENTS, _INCOMING])
        own = [size for number, (size, taken) in enumerate(zip(layout.buffers, memories)) if number >= _INCOMING and number == taken]
        turned = bool(program.permutation)  # the program stores the end tensor's axes in another order
        need_memory((sum(own) + 2 * turned * layout.buffers[_INCOMING]) * weights.itemsize, weights.device)
        self._gradients = gradients.detach()
        buffers = [weights.detach(), self._gradients]
        for number in range(_INCOMING, len(memories)):
            buffers.append(empty((layout.buffers[number],), weights) if memories[number] == number else buffers[memories[number]])
        self._forward = [_call(placed, buffers) for placed in forward]
        self._backward = [_call(placed, buffers) for placed in backward]
        self.end, self.end_gradient = buffers[end].view(program.stored), buffers[_INCOMING].view(program.stored)
        if turned:
            stored, stored_gradient = (tensor.permute(program.permutation) for tensor in (self.end, self.end_gradient))
            self.end, self.end_gradient = (empty(shape.end_sizes, weights) for _ in range(2))
            self._forward.append(partial(self.end.copy_, stored))
            self._backward.insert(0, partial(stored_gradient.copy_, self.end_gradient))
        self._is_contracted = False

    def contract(self) -> Tensor:
        """The end tensor of the weights as they are now, :attr:`end`.

        Example:
            >>> RepeatedContraction.contract.__name__
            'contract'
        """
        for call in self._forward:
            call()
        increment_version(self.end)
        self._is_contracted = True
        return self.end

    def pull_back(self) -> None:
        """Writes the gradients of the weights that belong to :attr:`end_gradient` and the :meth:`contract` before, once for each.

        Raises:
            RuntimeError: There was no :meth:`contract` since the last time, and its intermediate results are gone.

        Example:
            >>> RepeatedContraction.pull_back.__name__
            'pull_back'
        """
        if not self._is_contracted:
            raise RuntimeError("every pull_back needs a contract before it, whose intermediate results it overwrites")
        self._is_contracted = False
        for call in self._backward:
            call()
        increment_version(self._gradients)


def _checked(shape: Shape, weights: Tensor, gradients: Tensor, needed: Sequence[bool], order: Sequence[int]) -> list[int]:
    """For every node the place in the vectors where its weight begins."""
    sizes = [rows * columns for rows, columns in shape.weights]
    for name, vector in (("weights", weights), ("gradients", gradients)):
        fits = vector.shape == (sum(sizes),) and vector.is_contiguous() and vector.is_floating_point()
        if not fits or vector.dtype != weights.dtype or vector.device != weights.device:
            given = f"{vector.dtype} {tuple(vector.shape)} on {vector.device}"
            raise ValueError(f"{name} must be a contiguous vector of {sum(sizes)} real numbers, both alike; got {given}")
    if len(needed) != len(sizes) or sorted(order) != list(range(len(sizes))):
        raise ValueError(f"needed and order must have every one of {len(sizes)} nodes once; got {len(needed)} and {short(list(order))}")
    starts = dict(zip(order, itertools.accumulate((sizes[node] for node in order), initial=0)))
    return [starts[node] for node in range(len(sizes))]


def _call(placed: Placed, buffers: Sequence[Tensor]) -> Callable[[], object]:
    """One operation on views of buffers."""
    operation = placed.operation

    def view(buffer: int, offset: int, sizes: Sizes, strides: Sizes) -> Tensor:
        return buffers[buffer].as_strided(sizes, strides, buffers[buffer].storage_offset() + offset)

    left_factor, right_factor = factors(operation)
    left = view(operation.left, placed.left, *left_factor)
    right = left if operation.kind == "copy" else view(operation.right, placed.right, *right_factor)
    out = view(placed.result.buffer, placed.result.offset, operation.result, placed.strides)
    if operation.kind == "multiply" and (call := nest(operation, placed.strides, left, right, out)):
        return call
    return partial(kernel(operation, left.dtype, cpu=left.device.type == "cpu"), left, right, out=out)
