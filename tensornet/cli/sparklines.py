"""Curves as a line of text."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 60  # most characters of a line
BARS = " ▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], top: float, width: int = WIDTH) -> str:
    """Numbers from 0 to ``top`` as a line of bars, as many as fit.

    Example:
        >>> sparkline([0, 1, 2, 4], 4)
        ' ▂▄█'
    """
    count = min(width, len(values))
    picked = [values[round(place * (len(values) - 1) / max(count - 1, 1))] for place in range(count)]
    return "".join(BARS[min(len(BARS) - 1, round(value / top * (len(BARS) - 1)))] if top > 0 else BARS[0] for value in picked)
