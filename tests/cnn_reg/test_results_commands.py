"""``cnn-reg runs``, ``figure`` and ``report`` from the command line."""

from __future__ import annotations

import csv
import re

import pytest
from run_cases import made_run, made_study

from cnn_reg.cli import main
from cnn_reg.config import Config
from cnn_reg.sweeps.grids import named_grid
from cnn_reg.sweeps.sweep import write_listing
from tensornet.files.storage import write_json


@pytest.fixture
def mixed(tmp_path):
    """The study's twelve runs, one that failed, one that goes on, a damaged one and a foreign one."""
    folder = tmp_path / "runs"
    made_study(folder)
    write_json(
        made_run(folder / "failed", Config(seed=8), finished=False).folder / "failure.json", {"reason": "OSError: [Errno 28] no space"}
    )
    made_run(folder / "going", Config(seed=9), epochs=2, finished=False)
    (made_run(folder / "cut", Config(seed=10)).folder / "config.json").write_text('{"data')
    write_json(made_run(folder / "foreign", Config(seed=11)).folder / "config.json", {"mode_sizes": [4, 4]})
    return folder


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_runs_are_listed_with_states_and_reasons(mixed, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["runs", str(mixed), "--csv", str(tmp_path / "runs.csv"), "--markdown", str(tmp_path / "runs.md")]) == 0
    shown = capsys.readouterr().out
    assert "16 runs: 12 finished, 1 unfinished, 1 failed, 2 unreadable." in shown
    assert "failed: OSError: [Errno 28] no space\n" in shown  # brackets are no markup
    assert re.search(r"going: last wrote [\d.]+ s ago\n", shown)
    assert re.search(r"cut: \S+config.json is no JSON file", shown)
    assert re.search(r"foreign: \S+config.json is no configuration of a training by cnn-reg\n", shown)
    assert shown.count("length-5-coefficient-3-seed-0") == 1
    table = {row["run"]: row for row in rows(tmp_path / "runs.csv")}
    assert len(table) == 16
    assert table["length-5-coefficient-3-seed-2"]["test_accuracy"] == "0.6900000000000001"
    assert (table["going"]["state"], table["going"]["epochs_done"]) == ("unfinished", "2")
    assert len((tmp_path / "runs.md").read_text().splitlines()) == 18


def test_a_figure_s_table_replaces_nothing_else(mixed, tmp_path, capsys):
    command = ["figure", "runs", "--runs", str(mixed), "--out", str(tmp_path / "study.png")]
    for name in ("study.md", "study.csv"):
        assert main(command) == 0
        assert main(command) == 0  # its own tables
        (tmp_path / name).write_text("# My study\n")
        (tmp_path / "study.png").unlink()
        capsys.readouterr()
        assert main(command) == 2
        assert f"would replace {tmp_path / name}, which is none; give the figure another name" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == "# My study\n"
        assert not (tmp_path / "study.png").exists()
        (tmp_path / name).unlink()


def test_a_narrow_terminal_shows_no_folders_but_everything_else(mixed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["runs", str(mixed)]) == 0
    shown = capsys.readouterr().out
    assert "length-5-coefficient-3-seed-0" not in shown
    assert shown.count("finished") >= 12
    assert "…" not in shown


def test_what_a_sweep_has_not_begun_is_counted(tmp_path, capsys):
    grid = named_grid("fig6-pathfinder", "small")
    write_listing(tmp_path, grid, grid.labelled())
    made_run(tmp_path / "a", grid.configs()[0])
    assert main(["runs", str(tmp_path)]) == 0
    assert f"1 runs: 1 finished, {len(grid.configs()) - 1} of a sweep not begun." in capsys.readouterr().out


def test_the_study_as_a_figure_with_tables(mixed, tmp_path, capsys):
    out = tmp_path / "study.png"
    assert main(["figure", "runs", "--runs", str(mixed), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert out.read_bytes()[1:4] == b"PNG"
    assert "Missing: 2 of 14 runs (1 failed, 1 unfinished)." in shown
    found = rows(out.with_suffix(".csv"))
    wanted = [row for row in found if "width 0.25" in row["line"] and "coefficient 3" in row["line"] and row["path length"] == "5"]
    assert [(row["runs"], row["mean"], row["deviation"], row["each"]) for row in wanted] == [("3", "67.33", "1.53", "66.0 67.0 69.0")]
    text = out.with_suffix(".md").read_text()
    assert text.startswith("## Pathfinder, resnet18: ")
    assert r"Failed 1 time: OSError: \[Errno 28\] no space" in text


def test_a_named_figure_says_what_is_missing(tmp_path, capsys):
    grid = named_grid("fig6-same-class", "small")
    for number, config in enumerate(grid.configs()[:5]):
        made_run(tmp_path / "runs" / str(number), config, 0.55)
    assert main(["figure", "fig6-same-class", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "6.svg")]) == 0
    shown = capsys.readouterr().out
    assert "Is Same Class, digits (not CIFAR10), resnet18" in shown
    assert f"Missing: {len(grid.configs()) - 5} of {len(grid.configs())} runs" in shown
    assert "not CIFAR10" in (tmp_path / "6.md").read_text()


def test_figure_5(tmp_path, capsys):
    out = tmp_path / "5.pdf"
    assert main(["figure", "fig5", "--source", "digits", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"%PDF")
    assert capsys.readouterr().out == f"The figure is {out}.\n"


def test_a_report_lies_in_the_folder_or_where_it_is_asked_for(mixed, tmp_path, capsys):
    assert main(["report", str(mixed)]) == 0
    assert "<title>Runs in runs</title>" in (mixed / "report.html").read_text()
    assert main(["report", str(mixed / "going"), "--out", str(tmp_path / "going.html")]) == 0
    assert "<title>Pathfinder, resnet18: path length 7, coefficient 9, seed 9</title>" in (tmp_path / "going.html").read_text()
    assert not (mixed / "going" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "{}/absent"], "runs are looked for in a folder; {}/absent is none"),
        (["figure", "fig6-pathfindr", "--out", "a.png"], "unknown value of FIGURE: fig6-pathfindr (did you mean fig6-pathfinder?)"),
        (["figure", "runs", "--out", "{}/a.png"], "runs is drawn from runs; give their folder with --runs"),
        (["figure", "runs", "--runs", "{}", "--out", "{}/a.png"], "a figure needs at least one run"),
        (["figure", "fig5", "--source", "digits", "--out", "{}/a.txt"], "a figure is written as .png, .svg, .pdf; got 'a.txt'"),
        (["figure", "fig5", "--source", "digit", "--out", "{}/a.png"], "unknown source 'digit' (did you mean digits?)"),
        (["report", "{}"], "there are no runs in {}"),
        (["report", "{}/absent"], "runs are looked for in a folder; {}/absent is none"),
        (["runs", "{}", "--csv", "{}/absent/a.csv"], "the folder {}/absent does not exist"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, capsys):
    try:
        code = main([part.format(tmp_path) for part in arguments])
    except SystemExit as error:
        code = error.code
    shown = capsys.readouterr()
    assert code == 2
    assert message.format(tmp_path) in shown.err
    assert shown.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
