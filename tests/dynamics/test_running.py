"""Runs in folders: files, Ctrl-C, and a run that is killed at a random point and ends in the same bits when resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tensornet.dynamics.experiments import experiment
from tensornet.dynamics.running import run_experiment
from tensornet.files.runs import read_records
from tensornet.files.storage import read_json, read_nested

SETTINGS = {"ranks": "8", "mode_sizes": "5,5,5", "samples": "80", "record_every": "10"}
KILLED = """
import sys
from tensornet.dynamics import running
from tensornet.dynamics.experiments import experiment
running.CHECKPOINT_SECONDS = 0.02
chosen = experiment("quick-tensor", {settings!r})
running.run_experiment(chosen, sys.argv[1], watch=lambda training, records: print(len(records), flush=True))
"""


def state(folder):
    return read_nested(folder / "checkpoint.safetensors", kind="checkpoint")["state"]


def test_a_run_leaves_its_files(tmp_path):
    training = run_experiment(experiment("quick-tensor", {**SETTINGS, "max_steps": "35"}), tmp_path / "run")
    assert training.ended == "max_steps"
    assert [record["step"] for record in read_records(tmp_path / "run" / "metrics.jsonl")] == [0, 10, 20, 30, 35]
    summary = read_json(tmp_path / "run" / "summary.json")
    assert (summary["ended"], summary["steps"], summary["true_ranks"]) == ("max_steps", 35, {"0": 3, "1": 3, "2": 3})
    with pytest.raises(ValueError, match="holds a run already"):
        run_experiment(experiment("quick-tensor"), tmp_path / "run")


def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    settings = {**SETTINGS, "max_steps": "3000", "stop_loss": "0"}
    whole = run_experiment(experiment("quick-tensor", settings), tmp_path / "whole")
    code = KILLED.format(settings=settings)
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # another number of threads gives other bits
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")], stdout=subprocess.PIPE, env=environment, text=True)
    point = 77  # of 301 records
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= point:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "killed" / "summary.json").exists(), f"it ended before record {point}"
    resumed = run_experiment(experiment("quick-tensor", settings), tmp_path / "killed", resume=True)
    assert resumed.step == whole.step == 3000
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
    for left, right in zip(state(tmp_path / "whole")["weights"], state(tmp_path / "killed")["weights"], strict=True):
        assert left.equal(right)


def test_ctrl_c_leaves_a_checkpoint_of_the_last_step(tmp_path):
    chosen = experiment("quick-tensor", {**SETTINGS, "max_steps": "200"})

    def interrupt(training, records):
        if len(records) == 4:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    before = signal.getsignal(signal.SIGINT)
    training = run_experiment(chosen, tmp_path / "run", watch=interrupt)
    assert training.ended == ""
    assert state(tmp_path / "run")["step"] == training.step == 31
    assert signal.getsignal(signal.SIGINT) is before
    assert run_experiment(chosen, tmp_path / "run", resume=True).ended == "max_steps"
    assert [record["step"] for record in read_records(tmp_path / "run" / "metrics.jsonl")] == list(range(0, 201, 10))
