"""Convolution whose second derivatives are convolutions and ordinary gradients, as fast as the first ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.autograd import Function

from cnn_reg.derivatives import last_derivative
from cnn_reg.window import Box, Window, window_of

_aten: Any = torch.ops.aten


class TwiceConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` with the same results and state, and faster derivatives of derivatives; third ones are refused.

    The gradient of <v, gx>, with gx the gradient at the input, is that of <conv(v), gy> with gy the gradient at the output: conv(v) in
    gy, and in the weight the ordinary gradient for the input v. Torch computes the latter as a convolution by a kernel as large as the
    image. Of images of which only a window varies, only the part of gy that depends on the window is used. Gradients at weights are
    left out of passes that do not ask for them.

    Example:
        >>> layer = TwiceConv2d(1, 2, 3)
        >>> layer(torch.ones(1, 1, 8, 8)).shape
        torch.Size([1, 2, 6, 6])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """The convolution."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or input.ndim != 4:
            return super().forward(input)
        x, parameters = input, [self.weight, self.bias]
        if torch.is_autocast_enabled(input.device.type):
            dtype = torch.get_autocast_dtype(input.device.type)
            x, parameters = x.to(dtype), [part if part is None else part.to(dtype) for part in parameters]
        options = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)
        result: torch.Tensor = _Convolve.apply(x, *parameters, options, window_of(input))
        return result


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, options: Any, window: Window | None) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.options, ctx.window, ctx.bias = options, window, None if bias is None else bias.shape
        return _aten.convolution(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, gy: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        # There is no function of a bias that is none.
        wanted = [may and _asked_for(node) for may, (node, _) in zip(ctx.needs_input_grad[:3], ctx.next_functions)]
        wanted += [False] * (3 - len(wanted))
        window: Window | None = ctx.window if ctx.window is not None and _asked_for(ctx.window.node) else None
        if window is not None:  # nothing else of the images is a variable, unless their own gradient is asked for
            wanted[0] = False
        gx, gw, gb = _ConvolveBackward.apply(gy, x, weight, ctx.bias, ctx.options, wanted) if any(wanted) else (None, None, None)
        # Values that have meanwhile become constants, as they do once their gradient is taken, need no second one.
        if window is not None and window.values.requires_grad:
            gx = _at_window(gy, x, weight, ctx.options, window.box)
        return gx, gw, gb, None, None


def _at_window(gy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, options: Any, box: Box) -> torch.Tensor:
    """The gradient at a window of the input, from the outputs that depend on it; zero elsewhere."""
    stride, padding, dilation = options[:3]
    picked, sizes, margins, outside = [slice(None), slice(None)], [*x.shape[:2]], [], []
    for axis in (0, 1):
        step, reach = stride[axis], dilation[axis] * (weight.shape[2 + axis] - 1)
        begin, end = (place + padding[axis] for place in (box[2 + axis].start, box[2 + axis].stop))
        first, last = max(0, math.ceil((begin - reach) / step)), min(gy.shape[2 + axis] - 1, (end - 1) // step)
        if last < first:
            return torch.zeros_like(x)
        picked.append(slice(first, last + 1))
        sizes.append((last - first) * step + reach + 1)  # of the inputs on which these outputs depend
        margins.append((first * step - begin, end - first * step - sizes[-1]))
        outside.append((box[2 + axis].start, x.shape[2 + axis] - box[2 + axis].stop))
    read = x.new_empty(sizes)  # of which only the sizes count
    options = (stride, (0, 0), *options[2:])
    gx = _ConvolveBackward.apply(gy[tuple(picked)], read, weight, None, options, (True, False, False))[0]
    pad = torch.nn.functional.pad
    return pad(pad(gx, (*margins[1], *margins[0])), (*outside[1], *outside[0]))


def _asked_for(node: Any) -> bool:
    """Whether the pass that is running needs the gradient that goes to a node: that of the images alone does not need the weights'."""
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # it does not tell of leaves that were named to torch.autograd.grad
        return True


class _ConvolveBackward(Function):
    @staticmethod
    def forward(ctx: Any, gy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: Any, options: Any, wanted: Any) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gy, x, weight)
        ctx.options = options
        return _aten.convolution_backward(gy, x, weight, bias, *options, wanted)

    @staticmethod
    @last_derivative
    def backward(ctx: Any, vx: torch.Tensor | None, vw: torch.Tensor | None, vb: torch.Tensor | None) -> Any:
        gy, x, weight = ctx.saved_tensors
        into_gy, into_x, into_weight = None, None, None
        if vx is not None:
            into_gy = _aten.convolution(vx, weight, None, *ctx.options)
            if ctx.needs_input_grad[2]:
                into_weight = _aten.convolution_backward(gy, vx, weight, None, *ctx.options, [False, True, False])[1]
        if vw is not None:
            share = _aten.convolution(x, vw, None, *ctx.options)
            into_gy = share if into_gy is None else into_gy.add_(share)
            if ctx.needs_input_grad[1]:
                into_x = _aten.convolution_backward(gy, x, vw, None, *ctx.options, [True, False, False])[0]
        if vb is not None:
            share = vb.view(1, -1, 1, 1).expand_as(gy)
            into_gy = share if into_gy is None else into_gy.add_(share)
        return into_gy, into_x, into_weight, None, None, None
