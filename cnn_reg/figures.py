"""Curves of a training as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tensornet.files import storage


def draw_curves(path: str | os.PathLike[str], records: Sequence[dict[str, Any]], *, title: str, baseline: float | None = None) -> None:
    """Draws accuracies, losses and |cos| over the epochs, and writes the picture, atomically.

    The band around the mean of |cos| holds 90 percent of the samples. Epochs whose values are missing are left out.

    Args:
        path: Where to write, with the suffix of a format that matplotlib knows.
        records: One of each epoch, as in ``metrics.jsonl``.
        title: Of the picture.
        baseline: Accuracy of a prediction from the distance alone, drawn as a line.

    Raises:
        ValueError: There are no records, or the format is unknown.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp(), "curves.png")
        >>> draw_curves(path, [{"epoch": 1, "train_accuracy": 0.5, "test_accuracy": 0.5}], title="one epoch")
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not records:
        raise ValueError("curves need at least one epoch's record; got none")
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    accuracy, loss, cosine = figure.subplots(1, 3)
    for axes, what in ((accuracy, "accuracy"), (loss, "loss")):
        for split in ("train", "validation", "test"):
            _line(axes, records, f"{split}_{what}", split)
        axes.set(xlabel="epoch", ylabel=what)
    if baseline is not None:
        accuracy.axhline(baseline, color="0.5", linestyle="--", label="distance alone")
    loss.set_yscale("log")
    banded = [record for record in records if record.get("cosine_quantiles")]
    if banded:
        low, high = ([record["cosine_quantiles"][place] for record in banded] for place in (0, -1))
        cosine.fill_between([record["epoch"] for record in banded], low, high, alpha=0.2, label="5 to 95 percent of the samples")
    _line(cosine, records, "cosine", "mean")
    cosine.set(xlabel="epoch", ylabel="|cos|", ylim=(0, 1.02))
    for axes in (accuracy, loss, cosine):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    with storage.replacing(path) as new:
        figure.savefig(new, dpi=120)


def _line(axes: Any, records: Sequence[dict[str, Any]], name: str, label: str) -> None:
    points = [(record["epoch"], record[name]) for record in records if record.get(name) is not None]
    if points:
        axes.plot(*zip(*points), label=label, marker="." if len(points) < 30 else None)
