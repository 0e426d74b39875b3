"""The objective of training: a loss of what is observed, and its gradient by the weights, the faster of two ways."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor

from tensornet.contraction.costs import CPU, CUDA
from tensornet.contraction.execute import contract_with_pullback, plan_contraction
from tensornet.contraction.network import Request
from tensornet.contraction.plan import MemoryLimitError
from tensornet.dynamics.losses import Loss
from tensornet.dynamics.observations import Entries
from tensornet.dynamics.problems import Problem
from tensornet.evaluation.observed import observe
from tensornet.htf import HTF

Way = Literal["contract", "sweep"]


class Objective:
    """A problem and a loss, for factorizations of one shape; computes gradients with no automatic differentiation where it can.

    There are two ways. ``contract`` forms the end tensor and applies the observations to it; the gradient is pulled back through the
    contraction. ``sweep`` evaluates observation by observation and never forms the end tensor. The estimated costs decide.

    Args:
        htf: The factorization.
        problem: The problem, of the factorization's dtype and on its device.
        loss: The loss.
        way: ``"contract"`` or ``"sweep"``; the one of lower estimated costs by default.

    Attributes:
        way: The way that is used.

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
        self.htf, self.problem, self.loss = htf, problem, loss
        self.weights = htf.weight_list()
        self.needed = [weight.requires_grad for weight in self.weights]
        self.way: Way = way or _cheaper(htf, problem)
        if self.way == "sweep" and isinstance(problem.observations, Entries):
            self._observed = observe(htf.shape, problem.observations.indices, self.weights[0].device)

    def backward(self) -> Tensor:
        """The loss, a tensor without axes on the weights' device; gradients take the place of those that the weights have.

        Example:
            >>> Objective.backward.__name__
            'backward'
        """
        return self._contracting() if self.way == "contract" else self._sweeping()

    def _contracting(self) -> Tensor:
        end, pull_back = contract_with_pullback(self.htf.shape, self.weights, self.needed)
        observations = self.problem.observations
        value, slope = self.loss(observations.of(end).sub_(self.problem.values))
        for weight, gradient in zip(self.weights, pull_back(observations.adjoint(slope))):
            if gradient is not None:
                weight.grad = gradient
        return value

    def _sweeping(self) -> Tensor:
        predicted = self._predict()
        value, slope = self.loss(predicted.detach() - self.problem.values)
        trained = [weight for weight in self.weights if weight.requires_grad]
        for weight, gradient in zip(trained, torch.autograd.grad(predicted, trained, slope)):
            weight.grad = gradient
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
        problem = self.problem
        part = Problem(problem.truth, problem.observations.chosen(rows), problem.values[rows])
        return Objective(self.htf, part, self.loss, self.way)


def _cheaper(htf: HTF, problem: Problem) -> Way:
    """The way of lower estimated costs; a backward pass costs twice a forward one either way."""
    weight = htf.weight_list()[0]
    machine = CUDA if weight.device.type == "cuda" else CPU
    try:
        plan = plan_contraction(htf.shape, Request(), weight.dtype, weight.device, recorded=True)
    except MemoryLimitError:
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
