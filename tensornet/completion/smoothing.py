"""Smoothness along ordered modes, such as rows of a picture or hours of a day: the covariance exp(-distance / length).

White columns become correlated along a mode by a first order recursion. A penalty on the white columns then is the prior that
neighbouring rows of a leaf's weight matrix are alike, and gradient descent in them is well conditioned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NEGLIGIBLE = 1e-9  # correlations below this are left out
ORDERED = 0.3  # excess correlation of neighbours from which a mode counts as ordered,
CHANCE = 3.0  # or this over the root of the mode's size, below which it may be chance


def correlated(white: Tensor, length: float) -> Tensor:
    r"""Columns whose rows ``i``, ``j`` have the correlation ``exp(-|i - j| / length)`` where those of ``white`` are independent.

    ``x_0 = z_0`` and ``x_i = a x_{i-1} + sqrt(1 - a^2) z_i`` with ``a = exp(-1 / length)``, computed in about ``log2(rows)`` passes over
    the matrix. Linear in ``white``, and differentiable.

    Args:
        white: ``(rows, columns)``.
        length: Distance at which the correlation has fallen to 1/e; 0 for none.

    Raises:
        ValueError: ``length`` is negative or not finite.

    Example:
        >>> factor = correlated(torch.eye(4, dtype=torch.float64), 2.0)
        >>> covariance = factor @ factor.T
        >>> bool(torch.isclose(covariance[0, 3], torch.tensor(-3 / 2, dtype=torch.float64).exp()))
        True
    """
    if not 0 <= length < math.inf:
        raise ValueError(f"length must be a finite number of at least 0; got {length}")
    decay = math.exp(-1 / length) if length > 0 else 0.0
    if decay == 0:
        return white
    result = torch.cat([white[:1], white[1:] * math.sqrt(1 - decay**2)])
    shift = 1
    while shift < len(white) and decay**shift > NEGLIGIBLE:
        result = torch.cat([result[:shift], torch.add(result[shift:], result[:-shift], alpha=decay**shift)])
        shift *= 2
    return result


def correlation(indices: Tensor, values: Tensor, sizes: Sequence[int], mode: int, lag: int) -> float:
    """Correlation of observed entries that differ by ``lag`` along one mode and by nothing else; NaN where fewer than 2 pairs are.

    Args:
        indices: ``(B, N)``.
        values: ``(B,)``, centred.
        sizes: Mode sizes, whose product is below ``2**62``.
        mode: The mode.
        lag: Distance along it, at least 1.

    Example:
        >>> rows = torch.arange(6)[:, None]
        >>> correlation(rows, torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]), [6], 0, 1)
        -1.0
    """
    strides = [math.prod(sizes[later + 1 :]) for later in range(len(sizes))]
    codes, order = (indices * torch.tensor(strides, device=indices.device)).sum(1).sort()
    values = values[order]
    partners = codes + lag * strides[mode]
    places = torch.searchsorted(codes, partners).clamp(max=len(codes) - 1)
    found = (codes[places] == partners) & (indices[order, mode] + lag < sizes[mode])
    if int(found.sum()) < 2:
        return math.nan
    first, second = values[found], values[places[found]]
    return float((first * second.conj()).real.mean() / values.abs().square().mean())


def estimated_lengths(indices: Tensor, values: Tensor, sizes: Sequence[int]) -> tuple[float, ...]:
    """Correlation length of every mode, judged from the observed entries; 0 for modes that show no order.

    A mode counts as ordered when neighbours along it are clearly more alike than entries half the mode apart. Its length is taken as
    half of what the correlation of neighbours says, since data mostly vary on several scales, of which the short ones need room.

    Args:
        indices: ``(B, N)``.
        values: ``(B,)``, centred.
        sizes: Mode sizes.

    Example:
        >>> rows, columns = torch.meshgrid(torch.arange(50), torch.arange(9), indexing="ij")
        >>> values = (rows / 8).sin() * torch.tensor([1.0, -1, 1, 1, -1, 1, -1, -1, 1])[columns]
        >>> lengths = estimated_lengths(torch.stack([rows, columns], 2).reshape(-1, 2), values.reshape(-1), (50, 9))
        >>> lengths[0] > 5, lengths[1]
        (True, 0.0)
    """
    if math.prod(sizes) >= 2**62:
        return (0.0,) * len(sizes)
    lengths = []
    for mode, size in enumerate(sizes):
        length = 0.0
        threshold = max(ORDERED, CHANCE / math.sqrt(size))
        if threshold < 1:
            near, far = (correlation(indices, values, sizes, mode, lag) for lag in (1, size // 2))
            excess = (near - far) / (1 - far) if far < 1 else 0.0  # NaN compares as false
            if excess > threshold:
                length = min(float(size), -0.5 / math.log(min(excess, 1 - 1e-6)))
        lengths.append(length)
    return tuple(lengths)
