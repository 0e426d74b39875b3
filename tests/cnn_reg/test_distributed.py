from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cnn_reg.training.distributed import Processes
from tensornet.files.runs import Run

ROOT = Path(__file__).parent.parent.parent


def trained(folder, size, accumulate, dropout=0.0, stop=0):
    """State and records of a training by a number of gloo processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    program = [sys.executable, str(ROOT / "tests" / "distributed_program.py"), str(folder), str(accumulate), str(dropout), str(stop)]
    started = [
        subprocess.Popen(program, env={**os.environ, **shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * size, errors
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


@pytest.mark.parametrize(("count", "size", "accumulate"), [(16, 2, 2), (7, 3, 2), (2, 4, 1), (1, 1, 1)])
def test_parts_are_a_partition(count, size, accumulate):
    parts = [part for rank in range(size) for part in Processes(rank, size).parts(torch.arange(count), accumulate)]
    assert torch.equal(torch.cat(parts), torch.arange(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_sends_nothing():
    layer = nn.BatchNorm2d(2)
    alone = Processes()
    alone.sum_gradients(list(layer.parameters()))
    alone.average_buffers(layer)
    assert layer.weight.grad is None
    assert (alone.any(True), alone.any(False), alone.gather(3)) == (True, False, [3])
