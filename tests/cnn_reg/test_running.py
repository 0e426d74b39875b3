from __future__ import annotations

import pytest
import torch
from sweep_cases import make_grid

from cnn_reg.config import Config, preset
from cnn_reg.training.loop import InterruptedTrainingError
from cnn_reg.training.running import Watch, folder_name, full_run, run_config
from tensornet.files.storage import read_json


def test_a_run_tells_how_it_goes_and_is_interrupted_and_resumed(tmp_path):
    config = make_grid(seeds=1, epochs=2).configs()[0]
    said, steps, epochs, started = [], [], [], []
    watch = Watch(said.append, started.append, lambda trainer: steps.append((trainer.epoch, trainer.step)), epochs.append)
    with pytest.raises(InterruptedTrainingError):
        run_config(config, tmp_path / "run", watch=watch, stopping=lambda: len(steps) == 4)
    assert steps == [(0, 1), (0, 2), (0, 3), (1, 1)]
    with pytest.raises(ValueError, match="holds a run already"):
        run_config(config, tmp_path / "run")
    summary = run_config(config, tmp_path / "run", resume=True, watch=watch)
    assert steps[4:] == [(1, 2), (1, 3)]
    assert "continued after epoch 1, step 1 of 3" in said
    assert ([record["epoch"] for record in epochs], len(started)) == ([1, 2], 2)
    assert summary == read_json(tmp_path / "run" / "summary.json")
    assert run_config(config, tmp_path / "run", resume=True, watch=watch) == summary
    assert said[-1] == f"{tmp_path / 'run'} is complete."
    assert len(started) == 2


def test_a_run_leaves_the_random_numbers_as_they_were(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_config(make_grid(seeds=1, epochs=1).configs()[0], tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_names_tell_what_is_trained_and_never_collide():
    names = [folder_name(config) for config in (Config(), Config(seed=1), Config(weight_decay=0.1), preset("quick", model="a:b"))]
    assert len(set(names)) == 4
    assert names[3].startswith("pathfinder-3-a.b-coefficient-1-seed-0-")
    same = folder_name(Config(dataset="same-class", source="digits", distance=40, coefficient=0.1))
    assert same.startswith("same-class-digits-40-resnet18-coefficient-0.1-seed-0-")


def test_the_full_run_of_a_stand_in_names_it():
    assert full_run(Config(dataset="same-class", source="digits")) == (
        "cnn-reg train --preset paper --dataset same-class --distance 160 --source digits --model resnet18 --device cuda"
    )
