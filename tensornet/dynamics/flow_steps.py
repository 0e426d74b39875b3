"""Gradient flow (Equation 5) as an optimizer, whose steps are those of an adaptive solver."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from tensornet.arrays import as_vector, fill_from_vector
from tensornet.checks import real
from tensornet.dynamics.flow import FlowError


class GradientFlow(torch.optim.Optimizer):
    """Follows gradient flow by the steps of SciPy's ``DOP853``, an explicit Runge-Kutta method of order 8.

    Its one group of parameters holds, beside the tolerances, ``time``, the time that has passed since the start, ``lr``, the length in
    time of the latest step, and ``next``, the length that will be tried first in the next one. Nothing else is kept between steps, so
    that a loaded state goes on in the same bits.

    Args:
        params: Parameters, real and of float64.
        rtol: Relative tolerance of a step, above 0.
        atol: Absolute tolerance of a step.

    Raises:
        TypeError: A parameter is not of float64.
        ValueError: A tolerance is out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        >>> flow = GradientFlow([weight])
        >>> def closure():
        ...     flow.zero_grad()
        ...     loss = weight.square().sum() / 2
        ...     loss.backward()
        ...     return loss.item()
        >>> for _ in range(3):
        ...     _ = flow.step(closure)
        >>> bool(abs(weight.item() - np.exp(-flow.param_groups[0]["time"])) < 1e-6)
        True
    """

    def __init__(self, params: Iterable[Any], rtol: float = 1e-6, atol: float = 1e-9) -> None:
        if not real("rtol", rtol):
            raise ValueError("rtol must be above 0; got 0")
        super().__init__(params, {"rtol": rtol, "atol": real("atol", atol), "time": 0.0, "lr": 0.0, "next": None})
        for parameter in self.param_groups[0]["params"]:
            if parameter.dtype != torch.float64:
                raise TypeError(f"gradient flow needs parameters of float64; got {parameter.dtype}")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds the one group of parameters.

        Raises:
            ValueError: There is one already.

        Example:
            >>> weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
            >>> GradientFlow([weight]).add_param_group({"params": []})
            Traceback (most recent call last):
                ...
            ValueError: gradient flow moves all parameters at once; give them in one group
        """
        if self.param_groups:
            raise ValueError("gradient flow moves all parameters at once; give them in one group")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        """Follows the flow for one step of the solver; returns what ``closure`` returned at its start.

        Args:
            closure: Computes the gradients at the parameters' present values, and returns the loss. It is called at the points that
                the solver tries, 13 of them or more.

        Raises:
            FlowError: The flow cannot be followed, for example since the parameters diverge.

        Example:
            >>> weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
            >>> def closure():
            ...     weight.grad = weight.detach().clone()
            ...     return weight.item() ** 2 / 2
            >>> GradientFlow([weight]).step(closure), weight.item() < 1
            (0.5, True)
        """
        from scipy.integrate import DOP853

        group = self.param_groups[0]
        parameters = group["params"]
        losses: list[float] = []

        def rate(_: float, state: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            fill_from_vector(state, parameters)
            with torch.enable_grad():
                losses.append(float(closure()))
            gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
            found: np.ndarray[Any, Any] = -as_vector(gradients)
            return found

        start = as_vector(parameters)
        with np.errstate(invalid="ignore", over="ignore"):  # a step that leaves the range of float64 is tried again, and smaller
            solver = DOP853(rate, group["time"], start, np.inf, first_step=group["next"], rtol=group["rtol"], atol=group["atol"])
            message = solver.step()
        if solver.status == "failed" or not np.isfinite(solver.y).all():
            fill_from_vector(start, parameters)
            raise FlowError(f"gradient flow could not be followed beyond time {group['time']:g}: {message}")
        fill_from_vector(solver.y, parameters)
        group.update(time=float(solver.t), lr=float(solver.t - solver.t_old), next=float(solver.h_abs))
        return losses[0]
