"""The backward pass that is written out, against automatic differentiation of the recursion of Appendix A, sample by sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from generators import random_case

from tensornet.evaluation import folding, sweep
from tensornet.evaluation.circuit import Combination, entries, forward, grid
from tensornet.shape import make_shape, shape_of_weights
from tensornet.tree import ModeTree

DTYPES = [torch.float64, torch.complex128]
SHAPES = {
    "perfect": make_shape(ModeTree.perfect(8), 3, 4),  # tables of all entries below, of samples above
    "wide modes": make_shape(ModeTree.perfect(4), 50, 3),  # leaves of which few rows are wanted
    "outputs": make_shape(ModeTree.perfect(4), 4, 3, outputs=3),
    "one product": make_shape(ModeTree.star(2), 5, 6),  # all entries as one matrix product
    "star": make_shape(ModeTree.star(5), (2, 3, 4, 5, 6), 3, outputs=2),
    "chain": make_shape(ModeTree.chain(6), 3, 4),
    "crossed": make_shape(ModeTree.from_nested((((4, 0), 2), [5], (1, 3))), (2, 5, 3, 2, 4, 3), 3),
}


def drawn(shape, dtype, samples=70):
    """Weights, indices and inputs, all but the indices requiring gradients."""
    weights = [torch.randn(size, dtype=dtype).requires_grad_() for size in shape.weights]
    indices = torch.stack([torch.randint(0, size, (samples,)) for size in shape.mode_sizes], 1)
    indices[samples // 2 :, :2] = indices[0, :2].clone()
    inputs = [torch.randn(samples, size, dtype=dtype).requires_grad_() for size in shape.mode_sizes]
    return weights, indices, inputs


def recursion(shape, weights, leaves):
    """The network on rows of the leaves, node by node in torch's own operations."""
    rows = list(leaves)
    for node, below in enumerate(shape.tree.child_ids):
        if below:
            rows.append(math.prod(rows[child] for child in below[1:]) * rows[below[0]] @ weights[node])
    return rows[-1].squeeze(1) if shape.outputs == 1 else rows[-1]


def plain_entries(shape, weights, indices):
    return recursion(shape, weights, [weights[mode][indices[:, mode]] for mode in range(shape.tree.order)])


def plain_forward(shape, weights, inputs):
    return recursion(shape, weights, [given @ weights[mode] for mode, given in enumerate(inputs)])


def agree(found, wanted):
    assert len(found) == len(wanted)
    for first, second in zip(found, wanted):
        assert first.shape == second.shape
        assert (first - second).abs().max() <= 1e-10 * max(second.abs().max().item(), 1e-30)


def gradients(values, tensors, **options):
    """Those of a fixed mixture of all values."""
    mix = torch.cos(torch.arange(values.numel(), dtype=torch.float64)).view(values.shape).to(values.dtype)
    return torch.autograd.grad(values, tensors, mix, **options)


