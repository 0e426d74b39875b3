from __future__ import annotations

import pytest
import torch

from cnn_reg.config import Config, as_dict, from_dict
from cnn_reg.networks import build_network
from cnn_reg.tasks import image_shape, make_task
from cnn_reg.trained import load_network, read_config
from tensornet.files.runs import Run
from tensornet.files.storage import write_json

SMALL = {"width": 0.125, "image_size": 32, "train_images": 4, "test_images": 4}


def checkpointed(folder, config, **network):
    run = Run(folder, {**as_dict(config), "version": "0"})
    channels, *size = image_shape(config)
    model = build_network("resnet18", channels, tuple(size), **{"width": config.width, "dropout": config.dropout, **network})
    run.checkpoint({"model": model.state_dict()})
    return model


@pytest.mark.parametrize("config", [Config(**SMALL), Config(dataset="same-class", source="digits", distance=40, dropout=0.5, **SMALL)])
def test_the_network_is_the_one_that_was_written(tmp_path, config):
    model = checkpointed(tmp_path / "run", config)
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoint.safetensors"):
        found = load_network(path)
        assert found.config == config
        assert all(torch.equal(value, found.network.state_dict()[name]) for name, value in model.state_dict().items())
    images = make_task(config).test.batch(torch.arange(2))
    assert torch.equal(model.eval()(images), found.network.eval()(images))


@pytest.mark.parametrize("config", [Config(**SMALL), Config(dataset="same-class", source="random", distance=40, **SMALL)])
def test_shape_of_images_without_making_any(config):
    data = make_task(config).train
    assert image_shape(config) == (data.channels, *data.image_size)


def test_weights_of_another_network_are_refused(tmp_path):
    checkpointed(tmp_path, Config(**SMALL), width=0.25)
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is not of the network resnet18 of its configuration"):
        load_network(tmp_path)


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    Run(tmp_path, {**as_dict(Config(**SMALL)), "version": "0"}).checkpoint({"step": 1})
    with pytest.raises(ValueError, match="is not of the network"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "config.json is no configuration of a training by cnn-reg"),
        ({"seed": 0}, "config.json is no configuration of a training by cnn-reg"),
        ({"version": "9", "colour": "red"}, r"config.json is no configuration of a training: unknown field 'colour' \(version '9'\)"),
        ({"version": "9", "epochs": "many"}, r"no configuration of a training: epochs must be an integer.*\(version '9'\)"),
        ({"version": "9", "dataset": "pathfnder"}, r"no configuration of a training: unknown dataset 'pathfnder'"),
    ],
)
def test_what_is_no_configuration(tmp_path, fields, message):
    write_json(tmp_path / "config.json", fields)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)


@pytest.mark.parametrize("config", [Config(seed=4), Config(dataset="same-class", distance=40, matched=False)])
def test_configurations_go_to_dictionaries_and_back(config):
    assert from_dict(as_dict(config)) == config


def test_only_dictionaries_are_configurations():
    with pytest.raises(ValueError, match=r"no configuration of a training: \[1\]"):
        from_dict([1])
