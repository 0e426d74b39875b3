from __future__ import annotations

import pytest
from sweep_cases import make_jobs

from cnn_reg.config import Config
from cnn_reg.sweeps.costs import PENALIZED, PLAIN, Rates, epochs_done, forward_operations, measured, operations
from tensornet.files.storage import write_json


def test_a_convolution_and_a_product_are_counted():
    count = forward_operations("resnet18", 1.0, 3, 224)
    assert 2 * 1.81e9 < count < 2 * 1.82e9  # 1.81e9 multiplications with an addition each: torchvision's table says 1.81 GFLOPS
    assert forward_operations("resnet34", 1.0, 3, 224) == pytest.approx(2 * 3.66e9, rel=0.01)
    quarter = forward_operations("resnet18", 0.25, 3, 224)
    assert count / 16 < quarter < count / 12  # the first layer shrinks by a factor of 4 only


def test_what_a_run_costs():
    config = Config(train_images=100, test_images=10, validation_images=5, epochs=3)
    once = forward_operations("resnet18", 1.0, 1, 150)
    assert operations(config) == once * (100 * PENALIZED + 15) * 3
    assert operations(config, epochs=1) * 3 == operations(config)
    assert operations(Config(**{**vars(config), "coefficient": 0.0})) == once * (100 * PLAIN + 15) * 3


def test_rates_are_those_of_finished_runs_with_and_without_the_penalty_apart(tmp_path):
    runs = []
    for coefficient, seconds in ((0.0, 1.0), (0.0, 5.0), (0.0, 2.0), (1.0, 80.0)):
        (job,) = make_jobs(tmp_path / f"{seconds}", seeds=1, epochs=2, coefficient=coefficient)
        job.folder.mkdir(parents=True)
        write_json(job.folder / "summary.json", {"training_seconds": seconds, "epochs": 2})
        runs.append((job.config, job.folder))
    rates = measured(runs)
    assert rates.seconds(runs[0][0]) == pytest.approx(2.0)
    assert rates.seconds(runs[3][0], epochs=1) == pytest.approx(40.0)
    assert Rates(None, 1e-9).seconds(runs[0][0]) == pytest.approx(1e-9 * operations(runs[0][0]))  # better than nothing


def test_epochs_of_a_run_that_goes_on(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert epochs_done(tmp_path) == 2
