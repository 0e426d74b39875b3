"""Training of a factorization on observed entries, for the completer: objective, steps, the best state, resuming."""

from __future__ import annotations

import copy
import math
import numbers
import operator
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from tensornet.completion.smoothing import correlated
from tensornet.evaluation import circuit
from tensornet.evaluation.observed import Observed, observe
from tensornet.htf import HTF
from tensornet.optim import GroupRMSprop
from tensornet.shape import Shape

Entries = tuple[Tensor, Tensor]  # indices (B, N) and values (B,)
OPTIMIZERS: Mapping[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "adam": (torch.optim.Adam, 0.02),
    "group_rmsprop": (GroupRMSprop, 0.01),
}  # name -> optimizer and its usual learning rate
LEAST = {"steps": 1, "patience": 1, "seed": 0, "penalty": 0.0, "weight_decay": 0.0, "init_scale": 0.0, "lr": 0.0}  # integers need one
RECORDS = 100  # of a training that is not stopped early
FALL = 0.01  # what the weight decay has fallen to at the end, where held-out entries choose the best state on the way


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
        TypeError: A number is none, or no integer where one is needed.

    Example:
        >>> Settings(lengths=(0.0, 3.0), steps=10).rate
        0.02
    """

    lengths: tuple[float, ...]
    penalty: float = 0.0
    weight_decay: float = 0.0
    optimizer: str = "adam"
    lr: float | None = None
    steps: int = 1000
    patience: int = 30
    init_scale: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {self.optimizer!r}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if name == "lr" and value is None:
                continue
            if not isinstance(value, numbers.Integral if isinstance(least, int) else numbers.Real):
                raise TypeError(f"{name} must be {'an integer' if isinstance(least, int) else 'a number'}; got {value!r}")
            if not least <= float(value) < (2.0**63 if name == "seed" else math.inf):
                raise ValueError(f"{name} must be finite and at least {least:g}; got {value}")
        for mode, length in enumerate(self.lengths):
            if not 0 <= length < math.inf:
                raise ValueError(f"a correlation length must be a finite number of at least 0; got {length} for mode {mode}")

    @property
    def rate(self) -> float:
        """The learning rate at the beginning: ``lr``, or the optimizer's usual one.

        Example:
            >>> Settings((), optimizer="group_rmsprop").rate
            0.01
        """
        return OPTIMIZERS[self.optimizer][1] if self.lr is None else self.lr


class Training:
    """White weights on their way, with all that a step needs.

    Args:
        shape: Tree and sizes.
        settings: How to train.
        known: Entries to train on.
        rest: Entries that choose the best state; may be empty.
        dtype: Of the weights.
        device: Where to train.

    Attributes:
        history: A dictionary per record: ``step``, ``loss``, ``held_out``.
        snapshot: State at the last record, from which :meth:`load` continues bit for bit.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> indices, values = torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, -1.0])
        >>> shape = make_shape(ModeTree.star(2), 2, 3)
        >>> training = Training(shape, Settings((0.0, 0.0), steps=3), (indices, values), (indices[:0], values[:0]))
        >>> training.run()
        True
        >>> training.best_htf().entries(indices).shape
        torch.Size([2])
    """

    def __init__(
        self,
        shape: Shape,
        settings: Settings,
        known: Entries,
        rest: Entries,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.shape, self.settings = shape, settings
        spread = settings.init_scale / math.sqrt(math.prod(shape.rank_sizes))  # of a product of one weight a node
        self.white = HTF(
            shape.tree,
            shape.mode_sizes,
            shape.ranks,
            init_std=spread ** (1 / len(shape.tree.nodes)),
            generator=torch.Generator().manual_seed(settings.seed),
            dtype=dtype,
            device=device,
        )
        weight = self.white.weight_list()[0]
        self.known = observe(shape, known[0], weight.device)
        self.rest = observe(shape, rest[0], weight.device) if len(rest[0]) else None
        self.values, self.rest_values = (values.to(weight.device, weight.dtype) for values in (known[1], rest[1]))
        self.optimizer = OPTIMIZERS[settings.optimizer][0](self.white.parameters(), lr=settings.rate)
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"step": 0, "error": math.inf, "weights": self._copies()}
        self.snapshot = self._state()

    def run(self, callback: Callable[[Progress], None] | None = None) -> bool:
        """Trains to the end; false if Ctrl-C came first.

        Args:
            callback: Called at every record.

        Example:
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> known = torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, -1.0])
            >>> training = Training(make_shape(ModeTree.star(2)), Settings((0.0, 0.0), steps=2), known, known)
            >>> training.run(lambda progress: None), training.step
            (True, 2)
        """
        steps, start = self.settings.steps, time.perf_counter()
        every = max(1, steps // RECORDS)
        try:
            while self.step < steps and not self._is_stuck():
                loss = self._move()
                if self.step % every and self.step < steps:
                    continue
                if not torch.isfinite(loss):
                    text = f"the loss is {loss.item()} at step {self.step}; training stopped, a lower lr may help"
                    warnings.warn(text, DivergenceWarning, stacklevel=3)
                    break
                record = self._record(loss.item())
                if callback:
                    seconds = time.perf_counter() - start
                    callback(Progress(**record, steps=steps, best=self.best["step"], seconds=seconds, state=self.snapshot))
        except KeyboardInterrupt:
            return False
        return True

    def _weights(self) -> list[Tensor]:
        white = self.white.weight_list()
        lengths = self.settings.lengths
        return [correlated(weight, length) for weight, length in zip(white, lengths)] + white[len(lengths) :]

    def _squares(self, observed: Observed, values: Tensor) -> Tensor:
        predicted = cast(Tensor, circuit.entries(self.shape, self._weights(), observed))
        return (predicted - values).abs().square().mean()

    def _objective(self) -> tuple[Tensor, Tensor]:
        """The mean squared error on the entries that are trained on, without and with penalties."""
        settings, count = self.settings, len(self.values)
        loss = self._squares(self.known, self.values)
        objective = loss
        if settings.penalty:
            objective = objective + settings.penalty / count * self.white.gram([]).real.sum()
        if settings.weight_decay:
            fall = FALL ** (self.step / settings.steps) if self.rest is not None else 1.0
            squares = torch.stack([weight.abs().square().sum() for weight in self.white.parameters()])
            objective = objective + settings.weight_decay * fall / count * squares.sum()
        return loss, objective

    def _move(self) -> Tensor:
        """Does one step; the loss before it, without penalties."""
        loss, objective = self._objective()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * 0.5 * (1 + math.cos(math.pi * self.step / self.settings.steps))
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def _record(self, loss: float) -> dict[str, Any]:
        held_out = None
        if self.rest is not None:
            with torch.no_grad():
                held_out = self._squares(self.rest, self.rest_values).item()
        record = {"step": self.step, "loss": loss, "held_out": held_out}
        self.history.append(record)
        error = loss if held_out is None else held_out
        if error < self.best["error"]:
            self.best = {"step": self.step, "error": error, "weights": self._copies()}
        self.snapshot = self._state()
        return record

    def _is_stuck(self) -> bool:
        return len([record for record in self.history if record["step"] > self.best["step"]]) >= self.settings.patience

    def best_htf(self) -> HTF:
        """The factorization of the best state so far, with correlated leaves.

        Example:
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> known = torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, -1.0])
            >>> Training(make_shape(ModeTree.star(2)), Settings((0.0, 0.0)), known, known).best_htf().mode_sizes
            (2, 2)
        """
        with torch.no_grad():
            for weight, best in zip(self.white.weight_list(), self.best["weights"]):
                weight.copy_(best)
            return HTF.from_weights(self.shape.tree, dict(zip(self.shape.tree.nodes, self._weights())))

    def _copies(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.white.weight_list()]

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "weights": self._copies(),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "best": dict(self.best),
            "history": [dict(record) for record in self.history],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from a :attr:`snapshot` of a training with the same shape, settings and entries.

        Raises:
            ValueError: It belongs to other sizes or another optimizer, or is no such state.

        Example:
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> known = torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, -1.0])
            >>> first, second = (Training(make_shape(ModeTree.star(2)), Settings((0.0, 0.0)), known, known) for _ in range(2))
            >>> second.load(first.snapshot)
            >>> second.step
            0
        """
        try:
            self._load(**state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"state must be one of an earlier training ({error!r})") from None
        self.snapshot = self._state()

    def _load(
        self,
        *,
        step: int,
        weights: list[Tensor],
        optimizer: dict[str, Any],
        best: dict[str, Any],
        history: list[dict[str, Any]],
    ) -> None:
        for tensors in (weights, best["weights"]):
            sizes = [tuple(weight.shape) for weight in tensors]
            if sizes != list(self.shape.weights):
                raise ValueError(f"state must belong to weights of the same sizes; got {sizes} for {list(self.shape.weights)}")
        if optimizer["param_groups"][0].keys() != self.optimizer.state_dict()["param_groups"][0].keys():
            raise ValueError(f"state must belong to the same optimizer; got another one's for {self.settings.optimizer}")
        with torch.no_grad():
            for weight, old in zip(self.white.weight_list(), weights):
                weight.copy_(old)
        self.optimizer.load_state_dict(copy.deepcopy(optimizer))
        self.step = operator.index(step)
        self.best = {"step": operator.index(best["step"]), "error": float(best["error"]), "weights": list(best["weights"])}
        self.history = [{"step": record["step"], "loss": record["loss"], "held_out": record["held_out"]} for record in history]
