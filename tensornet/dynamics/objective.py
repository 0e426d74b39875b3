"""The objective of training: a loss of what is observed, and its gradient by the weights, the faster of two ways."""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from torch import Tensor

from tensornet.arrays import side_by_side
from tensornet.contraction.costs import CPU, CUDA
from tensornet.contraction.execute import plan_contraction
from tensornet.contraction.network import Request
from tensornet.contraction.plan import MemoryLimitError
from tensornet.contraction.repeated import RepeatedContraction
from tensornet.dynamics.losses import Loss
from tensornet.dynamics.masked import MaskedLoss
from tensornet.dynamics.observations import Entries
from tensornet.dynamics.problems import Problem
from tensornet.evaluation.circuit import PRODUCT
from tensornet.evaluation.observed import observe
from tensornet.htf import HTF

Way = Literal["contract", "sweep"]
_MANY = 4  # one observed entry of so many is enough to look at all


class Objective:
    """A problem and a loss, for factorizations of one shape; computes gradients with no automatic differentiation where it can.

    There are two ways. ``contract`` forms the end tensor and applies the observations to it; the gradient is pulled back through the
    contraction. ``sweep`` evaluates observation by observation and never forms the end tensor. The estimated costs decide.

    The weights are moved side by side, and so are their gradients: an optimizer of the vector of those that are trained does the same as
    one of the weights, in fewer operations. An objective is for the weights where they are: once something else moves them
    (``HTF.to``, ``load_state_dict(assign=True)``, another objective), it has to be made anew.

    Args:
        htf: The factorization, with pooling by products and a weight of its own at every node.
        problem: The problem, of the factorization's dtype and on its device.
        loss: The loss.
        way: ``"contract"`` or ``"sweep"``; by default the one of lower estimated costs, without contractions that fit in slices only.

    Attributes:
        way: The way that is used.
        vector: All trained weights; its ``grad`` are their gradients.

    Raises:
        MemoryLimitError: ``"contract"`` was asked for, and does not fit.
        ValueError: The factorization is none of those, or the problem has other sizes.

    Example:
        >>> from tensornet.dynamics.problems import completion
        >>> from tensornet import ModeTree
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=5)
        >>> objective = Objective(htf, completion(torch.ones(3, 3, 3, 3), 20, torch.Generator()), Loss())
        >>> objective.way, round(objective.backward().item(), 3)
        ('contract', 1.0)
        >>> htf.weight_list()[0].grad.shape
        torch.Size([3, 5])
    """

    def __init__(self, htf: HTF, problem: Problem, loss: Loss, way: Way | None = None) -> None:
        weights = htf.weight_list()
        if htf.combination != PRODUCT or len({id(weight) for weight in weights}) < len(weights) or not all(w.is_leaf for w in weights):
            raise ValueError("an objective needs pooling by products and weights that are neither shared nor parametrized")
        if problem.observations.sizes != htf.shape.end_sizes:
            raise ValueError(f"the problem must have the sizes of the end tensor, {htf.shape.end_sizes}; got {problem.observations.sizes}")
        self.htf, self.loss = htf, loss
        needed = [weight.requires_grad for weight in weights]
        heights = {node: height for height, level in enumerate(htf.tree.levels) for node in level}
        order = sorted(heights, key=lambda node: (not needed[node], heights[node], node))
        memory, gradient = self._move(weights, order)
        trained = sum(weight.numel() for weight, _ in self._trained)
        self.vector, self._gradient = torch.nn.Parameter(memory[:trained]), gradient[:trained]
        self.way: Way = way or _cheaper(htf, problem)
        if self.way == "contract":
            try:
                self._repeated = RepeatedContraction(htf.shape, memory, gradient, needed, order)
            except MemoryLimitError:
                if way is not None:
                    raise
                self.way = "sweep"
        self._masked: MaskedLoss | None = None
        self._observe(problem)
        entries = problem.observations
        if self.way == "sweep" or not isinstance(entries, Entries) or len(entries) * _MANY < self._repeated.end.numel():
            return
        if not entries.repeated:
            self._masked = MaskedLoss(loss, entries, problem.values, self._repeated.end, self._repeated.end_gradient)

    def _move(self, weights: list[Tensor], order: list[int]) -> tuple[Tensor, Tensor]:
        """The vectors of all weights and of their gradients, in this order of the nodes."""
        memory = side_by_side([weights[node] for node in order])
        gradient = torch.zeros_like(memory)
        sizes = [weights[node].numel() for node in order]
        parts = {node: pair for node, *pair in zip(order, memory.split(sizes), gradient.split(sizes))}
        self._places = [weight.detach() for weight in weights]
        slopes = [parts[node][1].view_as(weight) for node, weight in enumerate(weights)]
        self._trained = [(weight, slope) for weight, slope in zip(weights, slopes) if weight.requires_grad]
        return memory, gradient

    def _observe(self, problem: Problem) -> None:
        """Prepares what is observed of predictions."""
        self.problem = problem
        if self.way == "sweep" and isinstance(problem.observations, Entries):
            self._observed = observe(self.htf.shape, problem.observations.indices, self.vector.device)

    def backward(self) -> Tensor:
        """The loss, a tensor without axes on the weights' device; gradients take the place of those that the weights have.

        Raises:
            RuntimeError: The weights were moved.

        Example:
            >>> Objective.backward.__name__
            'backward'
        """
        if not all(map(Tensor.is_set_to, self.htf.weight_list(), self._places)):
            raise RuntimeError("the weights are no longer where the objective moved them; make a new one, and an optimizer of its vector")
        for weight, slope in self._trained:
            if weight.grad is not slope:
                weight.grad = slope
        self.vector.grad = self._gradient
        return self._contracting() if self.way == "contract" else self._sweeping()

    def _contracting(self) -> Tensor:
        end = self._repeated.contract()
        if self._masked is not None:
            value = self._masked()
        else:
            value, slope = self.loss(self.problem.observations.of(end).sub_(self.problem.values))
            self.problem.observations.adjoint(slope, out=self._repeated.end_gradient)
        self._repeated.pull_back()
        return value

    def _sweeping(self) -> Tensor:
        predicted = self._predict()
        value, slope = self.loss(predicted.detach() - self.problem.values)
        found = torch.autograd.grad(predicted, [weight for weight, _ in self._trained], slope)
        torch._foreach_copy_([own for _, own in self._trained], found)
        return value

    def _predict(self) -> Tensor:
        observations = self.problem.observations
        if isinstance(observations, Entries):
            return cast(Tensor, self.htf.entries(self._observed))
        return cast(Tensor, self.htf(observations.vectors))

    def chosen(self, rows: Tensor) -> Objective:
        """The objective of some of the observations, by the same way.

        Example:
            >>> Objective.chosen.__name__
            'chosen'
        """
        part = copy.copy(self)
        part._masked = None
        part._observe(Problem(self.problem.truth, self.problem.observations.chosen(rows), self.problem.values[rows]))
        return part


def _cheaper(htf: HTF, problem: Problem) -> Way:
    """The way of lower estimated costs; a backward pass costs twice a forward one either way."""
    weight = htf.weight_list()[0]
    machine = CUDA if weight.device.type == "cuda" else CPU
    try:
        plan = plan_contraction(htf.shape, Request(), weight.dtype, weight.device, recorded=True)
    except MemoryLimitError:
        return "sweep"
    if plan.slices:  # of which each would be computed twice
        return "sweep"
    contracting = 3 * plan.seconds + problem.observations.flops / machine.flops
    samples = len(problem.observations)
    rows = [samples] * len(htf.tree.nodes)
    if isinstance(problem.observations, Entries):
        rows = list(observe(htf.shape, problem.observations.indices).rows)
    flops = sum(2 * number * size[0] * size[1] for number, size in zip(rows[htf.tree.order :], htf.shape.weights[htf.tree.order :]))
    moved = sum(2 * number * size[0] * weight.dtype.itemsize for number, size in zip(rows, htf.shape.weights))
    sweeping = 3 * (flops / machine.flops + moved / machine.bandwidth + len(rows) * machine.overhead)
    return "contract" if contracting <= sweeping else "sweep"
