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


def draw_locality(path: str | os.PathLike[str], measured: Sequence[dict[str, Any]], *, title: str) -> None:
    """Draws how local networks are: |cos| by distance, singular values over a grid of inputs, and receptive fields.

    Args:
        path: Where to write, with the suffix of a format that matplotlib knows.
        measured: One of each network, as ``cnn-reg locality`` measures them.
        title: Of the picture.

    Raises:
        ValueError: There are none, or the format is unknown.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp(), "locality.png")
        >>> row = {"distance": 2.0, "mean": 0.9, "quantiles": [0.5, 0.8, 0.9, 0.95, 1.0]}
        >>> network = {"title": "a", "cosines": [row], "field": [[1.0]], "radius": 0.0, "singular_values": [1.0]}
        >>> draw_locality(path, [network], title="one")
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not measured:
        raise ValueError("a picture of locality needs at least one network; got none")
    figure = Figure(figsize=(9 + 3 * len(measured), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    cosine, spectrum, *fields = figure.subplots(1, 2 + len(measured), width_ratios=[1.3, 1.3] + [1] * len(measured))
    for row in measured:
        distances = [point["distance"] for point in row["cosines"]]
        (line,) = cosine.plot(distances, [point["mean"] for point in row["cosines"]], marker=".", label=row["title"])
        low, high = ([point["quantiles"][place] for point in row["cosines"]] for place in (1, -2))
        cosine.fill_between(distances, low, high, alpha=0.15, color=line.get_color())
        spectrum.semilogy(range(1, len(row["singular_values"]) + 1), row["singular_values"], marker=".", label=row["title"])
    cosine.set(xlabel="distance of the patches, pixels", ylabel="|cos|, mean and middle half", xscale="log")
    spectrum.set(xlabel="number", ylabel="singular value, two regions")
    spectrum.set_ylim(bottom=1e-7)
    cosine.legend(fontsize="small")
    for axes, row in zip(fields, measured):
        largest = max(max(line) for line in row["field"]) or 1.0
        axes.imshow([[(value / largest) ** 0.25 for value in line] for line in row["field"]], cmap="magma")
        axes.set_title(f"{row['title']}\nreceptive field, radius {row['radius']:.1f}", fontsize="small")
        axes.set_axis_off()
    with storage.replacing(path) as new:
        figure.savefig(new, dpi=120)
