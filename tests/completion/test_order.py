"""The order of batches: every entry once a pass, even batches, random, a function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest

from tensornet.completion.order import FEWEST, LANES, Order, Piece, shared
from tensornet.distributed import Processes


def places(order, pieces):
    """Blocks and places in them of the entries of pieces."""
    return [(piece.block, int(place)) for piece in pieces for place in order.permutation(piece)[piece.start : piece.stop]]


def random_orders():
    rng = np.random.default_rng(0)
    for seed in range(300):
        lengths = rng.integers(0, 30, rng.integers(1, 100))
        if lengths.sum():
            yield lengths, Order(lengths, int(rng.integers(1, 60)), seed), rng


def test_a_pass_has_every_entry_once_for_any_number_of_processes():
    for lengths, order, rng in random_orders():
        size, seen = int(rng.integers(1, 6)), []
        for step in range(order.steps, 2 * order.steps):
            pieces = order.pieces(step)
            count = sum(piece.stop - piece.start for piece in pieces)
            for rank in range(size):
                share = Processes(rank, size).share(count)
                mine = places(order, shared(pieces, share))
                assert len(mine) == len(share)
                seen += mine
        assert sorted(seen) == [(block, place) for block, length in enumerate(lengths) for place in range(length)]


def test_batches_are_even_and_never_empty():
    for lengths, order, _ in random_orders():
        sizes = [sum(piece.stop - piece.start for piece in order.pieces(step)) for step in range(order.steps)]
        mean = lengths.sum() / order.steps
        assert min(sizes) > 0
        assert max(abs(size - mean) for size in sizes) <= LANES


def test_a_batch_of_a_large_source_is_of_the_size_asked_for_and_mixes_many_blocks():
    order = Order([2**14] * 500, 10_000, seed=3)
    for step in (0, 17, order.steps - 1):
        pieces = order.pieces(step)
        assert sum(piece.stop - piece.start for piece in pieces) == pytest.approx(10_000, abs=LANES)
        assert len({piece.block for piece in pieces}) >= LANES
    assert len({piece.block for piece in Order([2**22] * 9, 10_000, seed=3).pieces(0)}) == FEWEST


def test_few_blocks_are_open_at_a_time():
    order = Order([2**14] * 500, 10_000, seed=3)
    unfinished, most = set(), 0
    for step in range(order.steps):
        for piece in order.pieces(step):
            unfinished.add(piece.block)
            if piece.stop == 2**14:
                unfinished.discard(piece.block)
        most = max(most, len(unfinished))
    assert most <= LANES


def test_seed_and_step_determine_a_batch():
    first, second = (Order([50, 70, 60], 20, seed=5) for _ in range(2))
    late = first.pieces(13)
    assert [first.pieces(step) for step in range(13)] == [second.pieces(step) for step in range(13)]
    assert second.pieces(13) == late
    assert places(first, late) == places(second, late)
    other = Order([50, 70, 60], 20, seed=6)
    assert places(other, other.pieces(13)) != places(first, late)


def test_passes_differ():
    order = Order([50, 70, 60], 20, seed=5)
    passes = [[place for step in range(order.steps) for place in places(order, order.pieces(turn * order.steps + step))] for turn in (0, 1)]
    assert sorted(passes[0]) == sorted(passes[1])
    assert passes[0] != passes[1]


def test_every_entry_is_as_likely_in_every_batch():
    """Counts over seeds of an entry in the first of 6 batches; tolerance: 4 standard deviations of a binomial number."""
    trials, counts = 600, np.zeros(18)
    for seed in range(trials):
        order = Order([7, 3, 8], 3, seed=seed)
        for block, place in places(order, order.pieces(0)):
            counts[[0, 7, 10][block] + place] += 1
    share = counts.sum() / counts.size / trials
    assert np.abs(counts / trials - share).max() < 4 * np.sqrt(share * (1 - share) / trials) + 0.03  # batches of 2 to 4 entries


def test_shares_keep_the_order():
    pieces = [Piece(0, 3, 2, 6), Piece(0, 1, 0, 0), Piece(0, 2, 5, 9)]
    assert shared(pieces, range(8)) == [pieces[0], pieces[2]]
    assert shared(pieces, range(3, 5)) == [Piece(0, 3, 5, 6), Piece(0, 2, 5, 6)]
    assert shared(pieces, range(4, 4)) == []
