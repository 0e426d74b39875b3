"""The page of many runs: charts, a table of all runs, and a few lines on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cnn_reg.results.charts import Chart
from cnn_reg.results.pages import Image, figure_image, render
from cnn_reg.results.plots import charts_figure
from cnn_reg.results.records import STATES, Record
from cnn_reg.results.rows import charts_table, runs_table, told_fields, what
from cnn_reg.results.tables import Table
from cnn_reg.results.wording import duration, percent, plain


class ShownChart(NamedTuple):
    """A chart as a picture and a table.

    Attributes:
        title: Data set and network.
        picture: The picture.
        table: Its numbers.
        notes: What a reader has to know.
    """

    title: str
    picture: Image
    table: Table
    notes: tuple[str, ...]


class ShownRun(NamedTuple):
    """A few lines on a run.

    Attributes:
        anchor: What links lead to.
        name: Of its folder.
        state: Its state.
        what: What it is.
        test: Its test accuracy.
        reason: Why it failed.
        curve: Test accuracy by epoch, as points of a line in a square of side 100.
        train_curve: Likewise of the training accuracy.
        facts: Epochs, time, device.
    """

    anchor: str
    name: str
    state: str
    what: str
    test: str
    reason: str
    curve: str
    train_curve: str
    facts: str


def sweep_page(folder: Path, records: Sequence[Record], charts: Sequence[Chart]) -> str:
    """The page of the runs in a folder.

    Args:
        folder: Below which they lie.
        records: The runs.
        charts: What they came to.

    Example:
        >>> page = sweep_page(Path("a"), [Record(Path("a/b"), "failed", "<no disk>")], [])
        >>> "&lt;no disk&gt;" in page
        True
    """
    fields = told_fields(records)
    each = [_run(f"run-{number}", record, folder, fields) for number, record in enumerate(records)]
    counts = Counter(record.state for record in records)
    seconds = sum(record.seconds for record in records if record.seconds is not None)
    facts = [("runs", str(len(records))), *((state, str(counts[state])) for state in STATES if counts[state])]
    return render(
        "sweep.html",
        title=f"Runs in {folder.resolve().name}",
        folder=folder.resolve().name,
        facts=[*facts, ("time of all steps", duration(seconds))],
        charts=[_chart(chart) for chart in charts],
        runs=runs_table(records, folder),
        links={run.name: run.anchor for run in each},
        each=each,
    )


def _chart(chart: Chart) -> ShownChart:
    bare = replace(chart, notes=())  # which are too small to read in a picture on a phone
    return ShownChart(chart.title.partition(":")[0], figure_image(charts_figure([bare]), chart.title), charts_table([chart]), chart.notes)


def _run(anchor: str, record: Record, folder: Path, fields: Sequence[str]) -> ShownRun:
    facts = [f"{record.epochs} epochs", duration(record.seconds), record.device]
    return ShownRun(
        anchor,
        plain(record.folder.relative_to(folder).as_posix()),
        record.state,
        what(record, fields),
        percent(record.test_accuracy),
        record.reason,
        _curve(record, "test_accuracy"),
        _curve(record, "train_accuracy"),
        ", ".join(fact for fact in facts if fact) + ".",
    )


def _curve(record: Record, name: str) -> str:
    values = [epoch.get(name) for epoch in record.epoch_records]
    step = 100 / max(1, len(values) - 1)
    points = [(number * step, 100 - 100 * value) for number, value in enumerate(values) if isinstance(value, int | float)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
