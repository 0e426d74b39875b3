"""Training of a factorization on observed entries, for the completer: objective, steps, the best state, resuming.

Several processes share the entries of every step. Their gradients and losses are summed once a step, in one message that also says
whether one was asked to stop; all then do the same step with the same bits.
"""

from __future__ import annotations

import contextlib
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

from tensornet.completion.batches import Batches
from tensornet.completion.smoothing import correlated
from tensornet.distributed import ALONE, Processes
from tensornet.evaluation import circuit
from tensornet.htf import HTF
from tensornet.interrupts import signals
from tensornet.optim import GroupRMSprop
from tensornet.shape import Shape

OPTIMIZERS: Mapping[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "adam": (torch.optim.Adam, 0.02),
    "group_rmsprop": (GroupRMSprop, 0.01),
}  # name -> optimizer and its usual learning rate
LEAST = {
    "steps": 1,
    "batch_size": 1,
    "patience": 1,
    "seed": 0,
    "penalty": 0.0,
    "weight_decay": 0.0,
    "init_scale": 0.0,
    "lr": 0.0,
}  # integers need one
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
        loss: Mean squared error on the observed entries that are trained on, in units of their variance; with random batches, the mean
            over the steps since the last record.
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
    batch_size: int | None = None
    patience: int = 30
    init_scale: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {self.optimizer!r}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if name in ("lr", "batch_size") and value is None:
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
        count: Number of entries to train on.
        known: Entries to train on.
        rest: Entries that choose the best state, if there are any.
        dtype: Of the weights.
        device: Where to train.
        processes: Who shares the entries.

    Attributes:
        history: A dictionary per record: ``step``, ``loss``, ``held_out``.
        snapshot: State at the last record, from which :meth:`load` continues bit for bit.

    Example:
        >>> import numpy as np
        >>> from tensornet.completion.batches import Prepared
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> shape = make_shape(ModeTree.star(2), 2, 3)
        >>> known = Prepared(shape, (np.array([[0, 0], [1, 1]]), np.array([1.0, -1.0])), 2, dtype=torch.float32)
        >>> training = Training(shape, Settings((0.0, 0.0), steps=3), 2, known)
        >>> training.run()
        True
        >>> training.best_htf().entries([[0, 1]]).shape
        torch.Size([1])
    """

    def __init__(
        self,
        shape: Shape,
        settings: Settings,
        count: int,
        known: Batches,
        rest: Batches | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.shape, self.settings, self.count, self.known, self.rest, self.processes = shape, settings, count, known, rest, processes
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
        self.optimizer = OPTIMIZERS[settings.optimizer][0](self.white.parameters(), lr=settings.rate)
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"step": 0, "error": math.inf, "weights": self._copies()}
        self.snapshot = self._state()
        self._losses: list[Tensor] = []  # since the last record
        self._asked = False  # this process, to stop

    def run(self, callback: Callable[[Progress], None] | None = None) -> bool:
        """Trains to the end; false if Ctrl-C came first.

        Args:
            callback: Called at every record.

        Example:
            >>> import numpy as np
            >>> from tensornet.completion.batches import Prepared
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> shape = make_shape(ModeTree.star(2))
            >>> known = Prepared(shape, (np.array([[0, 0], [1, 1]]), np.array([1.0, -1.0])), 2, dtype=torch.float32)
            >>> training = Training(shape, Settings((0.0, 0.0), steps=2), 2, known)
            >>> training.run(lambda progress: None), training.step
            (True, 2)
        """
        start = time.perf_counter()
        try:
            with signals() if self.processes.size > 1 else contextlib.nullcontext(lambda: 0) as arrived:
                return self._run(callback, start, arrived)
        except KeyboardInterrupt:
            return False

    def _run(self, callback: Callable[[Progress], None] | None, start: float, arrived: Callable[[], int]) -> bool:
        steps = self.settings.steps
        every = max(1, steps // RECORDS)
        while self.step < steps and not self._is_stuck():
            self._asked = self._asked or arrived() != 0
            loss = self._move()
            if loss is None:
                return False
            self._losses.append(loss)
            if self.step % every and self.step < steps:
                continue
            loss = torch.stack(self._losses).mean() if self.known.random else loss
            self._losses.clear()
            if not torch.isfinite(loss):
                text = f"the loss is {loss.item()} at step {self.step}; training stopped, a lower lr may help"
                warnings.warn(text, DivergenceWarning, stacklevel=4)
                break
            record = self._record(loss.item())
            if callback:
                seconds = time.perf_counter() - start
                self._tell(callback, Progress(**record, steps=steps, best=self.best["step"], seconds=seconds, state=self.snapshot))
        return True

    def _tell(self, callback: Callable[[Progress], None], progress: Progress) -> None:
        try:
            callback(progress)
        except KeyboardInterrupt:
            if self.processes.size == 1:
                raise
            self._asked = True  # the others are told at the next step

    def _weights(self) -> list[Tensor]:
        white = self.white.weight_list()
        lengths = self.settings.lengths
        return [correlated(weight, length) for weight, length in zip(white, lengths)] + white[len(lengths) :]

    def _squares(self, indices: Any, values: Tensor) -> Tensor:
        predicted = cast(Tensor, circuit.entries(self.shape, self._weights(), indices))
        return (predicted - values).abs().square().sum()

    def _penalties(self) -> Tensor:
        settings = self.settings
        fall = FALL ** (self.step / settings.steps) if self.rest is not None else 1.0
        squares = torch.stack([weight.abs().square().sum() for weight in self.white.parameters()]).sum()
        penalties = settings.weight_decay * fall / self.count * squares
        if settings.penalty:
            penalties = penalties + settings.penalty / self.count * self.white.gram([]).real.sum()
        return penalties

    def _differentiate(self) -> tuple[Tensor, bool]:
        """Leaves the objective's gradient in the weights; the mean squared error, and whether a process was asked to stop."""
        self.optimizer.zero_grad()
        if self.processes.rank == 0:
            self._penalties().backward()
        weights = list(self.white.parameters())
        loss = torch.zeros((), dtype=torch.float64, device=weights[0].device)
        size = self.known.size(self.step)
        for indices, values in self.known.parts(self.step):
            mean = self._squares(indices, values) / size
            mean.backward()
            loss += mean.detach()
        if self.processes.size == 1:  # then nothing is waited for: on a GPU, steps are queued
            return loss, False
        for weight in weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        more = torch.stack([loss, loss.new_tensor(float(self._asked))]).to(weights[0].dtype)
        self.processes.sum_together([*(weight.grad for weight in weights if weight.grad is not None), more])
        return more[0].real, bool(more[1].real > 0)

    def _move(self) -> Tensor | None:
        """Does one step; the loss before it, without penalties. Nothing where a process was asked to stop."""
        loss, asked = self._differentiate()
        if asked:
            return None
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * 0.5 * (1 + math.cos(math.pi * self.step / self.settings.steps))
        self.optimizer.step()
        self.step += 1
        return loss

    def _record(self, loss: float) -> dict[str, Any]:
        held_out = None
        if self.rest is not None:
            with torch.no_grad():
                weight = next(self.white.parameters())
                total = torch.zeros((), dtype=torch.float64, device=weight.device)
                for part in self.rest.parts(0):
                    total += self._squares(*part)
            held_out = self.processes.sum(total).item() / self.rest.size(0)
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
            >>> import numpy as np
            >>> from tensornet.completion.batches import Prepared
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> shape = make_shape(ModeTree.star(2))
            >>> known = Prepared(shape, (np.array([[0, 0], [1, 1]]), np.array([1.0, -1.0])), 2, dtype=torch.float32)
            >>> Training(shape, Settings((0.0, 0.0)), 2, known).best_htf().mode_sizes
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
            >>> import numpy as np
            >>> from tensornet.completion.batches import Prepared
            >>> from tensornet.shape import make_shape
            >>> from tensornet.tree import ModeTree
            >>> shape = make_shape(ModeTree.star(2))
            >>> known = Prepared(shape, (np.array([[0, 0], [1, 1]]), np.array([1.0, -1.0])), 2, dtype=torch.float32)
            >>> first, second = (Training(shape, Settings((0.0, 0.0)), 2, known) for _ in range(2))
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
