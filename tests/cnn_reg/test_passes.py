"""Batch normalisation and random numbers of a second pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnn_reg.passes import RandomState, batch_norm_set


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.BatchNorm2d(2, track_running_stats=False))


def _state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _flags(network: nn.Module) -> list[tuple[bool, bool]]:
    return [(layer.training, getattr(layer, "track_running_stats", False)) for layer in network.modules()]


@pytest.mark.parametrize(("treatment", "moves"), [("update", True), ("frozen", False), ("eval", False)])
def test_running_statistics(treatment, moves):
    network, before = _network(), None
    before, flags = _state(network), _flags(network)
    with batch_norm_set(network, treatment):
        network(torch.randn(4, 1, 6, 6))
    after = _state(network)
    assert all(torch.equal(before[name], after[name]) for name in before) is not moves
    assert _flags(network) == flags


def test_frozen_normalises_by_the_batch_and_eval_by_the_running_statistics():
    layer, x = nn.BatchNorm2d(2), torch.randn(4, 2, 3, 3) * 5
    with batch_norm_set(layer, "frozen"):
        torch.testing.assert_close(layer(x).mean((0, 2, 3)), torch.zeros(2))
    with batch_norm_set(layer, "eval"):
        torch.testing.assert_close(layer(x), x / (1 + layer.eps) ** 0.5)


def test_layers_are_put_back_after_an_error():
    network = _network()
    network[1].eval()
    flags = _flags(network)
    with pytest.raises(RuntimeError, match="expected input"), batch_norm_set(network, "frozen"):
        network(torch.randn(4, 3, 6, 6))
    assert _flags(network) == flags


def test_a_function_has_no_layers_to_change():
    with (
        pytest.raises(TypeError, match=r"batch_norm='frozen' needs a torch\.nn\.Module, whose layers can be found; got a builtin"),
        batch_norm_set(torch.sum, "frozen"),
    ):
        pass


def test_the_random_state_comes_back():
    dropout, x = nn.Dropout(0.5), torch.ones(100)
    state = RandomState(torch.device("cpu"))
    first, other = dropout(x), dropout(x)
    state.restore()
    again = dropout(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
