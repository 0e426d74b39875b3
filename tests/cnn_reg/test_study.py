"""The committed records are those of small sweeps, whole, and the documents say what they hold."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from cnn_reg.cli import main
from cnn_reg.config import run_id
from cnn_reg.sweeps.grids import named_grid
from cnn_reg.trained import read_config
from tensornet.files.runs import read_records
from tensornet.files.storage import read_json

DOCS = Path(__file__).parents[2] / "docs"
RUNS = {
    name: sorted(path.parent for path in (DOCS / "records" / f"{name}-small").glob("*/config.json"))
    for name in ("fig6-pathfinder", "fig6-same-class", "fig11-pathfinder")
}


@pytest.mark.parametrize("name", RUNS)
def test_the_runs_are_those_of_the_small_sweep(name):
    configs = named_grid(name, "small").configs()
    found = {run.name: read_config(run) for run in RUNS[name]}
    assert len(found) == len(configs)
    assert set(configs) == {begun.config for begun in found.values()}
    assert all(name.endswith(run_id(begun.config, begun.version)) for name, begun in found.items())


def test_the_document_says_what_the_records_hold():
    document = (DOCS / "cnn-training.md").read_text(encoding="utf-8")
    best = {0.0: {}, 3.0: {}}
    for length in (3, 5):
        for coefficient in (0.0, 3.0):
            summaries, bests = [], []
            for run in RUNS["fig6-pathfinder"]:
                config, records = read_config(run).config, read_records(run / "metrics.jsonl")
                if (config.path_length, config.coefficient) == (length, coefficient):
                    summaries.append(read_json(run / "summary.json"))
                    assert summaries[-1]["test_accuracy"] == records[-1]["test_accuracy"]
                    assert len(records) == 24
                    bests.append(max(record["test_accuracy"] for record in records))
            summaries.sort(key=lambda summary: summary["seed"])
            shares = [100 * summary["test_accuracy"] for summary in summaries]
            each = ", ".join(f"{share:.1f}" for share in shares)
            row = f"| {length} | {coefficient:g} | {each} | {statistics.mean(shares):.1f} | {statistics.stdev(shares):.1f} |"
            assert row in document
            best[coefficient][length] = 100 * max(bests)
            cosines = [f"{summary['cosine']:.3f}"[1:] for summary in summaries]
            assert re.search(rf"{cosines[0]}, {cosines[1]}(,| and)\s+{cosines[2]}", document)
    assert f"the best test accuracy of any epoch without the penalty is {best[0.0][3]:.1f} and {best[0.0][5]:.1f}" in document


@pytest.mark.parametrize(
    ("name", "axis", "values", "coefficients", "epochs", "seeds"),
    [("fig6-same-class", "distance", (0, 80, 160), (0.0, 1.0), 15, 3), ("fig11-pathfinder", "path_length", (3, 5), (0.0, 3.0), 24, 2)],
)
def test_the_document_says_what_the_records_of_other_sweeps_hold(name, axis, values, coefficients, epochs, seeds):
    document = (DOCS / "reproduce.md").read_text(encoding="utf-8")
    summaries = {run: read_json(run / "summary.json") for run in RUNS[name]}
    for value in values:
        for coefficient in coefficients:
            wanted = [
                summary
                for run, summary in summaries.items()
                if (getattr(read_config(run).config, axis), summary["coefficient"]) == (value, coefficient)
            ]
            assert [summary["epochs"] for summary in wanted] == [epochs] * seeds
            wanted.sort(key=lambda summary: summary["seed"])
            shares, training = ([100 * summary[part] for summary in wanted] for part in ("test_accuracy", "train_accuracy"))
            each = ", ".join(f"{share:.1f}" for share in shares)
            cosines = ", ".join(f"{summary['cosine']:.3f}"[1:] for summary in wanted)
            row = f"| {value} | {coefficient:g} | {each} | {statistics.mean(shares):.1f} | {statistics.stdev(shares):.1f} "
            assert f"{row}| {min(training):.1f} to {max(training):.1f} | {cosines} |" in document


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("fig6-pathfinder", "| coefficient 3 | 5 | 3 | 66.5 |"),
        ("fig6-same-class", "| coefficient 0 | 80 | 3 | 96.7 |"),
        ("fig11-pathfinder", "| coefficient 3 | 5 | 2 | 83.75 |"),
    ],
)
def test_the_figure_is_drawn_from_the_records(name, row, tmp_path, capsys):
    assert main(["figure", name, "--runs", str(DOCS / "records" / f"{name}-small"), "--out", str(tmp_path / "figure.png")]) == 0
    assert f"mean and standard deviation over {2 if name == 'fig11-pathfinder' else 3} seeds" in capsys.readouterr().out
    assert row in (tmp_path / "figure.md").read_text()
