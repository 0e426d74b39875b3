"""Convolutions with a closed-form second derivative, beside torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnn_reg.convolution import TwiceConv2d

OPTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 7, "stride": 2, "padding": 3, "bias": False},
    {"kernel_size": 1, "stride": 2, "bias": False},
    {"kernel_size": (3, 2), "dilation": 2, "groups": 2, "padding": (0, 1)},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("asked", ["x", "all"])
def test_it_is_torchs_up_to_second_derivatives(options, asked):
    ours, theirs = TwiceConv2d(2, 4, **options).double(), nn.Conv2d(2, 4, **options).double()
    theirs.load_state_dict(ours.state_dict())
    start = torch.randn(3, 2, 9, 8, dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        x = start.clone().requires_grad_()
        inputs = [x, *layer.parameters()]
        y = layer(x)
        first = torch.autograd.grad(y.sin().sum(), inputs if asked == "all" else [x], create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), inputs)
        found.append([y, *first, *second])
    for mine, other in zip(*found):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_gradgradcheck():
    layer = TwiceConv2d(2, 2, 2, stride=2).double()

    def value(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 2, 4, 4), (2, 2, 2, 2), (2,)]]
    assert torch.autograd.gradgradcheck(value, given)


def test_autocast_as_torch_does():
    ours, theirs = TwiceConv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    theirs.load_state_dict(ours.state_dict())
    start = torch.randn(2, 3, 8, 8)
    found = []
    for layer in (ours, theirs):
        x = start.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        (first,) = torch.autograd.grad(y.float().sin().sum(), x, create_graph=True)
        found.append([y, first, *torch.autograd.grad(first.square().sum(), [x, layer.weight])])
    for mine, other in zip(*found):
        assert mine.dtype == other.dtype
        assert torch.linalg.norm((mine - other).float()) <= 0.02 * torch.linalg.norm(other.float())


def test_inputs_that_became_constants_get_no_gradient():
    layer, x = TwiceConv2d(2, 3, 3), torch.randn(1, 2, 5, 5, requires_grad=True)
    y = layer(x).sin()
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    expected = torch.autograd.grad(y.sum() + first.square().sum(), layer.weight, retain_graph=True)[0]
    x.requires_grad_(False)
    (y.sum() + first.square().sum()).backward()
    assert x.grad is None
    torch.testing.assert_close(layer.weight.grad, expected)
