"""Losses against their formulas, and their derivatives against automatic differentiation."""

from __future__ import annotations

import pytest
import torch

from tensornet.dynamics.losses import Loss

RESIDUAL = torch.tensor([0.3, -2.0, 0.0, 5.0, -0.1], dtype=torch.float64)


def formula(name, residual, delta):
    size = residual.abs()
    if name == "l2":
        return residual.square().sum()
    if name == "l1":
        return size.sum()
    return torch.where(size <= delta, residual.square() / 2, delta * (size - delta / 2)).sum()


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
def test_value_and_slope(name, mean):
    residual = RESIDUAL.clone().requires_grad_()
    expected = formula(name, residual, 0.5) / (len(residual) if mean else 1)
    expected.backward()
    value, slope = Loss(name, mean, 0.5)(RESIDUAL)
    assert torch.allclose(value, expected.detach())
    assert torch.allclose(slope, residual.grad)
    padded = torch.cat([RESIDUAL, torch.zeros(3, dtype=torch.float64)])  # zeros for what is not observed
    value, slope = Loss(name, mean, 0.5)(padded, samples=5)
    assert torch.allclose(value, expected.detach())
    assert torch.allclose(slope, torch.cat([residual.grad, padded[5:]]))


def test_wrong_settings():
    with pytest.raises(ValueError, match="loss must be one of l2, l1, huber; got 'l3'"):
        Loss("l3")
    with pytest.raises(ValueError, match=r"delta must be above 0; got 0\.0"):
        Loss("huber", delta=0.0)


def test_the_mean_of_nothing_is_no_number():
    value, slope = Loss()(torch.zeros(0))
    assert value.isnan()
    assert slope.shape == (0,)
