"""Blocks of steps: the bits of step by step, ends within a block, rewinding, and steps in which nothing waits for the device."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tensornet.dynamics import training as training_module
from tensornet.dynamics.blocks import Blocks
from tensornet.dynamics.experiments import experiment
from tensornet.dynamics.training import Training

SMALL = {"ranks": "8", "true_rank": "2", "mode_sizes": "5,5,5", "samples": "80", "init_std": "0.05", "record_every": "10"}


def make(blocked: bool, name: str = "quick-tensor", **settings: str) -> Training:
    training = Training(experiment(name, {**SMALL, **settings}))
    training.blocked = blocked
    return training


def test_losses_are_those_of_the_block_and_rewinding_repeats_its_start() -> None:
    weight = torch.tensor([1.0, 3.0])

    def step() -> Tensor:
        weight.mul_(2)
        return weight.sum()

    blocks = Blocks(step, [weight], size=4)
    assert blocks.run(2) == [8.0, 16.0]
    assert blocks.run(3) == [32.0, 64.0, 128.0]
    blocks.rewind(1)
    assert weight.tolist() == [8.0, 24.0]
    blocks.rewind(0)
    assert weight.tolist() == [4.0, 12.0]


SETTINGS: list[dict[str, str]] = [
    {"max_steps": "47"},
    {"max_steps": "40"},
    {"max_steps": "33", "record_every": "1"},
    {"max_steps": "47", "optimizer": "adam"},
    {"max_steps": "47", "optimizer": "momentum", "lr": "0.1"},
    {"max_steps": "47", "optimizer": "gd", "lr": "0.1"},
    {"max_steps": "47", "task": "sensing", "loss": "huber"},
    {"max_steps": "47", "kind": "matrix", "mode_sizes": "6,6", "samples": "20", "matricizations": "()"},
    {"optimizer": "gd", "lr": "1e6", "init_std": "1", "max_steps": "500"},  # diverges
    {"record_every": "7"},  # converges within a block
]


@pytest.mark.parametrize("block", [4, 256])
@pytest.mark.parametrize("settings", SETTINGS)
def test_blocks_end_in_the_bits_of_step_by_step(settings: dict[str, str], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "BLOCK", block)
    plain, blocked = make(False, **settings), make(True, **settings)
    expected = list(plain.run())
    assert list(blocked.run()) == expected
    assert (blocked.step, blocked.calm, blocked.ended) == (plain.step, plain.calm, plain.ended)
    if plain.ended != "diverged":
        assert all(torch.equal(left, right) for left, right in zip(blocked.parameters, plain.parameters))


def test_the_cases_above_diverge_and_converge_within_blocks() -> None:
    diverged, converged = make(True, **SETTINGS[-2]), make(True, **SETTINGS[-1])
    assert all(math.isfinite(record["loss"]) for record in diverged.run())
    assert diverged.ended == "diverged"
    list(converged.run())
    assert converged.ended == "converged"
    assert converged.step % 7 != 0


@pytest.mark.parametrize("optimizer", ["group_rmsprop", "adam"])
def test_a_resumed_blocked_run_ends_in_the_same_bits(optimizer: str) -> None:
    whole, first, second = (make(True, max_steps="60", optimizer=optimizer) for _ in range(3))
    expected = list(whole.run())
    found = list(first.run(lambda: first.step > 33))
    assert first.step == 40
    list(second.run(lambda: second.step > 5))  # the optimizer's tensors of this block are left behind
    second.load(first.state())
    assert found + list(second.run()) == expected
    assert all(torch.equal(left, right) for left, right in zip(second.parameters, whole.parameters))


def test_only_what_does_the_same_every_time_is_done_in_blocks() -> None:
    assert not Training(experiment("quick-tensor")).blocked  # a processor does not gain


def _moved(training: Training, mode: FakeTensorMode) -> Training:
    """The training with tensors of a CUDA device that need not be there: they have shapes and no values."""
    tensors: dict[int, Tensor] = {}
    moved: dict[int, Tensor] = {}

    class Writer(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            if isinstance(thing, Tensor):
                tensors[id(thing)] = thing
                return id(thing)
            return type(thing).__name__ if isinstance(thing, torch.Generator | torch.device) else None

    class Reader(pickle.Unpickler):
        def persistent_load(self, key: Any) -> Any:
            if key == "Generator":
                return torch.Generator()
            if key == "device":
                return torch.device("cuda:0")
            if key not in moved:
                own = tensors[key]
                with mode:
                    fake = torch.empty_strided(own.shape, own.stride(), dtype=own.dtype, device="cuda")
                    moved[key] = torch.nn.Parameter(fake, own.requires_grad) if isinstance(own, torch.nn.Parameter) else fake
            return moved[key]

    written = io.BytesIO()
    Writer(written).dump(training)
    written.seek(0)
    found: Training = Reader(written).load()
    return found


@pytest.mark.parametrize("optimizer", ["group_rmsprop", "gd", "momentum"])
@pytest.mark.parametrize("name", ["fig1-matrix", "fig1-tensor", "fig1-hierarchical", "fig10"])
def test_no_step_on_a_cuda_device_waits_for_it(name: str, optimizer: str) -> None:
    """A graph cannot be captured of a step that asks the device for a value; tensors without values refuse to be asked."""
    training = Training(experiment(name, {"optimizer": optimizer}))
    training._whole_step()
    with FakeTensorMode() as mode:
        moved = _moved(training, mode)
        assert moved.objective.way == "contract"
        assert moved._whole_step().device.type == "cuda"
        with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
            moved._whole_step().item()


def test_sweeping_does_not_wait_either() -> None:
    class Forbidding(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert func is not torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    training = Training(experiment("quick-tensor", {"mode_sizes": "100,100,100", "true_rank": "1", "samples": "20", "optimizer": "gd"}))
    assert training.objective.way == "sweep"
    with Forbidding():
        loss = training._whole_step()
        with pytest.raises(AssertionError):
            loss.item()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings", [{"max_steps": "300"}, {"max_steps": "300", "optimizer": "adam"}, {"task": "sensing", "max_steps": "300"}, {}]
)
def test_a_graph_takes_the_steps_of_step_by_step(settings: dict[str, str]) -> None:
    chosen = experiment("quick-tensor", {**SMALL, "dtype": "float64", **settings})
    plain, graphed = Training(chosen, "cuda"), Training(chosen, "cuda")
    assert graphed.blocked
    plain.blocked = False
    expected, found = list(plain.run()), list(graphed.run())
    assert [record["step"] for record in found] == [record["step"] for record in expected]
    assert [record["loss"] for record in found] == pytest.approx([record["loss"] for record in expected], rel=1e-6)
    assert graphed.ended == plain.ended
