"""Several processes that complete a tensor together: equal to one, equal to each other, interrupted together."""

from __future__ import annotations

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from launching import finish, launch, start

from tensornet.files.storage import read_nested

pytestmark = pytest.mark.slow

SIZES = (9, 8, 7)
KINDS = {
    "whole in memory": {"streamed": False, "parameters": {"steps": 12}},
    "whole from the disk": {"streamed": True, "parameters": {"steps": 12}},
    "batches from the disk": {"streamed": True, "parameters": {"steps": 25, "batch_size": 37}},
    "batches from a table": {"streamed": True, "table": True, "parameters": {"steps": 25, "batch_size": 37}},
    "complex batches in memory": {"streamed": False, "phase": True, "parameters": {"steps": 12, "batch_size": 37}},
}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    indices = np.stack([rng.integers(0, size, 211) for size in SIZES], 1).astype(np.uint8)
    np.save(tmp_path / "indices.npy", indices)
    values = np.sin(indices.sum(1) / 3) + 0.1 * rng.normal(size=211)
    np.save(tmp_path / "values.npy", values)
    table = pyarrow.table({**{f"mode{mode}": column for mode, column in enumerate(indices.T)}, "value": values})
    pyarrow.parquet.write_table(table, tmp_path / "entries.parquet", row_group_size=50)
    return tmp_path


def completed(folder, size, options):
    """The results of all processes."""
    launch("completion_program.py", [folder, json.dumps(options)], size)
    return [read_nested(folder / f"result-{rank}", kind="result") for rank in range(size)]


def flat(result):
    return torch.cat([weight.reshape(-1) for weight in result["weights"]])


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one_to_rounding_and_equal_each_other_to_the_bit(kind, folder):
    (one,) = completed(folder, 1, KINDS[kind])
    first, second = completed(folder, 2, KINDS[kind])
    assert torch.equal(flat(first), flat(second))
    assert first["history"] == second["history"]
    assert (first["offset"], first["scale"]) == (one["offset"], one["scale"])
    assert (flat(first) - flat(one)).norm() < 1e-12 * flat(one).norm()
    for ours, theirs in zip(first["history"], one["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("how", ["signal", "callback"])
def test_one_process_that_is_asked_to_stop_stops_all_and_they_resume_to_the_same_bits(how, folder):
    whole = completed(folder, 2, KINDS["batches from the disk"])
    stopped = completed(folder, 2, {**KINDS["batches from the disk"], "how": how, "step": 11})
    assert [result["interrupted"] for result in stopped] == [True, True]
    assert [len(result["history"]) for result in stopped] == [11, 11]
    resumed = completed(folder, 2, {**KINDS["batches from the disk"], "resume": True})
    for ours, theirs in zip(resumed, whole):
        assert torch.equal(flat(ours), flat(theirs))
        assert ours["history"] == theirs["history"]


def test_a_process_that_ends_ends_the_others_with_one_clear_line(folder):
    ended = finish(start("completion_program.py", [folder, json.dumps({**KINDS["batches from the disk"], "how": "end", "step": 5})], 2))
    assert (ended[0][0], ended[1][0]) == (1, 7)
    assert "ProcessEndedError: another of the 2 processes has ended" in ended[0][2].splitlines()[-1]


def test_more_processes_than_entries(folder):
    np.save(folder / "indices.npy", np.array([[0, 0, 1]], np.uint8))
    np.save(folder / "values.npy", np.array([1.0]))
    ended = finish(start("completion_program.py", [folder, json.dumps(KINDS["whole from the disk"])], 2))
    assert {code for code, *_ in ended} == {1}
    assert all("every process needs an entry to train on; got 1 for 2 processes" in error for *_, error in ended)
