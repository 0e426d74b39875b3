from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cnn_reg.results.charts import Chart, Line, Point
from cnn_reg.results.plots import charts_figure, draw_charts

CHART = Chart(
    "Pathfinder, resnet18: mean and standard deviation over 2 seeds",
    "path_length",
    (
        Line("coefficient 0", (Point(5, (0.5, 0.7), 0, 0.85, 0.96), Point(7, (), 2, None, 0.687), Point(9, (0.5,), 1, 0.75, 0.503))),
        Line("coefficient 9", (Point(5, (0.8, 0.9), 0, 0.95), Point(7, (0.75, 0.75)), Point(9, (0.5, 0.7)))),
    ),
    ("Missing: 3 of 12 runs (3 not begun).",),
)


def drawn(axes):
    """What is drawn as lines: label, or colour and style, to values."""
    return {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines}


def test_what_is_drawn_are_the_numbers():
    (axes,) = charts_figure([CHART]).axes
    bars = {container.get_label(): container for container in axes.containers}
    first = np.asarray(bars["coefficient 0"].lines[0].get_xydata())
    np.testing.assert_allclose(first, [[5, 60], [7, math.nan], [9, 50]])  # a gap where nothing is finished
    half = 100 * np.std([0.5, 0.7], ddof=1)
    np.testing.assert_allclose(bars["coefficient 0"].lines[2][0].get_segments()[0], [[5, 60 - half], [5, 60 + half]])
    np.testing.assert_allclose(np.asarray(bars["coefficient 9"].lines[0].get_xydata())[:, 1], [85, 75, 60])
    np.testing.assert_allclose(drawn(axes)["distance of the circles alone"], [[5, 90], [9, 75]])
    faint = [line for line in axes.lines if line.get_alpha() is not None]
    np.testing.assert_allclose(np.asarray(faint[0].get_xydata()), [[5, 96], [7, 68.7], [9, 50.3]])
    assert len(faint) == 1


def test_title_notes_and_axis_are_told():
    (axes,) = charts_figure([CHART]).axes
    assert axes.get_title() == CHART.title.replace(": ", "\n")
    assert CHART.notes[0] in [text.get_text() for text in axes.texts]
    assert (axes.get_xlabel(), list(axes.get_xticks())) == ("path length, paddles", [5, 7, 9])


def test_a_chart_without_finished_runs_says_so():
    (axes,) = charts_figure([Chart("none", "distance", (Line("a", (Point(0, (), 3),)),), ())]).axes
    assert "no finished run" in [text.get_text() for text in axes.texts]


def test_nothing_lies_outside_of_the_picture():
    figure = charts_figure([CHART, CHART])
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.05
    assert box.y0 >= -0.05
    assert box.x1 <= width + 0.05
    assert box.y1 <= height + 0.05


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_formats(tmp_path, suffix, start):
    path = tmp_path / f"figure{suffix}"
    draw_charts(path, [CHART])
    assert path.read_bytes().startswith(start)


def test_texts_are_no_formulas(tmp_path):
    text = r"$\frac{ $x_{ 100 %"
    draw_charts(tmp_path / "a.png", [Chart(f"{text}: {text}", "distance", (Line(text, (Point(0, (0.5,)),)),), (text,))])
    assert (tmp_path / "a.png").exists()


def test_wrong_names_and_no_charts(tmp_path):
    with pytest.raises(ValueError, match=r"a figure is written as \.png, \.svg, \.pdf; got 'figure\.txt'"):
        draw_charts(tmp_path / "figure.txt", [CHART])
    with pytest.raises(ValueError, match="at least one chart"):
        draw_charts(Path(tmp_path / "figure.png"), [])
    assert list(tmp_path.iterdir()) == []
