"""Gradient flow against closed forms, its pure manner, and its errors."""

from __future__ import annotations

import math

import pytest
import torch

from tensornet.dynamics.flow import FlowError, gradient_flow, time_until, velocity


def half_square(weights):
    return sum(weight.square().sum() for weight in weights) / 2


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_linear_flow_is_the_matrix_exponential():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    matrix = root @ root.T
    start = torch.randn(5, generator=generator, dtype=torch.float64)
    flow = gradient_flow(lambda weights: weights[0] @ matrix @ weights[0] / 2, [start], [0.0, 0.3, 2.0])
    for time, (found,) in zip(flow.times, flow.weights):
        torch.testing.assert_close(found, torch.linalg.matrix_exp(-time * matrix) @ start, rtol=1e-8, atol=1e-9)


def test_product_of_two_scalars_follows_its_closed_form():
    # a = b > 0 with the objective (a b - 1)^2 / 2: for u = a b, du/dt = 2 u (1 - u), the logistic equation.
    flow = gradient_flow(lambda weights: (weights[0] * weights[1] - 1).square().sum() / 2, [tensor(0.1), tensor(0.1)], [1.0, 3.0, 9.0])
    for time, (a, b) in zip(flow.times, flow.weights):
        torch.testing.assert_close(a * b, tensor(1 / (1 + 99 * math.exp(-2 * time))), rtol=1e-8, atol=0)


def test_tolerances_count():
    errors = []
    for rtol in (1e-3, 1e-6, 1e-11):
        flow = gradient_flow(lambda weights: (weights[0].prod() - 1).square() / 2, [tensor(0.1, 0.1)], [3.0], rtol=rtol, atol=0)
        errors.append(abs(flow.weights[0][0].prod().item() - 1 / (1 + 99 * math.exp(-6))))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-10


def test_shapes_and_order_of_weights_are_kept_and_nothing_is_changed():
    start = [torch.ones(2, 3, dtype=torch.float64), tensor(5.0, 6.0)]
    copies = [weight.clone() for weight in start]
    flow = gradient_flow(half_square, start, [0.0, 1.0])
    assert [weight.shape for weight in flow.weights[1]] == [weight.shape for weight in start]
    assert all(torch.equal(weight, copy) for weight, copy in zip(start, copies))
    assert all(torch.equal(weight, copy) for weight, copy in zip(flow.weights[0], copies))
    assert flow.evaluations > 0


def test_velocity_is_minus_the_gradient_and_zero_without_one():
    found = velocity(lambda weights: weights[0].pow(3).sum(), [tensor(2.0), tensor(1.0)])
    assert [rate.tolist() for rate in found] == [[-12.0], [0.0]]


@pytest.mark.parametrize(
    ("times", "message"),
    [([], "ascending"), ([1.0, 1.0], "ascending"), ([2.0, 1.0], "ascending"), ([-1.0], "at least 0"), ([0.0], "the last one above 0")],
)
def test_wrong_times(times, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(half_square, [tensor(1.0)], times)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="needs weights of float64; got torch"):
        gradient_flow(half_square, [torch.ones(1)], [1.0])
    with pytest.raises(ValueError, match="rtol must be above 0"):
        gradient_flow(half_square, [tensor(1.0)], [1.0], rtol=0)
    with pytest.raises(ValueError, match="differentiable scalar function"):
        gradient_flow(lambda weights: weights[0], [tensor(1.0, 2.0)], [1.0])


def test_divergence_is_an_error():
    with pytest.raises(FlowError, match="could not be followed from time 0 to 2"):
        gradient_flow(lambda weights: -weights[0].pow(3).sum() / 3, [tensor(1.0)], [2.0])  # dw/dt = w^2 leaves at time 1


def test_time_until_is_when_the_value_is_reached():
    start = [torch.linspace(0.1, 1, 10, dtype=torch.float64)]
    value = 0.3 * half_square(start).item()
    time = time_until(half_square, start, value, latest=100.0)
    assert time == pytest.approx(-math.log(0.3) / 2, rel=1e-5)


def test_time_until_tells_what_is_not_reached():
    with pytest.raises(FlowError, match=r"down to 0.05 until time 1"):
        time_until(half_square, [tensor(1.0)], 0.05, latest=1.0)  # e^-2 / 2 is not as small
    with pytest.raises(ValueError, match=r"above the value at the start; got 0.5 for 0.5"):
        time_until(half_square, [tensor(1.0)], 0.5, latest=1.0)
