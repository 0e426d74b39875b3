"""Charts as a picture."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_reg.results.charts import Chart, Line
from tensornet.dynamics.plotting import check_suffix
from tensornet.files.storage import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # told apart by colour-blind readers too
MARKERS = "osD^vPXd"
AXIS_LABELS = {"path_length": "path length, paddles", "distance": "pixels between the pictures"}
MOST_INSIDE = 5  # lines whose legend has room beside the curves
WIDTH, HEIGHT = 5.6, 4.4  # inches of a panel without its notes


def draw_charts(path: str | os.PathLike[str], charts: Sequence[Chart]) -> None:
    """Writes a picture with the charts side by side, atomically, as PNG, PDF or SVG by the file's suffix.

    Raises:
        ValueError: The suffix is another, or there is no chart.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from cnn_reg.results.charts import Point
        >>> path = Path(tempfile.mkdtemp(), "figure.png")
        >>> draw_charts(path, [Chart("one point", "distance", (Line("a", (Point(0, (0.5,)),)),), ())])
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    check_suffix(Path(path))
    figure = charts_figure(charts)
    with replacing(path) as new:
        figure.savefig(new, dpi=150)


def charts_figure(charts: Sequence[Chart]) -> Figure:
    """The picture itself.

    Raises:
        ValueError: There is no chart.

    Example:
        >>> len(charts_figure([Chart("empty", "distance", (), ())]).axes)
        1
    """
    from matplotlib.figure import Figure

    if not charts:
        raise ValueError("a figure needs at least one chart; got none")
    notes = ["\n".join(textwrap.fill(note, 92) for note in chart.notes) for chart in charts]
    figure = Figure(figsize=(WIDTH * len(charts), HEIGHT + 0.16 * (1 + max(text.count("\n") for text in notes))), layout="constrained")
    for panel, chart, text in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, notes):
        _draw_chart(panel, chart)
        panel.text(0, -0.17, text, fontsize=7.5, color="0.35", va="top", transform=panel.transAxes, parse_math=False)
    return figure


def _draw_chart(axes: Axes, chart: Chart) -> None:
    axes.set_title(chart.title.replace(": ", "\n", 1), fontsize=10, parse_math=False)
    axes.axhline(50, color="0.85", linewidth=1, zorder=0)
    for number, row in enumerate(chart.lines):
        _draw_line(axes, row, COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)])
    alone = _distances_alone(chart)
    if alone:
        axes.plot(*zip(*alone), color="0.45", linestyle=":", linewidth=1.5, label="distance of the circles alone")
    places = sorted({point.x for row in chart.lines for point in row.points})
    if len(places) <= 12:
        axes.set_xticks(places)
    axes.set_xlabel(AXIS_LABELS.get(chart.axis, chart.axis.replace("_", " ")))
    axes.set_ylabel("test accuracy, percent")
    axes.grid(axis="y", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        _add_legend(axes, len(chart.lines))
    else:
        axes.text(0.5, 0.6, "no finished run", ha="center", transform=axes.transAxes, color="0.35")


def _add_legend(axes: Axes, lines: int) -> None:
    if lines > MOST_INSIDE:
        legend = axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        legend = axes.legend(fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names are no formulas


def _draw_line(axes: Axes, row: Line, color: str, marker: str) -> None:
    paper = [(point.x, 100 * point.published) for point in row.points if point.published is not None]
    if paper:
        axes.plot(*zip(*paper), color=color, alpha=0.28, linestyle="--", marker=marker, markersize=4)
    if any(point.accuracies for point in row.points):
        x = [point.x for point in row.points]
        mean = [math.nan if point.mean is None else 100 * point.mean for point in row.points]  # a gap in the line
        deviation = [100 * (point.deviation or 0) for point in row.points]
        axes.errorbar(x, mean, deviation, color=color, marker=marker, markersize=5, capsize=3, linewidth=1.6, label=row.label)


def _distances_alone(chart: Chart) -> list[tuple[float, float]]:
    found: dict[float, list[float]] = {}
    for row in chart.lines:
        for point in row.points:
            if point.distance_accuracy is not None:
                found.setdefault(point.x, []).append(point.distance_accuracy)
    return [(x, 100 * sum(values) / len(values)) for x, values in sorted(found.items())]
