"""The table of statements, and checking some or all of them on several cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from tensornet.checks import integer
from tensornet.dynamics.theory import evolution, minimal_ranks, network, ranks
from tensornet.dynamics.theory.cases import Case, draw_case
from tensornet.dynamics.theory.records import Check

Statement: TypeAlias = Callable[[Case], list[Check]]

STATEMENTS: dict[str, Statement] = {
    "lemma-1": ranks.lemma_1,
    "lemma-2": evolution.lemma_2,
    "theorem-1": evolution.theorem_1,
    "theorem-2": evolution.theorem_2,
    "equation-7": evolution.equation_7,
    "proposition-1": ranks.proposition_1,
    "proposition-2": minimal_ranks.proposition_2,
    "proposition-3": network.proposition_3,
    "proposition-4": network.proposition_4,
}


def verify(names: Sequence[str] = tuple(STATEMENTS), *, cases: int = 5, seed: int = 0) -> Iterator[list[Check]]:
    """Checks statements of the paper on random cases, the same cases for each; one list of checks a statement, when it is done.

    Args:
        names: Statements, names in :data:`STATEMENTS`; all by default.
        cases: Number of cases, at least 1.
        seed: Seed of their draw.

    Yields:
        Of a statement, all checks of all cases.

    Raises:
        TypeError: ``cases`` or ``seed`` is no integer.
        ValueError: A statement is unknown, ``cases`` below 1 or ``seed`` below 0.

    Example:
        >>> [checks] = verify(["lemma-1"], cases=2)
        >>> [check.holds for check in checks]
        [True, True]
    """
    cases, seed = integer("cases", cases, 1), integer("seed", seed, 0)
    for name in names:
        if name not in STATEMENTS:
            raise ValueError(f"a statement is one of {', '.join(STATEMENTS)}; got {name!r}")
    drawn = [draw_case(seed, number) for number in range(cases)]
    for name in names:
        yield [check for case in drawn for check in STATEMENTS[name](case)]
