"""Figures from records: which panels, which curves, what is missing."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from matplotlib.figure import Figure

from tensornet.dynamics import plotting
from tensornet.dynamics.experiments import experiment
from tensornet.dynamics.plotting import changed, draw, find_runs, panels_of_figure, panels_of_run, panels_of_sweep
from tensornet.dynamics.running import run_experiment
from tensornet.files.runs import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Short runs of two experiments, one of them with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("fig1-tensor", "1"), ("fig1-tensor", "0"), ("fig1-matrix", "0")):
        run_experiment(experiment(name, {"max_steps": "40", "record_every": "20", "seed": seed, "ranks": "6"}), folder / f"{name} {seed}")
    return folder


def test_runs_are_found_below_a_folder(runs, tmp_path):
    found = find_runs(runs)
    assert [(run.config["name"], run.config["seed"], len(run.records)) for run in found] == [
        ("fig1-matrix", 0, 3),
        ("fig1-tensor", 0, 3),
        ("fig1-tensor", 1, 3),
    ]
    with pytest.raises(ValueError, match=r"runs are looked for in a folder; .*nowhere is none"):
        find_runs(tmp_path / "nowhere")


def test_figure_1_has_three_panels_with_the_smallest_seeds(runs):
    matrix, tensor, hierarchical = panels_of_figure("1", find_runs(runs))
    assert (matrix.what, matrix.name) == ("singular", "0")
    assert (tensor.what, tensor.name, tensor.run.config["seed"]) == ("norms", "0,1,2", 0)
    assert (hierarchical.run, hierarchical.title) == (None, "fig1-hierarchical")
    with pytest.raises(ValueError, match="the figures are 1, 8, 9, 10; got 2"):
        panels_of_figure("2", [])


def test_runs_as_the_paper_s_come_before_others_and_others_are_told(runs, tmp_path):
    Run(tmp_path / "b", asdict(experiment("fig9", {"seed": "3"}))).record(step=0, error=1.0, norms={"0,1": [1.0]}, singular={})
    Run(tmp_path / "a", asdict(experiment("fig9", {"ranks": "6"}))).record(step=0, error=1.0, norms={"0,1": [1.0]}, singular={})
    found = find_runs(tmp_path)
    assert [changed(run) for run in found] == [["ranks=6"], []]
    (panel,) = panels_of_figure("9", found)
    assert (panel.run.config["seed"], panel.title) == (3, "local components at {0,1}")
    (panel,) = panels_of_figure("9", found[:1])
    assert panel.title == "local components at {0,1}\nwith ranks=6"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_figures_are_written(runs, tmp_path, suffix):
    path = tmp_path / f"figure{suffix}"
    draw(panels_of_figure("1", find_runs(runs)), path)
    assert path.stat().st_size > 5000


def test_curves_are_the_records(runs):
    run = find_runs(runs)[1]
    panel = panels_of_run(run)[0]
    axes = Figure().subplots()
    plotting._panel(axes, panel)
    assert len(axes.lines) == 6  # as many as there are components
    assert list(axes.lines[1].get_xdata()) == [0, 20, 40]
    assert list(axes.lines[1].get_ydata()) == [record["norms"]["0,1,2"][1] for record in run.records]


def test_a_sweep_has_a_panel_for_every_folder_in_rows(runs, tmp_path, monkeypatch):
    folders = [runs / name for name in ("fig1-tensor 1", "fig1-matrix 0", "absent", "fig1-tensor 0")]
    panels = panels_of_sweep(folders, find_runs(runs))
    assert [panel.title.splitlines() for panel in panels] == [
        ["fig1-tensor 1", "component norms"],
        ["fig1-matrix 0", "singular values"],
        ["absent"],
        ["fig1-tensor 0", "component norms"],
    ]
    assert [panel.run and panel.run.config["seed"] for panel in panels] == [1, 0, None, 0]
    drawn = []
    monkeypatch.setattr(plotting, "_panel", lambda axes, panel: drawn.append((axes.get_subplotspec().rowspan.start, panel)))
    draw(panels, tmp_path / "sweep.png", columns=2)
    assert drawn == list(zip([0, 0, 1, 1], panels))


def test_missing_runs_are_said_in_the_figure(runs):
    axes = Figure().subplots()
    plotting._panel(axes, panels_of_figure("9", find_runs(runs))[0])
    assert [text.get_text() for text in axes.texts] == ["no run of fig9"]


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a figure is written as \.png, \.svg, \.pdf; got 'figure\.gif'"):
        draw([], tmp_path / "figure.gif")
