from __future__ import annotations

import errno

import pytest
import torch
from filelock import FileLock
from sweep_cases import epochs_of, make_jobs

from cnn_reg.sweeps.jobs import LOCK, Place, State, died, failure_of, perform, state_of
from cnn_reg.training.running import Watch
from tensornet import __version__
from tensornet.files.runs import Run
from tensornet.files.storage import read_json, write_json


def never() -> bool:
    return False


def stop_after(steps):
    """A question that says yes after so many steps."""
    asked = []

    def stopping():
        asked.append(None)
        return len(asked) > steps

    return stopping


def test_a_job_is_waiting_then_interrupted_then_done(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1)
    assert state_of(job.folder) is State.WAITING
    assert perform(job, Place(), lambda: True).state is State.WAITING
    assert not job.folder.exists()
    assert perform(job, Place(), stop_after(2)).state is State.INTERRUPTED
    assert state_of(job.folder) is State.INTERRUPTED
    assert perform(job, Place(), never).state is State.DONE
    assert state_of(job.folder) is State.DONE
    assert read_json(job.folder / "summary.json")["epochs"] == 2


def test_a_job_that_is_done_is_left_alone(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1, epochs=1)
    perform(job, Place(), never)
    before = {path.name: path.stat().st_mtime_ns for path in job.folder.iterdir() if path.name != LOCK}
    assert perform(job, Place(), never).state is State.DONE
    assert {path.name: path.stat().st_mtime_ns for path in job.folder.iterdir() if path.name != LOCK} == before


def test_a_job_that_another_process_is_doing_is_left_alone(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1, epochs=1)
    job.folder.mkdir(parents=True)
    with FileLock(job.folder / LOCK):
        assert perform(job, Place(), never).state is State.RUNNING
        assert state_of(job.folder) is State.RUNNING
        assert died(job, "killed").state is State.RUNNING
    assert [path.name for path in job.folder.iterdir() if path.name != LOCK] == []
    assert perform(job, Place(), never).state is State.DONE


def test_the_file_of_a_lock_that_nobody_holds_is_no_lock(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1, epochs=1)
    job.folder.mkdir(parents=True)
    (job.folder / LOCK).touch()  # as a killed process leaves it
    assert state_of(job.folder) is State.WAITING
    assert perform(job, Place(), never).state is State.DONE


def test_a_failure_is_recorded_and_the_job_tried_again(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1, learning_rate=1e30)
    outcome = perform(job, Place(), never)
    assert outcome.state is State.FAILED
    assert outcome.reason.startswith("DivergedError: the training loss of epoch 1 is nan")
    known = failure_of(job.folder)
    assert known["reason"] == outcome.reason
    assert "Traceback" in known["traceback"]
    assert state_of(job.folder) is State.FAILED
    assert perform(job, Place(), stop_after(1)).state is State.INTERRUPTED
    assert state_of(job.folder) is State.INTERRUPTED  # the failure is history


def test_a_disk_that_is_full_is_a_failure(tmp_path, monkeypatch):
    (job,) = make_jobs(tmp_path, seeds=1, epochs=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "checkpoint", full)
        patched.setattr("cnn_reg.sweeps.jobs.write_json", full)
        outcome = perform(job, Place(), never)
    assert outcome.state is State.FAILED
    assert "No space left on device" in outcome.reason
    assert state_of(job.folder) is State.INTERRUPTED  # not even the failure could be written
    assert perform(job, Place(), never).state is State.DONE


class OddError(Exception):
    """Of no kind that programs usually raise."""


def test_whatever_a_run_raises_is_a_failure(tmp_path, monkeypatch):
    (job,) = make_jobs(tmp_path, seeds=1)

    def fail(*_: object, **__: object) -> None:
        raise OddError("no")

    def sticky() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr("cnn_reg.sweeps.jobs.run_config", fail)
    monkeypatch.setattr(torch.cuda, "empty_cache", sticky)
    assert perform(job, Place(), never).reason == failure_of(job.folder)["reason"] == "OddError: no"


def test_a_folder_of_another_run_is_refused(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1)
    job.folder.mkdir(parents=True)
    write_json(job.folder / "config.json", {"version": "0.0.1"})
    outcome = perform(job, Place(), never)
    assert outcome.state is State.FAILED
    assert f"version = '0.0.1', got {__version__!r}" in outcome.reason
    assert read_json(job.folder / "config.json") == {"version": "0.0.1"}


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path):
    (tmp_path / "file").touch()
    (job,) = make_jobs(tmp_path / "file", seeds=1)
    outcome = perform(job, Place(), never)
    assert outcome.state is State.FAILED
    assert outcome.reason.startswith("NotADirectoryError: ")
    assert died(job, "killed").state is State.FAILED


def test_a_job_has_its_threads_and_leaves_those_of_the_process(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1, epochs=1)
    before, seen = torch.get_num_threads(), []
    perform(job, Place("cpu", before + 1), never, Watch(on_start=lambda _: seen.append(torch.get_num_threads())))
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


@pytest.mark.gpu
def test_a_job_on_a_gpu(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1, epochs=1)
    assert perform(job, Place("cuda:0"), never).state is State.DONE
    assert epochs_of(job.folder) == 1


def test_images_are_made_once_a_sweep(tmp_path):
    jobs = make_jobs(tmp_path, seeds=2, epochs=1)
    perform(jobs[0], Place(), never)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").glob("*.safetensors")}
    perform(jobs[1], Place(), never)
    assert len(made) == 1
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "images").glob("*.safetensors")} == made
