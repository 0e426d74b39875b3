"""Processes that work together: parts, shares, sums, and what happens where one fails or ends."""

from __future__ import annotations

import pytest
import torch
from launching import finish, start
from torch import nn

from tensornet.distributed import Processes


@pytest.mark.parametrize(("count", "size", "accumulate"), [(16, 2, 2), (7, 3, 2), (2, 4, 1), (1, 1, 1)])
def test_parts_are_a_partition(count, size, accumulate):
    parts = [part for rank in range(size) for part in Processes(rank, size).parts(torch.arange(count), accumulate)]
    assert torch.equal(torch.cat(parts), torch.arange(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_sends_nothing():
    layer = nn.BatchNorm2d(2)
    alone = Processes()
    alone.sum_gradients(list(layer.parameters()))
    alone.average_buffers(layer)
    assert layer.weight.grad is None
    assert (alone.any(True), alone.any(False), alone.gather(3)) == (True, False, [3])


@pytest.mark.parametrize(("count", "size"), [(16, 2), (7, 3), (2, 4), (0, 2)])
def test_shares_are_a_partition(count, size):
    shares = [Processes(rank, size).share(count) for rank in range(size)]
    assert [place for share in shares for place in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_sums_are_the_same_bits_everywhere():
    ended = finish(start("processes_program.py", ["sum"], 3))
    assert {code for code, *_ in ended} == {0}, ended
    assert len({output for _, output, _ in ended}) == 1
    assert "[1.5, 3.0] (6+3j) [[0, 1, 2]]" in ended[0][1]


def test_an_error_in_one_process_is_one_in_all():
    ended = finish(start("processes_program.py", ["fail"], 3))
    assert [output.strip() for _, output, _ in ended] == [
        "OtherProcessError process 1 failed (ValueError: a bad part)",
        "ValueError a bad part",
        "OtherProcessError process 1 failed (ValueError: a bad part)",
    ]


def test_a_process_that_ends_is_missed():
    ended = finish(start("processes_program.py", ["end"], 2))
    assert ended[1][0] == 7
    assert "ProcessEndedError another of the 2 processes has ended, or cannot be reached" in ended[0][1]
