"""Configurations: the paper's parameters, overriding fields, errors."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from tensornet.dynamics.experiments import EXPERIMENTS, Experiment, experiment, from_config


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("fig1-matrix", {"kind": "matrix", "depth": 3, "mode_sizes": (64, 64), "ranks": 64, "init_std": 0.001, "samples": 2048}),
        ("fig1-tensor", {"kind": "tensor", "mode_sizes": (16, 16, 16), "ranks": 256, "init_std": 0.001, "samples": 2048}),
        ("fig1-hierarchical", {"mode_sizes": (8, 8, 8, 8), "ranks": 512, "init_std": 0.01, "samples": 2048, "true_rank": 5}),
        ("fig9", {"task": "sensing", "ranks": 512, "init_std": 0.01, "samples": 2048, "true_rank": 5}),
        ("fig10", {"mode_sizes": (3,) * 9, "ranks": 100, "init_std": 0.1, "samples": 9840, "true_rank": 2}),
    ],
)
def test_the_papers_parameters(name, values):
    found = asdict(experiment(name))
    assert {key: found[key] for key in values} == values
    common = {"optimizer": "group_rmsprop", "lr": 0.01, "stop_loss": 5e-5, "stop_count": 100, "loss": "l2", "batch": 0, "noise": 0.0}
    assert {key: found[key] for key in common} == common


def test_figure_8_is_the_run_of_figure_1():
    assert asdict(experiment("fig8")) | {"name": ""} == asdict(experiment("fig1-hierarchical")) | {"name": ""}


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_configurations_survive_json_and_keep_their_names(name):
    import json

    assert from_config(json.loads(json.dumps(asdict(experiment(name))))) == experiment(name)
    assert experiment(name).name == name


def test_fields_are_overridden_in_their_types():
    found = experiment("fig8", {"ranks": "128", "init_std": "1", "tree": "(0,(1,2))", "mode_sizes": "3,4,5", "matricizations": "0,1"})
    assert (found.ranks, found.init_std, found.mode_sizes, found.matricizations) == (128, 1.0, (3, 4, 5), ((0, 1),))
    assert found.mode_tree.interior == ((1, 2), (0, 1, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": "3"}, r"unknown field 'rank' \(did you mean ranks\?\); choose from"),
        ({"name": "x"}, "unknown field 'name'"),
        ({"ranks": "many"}, "ranks must be like 512; got 'many'"),
        ({"ranks": "0"}, "ranks must be at least 1; got 0"),
        ({"mode_sizes": "8,8"}, "mode_sizes needs one size per mode; got 2 for 4 modes"),
        ({"matricizations": "0,1,2,3"}, "a matricization needs some, not all, of the modes 0 to 3"),
        ({"optimizer": "sgd"}, "optimizer must be one of group_rmsprop, gd, momentum, adam, flow; got 'sgd'"),
        ({"loss": "l3"}, "loss must be one of"),
        ({"tree": "((0,1),2"}, "a tree is written as nested parentheses"),
        ({"init_std": "nan"}, "init_std must be like"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        experiment("fig8", settings)


def test_unknown_names_and_configurations():
    with pytest.raises(ValueError, match=r"unknown experiment 'fig7' \(did you mean fig9\?\); choose from fig1-matrix"):
        experiment("fig7")
    with pytest.raises(ValueError, match="the configuration is none of an experiment"):
        from_config({"seed": 0})
    with pytest.raises(ValueError, match="depth must be at least 2; got 1"):
        Experiment("x", kind="matrix", mode_sizes=(4, 4), depth=1, matricizations=((0,),))
