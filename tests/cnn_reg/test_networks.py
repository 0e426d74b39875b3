from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cnn_reg.networks import Repeated, build_network


def register(monkeypatch, function):
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(net=function))


def test_networks_of_the_experiments():
    network = build_network("resnet18", 1, (32, 32), dropout=0.5, width=0.125)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 1)


def test_a_function_gets_the_arguments_that_it_takes(monkeypatch):
    given = []

    def net(in_channels, depth=2):
        given.append((in_channels, depth))
        return nn.Sequential(nn.Conv2d(in_channels, 2, 3), nn.Flatten(), nn.LazyLinear(1))

    register(monkeypatch, net)
    assert build_network("mine:net", 1, (8, 8))(torch.zeros(4, 1, 8, 8)).shape == (4, 1)
    assert given == [(1, 2)]


def test_a_grey_image_is_repeated_for_a_network_of_colors():
    network = build_network("torchvision.models:squeezenet1_1", 1, (64, 64))
    assert isinstance(network, Repeated)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:net", "model nowhere:net cannot be found: No module named 'nowhere'"),
        ("torch.nn:Nothing", "model torch.nn:Nothing cannot be found"),
        ("torch:pi", "model torch:pi must be a function; got float"),
        ("mine:net", r"model mine:net must return one logit an image; got \(2, 3\) for 2 images"),
        ("os:getcwd", "model os:getcwd must return a torch.nn.Module; got str"),
    ],
)
def test_bad_models(name, message, monkeypatch):
    register(monkeypatch, lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    with pytest.raises(ValueError, match=message):
        build_network(name, 1, (8, 8))
    with pytest.raises(ValueError, match="dropout and width are of resnet18 and resnet34"):
        build_network(name, 1, (8, 8), dropout=0.5)
