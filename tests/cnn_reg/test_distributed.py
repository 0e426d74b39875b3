from __future__ import annotations

import pytest
import torch
from launching import launch

from tensornet.files.runs import Run


def trained(folder, size, accumulate, dropout=0.0, stop=0):
    """State and records of a training by a number of gloo processes."""
    launch("distributed_program.py", [folder, accumulate, dropout, stop], size)
    run = Run(folder, {}, resume=True)
    return run.restore(), run.records()


def test_two_processes_train_as_one_with_twice_the_parts(tmp_path):
    one, one_records = trained(tmp_path / "one", 1, accumulate=2)
    two, two_records = trained(tmp_path / "two", 2, accumulate=1)
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # which each process moves by its own parts
    for name, value in one["model"].items():
        if not name.endswith(statistics):
            torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-6)
    for left, right in zip(one_records, two_records, strict=True):
        for name in ("train_loss", "train_accuracy", "penalty", "cosine"):
            assert left[name] == pytest.approx(right[name], rel=1e-4)
    assert torch.equal(one["order"], two["order"])


def test_two_processes_resume_to_the_same_bits(tmp_path):
    whole, records = trained(tmp_path / "whole", 2, 1, dropout=0.4)
    trained(tmp_path / "parts", 2, 1, dropout=0.4, stop=4)
    resumed, again = trained(tmp_path / "parts", 2, 1, dropout=0.4)
    assert all(torch.equal(value, resumed["model"][name]) for name, value in whole["model"].items())
    assert [record["train_loss"] for record in records] == [record["train_loss"] for record in again]
