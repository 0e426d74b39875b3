"""Correlated columns and estimated lengths, against dense covariances and loops over pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tensornet.completion.smoothing import correlated, correlation, estimated_lengths


def factor(rows, length):
    return correlated(torch.eye(rows, dtype=torch.float64), length).numpy()


@pytest.mark.parametrize("length", [1e-6, 0.3, 1.0, 7.5, 200.0])
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 33, 100])
def test_the_covariance_is_exponential(rows, length):
    places = np.arange(rows)
    wanted = np.exp(-np.abs(places[:, None] - places) / length)
    found = factor(rows, length)
    assert np.allclose(found @ found.T, wanted, rtol=0, atol=1e-8)  # correlations below 1e-9 are left out
    assert np.array_equal(found, np.tril(found))


@pytest.mark.parametrize("seed", range(5))
def test_columns_follow_the_recursion(seed):
    rng = np.random.default_rng(seed)
    white, decay = rng.standard_normal((50, 3)), math.exp(-1 / 4.0)
    wanted = white.copy()
    for row in range(1, 50):
        wanted[row] = decay * wanted[row - 1] + math.sqrt(1 - decay**2) * white[row]
    assert np.allclose(correlated(torch.tensor(white), 4.0).numpy(), wanted, rtol=0, atol=1e-8)


def test_no_length_and_no_rows():
    white = torch.randn(5, 2)
    assert torch.equal(correlated(white, 0), white)
    assert correlated(torch.zeros(0, 2), 3.0).shape == (0, 2)
    assert torch.allclose(correlated(white, 1e12), white[:1].expand(5, 2), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients(dtype):
    white = torch.randn(9, 2, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: correlated(values, 2.5), white)


@pytest.mark.parametrize("length", [-1.0, math.inf, math.nan])
def test_bad_lengths(length):
    with pytest.raises(ValueError, match=f"length must be a finite number of at least 0; got {length}"):
        correlated(torch.ones(3, 1), length)


def pairs_by_loops(indices, values, mode, lag):
    known = {tuple(index): value for index, value in zip(indices.tolist(), values.tolist())}
    products = []
    for index, value in known.items():
        partner = (*index[:mode], index[mode] + lag, *index[mode + 1 :])
        if partner in known:
            products.append((value * np.conj(known[partner])).real)
    return np.mean(products) / np.mean(np.abs(values.numpy()) ** 2) if len(products) > 1 else math.nan


def observed(seed, sizes, share, dtype=np.float64):
    rng = np.random.default_rng(seed)
    indices = np.array(list(itertools.product(*map(range, sizes))))
    indices = rng.permutation(indices)[: round(share * len(indices))]
    values = rng.standard_normal(len(indices)) + (1j * rng.standard_normal(len(indices)) if dtype == np.complex128 else 0)
    return torch.tensor(indices), torch.tensor(values)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("seed", range(5))
def test_correlation_is_that_of_the_observed_pairs(seed, dtype):
    sizes = (5, 1, 7, 3)
    indices, values = observed(seed, sizes, 0.4, dtype)
    for mode, lag in itertools.product(range(4), (1, 2, 3, 10)):
        found = correlation(indices, values, sizes, mode, lag)
        assert found == pytest.approx(pairs_by_loops(indices, values, mode, lag), rel=1e-12, nan_ok=True)


def test_a_single_pair_is_too_few():
    indices = torch.tensor([[0, 0], [1, 0], [0, 3]])
    assert math.isnan(correlation(indices, torch.ones(3), (2, 4), 0, 1))
    assert math.isnan(correlation(indices[:0], torch.ones(0), (2, 4), 0, 1))


@pytest.mark.parametrize(("length", "share"), [(2.0, 1.0), (5.0, 1.0), (5.0, 0.5), (20.0, 0.5)])
def test_estimates_are_half_the_length_of_exponential_covariances(length, share):
    """The excess correlation errs by less than 4 standard errors, of products of neighbours, squares, and products of far entries."""
    sizes = (1000, 200)
    samples = correlated(torch.randn(sizes, dtype=torch.float64), length)
    indices = torch.nonzero(torch.rand(sizes) < share)
    lengths = estimated_lengths(indices, samples[tuple(indices.T)], sizes)
    decay = math.exp(-1 / length)
    error = 4 * math.sqrt(((1 + decay**2) + 2 * decay**2 + 1) / (share**2 * math.prod(sizes)))
    assert -0.5 / math.log(decay - error) <= lengths[0] <= -0.5 / math.log(decay + error)
    assert lengths[1] == 0


def test_shuffled_rows_have_no_order():
    rows, columns = torch.meshgrid(torch.arange(50), torch.arange(30), indexing="ij")
    indices = torch.stack([rows, columns], 2).reshape(-1, 2)
    smooth = correlated(torch.randn(50, 30), 10.0)
    assert estimated_lengths(indices, smooth.reshape(-1), (50, 30))[0] > 2
    assert estimated_lengths(indices, smooth[torch.randperm(50)].reshape(-1), (50, 30)) == (0.0, 0.0)


@pytest.mark.parametrize("values", [torch.zeros(40), torch.ones(40), torch.randn(40, generator=torch.Generator().manual_seed(0))])
def test_values_without_order(values):
    indices = torch.cartesian_prod(torch.arange(20), torch.arange(2))
    assert estimated_lengths(indices, values, (20, 2)) == (0.0, 0.0)


def test_lengths_are_at_most_the_modes_size():
    """Neighbours here are wholly alike, and entries half the mode apart opposite."""
    indices, values = torch.tensor([[0], [1], [15], [16]]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert estimated_lengths(indices, values, (30,)) == (30.0,)


def test_too_few_entries_and_too_many_places():
    assert estimated_lengths(torch.tensor([[0, 0]]), torch.ones(1), (100, 100)) == (0.0, 0.0)
    assert estimated_lengths(torch.zeros(2, 1000, dtype=torch.long), torch.ones(2), (2,) * 1000) == (0.0,) * 1000
