"""The entries of a step: all of them, random batches, shares of processes, resuming; nothing but what is needed is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tensornet import ModeTree, TensorCompleter, make_shape
from tensornet.completion import batches as module
from tensornet.completion.batches import Streamed
from tensornet.completion.sources import MemoryEntries
from tensornet.completion.survey import survey
from tensornet.distributed import ALONE, Processes
from tensornet.files import entries as files

INDICES = np.stack([np.arange(1000), np.arange(1000) % 7], 1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 32)


class Counting(MemoryEntries):
    """Counts how often a block is read."""

    def __init__(self, indices, values):
        super().__init__(indices, values)
        self.reads = []

    def read(self, block):
        self.reads.append(block)
        return super().read(block)


def streamed(batch_size, *, processes=ALONE, share=0.1, source=None, seed=0):
    source = source or MemoryEntries(INDICES, np.arange(1000) / 8)
    found = survey(source, share=share, seed=1, sizes=None, processes=ALONE)
    shape = make_shape(ModeTree.star(2), found.sizes, 1)
    return Streamed(shape, source, found, batch_size, seed=seed, processes=processes, dtype=torch.float64), found


def rows(batches, step, found):
    """First indices of the entries of a step; the values fit to them."""
    seen = []
    for indices, values in batches.parts(step):
        assert torch.allclose(values * found.scale + found.offset, indices[:, 0].double() / 8, rtol=1e-12)
        seen += indices[:, 0].tolist()
    return seen


@pytest.mark.parametrize("part", [64, 10**6])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("batch_size", [None, 50, 7, 3000])
def test_a_pass_has_all_entries_but_those_held_out_once(batch_size, size, part, monkeypatch):
    monkeypatch.setattr(module, "LEAST", 1)
    monkeypatch.setattr(module, "MOST", part)
    made = [streamed(batch_size, processes=Processes(rank, size)) for rank in range(size)]
    steps = 1 if batch_size is None else -(-900 // batch_size)
    seen = []
    for step in range(steps):
        mine = [rows(batches, step, found) for batches, found in made]
        assert sum(map(len, mine)) == made[0][0].size(step)
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
        seen += [place for part in mine for place in part]
        assert all(len(values) <= part for batches, _ in made for _, values in batches.parts(step))
    assert sorted(seen) == sorted(set(range(1000)) - set(made[0][1].held_out.tolist()))


def test_a_step_is_the_same_whatever_was_read_before():
    (going, found), (jumping, _) = streamed(50), streamed(50)
    for step in range(29):
        rows(going, step, found)
    assert rows(going, 29, found) == rows(jumping, 29, found)


def test_a_block_is_read_once_a_pass():
    source = Counting(INDICES, np.arange(1000) / 8)
    batches, found = streamed(50, source=source)
    source.reads.clear()
    for step in range(18):
        rows(batches, step, found)
    assert sorted(source.reads) == list(range(32))
    assert not batches._open


@pytest.mark.parametrize("size", [2, 3])
def test_reading_is_divided_among_processes(size):
    sources = [Counting(INDICES, np.arange(1000) / 8) for _ in range(size)]
    made = [streamed(90, source=source, processes=Processes(rank, size)) for rank, source in enumerate(sources)]
    for source, (batches, found) in zip(sources, made):
        source.reads.clear()
        for step in range(10):
            rows(batches, step, found)
    assert max(len(source.reads) for source in sources) < 32  # of blocks
    assert sum(len(source.reads) for source in sources) < 1.5 * 32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint64])
@pytest.mark.parametrize("batch_size", [None, 40])
def test_batches_of_all_entries_learn_as_in_memory(dtype, batch_size):
    rng = np.random.default_rng(0)
    indices = rng.integers(0, (6, 5, 4), (400, 3))
    values = np.sin(indices.sum(1))

    class Own:
        """A source of a user, with blocks of any length."""

        order, edges = 3, np.array([0, 3, 3, 250, 400])

        def read(self, block):
            places = slice(self.edges[block], self.edges[block + 1])
            return indices[places].astype(dtype), values[places]

    made = {"smooth": None, "ranks": 4, "steps": 150, "lr": 0.05, "weight_decay": 0.01, "dtype": torch.float64, "batch_size": batch_size}
    own, memory = TensorCompleter(**made).fit(Own()), TensorCompleter(**made).fit(indices, values)
    if batch_size is None:
        assert torch.allclose(own.complete(), memory.complete(), rtol=1e-9, atol=1e-9)
    for completer in (own, memory):
        assert completer.score(indices, values) > 0.9


def test_resumed_in_the_middle_of_a_pass():
    states = []
    indices, values = INDICES % 9, np.sin(INDICES.sum(1) % 9)
    made = {"smooth": None, "ranks": 2, "steps": 60, "batch_size": 70}
    whole = TensorCompleter(**made).fit(indices, values, callback=lambda progress: states.append(progress.state))
    resumed = TensorCompleter(**made).fit(indices, values, state=states[33])
    assert torch.equal(whole.complete(), resumed.complete())
    assert whole.history_ == resumed.history_


def test_the_loss_of_a_record_is_the_mean_over_batches_since_the_last():
    indices, values = INDICES % 9, np.sin(INDICES.sum(1) % 9)
    made = {"smooth": None, "ranks": 2, "validation": 0.0, "lr": 0.0, "weight_decay": 0.0}
    often, rarely = (TensorCompleter(**made, batch_size=100, steps=steps, patience=300).fit(indices, values) for steps in (200, 100))
    losses = [record["loss"] for record in rarely.history_]
    assert [record["step"] for record in often.history_][:3] == [2, 4, 6]
    for place, record in enumerate(often.history_[:50]):
        assert record["loss"] == pytest.approx(np.mean(losses[2 * place : 2 * place + 2]), rel=1e-5)


@pytest.mark.parametrize(("batch_size", "error"), [(0, ValueError), (2.5, TypeError), ("all", TypeError)])
def test_bad_sizes(batch_size, error):
    with pytest.raises(error, match="batch_size must be "):
        TensorCompleter(batch_size=batch_size).fit([[0, 0]], [1.0])
