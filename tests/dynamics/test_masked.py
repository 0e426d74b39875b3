"""The loss of observed entries among all, compiled and by operations of torch, against losses of their residuals."""

from __future__ import annotations

import pytest
import torch

from tensornet.dynamics import masked
from tensornet.dynamics.losses import Loss
from tensornet.dynamics.masked import MaskedLoss
from tensornet.dynamics.observations import Entries


@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
def test_losses_and_derivatives(name, mean, dtype, way, monkeypatch):
    if way == "torch":
        monkeypatch.setattr(masked, "SMALL", 0)
    generator = torch.Generator().manual_seed(1)
    entries = Entries((3, 2, 4, 5), torch.randperm(120, generator=generator)[:50])
    tensor, values = torch.randn(3, 2, 4, 5, generator=generator, dtype=dtype), torch.randn(50, generator=generator, dtype=dtype)
    values[7] = tensor.view(-1)[entries.places[7]]  # a residual of zero
    slope, loss = torch.full_like(tensor, float("nan")), Loss(name, mean, 0.7)
    ours = MaskedLoss(loss, entries, values, tensor, slope)
    assert (ours._compiled is not None) == (way == "compiled")
    for _ in range(2):
        tensor.mul_(0.5).add_(0.1)
        expected, derivative = loss(entries.of(tensor) - values)
        found = ours()
        assert torch.allclose(found, expected)
        assert found.dtype == dtype
        assert torch.allclose(slope, entries.adjoint(derivative))


@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
def test_losses_of_several_steps_are_tensors_of_their_own(name):
    tensor = torch.ones(4)
    ours = MaskedLoss(Loss(name), Entries((4,), torch.tensor([0, 1, 3])), torch.zeros(3), tensor, torch.empty(4))
    first = ours()
    tensor.fill_(5.0)
    assert ours() > first


def test_squares_are_of_double_precision():
    tensor = torch.tensor([2e19, 0.0, 0.0, 0.0])  # the square is beyond the range of float32, a quarter of it is not
    found = MaskedLoss(Loss(), Entries((4,), torch.arange(4)), torch.zeros(4), tensor, torch.empty(4))()
    assert found.item() == pytest.approx(1e38)


def test_losses_of_ones_own_are_asked():
    class Twice(Loss):
        def __call__(self, residual, samples=None, out=None):
            value, slope = super().__call__(residual, samples)
            return 2 * value, torch.mul(slope, 2, out=out)

    slope = torch.empty(4)
    assert MaskedLoss(Twice(), Entries((4,), torch.arange(4)), torch.zeros(4), torch.ones(4), slope)() == 2.0
    assert slope.tolist() == [1.0] * 4


@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("place", [0, 2], ids=["observed", "not observed"])
@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
def test_no_loss_of_what_is_not_finite_is_finite(name, place, way, monkeypatch):
    if way == "torch":
        monkeypatch.setattr(masked, "SMALL", 0)
    tensor = torch.ones(4)
    tensor[place] = float("nan")
    assert not MaskedLoss(Loss(name), Entries((4,), torch.tensor([0, 1, 3])), torch.zeros(3), tensor, torch.empty(4))().isfinite()
