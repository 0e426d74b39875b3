"""SIGTERM and SIGINT as a question that a loop asks after every step, so that it can write its state before it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """A function that returns the number of the signal that arrived during the block, or 0.

    The first signal is only noted; a second one ends the process as if nobody listened. Outside the main thread, where Python handles
    no signals, the function always returns 0.

    Example:
        >>> with signals() as arrived:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     arrived() == signal.SIGTERM
        True
    """
    noted = 0
    if threading.current_thread() is not threading.main_thread():
        yield lambda: noted
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        nonlocal noted
        noted = number
        restore()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield lambda: noted
    finally:
        restore()
