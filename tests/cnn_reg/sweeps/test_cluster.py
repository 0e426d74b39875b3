from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from sweep_cases import grid_file, make_jobs, results

from cnn_reg.sweeps.cluster import ray_cluster
from cnn_reg.sweeps.executors import in_process
from cnn_reg.sweeps.jobs import LOCK, Place

ROOT = Path(__file__).parents[3]
EPOCHS = 12


def run_program(event, folder, seeds, epochs):
    """What the program prints, whole and as data."""
    grid = grid_file(folder / "grid.toml", seeds=seeds, epochs=epochs)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(ROOT / "tests" / "cluster_program.py"), event, str(grid), str(folder / "out"), str(seeds), str(epochs)]
    done = subprocess.run(program, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(next(text for text in done.stdout.splitlines() if text.startswith("{")))


@pytest.mark.slow
def test_ctrl_c_leaves_checkpoints_and_what_waits_for_a_node_waiting(tmp_path):
    shown, found = run_program("interrupted", tmp_path, seeds=4, epochs=2000)
    assert found["code"] == 130
    assert "4 runs, 2 interrupted, 2 waiting" in shown


@pytest.mark.slow
def test_a_node_that_dies_in_the_middle_of_its_run_changes_nothing(tmp_path):
    """Two nodes with one run each; one is lost, and its run goes on, on the other, to the bits of runs that nothing happened to."""
    shown, found = run_program("lost", tmp_path, seeds=2, epochs=EPOCHS)
    assert found["code"] == 0, shown
    assert all(2 <= epochs < EPOCHS for epochs in found["lost"]), "the node was lost too late"
    assert min(found["least"]) >= 1, "a run began anew"
    assert "2 runs, 2 done" in shown
    jobs = make_jobs(tmp_path / "alone", seeds=2, epochs=EPOCHS)
    list(in_process(Place("cpu", 1))(jobs, lambda: False))
    assert results(jobs, tmp_path / "out") == results(jobs, tmp_path / "alone")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"no Ray cluster answers at 127.0.0.1:1 \(Connection refused\)"),
        ("no-such-host.invalid:6379", r"no Ray cluster answers at no-such-host.invalid:6379 \(.*\)"),
        ("auto", r"no Ray cluster answers at auto \(.*\)"),
    ],
)
def test_a_cluster_that_is_not_there_is_an_error_within_seconds(address, message, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    start = time.monotonic()
    with pytest.raises(OSError, match=message) as caught, ray_cluster(address):
        pass
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("address", ["somewhere", "host:", "ray://host:10001", ""])
def test_an_address_that_is_none(address):
    with pytest.raises(ValueError, match=re.escape(f"a Ray cluster's address is auto or host:port; got {address!r}")), ray_cluster(address):
        pass


def test_something_else_that_listens_is_no_cluster(monkeypatch):
    monkeypatch.setattr("cnn_reg.sweeps.cluster.PATIENCE", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(OSError, match=f"no Ray cluster answers at {address} .what listens there says nothing"), ray_cluster(address):
            pass
    assert time.monotonic() - start < 30


class Stub:
    """As much of Ray as a driver sees of a cluster on which nothing gets resources."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self, gpus: float) -> None:
        self.gpus, self.asked, self.cancelled = gpus, {}, []

    def init(self, **_: object) -> None:
        pass

    shutdown = init

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": self.gpus} if self.gpus else {}

    def nodes(self) -> list[dict[str, object]]:
        return [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": self.gpus}}]

    def remote(self, **asked: float) -> object:
        self.asked = asked
        return lambda _: SimpleNamespace(remote=lambda job, *_: job.folder.name)

    def wait(self, references: list[str], timeout: float, num_returns: int = 1) -> tuple[list[str], list[str]]:
        if self.cancelled:
            self.ending(num_returns)
            return references, []
        time.sleep(timeout / 10)
        return [], references

    def cancel(self, reference: str) -> None:
        self.cancelled.append(reference)


@pytest.fixture
def stub(monkeypatch):
    """Connects to such a cluster."""
    monkeypatch.setattr("cnn_reg.sweeps.cluster._check_address", lambda _: None)

    def connect(gpus=2.0):
        found = Stub(gpus)
        monkeypatch.setitem(sys.modules, "ray", found)
        return found

    return connect


def test_runs_that_wait_for_resources_do_not_hold_up_the_end(stub, tmp_path):
    ray, jobs, begun, ended = stub(), make_jobs(tmp_path, seeds=2), [], []
    ray.ending = lambda count: ended.append((count, len(list(tmp_path.glob(".stop-*")))))
    jobs[0].folder.mkdir(parents=True)
    lock = FileLock(jobs[0].folder / LOCK, thread_local=False)
    lock.acquire()  # this one goes on, for a while

    def stopping():
        begun.append(time.monotonic())
        if len(begun) == 6:
            lock.release()
        return True

    with ray_cluster("auto") as execute:
        assert list(execute(jobs, stopping)) == []
    assert len(begun) == 6
    assert sorted(ray.cancelled) == sorted(job.folder.name for job in jobs)
    assert ended == [(2, 1)], "a run that is just beginning finds no file any more that tells it to stop"
    assert not list(tmp_path.glob(".stop-*"))


@pytest.mark.parametrize(
    ("gpus", "options", "asked"), [(2.0, {}, 1.0), (0.0, {}, 0.0), (2.0, {"device": "cpu"}, 0.0), (2.0, {"per_device": 6}, 0.1666)]
)
def test_runs_ask_for_their_share_of_a_gpu(stub, gpus, options, asked):
    ray = stub(gpus)
    with ray_cluster("auto", **options):
        assert ray.asked["num_gpus"] == asked


def test_devices_that_a_cluster_does_not_have(stub):
    stub(0.0)
    with pytest.raises(ValueError, match="--device is auto, cpu, cuda; got 'cuda:1'"), ray_cluster("auto", device="cuda:1"):
        pass
    with pytest.raises(ValueError, match="--per-device is for GPUs"), ray_cluster("auto", per_device=2):
        pass
