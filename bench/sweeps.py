"""``python -m bench.sweeps``: what a sweep adds to the training of a run, in seconds of processor time and of the clock.

Images are those of the sweep fig6-pathfinder at scale small, and every run is one epoch of a network with hardly any channels, so that
what is around the training can be told from it. Processor time does not count what else the machine does meanwhile; the clock does.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import psutil
import torch

from bench.hardware import describe
from cnn_reg.sweeps.grids import named_grid
from cnn_reg.sweeps.jobs import Job, Place, State, perform
from cnn_reg.sweeps.pool import local_processes
from cnn_reg.training.running import Watch


def here(job: Job) -> tuple[float, float, float]:
    """Processor time and time of the clock around the training, and processor time of the training, of a run in this process."""
    marks = [(time.process_time(), time.perf_counter())]

    def mark(_: object) -> None:
        marks.append((time.process_time(), time.perf_counter()))

    outcome = perform(job, Place("cpu", 1), lambda: False, Watch(on_start=mark, on_epoch=mark))
    assert outcome.state is State.DONE, outcome.reason
    mark(None)
    (begin, start), (from_here, first), (to_here, last), (end, stop) = marks
    return end - begin - (to_here - from_here), stop - start - (last - first), to_here - from_here


def elsewhere(jobs: list[Job]) -> list[float]:
    """Processor time of the process that does the jobs and of this one, a job."""
    used = [0.0]
    with local_processes([Place("cpu", 1)]) as execute:
        begin = time.process_time()
        for job in jobs:
            (outcome,) = execute([job], lambda: False)
            assert outcome.state is State.DONE, outcome.reason
            (worker,) = (child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline()))
            used.append(sum(worker.cpu_times()[:2]) + time.process_time() - begin)
    return [now - before for before, now in zip(used, used[1:])]


def together(jobs: list[Job], workers: int) -> float:
    """Seconds of the clock that so many local processes take for the jobs, the first of each left out, with which it starts."""
    with local_processes([Place("cpu", 1)] * workers) as execute:
        assert all(outcome.state is State.DONE for outcome in execute(jobs[:workers], lambda: False))
        start = time.perf_counter()
        assert all(outcome.state is State.DONE for outcome in execute(jobs[workers:], lambda: False))
        return time.perf_counter() - start


def main() -> None:
    """Prints a line a kind of executor, and how much faster two processes are than one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4, help="of each kind")
    count = parser.parse_args().runs
    torch.set_num_threads(1)
    config = dataclasses.replace(named_grid("fig6-pathfinder", "small").configs()[0], epochs=1, width=0.02)
    print(describe(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(dataclasses.replace(config, seed=seed), Path(folder)) for seed in range(2 * count)]
        around, clock, trained = zip(*map(here, jobs[:count]))
        print("in this process, images made in the first run and read in the others:")
        print(f"  processor {_row(around)}\n  clock     {_row(clock)}")
        least = min(trained)
        print("in a local process, which the first run starts:")
        print(f"  processor {_row([total - least for total in elsewhere(jobs[count:])])}, beside the least training above, {least:.2f}")
        thin = dataclasses.replace(config, width=0.25, train_images=1000)
        seconds = []
        for workers in (1, 2, 1, 2):
            seeds = range(100 * len(seconds), 100 * len(seconds) + 6 + workers)
            seconds.append(together([Job(dataclasses.replace(thin, seed=seed), Path(folder)) for seed in seeds], workers))
        one, two = sum(seconds[::2]), sum(seconds[1::2])
        print("six runs of a thin network, one epoch of 1000 images, seconds of the clock by one, two, one and two processes:")
        print(f"  {_row(seconds)}: two are {one / two:.2f} times as fast")


def _row(seconds: list[float] | tuple[float, ...]) -> str:
    return "  ".join(f"{value:.2f}" for value in seconds)


if __name__ == "__main__":
    main()
