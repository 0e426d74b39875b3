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
from tensornet.dynamics.observations import Entries, MaskedEntries, Observations
from tensornet.dynamics.problems import Problem
from tensornet.evaluation.observed import observe
from tensornet.htf import HTF

Way = Literal["contract", "sweep"]
_MANY = 4  # one observed entry of so many is enough to look at all


class Objective:
    """A problem and a loss, for factorizations of one shape; computes gradients with no automatic differentiation where it can.

    There are two ways. ``contract`` forms the end tensor and applies the observations to it; the gradient is pulled back through the
    contraction. ``sweep`` evaluates observation by observation and never forms the end tensor. The estimated costs decide.

    The weights are moved side by side into one vector, and so are their gradients: an optimizer of that vector does the same as one of
    the weights, in fewer operations.

    Args:
        htf: The factorization.
        problem: The problem, of the factorization's dtype and on its device.
        loss: The loss.
        way: ``"contract"`` or ``"sweep"``; the one of lower estimated costs by default.

    Attributes:
        way: The way that is used.
        vector: All weights, those that are not trained too, whose gradients are zero; its ``grad`` are those of the weights.

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
        self.htf, self.loss = htf, loss
        self.way: Way = way or _cheaper(htf, problem)
        weights = htf.weight_list()
        self.vector = torch.nn.Parameter(side_by_side(weights))
        self.vector.grad = gradient = torch.zeros_like(self.vector)
        for weight, part in zip(weights, gradient.split([weight.numel() for weight in weights])):
            if weight.requires_grad:
                weight.grad = part.view_as(weight)
        if self.way == "contract":
            needed = [weight.requires_grad for weight in weights]
            self._repeated = RepeatedContraction(htf.shape, self.vector.detach(), gradient, needed)
        self._observe(problem)

    def _observe(self, problem: Problem) -> None:
        """Prepares what is observed of predictions."""
        self.problem, entries = problem, problem.observations
        self._observations: Observations | MaskedEntries = entries
        self._values = problem.values
        if not isinstance(entries, Entries):
            return
        if self.way == "sweep":
            self._observed = observe(self.htf.shape, entries.indices, self.vector.device)
        elif len(entries) * _MANY >= self._repeated.end.numel() and not entries.repeated:
            self._observations = MaskedEntries(entries, self.vector.detach())
            self._values = entries.adjoint(problem.values).view(-1)

    def backward(self) -> Tensor:
        """The loss, a tensor without axes on the weights' device; gradients take the place of those that the weights have.

        Example:
            >>> Objective.backward.__name__
            'backward'
        """
        return self._contracting() if self.way == "contract" else self._sweeping()

    def _contracting(self) -> Tensor:
        residual = self._observations.of(self._repeated.contract()).sub_(self._values)
        value, slope = self.loss(residual, len(self._observations))
        self._observations.adjoint(slope, out=self._repeated.end_gradient)
        self._repeated.pull_back()
        return value

    def _sweeping(self) -> Tensor:
        predicted = self._predict()
        value, slope = self.loss(predicted.detach() - self.problem.values)
        trained = [weight for weight in self.htf.weight_list() if weight.requires_grad]
        for weight, gradient in zip(trained, torch.autograd.grad(predicted, trained, slope)):
            cast(Tensor, weight.grad).copy_(gradient)
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
