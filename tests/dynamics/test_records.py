"""The committed records are whole, belong to the experiments that they name, and the documents say what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensornet.dynamics.experiments import experiment, from_config
from tensornet.dynamics.report import summarise
from tensornet.files.runs import read_records
from tensornet.files.storage import read_json

DOCS = Path(__file__).parents[2] / "docs"
RUNS = sorted(path.parent for path in (DOCS / "records").glob("*/config.json"))


def test_every_experiment_of_the_paper_has_records():
    names = {read_json(run / "config.json")["name"] for run in RUNS}
    assert names == {"fig1-matrix", "fig1-tensor", "fig1-hierarchical", "fig9", "fig10"}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_records_and_documents_agree(run):
    config, summary = read_json(run / "config.json"), read_json(run / "summary.json")
    records = read_records(run / "metrics.jsonl")
    assert run.name == f"{config['name']}-seed{config['seed']}"
    assert from_config(config) == experiment(config["name"], {"seed": str(config["seed"])})
    assert records[0]["step"] == 0
    assert records[-1]["step"] == summary["steps"]
    found = summarise(records)
    assert {name: summary[name] for name in found} == found
    row = f"| {config['name']}, seed {config['seed']} | {summary['steps']} | {summary['ended']} | {summary['error']:.4f} |"
    (line,) = (text for text in (DOCS / "reproduce.md").read_text(encoding="utf-8").splitlines() if text.startswith(row))
    cells = line.split(" | ")
    assert cells[6] == ("; ".join(f"{node}: {count}" for node, count in summary["components"].items()) or "-")
    ranks = {modes: f"{count}{' or more' if count == config['top'] else ''}" for modes, count in summary["ranks"].items()}
    assert cells[7] == "; ".join(f"{modes}: {count} of {summary['true_ranks'][modes]}" for modes, count in ranks.items())
