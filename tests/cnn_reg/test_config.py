from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from cnn_reg.config import FIELDS, PRESETS, Config, as_dict, parse_field, preset, run_id


def test_the_paper_s_recipe_is_the_default():
    config = preset("paper")
    recipe = ("learning_rate", "momentum", "weight_decay", "batch_size", "epochs", "patience", "patch_size", "train_images", "test_images")
    assert [getattr(config, name) for name in recipe] == [0.01, 0.9, 0.0, 64, 150, 20, 2, 10000, 10000]
    assert (config.image_size, config.accumulate, config.width, config.penalty_every) == (150, 1, 1.0, 1)
    assert config == Config()


def test_the_paper_s_recipe_of_is_same_class_and_resnet34():
    config = preset("paper", dataset="same-class", model="resnet34")
    assert (config.train_images, config.test_images, config.image_size, config.batch_size, config.accumulate) == (5000, 10000, 224, 64, 2)
    assert preset("paper", dataset="same-class", train_images=7).train_images == 7


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("changes", [{}, {"dataset": "same-class"}, {"model": "resnet34"}, {"coefficient": 0.0}])
def test_presets_are_valid_whatever_they_are_for(name, changes):
    assert isinstance(preset(name, **changes), Config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "same_class"}, r"unknown dataset 'same_class' \(did you mean same-class\?\); choose from pathfinder, same-class"),
        (
            {"model": "resnet43"},
            r"unknown model 'resnet43' \(did you mean resnet34\?\); choose from resnet18, resnet34 or package",
        ),
        ({"path_length": 2}, "path_length must be from 3 to 20; got 2"),
        ({"dataset": "same-class", "distance": 161}, "distance must be from 0 to 160; got 161"),
        ({"dataset": "same-class", "matched": True}, "matched is for pathfinder"),
        ({"patch_size": 90}, "patch_size must be at most half of image_size; got 90 for 150"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"learning_rate": 0}, "learning_rate must be above 0; got 0"),
        ({"momentum": 1}, "momentum must be at least 0 and below 1.0; got 1"),
        ({"coefficient": float("nan")}, "coefficient must be at least 0 and finite; got nan"),
        ({"compile": True}, "compile needs coefficient 0"),
        ({"batch_size": 4, "accumulate": 3}, "the penalty needs at least 2 images in a part of a batch"),
        ({"batch_size": 4, "accumulate": 5}, "accumulate cannot exceed batch_size; got 5 parts of 4 images"),
        ({"precision": "float16"}, r"unknown precision 'float16' \(did you mean bfloat16\?\)"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        Config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1.5}, "epochs must be an integer; got 1.5"),
        ({"tf32": 1}, "tf32 must be true or false; got 1 of type int"),
        ({"source": 3}, "source must be a text; got 3"),
        ({"dropout": "much"}, "dropout must be a number"),
    ],
)
def test_bad_types(changes, message):
    with pytest.raises(TypeError, match=message):
        Config(**changes)


def test_unknown_fields_and_values_that_do_not_parse():
    with pytest.raises(ValueError, match=r"unknown field 'momentun' \(did you mean momentum\?\)"):
        parse_field("momentun=1")
    with pytest.raises(ValueError, match=r"unknown field 'epoch' \(did you mean epochs\?\)"):
        preset("quick", epoch=3)
    with pytest.raises(ValueError, match="epochs must be an integer; got 'many'"):
        parse_field("epochs=many")
    with pytest.raises(ValueError, match="tf32 must be true or false; got 'yes'"):
        parse_field("tf32=yes")
    with pytest.raises(ValueError, match="a field is set as name=value; got 'epochs'"):
        parse_field("epochs")


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_written_and_read(name):
    value = getattr(Config(), name)
    assert parse_field(f"{name}={str(value).lower() if isinstance(value, bool) else value}") == (name, value)


def test_the_id_depends_on_what_matters_and_on_nothing_else():
    base = run_id(Config(), "1")
    assert run_id(Config(distance=3, source="digits"), "1") == base  # of the other data set
    assert run_id(Config(coefficient=9), "1") == base  # as an integer
    others = [
        run_id(Config(), "2"),
        *(run_id(Config(**{name: value}), "1") for name, value in [("seed", 1), ("epochs", 3), ("path_length", 9)]),
    ]
    assert len({base, *others}) == 5
    code = "from cnn_reg.config import *; print(run_id(Config(), '1'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == base


def test_a_configuration_is_read_back_from_what_a_folder_keeps():
    config = preset("study", seed=4)
    assert Config(**as_dict(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        config.seed = 5
