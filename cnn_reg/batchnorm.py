"""Batch normalisation in training mode whose second derivatives are a closed form, computed by the native kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd import Function

from cnn_reg.derivatives import last_derivative

_aten: Any = torch.ops.aten


class TwiceBatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` with the same results and state, and faster derivatives of derivatives; third ones are refused.

    Write m for means over a channel, x^ for the normalised input, r for the inverse deviation, and P v = v - m(v) - x^ m(v x^). The
    gradient at the input is gx = w r P gy, linear in the gradient gy at the output. The derivative of <v, gx> is w r P v in gy, which
    is the same map again, and in x, with p = m(v x^), q = m(gy x^) and A = m(v gy) - m(v) m(gy) - p q, it is
    -w r^2 (q P v + p P gy + A x^): one sum over three arrays instead of torch's formula of dozens.

    Example:
        >>> layer, reference = TwiceBatchNorm2d(3), nn.BatchNorm2d(3)
        >>> x = torch.randn(4, 3, 5, 5, requires_grad=True)
        >>> torch.allclose(layer(x), reference(x))
        True
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """The normalised batch; running statistics move as those of torch's layer do."""
        if not self.training or input.ndim != 4 or input.numel() <= self.num_features:
            return super().forward(input)  # without batch statistics there is nothing to gain; and its errors
        running_mean, running_var, factor = None, None, 0.0
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            running_mean, running_var = self.running_mean, self.running_var
        normalised: torch.Tensor = _Normalise.apply(input, self.weight, self.bias, running_mean, running_var, factor, self.eps)
        return normalised


class _Normalise(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, running_mean: Any, running_var: Any, factor: float, eps: float) -> Any:
        y, mean, inverse = _aten.native_batch_norm(x, weight, bias, running_mean, running_var, True, factor, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, gy: torch.Tensor) -> Any:
        gx, gw, gb = _NormaliseBackward.apply(gy, *ctx.saved_tensors)
        return gx, gw if ctx.needs_input_grad[1] else None, gb if ctx.needs_input_grad[2] else None, None, None, None, None


class _NormaliseBackward(Function):
    @staticmethod
    def forward(ctx: Any, gy: torch.Tensor, x: torch.Tensor, weight: Any, mean: torch.Tensor, inverse: torch.Tensor) -> Any:
        ctx.set_materialize_grads(False)
        gx, gw, gb = _projected(gy, x, weight, mean, inverse)
        ctx.save_for_backward(gy, x, weight, mean, inverse, gw, gb)
        return gx, gw, gb

    @staticmethod
    @last_derivative
    def backward(ctx: Any, v: torch.Tensor | None, vw: torch.Tensor | None, vb: torch.Tensor | None) -> Any:
        gy, x, weight, mean, inverse, gw, gb = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        into_gy, into_x, into_weight = None, None, None
        # The derivative in x is a combination of x^, v, gy and 1, with these factors of each channel.
        of_x, of_gy, of_one = (torch.zeros_like(inverse) for _ in range(3))
        q, mean_gy = gw / count, gb / count
        if v is not None:
            into_gy, sum_vx, sum_v = _projected(v, x, weight, mean, inverse)
            p, mean_v = sum_vx / count, sum_v / count
            a = _products(v, gy) / count - mean_v * mean_gy - p * q
            into_weight = count * inverse * a
            scale = -inverse.square() if weight is None else -weight * inverse.square()
            of_x, of_gy, of_one = scale * (a - 2 * p * q), scale * p, -scale * (q * mean_v + p * mean_gy)
        if vw is not None:
            share = _affine(x, mean, inverse * vw)
            into_gy = share if into_gy is None else into_gy.add_(share)
            of_x, of_gy, of_one = of_x - vw * inverse * q, of_gy + vw * inverse, of_one - vw * inverse * mean_gy
        if vb is not None:
            into_gy = _spread(vb, x).expand_as(x) if into_gy is None else into_gy.add_(_spread(vb, x))
        if ctx.needs_input_grad[1] and not (v is None and vw is None):
            into_x = _affine(x, mean, inverse * of_x, of_one).addcmul_(gy, _spread(of_gy, x))
            if v is not None:
                into_x.addcmul_(v, _spread(scale * q, x))
        return into_gy, into_x, into_weight if weight is not None else None, None, None


def _projected(v: torch.Tensor, x: torch.Tensor, weight: Any, mean: torch.Tensor, inverse: torch.Tensor) -> Any:
    """The map w r P v, the sums of v x^, and the sums of v."""
    ones = torch.ones_like(inverse) if weight is None else weight  # without a weight the kernels return no sums
    return _aten.native_batch_norm_backward(v, x, ones, None, None, mean, inverse, True, 0.0, [True, True, True])


def _products(v: torch.Tensor, gy: torch.Tensor) -> Any:
    """The sums of v gy, in one pass and without an array of products: as those of v x^ with mean 0 and deviation 1."""
    dtype = torch.promote_types(v.dtype, torch.float32)
    zeros = torch.zeros(v.shape[1], dtype=dtype, device=v.device)
    ones = zeros + 1
    return _aten.native_batch_norm_backward(v, gy, ones, None, None, zeros, ones, True, 0.0, [False, True, False])[1]


def _affine(x: torch.Tensor, mean: torch.Tensor, slope: torch.Tensor, shift: torch.Tensor | None = None) -> Any:
    """The map slope (x - mean) + shift of each channel, in one pass: normalisation by given statistics."""
    shift = torch.zeros_like(slope) if shift is None else shift
    return _aten.native_batch_norm(x, slope, shift, mean, torch.ones_like(mean), False, 0.0, 0.0)[0]


def _spread(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.to(x.dtype).view(1, -1, 1, 1)
