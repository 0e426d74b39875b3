"""Jobs in processes of this machine, each with a device or a share of the cores of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from cnn_reg.sweeps.executors import LOOK, Executor, looking, stop_file
from cnn_reg.sweeps.jobs import Job, Outcome, Place, State, await_release, died, perform, reason_of
from tensornet.interrupts import signals

DEATHS = 1  # processes of a run that may die before it is recorded as failed
GRACE = 30.0  # seconds in which a worker whose parent is gone can write a checkpoint
KILLED = "its process died (killed, or out of memory)"


@contextlib.contextmanager
def local_processes(places: Sequence[Place]) -> Iterator[Executor]:
    """Processes that do jobs, one at each place, and live as long as the block, so that each imports what it needs once.

    Each is an executor of ``concurrent.futures`` of its own: one that dies takes no other with it, and it is known what it was doing.
    It is replaced, and its job goes on from its checkpoint; a job of which one more process dies is recorded as failed. One whose job
    failed on a GPU is replaced too, since some errors leave a process that cannot use the GPU any more. Where this process dies, the
    others write a checkpoint and end.

    Args:
        places: Devices, of which one may occur several times, and threads.

    Example:
        >>> with local_processes([Place("cpu", 1), Place("cpu", 1)]) as execute:
        ...     list(execute([], lambda: False))
        []
    """
    workers, deaths = [_worker() for _ in places], Counter[Job]()
    try:
        yield lambda jobs, stopping: _execute(jobs, stopping, places, workers, deaths)
    finally:
        for worker in workers:
            worker.shutdown(wait=True, cancel_futures=True)


def _worker() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def _execute(
    jobs: Sequence[Job],
    stopping: Callable[[], bool],
    places: Sequence[Place],
    workers: list[ProcessPoolExecutor],
    deaths: Counter[Job],
) -> Iterator[Outcome]:
    if not jobs:
        return
    waiting, idle = deque(jobs), deque(range(len(places)))
    running: dict[Future[Outcome], tuple[int, Job]] = {}
    stop = stop_file(jobs[0].root)
    try:
        while running or (waiting and not stopping()):
            while idle and waiting and not stopping():
                place, job = idle.popleft(), waiting.popleft()
                running[_submit(workers, place, job, places[place], stop)] = place, job
            if stopping():
                stop.touch()
            for future in wait(running, LOOK, FIRST_COMPLETED).done:
                place, job = running.pop(future)
                idle.append(place)
                error = future.exception()
                if isinstance(error, BrokenProcessPool) and deaths[job] < DEATHS:
                    deaths[job] += 1
                    await_release(job)
                    waiting.append(job)
                elif error is not None:
                    yield died(job, KILLED if isinstance(error, BrokenProcessPool) else reason_of(error))
                else:
                    outcome = future.result()
                    if outcome.state is State.FAILED and places[place].device != "cpu":
                        _replace(workers, place)
                    yield outcome
    finally:
        if running:  # whoever asks for outcomes asks no more
            stop.touch()
            wait(running)
        stop.unlink(missing_ok=True)


def _submit(workers: list[ProcessPoolExecutor], place: int, job: Job, where: Place, stop: Path) -> Future[Outcome]:
    try:
        return workers[place].submit(_work, job, where, stop)
    except BrokenProcessPool:  # it died since its last job
        _replace(workers, place)
        return workers[place].submit(_work, job, where, stop)


def _replace(workers: list[ProcessPoolExecutor], place: int) -> None:
    workers[place].shutdown()
    workers[place] = _worker()


def _work(job: Job, place: Place, stop: Path) -> Outcome:
    parent = multiprocessing.parent_process()
    asked = looking(lambda: stop.exists() or not (parent and parent.is_alive()))
    with signals() as arrived:
        return perform(job, place, lambda: bool(arrived()) or asked())


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one tells the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(GRACE)
        os._exit(1)
