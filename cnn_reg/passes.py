"""How a model runs again on changed inputs: what batch normalisation does meanwhile, and which random numbers dropout draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

BatchNorm: TypeAlias = Literal["update", "frozen", "eval"]
BATCH_NORMS = ("update", "frozen", "eval")


class RandomState:
    """The state of torch's global random generators, of the processor and of a device, at the time it is made.

    Args:
        device: The device whose generator counts besides the processor's.

    Example:
        >>> state = RandomState(torch.device("cpu"))
        >>> drawn = torch.rand(3)
        >>> state.restore()
        >>> torch.equal(torch.rand(3), drawn)
        True
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._processor = torch.get_rng_state()
        self._accelerator = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    def restore(self) -> None:
        """Puts the generators back into this state.

        Example:
            >>> RandomState(torch.device("cpu")).restore()
        """
        torch.set_rng_state(self._processor)
        if self._accelerator is not None:
            torch.get_device_module(self._device).set_rng_state(self._accelerator, self._device)


@contextmanager
def batch_norm_set(model: Callable[..., Any], treatment: BatchNorm) -> Iterator[None]:
    """Changes what the model's batch normalisation does within a ``with`` block.

    ``"update"`` changes nothing. ``"frozen"`` normalises by the batch's own statistics without moving the running ones, in layers in
    training mode. ``"eval"`` normalises by the running statistics.

    Raises:
        TypeError: Something is to be changed, but the model is no module whose layers can be found.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with batch_norm_set(layer, "frozen"):
        ...     _ = layer(torch.randn(8, 2))
        >>> layer.num_batches_tracked
        tensor(0)
    """
    if treatment == "update":
        yield
        return
    if not isinstance(model, nn.Module):
        raise TypeError(f"batch_norm={treatment!r} needs a torch.nn.Module, whose layers can be found; got a {type(model).__name__}")
    # A layer that does not track its statistics ignores the running ones in training mode, and so leaves them alone.
    name, value = ("track_running_stats", False) if treatment == "frozen" else ("training", False)
    layers = [layer for layer in model.modules() if _normalises(layer)]
    before = [getattr(layer, name) for layer in layers]
    try:
        for layer in layers:
            setattr(layer, name, value)
        yield
    finally:
        for layer, was in zip(layers, before):
            setattr(layer, name, was)


def _normalises(layer: nn.Module) -> bool:
    """Whether a layer has running statistics and is in training mode, in which it would move them."""
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training and layer.track_running_stats
