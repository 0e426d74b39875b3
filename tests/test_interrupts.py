from __future__ import annotations

import signal
import threading

import pytest

from tensornet.interrupts import SIGNALS, signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_handlers_are_put_back(number):
    before = {known: signal.getsignal(known) for known in SIGNALS}
    with signals() as arrived:
        assert arrived() == 0
        signal.raise_signal(number)
        assert arrived() == number
        assert signal.getsignal(number) == before[number]  # a second one acts as ever
    assert {known: signal.getsignal(known) for known in SIGNALS} == before


def test_outside_the_main_thread_nothing_is_handled():
    found = []

    def ask():
        with signals() as arrived:
            found.append(arrived())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [0]
