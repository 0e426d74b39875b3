"""Entries, network outputs and grid tensors, against Equation 3 and Appendix A written out in oracles.py."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
import torch
from generators import random_array, random_case
from oracles import end_tensor, measure

from tensornet.evaluation import folding
from tensornet.evaluation.circuit import Combination, combination, entries, forward, grid, grid_bytes
from tensornet.evaluation.observed import observe
from tensornet.shape import make_shape, shape_of_weights
from tensornet.tree import ModeTree

DTYPES = (np.float64, np.complex128)


class Case:
    """A random factorization, its end tensor by the oracle, and indices of entries with repetitions."""

    def __init__(self, seed, dtype=None, outputs=None, samples=None, **sizes):
        rng = np.random.default_rng(seed)
        dtype = dtype or DTYPES[seed % 2]
        self.tree, arrays = random_case(seed, dtype=dtype, outputs=outputs or 1 + seed % 3, **sizes)
        self.shape = shape_of_weights(self.tree, {node: array.shape for node, array in arrays.items()})
        self.weights = [torch.tensor(arrays[node]).requires_grad_() for node in self.tree.nodes]
        self.end = end_tensor(self.tree, arrays)
        samples = samples or int(rng.choice([1, 7, 60, 1500]))
        self.indices = np.stack([rng.integers(0, rng.integers(1, size + 1), samples) for size in self.shape.mode_sizes], axis=1)
        self.wanted = self.end[tuple(self.indices.T)]
        self.vectors = [random_array(rng, (5, size), dtype) for size in self.shape.mode_sizes]
        self.onehot = [torch.tensor(np.eye(size, dtype=dtype)[self.indices[:, mode]]) for mode, size in enumerate(self.shape.mode_sizes)]


def agree(found, wanted, tolerance=1e-10):
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max(initial=0) <= tolerance * max(np.abs(wanted).max(initial=0), 1e-300)


def unlogged(pair):
    sign, size = pair
    return sign * size.exp()


@pytest.fixture
def chunked(monkeypatch):
    """Samples are taken in small chunks, as very many of them are."""
    monkeypatch.setattr(folding, "_most_kept", lambda device, steps: 200)


@pytest.fixture
def one_by_one(monkeypatch):
    """Samples are taken in small chunks and nodes one by one, as for many samples, and what the way back needs is kept."""
    monkeypatch.setattr(folding, "APART", 0)
    monkeypatch.setattr(folding, "AT_ONCE", 40)


class TestAgreementWithEquation3:
    @pytest.mark.parametrize("start", range(0, 1000, 100))
    def test_entries_and_grid(self, start):
        for seed in range(start, start + 100):
            case = Case(seed)
            agree(entries(case.shape, case.weights, case.indices), case.wanted)
            agree(grid(case.shape, case.weights), case.end)

    @pytest.mark.parametrize("start", range(0, 500, 100))
    def test_forward_is_the_inner_product_with_the_outer_product(self, start):
        for seed in range(start, start + 100):
            case = Case(seed)
            wanted = np.stack([measure(case.end, [vectors[sample] for vectors in case.vectors]) for sample in range(5)])
            agree(forward(case.shape, case.weights, [torch.tensor(vectors) for vectors in case.vectors]), wanted)

    def test_forward_on_indicators_gives_entries(self):
        for seed in range(100):
            case = Case(seed)
            agree(forward(case.shape, case.weights, case.onehot), entries(case.shape, case.weights, case.indices).detach().numpy())

    def test_chunks_of_samples(self, chunked):
        for seed in range(30):
            case = Case(seed, samples=300)
            agree(entries(case.shape, case.weights, case.indices), case.wanted)
            agree(forward(case.shape, case.weights, case.onehot), case.wanted)
            agree(unlogged(entries(case.shape, case.weights, case.indices, log=True)), case.wanted)

    def test_nodes_one_by_one(self, one_by_one):
        assert len(folding.every_sample(Case(3).shape, 300, torch.device("cpu")).bounds) > 1
        for seed in range(60):
            case = Case(seed, samples=300)
            fixed = [weight.detach() for weight in case.weights]
            for weights in (case.weights, fixed):
                agree(entries(case.shape, weights, case.indices), case.wanted)
                agree(forward(case.shape, weights, case.onehot), case.wanted)
                agree(unlogged(forward(case.shape, weights, case.onehot, log=True)), case.wanted)

    def test_neither_weights_nor_inputs_are_written_to(self, one_by_one):
        for seed in range(30):
            case = Case(seed, samples=30)
            tensors = [weight.detach() for weight in case.weights] + case.onehot
            before = [tensor.clone() for tensor in tensors]
            for given in (case.weights, tensors[: len(case.weights)]):
                found = [entries(case.shape, given, case.indices), forward(case.shape, given, case.onehot)]
                if found[0].requires_grad:
                    torch.autograd.grad([value.abs().sum() for value in found], case.weights)
            assert all(torch.equal(*pair) for pair in zip(tensors, before))

    def test_logarithms(self):
        for seed in range(100):
            case = Case(seed)
            agree(unlogged(entries(case.shape, case.weights, case.indices, log=True)), case.wanted)
            agree(unlogged(forward(case.shape, case.weights, case.onehot, log=True)), case.wanted)

    @pytest.mark.parametrize("kind", ["perfect", "star", "chain"])
    @pytest.mark.parametrize(("mode_size", "samples"), [(2, 3000), (6, 300), (40, 20)])
    def test_every_kind_of_table(self, kind, mode_size, samples):
        shape = make_shape(getattr(ModeTree, kind)(8), mode_size, 3)
        rng = np.random.default_rng(mode_size)
        arrays = [rng.standard_normal(size) for size in shape.weights]
        weights = [torch.tensor(array) for array in arrays]
        indices = rng.integers(0, mode_size, (samples, 8))
        indices[: samples // 2, 1:4] = indices[: samples // 2, :1]  # distinct sub-indices are few in some nodes
        rows = [array[indices[:, node]] if node < 8 else None for node, array in enumerate(arrays)]
        for node, below in enumerate(shape.tree.child_ids):
            if below:
                rows[node] = reduce(np.multiply, [rows[child] for child in below]) @ arrays[node]
        agree(entries(shape, weights, indices), rows[-1][:, 0])

    def test_single_precision(self):
        case = Case(3, dtype=np.float64)
        singles = [weight.detach().float() for weight in case.weights]
        found = entries(case.shape, singles, case.indices)
        assert found.dtype == torch.float32
        agree(found, case.wanted, 1e-5)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
    def test_half_precision_with_gradients(self, dtype, tolerance):
        case = Case(4, dtype=np.float64, outputs=1)
        halves = [weight.detach().to(dtype).requires_grad_() for weight in case.weights]
        found = entries(case.shape, halves, case.indices)
        agree(found.double(), case.wanted, tolerance)
        found.float().square().sum().backward()
        assert all(half.grad is not None and half.grad.dtype == dtype for half in halves)

    def test_mixed_precision_leaves_products_alone(self):
        case = Case(3, dtype=np.float64)
        singles = [weight.detach().float().requires_grad_() for weight in case.weights]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = entries(case.shape, singles, case.indices)
            found.sum().backward()
        agree(found, case.wanted, 1e-5)


class TestGeneralizedPooling:
    @staticmethod
    def recursion(case, pooling, activation):
        """All channels of every node over its modes' grid, a node after the other, axes in ascending order, channels last."""
        tables = {}
        for node, weight in zip(case.tree.nodes, case.weights):
            array = weight.detach().numpy()
            below = case.tree.children(node)
            if not below:
                tables[node] = array
                continue
            spread = []
            for child in below:
                table = np.maximum(tables[child], 0) if activation else tables[child]
                spread.append(np.expand_dims(table, [place for place, mode in enumerate(node) if mode not in child]))
            spread = np.broadcast_arrays(*spread)
            pooled = {"product": np.prod, "max": np.max, "mean": np.mean}[pooling](np.stack(spread), axis=0)
            tables[node] = pooled @ array
        result = tables[case.tree.root]
        return result[..., 0] if result.shape[-1] == 1 else result

    @pytest.mark.parametrize("pooling", ["product", "max", "mean"])
    @pytest.mark.parametrize("activation", [None, "relu"])
    def test_against_a_recursion(self, pooling, activation):
        rule = combination(pooling, activation)
        for seed in range(40):
            case = Case(seed, dtype=np.float64)
            wanted = self.recursion(case, pooling, activation)
            agree(grid(case.shape, case.weights, combination=rule), wanted)
            wanted = wanted[tuple(case.indices.T)]
            agree(entries(case.shape, case.weights, case.indices, combination=rule), wanted)
            agree(forward(case.shape, case.weights, case.onehot, combination=rule), wanted)
            agree(unlogged(entries(case.shape, case.weights, case.indices, combination=rule, log=True)), wanted)

    def test_gradients(self):
        case = Case(8, dtype=np.float64, samples=6)
        for rule in (Combination("max"), Combination("mean", "relu"), Combination("product", "relu")):
            assert torch.autograd.gradcheck(lambda *weights, rule=rule: grid(case.shape, weights, combination=rule), case.weights)

    def test_mean_pooling_of_complex_weights(self):
        case = Case(1, dtype=np.complex128)
        agree(grid(case.shape, case.weights, combination=Combination("mean")), self.recursion(case, "mean", None))


