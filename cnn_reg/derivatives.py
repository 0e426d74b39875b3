"""The end of derivatives: what cannot be differentiated again says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def last_derivative(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that refuses to be recorded for further derivatives, which it would leave out silently.

    Torch's own ``once_differentiable`` refuses later, and not at all where ``torch.autograd.grad`` is asked for some inputs only.

    Example:
        >>> last_derivative(abs)(-1)
        Traceback (most recent call last):
        RuntimeError: third derivatives are not available through layers made by twice_differentiable; take the second ones without
        create_graph=True
    """

    @wraps(backward)
    def checked(*arguments: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "third derivatives are not available through layers made by twice_differentiable; "
                "take the second ones without create_graph=True"
            )
        return backward(*arguments)

    return checked
