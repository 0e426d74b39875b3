"""Batch normalisation with a closed-form second derivative, beside torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnn_reg.batchnorm import TwiceBatchNorm2d


def _pair(**options: object) -> tuple[TwiceBatchNorm2d, nn.BatchNorm2d]:
    ours, theirs = TwiceBatchNorm2d(3, **options).double(), nn.BatchNorm2d(3, **options).double()
    if ours.affine:
        with torch.no_grad():
            ours.weight.copy_(torch.tensor([1.5, -0.5, 0.0]))
            ours.bias.normal_()
        theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("asked", ["x", "all"])
def test_it_is_torchs_up_to_second_derivatives(options, memory_format, asked):
    """Derivatives of a mixture of first derivatives, those of weights included, so that every formula counts."""
    found = []
    start = (torch.randn(4, 3, 3, 5, dtype=torch.float64) + 2).contiguous(memory_format=memory_format)
    mixture = [torch.randn(shape, dtype=torch.float64) for shape in [(4, 3, 3, 5), (3,), (3,)]]
    for layer in _pair(**options):
        x = start.clone().requires_grad_()
        y = layer(x)
        inputs = [x, *layer.parameters()]
        first = torch.autograd.grad((y.sin() * start).sum(), inputs if asked == "all" else [x], create_graph=True)
        second = torch.autograd.grad(sum((one * part).sum() for one, part in zip(first, mixture)), inputs)
        layer(x * 2)
        found.append([y, *first, *second, *layer.buffers()])
    for mine, theirs in zip(*found):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_gradgradcheck():
    layer = TwiceBatchNorm2d(2, track_running_stats=False).double()

    def value(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(3, 2, 2, 2), (2,), (2,)]]
    assert torch.autograd.gradcheck(value, given)
    assert torch.autograd.gradgradcheck(value, given)


def test_third_derivatives_are_refused():
    layer, x = TwiceBatchNorm2d(3), torch.randn(4, 3, 2, 2, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives are not available"):
        torch.autograd.grad(first.square().sum(), x, create_graph=True)


@pytest.mark.parametrize("training", [True, False])
def test_in_bfloat16(training):
    ours, theirs = (layer.float().train(training) for layer in _pair())
    found = []
    start, v = torch.randn(2, 8, 3, 6, 6).bfloat16()
    for layer in (ours, theirs):
        x = start.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
        found.append(torch.autograd.grad((first * v).sum(), [x, layer.weight]))
    for mine, other in zip(*found):
        assert mine.dtype == other.dtype
        assert torch.linalg.norm((mine - other).float()) <= 0.05 * torch.linalg.norm(other.float())


def test_evaluation_and_errors_are_torchs():
    ours, theirs = _pair()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        ours.train()(x[:1, :, :1, :1])