class TestScaling:
    @pytest.mark.parametrize("kind", ["balanced", "chain", "star"])
    def test_rank_one_of_order_1000_against_fractions(self, kind):
        shape = make_shape(getattr(ModeTree, kind)(1000), 3, 1)
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(size) * 0.01 for size in shape.weights]
        indices = rng.integers(0, 3, (4, 1000))
        sign, size = entries(shape, [torch.tensor(array) for array in arrays], indices, log=True)
        for sample, row in enumerate(indices):
            factors = [array[row[node] if node < 1000 else 0, 0] for node, array in enumerate(arrays)]
            exact = math.prod(Fraction(factor) for factor in factors)
            assert sign[sample] == (1 if exact > 0 else -1)
            assert size[sample].item() == pytest.approx(math.log(abs(exact.numerator)) - math.log(exact.denominator), rel=1e-13)

    @pytest.mark.parametrize("kind", ["balanced", "chain", "star"])
    @pytest.mark.parametrize("std", [0.01, 30.0])
    def test_single_precision_of_order_1000(self, kind, std):
        shape = make_shape(getattr(ModeTree, kind)(1000), 4, 4)
        rng = np.random.default_rng(1)
        arrays = [(rng.standard_normal(size) * std).astype(np.float32) for size in shape.weights]
        indices = rng.integers(0, 4, (20, 1000))
        rows, logs = [], []  # in float64, divided by their largest number at every node
        for node, below in enumerate(shape.tree.child_ids):
            array = arrays[node].astype(np.float64)
            row, log = (array[indices[:, node]], 0.0) if not below else (1.0, 0.0)
            for child in below:
                row, log = row * rows[child], log + logs[child]
                top = np.abs(row).max(axis=1, keepdims=True)
                row, log = row / top, log + np.log(top)
            row = row @ array if below else row
            top = np.abs(row).max(axis=1, keepdims=True)
            rows.append(row / top)
            logs.append(log + np.log(top))
        weights = [torch.tensor(array).requires_grad_() for array in arrays]
        sign, size = entries(shape, weights, indices, log=True)
        agree(sign, np.sign(rows[-1][:, 0]).astype(np.float32))
        np.testing.assert_allclose(size.detach().numpy(), logs[-1][:, 0], rtol=3e-6)
        size.sum().backward()
        assert all(torch.isfinite(weight.grad).all() and weight.grad.any() for weight in weights)

    @pytest.mark.parametrize("order", [64, 1024])
    def test_extremes_that_cancel(self, order):
        """Half of the leaves hold 2**-7 and half 2**7: every entry is 1, and the intermediate tensors leave the range of float32."""
        shape = make_shape(ModeTree.balanced(order), 2, 1)
        weights = [torch.full(size, 1.0) for size in shape.weights]
        for node in range(order):
            weights[node] *= 2.0 ** (-7 if node < order // 2 else 7)
            weights[node].requires_grad_()
        indices = torch.zeros(3, order, dtype=torch.int64)
        found = entries(shape, weights, indices)
        assert found.tolist() == [1.0] * 3  # powers of two are exact
        found.sum().backward()
        assert weights[0].grad.tolist() == [[3.0 * 2.0**7], [0.0]]
        assert weights[-1].grad is None
        inputs = torch.eye(2)[indices]
        assert forward(shape, weights, inputs).tolist() == [1.0] * 3

    def test_entries_leave_the_range_only_themselves(self):
        shape = make_shape(ModeTree.balanced(100), 2, 1)
        ones = [torch.ones(size) for size in shape.weights]
        indices = [[0] * 100]
        assert entries(shape, [one * 0.01 for one in ones], indices).tolist() == [0.0]
        assert entries(shape, [one * 100 for one in ones], indices).tolist() == [math.inf]
        assert entries(shape, [one * -100 for one in ones], indices).tolist() == [-math.inf]

    def test_scaling_changes_nothing(self):
        """Powers of two are exact: many factors of size 1 give what they give without any scaling."""
        shape = make_shape(ModeTree.balanced(16), 2, 3)
        rng = np.random.default_rng(0)
        weights = [torch.tensor(rng.standard_normal(size), dtype=torch.float32) for size in shape.weights]
        indices = rng.integers(0, 2, (50, 16))
        rows = [weight[indices[:, node]] if node < 16 else None for node, weight in enumerate(weights)]
        for node, below in enumerate(shape.tree.child_ids):
            if below:
                rows[node] = (rows[below[0]] * rows[below[1]]) @ weights[node]
        torch.testing.assert_close(entries(shape, weights, indices), rows[-1][:, 0], rtol=1e-5, atol=1e-6)

    def test_inputs_count_as_factors(self):
        tree = ModeTree.balanced(64)
        sizes = [2.0 ** (0 if len(node) == 64 else 6 if max(node) < 32 else -6) for node in tree.nodes]
        weights = [torch.full((1, 1), size) for size in sizes]
        inputs = [torch.full((2, 1), sizes[mode]) for mode in range(64)]  # one half of all numbers is 64, the other 1/64
        assert forward(make_shape(tree, 1, 1), weights, inputs).tolist() == [1.0, 1.0]

    def test_the_gradient_of_the_logarithm_of_zero_is_zero(self):
        shape = make_shape(ModeTree.star(2), 2, 2)
        weights = [torch.ones(2, 2), torch.ones(2, 2), torch.zeros(2, 1)]
        gradients = []
        for node in range(3):
            given = [weight.clone().requires_grad_(place == node) for place, weight in enumerate(weights)]
            sign, size = entries(shape, given, [[0, 0], [1, 1]], log=True)
            assert sign.tolist() == [0.0, 0.0]
            assert size.tolist() == [-torch.inf, -torch.inf]
            gradients += torch.autograd.grad(size.exp().sum(), given[node])
        assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)

    def test_zeros_are_defined(self):
        shape = make_shape(ModeTree.balanced(40), 2, 3)
        weights = [torch.ones(size) for size in shape.weights]
        weights[7][1] = 0
        indices = torch.zeros(2, 40, dtype=torch.int64)
        indices[1, 7] = 1
        for parameter in weights:
            parameter.requires_grad_()
        found = entries(shape, weights, indices)
        assert found[1] == 0
        found.sum().backward()
        assert torch.isfinite(weights[7].grad).all()
        sign, size = entries(shape, weights, indices, log=True)
        assert (sign[1].item(), size[1].item()) == (0.0, -math.inf)

    def test_scales_are_constants_for_the_gradient(self):
        case = Case(0, dtype=np.float64, outputs=1, samples=5)
        plain = torch.autograd.grad(entries(case.shape, case.weights, case.indices).abs().log().sum(), case.weights)
        logged = torch.autograd.grad(entries(case.shape, case.weights, case.indices, log=True)[1].sum(), case.weights)
        for first, second in zip(plain, logged):
            torch.testing.assert_close(first, second)


