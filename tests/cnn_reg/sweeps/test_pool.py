from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sweep_cases import epochs_of, grid_file, make_jobs, results

from cnn_reg.sweeps.executors import in_process
from cnn_reg.sweeps.jobs import LOCK, Place, State, failure_of, state_of
from cnn_reg.sweeps.pool import KILLED, local_processes
from tensornet.files.runs import CHECKPOINT, RECORDS

ROOT = Path(__file__).parents[3]
PLACES = [Place("cpu", 1), Place("cpu", 1)]


def children():
    """Processes that this one started and that compute."""
    return {process.pid for process in psutil.Process().children() if "spawn_main" in " ".join(process.cmdline())}


def wait_until(true, seconds=240.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def test_processes_live_on_between_jobs_and_give_what_this_process_gives(tmp_path):
    jobs, alone = make_jobs(tmp_path / "pool", seeds=4, epochs=1), make_jobs(tmp_path / "alone", seeds=4, epochs=1)
    with local_processes(PLACES) as execute:
        first = list(execute(jobs[:2], lambda: False))
        before = children()
        second = list(execute(jobs[2:], lambda: False))
        assert before == children()
        assert len(before) == 2
    assert {(outcome.job, outcome.state) for outcome in first + second} == {(job, State.DONE) for job in jobs}
    assert not children()
    list(in_process(Place("cpu", 1))(alone, lambda: False))
    assert results(jobs, tmp_path / "pool") == results(jobs, tmp_path / "alone")
    assert not list((tmp_path / "pool").glob(".stop-*"))


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_process_that_is_killed_takes_no_other_with_it(deaths, tmp_path):
    jobs = make_jobs(tmp_path, seeds=3, epochs=30)
    killed, records = [], []

    def stopping():  # asked again and again while jobs go on
        kept = (jobs[0].folder / CHECKPOINT).exists()  # written after the record of the first epoch
        if kept and len(killed) < deaths and epochs_of(jobs[0].folder) > 3 * len(killed):
            for process in map(psutil.Process, children() - set(killed)):
                with contextlib.suppress(psutil.Error):
                    if any(file.path == str(jobs[0].folder / LOCK) for file in process.open_files()):
                        records.append((jobs[0].folder / RECORDS).read_text().splitlines()[0])
                        process.kill()
                        killed.append(process.pid)
        return False

    with local_processes(PLACES) as execute:
        outcomes = {outcome.job: outcome for outcome in execute(jobs, stopping)}
    assert len(killed) == deaths
    assert (jobs[0].folder / RECORDS).read_text().startswith(records[0])  # with its time: the first epoch was made once
    assert [outcomes[job].state for job in jobs[1:]] == [State.DONE, State.DONE]
    if deaths == 1:  # it went on
        assert outcomes[jobs[0]].state is State.DONE
        return
    assert outcomes[jobs[0]].state is State.FAILED
    assert outcomes[jobs[0]].reason == failure_of(jobs[0].folder)["reason"] == KILLED
    assert 4 <= epochs_of(jobs[0].folder) < 30
    with local_processes(PLACES) as execute:
        assert [outcome.state for outcome in execute(jobs[:1], lambda: False)] == [State.DONE]
    assert epochs_of(jobs[0].folder) == 30
    assert state_of(jobs[0].folder) is State.DONE


def test_what_a_process_cannot_be_given_is_a_failure_of_the_run(tmp_path):
    bad, good = make_jobs(tmp_path, seeds=2, epochs=1)
    bad = replace(bad, data=lambda: None)  # which cannot be sent
    with local_processes(PLACES[:1]) as execute:
        outcomes = {outcome.job: outcome for outcome in execute([bad, good], lambda: False)}
    assert [outcomes[job].state for job in (bad, good)] == [State.FAILED, State.DONE]
    assert "pickle" in outcomes[bad].reason
    assert failure_of(bad.folder)["reason"] == outcomes[bad].reason


def test_a_process_whose_run_failed_on_a_gpu_is_replaced(tmp_path):
    jobs = make_jobs(tmp_path, seeds=2, epochs=1)
    with local_processes([Place("cuda:99", 1)]) as execute:
        before = []
        for outcome in execute(jobs, lambda: before.append(children()) and False):
            assert outcome.state is State.FAILED
        assert len({frozenset(pids) for pids in before if pids}) >= 2


def test_processes_that_are_asked_to_stop_write_checkpoints(tmp_path):
    jobs = make_jobs(tmp_path, seeds=3, epochs=1000)
    with local_processes(PLACES) as execute:
        outcomes = list(execute(jobs, lambda: all(epochs_of(job.folder) for job in jobs[:2])))
    assert {(outcome.job, outcome.state) for outcome in outcomes} == {(job, State.INTERRUPTED) for job in jobs[:2]}
    assert all((job.folder / "checkpoint.safetensors").exists() for job in jobs[:2])
    assert not jobs[2].folder.exists()


@pytest.mark.slow
def test_outcomes_that_nobody_asks_for_leave_nothing_running(tmp_path):
    jobs = [*make_jobs(tmp_path, seeds=1, epochs=1), *make_jobs(tmp_path, seeds=1, epochs=1000)]
    with local_processes(PLACES) as execute:
        outcomes = execute(jobs, lambda: False)
        assert next(outcomes).state is State.DONE
        outcomes.close()
    assert not children()
    assert state_of(jobs[1].folder) in (State.INTERRUPTED, State.WAITING)


@pytest.mark.slow
def test_processes_end_when_their_parent_is_killed(tmp_path):
    grid = grid_file(tmp_path / "grid.toml", seeds=2, epochs=1000)
    command = [sys.executable, "-m", "cnn_reg", "sweep", str(grid), "--out", str(tmp_path / "out"), "--workers", "2", "--threads", "1"]
    jobs = make_jobs(tmp_path / "out", seeds=2, epochs=1000)
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: all(epochs_of(job.folder) for job in jobs))
        workers = [process for process in psutil.Process(started.pid).children() if "spawn_main" in " ".join(process.cmdline())]
        assert len(workers) == 2
        started.send_signal(signal.SIGKILL)
        started.wait(10)
        wait_until(lambda: all(state_of(job.folder) is State.INTERRUPTED for job in jobs))  # nobody holds the locks any more
        before = [epochs_of(job.folder) for job in jobs]
        time.sleep(1)
        assert before == [epochs_of(job.folder) for job in jobs]
    finally:
        for process in (started, *workers):
            process.kill()
