"""Jobs on a Ray cluster whose nodes share the sweep's folder."""

from __future__ import annotations

import contextlib
import math
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cnn_reg.sweeps.executors import LOOK, Executor, looking, stop_file
from cnn_reg.sweeps.jobs import LISTING, Job, Outcome, Place, State, died, perform, state_of
from tensornet.checks import line

DEVICES = ("auto", "cpu", "cuda")
RETRIES = 5  # of a job whose node or process died
CONNECT, PATIENCE = 5.0, 15.0  # seconds for a connection, and for an answer of the cluster


@contextlib.contextmanager
def ray_cluster(address: str, *, device: str = "auto", per_device: int = 1, threads: int = 1) -> Iterator[Executor]:
    """A Ray cluster that does jobs, each on some node that has the resources.

    A job whose node or process dies is done again on another one, from its last checkpoint in the shared folder.

    Args:
        address: ``auto`` for the cluster that this machine belongs to, or ``host:port``.
        device: ``cuda``, ``cpu``, or ``auto``: GPUs where the cluster has any.
        per_device: Runs that share a GPU.
        threads: Cores for each run.

    Raises:
        OSError: Nothing answers at the address.
        ValueError: No node has the resources, the address is none, or the device is another, or has nothing to share.
        ModuleNotFoundError: Ray is not installed.

    Example:
        >>> with ray_cluster("127.0.0.1:1") as execute:
        ...     pass
        Traceback (most recent call last):
            ...
        OSError: no Ray cluster answers at 127.0.0.1:1 (Connection refused)
    """
    import ray

    if device not in DEVICES:
        raise ValueError(f"runs on a Ray cluster take whichever device is free; --device is {', '.join(DEVICES)}; got {device!r}")
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OSError(f"no Ray cluster answers at {address} ({line(error)[:200]})") from None
    try:
        cuda = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU"))
        if per_device > 1 and not cuda:
            raise ValueError("--per-device is for GPUs; runs on the CPUs of a Ray cluster share them by --threads")
        gpus = math.floor(1e4 / per_device) / 1e4 if cuda else 0.0  # Ray rounds to four digits, and a sixth of a GPU up
        _check_resources({"GPU": gpus, "CPU": float(threads)})
        remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)(_work)
        place = Place("cuda" if gpus else "cpu", threads)
        yield lambda jobs, stopping: _execute(jobs, stopping, lambda job, stop: remote.remote(job, place, stop))
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Asks whether a cluster answers, in a process that can be given up: where none does, Ray itself tries for minutes."""
    where = re.fullmatch(r"([^:/]+|\[[^\]]+\]):(\d+)", address)
    if address != "auto" and not where:
        raise ValueError(f"a Ray cluster's address is auto or host:port; got {address!r}")
    if where:
        try:
            socket.create_connection((where[1].strip("[]"), int(where[2])), CONNECT).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or line(error)
            raise OSError(f"no Ray cluster answers at {address} ({reason})") from None
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *(["--address", address] if where else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"no Ray cluster answers at {address} (what listens there says nothing for {PATIENCE:g} seconds)") from None
    if done.returncode:
        reason = line((done.stderr.strip() or "unhealthy").splitlines()[-1])
        raise OSError(f"no Ray cluster answers at {address} ({reason})")


def _check_resources(needed: dict[str, float]) -> None:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0.0) >= count for name, count in needed.items()) for node in nodes):
        wanted = " and ".join(f"{count:g} {name}" for name, count in needed.items() if count)
        raise ValueError(f"no node of the Ray cluster has the {wanted} that a run asks for; it has {len(nodes)} nodes")


def _execute(jobs: Sequence[Job], stopping: Callable[[], bool], submit: Callable[[Job, Path], Any]) -> Iterator[Outcome]:
    import ray

    if not jobs:
        return
    stop = stop_file(jobs[0].root)
    running = {submit(job, stop): job for job in jobs}
    try:
        while running:
            if stopping():
                stop.touch()
            for done in ray.wait(list(running), timeout=LOOK)[0]:
                job = running.pop(done)
                try:
                    yield ray.get(done)
                except ray.exceptions.RayError as error:
                    yield died(job, f"{type(error).__name__}: {line(error)[:300]}")
            if stop.exists() and not _going_on(running.values()):  # the others wait for nodes that may never be free
                return
    finally:
        if running:  # whoever asks for outcomes asks no more
            stop.touch()
            end = time.monotonic() + PATIENCE
            while _going_on(running.values()) and time.monotonic() < end:
                time.sleep(LOOK)
            for waiting in running:
                ray.cancel(waiting)
            ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)  # one that is just beginning must still find the file
        stop.unlink(missing_ok=True)


def _going_on(jobs: Iterable[Job]) -> bool:
    return any(state_of(job.folder) is State.RUNNING for job in jobs)


def _work(job: Job, place: Place, stop: Path) -> Outcome:
    if not (job.root / LISTING).exists():
        return Outcome(job, State.FAILED, f"{job.root} is no shared folder: {socket.gethostname()} does not see the sweep in it")
    return perform(job, place, looking(stop.exists))
