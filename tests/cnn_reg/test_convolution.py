"""Convolutions with a closed-form second derivative, beside torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnn_reg.convolution import TwiceConv2d
from cnn_reg.window import put

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


BOXES = [  # channels, rows, columns
    ((0, 2), (0, 1), (0, 1)),
    ((0, 2), (8, 9), (7, 8)),
    ((0, 2), (3, 6), (2, 7)),
    ((0, 2), (0, 9), (0, 8)),
    ((0, 2), (5, 6), (1, 2)),
    ((1, 2), (2, 5), (1, 3)),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("places", BOXES)
def test_the_gradient_at_a_window_is_torchs_up_to_second_derivatives(options, places):
    ours, theirs = TwiceConv2d(2, 4, **options).double(), nn.Conv2d(2, 4, **options).double()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, 2, 9, 8, dtype=torch.float64)
    box = (slice(0, 3), *(slice(*part) for part in places))
    found = []
    for layer in (ours, theirs):
        values = images[box].clone().requires_grad_()
        y = layer(put(values, images, box)) if layer is ours else layer(images.index_put(box_index(box), values))
        (first,) = torch.autograd.grad(y.sin().sum(), values, create_graph=True)
        second = torch.autograd.grad(first.square().sum() + y.cos().sum(), list(layer.parameters()))
        found.append([y, first, *second])
    for mine, other in zip(*found):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def box_index(box):
    return torch.meshgrid(*(torch.arange(part.start, part.stop) for part in box), indexing="ij")


def test_values_that_became_constants_get_no_gradient():
    layer, images, box = TwiceConv2d(2, 3, 3), torch.randn(1, 2, 5, 5), (slice(0, 1), slice(0, 2), slice(1, 3), slice(2, 4))
    values = images[box].clone().requires_grad_()
    y = layer(put(values, images, box)).sin()
    (first,) = torch.autograd.grad(y.sum(), values, create_graph=True)
    expected = torch.autograd.grad(y.sum() + first.square().sum(), layer.weight, retain_graph=True)[0]
    values.requires_grad_(False)
    (y.sum() + first.square().sum()).backward()
    assert values.grad is None
    torch.testing.assert_close(layer.weight.grad, expected)


def test_what_a_model_does_with_the_gradient_at_its_own_input_stays():
    images, box = torch.randn(2, 2, 6, 6, dtype=torch.float64), (slice(0, 2), slice(0, 1), slice(1, 3), slice(2, 4))
    ours, theirs = TwiceConv2d(2, 3, 3).double(), nn.Conv2d(2, 3, 3).double()
    theirs.load_state_dict(ours.state_dict())

    def model(layer, x):
        x.register_hook(lambda gradient: gradient.clamp(min=0))
        y = layer(x).sin()
        (inner,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y.sum() + inner.square().sum()

    found = []
    for layer in (ours, theirs):
        values = images[box].clone().requires_grad_()
        placed = put(values, images, box)
        y = model(layer, placed)
        found.append([y, *torch.autograd.grad(y, values)])
    for mine, other in zip(*found):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def count_of_weight_gradients(run):
    """How often a convolution's gradient at its weight is computed."""

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten.convolution_backward.default and args[-1][1]
            return function(*args, **(kwargs or {}))

    with Counter() as counter:
        run()
    return counter.count


def test_weights_get_gradients_only_in_passes_that_ask_for_them():
    layers = nn.Sequential(TwiceConv2d(1, 2, 3), TwiceConv2d(2, 2, 3, bias=False)).double()
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    y = layers(x).sin().sum()
    weights = [layer.weight for layer in layers]
    assert count_of_weight_gradients(lambda: torch.autograd.grad(y, x, create_graph=True)) == 0
    assert count_of_weight_gradients(lambda: torch.autograd.grad(y, weights, retain_graph=True)) == 2
    assert count_of_weight_gradients(lambda: y.backward(inputs=weights[:1], retain_graph=True)) == 1
    assert count_of_weight_gradients(lambda: y.backward()) == 2
