"""What executes the jobs of a sweep: the interface, this process, and how processes elsewhere are asked to stop."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cnn_reg.sweeps.jobs import Job, Outcome, Place, perform

LOOK = 0.5  # seconds between looks at what other processes may have written

Executor = Callable[[Sequence[Job], Callable[[], bool]], Iterator[Outcome]]
"""Does jobs, and yields what became of each in the order in which they end. Once the function that it is given says that it is time to
stop, those that are going on are interrupted, and the others left as they are: they have no outcome, or that they are waiting."""


def in_process(place: Place) -> Executor:
    """Does the jobs in this process, one after the other.

    Example:
        >>> import tempfile
        >>> from cnn_reg.config import Config
        >>> config = Config(train_images=8, test_images=4, image_size=32, width=0.1, batch_size=4, epochs=1)
        >>> jobs = [Job(config, Path(tempfile.mkdtemp()))]
        >>> [outcome.state.value for outcome in in_process(Place())(jobs, lambda: False)]
        ['done']
    """

    def execute(jobs: Sequence[Job], stopping: Callable[[], bool]) -> Iterator[Outcome]:
        for job in jobs:
            if stopping():
                return
            yield perform(job, place, stopping)

    return execute


def stop_file(root: Path) -> Path:
    """A new path in a sweep's folder; once there is a file, the processes that look for it stop. It works wherever the folder is shared.

    Example:
        >>> stop_file(Path("runs")).name.startswith(".stop-")
        True
    """
    return root / f".stop-{secrets.token_hex(4)}"


def looking(ask: Callable[[], bool], every: float = LOOK) -> Callable[[], bool]:
    """A question that is asked at most so often; in between the last answer stands.

    Example:
        >>> answers = iter([False, True])
        >>> question = looking(lambda: next(answers), every=60)
        >>> question(), question()
        (False, False)
    """
    last = [-float("inf"), False]

    def answer() -> bool:
        now = time.monotonic()
        if now - last[0] >= every:
            last[:] = now, ask()
        return bool(last[1])

    return answer
