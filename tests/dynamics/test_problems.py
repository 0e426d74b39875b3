"""Ground truths, completion and sensing, as Appendix D.2.1 describes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tensornet.analysis.ranks import hierarchical_rank
from tensornet.dynamics.problems import completion, low_rank_truth, normalised, sensing
from tensornet.tree import ModeTree


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_truths_have_the_asked_rank_and_norm():
    matrix = low_rank_truth(ModeTree.star(2), [64, 64], 5, seeded(), fixed_root=True)
    assert torch.linalg.matrix_rank(matrix) == 5
    assert matrix.norm().item() == pytest.approx(64)
    tensor = low_rank_truth(ModeTree.perfect(4), [8] * 4, 5, seeded(), fixed_root=False)
    assert set(hierarchical_rank(tensor, ModeTree.perfect(4), rtol=1e-9).values()) == {5}
    assert tensor.norm().item() == pytest.approx(64)
    ternary = low_rank_truth(ModeTree.perfect(9, 3), [3] * 9, 2, seeded(), fixed_root=False)
    assert set(hierarchical_rank(ternary, ModeTree.perfect(9, 3), rtol=1e-9).values()) == {2}
    assert ternary.norm().item() ** 2 == pytest.approx(19683)


def test_cp_truth_is_the_sum_of_outer_products():
    generator = seeded(3)
    factors = [torch.randn(size, 2, generator=generator, dtype=torch.float64) for size in (3, 4, 5)]
    expected = torch.einsum("ar,br,cr->abc", *factors)
    truth = low_rank_truth(ModeTree.star(3), [3, 4, 5], 2, seeded(3), fixed_root=True)
    assert torch.allclose(truth, expected * math.sqrt(60) / expected.norm())


def test_entries_are_chosen_once_each_and_uniformly():
    truth = torch.arange(20.0).reshape(4, 5)
    counts = np.zeros(20)
    for seed in range(400):
        problem = completion(truth, 7, seeded(seed))
        assert len(set(problem.observations.places.tolist())) == 7
        assert torch.equal(problem.values, problem.observations.places.float())
        counts[problem.observations.places] += 1
    # each entry is in a draw with probability 7/20: five standard deviations of a binomial count
    assert np.abs(counts - 140).max() < 5 * math.sqrt(400 * 0.35 * 0.65)


def test_measurement_tensors_have_expected_squared_norm_one():
    problem = sensing(torch.ones(8, 8, 8, 8, dtype=torch.float64), 4000, seeded())
    vectors = problem.observations.vectors
    squares = torch.stack([vector.square().sum(1) for vector in vectors]).prod(0)
    # a factor is chi-squared with 8 degrees over 8, variance 1/4: the product's variance is (5/4)^4 - 1
    assert abs(squares.mean().item() - 1) < 5 * math.sqrt(((5 / 4) ** 4 - 1) / 4000)
    assert torch.allclose(problem.values, problem.observations.of(problem.truth))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: completion(torch.ones(2, 2), 5, seeded()), "samples must be at most the number of entries, 4; got 5"),
        (lambda: sensing(torch.ones(2, 2), 0, seeded()), "samples must be at least 1; got 0"),
        (lambda: normalised(np.zeros(3)), "truth must have an entry that is not zero"),
        (lambda: normalised(np.array([1.0, np.inf])), "truth must be finite|finite"),
    ],
)
def test_wrong_problems(call, message):
    with pytest.raises(ValueError, match=message):
        call()
