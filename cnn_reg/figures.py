"""Curves of a training, and how local networks are, as pictures; each panel also by itself."""

from __future__ import annotations

import functools
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from tensornet.files import storage

Panel: TypeAlias = Callable[[Any], None]  # draws on axes of matplotlib


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
    for axes, panel in zip(figure.subplots(1, 3), curve_panels(records, baseline)):
        panel(axes)
    with storage.replacing(path) as new:
        figure.savefig(new, dpi=120)


def curve_panels(records: Sequence[Mapping[str, Any]], baseline: float | None = None) -> list[Panel]:
    """What draws accuracy, loss and |cos| over the epochs, each on the axes that it is given.

    Args:
        records: One of each epoch.
        baseline: Accuracy of a prediction from the distance alone.

    Example:
        >>> len(curve_panels([{"epoch": 1, "train_accuracy": 0.5}]))
        3
    """

    def splits(axes: Any, what: str) -> None:
        for split in ("train", "validation", "test"):
            _line(axes, records, f"{split}_{what}", split)
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.get_major_locator().set_params(integer=True)

    def accuracy(axes: Any) -> None:
        splits(axes, "accuracy")
        if baseline is not None:
            axes.axhline(baseline, color="0.5", linestyle="--", label="distance alone")
        _legend(axes)

    def loss(axes: Any) -> None:
        splits(axes, "loss")
        axes.set_yscale("log")
        _legend(axes)

    def cosine(axes: Any) -> None:
        banded = [record for record in records if record.get("cosine_quantiles")]
        if banded:
            low, high = ([record["cosine_quantiles"][place] for record in banded] for place in (0, -1))
            axes.fill_between([record["epoch"] for record in banded], low, high, alpha=0.2, label="5 to 95 percent of the samples")
        _line(axes, records, "cosine", "mean")
        axes.set(xlabel="epoch", ylabel="|cos|", ylim=(0, 1.02))
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes)

    return [accuracy, loss, cosine]


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def _line(axes: Any, records: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    points = [(record["epoch"], record[name]) for record in records if record.get(name) is not None]
    if points:
        axes.plot(*zip(*points), label=label, marker="." if len(points) < 30 else None)


def draw_locality(path: str | os.PathLike[str], measured: Sequence[dict[str, Any]], *, title: str) -> None:
    """Draws how local networks are: |cos| by distance, singular values over a grid of inputs, and receptive fields.

    Args:
        path: Where to write, with the suffix of a format that matplotlib knows.
        measured: One of each network, as :func:`cnn_reg.locality_profile.locality_profile` measures them.
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
    ratios = [1.3, 1.3] + [1] * len(measured)
    for axes, panel in zip(figure.subplots(1, len(ratios), width_ratios=ratios), locality_panels(measured)):
        panel(axes)
    with storage.replacing(path) as new:
        figure.savefig(new, dpi=120)


def locality_panels(measured: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """What draws |cos| by distance, singular values, and each network's receptive field, each on the axes that it is given.

    Args:
        measured: One of each network, as :func:`cnn_reg.locality_profile.locality_profile` measures them.

    Example:
        >>> len(locality_panels([{"title": "a"}, {"title": "b"}]))
        4
    """

    def cosine(axes: Any) -> None:
        for row in measured:
            distances = [point["distance"] for point in row["cosines"]]
            (line,) = axes.plot(distances, [point["mean"] for point in row["cosines"]], marker=".", label=row["title"])
            low, high = ([point["quantiles"][place] for point in row["cosines"]] for place in (1, -2))
            axes.fill_between(distances, low, high, alpha=0.15, color=line.get_color())
        axes.set(xlabel="distance of the patches, pixels", ylabel="|cos|, mean and middle half")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(fontsize="small")

    def spectrum(axes: Any) -> None:
        for row in measured:
            axes.semilogy(range(1, len(row["singular_values"]) + 1), row["singular_values"], marker=".", label=row["title"])
        axes.set(xlabel="number", ylabel="singular value, two regions")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=1e-7)

    return [cosine, spectrum, *(functools.partial(_field, row) for row in measured)]


def _field(row: Mapping[str, Any], axes: Any) -> None:
    largest = max(max(line) for line in row["field"]) or 1.0
    axes.imshow([[(value / largest) ** 0.25 for value in line] for line in row["field"]], cmap="magma")
    title = textwrap.fill(row["title"], 36)
    axes.set_title(f"{title}\nreceptive field, radius {row['radius']:.1f}", fontsize="small")
    axes.set_axis_off()
