"""Cosines of the angles between pairs of vectors that never are NaN, nor their derivatives."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class Cosines(NamedTuple):
    """Cosines of a batch of pairs, and which of them there are none of; all of shape (batch,)."""

    values: torch.Tensor  # 0 where there is none
    zero: torch.Tensor  # a vector is zero
    nonfinite: torch.Tensor  # a vector has entries that are infinite or not a number


def cosines(left: torch.Tensor, right: torch.Tensor) -> Cosines:
    """Cosine of the angle between each row of ``left`` and the same row of ``right``, shape (batch, size), in float32 or better.

    A row counts as zero when none of its entries reaches the square root of the smallest normal number of the type computed in, 1e-19 in
    float32: the derivative of the cosine is as large as a row is small, and what it is multiplied with must not overflow. Rows are scaled
    by their largest entry first, so that no norm under- or overflows; the cosine does not depend on it. Rows without a cosine are
    replaced before anything is divided, so that their derivative is 0 and not NaN.

    Example:
        >>> found = cosines(torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0], [-1e-15, 0.0], [1.0, 0.0]]))
        >>> found.values, found.zero
        (tensor([ 0.9600, -1.0000,  0.0000]), tensor([False, False,  True]))
    """
    dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    with torch.autocast(left.device.type, enabled=False):
        rows = [left.to(dtype), right.to(dtype)]
        sizes = [side.detach().abs().amax(1, keepdim=True) for side in rows]
        nonfinite = ~(sizes[0].isfinite() & sizes[1].isfinite())
        least = math.sqrt(torch.finfo(dtype).tiny)
        zero = ~nonfinite & ((sizes[0] < least) | (sizes[1] < least))
        none = zero | nonfinite
        one, other = (torch.where(none, 1, side) / torch.where(none, 1, size) for side, size in zip(rows, sizes))
        values = (one * other).sum(1) / (one.square().sum(1).sqrt() * other.square().sum(1).sqrt())
        values = values.clamp(-1, 1)  # beyond which only rounding goes
        return Cosines(torch.where(none.squeeze(1), 0, values), zero.squeeze(1), nonfinite.squeeze(1))
