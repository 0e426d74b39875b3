"""Training: an experiment's problem, factorization and optimizer, and the loop that yields records."""

from __future__ import annotations

import copy
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tensornet.analysis.ranks import matricize
from tensornet.dynamics.blocks import Blocks, kept_tensors
from tensornet.dynamics.experiments import OPTIMIZERS, Experiment
from tensornet.dynamics.losses import Loss
from tensornet.dynamics.measures import finite, label, measure
from tensornet.dynamics.objective import Objective
from tensornet.dynamics.problems import Problem, completion, low_rank_truth, normalised, sensing
from tensornet.files.partial import read
from tensornet.htf import HTF
from tensornet.tree import ModeTree

BLOCK = 256  # steps at most before the host looks at their losses


class Training:
    """An experiment on its way.

    On a CUDA device the steps between two records are replays of a CUDA graph, where the gradient goes through the end tensor and neither
    batches nor noise are drawn; gradient flow has steps of its own.

    Args:
        experiment: What to do.
        device: Where to do it.

    Attributes:
        blocked: Whether the steps between two records are done in blocks, without waiting for each one's loss.
        step: Steps done.
        seconds: Time that they took, records included.
        ended: Why the run has ended: ``"converged"``, ``"max_steps"``, ``"diverged"``, or ``""`` while it goes on.
        true_ranks: Ranks of the ground truth's recorded matricizations, ``{modes: rank}``.

    Example:
        >>> from tensornet.dynamics.experiments import experiment
        >>> training = Training(experiment("quick-tensor", {"max_steps": "100"}))
        >>> [record["step"] for record in training.run()], training.ended
        ([0, 50, 100], 'max_steps')
    """

    def __init__(self, experiment: Experiment, device: torch.device | str = "cpu") -> None:
        self.experiment = experiment
        self.generator = torch.Generator().manual_seed(experiment.seed)
        problem = make_problem(experiment, self.generator)
        self.true_ranks = true_ranks(problem.truth, experiment.matricizations)
        self._truth_file = zlib.crc32(Path(experiment.truth).read_bytes()) if experiment.truth else None
        self.htf = HTF(
            experiment.mode_tree,
            experiment.mode_sizes,
            experiment.ranks,
            init_std=experiment.init_std,
            init=experiment.init,
            fixed_root=experiment.fixed_root,
            generator=self.generator,
            dtype=getattr(torch, experiment.dtype),
            device=device,
        )
        self.problem = problem.to(self.htf.weight_list()[0].detach())
        self.objective = Objective(self.htf, self.problem, Loss(experiment.loss, experiment.mean, experiment.delta))
        self.parameters = list(self.htf.parameters())
        self.closure = self._loss if experiment.optimizer == "flow" else None
        self.optimizer = OPTIMIZERS[experiment.optimizer]([self.objective.vector], lr=experiment.lr)
        self.step, self.calm, self.seconds, self.ended = 0, 0, 0.0, ""
        alike = not experiment.batch and not experiment.noise and experiment.optimizer != "flow" and self.objective.way == "contract"
        self.blocked = self.parameters[0].is_cuda and alike
        self._blocks: Blocks | None = None

    def run(self, stopping: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
        """Trains to the end, or until ``stopping``, which is asked before every step or block of steps, says so.

        A record is yielded at every step that is recorded, the first and the last included, unless it diverged. It holds ``step``,
        ``loss`` (of that step's batch), ``lr`` (the size of the step) and what :func:`tensornet.dynamics.measures.measure` gives, all
        before the step is done. Whenever a record has been yielded, :meth:`state` is one from which :meth:`load` continues in the same
        bits.

        Example:
            >>> from tensornet.dynamics.experiments import experiment
            >>> record = next(Training(experiment("quick-tensor")).run())
            >>> record["step"], record["error"]
            (0, 1.0)
        """
        experiment = self.experiment
        while not self.ended and not stopping():
            start = time.perf_counter()
            if self._block():
                self.seconds += time.perf_counter() - start
                continue
            loss = self._loss()
            self.calm = self._calm(loss)
            self.ended = self._end(loss, self.calm)
            record: dict[str, Any] | None = None
            if self.ended != "diverged" and (self.ended or self.step % experiment.record_every == 0):
                record = {"step": self.step, "loss": loss, **self._measures()}
                if not finite(record):  # which a loss with bounded slope need not show
                    self.ended, record = "diverged", None
            if not self.ended:
                self.optimizer.step(self.closure)
                self.step += 1
                if self.blocked and self._blocks is None:  # now the optimizer has all that it keeps
                    self._blocks = Blocks(self._whole_step, [self.objective.vector, *kept_tensors(self.optimizer)], BLOCK)
            self.seconds += time.perf_counter() - start
            if record is not None:
                yield {**record, "lr": self._rate()}

    def _block(self) -> bool:
        """Does the steps up to the next record, or to the one at which the run ends; whether there was one."""
        count = min(-self.step % self.experiment.record_every, self.experiment.max_steps - self.step, BLOCK)
        if self._blocks is None or count < 1:
            return False
        for done, loss in enumerate(self._blocks.run(count)):
            calm = self._calm(loss)
            if self._end(loss, calm):
                self._blocks.rewind(done)
                return done > 0
            self.calm, self.step = calm, self.step + 1
        return True

    def _whole_step(self) -> Tensor:
        loss = self._gradients()
        self.optimizer.step()
        return loss

    def _measures(self) -> dict[str, Any]:
        experiment, norms = self.experiment, self.experiment.kind != "matrix"
        return measure(self.htf, self.problem.truth, experiment.matricizations, top=experiment.top, norms=norms)

    def _gradients(self) -> Tensor:
        experiment, objective = self.experiment, self.objective
        if experiment.batch:
            rows = torch.randint(len(self.problem.values), (experiment.batch,), generator=self.generator)
            objective = objective.chosen(rows.to(self.problem.values.device))
        loss = objective.backward()
        if experiment.noise:
            for parameter in self.parameters:
                draw = torch.randn(parameter.shape, generator=self.generator, dtype=parameter.dtype)
                parameter.grad.add_(draw.to(parameter.device), alpha=experiment.noise)  # type: ignore[union-attr]
        return loss

    def _calm(self, loss: float) -> int:
        return self.calm + 1 if loss < self.experiment.stop_loss else 0

    def _loss(self) -> float:
        return self._gradients().item()

    def _end(self, loss: float, calm: int) -> str:
        if not math.isfinite(loss):
            return "diverged"
        if calm >= self.experiment.stop_count:
            return "converged"
        return "max_steps" if self.step >= self.experiment.max_steps else ""

    def _rate(self) -> float:
        """The size of the latest step, relative to the gradient; of Adam and momentum, the learning rate; of gradient flow, its time."""
        group = self.optimizer.param_groups[0]
        if group.get("gamma") is None:
            return float(group["lr"])
        mean = group["gamma"] / (1 - group["beta"] ** group["count"])
        return float(f"{group['lr'] / (mean.sqrt().item() + group['eps']):.5g}")

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on.

        Example:
            >>> from tensornet.dynamics.experiments import experiment
            >>> Training(experiment("quick-tensor")).state()["step"]
            0
        """
        return {
            "step": self.step,
            "calm": self.calm,
            "seconds": self.seconds,
            "ended": self.ended,
            "weights": [parameter.detach().clone() for parameter in self.parameters],
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "truth_file": self._truth_file,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from a :meth:`state` of the same experiment.

        Raises:
            ValueError: It is no such state, or the ground truth was read from a file that holds another one now.

        Example:
            >>> from tensornet.dynamics.experiments import experiment
            >>> training = Training(experiment("quick-tensor"))
            >>> training.load(training.state())
        """
        if state.get("truth_file") != self._truth_file:
            raise ValueError(f"the run was begun with another ground truth than {self.experiment.truth} holds now")
        try:
            self.optimizer.load_state_dict(_for_device(copy.deepcopy(state["optimizer"]), self.optimizer))
            with torch.no_grad():
                for parameter, weight in zip(self.parameters, state["weights"], strict=True):
                    parameter.copy_(weight)
            self._blocks = None  # the optimizer's tensors are other ones now
            self.generator.set_state(state["generator"])
            self.step, self.calm, self.seconds, self.ended = (state[name] for name in ("step", "calm", "seconds", "ended"))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"the checkpoint does not belong to this experiment, or is of another version ({error})") from None


