"""Blocks of steps: the bits of step by step, ends within a block, rewinding, and steps in which nothing waits for the device."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tensornet.dynamics import training as training_module
from tensornet.dynamics.blocks import Blocks
from tensornet.dynamics.experiments import experiment
from tensornet.dynamics.objective import Objective
from tensornet.dynamics.observations import Entries
from tensornet.dynamics.training import Training
from tensornet.files.runs import Run

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
    {"max_steps": "47", "kind": "matrix", "mode_sizes": "6,6", "samples": "20", "matricizations": "0"},
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


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("stop", [10, 11, 14, 20])
@pytest.mark.parametrize("optimizer", ["group_rmsprop", "momentum", "adam"])
def test_a_resumed_blocked_run_ends_in_the_same_bits(optimizer: str, stop: int, device: str, tmp_path: Path) -> None:
    chosen = experiment("quick-tensor", {**SMALL, "max_steps": "47", "optimizer": optimizer})
    whole, first, second = (Training(chosen, device) for _ in range(3))
    for training in (whole, first, second):
        training.blocked = True
    expected = list(whole.run())
    found = list(first.run(lambda: first.step >= stop))
    run = Run(tmp_path, {})
    run.checkpoint(first.state())
    list(second.run(lambda: second.step > 5))  # the tensors of this block are left behind
    state = run.restore()
    assert state is not None
    second.load(state)
    assert found + list(second.run()) == expected
    assert all(torch.equal(left, right) for left, right in zip(second.parameters, whole.parameters))


def test_what_depends_on_the_device_is_not_taken_from_a_checkpoint() -> None:
    training = make(False, optimizer="adam", max_steps="3")
    list(training.run())
    state = training.state()
    state["optimizer"]["param_groups"][0]["capturable"] = True  # as on a CUDA device
    training.load(state)
    assert training.optimizer.param_groups[0]["capturable"] is False


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
            return type(thing).__name__ if isinstance(thing, torch.Generator | torch.device | Objective) else None

    class Reader(pickle.Unpickler):
        def persistent_load(self, key: Any) -> Any:
            if key == "Generator":
                return torch.Generator()
            if key == "device":
                return torch.device("cuda:0")
            if key == "Objective":
                return None  # made anew below, on memory of the device
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
    with mode, patch.object(Entries, "repeated", False):  # which depends on values
        found.objective = Objective(found.htf, found.problem, training.objective.loss, "contract")
    (group,) = found.optimizer.param_groups
    for vector, own in zip(group["params"], [found.objective.vector]):
        if vector in found.optimizer.state:
            found.optimizer.state[own] = found.optimizer.state.pop(vector)
    group["params"] = [found.objective.vector]
    return found


class NoWaiting(TorchDispatchMode):
    """Fails where the host asks a device for values, or values go from one to the other."""

    ASKING = ("_local_scalar_dense", "equal", "is_nonzero", "item", "nonzero", "_unique2", "unique_dim", "masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in self.ASKING, f"{func} waits for the device"
        result = func(*args, **(kwargs or {}))
        places = {leaf.device.type for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor) and leaf.ndim}
        copied = "copy" in func.overloadpacket.__name__ and args[0].device.type != result.device.type
        assert len(places) <= 1, f"{func} goes from one device to another"
        assert not copied, f"{func} goes from one device to another"
        return result


@pytest.mark.parametrize("optimizer", ["group_rmsprop", "gd", "momentum", "adam"])
@pytest.mark.parametrize("name", ["fig1-matrix", "fig1-tensor", "fig1-hierarchical", "fig9", "fig10"])
def test_no_step_on_a_cuda_device_waits_for_it(name: str, optimizer: str) -> None:
    """A graph cannot be captured of a step that asks the device for a value; tensors without values show that none does."""
    training = Training(experiment(name, {"optimizer": optimizer}))
    training._whole_step()
    with FakeTensorMode() as mode:
        moved = _moved(training, mode)
        assert moved.objective.way == "contract"
        if optimizer == "adam":  # as it is made on a CUDA device
            moved.optimizer.param_groups[0]["capturable"] = True
            for state in moved.optimizer.state.values():
                state["step"] = state["step"].cuda()
        with NoWaiting(), patch.object(Tensor, "is_set_to", lambda *_: True):  # which tensors without memory cannot tell
            loss = moved._whole_step()
            assert loss.device.type == "cuda"
            for wait in (loss.item, loss.cpu, moved.parameters[0].detach().cpu):
                with pytest.raises(AssertionError, match=r"waits for the device|from one device to another"):
                    wait()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "adam"}, {"optimizer": "momentum", "lr": "0.1"}, {"task": "sensing"}, {"record_every": "7"}]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_graph_takes_the_steps_of_step_by_step(settings: dict[str, str], dtype: str) -> None:
    chosen = experiment("quick-tensor", {**SMALL, "max_steps": "1500", "dtype": dtype, **settings})
    plain, graphed = Training(chosen, "cuda"), Training(chosen, "cuda")
    assert graphed.blocked
    plain.blocked = False
    expected, found = list(plain.run()), list(graphed.run())
    assert [record["step"] for record in found] == [record["step"] for record in expected]
    losses = [record["loss"] for record in expected]
    assert [record["loss"] for record in found] == pytest.approx(losses, rel=1e-6 if dtype == "float64" else 1e-2)
    assert graphed.ended == plain.ended


@pytest.mark.gpu
def test_a_graph_that_diverges_ends_where_step_by_step_ends() -> None:
    chosen = experiment("quick-tensor", {**SMALL, "optimizer": "gd", "lr": "1e6", "init_std": "1", "max_steps": "500"})
    plain, graphed = Training(chosen, "cuda"), Training(chosen, "cuda")
    plain.blocked = False
    list(plain.run()), list(graphed.run())
    assert (graphed.step, graphed.ended) == (plain.step, "diverged")
