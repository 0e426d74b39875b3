from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import pytest

from cnn_reg.config import Config, preset
from cnn_reg.results.charts import make_charts
from cnn_reg.results.records import Record
from tensornet import __version__


def done(config, accuracy, *, folder="a", version=__version__, alone=None):
    return Record(
        Path(folder), "finished", config=config, version=version, test_accuracy=accuracy, train_accuracy=1.0, distance_accuracy=alone
    )


def grid(**more):
    """Path lengths 5, 7 x coefficients 0, 3 x three seeds."""
    return [
        Config(path_length=length, coefficient=coefficient, seed=seed, **more)
        for seed, length, coefficient in itertools.product(range(3), (5, 7), (0.0, 3.0))
    ]


def accuracy(config):
    return 0.5 + config.coefficient / 30 + config.seed**2 / 100 - config.path_length / 1000


def test_means_and_deviations_are_those_of_the_seeds():
    (chart,) = make_charts([done(config, accuracy(config)) for config in grid()])
    assert chart.title == "Pathfinder, resnet18: mean and standard deviation over 3 seeds"
    assert chart.axis == "path_length"
    assert [line.label for line in chart.lines] == ["coefficient 0", "coefficient 3"]
    for line, coefficient in zip(chart.lines, (0.0, 3.0)):
        assert [point.x for point in line.points] == [5, 7]
        for point in line.points:
            each = [accuracy(Config(path_length=int(point.x), coefficient=coefficient, seed=seed)) for seed in range(3)]
            assert point.accuracies == tuple(each)
            assert point.mean == pytest.approx(sum(each) / 3)
            assert point.deviation == pytest.approx((sum((one - sum(each) / 3) ** 2 for one in each) / 2) ** 0.5)
    assert chart.notes == ()


def test_the_order_of_the_records_does_not_matter():
    runs = [done(config, accuracy(config)) for config in grid()]
    assert make_charts(runs) == make_charts(runs[::-1])


def test_one_seed_has_no_deviation():
    (chart,) = make_charts([done(config, 0.5) for config in grid() if config.seed == 0])
    assert chart.title == "Pathfinder, resnet18: 1 seed"
    assert chart.lines[0].points[0].deviation is None


def test_missing_runs_are_counted_with_their_reasons():
    configs = grid()
    runs = [done(config, accuracy(config)) for config in configs[:9]]
    runs += [Record(Path("f"), "failed", "out of memory", configs[9]), Record(Path("u"), "unfinished", config=configs[10])]
    runs += [Record(Path("x"), "unreadable", "damaged")]
    (chart,) = make_charts(runs, [("", config) for config in configs])
    assert chart.notes == ("Missing: 3 of 12 runs (1 failed, 1 unfinished, 1 not begun).", "Failed 1 time: out of memory")
    assert sum(point.missing for line in chart.lines for point in line.points) == 3
    assert chart.title.endswith("over 2 to 3 seeds")


def test_a_point_without_finished_runs():
    configs = grid()
    (chart,) = make_charts([Record(Path("u"), "unfinished", config=config) for config in configs])
    assert chart.title == "Pathfinder, resnet18: no finished run"
    assert (chart.lines[0].points[0].mean, chart.lines[0].points[0].missing) == (None, 3)


def test_runs_beside_the_sweep_are_left_out():
    runs = [done(config, accuracy(config)) for config in grid()]
    others = [done(Config(path_length=9, coefficient=3.0, seed=7), 0.9), done(Config(dataset="same-class"), 0.9)]
    assert make_charts(runs + others, [("", config) for config in grid()]) == make_charts(runs)


def test_a_sweep_s_configurations_may_have_fields_that_do_not_matter():
    listed = preset("study", dataset="same-class")
    read = Config(**{**vars(listed), "path_length": 7})
    assert listed.path_length != read.path_length  # of which Is Same Class has none
    (chart,) = make_charts([done(read, 0.5)], [("", listed)])
    assert chart.lines[0].points[0].accuracies == (0.5,)


def test_copies_count_once_and_are_told():
    runs = [done(config, accuracy(config)) for config in grid()]
    (chart,) = make_charts([*runs, done(grid()[0], 0.99, folder="copy")])
    assert chart.lines == make_charts(runs)[0].lines
    assert chart.notes == ("1 further run of a configuration that is finished already not counted.",)


