"""Training on another device than the CPU: nothing is left behind on the CPU, and a resumed run has the numbers of the CPU's."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_device import pretended_device

from cnn_reg.config import Config
from cnn_reg.locality_profile import locality_profile
from cnn_reg.networks import build_network
from cnn_reg.results.predictions import sample_predictions
from cnn_reg.tasks import make_task
from cnn_reg.training.loop import InterruptedTrainingError
from cnn_reg.training.running import Watch, run_config

SMALL = {"train_images": 8, "test_images": 4, "image_size": 32, "width": 0.1, "batch_size": 4, "epochs": 2, "observe_every": 1}
CHANGES: list[dict[str, Any]] = [
    {},
    {"coefficient": 0.0, "validation_images": 4},
    {"dropout": 0.5, "same_dropout": True, "permutation": "random"},
    {"batch_norm": "frozen", "pairs": 2, "momentum": 0.9},
    {"batch_norm": "eval", "cosine": "squared", "accumulate": 2},
    {"dataset": "same-class", "source": "digits", "distance": 10, "image_size": 96},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_training_goes_on_from_its_checkpoint(changes: dict[str, Any], tmp_path: Path) -> None:
    config = Config(**{**SMALL, **changes})
    expected: list[dict[str, Any]] = []
    run_config(config, tmp_path / "cpu", watch=Watch(on_epoch=expected.append))
    found: list[dict[str, Any]] = []
    watch, steps = Watch(on_epoch=found.append), itertools.count(1)
    with pretended_device() as device:
        with pytest.raises(InterruptedTrainingError):
            run_config(config, tmp_path / "run", device=device, watch=watch, stopping=lambda: next(steps) == 3)
        run_config(config, tmp_path / "run", device=device, watch=watch, resume=True)
    assert [record["epoch"] for record in found] == [1, 2]
    for own, other in zip(found, expected, strict=True):
        assert own.keys() == other.keys()
        for name in own.keys() - {"seconds", "images_per_second"}:
            torch.testing.assert_close(own[name], other[name], rtol=1e-3, atol=1e-4)


def test_locality_and_predictions() -> None:
    config = Config(**SMALL)
    network = build_network("resnet18", 1, 32, dropout=0.0, width=0.1).eval()
    expected = locality_profile("a network", network, make_task(config).test.batch(torch.arange(4)))
    with pretended_device() as device:
        images = make_task(config, None, device).test
        network.to(device)
        found = locality_profile("a network", network, images.batch(torch.arange(4, device=device)))
        assert found.pop("title") == expected.pop("title")
        torch.testing.assert_close(found, expected)
        right, wrong = sample_predictions(network, images)
        assert len(right) + len(wrong) == 4
