"""A network in training: steps, epochs, evaluation, and its state as data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cnn_reg.checkpoint import random_state, set_random_state
from cnn_reg.config import Config
from cnn_reg.data import ImageSet
from cnn_reg.schedule import PenaltySchedule
from cnn_reg.tasks import Task
from cnn_reg.training.metrics import Tally
from cnn_reg.training.objective import StepPlan, accumulate_gradients, evaluate
from tensornet.checks import line
from tensornet.distributed import ALONE, Processes


class Trainer:
    """A network, its optimizer, and where in the training they are.

    What happens next is determined by :meth:`state` alone, so that a trainer that is set to the state of another goes on as that one
    would have, to the bit. Processes that train together each have a trainer, and make the same steps.

    Args:
        config: The recipe.
        task: Images and regions, on the device.
        model: The network, of one logit.
        device: Where to compute.
        processes: This process among those that train together.

    Example:
        >>> from cnn_reg.tasks import make_task
        >>> config = Config(train_images=8, test_images=4, image_size=8, batch_size=4)
        >>> trainer = Trainer(config, make_task(config), nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
        >>> list(trainer.epoch_steps())
        [1, 2]
        >>> trainer.finish_epoch()["epoch"]
        1
    """

    def __init__(
        self, config: Config, task: Task, model: nn.Module, *, device: torch.device | str = "cpu", processes: Processes = ALONE
    ) -> None:
        self.config, self.task, self.device, self.processes = config, task, torch.device(device), processes
        self.model = model.to(self.device)
        if config.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self._plain = torch.compile(self.model) if config.compile else self.model
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
        growth = [(0, 0.0), (config.warmup * self.steps, config.coefficient)]
        self.schedule = PenaltySchedule(growth if config.warmup else config.coefficient, every=config.penalty_every)
        self.generator = torch.Generator().manual_seed(config.seed)  # of the order of samples and of regions
        self.epoch = 0  # epochs that are done
        self.step = 0  # steps that are done of the current epoch
        self.seconds = 0.0  # that they took
        self.perfect = 0  # epochs in a row of perfect accuracy in training
        self.order = torch.empty(0, dtype=torch.long)  # samples of the current epoch
        self.tally = Tally(self.device)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(self.task.training_images / self.config.batch_size)

    def epoch_steps(self) -> Iterator[int]:
        """Makes the steps of the current epoch that are still to do, and yields the number of those that are done.

        Example:
            >>> from cnn_reg.tasks import make_task
            >>> config = Config(train_images=8, test_images=4, image_size=8, batch_size=4)
            >>> trainer = Trainer(config, make_task(config), nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
            >>> next(trainer.epoch_steps()), trainer.step
            (1, 1)
        """
        if self.step == 0:
            self.order = torch.randperm(self.task.training_images, generator=self.generator)
            self.tally, self.seconds = Tally(self.device), 0.0
        self.model.train()
        while self.step < self.steps:
            start = time.perf_counter()
            self._make_step(self.order[self.step * self.config.batch_size :][: self.config.batch_size])
            self.step += 1
            if self.device.type == "cuda" and self.step == self.steps:
                torch.cuda.synchronize(self.device)  # what is timed is done
            self.seconds += time.perf_counter() - start
            yield self.step

    def _make_step(self, indices: Tensor) -> None:
        self.optimizer.zero_grad()
        accumulate_gradients(
            self.model,
            self._parts(self.task.train, self.processes.parts(indices, self.config.accumulate)),
            len(indices),
            plan=self._plan(),
            config=self.config,
            tally=self.tally,
            plain=self._plain,
        )
        self.processes.sum_gradients(list(self.model.parameters()))
        self.optimizer.step()

    def _plan(self) -> StepPlan:
        """Regions are drawn in every step, whatever the coefficient, so that the order of samples depends on the seed alone."""
        pairs = [self.task.regions(self.generator) for _ in range(self.config.pairs)]
        coefficient = self.schedule.at(self.epoch * self.steps + self.step)
        return StepPlan(coefficient, pairs, cosines=self.step % self.config.observe_every == 0)

    def _parts(self, data: ImageSet, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        memory = torch.channels_last if self.config.channels_last else torch.contiguous_format
        for indices in parts:
            there = indices.to(self.device)
            yield data.batch(there).to(memory_format=memory), data.labels[there]

    def finish_epoch(self) -> dict[str, Any]:
        """Evaluates the network and returns the epoch's record: means over all processes.

        Example:
            >>> from cnn_reg.tasks import make_task
            >>> config = Config(train_images=8, test_images=4, image_size=8, batch_size=4)
            >>> trainer = Trainer(config, make_task(config), nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
            >>> steps = list(trainer.epoch_steps())
            >>> 0 <= trainer.finish_epoch()["test_accuracy"] <= 1
            True
        """
        self.processes.average_buffers(self.model)
        trained = self.tally.over(self.processes).means()
        self.epoch, self.step = self.epoch + 1, 0
        self.perfect = self.perfect + 1 if trained["accuracy"] == 1 else 0
        record = {"epoch": self.epoch, **{f"train_{name}": trained.pop(name) for name in ("loss", "accuracy")}, **trained}
        count = self.task.training_images
        held_out = torch.arange(count, count + self.task.validation)
        for name, data, indices in (("validation", self.task.train, held_out), ("test", self.task.test, torch.arange(len(self.task.test)))):
            if len(indices):
                found = self._evaluate(data, indices)
                record |= {f"{name}_loss": found["loss"], f"{name}_accuracy": found["accuracy"]}
        return {**record, "seconds": round(self.seconds, 3), "images_per_second": round(count / self.seconds, 2)}

    def _evaluate(self, data: ImageSet, indices: Tensor) -> dict[str, Any]:
        mine = indices[self.processes.rank :: self.processes.size]
        tally = Tally(self.device)
        evaluate(self.model, self._parts(data, mine.split(self.config.batch_size)), config=self.config, tally=tally)
        return tally.over(self.processes).means()

    @property
    def done(self) -> str | None:
        """Why the training is over, or ``None``."""
        if self.config.patience and self.perfect >= self.config.patience:
            return f"{self.perfect} epochs of perfect training accuracy"
        return f"{self.epoch} epochs" if self.epoch >= self.config.epochs else None

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as data; to be called by all processes.

        Example:
            >>> from cnn_reg.tasks import make_task
            >>> config = Config(train_images=8, test_images=4, image_size=8, batch_size=4)
            >>> trainer = Trainer(config, make_task(config), nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
            >>> sorted(trainer.state())
            ['generator', 'model', 'optimizer', 'order', 'position', 'processes']
        """
        own = {"random": random_state(), "tally": self.tally.state(), "buffers": dict(self.model.named_buffers())}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.order,
            "position": {name: getattr(self, name) for name in _POSITION},
            "processes": self.processes.gather(own),
        }

    def set(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state` gave.

        Raises:
            ValueError: It is of another number of processes, or of another network.

        Example:
            >>> from cnn_reg.tasks import make_task
            >>> config = Config(train_images=8, test_images=4, image_size=8, batch_size=4)
            >>> trainer = Trainer(config, make_task(config), nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
            >>> steps = list(trainer.epoch_steps())
            >>> again = Trainer(config, trainer.task, nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
            >>> again.set(trainer.state())
            >>> again.step
            2
        """
        try:
            self._set(state)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"the checkpoint is none of such a training ({type(error).__name__}: {line(error)[:100]})") from None

    def _set(self, state: dict[str, Any]) -> None:
        if len(state["processes"]) != self.processes.size:
            raise ValueError(
                f"the checkpoint is of {len(state['processes'])} processes; a run is resumed with as many, got {self.processes.size}"
            )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ValueError(f"the checkpoint is of another network ({line(error)[:200]})") from None
        own = state["processes"][self.processes.rank]
        for name, buffer in self.model.named_buffers():
            buffer.copy_(own["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.order = state["order"]
        for name in _POSITION:
            setattr(self, name, state["position"][name])
        self.tally.set(own["tally"])
        set_random_state(own["random"])


_POSITION = ("epoch", "step", "seconds", "perfect")
