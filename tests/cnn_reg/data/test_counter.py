from __future__ import annotations

import numpy as np

from cnn_reg.data.counter import begin, below, uniform


def reference(state: int, count: int) -> list[int]:
    """Splitmix64 in Python's integers."""
    found = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        value = state
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(value ^ (value >> 31))
    return found


def test_agrees_with_the_published_sequence():
    stream = np.array([1234567], dtype=np.uint64)
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert reference(1234567, 3) == known
    assert [uniform(stream) for _ in known] == [(value >> 11) * 2.0**-53 for value in known]


def test_numbers_are_uniform():
    stream = np.zeros(1, dtype=np.uint64)
    begin(stream, (3, 7))
    counts = np.bincount([below(stream, 10) for _ in range(20_000)], minlength=10)
    chi = ((counts - 2000) ** 2 / 2000).sum()
    assert chi < 33.7  # the quantile 0.9999 for 9 degrees of freedom


def test_neighboring_keys_give_unrelated_streams():
    stream = np.zeros(1, dtype=np.uint64)
    first = []
    for key in range(2000):
        begin(stream, (0, key))
        first.append(uniform(stream))
    assert len(set(first)) == 2000
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / np.sqrt(2000)
    assert abs(np.mean(first) - 0.5) < 4 / np.sqrt(12 * 2000)


def test_the_order_of_a_key_matters():
    states = set()
    for key in [(1, 2), (2, 1), (0, 3)]:
        stream = np.zeros(1, dtype=np.uint64)
        begin(stream, key)
        states.add(int(stream[0]))
    assert len(states) == 3