class TestGradients:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("seed", [0, 1, 2, 3])
    def test_gradcheck_of_entries(self, seed, dtype):
        case = Case(seed, dtype=dtype, samples=9, max_order=4, max_mode_size=3, max_rank=2, unary=0.2)
        observed = observe(case.shape, case.indices)
        assert torch.autograd.gradcheck(lambda *weights: entries(case.shape, weights, observed), case.weights)
        assert torch.autograd.gradgradcheck(lambda *weights: entries(case.shape, weights, observed), case.weights)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("seed", [4, 5])
    def test_gradcheck_of_forward(self, seed, dtype):
        case = Case(seed, dtype=dtype, max_order=4, max_mode_size=3, max_rank=2, unary=0.2)
        given = [*case.weights, *(torch.tensor(vectors[:2]).requires_grad_() for vectors in case.vectors)]

        def run(*tensors):
            return forward(case.shape, tensors[: len(case.weights)], tensors[len(case.weights) :])

        assert torch.autograd.gradcheck(run, given)
        assert torch.autograd.gradgradcheck(run, given)

    @pytest.mark.parametrize("mode_size", [2, 30])  # shared tables with sums of gradients, tables with a row a sample
    def test_gradcheck_with_many_or_few_samples(self, mode_size):
        shape = make_shape(ModeTree.perfect(4), mode_size, 2)
        rng = np.random.default_rng(0)
        weights = [torch.tensor(rng.standard_normal(size)).requires_grad_() for size in shape.weights]
        indices = rng.integers(0, mode_size, (20, 4))
        assert torch.autograd.gradcheck(lambda *given: entries(shape, given, indices), weights)

    @pytest.mark.parametrize("mode_size", [4, 12])  # gradients of shared tables summed over all their rows, or over few of them
    def test_gradcheck_in_chunks(self, chunked, mode_size):
        shape = make_shape(ModeTree.perfect(8), mode_size, 2)
        rng = np.random.default_rng(0)
        weights = [torch.tensor(rng.standard_normal(size)).requires_grad_() for size in shape.weights]
        observed = observe(shape, rng.integers(0, mode_size, (40, 8)))
        assert len(observed.stages.chunks) > 2
        mix = torch.linspace(-1, 1, 40, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda *given: (entries(shape, given, observed) * mix).sum(), weights)

    def test_every_gradient_is_that_of_recorded_operations(self):
        """With scaling at every node, shared tables, chunks, many outputs: against the same sweep under automatic differentiation."""
        for seed in range(60):
            case = Case(seed, samples=90, max_order=6)
            inputs = [vectors.requires_grad_() for vectors in case.onehot]
            for run, given in (
                (lambda *weights, case=case: entries(case.shape, weights, case.indices, log=True)[1], case.weights),
                (lambda *weights, case=case: entries(case.shape, weights, case.indices), case.weights),
                (
                    lambda *tensors, case=case: forward(case.shape, tensors[: len(case.weights)], tensors[len(case.weights) :]),
                    case.weights + inputs,
                ),
            ):
                result = run(*given)
                mix = torch.cos(torch.arange(result.numel(), dtype=torch.float64)).view(result.shape).to(result.dtype)
                written = torch.autograd.grad(result, given, mix)
                recorded = torch.autograd.grad(run(*given), given, mix, create_graph=True)
                for first, second in zip(written, recorded):
                    assert (first - second).abs().max() <= 1e-9 * second.abs().max()

    def test_every_gradient_with_nodes_one_by_one(self, one_by_one):
        self.test_every_gradient_is_that_of_recorded_operations()

    def test_tensors_given_twice_or_computed_from_each_other(self):
        """Recorded gradients of a tensor count its ways into the result once, as those that are written out."""
        shape = make_shape(ModeTree.star(2), 3, 2)
        first, vectors, top = (torch.randn(size, dtype=torch.float64).requires_grad_() for size in ((3, 2), (5, 3), (2, 1)))
        runs = (
            (lambda: forward(shape, [first, 2 * first, top], [vectors, vectors]), (first, vectors)),
            (lambda: entries(shape, [first, 2 * first, top], [[0, 1], [2, 2]]), (first,)),
        )
        for run, given in runs:
            written = torch.autograd.grad(run().sum(), given)
            recorded = torch.autograd.grad(run().sum(), given, create_graph=True)
            for one, other in zip(written, recorded):
                torch.testing.assert_close(one, other)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_second_derivatives_of_logarithms(self, dtype):
        shape = make_shape(ModeTree.perfect(4), 2, 2)
        rng = np.random.default_rng(0)
        weights = [torch.tensor(random_array(rng, size, dtype)).requires_grad_() for size in shape.weights]
        vectors = torch.tensor(random_array(rng, (2, 4, 2), dtype))
        assert torch.autograd.gradgradcheck(lambda *given: entries(shape, given, [[0, 1, 1, 0]], log=True)[1], weights)
        assert torch.autograd.gradgradcheck(lambda *given: forward(shape, given, vectors, log=True)[1], weights)

    @pytest.mark.filterwarnings("ignore:.*torch.jit.*")
    @pytest.mark.parametrize("log", [False, True])
    def test_forward_mode_and_many_gradients_at_once(self, log):
        case = Case(9, dtype=np.float64, samples=4, max_order=4, max_mode_size=3, max_rank=2)
        vectors = [torch.tensor(given[:2]) for given in case.vectors]
        checks = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
        for run in (
            lambda *given: entries(case.shape, given, case.indices, log=log),
            lambda *given: forward(case.shape, given, vectors, log=log),
        ):
            function = (lambda *given, run=run: run(*given)[1]) if log else run
            assert torch.autograd.gradcheck(function, case.weights, **checks)

    def test_jacobians_at_once(self):
        case = Case(10, dtype=np.float64, samples=6)

        def run(*weights):
            return entries(case.shape, weights, case.indices)

        plain = torch.autograd.functional.jacobian(run, tuple(case.weights))
        for first, second in zip(plain, torch.autograd.functional.jacobian(run, tuple(case.weights), vectorize=True)):
            torch.testing.assert_close(first, second)

    def test_a_retained_graph_gives_the_same_again(self):
        case = Case(12, dtype=np.float64)
        loss = entries(case.shape, case.weights, case.indices).square().sum()
        first = torch.autograd.grad(loss, case.weights, retain_graph=True)
        second = torch.autograd.grad(loss, case.weights)
        assert all(torch.equal(before, after) for before, after in zip(first, second))

    def test_shared_weights_get_the_sum_of_their_gradients(self):
        shape = make_shape(ModeTree.perfect(8), 3, 2)
        rng = np.random.default_rng(0)
        levels = [torch.tensor(rng.standard_normal(shape.weights[level[0]])).requires_grad_() for level in shape.tree.levels]
        weights = [next(levels[height] for height, level in enumerate(shape.tree.levels) if node in level) for node in range(15)]
        indices = rng.integers(0, 3, (200, 8))
        apart = [weight.detach().clone().requires_grad_() for weight in weights]
        together = torch.autograd.grad(entries(shape, weights, indices).square().sum(), levels)
        single = torch.autograd.grad(entries(shape, apart, indices).square().sum(), apart)
        for gradient, level in zip(together, shape.tree.levels):
            torch.testing.assert_close(gradient, sum(single[node] for node in level))

    def test_frozen_weights_get_none(self):
        case = Case(13, dtype=np.float64)
        case.weights[-1].requires_grad_(False)
        entries(case.shape, case.weights, case.indices).sum().backward()
        assert case.weights[-1].grad is None
        assert all(weight.grad is not None for weight in case.weights[:-1])

    def test_inputs_alone(self):
        case = Case(14, dtype=np.float64)
        inputs = [vectors.requires_grad_() for vectors in case.onehot]
        fixed = [weight.detach() for weight in case.weights]
        found = torch.autograd.grad(forward(case.shape, fixed, inputs).sum(), inputs)
        both = torch.autograd.grad(forward(case.shape, case.weights, inputs).sum(), inputs)
        for first, second in zip(found, both):
            torch.testing.assert_close(first, second)

    def test_transforms_of_torch_func(self):
        case = Case(15, dtype=np.float64)
        observed = observe(case.shape, case.indices)

        def total(weight):
            return entries(case.shape, [weight, *case.weights[1:]], observed).square().sum()

        first = case.weights[0]
        torch.testing.assert_close(torch.func.grad(total)(first), torch.autograd.grad(total(first), first)[0])
        many = torch.stack([first.detach(), 2 * first.detach()])
        torch.testing.assert_close(torch.vmap(total)(many), torch.stack([total(many[0]), total(many[1])]))

    @pytest.mark.filterwarnings("ignore:.*torch.jit.*")  # of torch itself, on the first use of its compiler
    def test_compiles_without_a_graph_break(self):
        case = Case(16, dtype=np.float64)
        observed = observe(case.shape, case.indices)
        inputs = case.onehot
        for run in (
            lambda *weights: entries(case.shape, list(weights), observed),
            lambda *weights: entries(case.shape, list(weights), observed, log=True)[1],
            lambda *weights: forward(case.shape, list(weights), inputs),
        ):
            compiled = torch.compile(run, backend="eager", fullgraph=True)
            torch.testing.assert_close(compiled(*case.weights), run(*case.weights))
            found = torch.autograd.grad(compiled(*case.weights).sum(), case.weights)
            wanted = torch.autograd.grad(run(*case.weights).sum(), case.weights)
            for first, second in zip(found, wanted):
                torch.testing.assert_close(first, second)

    @pytest.mark.filterwarnings("ignore:.*torch.jit.*")
    def test_compiles_with_indices(self):
        case = Case(17, dtype=np.float64)
        indices = torch.tensor(case.indices)
        compiled = torch.compile(lambda *weights: entries(case.shape, list(weights), indices), backend="eager")
        agree(compiled(*case.weights), case.wanted)


