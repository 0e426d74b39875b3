from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import pytest
from run_cases import made_run, made_study

from cnn_reg.config import FIELDS, Config
from cnn_reg.results.charts import make_charts
from cnn_reg.results.records import Record, read_runs
from cnn_reg.results.rows import charts_table, full_table, runs_table
from cnn_reg.results.tables import Table, as_csv, as_markdown
from cnn_reg.results.wording import duration


def test_the_table_of_runs_has_a_column_for_what_differs(tmp_path):
    made_study(tmp_path)
    made_run(tmp_path / "wide", Config(width=0.5), epochs=1, finished=False)
    table = runs_table(read_runs(tmp_path), tmp_path)
    assert table.columns[:9] == (
        "path length",
        "train images",
        "test images",
        "image size",
        "width",
        "coefficient",
        "epochs",
        "seed",
        "state",
    )
    assert table.rows[0][5:12] == (0.0, 40, 0, "finished", "40", "51.0", "95.0")
    assert table.rows[-1][8:10] == ("unfinished", "1 of 150")
    assert table.rows[-1][-2] == "wide"


def test_tasks_are_told_where_they_differ(tmp_path):
    runs = [Record(tmp_path / "a", "finished", config=Config()), Record(tmp_path / "b", "finished", config=Config(dataset="same-class"))]
    table = runs_table(runs, tmp_path)
    assert table.columns[:3] == ("task", "path length", "distance")
    assert [row[:3] for row in table.rows] == [("Pathfinder, resnet18", 7, None), ("Is Same Class, CIFAR10, resnet18", None, 160)]


def test_versions_and_ages_are_told(tmp_path):
    runs = [
        Record(tmp_path / "a", "finished", config=Config(), version="0.0.1"),
        Record(tmp_path / "b", "unfinished", config=Config(seed=1), written=time.time() - 7200),
    ]
    first, second = runs_table(runs, tmp_path).rows
    assert "finished (version 0.0.1)" in first
    assert second[-1] == "last wrote 2.0 h ago"


def test_all_fields_are_in_the_full_table(tmp_path):
    made_study(tmp_path)
    table = full_table(read_runs(tmp_path), tmp_path)
    assert set(FIELDS) <= set(table.columns)
    assert len(set(table.columns)) == len(table.columns)
    row = dict(zip(table.columns, table.rows[0]))
    assert (row["width"], row["epochs_done"], row["test_accuracy"], row["distance"]) == (0.25, 40, 0.51, None)


def test_csv_can_be_read_again(tmp_path):
    table = Table(("a", "b"), ((1, 'x "y", z\nw'), (None, 0.1 + 0.2)))
    found = list(csv.reader(io.StringIO(as_csv(table))))
    assert found == [["a", "b"], ["1", 'x "y", z\nw'], ["", "0.30000000000000004"]]


@pytest.mark.parametrize("text", ["a|b", "two\nlines", "`code`", "<script>alert(1)</script>", "[link](http://a)", "back\\slash"])
def test_cells_cannot_break_a_table_in_markdown(text):
    lines = as_markdown(Table(("a", "b"), ((text, 1),))).splitlines()
    assert len(lines) == 3
    plain = lines[2].replace("\\\\", "").replace("\\|", "")
    assert plain.count("|") == 3
    assert "<" not in lines[2]
    assert "](" not in lines[2].replace("\\](", "")


def test_numbers_of_a_chart(tmp_path):
    made_study(tmp_path)
    charts = make_charts(read_runs(tmp_path))
    table = charts_table(charts)
    assert table.columns == ("line", "path length", "runs", "mean", "deviation", "each", "missing", "distance alone")
    assert table.rows[2] == ("coefficient 3", 5, 3, 67.33, 1.53, "66.0 67.0 69.0", 0, 83.0)
    several = charts_table([*charts, *charts])
    assert several.columns[:4] == ("task", "line", "axis", "at")
    assert several.rows[0][:4] == ("Pathfinder, resnet18", "coefficient 0", "path length", 5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0, "0.0 s"), (9.96, "10.0 s"), (10, "10 s"), (99.4, "99 s"), (100, "1.7 min"), (5999, "100.0 min"), (6000, "1.7 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_names_are_relative_to_the_folder():
    assert full_table([Record(Path("a/b/c"), "failed", "x")], Path("a")).rows[0][0] == "b/c"
