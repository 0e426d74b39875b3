"""What a check found: a number measured against a bound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

Relation = Literal["<=", ">=", "=="]


@dataclass(frozen=True)
class Check:
    """One claim of a statement, checked on one case.

    Attributes:
        statement: Name of the statement, such as ``lemma-1``.
        claim: What is claimed, in words.
        case: On what it was checked.
        measured: The measured number.
        relation: How it must compare to the bound.
        bound: The bound.

    Example:
        >>> check = Check("lemma-1", "rank at most R", "star of order 3", measured=2, relation="<=", bound=3)
        >>> check.holds, check.slack
        (True, 1)
    """

    statement: str
    claim: str
    case: str
    measured: float
    relation: Relation
    bound: float

    @property
    def slack(self) -> float:
        """By how much the claim holds; negative by how much it fails, and NaN where a number is."""
        difference = self.bound - self.measured
        return {"<=": difference, ">=": -difference, "==": -abs(difference)}[self.relation]

    @property
    def holds(self) -> bool:
        """Whether the claim holds; it does not where a number is NaN."""
        return self.slack >= 0


def tightest(checks: list[Check]) -> Check:
    """The check that fails, or holds with the least slack beside its bound.

    Raises:
        ValueError: There is none.

    Example:
        >>> checks = [Check("", "", "", measured, "<=", 3.0) for measured in (1.0, 2.5, 2.0)]
        >>> tightest(checks).measured
        2.5
    """
    return min(checks, key=lambda check: (check.holds, check.slack / abs(check.bound) if check.bound else check.slack))


def largest(values: Iterable[float]) -> float:
    """The largest of some numbers, and NaN where one is, which Python's own maximum may pass over.

    Example:
        >>> largest([1.0, 3.0]), largest([1.0, float("nan"), 3.0])
        (3.0, nan)
    """
    return float(np.max(list(values)))


def deviation(found: Tensor, wanted: Tensor) -> float:
    """Largest difference of two tensors, beside the largest magnitude in the second; NaN where a number is.

    Example:
        >>> import torch
        >>> deviation(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0]))
        0.25
    """
    scale = wanted.abs().max().item()
    return (found - wanted).abs().max().item() / (scale or 1.0)