class TestLimits:
    def test_no_entries(self):
        case = Case(20, dtype=np.float64, outputs=1)
        found = entries(case.shape, case.weights, np.zeros((0, case.tree.order), dtype=np.int64))
        assert found.shape == (0,)
        found.sum().backward()
        assert all(not weight.grad.any() for weight in case.weights)

    def test_no_inputs(self):
        case = Case(21, dtype=np.float64, outputs=2)
        inputs = [torch.zeros(0, size, dtype=torch.float64).requires_grad_() for size in case.shape.mode_sizes]
        found = forward(case.shape, case.weights, inputs)
        assert found.shape == (0, 2)
        found.sum().backward()
        assert inputs[0].grad.shape == inputs[0].shape

    def test_nan_and_infinity_propagate(self):
        shape = make_shape(ModeTree.balanced(40), 2, 3)
        weights = [torch.full(size, 0.5) for size in shape.weights]
        inputs = torch.ones(3, 40, 2)
        inputs[1, 17, 0] = math.nan
        inputs[2, 39, 1] = math.inf
        for rule in (Combination(), Combination("max"), Combination("mean", "relu")):
            found = forward(shape, weights, inputs, combination=rule)
            assert found.isnan().tolist()[:2] == [False, True]
            assert not found[2].isfinite()
        assert forward(shape, weights, inputs, log=True)[1].isnan().tolist()[:2] == [False, True]

    def test_indices_of_any_integer_type(self):
        case = Case(22)
        for kind in (np.uint8, np.int16, np.int32, np.int64):
            agree(entries(case.shape, case.weights, case.indices.astype(kind)), case.wanted)
        agree(entries(case.shape, case.weights, case.indices.tolist()), case.wanted)


