"""What is timed: a function with its inputs prepared, and the view of its results that lets them be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from bench.hardware import Limits
from bench.workloads import Case

Function: TypeAlias = Callable[..., Tensor]
Prepare: TypeAlias = Callable[[Case, Limits], "Contestant"]
TOLERANCE = 2e-4  # relative, float32; sums over ranks of random signs lose some digits


class UnavailableError(Exception):
    """A contestant is not installed or cannot take the workload; the message says why."""


@dataclass(frozen=True)
class Contestant:
    """One program prepared for one workload.

    Attributes:
        run: Does the whole work once, and returns the value and, with the gradient, the gradients.
        unpack: The gradients as one matrix a node, in the order of ``tree.nodes``.
        note: What it chose: path, executor.
        flops: Floating point operations of its path in the forward direction, where it has one.
    """

    name: str
    run: Callable[[], Sequence[Tensor]]
    unpack: Callable[[Sequence[Tensor]], Sequence[Tensor]]
    note: str = ""
    flops: int | None = None

    def results(self) -> list[Tensor]:
        """The value, and the gradients of all weights where the workload has them."""
        value, *gradients = self.run()
        return [tensor.detach() for tensor in (value, *(self.unpack(gradients) if gradients else ()))]


def prepare(
    name: str,
    case: Case,
    function: Function,
    parameters: Sequence[Tensor],
    unpack: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    note: str = "",
    flops: int | None = None,
) -> Contestant:
    """Makes the contestant that calls ``function(*parameters)`` and, where the workload asks for it, differentiates.

    The gradient that is pulled back is laid out in memory like the contestant's own result, which spares those that return permuted
    views a copy.
    """
    if not case.workload.backward:
        plain = [parameter.detach() for parameter in parameters]
        return Contestant(name, lambda: (function(*plain),), unpack, note, flops)
    leaves = [parameter if parameter.requires_grad else parameter.detach().requires_grad_() for parameter in parameters]
    like = function(*leaves).detach()
    cotangent = None if case.cotangent is None else torch.empty_like(like).copy_(case.cotangent)
    del like

    def both() -> Sequence[Tensor]:
        value = function(*leaves)
        return (value, *torch.autograd.grad(value, leaves, cotangent))

    return Contestant(name, both, unpack, note, flops)


def with_loss(case: Case, entries: Function) -> Function:
    """The mean squared error of ``entries`` at the observed entries; ``entries`` itself for other workloads."""
    targets = case.targets
    if targets is None:
        return entries
    return lambda *parameters: mse_loss(entries(*parameters), targets)


def relative_error(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest relative distance, in Frobenius norm, between corresponding tensors."""
    worst = 0.0
    for left, right in zip(got, wanted, strict=True):
        if left.shape != right.shape:
            return float("inf")
        distance, norm = float((left - right).double().norm()), float(right.double().norm())
        worst = max(worst, distance / norm if norm else distance)
    return worst


@dataclass(frozen=True)
class Absent:
    """A contestant that is not timed, and why."""

    name: str
    reason: str


def prepare_all(
    makers: Mapping[str, Prepare], case: Case, limits: Limits, wanted: Sequence[Tensor] | None = None
) -> list[Contestant | Absent]:
    """Makes every contestant, or the reason why it cannot run; results must agree with those wanted, if any, or else the first's."""
    made: list[Contestant | Absent] = []
    for name, maker in makers.items():
        try:
            contestant = maker(case, limits)
        except UnavailableError as reason:
            made.append(Absent(name, str(reason)))
            continue
        results = contestant.results()
        wanted = wanted or results
        error = relative_error(results, wanted)
        if not error <= TOLERANCE:
            made.append(Absent(name, f"its result differs by {error:.1e}"))
        elif results[0].is_contiguous():
            made.append(contestant)
        else:  # a permuted view, which saves the copy that contiguous results cost others
            made.append(replace(contestant, note=", ".join(filter(None, (contestant.note, "permuted view")))))
    return made
