"""Observations against the dense inner products that they stand for, and their adjoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tensornet.dynamics.observations import Entries, Measurements

SIZES = (3, 2, 4, 5)


def make(kind):
    generator = torch.Generator().manual_seed(1)
    if kind == "entries":
        return Entries(SIZES, torch.randperm(120, generator=generator)[:17].sort().values)
    return Measurements([torch.randn(17, size, generator=generator, dtype=torch.float64) for size in SIZES])


def dense(observations):
    """One tensor an observation, whose inner product with a tensor is what is observed."""
    if isinstance(observations, Entries):
        rows = np.zeros((len(observations), *SIZES))
        for row, indices in zip(rows, observations.indices.tolist()):
            row[tuple(indices)] = 1.0
        return rows
    return np.einsum("ba,bc,bd,be->bacde", *(vector.numpy() for vector in observations.vectors))


@pytest.mark.parametrize("kind", ["entries", "measurements"])
def test_observations_are_inner_products_with_dense_tensors(kind):
    observations, rng = make(kind), np.random.default_rng(0)
    tensor, values = rng.standard_normal(SIZES), rng.standard_normal(17)
    assert len(observations) == 17
    assert np.allclose(observations.of(torch.tensor(tensor)), np.einsum("bacde,acde->b", dense(observations), tensor))
    expected = np.einsum("bacde,b->acde", dense(observations), values)
    out = torch.full(SIZES, float("nan"), dtype=torch.float64)
    assert np.allclose(observations.adjoint(torch.tensor(values)), expected)
    assert observations.adjoint(torch.tensor(values), out=out) is out
    assert np.allclose(out, expected)


@pytest.mark.parametrize("kind", ["entries", "measurements"])
def test_chosen_ones(kind):
    observations, rows = make(kind), torch.tensor([4, 4, 0])
    tensor = torch.randn(SIZES, dtype=torch.float64)
    assert torch.allclose(observations.chosen(rows).of(tensor), observations.of(tensor)[rows])


def test_repeated_entries_of_a_batch_add_up():
    entries = Entries((2, 2), torch.tensor([0, 3])).chosen(torch.tensor([1, 1, 0]))
    assert entries.adjoint(torch.tensor([1.0, 2.0, 4.0])).tolist() == [[4.0, 0.0], [0.0, 3.0]]


def test_entries_that_are_observed_again():
    assert not make("entries").repeated
    assert Entries((2, 2), torch.tensor([0, 3, 0])).repeated
