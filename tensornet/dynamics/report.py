"""What a run learned, and when, from its records alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Records = Sequence[Mapping[str, Any]]
THRESHOLD = 0.02  # share of the largest final value above which a component counts as learned
GROWTH = 2.0  # times its first value above which it must end besides


@dataclass(frozen=True)
class Learned:
    """What became of the components at one node, or of the singular values of one matricization.

    Attributes:
        name: The node, or the set of modes.
        appeared: For every learned component, in order, the first recorded step from which it stays above the threshold.
        values: Their final values, descending.
        next: The largest final value that does not count; ``None`` where all that are recorded count.
        recorded: How many are recorded, the largest ones.

    Example:
        >>> learned([{"step": 0, "norms": {"0": [0.0]}}, {"step": 9, "norms": {"0": [2.0]}}], "norms", "0").appeared
        (9,)
    """

    name: str
    appeared: tuple[int, ...]
    values: tuple[float, ...]
    next: float | None
    recorded: int


def learned(records: Records, what: str, name: str, threshold: float = THRESHOLD) -> Learned:
    """Components (``what="norms"``) or singular values (``"singular"``) that a run learned.

    The first curve is that of the largest value, and so on, as in the paper's plots. What ends above ``threshold`` times the largest
    final value, and above :data:`GROWTH` times where it began, counts.

    Raises:
        ValueError: There are no records, or not of this.

    Example:
        >>> records = [{"step": step, "norms": {"0,1": [float(step), 0.01]}} for step in (0, 5, 10)]
        >>> learned(records, "norms", "0,1")
        Learned(name='0,1', appeared=(5,), values=(10.0,), next=0.01, recorded=2)
    """
    if not records or name not in records[-1].get(what, {}):
        raise ValueError(f"there are no records of {what} at {name}")
    curves = list(zip(*(record[what][name] for record in records)))
    least = threshold * curves[0][-1]
    found = [curve for curve in curves if curve[-1] > max(least, GROWTH * curve[0])]
    steps = [record["step"] for record in records]
    appeared = []
    for curve in found:
        below = [place for place, value in enumerate(curve) if value <= least]
        appeared.append(steps[below[-1] + 1 if below else 0])
    rest = max((curve[-1] for curve in curves if curve not in found), default=None)
    return Learned(name, tuple(appeared), tuple(curve[-1] for curve in found), rest, len(curves))


def summarise(records: Records) -> dict[str, Any]:
    """Final loss and error, how many components and singular values were learned, and at which steps, for a run's summary.

    Example:
        >>> records = [{"step": step, "loss": 0.5, "error": 0.1, "norms": {"0,1": [step, 0.0]}, "singular": {}} for step in (0, 8)]
        >>> summarise(records)
        {'loss': 0.5, 'error': 0.1, 'components': {'0,1': 1}, 'ranks': {}, 'appeared': {'components': {'0,1': [8]}, 'ranks': {}}}
    """
    if not records:
        return {}
    last = records[-1]
    steps = {
        part: {name: list(learned(records, what, name).appeared) for name in last[what]}
        for part, what in (("components", "norms"), ("ranks", "singular"))
    }
    counts = {part: {name: len(found) for name, found in known.items()} for part, known in steps.items()}
    return {"loss": last["loss"], "error": last["error"], **counts, "appeared": steps}


def lines(config: Mapping[str, Any], records: Records, summary: Mapping[str, Any]) -> list[str]:
    r"""The report of a run: when every component appeared, and what was learned against what is true.

    Args:
        config: The run's configuration.
        records: Its records.
        summary: Its summary; empty for a run that has not ended.

    Example:
        >>> records = [{"step": step, "loss": 1.0, "error": 0.5, "norms": {"0,1": [float(step)]}, "singular": {}} for step in (0, 8)]
        >>> print("\n".join(lines({"name": "x", "truth": "", "true_rank": 1, "ranks": 4}, records, {})))
        x: step 8, loss 1.00e+00, reconstruction error 0.5000, not ended
        local components at 0,1: at least 1 learned (true 1); appeared at step 8; norms 8
    """
    last = records[-1]
    ended = summary.get("ended", "not ended")
    found = [f"{config['name']}: step {last['step']}, loss {last['loss']:.2e}, reconstruction error {last['error']:.4f}, {ended}"]
    for name in last["norms"]:
        true = "" if config["truth"] else f" (true {config['true_rank']})"
        found.append(_line(f"local components at {name}", true, "norms", learned(records, "norms", name), config["ranks"]))
    for name in last["singular"]:
        rank = summary.get("true_ranks", {}).get(name)
        true = "" if rank is None else f" (true {rank})"
        inside = [int(mode) for mode in name.split(",")]
        rows = math.prod(config["mode_sizes"][mode] for mode in inside)
        most = min(rows, math.prod(config["mode_sizes"]) // rows)
        found.append(_line(f"singular values of modes {name}", true, "values", learned(records, "singular", name), most))
    return found


def _line(what: str, true: str, values: str, one: Learned, most: int) -> str:
    """One line, where there are ``most`` components or singular values in all."""
    rest = f"; next {one.next:.2g}" if one.next is not None else ""
    if not one.values:
        return f"{what}: none learned{true}{rest}"
    steps = ", ".join(map(str, one.appeared))
    shown = ", ".join(f"{value:.3g}" for value in one.values)
    count = f"{len(one.values)}" if one.next is not None or one.recorded == most else f"at least {len(one.values)}"
    return f"{what}: {count} learned{true}; appeared at step {steps}; {values} {shown}{rest}"
