from __future__ import annotations

from pathlib import Path

import pytest

from cnn_reg.config import Config, as_dict, from_dict
from cnn_reg.results.listings import read_listings
from cnn_reg.results.named import FIGURES, expected_runs, figure_charts, folder_charts
from cnn_reg.results.records import Record
from cnn_reg.sweeps.grid import Grid
from cnn_reg.sweeps.grids import named_grid
from cnn_reg.sweeps.paper import NAMES
from cnn_reg.sweeps.search import trial_config
from cnn_reg.sweeps.sweep import write_listing


def done(config, accuracy=0.5):
    return Record(Path("a"), "finished", config=from_dict(as_dict(config)), version="0.1.0", test_accuracy=accuracy, train_accuracy=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_from_the_runs_of_its_sweep(name, tmp_path):
    runs = named_grid(name, "small").labelled()
    write_listing(tmp_path / "sweep", named_grid(name, "small"), runs)
    records = [done(config) for _, config in runs[:-1]]
    (chart,) = figure_charts(name, tmp_path, records)
    points = [point for line in chart.lines for point in line.points]
    assert sum(len(point.accuracies) for point in points) == len(runs) - 1
    assert f"Missing: 1 of {len(runs)} runs (1 not begun)." in chart.notes
    assert any(point.published for point in points) == (name == "fig6-pathfinder")  # digits are not the paper's pictures


def test_without_a_list_it_is_the_size_of_which_most_is_there(tmp_path):
    for scale in ("full", "medium", "small"):
        runs = named_grid("fig11-pathfinder", scale).labelled()
        (chart,) = figure_charts("fig11-pathfinder", tmp_path, [done(runs[0][1])])
        assert f"Missing: {len(runs) - 1} of {len(runs)} runs ({len(runs) - 1} not begun)." in chart.notes


def test_the_sweep_s_own_list_counts(tmp_path):
    grid = named_grid("fig6-pathfinder", "small").override({"seed": (7,), "path_length": (5,)})
    write_listing(tmp_path, grid, grid.labelled())
    write_listing(tmp_path / "other", Grid("seeds"), Grid("seeds").labelled())
    expected = expected_runs("fig6-pathfinder", tmp_path, [])
    assert [as_dict(config) for _, config in expected] == [as_dict(config) for config in grid.configs()]
    assert len(expected_runs("fig11-pathfinder", tmp_path, [])) == len(named_grid("fig11-pathfinder").configs())


def test_any_runs(tmp_path):
    records = [done(Config(seed=seed), 0.5 + seed / 10) for seed in (0, 1)]
    (chart,) = figure_charts("runs", tmp_path, records)
    assert chart.lines[0].points[0].accuracies == (0.5, 0.6)


def test_unknown_figures(tmp_path):
    with pytest.raises(ValueError, match=r"unknown figure 'fig6-pathfindr' \(did you mean fig6-pathfinder\?\)"):
        figure_charts("fig6-pathfindr", tmp_path, [])
    assert FIGURES[-1] == "runs"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"name": "a", "runs": [1]}', '{"name": "a", "runs": [{"variant": "", "fields": {"colour": 1}}]}']
)
def test_a_damaged_list_is_left_out_with_a_warning(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    write_listing(tmp_path / "b", Grid("seeds"), Grid("seeds").labelled())
    with pytest.warns(UserWarning, match=r"a sweep's list of runs is left out: .*sweep\.json"):
        listings = read_listings(tmp_path)
    assert [listing.name for listing in listings] == ["seeds"]


def test_a_folder_s_charts_are_those_of_its_sweeps(tmp_path):
    grid = named_grid("fig6-pathfinder", "small")
    write_listing(tmp_path, grid, grid.labelled())
    stray = done(Config(dataset="same-class"))
    records = [stray, *(done(config) for config in grid.configs())]
    charts = folder_charts(tmp_path, records)
    assert [chart.title.partition(":")[0] for chart in charts] == ["Pathfinder, resnet18", "Is Same Class, CIFAR10, resnet18"]
    assert charts[0].lines[0].points[0].published == 0.983
    assert charts[1].lines[0].points[0].accuracies == (0.5,)
    assert figure_charts("runs", tmp_path, records) == charts


def test_a_search_that_is_not_over_has_no_chart_yet(tmp_path):
    grid = named_grid("fig12-pathfinder", "small")
    trial = trial_config(grid, grid.variants[0], {"weight_decay": 0.01})
    write_listing(tmp_path, grid, [], [(grid.variants[0].name, trial)])
    assert folder_charts(tmp_path, [done(trial)]) == []
    (chart,) = figure_charts("fig12-pathfinder", tmp_path, [done(trial)])
    assert chart.title.endswith("no finished run")
    assert chart.notes[-1] == "Missing: 16 of 16 runs (16 not begun)."  # of the list's size
