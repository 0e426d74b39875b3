"""How local components move under gradient flow: both sides of the equations that Section 4 and Appendix B state about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tensornet.analysis.components import directions
from tensornet.dynamics.flow import Trajectory, gradient_flow, step_times, time_until, velocity
from tensornet.dynamics.theory.cases import Case
from tensornet.tree import ModeTree, Node

FALL = 0.1  # of the objective, during a flow
LONGEST = 100.0  # times longer than at the speed of the start


@dataclass(frozen=True, eq=False)
class Motion:
    """The local components of one interior node at one time.

    Attributes:
        squares: ``(R, L)`` squared norms of the weight vectors; of the row of the node's weight, then of its children's columns.
        square_rates: ``(R, L)`` their derivatives with respect to time.
        projections: ``(R,)`` ``<-grad L(W_H), C_H^(node, r)>``, how each component's direction agrees with steepest descent.
        steepness: Norm of ``grad L(W_H)`` times the largest norm of a direction, which no projection exceeds.

    Example:
        >>> Motion(torch.tensor([[4.0, 9.0]]), torch.tensor([[8.0, 8.0]]), torch.ones(1), 1.0).norms
        tensor([6.])
    """

    squares: Tensor
    square_rates: Tensor
    projections: Tensor
    steepness: float

    @property
    def vectors(self) -> int:
        """``L``, the number of weight vectors of a local component."""
        return self.squares.shape[1]

    @property
    def norms(self) -> Tensor:
        """``sigma``, ``(R,)``: norms of the local components (Definition 2)."""
        return self.squares.prod(1).sqrt()

    @property
    def rates(self) -> Tensor:
        """``(R,)`` derivatives of the norms with respect to time, by the product rule from those of the weight vectors."""
        return self.norms * (self.square_rates / self.squares).sum(1) / 2


def motion(case: Case, weights: Sequence[Tensor]) -> dict[Node, Motion]:
    """How the local components of every interior node move under gradient flow from these weights.

    Rates come from the gradient of the objective with respect to the weights; projections from that of the loss with respect to the
    end tensor, and from the end tensors of the directions. So the two sides of Equation 6 are computed apart.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> case = draw_case(seed=0, number=0)
        >>> set(motion(case, case.weights)) == set(case.tree.interior)
        True
    """
    tree = case.tree
    squares, halves = inner_products(tree, weights, weights), inner_products(tree, weights, velocity(case.objective, weights))
    (descent,) = velocity(lambda tensors: case.loss(tensors[0]), [case.end_tensor(weights)])
    found = {}
    for node in tree.interior:
        imposed = [case.end_tensor(directions(tree, weights, node, component)) for component in range(len(squares[node]))]
        projections = torch.stack([(descent * tensor).sum() for tensor in imposed])
        steepness = descent.norm().item() * max(tensor.norm().item() for tensor in imposed)
        found[node] = Motion(squares[node], 2 * halves[node], projections, steepness)
    return found


def inner_products(tree: ModeTree, left: Sequence[Tensor], right: Sequence[Tensor]) -> dict[Node, Tensor]:
    """Inner products of corresponding weight vectors, by the local component they belong to: ``{interior node: (R, L)}``.

    Example:
        >>> tree = ModeTree.star(2)
        >>> weights = [torch.tensor([[3.0], [4.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0]])]
        >>> inner_products(tree, weights, weights)
        {(0, 1): tensor([[ 4., 25.,  1.]])}
    """
    products = [first * second for first, second in zip(left, right)]
    return {
        node: torch.stack([products[place].sum(1), *(products[child].sum(0) for child in tree.child_ids[place])], dim=1)
        for place, node in enumerate(tree.interior, tree.order)
    }


def flow(case: Case, weights: Sequence[Tensor], shares: Sequence[float], *, rtol: float = 1e-10) -> Trajectory:
    """Gradient flow of the case's objective, at shares of the time in which the objective falls by about :data:`FALL`.

    What comes much later, near a minimum, says little more about a statement, and is slow to integrate.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> case = draw_case(seed=0, number=0)
        >>> len(flow(case, case.weights, [0.0, 0.5]).weights)
        2
    """
    end = _duration(case, weights)
    return gradient_flow(case.objective, weights, [end * share for share in shares], rtol=rtol, atol=1e-2 * rtol)


def flow_steps(case: Case, weights: Sequence[Tensor]) -> tuple[float, ...]:
    """The times between which the solver makes its steps during :func:`flow`.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> case = draw_case(seed=0, number=0)
        >>> flow_steps(case, case.weights)[-1] == flow(case, case.weights, [1.0]).times[-1]
        True
    """
    return step_times(case.objective, weights, _duration(case, weights))


def _duration(case: Case, weights: Sequence[Tensor]) -> float:
    start = case.objective(weights).item()
    moved = sum(rate.square().sum().item() for rate in velocity(case.objective, weights))  # minus the objective's derivative
    return time_until(case.objective, weights, (1 - FALL) * start, latest=LONGEST * start / moved, rtol=1e-3)