@pytest.fixture(params=["at once", "in chunks", "one by one"])
def way(request, monkeypatch):
    """Samples at once or in chunks; large weights one by one."""
    if request.param == "in chunks":
        monkeypatch.setattr(folding, "_most_kept", lambda device, steps: 300)
    if request.param == "one by one":
        monkeypatch.setattr(sweep, "LARGE", 0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
class TestAgainstAutomaticDifferentiation:
    def test_entries(self, shape, dtype):
        weights, indices, _ = drawn(shape, dtype)
        found, wanted = entries(shape, weights, indices), plain_entries(shape, weights, indices)
        agree([found, *gradients(found, weights)], [wanted, *gradients(wanted, weights)])

    def test_forward(self, shape, dtype):
        weights, _, inputs = drawn(shape, dtype)
        found, wanted = forward(shape, weights, inputs), plain_forward(shape, weights, inputs)
        agree([found, *gradients(found, weights + inputs)], [wanted, *gradients(wanted, weights + inputs)])

    def test_logarithms(self, shape, dtype):
        weights, indices, inputs = drawn(shape, dtype)
        _, found = forward(shape, weights, inputs, log=True)
        wanted = plain_forward(shape, weights, inputs).abs().log()
        agree([found, *gradients(found, weights + inputs)], [wanted, *gradients(wanted, weights + inputs)])
        _, found = entries(shape, weights, indices, log=True)
        wanted = plain_entries(shape, weights, indices).abs().log()
        agree([found, *gradients(found, weights)], [wanted, *gradients(wanted, weights)])

    def test_gradients_of_gradients(self, shape, dtype):
        weights, _, inputs = drawn(shape, dtype, samples=20)
        tensors = weights + inputs

        def penalty(values):
            return sum(gradient.abs().square().sum() for gradient in gradients(values, tensors, create_graph=True))

        found = torch.autograd.grad(penalty(forward(shape, weights, inputs)), tensors)
        agree(found, torch.autograd.grad(penalty(plain_forward(shape, weights, inputs)), tensors))


def test_random_trees():
    for seed in range(60):
        tree, arrays = random_case(seed, max_order=7, outputs=1 + seed % 2, dtype=(np.float64, np.complex128)[seed % 2])
        shape = shape_of_weights(tree, {node: array.shape for node, array in arrays.items()})
        weights, indices, inputs = drawn(shape, DTYPES[seed % 2], samples=1 + seed)
        agree(gradients(entries(shape, weights, indices), weights), gradients(plain_entries(shape, weights, indices), weights))
        tensors = weights + inputs
        agree(gradients(forward(shape, weights, inputs), tensors), gradients(plain_forward(shape, weights, inputs), tensors))


@pytest.mark.parametrize("samples", [10, 400])
def test_shared_weights(samples):
    shape = SHAPES["wide modes"]
    weights, indices, _ = drawn(shape, torch.float64, samples)
    weights = [weights[0]] * 4 + [weights[4]] * 2 + weights[6:]
    different = [weights[0], weights[4], weights[6]]
    agree(gradients(entries(shape, weights, indices), different), gradients(plain_entries(shape, weights, indices), different))


def test_all_entries():
    shape = SHAPES["crossed"]
    weights, _, _ = drawn(shape, torch.float64)
    everywhere = torch.cartesian_prod(*map(torch.arange, shape.mode_sizes))
    agree(gradients(grid(shape, weights), weights), gradients(plain_entries(shape, weights, everywhere), weights))


@pytest.mark.parametrize("length", [50, 500, 5000])
def test_chunks_change_nothing(length, monkeypatch):
    shape = SHAPES["perfect"]
    weights, indices, inputs = drawn(shape, torch.float64, samples=200)

    def run():
        values = entries(shape, weights, indices), forward(shape, weights, inputs)
        return [*values, *gradients(values[0], weights), *gradients(values[1], weights + inputs)]

    whole = run()
    monkeypatch.setattr(folding, "_most_kept", lambda device, steps: length)
    assert len(folding.every_sample(shape, 200, torch.device("cpu")).bounds) > 1
    agree(run(), whole)


@pytest.mark.parametrize("order", [2000])
def test_gradients_of_many_modes_are_in_range(order):
    """Each of the entries, products of numbers near 2**-5, is far below what float32 holds; derivatives of their logarithms are not."""
    shape = make_shape(ModeTree.balanced(order), 2, 1)
    weights = [(torch.rand(size) / 16 + 1 / 64).requires_grad_() for size in shape.weights]
    indices = torch.zeros(3, order, dtype=torch.int64)
    _, logarithms = entries(shape, weights, indices, log=True)
    for weight, gradient in zip(weights, torch.autograd.grad(logarithms.sum(), weights)):
        torch.testing.assert_close(gradient[0], 3 / weight[0].detach())


class TestGraph:
    shape = SHAPES["outputs"]

    def test_nothing_is_kept_without_gradients(self):
        weights, indices, _ = drawn(self.shape, torch.float64)
        with torch.no_grad():
            assert entries(self.shape, weights, indices).grad_fn is None
        assert entries(self.shape, [weight.detach() for weight in weights], indices).grad_fn is None

    def test_a_second_pass_backwards_is_refused_as_torch_does(self):
        weights, indices, _ = drawn(self.shape, torch.float64)
        loss = entries(self.shape, weights, indices).sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            loss.backward()

    @pytest.mark.parametrize("node", [0, -1])
    def test_weights_changed_in_between_are_noticed(self, node):
        weights, indices, _ = drawn(self.shape, torch.float64)
        loss = entries(self.shape, weights, indices).sum()
        with torch.no_grad():
            weights[node].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_other_poolings_are_left_to_automatic_differentiation(self):
        weights, indices, _ = drawn(self.shape, torch.float64, samples=5)
        rule = Combination("max", "relu")
        assert torch.autograd.gradcheck(lambda *given: entries(self.shape, given, indices, combination=rule), weights)
