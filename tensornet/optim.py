"""The adaptive step of Appendix D.2.1 as a pure function, and the optimizer that loops over it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from tensornet.checks import real

Number = TypeVar("Number", float, Tensor)

_ACCURATE = (torch.float32, torch.float64)  # types in which sums of many squares keep enough digits
_SAFE = (1e-20, 1e30)  # squared norms that no square out of float32's range has touched


def adaptive_step(
    gamma: Number, squared_norm: Number, count: Number, *, lr: float | Tensor, beta: float, eps: float
) -> tuple[Number, Number]:
    r"""New average and step size of Appendix D.2.1: ``(gamma_t, eta_t)``.

    ``gamma_t = beta * gamma_{t-1} + (1 - beta) * ||gradient||^2`` and ``eta_t = lr / (sqrt(gamma_t / (1 - beta^t)) + eps)``.

    Args:
        gamma: ``gamma_{t-1}``, a number or a tensor without axes; 0 before the first step.
        squared_norm: Squared norm of the gradient of all parameters together.
        count: ``t``, 1 at the first step.
        lr: Base learning rate.
        beta: Weight of the past in the average.
        eps: Added to the root of the average.

    Example:
        >>> gamma, step = adaptive_step(0.0, 4.0, 1, lr=0.01, beta=0.99, eps=0.0)
        >>> round(gamma, 6), round(step, 6)  # the first step has the length lr
        (0.04, 0.005)
    """
    gamma = beta * gamma + (1 - beta) * squared_norm
    size = (gamma / (1 - beta**count)) ** 0.5 + eps
    return gamma, lr / (size + (size == 0))  # before the first gradient that is not zero there is nothing to divide by, nor to move


class GroupRMSprop(Optimizer):
    """Gradient descent whose step size is divided by a running root mean square of the whole gradient's norm (Appendix D.2.1).

    Every parameter of a group moves by ``-eta_t * gradient`` with one ``eta_t``, given by :func:`adaptive_step`, so that the direction
    of the group's step is that of plain gradient descent. Each group has its own average. Parameters without a gradient stay.

    The averages are 64-bit tensors on the device of the group's first parameter: nothing is copied to the host, and a step can be
    part of a CUDA graph (with ``lr`` given as a tensor where it changes between replays).

    Args:
        params: Parameters or parameter groups, as for every torch optimizer.
        lr: Base learning rate, at least 0.
        beta: Weight of the past in the average of squared norms, from 0 to below 1.
        eps: Added to the root of the average, at least 0.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = GroupRMSprop([weight], lr=1.0, eps=0.0)
        >>> weight.square().sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()  # moved by 1 towards the origin
        [2.4000000953674316, 3.200000047683716]
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-2, beta: float = 0.99, eps: float = 1e-6) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "eps": eps, "gamma": None, "count": None})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters with its own average and, where given, its own ``lr``, ``beta`` and ``eps``.

        Raises:
            TypeError: ``lr`` or ``eps`` is no number.
            ValueError: A value is out of its range, or a parameter is in another group already.

        Example:
            >>> first, second = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
            >>> optimizer = GroupRMSprop([first])
            >>> optimizer.add_param_group({"params": [second], "lr": 0.1})
            >>> [group["lr"] for group in optimizer.param_groups]
            [0.01, 0.1]
        """
        settings = {**self.defaults, **param_group}
        for name in ("lr", "eps"):
            real(name, settings[name])
        if not 0 <= settings["beta"] < 1:
            raise ValueError(f"beta must be from 0 to below 1; got {settings['beta']}")
        super().add_param_group(param_group)

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps :meth:`step` as torch does, to run hooks and to tell the profiler; where there are none, torch's wrapper is left out.

        It can take as long as the step. Observers that are no profiler, as :class:`torch.profiler.ExecutionTraceObserver`, see no step.

        Example:
            >>> GroupRMSprop.profile_hook_step(GroupRMSprop.step).__name__
            'step'
        """
        wrapped = Optimizer.profile_hook_step(func)

        @functools.wraps(func)
        def step(self: GroupRMSprop, *args: Any, **kwargs: Any) -> Any:
            hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
            hooks = hooks or _global_optimizer_pre_hooks or _global_optimizer_post_hooks
            watched = hooks or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
            closure = args or kwargs  # which may do anything
            return (wrapped if watched or closure else func)(self, *args, **kwargs)

        return step

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Moves all parameters by one step; returns what ``closure`` returns, if there is one.

        Args:
            closure: Computes the gradients anew and returns the loss.

        Raises:
            ValueError: A gradient is sparse.

        Example:
            >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
            >>> weight.grad = torch.tensor([5.0])
            >>> GroupRMSprop([weight], lr=0.5, eps=0.0).step()
            >>> weight.item()
            0.5
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                _move(group, [parameter.detach() for parameter in moved], [parameter.grad.detach() for parameter in moved])
        return loss


def _move(group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
    if any(gradient.layout != torch.strided for gradient in gradients):
        raise ValueError("GroupRMSprop needs dense gradients; got a sparse one")
    gamma, count, device = group["gamma"], group["count"], parameters[0].device
    if gamma is None or gamma.device != device:
        gamma, count = (torch.zeros((), dtype=torch.float64) if kept is None else kept for kept in (gamma, count))
        gamma, count = group["gamma"], group["count"] = gamma.to(device), count.to(device)
    settings = {"lr": group["lr"], "beta": group["beta"], "eps": group["eps"]}
    if all(parameter.is_cpu for parameter in parameters):  # where a number costs less than a tensor of one
        steps = count.item() + 1
        average, step = adaptive_step(gamma.item(), _squared_norm_on_cpu(gradients), steps, **settings)
        count.fill_(steps)
        gamma.fill_(average)
        for parameter, gradient in zip(parameters, gradients):
            parameter.add_(gradient, alpha=-float(step))
        return
    count.add_(1)
    average, step = adaptive_step(gamma, _squared_norm(gradients, device), count, **settings)
    gamma.copy_(average)
    for parameter, gradient in zip(parameters, gradients):
        parameter.addcmul_(gradient, step.to(parameter.device), value=-1)


def _squared_norm(gradients: list[Tensor], device: torch.device) -> Tensor:
    """Squared norm of all gradients together, in double precision.

    In the gradients' own precision, squares may leave the range, and an infinite average would stop all steps to come.
    """
    parts = [torch.view_as_real(gradient) if gradient.is_complex() else gradient for gradient in gradients]
    norms = torch._foreach_norm(parts, 2, torch.float64)
    return torch.stack([norm.to(device) for norm in norms]).square().sum()


def _squared_norm_on_cpu(gradients: list[Tensor]) -> float:
    """The same on the CPU.

    It converts whole tensors for double precision, which takes several times as long as the norm: there that is the second choice, for
    norms near the ends of the range.
    """
    if all(gradient.dtype in _ACCURATE for gradient in gradients):
        parts = [gradient if gradient.dim() == 1 else gradient.reshape(-1) for gradient in gradients]
        squares = sum(torch.dot(part, part).item() for part in parts)
        if _SAFE[0] < squares < _SAFE[1]:
            return squares
    return _squared_norm(gradients, gradients[0].device).item()
