"""`tensornet complete` under torchrun: one output, Ctrl-C, a killed process, resuming, errors said once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tensornet import load
from tensornet.files.runs import read_records

ROOT = Path(__file__).parent.parent.parent
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
TORCHRUN = [*LAUNCHER, "--", "tensornet", "complete"]  # without --, torchrun takes --run for an option of its own
OPTIONS = ["--values", "values.npy", "--batch", "500", "--ranks", "4", "--steps", "3000", "--run", "run", "--out", "out.safetensors"]

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    indices = np.stack([rng.integers(0, size, 5000) for size in (9, 8, 7)], 1).astype(np.uint8)
    np.save(tmp_path / "indices.npy", indices)
    np.save(tmp_path / "values.npy", np.sin(indices.sum(1) / 3) + 0.1 * rng.normal(size=5000))
    return tmp_path


def begin(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen([*TORCHRUN, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(started):
    """Lines of the output and of the errors that the command itself wrote."""
    try:
        output, errors = started.communicate(timeout=240)
    finally:
        if started.poll() is None:
            for process in (*psutil.Process(started.pid).children(recursive=True), started):
                process.kill()
    return output, [line for line in errors.splitlines() if line.startswith("tensornet:")]


def when_recorded(folder, number, started):
    """Waits until there are so many records."""
    while len(read_records(folder / "run" / "metrics.jsonl")) < number:
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)


def learned(folder):
    completer = load(folder / "out.safetensors")
    return torch.cat([weight.reshape(-1) for weight in completer.htf_.weight_list()]), completer


def test_interrupted_killed_and_resumed_it_ends_in_the_same_bits(folder):
    output, errors = end(begin(folder, "indices.npy", *OPTIONS))
    assert errors == []
    assert output.count("5000 entries of 3 modes, left on the disk") == output.count("The result is in out.safetensors.") == 1
    whole, _ = learned(folder)
    (folder / "run").rename(folder / "whole")
    (folder / "out.safetensors").unlink()

    started = begin(folder, "indices.npy", *OPTIONS)  # Ctrl-C
    when_recorded(folder, 10, started)
    started.send_signal(signal.SIGINT)
    output, errors = end(started)
    assert errors == []
    assert output.count("Interrupted after") == output.count("The same command continues it.") == 1
    parts, completer = learned(folder)
    assert completer.interrupted_
    assert not torch.equal(parts, whole)
    assert np.isfinite(completer.predict([[0, 0, 0]]).item())

    started = begin(folder, "indices.npy", *OPTIONS)  # a process is killed
    when_recorded(folder, len(completer.history_) + 10, started)
    workers = [child for child in psutil.Process(started.pid).children() if "tensornet" in child.cmdline()]
    assert len(workers) == 2
    workers[1].kill()
    _, errors = end(started)
    assert started.returncode != 0
    assert len(errors) == 1
    assert errors[0].startswith("tensornet: error: another of the 2 processes has ended, or cannot be reached")

    _, errors = end(begin(folder, "indices.npy", *OPTIONS))
    assert errors == []
    assert torch.equal(learned(folder)[0], whole)
    assert (folder / "run" / "metrics.jsonl").read_text() == (folder / "whole" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.npy", *OPTIONS], "absent.npy: No such file or directory"),
        (["bad.npy", *OPTIONS], "indices must be from 0 to below the mode's size; got -1 for mode 1 in row 4000"),
        (["indices.npy", *OPTIONS[:-1], "absent/out.safetensors"], "the folder absent does not exist"),
        (["one.npy", "--values", "one-value.npy", *OPTIONS[2:]], "every process needs an entry to train on; got 1 for 2 processes"),
    ],
)
def test_errors_are_said_once(arguments, said, folder):
    bad = np.load(folder / "indices.npy").astype(np.int16)
    bad[4000, 1] = -1
    np.save(folder / "bad.npy", bad)
    np.save(folder / "one.npy", bad[:1])
    np.save(folder / "one-value.npy", np.ones(1))
    started = begin(folder, *arguments)
    _, errors = end(started)
    assert started.returncode != 0
    assert errors == [f"tensornet: error: {said}"]
    assert not list(folder.glob("*.safetensors"))


def test_an_array_in_memory(folder):
    waves = np.add.outer(np.sin(np.arange(30) / 3), np.cos(np.arange(20) / 4))
    holes = np.random.default_rng(0).random(waves.shape) < 0.3
    np.save(folder / "waves.npy", np.where(holes, np.nan, waves))
    output, errors = end(begin(folder, "waves.npy", "--out", "full.npy", "--steps", "200", "--ranks", "3"))
    assert errors == []
    assert output.count("The result is in full.npy.") == 1
    full = np.load(folder / "full.npy")
    assert np.array_equal(full[~holes], waves[~holes])
    assert np.square(full - waves)[holes].mean() < 0.1 * waves.var()
