"""Losses of residuals, each with its derivative, so that training needs no automatic differentiation of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


def _square(residual: Tensor, delta: float, share: float, out: Tensor | None) -> tuple[Tensor, Tensor]:
    del delta
    return torch.dot(residual, residual).mul_(share), torch.mul(residual, 2 * share, out=out)


def _absolute(residual: Tensor, delta: float, share: float, out: Tensor | None) -> tuple[Tensor, Tensor]:
    del delta
    return residual.abs().sum() * share, torch.mul(residual.sign(), share, out=out)


def _huber(residual: Tensor, delta: float, share: float, out: Tensor | None) -> tuple[Tensor, Tensor]:
    slope = residual.clamp(-delta, delta)
    return torch.dot(slope, residual - slope / 2) * share, torch.mul(slope, share, out=out)


_Formula = Callable[[Tensor, float, float, Tensor | None], tuple[Tensor, Tensor]]
LOSSES: Mapping[str, _Formula] = {"l2": _square, "l1": _absolute, "huber": _huber}


@dataclass(frozen=True)
class Loss:
    """A loss of residuals: their squares, magnitudes, or Huber's between the two; the mean over the samples, or their sum.

    Args:
        name: ``"l2"``, ``"l1"`` or ``"huber"``, which is ``r^2 / 2`` for ``|r| <= delta`` and ``delta (|r| - delta / 2)`` beyond.
        mean: Divide by the number of samples.
        delta: Where Huber's loss becomes linear.

    Raises:
        ValueError: The name is unknown, or ``delta`` is not above 0.

    Example:
        >>> value, slope = Loss("l2")(torch.tensor([1.0, -3.0]))
        >>> value.item(), slope.tolist()
        (5.0, [1.0, -3.0])
    """

    name: str = "l2"
    mean: bool = True
    delta: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {self.name!r}")
        if not self.delta > 0:
            raise ValueError(f"delta must be above 0; got {self.delta}")

    def __call__(self, residual: Tensor, samples: int | None = None, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss, and its derivative by every residual, which is zero where the residual is.

        Args:
            residual: All residuals, and zeros for what is not observed.
            samples: How many of them are observed; all by default.
            out: Where to write the derivative.
        """
        return LOSSES[self.name](residual, self.delta, self.share(len(residual) if samples is None else samples), out)

    def share(self, samples: int) -> float:
        """The factor of every sample's loss.

        Example:
            >>> Loss().share(4), Loss(mean=False).share(4)
            (0.25, 1.0)
        """
        return (1 / samples if samples else math.nan) if self.mean else 1.0
