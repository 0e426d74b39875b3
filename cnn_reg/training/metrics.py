"""Sums over the samples of an epoch, kept on the device: loss, accuracy, penalty, and the distribution of the cosines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tensornet.distributed import Processes

BINS = 1000  # of |cos| from 0 to 1
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NAMES = ("loss", "correct", "samples", "penalty", "penalized", "cosine", "cosines", "left_out")


class Tally:
    """Sums over samples, from which means and quantiles are read off at the end; adding to them never waits for the device.

    Example:
        >>> tally = Tally("cpu")
        >>> tally.add_outputs(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0]))
        >>> tally.means()["accuracy"]
        0.5
    """

    def __init__(self, device: torch.device | str) -> None:
        self.sums = torch.zeros(len(_NAMES), dtype=torch.float64, device=device)
        self.bins = torch.zeros(BINS, dtype=torch.float64, device=device)

    def add_outputs(self, logits: Tensor, labels: Tensor) -> None:
        """Adds the cross entropy and the accuracy of a network's outputs, of shape (b,).

        Example:
            >>> tally = Tally("cpu")
            >>> tally.add_outputs(torch.zeros(4), torch.ones(4))
            >>> round(tally.means()["loss"], 4)  # log 2
            0.6931
        """
        logits = logits.detach().float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        correct = ((logits > 0) == (labels > 0.5)).sum()
        self._add(loss=loss, correct=correct, samples=len(labels))

    def add_cosines(self, cosines: Tensor, there: Tensor) -> None:
        """Adds the absolute cosines of samples where they are ``there``, and counts those that are not.

        Example:
            >>> tally = Tally("cpu")
            >>> tally.add_cosines(torch.tensor([1.0, -0.5, 0.0]), torch.tensor([True, True, False]))
            >>> tally.means()["cosine"], tally.means()["left_out"]
            (0.75, 1)
        """
        cosines, weights = cosines.detach().double().abs().reshape(-1), there.reshape(-1).double()
        places = (cosines * BINS).long().clamp(0, BINS - 1)
        self.bins.index_add_(0, places, weights)
        self._add(cosine=(cosines * weights).sum(), cosines=weights.sum(), left_out=(1 - weights).sum())

    def add_penalty(self, penalty: Tensor, samples: int) -> None:
        """Adds the mean penalty of a number of samples.

        Example:
            >>> tally = Tally("cpu")
            >>> tally.add_penalty(torch.tensor(0.5), 4)
            >>> tally.means()["penalty"]
            0.5
        """
        self._add(penalty=penalty.detach() * samples, penalized=samples)

    def _add(self, **values: Tensor | int) -> None:
        for name, value in values.items():
            self.sums[_NAMES.index(name)] += value

    def over(self, processes: Processes) -> Tally:
        """The sums over all processes.

        Example:
            >>> Tally("cpu").over(Processes()).means()["cosine"] is None
            True
        """
        total = Tally(self.sums.device)
        total.sums, total.bins = processes.sum(self.sums.clone()), processes.sum(self.bins.clone())
        return total

    def means(self) -> dict[str, Any]:
        """Means by name, and quantiles of |cos| to the thousandth above; ``None`` where there was nothing to take a mean of.

        Example:
            >>> tally = Tally("cpu")
            >>> tally.add_cosines(torch.arange(0.0005, 1, 0.001), torch.ones(1000) > 0)
            >>> tally.means()["cosine_quantiles"]
            [0.05, 0.25, 0.5, 0.75, 0.95]
        """
        sums = dict(zip(_NAMES, self.sums.tolist()))

        def mean(name: str, count: str) -> float | None:
            return sums[name] / sums[count] if sums[count] else None

        return {
            "loss": mean("loss", "samples"),
            "accuracy": mean("correct", "samples"),
            "penalty": mean("penalty", "penalized"),
            "cosine": mean("cosine", "cosines"),
            "cosine_quantiles": self._quantiles() if sums["cosines"] else None,
            "left_out": round(sums["left_out"]),
        }

    def _quantiles(self) -> list[float]:
        shares = (self.bins / self.bins.sum()).cumsum(0)
        wanted = torch.tensor(QUANTILES, dtype=shares.dtype, device=shares.device)
        return [round((place + 1) / BINS, 3) for place in torch.searchsorted(shares, wanted).tolist()]

    def state(self) -> dict[str, Tensor]:
        """The sums as data.

        Example:
            >>> sorted(Tally("cpu").state())
            ['bins', 'sums']
        """
        return {"sums": self.sums, "bins": self.bins}

    def set(self, state: dict[str, Tensor]) -> None:
        """Continues from what :meth:`state` gave.

        Example:
            >>> tally = Tally("cpu")
            >>> tally.set({"sums": torch.ones(8), "bins": torch.zeros(BINS)})
            >>> tally.means()["loss"]
            1.0
        """
        self.sums.copy_(state["sums"])
        self.bins.copy_(state["bins"])
