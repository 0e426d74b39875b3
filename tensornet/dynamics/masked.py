"""The loss of observed entries among all entries, with zeros at the others: faster than to pick them out where they are many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from tensornet.compiled import SMALL, CompiledCall, compilable
from tensornet.dynamics.losses import Loss
from tensornet.dynamics.observations import Entries


class MaskedLoss:
    """A loss of the observed entries of a tensor that stays where it is in memory, with its derivative.

    Entries that are not observed are multiplied by zero: one that is not finite makes a NaN, and no loss is finite then.

    Args:
        loss: The loss.
        entries: The observed entries, each once.
        values: What is observed there.
        tensor: The tensor, contiguous.
        slope: A tensor like it, for the derivative.

    Example:
        >>> tensor, slope = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.empty(2, 2)
        >>> MaskedLoss(Loss(), Entries((2, 2), torch.tensor([0, 3])), torch.ones(2), tensor, slope)()
        tensor(4.5000)
        >>> slope
        tensor([[0., 0.],
                [0., 3.]])
    """

    def __init__(self, loss: Loss, entries: Entries, values: Tensor, tensor: Tensor, slope: Tensor) -> None:
        self._loss, self._count = loss, len(entries)
        self._tensor, self._slope = tensor.view(-1), slope.view(-1)
        self._mask = entries.adjoint(torch.ones_like(values)).view(-1)
        self._negative = entries.adjoint(values.neg()).view(-1)
        self._compiled: CompiledCall | None = None
        plain = type(loss) is Loss and values.dtype == tensor.dtype
        if plain and compilable(tensor) and tensor.numel() <= SMALL:
            self._total = values.new_empty(())
            memory = (self._tensor, self._mask, self._negative, self._slope, self._total)
            further = (float(loss.delta),) if loss.name == "huber" else ()
            self._compiled = CompiledCall(_LOOPS[loss.name], *memory, tensor.numel(), loss.share(self._count), *further)

    def __call__(self) -> Tensor:
        """The loss, a tensor without axes; its derivative is written to where it was to be."""
        if self._compiled is not None:
            self._compiled()
            increment_version(self._slope)
            return self._total.clone()
        residual = torch.addcmul(self._negative, self._tensor, self._mask)
        return self._loss(residual, self._count, out=self._slope)[0]


# Of all entries; 1 for those that are observed and 0 for others; minus what is observed. Derivative and loss are written to the next two.


def _squares(tensor: Any, mask: Any, negative: Any, slope: Any, total: Any, size: int, share: float) -> None:
    found = 0.0
    for place in range(size):
        residual = 1.0 * (negative[place] + tensor[place] * mask[place])  # in double precision from here on
        slope[place] = residual * (2 * share)
        found += residual * residual
    total[0] = found * share


def _magnitudes(tensor: Any, mask: Any, negative: Any, slope: Any, total: Any, size: int, share: float) -> None:
    found = 0.0
    for place in range(size):
        residual = 1.0 * (negative[place] + tensor[place] * mask[place])
        slope[place] = share * ((residual > 0) - (residual < 0))
        found += abs(residual)
    total[0] = found * share


def _huber(tensor: Any, mask: Any, negative: Any, slope: Any, total: Any, size: int, share: float, delta: float) -> None:
    found = 0.0
    for place in range(size):
        residual = 1.0 * (negative[place] + tensor[place] * mask[place])
        near = min(max(residual, -delta), delta)
        slope[place] = near * share
        found += near * (residual - near / 2)
    total[0] = found * share


_LOOPS: Mapping[str, Callable[..., None]] = {"l2": _squares, "l1": _magnitudes, "huber": _huber}