class TestBytes:
    """What the grid tensor takes, by hand."""

    def test_by_hand(self):
        shape = make_shape(ModeTree.perfect(4), 10, 3)
        tables, root = 2 * 100 * 3, 10**4  # the root's product has 3 numbers an entry, its table 1
        assert grid_bytes(shape, 8, combination=Combination("max")) == 8 * (tables + 4 * root)
        assert grid_bytes(shape, 8, combination=Combination("max"), recording=True) == 8 * (4 * 10 * 3 + 2 * tables + 4 * root)
        assert grid_bytes(shape, 8) == 8 * (tables + 3 * 100 + root)  # products come of one matrix product

    def test_nodes_with_many_children(self):
        shape = make_shape(ModeTree.star(3), (2, 3, 4), 5)
        assert grid_bytes(shape, 4, combination=Combination("mean")) == 4 * (5 * (6 + 4 + 24) + 24)

    def test_what_fits_nowhere(self):
        assert grid_bytes(make_shape(ModeTree.perfect(16), 4, 4), 4, combination=Combination("max")) > 64 * 2**30


class TestErrors:
    shape = make_shape(ModeTree.star(2), (2, 3), 2)
    weights = tuple(torch.ones(size) for size in shape.weights)

    def test_observed_elsewhere(self):
        other = observe(make_shape(ModeTree.star(2), 2, 2), [[0, 0]])
        with pytest.raises(ValueError, match=r"observed for the factorization's own tree and sizes"):
            entries(self.shape, self.weights, other)
        there = observe(self.shape, [[0, 0]])
        with pytest.raises(ValueError, match=r"observed where the weights are; got cpu and meta"):
            entries(self.shape, [weight.to("meta") for weight in self.weights], there)

    def test_inputs_of_a_wrong_shape(self):
        with pytest.raises(ValueError, match=r"inputs need the shape 2 tensors \(B, D_n\), since mode sizes differ; got \(4, 2, 3\)"):
            forward(self.shape, self.weights, torch.ones(4, 2, 3))
        even = make_shape(ModeTree.star(2), 3, 2)
        with pytest.raises(ValueError, match=r"inputs need the shape \(B, 2, 3\); got \(4, 3, 2\)"):
            forward(even, [torch.ones(size) for size in even.weights], torch.ones(4, 3, 2))
        with pytest.raises(ValueError, match="one tensor for each of the 2 modes; got 1"):
            forward(self.shape, self.weights, [torch.ones(4, 2)])
        with pytest.raises(ValueError, match=r"inputs need the shape \(4, 3\) for mode 1; got \(5, 3\)"):
            forward(self.shape, self.weights, [torch.ones(4, 2), torch.ones(5, 3)])
        with pytest.raises(ValueError, match=r"inputs need the shape \(B, 2\) for mode 0; got \(\)"):
            forward(self.shape, self.weights, [torch.ones(()), torch.ones(5, 3)])

    def test_inputs_of_a_wrong_type(self):
        with pytest.raises(TypeError, match=r"inputs must have the weights' type torch.float32; got torch.float64 for mode 1"):
            forward(self.shape, self.weights, [torch.ones(4, 2), torch.ones(4, 3, dtype=torch.float64)])
        with pytest.raises(TypeError, match="inputs must be tensors; got list for mode 0"):
            forward(self.shape, self.weights, [[[1.0, 2.0]], torch.ones(1, 3)])
        with pytest.raises(ValueError, match=r"inputs must be on the weights' device cpu; got meta for mode 1"):
            forward(self.shape, self.weights, [torch.ones(4, 2), torch.ones(4, 3, device="meta")])

    @pytest.mark.parametrize("wrong", [None, 5, "abc", np.ones((4, 2, 3))])
    def test_no_inputs_at_all(self, wrong):
        with pytest.raises(TypeError, match=f"inputs must be a tensor, or one tensor for each mode; got {type(wrong).__name__}"):
            forward(self.shape, self.weights, wrong)

    def test_sparse_inputs(self):
        with pytest.raises(TypeError, match=r"inputs must be dense; got a tensor of the layout torch\.sparse_coo"):
            forward(self.shape, self.weights, torch.ones(4, 2, 3).to_sparse())
        with pytest.raises(TypeError, match=r"inputs for mode 1 must be dense; got a tensor of the layout torch\.sparse_coo"):
            forward(self.shape, self.weights, [torch.ones(4, 2), torch.ones(4, 3).to_sparse()])

    def test_unknown_combinations(self):
        with pytest.raises(ValueError, match="pooling must be 'product', 'max' or 'mean'; got 'sum'"):
            combination("sum")
        with pytest.raises(ValueError, match="activation must be None or 'relu'; got 'tanh'"):
            combination("max", "tanh")
        complexes = [weight.to(torch.complex64) for weight in self.weights]
        with pytest.raises(TypeError, match=r"max pooling and relu need real weights; got torch.complex64"):
            grid(self.shape, complexes, combination=Combination("max"))
