"""Proposition 2: a completion problem whose solutions have two incomparable minimal hierarchical tensor ranks (Appendix E.7).

Only the last three modes matter; all other indices of the observed entries and of both solutions are 0. With ``x y z`` for the last
three indices, the entries ``000``, ``001``, ``110`` and ``111`` are observed, of values 1, 0, 0 and 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tensornet.analysis.ranks import hierarchical_rank
from tensornet.dynamics.theory.cases import Case
from tensornet.dynamics.theory.ranks import RTOL
from tensornet.dynamics.theory.records import Check, largest
from tensornet.tree import ModeTree

OBSERVED = {(0, 0, 0): 1.0, (0, 0, 1): 0.0, (1, 1, 0): 0.0, (1, 1, 1): 1.0}
FREE = ((0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1))  # the entries of the last three modes that are not observed
SOLUTIONS = ((1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 1.0, 0.0))  # values of the free entries in the paper's W and W'
ROUNDING = 1e-12


def proposition_2(case: Case) -> list[Check]:
    """Proposition 2, for the case's tree and mode sizes.

    That no solution has a smaller rank is checked in two ways. Of many solutions, none has one: all those whose free entries are -1,
    0 or 1, and random ones. And for all solutions: by the proof's cases, one of smaller rank would have rank 1 both by mode ``N - 2``
    and by mode ``N - 1`` (or rank 1 by mode ``N``, which the observed entries exclude). So would its part in the last three modes, of
    entries ``s``; then the minors ``s000 s111 - s011 s100`` and ``s000 s011 - s010 s001`` would vanish. With the observed values, the
    first plus ``s100`` times the second is 1 for all values of the others.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> [check.holds for check in proposition_2(draw_case(seed=0, number=0))]
        [True, True, True, True]
    """
    tree, sizes, where = case.tree, case.shape.mode_sizes, str(case)
    first, second = (_ranks(_completed(sizes, free), tree) for free in SOLUTIONS)
    fits = max(abs(_completed(sizes, free)[_place(sizes, entry)].item() - value) for free in SOLUTIONS for entry, value in OBSERVED.items())
    larger = min(sum(a > b for a, b in zip(first, second)), sum(b > a for a, b in zip(first, second)))
    smaller = 0
    for tensor in _solutions(case):
        found = _ranks(tensor, tree)
        smaller += any(_at_most(found, rank) and found != rank for rank in (first, second))
    return [
        Check("proposition-2", "error of both solutions at the observed entries", where, fits, "==", 0),
        Check("proposition-2", "nodes at which either rank is the larger", where, larger, ">=", 1),
        Check("proposition-2", "solutions found with a smaller rank", where, smaller, "==", 0),
        Check("proposition-2", "error of the certificate that there is none", where, _certificate(case), "<=", ROUNDING),
    ]


def _place(sizes: Sequence[int], entry: tuple[int, ...]) -> tuple[int, ...]:
    """The index of an entry of the last three modes."""
    return (0,) * (len(sizes) - 3) + entry


def _completed(sizes: Sequence[int], free: Sequence[float]) -> Tensor:
    """The solution with these values at the free entries, and zeros elsewhere."""
    tensor = torch.zeros(*sizes, dtype=torch.float64)
    for entry, value in (*OBSERVED.items(), *zip(FREE, free)):
        tensor[_place(sizes, entry)] = value
    return tensor


def _solutions(case: Case) -> Iterator[Tensor]:
    """Many solutions: sparse ones, and such whose entries are all random."""
    sizes, random = case.shape.mode_sizes, case.generator()
    for free in itertools.product((-1.0, 0.0, 1.0), repeat=len(FREE)):
        yield _completed(sizes, free)
    for _ in range(20):
        yield _completed(sizes, random.standard_normal(len(FREE)).tolist())
        tensor = torch.from_numpy(random.standard_normal(sizes))
        for entry, value in OBSERVED.items():
            tensor[_place(sizes, entry)] = value
        yield tensor


def _ranks(tensor: Tensor, tree: ModeTree) -> tuple[int, ...]:
    return tuple(hierarchical_rank(tensor, tree, rtol=RTOL).values())


def _at_most(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(left, right))


def _certificate(case: Case) -> float:
    """Largest deviation of the identity in :func:`proposition_2` from 1, and of the minor that gives mode ``N`` rank 2 from 1."""
    errors, random = [], case.generator()
    for _ in range(20):
        free = random.standard_normal(len(FREE)).tolist()
        s = {**OBSERVED, **dict(zip(FREE, free))}
        by_second_last = s[0, 0, 0] * s[0, 1, 1] - s[0, 1, 0] * s[0, 0, 1]
        by_third_last = s[0, 0, 0] * s[1, 1, 1] - s[0, 1, 1] * s[1, 0, 0]
        by_last = s[0, 0, 0] * s[1, 1, 1] - s[0, 0, 1] * s[1, 1, 0]
        errors += [abs(by_third_last + s[1, 0, 0] * by_second_last - 1), abs(by_last - 1)]
    return largest(errors)
