"""Conversions leave the tensor as it is."""

from __future__ import annotations

import generators
import numpy as np
import oracles
import pytest
import torch

from tensornet.htf import HTF
from tensornet.tree import ModeTree


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("seed", range(12))
def test_a_factorization_as_hierarchical_tucker(seed, dtype):
    tree, weights = generators.random_case(seed, dtype=dtype, max_rank=3)
    found = HTF.from_weights(tree, weights).to_ht().contract()
    np.testing.assert_allclose(found.detach().numpy(), oracles.end_tensor(tree, weights), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", range(12))
def test_hierarchical_tucker_as_a_factorization(seed):
    ht = generators.random_ht(seed)
    torch.testing.assert_close(ht.to_htf().contract().detach(), ht.contract(), rtol=1e-10, atol=1e-10)


def test_gradients_reach_the_weights():
    htf = HTF(ModeTree.perfect(4), ranks=2, init_std=1.0, dtype=torch.float64)
    htf.to_ht().contract().square().sum().backward()
    found = [weight.grad.clone() for weight in htf.parameters()]
    htf.zero_grad()
    htf.contract().square().sum().backward()
    for gradient, weight in zip(found, htf.parameters()):
        torch.testing.assert_close(gradient, weight.grad)


def test_what_the_format_cannot_hold():
    with pytest.raises(ValueError, match="has one output; got 3"):
        HTF(ModeTree.star(2), outputs=3).to_ht()
    with pytest.raises(ValueError, match="needs product pooling"):
        HTF(ModeTree.star(2), pooling="max").to_ht()


def test_the_type_of_a_cp_decomposition_holds_all_its_parts():
    htf = HTF.from_cp(np.array([1j, 2.0]), [np.ones((2, 2), dtype=np.float32), np.ones((2, 2))])
    assert htf.contract().dtype == torch.complex128
    assert torch.equal(htf.contract(), torch.full((2, 2), 2 + 1j, dtype=torch.complex128))
    assert HTF.from_cp(np.array([1e-50]), [np.ones((2, 1), dtype=np.float32)]).contract().tolist() == [1e-50, 1e-50]
