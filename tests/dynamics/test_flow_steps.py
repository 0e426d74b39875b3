"""Gradient flow as an optimizer: exact solutions, weights without gradients, resuming, and what cannot be followed."""

from __future__ import annotations

import math

import pytest
import torch

from tensornet.dynamics.flow import FlowError
from tensornet.dynamics.flow_steps import GradientFlow


def flowing(loss, *weights, **tolerances):
    """The optimizer, and the closure for it."""
    parameters = [torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64)) for weight in weights]
    flow = GradientFlow(parameters, **tolerances)

    def closure():
        flow.zero_grad()
        value = loss(*parameters)
        value.backward()
        return value.item()

    return flow, closure, parameters


def test_a_quadratic_decays_exponentially():
    flow, closure, (weight,) = flowing(lambda weight: (weight**2 * torch.tensor([0.5, 2.0])).sum(), [1.0, 1.0], rtol=1e-10, atol=1e-12)
    for _ in range(20):
        flow.step(closure)
    elapsed = flow.param_groups[0]["time"]
    assert elapsed > 1
    assert weight.tolist() == pytest.approx([math.exp(-elapsed), math.exp(-4 * elapsed)], rel=1e-7)


def test_the_loss_of_the_start_is_returned_and_the_step_is_the_difference_of_times():
    flow, closure, (weight,) = flowing(lambda weight: weight**2 / 2, 1.0)
    assert flow.step(closure) == 0.5
    first, present = flow.param_groups[0]["time"], weight.item()
    assert flow.step(closure) == present**2 / 2
    assert flow.param_groups[0]["lr"] == pytest.approx(flow.param_groups[0]["time"] - first, rel=1e-12)


def test_weights_without_a_gradient_stay():
    flow, closure, (moved, still) = flowing(lambda moved, still: moved**2, 1.0, 3.0)
    flow.step(closure)
    assert moved.item() < 1
    assert still.item() == 3


def test_a_loaded_state_goes_on_in_the_same_bits():
    flow, closure, (weight,) = flowing(lambda weight: (weight**4 - weight).sum(), [1.0, 0.1])
    for _ in range(3):
        flow.step(closure)
    again, closure_again, (other,) = flowing(lambda weight: (weight**4 - weight).sum(), weight.tolist())
    again.load_state_dict(flow.state_dict())
    for _ in range(3):
        flow.step(closure)
        again.step(closure_again)
    assert torch.equal(weight, other)
    assert flow.param_groups[0]["time"] == again.param_groups[0]["time"]


def test_weights_that_diverge_are_an_error_and_finite():
    flow, closure, (weight,) = flowing(lambda weight: -(weight**3), 1.0)  # reaches infinity at time 1/3
    with pytest.raises(FlowError, match=r"could not be followed beyond time 0\.333"):
        all(flow.step(closure) for _ in range(1000))
    assert math.isfinite(weight.item())


def test_what_it_needs():
    with pytest.raises(TypeError, match=r"needs parameters of float64; got torch\.float32"):
        GradientFlow([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="rtol must be above 0"):
        GradientFlow([torch.nn.Parameter(torch.ones(1, dtype=torch.float64))], rtol=0)
