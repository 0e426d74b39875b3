"""Lemma 2, Theorems 1 and 2 and Equation 7: invariants and evolution of local components under gradient flow."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from tensornet.analysis.components import balanced, unbalancedness
from tensornet.dynamics.flow import gradient_flow
from tensornet.dynamics.theory.cases import Case
from tensornet.dynamics.theory.motion import Motion, flow, flow_steps, inner_products, motion
from tensornet.dynamics.theory.records import Check, deviation, largest

POINTWISE = 1e-10  # relative; rounding of one gradient in float64
SOLVER = 1e-7  # relative; what tolerances of 1e-10 a step may add up to along a trajectory
TIMES = tuple(np.linspace(0, 1, 9).tolist())  # shares of the time of a flow
FAINT = 1e-6  # projections below this share of what they can be are left out of quotients by them
LATE = (0.0, *(1 - 0.5 ** np.arange(1, 9)).tolist(), 1.0)  # the same, crowded towards the end, where a small start begins to move
POINTS = 4  # of Gauss' rule within a step of the solver, exact for polynomials of degree 7, as its interpolation
SCALES = (1.0, 0.5, 0.25)  # of the initialization, for Equation 7


def lemma_2(case: Case) -> list[Check]:
    """Lemma 2: differences between squared norms of weight vectors of a local component do not change.

    First for the velocity at the start, where all squared norms of a component must change at one rate, then along the flow. The
    largest change of a squared norm itself, which makes the claim more than trivial, is the unit of the second.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> [check.holds for check in lemma_2(draw_case(seed=0, number=0))]
        [True, True]
    """
    rates = [node.square_rates for node in motion(case, case.weights).values()]
    start = inner_products(case.tree, case.weights, case.weights)
    changes = []
    for weights in flow(case, case.weights, TIMES).weights:
        changes += [squares - start[node] for node, squares in inner_products(case.tree, weights, weights).items()]
    return [
        Check("lemma-2", "spread of the rates of squared norms at the start", str(case), _spread(rates), "<=", POINTWISE),
        Check("lemma-2", "change of differences along the flow", str(case), _spread(changes), "<=", SOLVER),
    ]


def _spread(found: list[Tensor]) -> float:
    """How far numbers within a local component (rows of length L) are apart, beside the largest number of all."""
    apart = largest((numbers.amax(1) - numbers.amin(1)).max().item() for numbers in found)
    return apart / largest(numbers.abs().max().item() for numbers in found)


def theorem_1(case: Case) -> list[Check]:
    """Theorem 1: from a balanced start, the norms of local components evolve by Equation 6.

    At the start and along the flow, both sides are compared at every interior node. The right side is also integrated over time (by
    Gauss' rule within each of the solver's steps) and compared with the change of the norms, which no derivative of a norm enters; for the
    smooth loss alone, since quadrature needs derivatives.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> [check.holds for check in theorem_1(draw_case(seed=0, number=0))]
        [True, True, True]
    """
    start = balanced(case.tree, case.weights)
    along = [motion(case, weights) for weights in flow(case, start, TIMES).weights]
    errors = [largest(deviation(_equation_6(node), node.rates) for node in found.values()) for found in along]
    checks = [
        Check("theorem-1", "deviation of Equation 6 at the start", str(case), errors[0], "<=", POINTWISE),
        Check("theorem-1", "deviation of Equation 6 along the flow", str(case), largest(errors), "<=", SOLVER),
    ]
    if case.kind == "l2":
        checks.append(Check("theorem-1", "deviation of its integral over time", str(case), _integral(case, start), "<=", SOLVER))
    return checks


def _equation_6(node: Motion) -> Tensor:
    """The right side of Equation 6."""
    power: Tensor = node.norms ** (2 - 2 / node.vectors)
    return power * node.vectors * node.projections


def _integral(case: Case, start: list[Tensor]) -> float:
    """Deviation of the integrated right side of Equation 6 from the change of the norms, the largest over all nodes."""
    points, shares = np.polynomial.legendre.leggauss(POINTS)
    ends = np.array(flow_steps(case, start))
    lengths = np.diff(ends)
    times = ends[:-1, None] + lengths[:, None] * (points + 1) / 2
    found = gradient_flow(case.objective, start, [0.0, *times.ravel().tolist(), ends[-1].item()])
    first, *inner, last = [motion(case, weights) for weights in found.weights]
    parts = torch.from_numpy((lengths[:, None] * shares / 2).ravel())
    deviations = []
    for node in case.tree.interior:
        integral = parts @ torch.stack([_equation_6(moment[node]) for moment in inner])
        deviations.append(deviation(integral, last[node].norms - first[node].norms))
    return largest(deviations)


def theorem_2(case: Case) -> list[Check]:
    """Theorem 2: from any start, the rates of the norms of local components stay within Equations 9 and 10.

    Rates are taken along flows from a random start and from one near balance, the unbalancedness magnitude from the start. Each rate
    is divided by the bounds: towards steepest descent (Equation 9) as well as away from it (Equation 10), it is at most the one and at
    least the other, since both bounds have the sign of the projection. Projections that rounding could have made are left out.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> [check.holds for check in theorem_2(draw_case(seed=0, number=0))]
        [True, True, True, True]
    """
    ratios: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}
    for start in (case.weights, _nearly_balanced(case)):
        epsilon = unbalancedness(case.tree, start).item()
        for weights in flow(case, start, TIMES).weights:
            for node in motion(case, weights).values():
                widened = node.norms ** (2 / node.vectors) + epsilon
                sloped = node.vectors * node.projections
                far, near = widened ** (node.vectors - 1) * sloped, node.norms.square() / widened * sloped
                for ahead, found in ratios.items():
                    counted = (node.projections * (1 if ahead else -1)) > FAINT * node.steepness
                    found.append(((node.rates / far)[counted], (node.rates / near)[counted]))
    checks = []
    for ahead, equation in ((True, 9), (False, 10)):
        far, near = (torch.cat(parts) for parts in zip(*ratios[ahead]))
        if len(far):
            where = f"{case}, {len(far)} rates"
            claim = f"rates beside Equation {equation}'s bound with a power of L - 1"
            checks.append(Check("theorem-2", claim, where, far.max().item(), "<=", 1 + SOLVER))
            claim = f"rates beside Equation {equation}'s bound with a fraction"
            checks.append(Check("theorem-2", claim, where, near.min().item(), ">=", 1 - SOLVER))
    return checks


def _nearly_balanced(case: Case) -> list[Tensor]:
    """A start whose weights are a hundredth off balance, so that the bounds are narrow, and whose end tensor has the other sign."""
    random = case.generator()
    *others, root = case.weights
    return [weight * torch.from_numpy(random.uniform(0.99, 1.01, weight.shape)) for weight in balanced(case.tree, [*others, -root])]


def equation_7(case: Case) -> list[Check]:
    """Equation 7: a local component that starts smaller, and is never better aligned than another, stays below a bound by that one.

    A balanced start is scaled by ``alpha`` of several sizes. The bound's constant, ``u'^(-(L-2)/L) - u^(-(L-2)/L)`` for the unscaled
    norms ``u > u'``, is the same for all ``alpha`` and times. Pairs of components at nodes of several children are followed for as long
    as the equation's assumption on their alignment holds, which is looked up at the same times as the norms.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> all(check.holds for check in equation_7(draw_case(seed=0, number=0)))
        True
    """
    start = _start_with_a_pair(case)
    unscaled = {node: found.norms for node, found in motion(case, start).items()}
    ratios: list[float] = []
    pairs = 0
    for alpha in SCALES:
        along = [motion(case, weights) for weights in flow(case, [alpha * weight for weight in start], LATE, rtol=1e-8).weights]
        for node, norms in unscaled.items():
            moments = [moment[node] for moment in along]
            for large, small in itertools.permutations(range(len(norms)), 2):
                if moments[0].vectors > 2 and norms[large] > norms[small]:
                    found = _beside_equation_7(moments, alpha, (norms[large].item(), norms[small].item()), (large, small))
                    pairs += bool(found)
                    ratios += found
    where = f"{case}, {pairs} pairs at {len(ratios)} times"
    return [Check("equation-7", "smaller component beside its bound", where, largest(ratios), "<=", 1 + SOLVER)]


def _start_with_a_pair(case: Case) -> list[Tensor]:
    """A balanced start where, scaled down, some component is larger than another of its node, and at least as well aligned."""
    random = case.generator()
    while True:
        start = balanced(case.tree, [weight * torch.from_numpy(random.choice((-1.0, 1.0), weight.shape)) for weight in case.weights])
        for found in motion(case, [SCALES[-1] * weight for weight in start]).values():
            if found.vectors > 2 and found.projections[found.norms.argmax()] > found.projections.amin():
                return start


def _beside_equation_7(moments: list[Motion], alpha: float, unscaled: tuple[float, float], pair: tuple[int, int]) -> list[float]:
    """Norms of the smaller of two components beside Equation 7's bound, after the start, while the larger is as well aligned."""
    large, small = pair
    power = 1 - 2 / moments[0].vectors
    constant = unscaled[1] ** -power - unscaled[0] ** -power
    followed = list(itertools.takewhile(lambda now: bool(now.projections[large] >= now.projections[small]), moments))
    bounds = [(now.norms[large] ** -power + alpha ** (2 - now.vectors) * constant) ** (-1 / power) for now in followed]
    return [(now.norms[small] / bound).item() for now, bound in zip(followed, bounds)][1:]  # at the start the bound is the norm itself
