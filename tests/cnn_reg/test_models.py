"""The networks of the experiments beside torchvision's."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from cnn_reg.models import DropoutConv2d, resnet18, resnet34

BUILDERS = [(resnet18, torchvision.models.resnet18), (resnet34, torchvision.models.resnet34)]


@pytest.mark.parametrize(("ours", "theirs"), BUILDERS)
def test_they_are_torchvisions(ours, theirs):
    torch.manual_seed(1)
    network = ours()
    torch.manual_seed(1)
    reference = theirs(num_classes=1)
    found, expected = network.state_dict(), reference.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(network.eval()(x), reference.eval()(x))


def test_one_channel():
    network, reference = resnet18(in_channels=1), torchvision.models.resnet18(num_classes=1)
    shapes = {name: value.shape for name, value in reference.state_dict().items()}
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes | {"conv1.weight": (64, 1, 7, 7)}
    # Kaiming's deviation for the fan out of 64 x 7 x 7, within 4 standard errors of 3136 draws.
    deviation = (2 / (64 * 49)) ** 0.5
    assert network.conv1.weight.std().item() == pytest.approx(deviation, rel=4 / (2 * 3136) ** 0.5)


@pytest.mark.parametrize("width", [0.25, 0.5, 2])
def test_width(width):
    network = resnet18(in_channels=1, width=width)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    reference = [layer for layer in torchvision.models.resnet18().modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [width * layer.out_channels for layer in reference]
    assert [layer.stride for layer in convolutions] == [layer.stride for layer in reference]
    for layer in convolutions[1:]:
        deviation = (2 / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(deviation, rel=4 / (2 * layer.weight.numel()) ** 0.5)
    assert network(torch.randn(2, 1, 40, 40)).shape == (2, 1)


@pytest.mark.parametrize("builder", [resnet18, resnet34])
def test_dropout_stands_before_the_first_convolutions_of_more_channels(builder):
    network = builder(dropout=0.3, width=0.125)
    dropping = {name: layer for name, layer in network.named_modules() if isinstance(layer, DropoutConv2d)}
    assert list(dropping) == ["layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]
    assert [layer.out_channels for layer in dropping.values()] == [16, 32, 64]
    assert all(layer.dropout == 0.3 and layer.stride == (2, 2) for layer in dropping.values())
    assert "stride=(2, 2), padding=(1, 1), bias=False, dropout=0.3" in repr(dropping["layer2.0.conv1"])
    plain = builder(width=0.125)
    plain.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 40, 40)
    assert torch.equal(network.eval()(x), plain.eval()(x))
    assert not torch.equal(network.train()(x), network(x))


def test_dropout_drops_inputs_at_its_rate():
    layer = DropoutConv2d(nn.Conv2d(1, 1, 1, bias=False), dropout=0.25)
    nn.init.ones_(layer.weight)
    dropped = layer(torch.ones(1, 1, 100, 100))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 1e4) ** 0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1; got 0"),
        ({"in_channels": 1.5}, TypeError, "in_channels must be an integer; got 1.5"),
        ({"dropout": 1}, ValueError, "dropout must be at least 0 and below 1; got 1"),
        ({"dropout": -0.1}, ValueError, "dropout must be at least 0 and below 1; got -0.1"),
        ({"width": 0.01}, ValueError, "width must leave at least one of 64 channels; got 0.01"),
        ({"width": "half"}, TypeError, "width must be a number; got 'half'"),
    ],
)
def test_impossible_networks_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        resnet18(**arguments)
