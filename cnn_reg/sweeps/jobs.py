"""One run of a sweep: its folder, what state it is in, and doing it so that nothing is lost and nothing done twice."""

from __future__ import annotations

import contextlib
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cnn_reg.config import Config
from cnn_reg.training.loop import InterruptedTrainingError
from cnn_reg.training.running import Watch, folder_name, run_config
from tensornet.checks import line
from tensornet.files.runs import CONFIG, SUMMARY
from tensornet.files.storage import read_json, write_json

LISTING, IMAGES = "sweep.json", "images"  # in a sweep's folder
FAILURE, LOCK = "failure.json", ".lock"  # in a run's folder
RELEASE = 5.0  # seconds after which a lock that a dead process had is free at the latest


class State(StrEnum):
    """Where a run stands."""

    DONE = "done"
    RUNNING = "running"  # in some process, here or elsewhere
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # it goes on from its last checkpoint
    WAITING = "waiting"


@dataclass(frozen=True)
class Job:
    """A configuration to train in the folder of a sweep.

    Args:
        config: What is trained.
        root: The sweep's folder.
        data: As of :func:`cnn_reg.tasks.make_task`.

    Example:
        >>> Job(Config(), Path("runs")).folder.parent
        PosixPath('runs')
    """

    config: Config
    root: Path
    data: Path | None = None

    @property
    def folder(self) -> Path:
        """The run's folder, named for the configuration and the code's version."""
        return self.root / folder_name(self.config)


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        job: Which one.
        state: Where its run stands now.
        reason: Why it failed.
        summary: Of a run that this job has completed.

    Example:
        >>> Outcome(Job(Config(), Path("runs")), State.DONE).reason
        ''
    """

    job: Job
    state: State
    reason: str = ""
    summary: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Place:
    """Where a run is computed.

    Args:
        device: As torch names it.
        threads: Of the processor, for operations of torch; as they are by default.

    Example:
        >>> Place("cuda:1").threads is None
        True
    """

    device: str = "cpu"
    threads: int | None = None


def state_of(folder: Path) -> State:
    """Where the run in a folder stands, from its files alone.

    Example:
        >>> state_of(Path("no such folder")).value
        'waiting'
    """
    if (folder / SUMMARY).exists():
        return State.DONE
    if (folder / LOCK).exists():
        try:
            with FileLock(folder / LOCK, blocking=False):
                pass
        except Timeout:
            return State.RUNNING
        except OSError:  # of a folder that is only to be read: who holds the lock cannot be asked
            pass
    if (folder / FAILURE).exists():
        return State.FAILED
    return State.INTERRUPTED if (folder / CONFIG).exists() else State.WAITING


def failure_of(folder: Path) -> dict[str, Any]:
    """What is known of a failed run: the ``reason`` in one line, the ``traceback``, ``host`` and ``time``; nothing for others.

    Example:
        >>> failure_of(Path("no such folder"))
        {}
    """
    found: dict[str, Any] = read_json(folder / FAILURE) if (folder / FAILURE).exists() else {}
    return found


def perform(job: Job, place: Place, stopping: Callable[[], bool], watch: Watch | None = None) -> Outcome:
    """Does a job, from where it was interrupted if it was, and says what became of it; a failure is recorded in the run's folder.

    A run that is done is left alone, and so is one that another process is doing: its lock, which the operating system keeps, ends with
    the process that has it.

    Args:
        job: What to do.
        place: Where to compute.
        stopping: Asked after every step; once it says yes, a checkpoint is written and the run interrupted.
        watch: Who is told how it goes.

    Example:
        >>> import tempfile
        >>> config = Config(train_images=8, test_images=4, image_size=32, width=0.1, batch_size=4, epochs=1)
        >>> job = Job(config, Path(tempfile.mkdtemp()))
        >>> perform(job, Place(), lambda: False).state.value, state_of(job.folder).value
        ('done', 'done')
    """
    if stopping():
        return Outcome(job, State.WAITING)
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(job.folder / LOCK, blocking=False), _threads(place.threads):
            return _perform(job, place, stopping, watch)
    except Timeout:
        return Outcome(job, State.RUNNING)
    except OSError as error:
        return Outcome(job, State.FAILED, reason_of(error))
    finally:
        with contextlib.suppress(RuntimeError):  # of a GPU that no longer answers
            torch.cuda.empty_cache()  # for other processes on the same GPU


def _perform(job: Job, place: Place, stopping: Callable[[], bool], watch: Watch | None) -> Outcome:
    (job.folder / FAILURE).unlink(missing_ok=True)
    device, data, images = place.device, job.data, job.root / IMAGES
    try:
        done = run_config(job.config, job.folder, device=device, data=data, cache=images, resume=True, watch=watch, stopping=stopping)
    except InterruptedTrainingError:
        return Outcome(job, State.INTERRUPTED)
    except Exception as error:  # noqa: BLE001, whatever a model or a library raises, the other runs go on
        _record(job, reason_of(error), traceback.format_exc())
        return Outcome(job, State.FAILED, reason_of(error))
    return Outcome(job, State.DONE, summary=done)


def reason_of(error: BaseException) -> str:
    """Why a run failed, in one line.

    Example:
        >>> reason_of(ValueError("no such data"))
        'ValueError: no such data'
    """
    return f"{type(error).__name__}: {line(error)}"


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def died(job: Job, reason: str) -> Outcome:
    """Records that the process which did a job is gone.

    Where another process has taken the run over meanwhile, it stands as that one says.

    Example:
        >>> import tempfile
        >>> job = Job(Config(), Path(tempfile.mkdtemp()))
        >>> died(job, "its process was killed").state.value, failure_of(job.folder)["reason"]
        ('failed', 'its process was killed')
    """
    with contextlib.suppress(OSError):
        job.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(job.folder / LOCK, timeout=RELEASE):
                _record(job, reason, "")
        except Timeout:
            return Outcome(job, State.RUNNING)
    return Outcome(job, State.FAILED, reason)


def await_release(job: Job) -> None:
    """Waits, not long, until the lock of a process that is gone is gone too.

    Example:
        >>> import tempfile
        >>> await_release(Job(Config(), Path(tempfile.mkdtemp())))
    """
    with contextlib.suppress(OSError, Timeout), FileLock(job.folder / LOCK, timeout=RELEASE):
        pass


def _record(job: Job, reason: str, trace: str) -> None:
    known = {"reason": reason, "traceback": trace, "host": socket.gethostname(), "time": datetime.now(UTC).isoformat(timespec="seconds")}
    with contextlib.suppress(OSError):  # on a full disk the outcome says what happened all the same
        write_json(job.folder / FAILURE, known)
