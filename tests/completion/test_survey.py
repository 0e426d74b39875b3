"""The pass over the entries: sizes, mean and spread, what is held out, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tensornet.completion.sources import MemoryEntries
from tensornet.completion.survey import MOST_HELD_OUT, scaled, survey, trained
from tensornet.distributed import ALONE
from tensornet.files import entries as files


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 16)


def given(count=100, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(3, 2, count) + (1j * rng.normal(size=count) if dtype == np.complex128 else 0)
    return rng.integers(0, (5, 9), (count, 2)), values.astype(dtype)


def looked_at(indices, values, *, share=0.0, sizes=None, processes=ALONE, seed=0):
    return survey(MemoryEntries(indices, values), share=share, seed=seed, sizes=sizes, processes=processes)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128, np.int16])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_agrees_with_numpy(dtype, share):
    indices, values = given(dtype=dtype)
    found = looked_at(indices, values, share=share)
    keep = ~np.isin(np.arange(100), found.held_out)
    assert found.sizes == (5, 9)
    assert len(found.held_out) == int(100 * share)
    assert found.count == keep.sum()
    wide = values[keep].astype(np.complex128 if dtype == np.complex128 else np.float64)
    assert found.offset == pytest.approx(wide.mean(), rel=1e-13)
    assert found.scale == pytest.approx(np.std(wide) or 1.0, rel=1e-13)
    assert isinstance(found.offset, complex if dtype == np.complex128 else float)
    assert np.array_equal(found.rest[0], indices[~keep])
    assert np.array_equal(found.rest[1], values[~keep])
    source = MemoryEntries(indices, values)
    rows, numbers = (np.concatenate(part) for part in zip(*(trained(source, found, block) for block in range(len(found.lengths)))))
    assert np.array_equal(rows, indices[keep])
    assert np.allclose(numbers, (wide - wide.mean()) / (np.std(wide) or 1.0), rtol=1e-12)
    assert np.array_equal(numbers, scaled(values[keep], found))


def test_a_large_mean_costs_no_digits():
    values = 1e9 + np.arange(100) % 7
    assert looked_at(given()[0], values).scale == pytest.approx(np.std(np.arange(100) % 7), rel=1e-9)


def test_the_seed_chooses_what_is_held_out():
    first, again, other = (looked_at(*given(), share=0.3, seed=seed).held_out for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_is_held_out_is_bounded_and_leaves_an_entry():
    indices, values = np.zeros((600_000, 1), np.uint8), np.ones(600_000)
    assert len(looked_at(indices, values, share=0.5).held_out) == MOST_HELD_OUT
    assert looked_at(indices[:2], values[:2], share=0.999).count == 1


def test_equal_values_have_scale_one():
    assert looked_at(given()[0], np.full(100, 0.1)).scale == 1.0


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("values", np.nan, "values must be finite, and missing entries left out; got nan in row 70"),
        ("values", -np.inf, "values must be finite, and missing entries left out; got -inf in row 70"),
        ("indices", -1, "indices must be from 0 to below the mode's size; got -1 for mode 1 in row 70"),
        ("sized", 9, "indices must be from 0 to below the mode's size; got 9 for mode 1 of size 9 in row 70"),
        ("sized", -3, "indices must be from 0 to below the mode's size; got -3 for mode 1 of size 9 in row 70"),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.9])
def test_the_row_of_a_wrong_entry_is_named(place, value, message, share):
    indices, values = given()
    if place == "values":
        values[70] = value
    else:
        indices[70, 1] = value
    with pytest.raises(ValueError, match=f"^{message}$"):
        looked_at(indices, values, share=share, sizes=(5, 9) if place == "sized" else None)


def test_no_entries():
    with pytest.raises(ValueError, match=r"at least one observed entry is needed; got indices of the shape \(0, 2\)"):
        looked_at(np.zeros((0, 2), int), np.zeros(0))
