from __future__ import annotations

import re
from itertools import product

import pytest

from cnn_reg.config import Config, preset
from cnn_reg.sweeps.grids import named_grid, parse_changes, read_grid
from cnn_reg.sweeps.paper import NAMES, SCALES


def test_figure_6_is_the_published_one():
    pathfinder = {(c.path_length, c.coefficient, c.seed) for c in named_grid("fig6-pathfinder").configs()}
    assert pathfinder == set(product((3, 5, 7, 9), (0.0, 3.0, 9.0), range(5)))
    same_class = {(c.distance, c.coefficient, c.seed) for c in named_grid("fig6-same-class").configs()}
    assert same_class == set(product((0, 40, 80, 120, 160), (0.0, 0.1, 1.0), range(5)))
    assert named_grid("fig6-pathfinder").configs()[0] == Config(path_length=3, coefficient=0.0)  # the published recipe
    config = named_grid("fig6-same-class").configs()[0]
    assert config == preset("paper", dataset="same-class", distance=0, coefficient=0.0)
    assert (config.source, config.train_images, config.model) == ("cifar10", 5000, "resnet18")


def test_figure_11_has_resnet34_and_path_length_11():
    configs = named_grid("fig11-pathfinder").configs()
    assert {config.path_length for config in configs} == {3, 5, 7, 9, 11}
    assert {(config.model, config.batch_size, config.accumulate) for config in configs} == {("resnet34", 64, 2)}
    assert len(configs) == len(named_grid("fig11-same-class").configs()) == 75


@pytest.mark.parametrize(("name", "place"), [("fig12-pathfinder", 9), ("fig13-pathfinder", 11), ("fig12-same-class", 160)])
def test_standard_techniques_are_tuned_at_the_largest_distance(name, place):
    grid = named_grid(name)
    assert {variant.name: sorted(variant.ranges) for variant in grid.variants} == {
        "weight decay": ["weight_decay"],
        "dropout": ["dropout"],
        "weight decay and penalty": ["coefficient", "weight_decay"],
        "dropout and penalty": ["coefficient", "dropout"],
    }
    assert place in grid.search.at.values()
    assert grid.search.at["data_seed"] not in {config.data_seed for config in grid.configs()}  # not on the figure's images
    assert all(config.coefficient == 0 for label, config in grid.labelled() if "penalty" not in label)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_sweep_has_every_size(name, scale):
    grid = named_grid(name, scale)
    configs = grid.configs()
    assert (grid.name, grid.scale) == (name, scale)
    assert {config.dataset for config in configs} == {name.partition("-")[2]}
    assert len(configs) == len({config.seed for config in configs}) * len([c for c in configs if c.seed == 0])
    stand_in = {config.source for config in configs} == {"digits"}
    assert stand_in == (name.endswith("same-class") and scale == "small")
    assert ("not CIFAR10" in grid.remark) == stand_in


def test_seeds_change_slowest_so_that_a_part_of_a_sweep_is_a_whole_figure():
    seeds = [config.seed for config in named_grid("fig6-pathfinder").configs()]
    assert seeds == sorted(seeds)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"unknown sweep 'fig6-pathfindr' \(did you mean fig6-pathfinder\?\)"):
        named_grid("fig6-pathfindr")
    with pytest.raises(ValueError, match=r"unknown scale 'smal' \(did you mean small\?\); choose from full, medium, small"):
        named_grid("fig6-pathfinder", "smal")


FILE = """
name = "decay"
preset = "quick"
note = "a try"

[base]
epochs = 20

[axes]
seed = [0, 1]
path_length = [5, 7]

[[variants]]
name = "plain"
coefficient = 0

[[variants]]
name = "weight decay"
coefficient = 0
weight_decay = { low = 1e-5, high = 1e-1, start = 1e-3 }

[search]
trials = 8
at = { path_length = 7, data_seed = 1 }
"""


def test_a_file_of_one_s_own(tmp_path):
    (tmp_path / "grid.toml").write_text(FILE)
    grid = read_grid(tmp_path / "grid.toml")
    assert (grid.name, grid.scale, grid.note, grid.search.trials) == ("decay", "own", "a try", 8)
    assert len(grid.configs()) == 8
    assert {config.weight_decay for config in grid.configs()} == {0.0, 1e-3}
    assert {(config.epochs, config.image_size) for config in grid.configs()} == {(20, 64)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[bas]\n", "unknown word 'bas' (did you mean base?); choose from name, scale, preset, base"),
        ("[base]\nepoch = 3\n", "unknown field 'epoch' (did you mean epochs?)"),
        ("[axes]\nsed = [3]\n", "unknown field 'sed' (did you mean seed?)"),
        ("[axes]\nseed = 3\n", "the axis seed needs a list of values; got 3"),
        ("[axes\n", "is no TOML file (Expected ']'"),
        ('scale = "small"\n', "a file describes one sweep; scale is for named ones"),
        ("[[variants]]\ncoefficient = 0\n", "a variant is a table with a name; got {'coefficient': 0}"),
        ('variants = ["a"]\n', "a variant is a table with a name; got 'a'"),
        ('[[variants]]\nname = "a"\nweight_decay = {lw = 1}\n', "weight_decay takes low, high, start, log; got lw"),
        ("[search]\ntrails = 3\n", "search takes trials, at; got trails"),
        ('[base]\nepochs = "3"\n', "epochs must be an integer; got '3' of type str"),
        ("base = 3\n", "base must be a table; got 3"),
        ("\ufffe", "unknown"),
    ],
)
def test_wrong_files_are_named_with_what_is_wrong(text, message, tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises((ValueError, TypeError), match=re.escape(message) if message != "unknown" else "is no TOML file") as caught:
        read_grid(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_grid(tmp_path / "none.toml")


def test_changes():
    assert parse_changes(["seed=0,1", "path-length=9", "matched=true,false", "source=digits"]) == {
        "seed": (0, 1),
        "path_length": (9,),
        "matched": (True, False),
        "source": ("digits",),
    }
    with pytest.raises(ValueError, match=r"unknown field 'sed' \(did you mean seed\?\)"):
        parse_changes(["sed=1"])
    with pytest.raises(ValueError, match="seed must be an integer; got 'x'"):
        parse_changes(["seed=1,x"])
    with pytest.raises(ValueError, match="seed is set twice; several values are written as seed=1,2"):
        parse_changes(["seed=1", "seed=2"])
    with pytest.raises(ValueError, match="a field is set as name=value; got 'seed'"):
        parse_changes(["seed"])
