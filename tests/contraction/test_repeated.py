"""Repeated contractions: end tensors against the dense loop, gradients against those of single contractions, again and again."""

from __future__ import annotations

import generators
import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from tensornet.contraction import adjoint, execute, kernels
from tensornet.contraction.plan import MemoryLimitError
from tensornet.contraction.repeated import RepeatedContraction
from tensornet.shape import Shape, make_shape, shape_of_weights
from tensornet.tree import ModeTree, Node


def case(seed: int, *, max_order: int = 6, max_rank: int = 4) -> tuple[Shape, dict[Node, np.ndarray]]:
    tree, weights = generators.random_case(seed, max_order=max_order, max_rank=max_rank, outputs=1 + seed % 3 // 2)
    return shape_of_weights(tree, {node: weight.shape for node, weight in weights.items()}), weights


def parts(vector: Tensor, shape: Shape) -> list[Tensor]:
    sizes = [rows * columns for rows, columns in shape.weights]
    return [part.view(size) for part, size in zip(vector.split(sizes), shape.weights)]


def close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() <= 1e-10 * expected.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("block", range(4))
def test_end_tensors_and_gradients_of_random_trees(block: int) -> None:
    for seed in range(50 * block, 50 * block + 50):
        shape, weights = case(seed)
        vector = torch.from_numpy(np.concatenate([weights[node].ravel() for node in shape.tree.nodes]))
        gradients = torch.full_like(vector, float("nan"))
        repeated = RepeatedContraction(shape, vector, gradients, [True] * len(shape.weights))
        assert close(repeated.contract(), torch.from_numpy(np.asarray(oracles.end_tensor(shape.tree, weights)))), seed
        for _ in range(2):  # what is left of one time must not show the next time
            vector.copy_(torch.randn(vector.shape, dtype=vector.dtype, generator=torch.Generator().manual_seed(seed)))
            leaves = [part.clone().requires_grad_() for part in parts(vector, shape)]
            expected = execute.contract(shape, leaves)
            assert close(repeated.contract(), expected.detach()), seed
            repeated.end_gradient.copy_(torch.randn(expected.shape, dtype=vector.dtype, generator=torch.Generator().manual_seed(seed + 1)))
            repeated.pull_back()
            for found, wanted in zip(parts(gradients, shape), torch.autograd.grad(expected, leaves, repeated.end_gradient)):
                assert close(found, wanted), seed


@pytest.mark.parametrize("way", ["turned", "huge", "blocked", "crossed", "part"])
def test_gradients_in_other_memory(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored transposed, in huge pages, products in blocks of rows, the end tensor's axes in another order, parts of larger vectors."""
    if way == "turned":
        monkeypatch.setattr(adjoint, "_TURNED", 0)
    if way in ("huge", "blocked"):
        monkeypatch.setattr(kernels, f"_{way.upper()}", 1)
        monkeypatch.setattr(kernels, "_BLOCK_ROWS", 1)
    tree = ModeTree.from_nested(((0, 2), (1, 3))) if way == "crossed" else ModeTree.perfect(9, 3)
    shape = make_shape(tree, 2, 5)
    count = sum(rows * columns for rows, columns in shape.weights)
    start = 7 if way == "part" else 0
    vector, gradients = torch.randn(2, start + count, dtype=torch.float64)[:, start:]
    repeated = RepeatedContraction(shape, vector, gradients, [True] * len(shape.weights))
    leaves = [part.clone().requires_grad_() for part in parts(vector, shape)]
    expected = execute.contract(shape, leaves)
    assert repeated.contract() is repeated.end
    assert repeated.end.is_contiguous()
    assert close(repeated.end, expected.detach())
    repeated.end_gradient.copy_(torch.randn(expected.shape, dtype=torch.float64))
    repeated.pull_back()
    for found, wanted in zip(parts(gradients, shape), torch.autograd.grad(expected, leaves, repeated.end_gradient)):
        assert close(found, wanted)


@pytest.mark.parametrize("kept", range(4))
def test_what_was_overwritten_cannot_be_differentiated_by_mistake(kept: int) -> None:
    shape = make_shape(ModeTree.star(3), 3, 5)
    vector = torch.randn(50, dtype=torch.float64)
    gradients = torch.zeros_like(vector)
    repeated = RepeatedContraction(shape, vector, gradients, [node == kept for node in range(4)])
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    of_end, of_gradients = (factor * repeated.contract()).sum(), (factor * gradients).sum()
    repeated.contract()
    repeated.end_gradient.normal_()
    repeated.pull_back()
    for result in (of_end, of_gradients):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.backward()


def test_gradients_that_nobody_wants_are_left_as_they_are() -> None:
    shape = make_shape(ModeTree.perfect(8), 2, 3)
    vector = torch.randn(sum(rows * columns for rows, columns in shape.weights), dtype=torch.float64)
    every, some = (torch.full_like(vector, float("nan")) for _ in range(2))
    needed = [place % 3 == 0 for place in range(len(shape.weights))]
    for gradients, wanted in ((every, [True] * len(needed)), (some, needed)):
        repeated = RepeatedContraction(shape, vector, gradients, wanted)
        repeated.contract()
        repeated.end_gradient.fill_(1.0)
        repeated.pull_back()
    for found, expected, need in zip(parts(some, shape), parts(every, shape), needed):
        assert torch.allclose(found, expected, rtol=1e-12) if need else bool(found.isnan().all())


def test_weights_that_record_gradients_are_not_disturbed() -> None:
    shape = make_shape(ModeTree.star(2), 2, 3)
    weights = torch.nn.Parameter(torch.ones(15))
    repeated = RepeatedContraction(shape, weights, torch.zeros(15), [True] * 3)
    with torch.enable_grad():
        assert not repeated.contract().requires_grad
        weights.data.mul_(2)  # as an optimizer does
        assert torch.equal(repeated.contract(), torch.full((2, 2), 24.0))


def test_wrong_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = make_shape(ModeTree.star(2), 2, 3)
    fifteen = torch.ones(15)
    for weights, gradients, given in [
        (torch.ones(14), torch.ones(14), r"^weights must .* got torch\.float32 \(14,\) on cpu"),
        (fifteen, torch.ones(15, dtype=torch.float64), r"^gradients must be .* both alike; got torch\.float64 \(15,\)"),
        (fifteen, torch.ones(15, device="meta"), r"^gradients must be .* both alike; got .* on meta"),
        (fifteen.to(torch.complex64), fifteen.to(torch.complex64), r"^weights must be .* got torch\.complex64"),
        (fifteen.long(), fifteen.long(), r"^weights must be .* 15 real numbers, .* got torch\.int64"),
        (torch.ones(30)[::2], fifteen, r"^weights must be a contiguous vector"),
    ]:
        with pytest.raises(ValueError, match=given):
            RepeatedContraction(shape, weights, gradients, [True] * 3)
    for needed, order in (([True] * 2, None), ([True] * 4, None), ([True] * 3, [0, 1]), ([True] * 3, [0, 1, 1])):
        with pytest.raises(ValueError, match="needed and order must have every one of 3 nodes once"):
            RepeatedContraction(shape, fifteen, torch.ones(15), needed, order)
    large = make_shape(ModeTree.perfect(8), 8, 64)  # intermediate results of 4 MiB beside the end tensor
    monkeypatch.setattr(execute, "available_memory", lambda device: 66 << 20)
    vector = torch.ones(sum(rows * columns for rows, columns in large.weights))
    with pytest.raises(MemoryLimitError, match=r"repeated contractions need 64\.0 MiB for the end tensor, and more"):
        RepeatedContraction(large, vector, torch.ones_like(vector), [True] * len(large.weights))
    monkeypatch.setattr(execute, "available_memory", lambda device: 100 << 20)  # enough for one contraction, but not for its reverse
    with pytest.raises(MemoryLimitError, match=r"needs 1[3-6]\d\.\d MiB but may use 100\.0 MiB"):
        RepeatedContraction(large, vector, torch.ones_like(vector), [True] * len(large.weights))


def test_a_gradient_is_pulled_back_once_for_every_contraction() -> None:
    shape = make_shape(ModeTree.perfect(4), 2, 3)
    vector = torch.randn(sum(rows * columns for rows, columns in shape.weights), dtype=torch.float64)
    repeated = RepeatedContraction(shape, vector, torch.zeros_like(vector), [True] * len(shape.weights))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="every pull_back needs a contract before it"):
            repeated.pull_back()
        repeated.contract()
        repeated.pull_back()


@pytest.mark.parametrize("seed", range(20))
def test_weights_in_another_order(seed: int) -> None:
    shape, weights = case(seed)
    order = np.random.default_rng(seed).permutation(len(shape.weights)).tolist()
    vector = torch.from_numpy(np.concatenate([weights[shape.tree.nodes[node]].ravel() for node in order]))
    gradients = torch.zeros_like(vector)
    repeated = RepeatedContraction(shape, vector, gradients, [True] * len(order), order)
    leaves = [torch.from_numpy(weights[node]).requires_grad_() for node in shape.tree.nodes]
    expected = execute.contract(shape, leaves)
    assert close(repeated.contract(), expected.detach())
    repeated.end_gradient.fill_(1.0)
    repeated.pull_back()
    wanted = torch.autograd.grad(expected, leaves, repeated.end_gradient)
    assert close(gradients, torch.cat([wanted[node].flatten() for node in order]))
