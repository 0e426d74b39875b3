"""Training of a factorization on observed entries, for :mod:`tensornet.completion`: objective, steps, the best state, resuming."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tensornet import circuit
from tensornet.htf import HTF
from tensornet.observed import observe
from tensornet.optim import GroupRMSprop
from tensornet.shape import Shape
from tensornet.smoothing import correlated

Entries = tuple[Tensor, Tensor]  # indices (B, N) and values (B,)
OPTIMIZERS: Mapping[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "adam": (torch.optim.Adam, 0.02),
    "group_rmsprop": (GroupRMSprop, 0.01),
}  # name -> optimizer and its usual learning rate
RECORDS = 100  # of a training that is not stopped early


class DivergenceWarning(RuntimeWarning):
    """Training stopped because the loss was no longer finite; the best so far is kept."""


@dataclass(frozen=True)
class Progress:
    """What a callback is told at every record.

    Attributes:
        step: Steps done.
        steps: Steps to do at most.
        loss: Mean squared error on the observed entries that are trained on, in units of their variance.
        held_out: The same on the held-out ones; ``None`` without any.
        best: Step of the best state so far.
        seconds: Time since :meth:`TensorCompleter.fit` was called.
        state: Nested data from which ``fit(..., state=...)`` continues bit for bit.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None
    best: int
    seconds: float
    state: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How to train; the arguments of :class:`tensornet.TensorCompleter` that have the same names.

    Raises:
        ValueError: A number is out of its range, or the optimizer is unknown.

    Example:
        >>> Settings(lengths=(0.0, 3.0), steps=10).lr
        0.02
    """

    lengths: tuple[float, ...]
    penalty: float = 0.0
    weight_decay: float = 0.0
    optimizer: str = "adam"
    lr: float | None = None
    steps: int = 1000
    patience: int = 20
    init_scale: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {self.optimizer!r}")
        if self.lr is None:
            object.__setattr__(self, "lr", OPTIMIZERS[self.optimizer][1])
        for name, least in (("steps", 1), ("patience", 1), ("penalty", 0), ("weight_decay", 0), ("init_scale", 0), ("lr", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of at least {least}; got {getattr(self, name)}")
        for mode, length in enumerate(self.lengths):
            if not 0 <= length < math.inf:
                raise ValueError(f"a correlation length must be a finite number of at least 0; got {length} for mode {mode}")


class Training:
    """White weights on their way, with all that a step needs."""

    def __init__(
        self,
        given: TensorCompleter,
        shape: Shape,
        known: tuple[Tensor, Tensor],
        rest: tuple[Tensor, Tensor],
        dtype: torch.dtype | None,
    ) -> None:
        self.given = given
        spread = given.init_scale / math.sqrt(math.prod(shape.rank_sizes))
        self.white = HTF(
            shape.tree,
            shape.mode_sizes,
            shape.ranks,
            init_std=spread ** (1 / len(shape.tree.nodes)),
            generator=torch.Generator().manual_seed(given.seed),
            dtype=dtype,
            device=given.device,
        )
        weight = self.white.weight_list()[0]
        self.known = observe(shape, known[0], weight.device)
        self.rest = observe(shape, rest[0], weight.device) if len(rest[0]) else None
        self.values, self.rest_values = (values.to(weight.device, weight.dtype) for values in (known[1], rest[1]))
        make, usual = OPTIMIZERS[given.optimizer]
        self.lr = usual if given.lr is None else given.lr
        self.optimizer = make(self.white.parameters(), lr=self.lr)
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"step": 0, "error": math.inf, "weights": [item.detach().clone() for item in self.white.weight_list()]}
        self.snapshot = self._state()

    def run(self, callback: Callable[[Progress], None] | None) -> bool:
        """Trains to the end; false if Ctrl-C came first."""
        given, start = self.given, time.perf_counter()
        every = max(1, given.steps // RECORDS)
        try:
            while self.step < given.steps and not self._is_stuck():
                loss = self._move()
                if self.step % every and self.step < given.steps:
                    continue
                if not math.isfinite(loss.item()):
                    warnings.warn(f"the loss is {loss.item()} at step {self.step}; training stopped, try a lower lr", DivergenceWarning, 3)
                    break
                self._record(loss.item())
                if callback:
                    last = self.history[-1]
                    seconds = time.perf_counter() - start
                    callback(Progress(self.step, given.steps, last["loss"], last["held_out"], self.best["step"], seconds, self.snapshot))
        except KeyboardInterrupt:
            return False
        return True

    def _weights(self) -> list[Tensor]:
        white = self.white.weight_list()
        return [correlated(weight, length) for weight, length in zip(white, self.given.lengths_)] + white[self.white.tree.order :]

    def _move(self) -> Tensor:
        """One step; the loss before it, without penalties."""
        given, count = self.given, len(self.values)
        residual = circuit.entries(self.white.shape, self._weights(), self.known) - self.values
        loss = residual.abs().square().mean()
        objective = loss
        if given.penalty:
            objective = objective + given.penalty / count * self.white.gram([]).real.sum()
        if given.weight_decay:
            objective = objective + given.weight_decay / count * sum(item.abs().square().sum() for item in self.white.parameters())
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * self.step / given.steps))
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def _record(self, loss: float) -> None:
        held_out = None
        if self.rest is not None:
            with torch.no_grad():
                residual = circuit.entries(self.white.shape, self._weights(), self.rest) - self.rest_values
                held_out = residual.abs().square().mean().item()
        self.history.append({"step": self.step, "loss": loss, "held_out": held_out})
        error = loss if held_out is None else held_out
        if error < self.best["error"]:
            self.best = {"step": self.step, "error": error, "weights": [item.detach().clone() for item in self.white.weight_list()]}
        self.snapshot = self._state()

    def _is_stuck(self) -> bool:
        later = [record for record in self.history[-self.given.patience - 1 :] if record["step"] > self.best["step"]]
        return len(later) > self.given.patience

    def best_htf(self) -> HTF:
        """The factorization of the best state, with correlated leaves."""
        with torch.no_grad():
            for weight, best in zip(self.white.weight_list(), self.best["weights"]):
                weight.copy_(best)
            return HTF.from_weights(self.white.tree, dict(zip(self.white.tree.nodes, self._weights())))

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "weights": [weight.detach().clone() for weight in self.white.weight_list()],
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "best": dict(self.best),
            "history": [dict(record) for record in self.history],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from a state that :meth:`_state` made."""
        sizes = [tuple(weight.shape) for weight in state["weights"]]
        if sizes != [tuple(weight.shape) for weight in self.white.weight_list()]:
            raise ValueError(f"state belongs to a factorization of other sizes; got weights {sizes} for {self.white.shape.weights}")
        with torch.no_grad():
            for weight, old in zip(self.white.weight_list(), state["weights"]):
                weight.copy_(old)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.best = {**state["best"], "weights": [weight.clone() for weight in state["best"]["weights"]]}
        self.history = [dict(record) for record in state["history"]]
        self.snapshot = self._state()
