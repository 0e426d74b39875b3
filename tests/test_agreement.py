"""The public ways to evaluate a factorization, against the dense loop written from Equation 3 and against each other."""

from __future__ import annotations

import generators
import numpy as np
import oracles
import pytest
import torch

from tensornet import HTF, hierarchical_rank


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_random_trees(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        tree, weights = generators.random_case(seed)
        rng = np.random.default_rng(seed)
        expected = np.asarray(oracles.end_tensor(tree, weights))
        scale = max(float(np.abs(expected).max()), 1e-30)
        htf = HTF.from_weights(tree, weights)
        with torch.no_grad():
            contracted = htf.contract().numpy()
            indices = np.stack([rng.integers(size, size=5) for size in htf.mode_sizes], axis=1)
            entries = htf.entries(indices).numpy()
            vectors = [rng.standard_normal((2, size)) for size in htf.mode_sizes]
            outputs = htf([torch.from_numpy(vector) for vector in vectors]).numpy()
        assert np.abs(contracted - expected).max() <= 1e-10 * scale, seed
        assert np.abs(entries - expected[tuple(indices.T)]).max() <= 1e-10 * scale, seed
        for sample, output in enumerate(outputs):
            rank_one = [vector[sample] for vector in vectors]
            size = scale * np.prod([np.abs(vector).sum() for vector in rank_one])
            assert abs(output - oracles.measure(expected, rank_one)) <= 1e-10 * size, seed
            assert abs(output - htf.contract(projected=dict(enumerate(map(torch.from_numpy, rank_one)))).item()) <= 1e-10 * size, seed
        for node, rank in hierarchical_rank(contracted, tree, rtol=1e-10).items():
            rows = [mode for mode in range(tree.order) if mode not in node]
            matrix = np.transpose(expected, (*node, *rows)).reshape(int(np.prod([htf.mode_sizes[mode] for mode in node])), -1)
            values = np.linalg.svd(matrix, compute_uv=False)
            assert rank == (values > 1e-10 * values[0]).sum(), (seed, node)
            parent = tree.parent(node)
            assert parent is not None
            assert rank <= htf.ranks[parent], (seed, node)  # Lemma 1
