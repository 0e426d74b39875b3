"""What is recorded of a factorization on its way: errors, norms of local components, singular values, effective ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tensornet.analysis.ranks import effective_rank, matricize
from tensornet.htf import HTF
from tensornet.tree import RepeatedNode

DIGITS = 5  # significant ones of recorded numbers


def label(node: Sequence[int]) -> str:
    """The name of a node, or of a set of modes, in records: ``"0,1"``; nodes that share their modes are told apart by primes.

    Example:
        >>> label((0, 1)), label(RepeatedNode((1,), 2))
        ('0,1', "1''")
    """
    return ",".join(map(str, node)) + ("'" * node.distance if isinstance(node, RepeatedNode) else "")


def rounded(values: Tensor) -> list[float]:
    """Numbers as records hold them.

    Example:
        >>> rounded(torch.tensor([1.23456789, 2e-9]))
        [1.2346, 2e-09]
    """
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def measure(htf: HTF, truth: Tensor, matricizations: Sequence[Sequence[int]], *, top: int, norms: bool = True) -> dict[str, Any]:
    """One record's measures.

    Args:
        htf: The factorization.
        truth: The ground truth.
        matricizations: Sets of modes, inside or outside the tree, whose matricizations' singular values are wanted.
        top: Number of largest norms and singular values.
        norms: Whether local component norms are wanted. Those of a matrix factorization say nothing: only the product is determined,
            not the basis between two of its matrices.

    Returns:
        ``error`` (Frobenius distance to the truth, relative to the truth), ``norms`` (``{node: largest local component norms}``),
        ``singular`` (``{modes: largest singular values}``), ``effective`` (``{modes: effective rank}``) and ``unbalancedness``
        (Definition 5; of a matrix factorization, over the squared norms of rows and columns that meet, which are the diagonals of the
        matrices that Section 2.1 compares). Of an end tensor that is not finite, the error alone.

    Example:
        >>> from tensornet import ModeTree
        >>> htf = HTF(ModeTree.star(2), mode_sizes=2, ranks=3, init_std=1.0, generator=torch.Generator().manual_seed(0))
        >>> found = measure(htf, torch.ones(2, 2), [(0,)], top=2)
        >>> len(found["norms"]["0,1"]), len(found["singular"]["0"])
        (2, 2)
    """
    with torch.no_grad():
        end = htf.contract()
        found: dict[str, Any] = {"error": _number((end - truth).norm() / truth.norm())}
        if not end.isfinite().all():
            return found
        components = htf.local_component_norms() if norms else {}
        found["norms"] = {label(node): rounded(values.topk(min(top, len(values))).values) for node, values in components.items()}
        found["singular"], found["effective"] = {}, {}
        for modes in matricizations:
            values = torch.linalg.svdvals(matricize(end, modes))
            found["singular"][label(modes)] = rounded(values[:top])
            found["effective"][label(modes)] = _number(effective_rank(values))
        found["unbalancedness"] = _number(htf.unbalancedness())
    return found


def finite(found: Any) -> bool:
    """Whether all numbers in a record are finite.

    Example:
        >>> finite({"step": 3, "norms": {"0,1": [1.0, 2.0]}}), finite({"error": math.inf})
        (True, False)
    """
    if isinstance(found, Mapping):
        return all(map(finite, found.values()))
    return all(map(finite, found)) if isinstance(found, list) else math.isfinite(found)


def _number(value: Tensor) -> float:
    return rounded(value.reshape(1))[0]