def test_runs_of_other_versions_are_told():
    (chart,) = make_charts([done(Config(), 0.5, version="0.0.9"), done(Config(seed=1), 0.5)])
    assert chart.notes == ("All runs: coefficient 9.", "Runs of version 0.0.9 are among them.")
    (chart,) = make_charts([done(Config(), 0.5, version="0.0.9"), done(Config(), 0.75)])
    assert chart.lines[0].points[0].accuracies == (0.75,)
    assert not any("0.0.9" in note for note in chart.notes)  # what is not counted is not among them


def test_runs_on_other_images_are_no_seeds():
    (chart,) = make_charts([done(Config(seed=seed, data_seed=data), 0.5) for seed in (0, 1) for data in (0, 1)])
    assert chart.title == "Pathfinder, resnet18: mean and standard deviation over 4 runs"


def test_variants_keep_their_names_and_order():
    base = Config(coefficient=0.0)
    listed = [("weight decay", Config(coefficient=0.0, weight_decay=0.001, path_length=length)) for length in (5, 7)] + [
        ("dropout and penalty", Config(coefficient=9.0, dropout=0.3, path_length=length)) for length in (5, 7)
    ]
    (chart,) = make_charts([done(base, 0.5)], listed)
    assert [line.label for line in chart.lines] == [
        "weight decay (coefficient 0, weight decay 0.001)",
        "dropout and penalty (dropout 0.3, coefficient 9)",
    ]


def test_other_fields_become_lines_and_the_axis_is_what_varies():
    runs = [done(Config(coefficient=coefficient, width=width), 0.5) for coefficient in (0.0, 1.0, 3.0) for width in (0.5, 1.0)]
    (chart,) = make_charts(runs)
    assert chart.axis == "coefficient"
    assert [(line.label, [point.x for point in line.points]) for line in chart.lines] == [
        ("width 0.5", [0.0, 1.0, 3.0]),
        ("width 1", [0.0, 1.0, 3.0]),
    ]


def test_a_single_run_is_a_point():
    (chart,) = make_charts([done(Config(dataset="same-class"), 0.5)])
    assert (chart.axis, len(chart.lines), chart.lines[0].label, chart.lines[0].points[0].x) == ("distance", 1, "all runs", 160)


def test_a_chart_for_each_data_set_source_and_network():
    configs = [
        Config(),
        Config(dataset="same-class"),
        Config(dataset="same-class", source="digits"),
        Config(model="resnet34"),
        Config(matched=True),
    ]
    titles = [chart.title.partition(":")[0] for chart in make_charts([done(config, 0.5) for config in configs])]
    assert titles == [
        "Pathfinder, resnet18",
        "Is Same Class, CIFAR10, resnet18",
        "Is Same Class, digits (not CIFAR10), resnet18",
        "Pathfinder, resnet34",
        "Pathfinder, distances matched, resnet18",
    ]


def test_where_the_recipe_is_not_the_paper_s():
    (chart,) = make_charts([done(config, 0.5) for config in grid(width=0.25, train_images=4000, channels_last=True)])
    assert chart.notes == ("Not the paper's recipe: train images 4000, width 0.25, channels last.",)


def test_what_all_runs_have_in_common_is_told():
    runs = [done(Config(coefficient=coefficient, dropout=0.3, path_length=9), 0.5) for coefficient in (0.0, 3.0)]
    assert make_charts(runs)[0].notes == ("All runs: path length 9, dropout 0.3.",)


def test_a_network_of_one_s_own():
    (chart,) = make_charts([done(Config(model="torchvision.models:resnet50"), 0.5)])
    assert chart.title == "Pathfinder, torchvision.models:resnet50: 1 seed"


def test_published_accuracies_only_where_asked_for_and_known():
    runs = [done(config, 0.5) for config in grid()]
    (chart,) = make_charts(runs, published=True)
    assert [[point.published for point in line.points] for line in chart.lines] == [[0.96, 0.687], [0.967, 0.898]]
    assert "the paper's Figure 6" in chart.notes[0]
    (plain,) = make_charts(runs)
    assert {point.published for line in plain.lines for point in line.points} == {None}
    (other,) = make_charts([done(config, 0.5) for config in grid(model="resnet34", accumulate=2)], published=True)
    assert {point.published for line in other.lines for point in line.points} == {None}
    assert not other.notes


def test_the_distance_alone_is_a_mean_over_runs():
    runs = [done(Config(seed=seed), 0.5, alone=alone) for seed, alone in enumerate((0.8, 0.9, None))]
    assert make_charts(runs)[0].lines[0].points[0].distance_accuracy == pytest.approx(statistics.fmean([0.8, 0.9]))


def test_without_runs_there_is_no_figure():
    with pytest.raises(ValueError, match="a figure needs at least one run"):
        make_charts([Record(Path("x"), "unreadable", "damaged")])
