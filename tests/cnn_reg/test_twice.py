"""Networks made fast to differentiate twice stay the same networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cnn_reg import Region, gradient_direction_penalty, resnet18
from cnn_reg.models import DropoutConv2d
from cnn_reg.twice import twice_differentiable


@pytest.mark.parametrize("batch_norm", ["update", "frozen", "eval"])
def test_the_penalty_and_its_derivatives_stay(batch_norm):
    plain = resnet18(width=1 / 16).double()
    fast = twice_differentiable(copy.deepcopy(plain))
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    found = []
    for network in (plain, fast):
        penalty, info = gradient_direction_penalty(network, x, Region(4, 4, 8, 8), Region(20, 20, 9, 7), batch_norm=batch_norm)
        (info.outputs.sum() + penalty).backward()
        found.append([penalty, *(weight.grad for weight in network.parameters()), *network.buffers()])
    assert found[0][1].any()
    for mine, other in zip(*found):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


def test_layers_stay_the_same_objects():
    network = resnet18(dropout=0.5, width=1 / 16)
    before, state = dict(network.named_modules()), network.state_dict()
    assert twice_differentiable(network) is network
    assert all(layer is before[name] for name, layer in network.named_modules())
    assert list(network.state_dict()) == list(state)
    assert isinstance(network.layer2[0].conv1, DropoutConv2d)
    assert not any(type(layer) in (nn.Conv2d, nn.BatchNorm2d, DropoutConv2d) for layer in network.modules())


def test_dropout_before_a_convolution_keeps_its_numbers_and_has_the_closed_form():
    torch.manual_seed(0)
    plain = resnet18(in_channels=1, dropout=0.3, width=0.125).double()
    twice = twice_differentiable(copy.deepcopy(plain))
    kinds = [type(layer).__name__ for layer in twice.modules()]
    assert kinds.count("TwiceDropoutConv2d") == 3
    assert "Conv2d" not in kinds
    images, found = torch.randn(4, 1, 32, 32, dtype=torch.float64), []
    for network in (plain, twice):
        torch.manual_seed(1)
        penalty, _ = gradient_direction_penalty(network, images, Region(0, 0, 4, 4), Region(20, 20, 4, 4))
        found.append([penalty, *torch.autograd.grad(penalty, [network.conv1.weight, network.layer2[0].conv1.weight])])
    for mine, other in zip(*found):
        torch.testing.assert_close(mine, other)
