"""Products of rows with weights, and the powers of two that keep every intermediate number in range."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tensornet.evaluation import sweep as module
from tensornet.evaluation.folding import every_sample
from tensornet.evaluation.sweep import Rules, multiply, power_of_two, stacked, sweep
from tensornet.shape import make_shape
from tensornet.tree import ModeTree

CPU = torch.device("cpu")


class Seen(dict):
    """Tables, of which the largest and the smallest row norms and the largest number held at once are kept."""

    def __init__(self):
        super().__init__()
        self.largest, self.smallest, self.most = 0.0, math.inf, 0

    def __setitem__(self, place, table):
        super().__setitem__(place, table)
        norms = table.values.double().norm(dim=-1)
        self.largest, self.smallest = max(self.largest, norms.max().item()), min(self.smallest, norms.min().item())
        self.most = max(self.most, len(self))


def swept(tree, std, budget, dtype=torch.float32):
    """All steps of the network over a tree, with random weights of the given size."""
    shape = make_shape(tree, 3, 4)
    rng = np.random.default_rng(0)
    weights = [torch.tensor(rng.standard_normal(size) * std, dtype=dtype) for size in shape.weights]
    inputs = [torch.tensor(rng.standard_normal((5, 3)), dtype=dtype) for _ in range(tree.order)]
    tables = Seen()
    groups = every_sample(shape, 5, CPU).chunks[0]
    sweep(groups, 0, tables, weights, inputs, Rules("product", None, budget))
    return tables, groups


TREES = {kind: getattr(ModeTree, kind)(2000) for kind in ("balanced", "chain", "star")}


class TestRange:
    @pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
    @pytest.mark.parametrize("std", [0.03, 1.0, 30.0])
    @pytest.mark.parametrize("budget", [0, 15])
    def test_every_table_of_order_2000_stays_in_range(self, tree, std, budget):
        tables, groups = swept(tree, std, budget)
        assert tables.smallest > 1e-37
        assert tables.largest < 1e37
        assert list(tables) == [len(groups) - 1]
        values, exponents, _ = tables[len(groups) - 1]
        exact = swept(tree, std, budget, torch.float64)[0][len(groups) - 1]
        logs = [table.values.double().abs().log2() + table.exponents.unsqueeze(-1) for table in (Seen.get(tables, len(groups) - 1), exact)]
        assert torch.allclose(*logs, rtol=1e-5, atol=0.05)
        assert torch.equal(values.sign().double(), exact.values.sign())
        assert exponents.dtype == torch.int32

    def test_tables_are_dropped_once_they_were_taken(self):
        assert swept(TREES["chain"], 1.0, 15)[0].most <= 3

    @pytest.mark.parametrize("std", [1e-9, 1e9])
    def test_rules_without_products_are_not_scaled(self, std):
        shape = make_shape(ModeTree.balanced(64), 2, 3)
        weights = [torch.full(size, std) for size in shape.weights]
        tables = {}
        groups = every_sample(shape, 2, CPU).chunks[0]
        sweep(groups, 0, tables, weights, [torch.ones(2, 2)] * 64, Rules("mean", None, 15))
        assert tables[len(groups) - 1].exponents is None

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
    def test_scaling_is_exact_and_leaves_zero_and_nan(self, dtype):
        values = torch.tensor([[[3.0, -1.0], [2.0**-100, 2.0**-90], [2.0**120, -1.0], [0.0, 0.0], [torch.nan, 1.0]]]).to(dtype)
        scale, table = module._scaled(module.Table(values, None, 4), alone=False)
        sizes = table.values.abs().sum(-1)[0]
        assert ((sizes[:3] >= 0.5) & (sizes[:3] <= 4)).all()
        back = table.values * power_of_two(table.exponents, values.real.dtype).unsqueeze(-1)
        assert torch.equal(back[:, :4], values[:, :4])
        assert torch.equal(scale.squeeze(-1)[:, :3], torch.exp2(-table.exponents[:, :3].to(scale.dtype)))
        assert back[0, 3].tolist() == [0, 0]
        assert back[0, 4, 0].isnan()


@pytest.mark.parametrize(
    ("dtype", "least", "most"), [(torch.float32, -126, 127), (torch.float64, -1022, 1023), (torch.bfloat16, -126, 127)]
)
def test_powers_of_two_are_exact(dtype, least, most):
    exponents = torch.arange(least, most + 1, dtype=torch.int32)
    assert power_of_two(exponents, dtype).tolist() == [2.0**exponent for exponent in exponents.tolist()]


class TestLargeWeights:
    @pytest.mark.parametrize("plain", [False, True])
    def test_one_by_one_is_the_batched_product(self, plain):
        products, weights = torch.randn(3, 5, 4, dtype=torch.float64), list(torch.randn(3, 4, 2, dtype=torch.float64))
        assert torch.allclose(multiply(products, weights, plain), torch.bmm(products, stacked(weights)))
        assert multiply(products, None, plain) is products

    def test_large_weights_are_not_copied(self):
        weights = [torch.ones(module.LARGE, 2), torch.zeros(module.LARGE, 2)]
        assert module._matrix(weights) is weights
        shared = module._matrix([weights[0][:5]] * 3)
        assert shared.shape == (3, 5, 2)
        assert shared.data_ptr() == weights[0].data_ptr()
