"""Lemma 1 and Proposition 1: numbers of local components bound ranks, and small local components bound distances to low ranks."""

from __future__ import annotations

import torch

from tensornet.analysis.components import prune, pruning_bound
from tensornet.analysis.ranks import hierarchical_rank
from tensornet.contraction.execute import contract
from tensornet.dynamics.theory.cases import Case
from tensornet.dynamics.theory.records import Check, tightest
from tensornet.shape import shape_of_weights
from tensornet.tree import Node

RTOL = 1e-9  # singular values above this share of the largest count as non-zero
ROUNDING = 1e-12  # what rounding may add to a distance, beside the norm of the end tensor


def lemma_1(case: Case) -> list[Check]:
    """Lemma 1: the matricization by a child of ``node`` has at most rank ``R_node``.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> [check.holds for check in lemma_1(draw_case(seed=0, number=0))]
        [True]
    """
    found = hierarchical_rank(case.end_tensor(case.weights), case.tree, rtol=RTOL)
    return [_ranks("lemma-1", case, found, case.shape.ranks)]


def proposition_1(case: Case) -> list[Check]:
    """Proposition 1: pruning local components moves the end tensor by at most the bound, and to a low hierarchical tensor rank.

    The components of all weights are brought to unequal norms first, and no weight has a norm above 1, so that the bound is not lost
    in powers of the largest norm. Every node loses at least one component.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> [check.holds for check in proposition_1(draw_case(seed=0, number=0))]
        [True, True]
    """
    weights = [weight / weight.norm() for weight in case.weights]
    for place, node in enumerate(case.tree.interior, case.tree.order):
        decay = torch.logspace(0, -4, case.shape.ranks[node], dtype=torch.float64)
        weights[place] = decay.unsqueeze(1) * weights[place]
    random = case.generator()
    keep = {node: int(random.integers(1, rank)) for node, rank in case.shape.ranks.items()}
    pruned = prune(case.tree, weights, keep)
    sizes = shape_of_weights(case.tree, {node: tuple(weight.shape) for node, weight in zip(case.tree.nodes, pruned)})
    before, after = case.end_tensor(weights), contract(sizes, pruned)
    distance = max((before - after).norm().item() - ROUNDING * before.norm().item(), 0.0)
    bound = pruning_bound(case.tree, weights, keep).item()
    return [
        Check("proposition-1", "distance that pruning moves the end tensor", str(case), distance, "<=", bound),
        _ranks("proposition-1", case, hierarchical_rank(after, case.tree, rtol=RTOL), keep),
    ]


def _ranks(statement: str, case: Case, found: dict[Node, int], bounds: dict[Node, int]) -> Check:
    """The tightest of the claims that the rank by every child is at most the bound of its parent."""
    claim = "rank of the matricization by a child" + (" after pruning" if statement == "proposition-1" else "")
    pairs = [(child, node) for node in case.tree.interior for child in case.tree.children(node)]
    return tightest([Check(statement, claim, f"{case}, child {child}", found[child], "<=", bounds[node]) for child, node in pairs])
