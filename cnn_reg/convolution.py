"""Convolution whose second derivatives are convolutions and ordinary gradients, as fast as the first ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd import Function

from cnn_reg.derivatives import last_derivative

_aten: Any = torch.ops.aten


class TwiceConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` with the same results and state, and faster derivatives of derivatives; third ones are refused.

    The gradient of <v, gx>, with gx the gradient at the input, is that of <conv(v), gy> with gy the gradient at the output: conv(v) in
    gy, and in the weight the ordinary gradient for the input v. Torch computes the latter as a convolution by a kernel as large as the
    image.

    Example:
        >>> layer = TwiceConv2d(1, 2, 3)
        >>> layer(torch.ones(1, 1, 8, 8)).shape
        torch.Size([1, 2, 6, 6])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """The convolution."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or input.ndim != 4:
            return super().forward(input)
        given = [input, self.weight, self.bias]
        if torch.is_autocast_enabled(input.device.type):
            dtype = torch.get_autocast_dtype(input.device.type)
            given = [part if part is None else part.to(dtype) for part in given]
        options = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)
        result: torch.Tensor = _Convolve.apply(*given, options)
        return result


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, options: Any) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.options, ctx.bias = options, None if bias is None else bias.shape
        return _aten.convolution(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, gy: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        # A leaf that has meanwhile become a constant, as images do once their gradient is taken, needs no second, costly gradient.
        wanted = (ctx.needs_input_grad[0] and x.requires_grad, *ctx.needs_input_grad[1:3])
        return *_ConvolveBackward.apply(gy, x, weight, ctx.bias, ctx.options, wanted), None


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
