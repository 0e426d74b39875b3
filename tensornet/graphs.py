"""CUDA graphs: a function on tensors is recorded once and replayed without the cost of launching its kernels one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CapturedCall:
    """A function on CUDA tensors, captured as a CUDA graph; call it like the function.

    The function must do the same operations on the same memory every time: no copies to the host, no branches on values, and
    weights that stay where they are. A training step qualifies when it clears gradients by ``zero_grad(set_to_none=False)`` or
    writes them in place, and its optimizer works without the host (``capturable=True`` for torch's own, :class:`GroupRMSprop`
    always).

    Args:
        function: Takes CUDA tensors and returns tensors, or nested tuples, lists and dicts of them.
        inputs: Tensors of the shapes, types and device of all later calls.
        device: The CUDA device that the function works on; that of the first input, or the current one, by default.
        warmup: Calls on a side stream before capturing, which torch needs for its own preparations.

    Raises:
        ValueError: No CUDA device is there, or an input is not on one.
    """

    def __init__(self, function: Callable[..., Any], *inputs: Tensor, device: torch.device | str | None = None, warmup: int = 3) -> None:
        if not torch.cuda.is_available():
            raise ValueError("capturing needs a CUDA device; none is available")
        for place, tensor in enumerate(inputs):
            if not tensor.is_cuda:
                raise ValueError(f"capturing needs inputs on a CUDA device; input {place} is on {tensor.device}")
        self._device = torch.device(device) if device is not None else inputs[0].device if inputs else torch.device("cuda")
        self._inputs = [tensor.clone() for tensor in inputs]
        with torch.cuda.device(self._device):  # streams and graphs are those of the current device
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(warmup):
                    function(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._result = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        """Replays the function on new inputs; its result is overwritten by the next call.

        Raises:
            ValueError: The inputs have not the number, shapes or types of those that were captured.
        """
        if len(inputs) != len(self._inputs):
            raise ValueError(f"the captured call takes {len(self._inputs)} tensors; got {len(inputs)}")
        for place, (own, given) in enumerate(zip(self._inputs, inputs)):
            if own.shape != given.shape or own.dtype != given.dtype:
                raise ValueError(
                    f"input {place} must be {own.dtype} of shape {tuple(own.shape)}, as captured; got {given.dtype} of {tuple(given.shape)}"
                )
            own.copy_(given)
        with torch.cuda.device(self._device):
            self._graph.replay()
        return self._result


def capture(function: Callable[..., Any], *inputs: Tensor, device: torch.device | str | None = None, warmup: int = 3) -> CapturedCall:
    """Captures ``function`` on tensors like ``inputs`` as a CUDA graph; see :class:`CapturedCall`.

    Raises:
        ValueError: No CUDA device is there, or an input is not on one.

    Example:
        >>> if torch.cuda.is_available():
        ...     double = capture(lambda x: 2 * x, torch.ones(3, device="cuda"))
        ...     double(torch.full((3,), 4.0, device="cuda")).tolist()  # [8.0, 8.0, 8.0]
    """
    return CapturedCall(function, *inputs, device=device, warmup=warmup)
