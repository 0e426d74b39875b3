from __future__ import annotations

import contextlib
import importlib.util
import sys
from types import SimpleNamespace

import pytest

from cnn_reg.training import trackers

RECORD = {"epoch": 3, "train_loss": 0.5, "penalty": None, "cosine_quantiles": [0.1]}


def test_weights_and_biases_gets_the_numbers_of_each_epoch(monkeypatch, tmp_path):
    given, logged = {}, []

    @contextlib.contextmanager
    def init(**settings):
        given.update(settings)
        yield SimpleNamespace(log=lambda values, step: logged.append((step, values)))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with trackers.wandb(tmp_path, "project", "id", {"seed": 1}) as track:
        track(RECORD)
    assert (given["project"], given["id"], given["resume"], given["config"]) == ("project", "id", "allow", {"seed": 1})
    assert logged == [(3, {"train_loss": 0.5})]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_a_package_that_is_not_installed_is_named(tmp_path):
    with (
        pytest.raises(ModuleNotFoundError, match="tensorboard"),
        trackers.tensorboard(tmp_path),
    ):
        pass
