"""Gradient flow (Equation 5), the limit of gradient descent for small steps, by an adaptive solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from tensornet.checks import real, short

Objective: TypeAlias = Callable[[Sequence[Tensor]], Tensor]  # of the weights, a scalar


class FlowError(RuntimeError):
    """The solver could not follow the flow, for example since the weights diverge.

    Example:
        >>> raise FlowError("the step size became too small")
        Traceback (most recent call last):
            ...
        tensornet.dynamics.flow.FlowError: the step size became too small
    """


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Weights along a gradient flow.

    Attributes:
        times: The times asked for, ascending.
        weights: The weights at each of them, in the order in which they were given.
        evaluations: How often the gradient was computed.

    Example:
        >>> Trajectory(times=(0.0,), weights=((torch.ones(2),),), evaluations=0).times
        (0.0,)
    """

    times: tuple[float, ...]
    weights: tuple[tuple[Tensor, ...], ...]
    evaluations: int


def velocity(objective: Objective, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The velocity of gradient flow, minus the gradient of the objective (right side of Equation 5).

    Weights on which the objective does not depend have velocity zero.

    Args:
        objective: Takes the weights and returns a scalar.
        weights: Tensors of any shapes.

    Raises:
        ValueError: The objective is no scalar, or depends on no weight.

    Example:
        >>> velocity(lambda weights: weights[0].square().sum() / 2, [torch.tensor([1.0, 2.0])])
        (tensor([-1., -2.]),)
    """
    leaves = [weight.detach().requires_grad_() for weight in weights]
    with torch.enable_grad():
        value = objective(leaves)
    if value.dim() or not value.requires_grad:
        raise ValueError(f"the objective must be a differentiable scalar function of the weights; got {short(value)}")
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return tuple(torch.zeros_like(leaf) if gradient is None else -gradient for leaf, gradient in zip(leaves, gradients))


def gradient_flow(
    objective: Objective, weights: Sequence[Tensor], times: Sequence[float], *, rtol: float = 1e-10, atol: float = 1e-12
) -> Trajectory:
    """Weights at the given times of gradient flow, ``dW/dt = -gradient of objective`` (Equation 5), which starts at time 0.

    The flow is integrated in float64 by an explicit Runge-Kutta method of order 8 with adaptive steps (DOP853 of SciPy), whose local
    errors stay below ``atol + rtol * |weight|``; at times between its steps it interpolates with order 7. Nothing is changed in place.

    An objective of a factorization's end tensor is ``lambda weights: loss(contract(shape, weights))``. Weights that shall not move
    are not given, but known to the objective: ``lambda weights: loss(contract(shape, [*weights, root]))``.

    Args:
        objective: Takes the weights and returns a scalar.
        weights: Weights at time 0, real float64 tensors of any shapes.
        times: Ascending times of at least 0, the last one above.
        rtol: Relative tolerance of the solver, above 0.
        atol: Absolute tolerance of the solver.

    Raises:
        TypeError: A weight is no float64 tensor.
        ValueError: Times are not ascending or negative, or a tolerance is out of range.
        FlowError: The solver fails, for example since the weights diverge.

    Example:
        >>> start = [torch.tensor([1.0, 2.0], dtype=torch.float64)]
        >>> flow = gradient_flow(lambda weights: weights[0].square().sum() / 2, start, [0.0, 1.0])
        >>> [round(value, 6) for value in flow.weights[1][0].tolist()]  # e^-1 and 2 e^-1
        [0.367879, 0.735759]
    """
    moments = _times(times)
    done = _integrate(objective, weights, moments[-1], rtol, atol, t_eval=moments)
    shapes = [weight.shape for weight in weights]
    return Trajectory(moments, tuple(_unflat(state, shapes) for state in done.y.T), int(done.nfev))


def step_times(
    objective: Objective, weights: Sequence[Tensor], end: float, *, rtol: float = 1e-10, atol: float = 1e-12
) -> tuple[float, ...]:
    """The times between which the solver of :func:`gradient_flow` makes its steps until ``end``: dense where the flow is fast.

    Args:
        objective: Takes the weights and returns a scalar.
        weights: Weights at time 0, real float64 tensors of any shapes.
        end: The last time, above 0.
        rtol: Relative tolerance of the solver, above 0.
        atol: Absolute tolerance of the solver.

    Raises:
        TypeError: A weight is no float64 tensor.
        ValueError: A number is out of range.
        FlowError: The solver fails.

    Example:
        >>> times = step_times(lambda weights: weights[0].square().sum() / 2, [torch.ones(2, dtype=torch.float64)], 3.0)
        >>> times[0], times[-1], len(times) > 3
        (0.0, 3.0, True)
    """
    return tuple(_integrate(objective, weights, end, rtol, atol).t.tolist())


def time_until(objective: Objective, weights: Sequence[Tensor], value: float, *, latest: float, rtol: float = 1e-6) -> float:
    """The time at which gradient flow has brought the objective down to ``value``.

    Args:
        objective: Takes the weights and returns a scalar.
        weights: Weights at time 0, real float64 tensors of any shapes.
        value: A value below the objective's at the start.
        latest: How long the flow is followed at most.
        rtol: Relative tolerance of the solver, above 0.

    Raises:
        TypeError: A weight is no float64 tensor.
        ValueError: The objective is not above ``value`` at the start, or a number is out of range.
        FlowError: The value is not reached, or the solver fails.

    Example:
        >>> start = [torch.tensor([1.0, 2.0], dtype=torch.float64)]  # the objective is 5/2 e^-2t
        >>> round(time_until(lambda weights: weights[0].square().sum() / 2, start, 0.5, latest=9.0), 5)  # log(5) / 2
        0.80472
    """
    shapes = [weight.shape for weight in weights]

    def above(_: float, state: np.ndarray[Any, Any]) -> float:
        return objective(_unflat(state, shapes)).item() - value

    above.terminal = True  # type: ignore[attr-defined]  # as SciPy wants to be told
    if not objective(weights).item() > value:
        raise ValueError(f"the objective must be above the value at the start; got {objective(weights).item():g} for {value:g}")
    done = _integrate(objective, weights, latest, rtol, 1e-2 * rtol, events=above)
    if not len(done.t_events[0]):
        raise FlowError(f"gradient flow did not bring the objective down to {value:g} until time {latest:g}")
    return float(done.t_events[0][0])


def _integrate(objective: Objective, weights: Sequence[Tensor], end: float, rtol: float, atol: float, **asked: Any) -> Any:
    """SciPy's result, after checks of the arguments and of the result."""
    from scipy.integrate import solve_ivp

    if not real("rtol", rtol):
        raise ValueError("rtol must be above 0; got 0")
    for weight in weights:
        if not isinstance(weight, Tensor) or weight.dtype != torch.float64:
            raise TypeError(f"gradient flow needs weights of float64; got {getattr(weight, 'dtype', type(weight).__name__)}")
    shapes = [weight.shape for weight in weights]

    def rate(_: float, state: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return _flat(velocity(objective, _unflat(state, shapes)))

    limits = {"rtol": rtol, "atol": real("atol", atol)}
    with np.errstate(invalid="ignore", over="ignore"):  # a step that leaves the range of float64 is tried again, and smaller
        done = solve_ivp(rate, (0.0, real("time", end)), _flat(weights), method="DOP853", **limits, **asked)
    if not done.success or not np.isfinite(done.y).all():
        raise FlowError(f"gradient flow could not be followed from time 0 to {end:g}: {done.message}")
    return done


def _times(times: Sequence[float]) -> tuple[float, ...]:
    found = tuple(real("times", time) for time in times)
    if not found or not found[-1] or any(later <= sooner for sooner, later in zip(found, found[1:])):
        raise ValueError(f"times must be ascending, the last one above 0; got {short(found)}")
    return found


def _flat(weights: Sequence[Tensor]) -> np.ndarray[Any, Any]:
    flat: np.ndarray[Any, Any] = torch.cat([weight.detach().flatten() for weight in weights]).cpu().numpy()
    return flat


def _unflat(state: np.ndarray[Any, Any], shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    parts = torch.from_numpy(state.copy()).split([shape.numel() for shape in shapes])
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes))