def _for_device(loaded: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state, of whichever device, with what depends on the device as the optimizer has it."""
    for group, own in zip(loaded["param_groups"], optimizer.param_groups):
        if "capturable" in own:
            group["capturable"] = own["capturable"]
    return loaded


def make_problem(experiment: Experiment, generator: torch.Generator) -> Problem:
    """The experiment's problem, in double precision.

    Raises:
        ValueError: The ground truth's file holds no real array of the experiment's sizes.
        OSError: It cannot be read.

    Example:
        >>> from tensornet.dynamics.experiments import experiment
        >>> make_problem(experiment("quick-tensor"), torch.Generator().manual_seed(0)).truth.shape
        torch.Size([10, 10, 10])
    """
    if experiment.truth:
        truth = _read_truth(experiment.truth, experiment.mode_sizes)
    else:
        tree = experiment.mode_tree if experiment.kind != "matrix" else ModeTree.star(2)
        truth = low_rank_truth(tree, experiment.mode_sizes, experiment.true_rank, generator, fixed_root=experiment.fixed_root)
    return (completion if experiment.task == "completion" else sensing)(truth, experiment.samples, generator)


def _read_truth(path: str, sizes: tuple[int, ...]) -> Tensor:
    found = read(path)
    if found.sizes != sizes or len(found.values) != math.prod(sizes):
        raise ValueError(f"the ground truth in {path} must be a whole array of the sizes {sizes}; got {len(found.values)} of {found.sizes}")
    values = torch.as_tensor(found.values)
    if values.is_complex():
        raise ValueError(f"the ground truth in {path} must be real; got {values.dtype}")
    truth = torch.empty(sizes, dtype=torch.float64)
    truth[tuple(torch.as_tensor(found.indices).T)] = values.to(torch.float64)
    return normalised(truth)


def true_ranks(truth: Tensor, matricizations: Sequence[Sequence[int]]) -> dict[str, int]:
    """Ranks of a ground truth's matricizations, to the precision of its numbers: ``{modes: rank}``.

    Example:
        >>> true_ranks(torch.ones(2, 3, 4), [(0,), (0, 2)])
        {'0': 1, '0,2': 1}
    """
    return {label(modes): int(torch.linalg.matrix_rank(matricize(truth, modes))) for modes in matricizations}
