"""Another device than the CPU: nothing is left behind on the CPU, and the numbers are the same. A pretended device takes a GPU's place."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretended_device import pretended_device
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tensornet import HTF, ModeTree, TensorCompleter, hierarchical_rank, hierarchical_singular_values, hsvd, load, observe, save
from tensornet.completion import refinement
from tensornet.dynamics.experiments import experiment
from tensornet.dynamics.training import Training

TREES = [ModeTree.perfect(4), ModeTree.star(3), ModeTree.chain(5), ModeTree.random(6, seed=1)]


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    with pretended_device() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert (there + torch.tensor(2.0)).tolist() == [3.0, 3.0, 3.0]  # numbers may come from the CPU
        assert there[torch.tensor([0, 2])].device == device
        refused: list[Callable[[], Any]] = [
            lambda: there + here,
            lambda: here.add_(there),
            lambda: here[torch.tensor([0], device=device)],
            lambda: there.index_select(0, torch.tensor([0])),
            lambda: torch.stack([there, here]),
            lambda: torch.where(here > 0, there, there),
            lambda: here + there.sum(),
            lambda: torch.stack([there.sum(), here.sum()]),
        ]
        for operation in refused:
            with pytest.raises(AssertionError, match="of tensors on the CPU and on the device"):
                operation()
        with pytest.raises(AssertionError, match="with a generator of the CPU"):
            torch.randn(3, generator=torch.Generator(), device=device)
        for read in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(AssertionError, match="an array of a tensor on the device"):
                read()
        assert there.cpu().numpy().tolist() == [1.0, 1.0, 1.0]


def _loss_and_gradients(htf: HTF, values: Callable[[HTF], Tensor]) -> list[Tensor]:
    found = values(htf)
    return [found.detach(), *torch.autograd.grad(found.square().sum(), htf.weight_list())]


def _truncated(htf: HTF) -> Tensor:
    with torch.no_grad():
        tucker = htf.to_ht()
        return (tucker + tucker).truncate(max_rank=2).to_htf().contract()


OPERATIONS: dict[str, Callable[[HTF, Tensor, Tensor], Any]] = {
    "contract": lambda htf, indices, inputs: _loss_and_gradients(htf, lambda htf: htf.contract()),
    "part": lambda htf, indices, inputs: htf.contract(fixed={0: 1}),
    "entries": lambda htf, indices, inputs: _loss_and_gradients(htf, lambda htf: htf.entries(indices)),
    "few entries": lambda htf, indices, inputs: htf.entries(indices[:5]),
    "logarithms": lambda htf, indices, inputs: htf.entries(indices, log=True),
    "observed": lambda htf, indices, inputs: htf.entries(observe(htf.shape, indices, htf.weight_list()[0].device)),
    "forward": lambda htf, indices, inputs: _loss_and_gradients(htf, lambda htf: htf(inputs)),
    "norms": lambda htf, indices, inputs: list(htf.local_component_norms().values()),
    "unbalancedness": lambda htf, indices, inputs: htf.unbalancedness(),
    "prune": lambda htf, indices, inputs: htf.prune({htf.tree.interior[0]: [0, 2]}).contract(),
    "hierarchical Tucker": lambda htf, indices, inputs: _truncated(htf),
    "inner product": lambda htf, indices, inputs: htf.to_ht().inner(htf.to_ht()),
    "singular values": lambda htf, indices, inputs: list(hierarchical_singular_values(htf.contract().detach(), htf.tree).values()),
    "ranks": lambda htf, indices, inputs: torch.tensor(list(hierarchical_rank(htf.contract().detach(), htf.tree).values())),
    "hsvd": lambda htf, indices, inputs: hsvd(htf.contract().detach(), htf.tree, rtol=1e-3).to_htf().contract(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"order {tree.order}")
def test_factorizations(tree: ModeTree, operation: str) -> None:
    indices, inputs = torch.randint(3, (6000, tree.order)), torch.randn(50, tree.order, 3, dtype=torch.float64)
    htf = HTF(tree, mode_sizes=3, ranks=4, init_std=0.5, dtype=torch.float64)
    run = OPERATIONS[operation]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "max_rank=2 leaves an error")
        expected = tree_leaves(run(htf, indices, inputs))
        with pretended_device() as device:
            weights = {node: weight.detach().to(device) for node, weight in htf.weights.items()}
            found = tree_leaves(run(HTF.from_weights(tree, weights), indices, inputs.to(device)))
            assert operation == "ranks" or all(tensor.device == device for tensor in found)
            for own, other in zip(found, expected, strict=True):
                torch.testing.assert_close(own.detach().cpu(), other.detach())


SMALL = {
    "ranks": "6",
    "true_rank": "2",
    "mode_sizes": "5,5,5",
    "samples": "80",
    "init_std": "0.05",
    "record_every": "10",
    "max_steps": "25",
}
SETTINGS: list[dict[str, str]] = [
    {},
    {"optimizer": "adam"},
    {"optimizer": "momentum", "lr": "0.1"},
    {"optimizer": "flow", "dtype": "float64", "lr": "0.1", "max_steps": "3", "record_every": "1"},
    {"task": "sensing", "loss": "huber"},
    {"batch": "10", "noise": "0.1"},
    {"mode_sizes": "30,30,30", "samples": "20"},  # entry by entry
    {"kind": "matrix", "mode_sizes": "6,6", "samples": "20", "matricizations": "0"},
    {"mode_sizes": "4,4,4,4", "tree": "((0,1),(2,3))", "kind": "hierarchical"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_dynamics_go_on_from_their_state(settings: dict[str, str]) -> None:
    chosen = experiment("quick-tensor", {**SMALL, **settings})
    expected = list(Training(chosen).run())
    with pretended_device() as device:
        first, second = Training(chosen, device), Training(chosen, device)
        begun = list(islice(first.run(), 2))
        second.load(first.state())
        found = begun + list(second.run())
        assert [record["step"] for record in found] == [record["step"] for record in expected]
        for own, other in zip(found, expected):
            assert own.keys() == other.keys()
            for name in own:
                torch.testing.assert_close(own[name], other[name], rtol=1e-4, atol=1e-7)
        assert all(parameter.device == device for parameter in second.parameters)


@pytest.mark.parametrize("tree", ["auto", ModeTree.chain(4)], ids=["auto", "chain"])
@pytest.mark.parametrize(
    "settings", [{"ranks": "auto", "steps": 100, "validation": 0.1}, {"batch_size": 100}, {"optimizer": "group_rmsprop", "smooth": 2.0}]
)
def test_completion(tree: Any, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "STEPS", 40)
    monkeypatch.setattr(refinement, "TOLERANCES", (1.0,))
    indices = np.random.default_rng(0).integers(0, 6, (400, 4))
    values = np.sin(indices.sum(1))
    make = partial(TensorCompleter, tree=tree, **{"ranks": 3, "steps": 20, "dtype": torch.float64, **settings})
    expected = make().fit(indices, values)
    assert (expected.hierarchical_ranks_ is not None) == ("ranks" in settings)
    with pretended_device() as device:
        completer = make(device=device).fit(indices, values)
        assert completer.complete().device == device
        torch.testing.assert_close(completer.complete().cpu(), expected.complete())
        torch.testing.assert_close(torch.as_tensor(completer.predict(indices)).cpu(), torch.as_tensor(expected.predict(indices)))
        save(tmp_path / "completer.safetensors", completer)
        found = completer.complete().cpu()
    assert torch.equal(load(tmp_path / "completer.safetensors").complete(), found)
