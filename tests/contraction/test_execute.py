"""Contraction: against the dense loop, against itself in other forms, gradients, memory."""

from __future__ import annotations

from typing import Any

import generators
import numpy as np
import oracles
import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tensornet.contraction import adjoint, execute, programs
from tensornet.contraction.network import Request
from tensornet.contraction.plan import MemoryLimitError, make_plan
from tensornet.shape import Shape, make_shape, shape_of_weights
from tensornet.tree import ModeTree


def case(seed: int, **options: Any) -> tuple[Shape, list[Tensor], Tensor]:
    tree, weights = generators.random_case(seed, **options)
    shape = shape_of_weights(tree, {node: weight.shape for node, weight in weights.items()})
    return shape, [torch.from_numpy(weights[node]) for node in tree.nodes], torch.from_numpy(np.asarray(oracles.end_tensor(tree, weights)))


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("block", range(10))
def test_end_tensors_of_a_thousand_random_trees(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        outputs = 1 + seed % 3 // 2
        shape, weights, expected = case(seed, outputs=outputs, dtype=np.complex128 if seed % 7 == 0 else np.float64)
        assert close(execute.contract(shape, weights), expected), seed


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("turned", [False, True])  # gradients stored transposed, as those of large products are
def test_gradients_of_all_ways_to_run_agree(seed: int, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if turned:
        monkeypatch.setattr(adjoint, "_TURNED", 0)
    programs._bound_adjoint.cache_clear()
    shape, weights, expected = case(
        seed, max_order=6, max_rank=12, dtype=np.complex128 if seed % 5 == 0 else np.float64, outputs=1 + seed % 2
    )
    for weight in weights:
        weight.requires_grad_()
    found = execute.contract(shape, weights)
    direction = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(seed))
    gradients = torch.autograd.grad(found, weights, direction)
    plan = make_plan(shape, itemsize=found.dtype.itemsize)
    others = [programs._arranged(programs._record(plan, weights), plan)]
    try:
        cut = make_plan(shape, itemsize=found.dtype.itemsize, memory_limit=(plan.output_bytes + plan.peak_bytes) // 2)
    except MemoryLimitError:
        cut = plan
    if cut.slices:
        others += [programs.run_plan(cut, tuple(weights), None, recording=True), programs._record(cut, weights)]
    for other in others:
        assert close(other, expected)
        for left, right in zip(gradients, torch.autograd.grad(other, weights, direction)):
            assert close(left, right)


def test_slicing_is_reached_by_these_seeds() -> None:
    sliced = 0
    for seed in range(30):
        shape, *_ = case(seed, max_order=6, max_rank=12)
        plan = make_plan(shape, itemsize=8)
        try:
            sliced += bool(make_plan(shape, itemsize=8, memory_limit=(plan.output_bytes + plan.peak_bytes) // 2).slices)
        except MemoryLimitError:
            continue
    assert sliced >= 6


@pytest.mark.parametrize(
    "tree", [ModeTree.perfect(4), ModeTree.chain(4), ModeTree.star(3), ModeTree.from_nested(((0, 2), (1, [3])))], ids=repr
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradcheck_and_gradgradcheck(tree: ModeTree, dtype: torch.dtype) -> None:
    shape = make_shape(tree, 2, 2)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(size, dtype=dtype, generator=generator, requires_grad=True) for size in shape.weights]
    assert torch.autograd.gradcheck(lambda *values: execute.contract(shape, values), weights)
    assert torch.autograd.gradgradcheck(lambda *values: execute.contract(shape, values), weights)


@pytest.mark.parametrize("seed", range(40))
def test_slices_and_projections_are_those_of_the_end_tensor(seed: int) -> None:
    shape, weights, expected = case(seed, max_order=5, outputs=1 + seed % 2)
    rng = np.random.default_rng(seed)
    fixed: dict[int, int] = {}
    projected: dict[int, Tensor] = {}
    for mode in reversed(range(shape.tree.order)):
        size = shape.mode_sizes[mode]
        choice = rng.integers(4)
        if choice == 0:
            fixed[mode] = int(rng.integers(size))
            expected = expected.select(mode, fixed[mode])
        elif choice == 1:
            projected[mode] = torch.from_numpy(rng.standard_normal(size))
            expected = torch.tensordot(expected.movedim(mode, -1), projected[mode], 1)
        elif choice == 2:
            projected[mode] = torch.from_numpy(rng.standard_normal((size, 3)))
            expected = torch.tensordot(expected.movedim(mode, -1), projected[mode], 1).movedim(-1, mode)
    assert close(execute.contract(shape, weights, fixed=fixed, projected=projected), expected)


def test_projections_pass_gradients() -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 2)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(size, dtype=torch.float64, generator=generator) for size in shape.weights]
    vector = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: execute.contract(shape, weights, projected={2: v}, fixed={0: 1}), (vector,))


@pytest.mark.parametrize("seed", range(30))
def test_gram_matrices(seed: int) -> None:
    shape, weights, expected = case(seed, max_order=4, outputs=1 + seed % 2, dtype=np.complex128 if seed % 3 == 0 else np.float64)
    rng = np.random.default_rng(seed)
    modes = [mode for mode in range(shape.tree.order) if rng.integers(2)]
    others = [mode for mode in range(expected.ndim) if mode not in modes]
    matrix = expected.permute(*reversed(modes), *others).reshape(int(np.prod([shape.mode_sizes[mode] for mode in modes])), -1)
    assert close(execute.gram(shape, weights, modes), matrix @ matrix.mH)


def test_gram_of_a_tensor_that_could_not_be_formed() -> None:
    shape = make_shape(ModeTree.perfect(256), 3, 2)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(size, dtype=torch.float64, generator=generator) / 2 for size in shape.weights]
    found = execute.gram(shape, weights, [0, 1])
    ones = torch.ones(3, dtype=torch.float64)
    assert found.shape == (9, 9)
    assert bool(torch.linalg.eigvalsh(found).min() >= -1e-12 * found.diagonal().max())
    assert execute.contract(shape, weights, projected=dict.fromkeys(range(256), ones)).shape == ()


def test_out_is_written_and_returned() -> None:
    for nested in (((0, 1), (2, 3)), ((0, 2), (1, 3))):  # stored in the asked order, and permuted
        shape = make_shape(ModeTree.from_nested(nested), 3, 4)
        weights = [torch.randn(size, generator=torch.Generator().manual_seed(1)) for size in shape.weights]
        out = torch.full((3, 3, 3, 3), float("nan"))
        assert execute.contract(shape, weights, out=out) is out
        assert torch.allclose(out, execute.contract(shape, weights))


def test_out_must_fit() -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 4)
    weights = [torch.randn(size) for size in shape.weights]
    for out in (torch.empty(3, 3, 3), torch.empty(3, 3, 3, 3, dtype=torch.float64), torch.empty(3, 3, 3, 3).mT):
        with pytest.raises(ValueError, match=r"out must be a contiguous tensor of shape \(3, 3, 3, 3\)"):
            execute.contract(shape, weights, out=out)
    weights[0].requires_grad_()
    with pytest.raises(ValueError, match="out= cannot be used where gradients are recorded"):
        execute.contract(shape, weights, out=torch.empty(3, 3, 3, 3))


def test_results_are_new_tensors_that_may_be_changed() -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 4)
    weights = [torch.randn(size, requires_grad=True) for size in shape.weights]
    first = execute.contract(shape, weights)
    kept = first.detach().clone()
    execute.contract(shape, weights).mul_(2)
    assert torch.equal(first, kept)
    with torch.no_grad():
        execute.contract(shape, weights).zero_()
    assert torch.equal(execute.contract(shape, weights), kept)


def test_large_results_lie_in_their_own_memory() -> None:
    shape = make_shape(ModeTree.star(2), 3000, 2)
    weights = [torch.randn(size, generator=torch.Generator().manual_seed(1)) for size in shape.weights]
    result = execute.contract(shape, weights)
    assert result.is_contiguous()
    assert close(result, weights[0] * weights[2].T @ weights[1].T, 1e-6)
    other = execute.contract(shape, weights)
    assert other.data_ptr() != result.data_ptr()


def test_memory_limit_is_checked_before_anything_happens() -> None:
    shape = make_shape(ModeTree.perfect(64), 4, 3)
    weights = [torch.randn(size) for size in shape.weights]
    with pytest.raises(MemoryLimitError, match=r"needs about 1e39 B .* entries\(indices\)"):
        execute.contract(shape, weights)
    with pytest.raises(ValueError, match="memory_limit must be a number of bytes; got -1"):
        execute.contract(shape, weights, memory_limit=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_lower_precisions(dtype: torch.dtype) -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 4)
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(size, dtype=dtype, generator=generator) for size in shape.weights]
    wide = torch.complex128 if dtype.is_complex else torch.float64
    expected = execute.contract(shape, [weight.to(wide) for weight in weights])
    found = execute.contract(shape, weights)
    assert found.dtype == dtype
    assert close(found.to(wide), expected, 20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fixed": {0: 3}}, ValueError, "an index must be from 0 to 2; got 3 for mode 0"),
        ({"fixed": {0: 1.5}}, TypeError, "fixed needs integer indices; got 1.5 for mode 0"),
        ({"fixed": {9: 0}}, ValueError, "modes must be from 0 to 3; got 9 in fixed"),
        ({"projected": {1: torch.ones(4)}}, ValueError, r"a projection of mode 1 needs 3 rows; got shape \(4,\)"),
        ({"projected": {1: [1, 2, 3]}}, TypeError, "projected needs tensors; got list for mode 1"),
        ({"projected": {1: torch.ones(3, 0)}}, ValueError, r"got shape \(3, 0\) for mode 1"),
        ({"projected": {1: torch.ones(3, dtype=torch.float64)}}, ValueError, "projections must have the weights' dtype and device"),
        ({"fixed": {"a": 0}}, TypeError, r"modes must be integers; got \{'a': 0\} in fixed"),
        ({"fixed": {1.0: 0}}, TypeError, r"modes must be integers; got \{1.0: 0\} in fixed"),
        ({"fixed": [0]}, TypeError, "fixed must be a mapping from modes; got list"),
        ({"projected": [torch.ones(3)]}, TypeError, "projected must be a mapping from modes; got list"),
        ({"memory_limit": "1GB"}, TypeError, "memory_limit must be a number of bytes; got '1GB'"),
        ({"memory_limit": float("nan")}, ValueError, "memory_limit must be a number of bytes; got nan"),
        ({"out": [1.0]}, TypeError, "out must be a tensor; got list"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 4)
    with pytest.raises(error, match=message):
        execute.contract(shape, [torch.ones(size) for size in shape.weights], **arguments)


def test_modes_of_a_gram_matrix() -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 4)
    weights = [torch.ones(size) for size in shape.weights]
    for given in (torch.tensor([0, 1]), np.array([1, 0]), iter([0, 1])):
        assert torch.equal(execute.gram(shape, weights, given), execute.gram(shape, weights, [0, 1]))
    with pytest.raises(ValueError, match="got mode 0 twice"):
        execute.gram(shape, weights, [0, 0])
    with pytest.raises(TypeError, match="modes must be integers; got 5 in gram"):
        execute.gram(shape, weights, 5)


def test_modes_may_be_integers_of_any_kind() -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 4)
    weights = [torch.randn(size) for size in shape.weights]
    expected = execute.contract(shape, weights)[:, 2]
    for mode in (torch.tensor(1), np.int8(1)):
        assert torch.allclose(execute.contract(shape, weights, fixed={mode: 2}), expected)


@pytest.mark.parametrize("order", [9, 10, 12])
def test_all_modes_of_a_wide_node_may_be_fixed(order: int) -> None:
    shape = make_shape(ModeTree.star(order), 3, 3)
    weights = [torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) for size in shape.weights]
    found = execute.contract(shape, weights, fixed=dict.fromkeys(range(order), 0))
    assert close(found, (torch.stack([weight[0] for weight in weights[:-1]]).prod(0) @ weights[-1])[0])


def test_torch_compile_and_functorch() -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 4)
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(size, dtype=torch.float64, generator=generator) for size in shape.weights]
    expected = execute.contract(shape, weights)
    compiled = torch.compile(lambda values: execute.contract(shape, values) * 2, backend="eager")
    assert torch.allclose(compiled(weights), 2 * expected)
    batch = [torch.stack([weight, 2 * weight]) for weight in weights]
    mapped = torch.func.vmap(lambda *values: execute.contract(shape, values))(*batch)
    assert torch.allclose(mapped, torch.stack([expected, 2.0 ** len(weights) * expected]))
    gradient = torch.func.grad(lambda value: execute.contract(shape, [value, *weights[1:]]).sum())(weights[0])
    leaf = weights[0].clone().requires_grad_()
    execute.contract(shape, [leaf, *weights[1:]]).sum().backward()
    assert leaf.grad is not None
    assert torch.allclose(gradient, leaf.grad)


def test_compiled_gram_matrices() -> None:
    shape = make_shape(ModeTree.from_nested(((0, 2), (1, 3))), 3, 4)
    weights = [torch.randn(size, generator=torch.Generator().manual_seed(3)) for size in shape.weights]
    compiled = torch.compile(lambda values: execute.gram(shape, values, [0, 1]), backend="aot_eager")
    assert torch.allclose(compiled(weights), execute.gram(shape, weights, [0, 1]))


def test_second_derivatives_where_operands_depend_on_each_other() -> None:
    shape = make_shape(ModeTree.perfect(4), 2, 2)
    generator = torch.Generator().manual_seed(3)
    leaf, inner = (torch.randn(2, 2, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))
    root = torch.randn(2, 1, dtype=torch.float64, generator=generator)

    def loss(leaf: Tensor, inner: Tensor) -> Tensor:  # one weight at two nodes, and one computed from another
        return execute.contract(shape, [leaf, leaf, 2 * leaf, leaf * inner, inner, inner.T, root]).square().sum()

    once = torch.autograd.grad(loss(leaf, inner), [leaf, inner])
    again = torch.autograd.grad(loss(leaf, inner), [leaf, inner], create_graph=True)
    for left, right in zip(once, again):
        assert close(left, right.detach())
    assert torch.autograd.gradgradcheck(loss, (leaf, inner))


def test_several_gradients_at_once() -> None:
    shape = make_shape(ModeTree.perfect(4), 2, 2)
    generator = torch.Generator().manual_seed(3)
    weights = tuple(torch.randn(size, dtype=torch.float64, generator=generator, requires_grad=True) for size in shape.weights)

    def function(*values: Tensor) -> Tensor:
        return execute.contract(shape, values)

    plain = torch.autograd.functional.jacobian(function, weights)
    for left, right in zip(plain, torch.autograd.functional.jacobian(function, weights, vectorize=True)):
        assert close(left, right)


def test_autocast_does_not_change_the_precision() -> None:
    shape = make_shape(ModeTree.perfect(4), 3, 4)
    weights = [torch.randn(size, generator=torch.Generator().manual_seed(3)) for size in shape.weights]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(execute.contract(shape, weights), execute.contract(shape, weights).float())


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    shape = make_shape(ModeTree.perfect(8), 4, 16)
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(size, generator=generator, dtype=torch.float64) / 2 for size in shape.weights]
    expected = execute.contract(shape, weights)
    there = [weight.cuda().requires_grad_() for weight in weights]
    found = execute.contract(shape, there)
    assert found.is_cuda
    assert close(found.detach().cpu(), expected)
    found.square().sum().backward()
    here = [weight.requires_grad_() for weight in weights]
    execute.contract(shape, here).square().sum().backward()
    for left, right in zip(there, here):
        assert left.grad is not None
        assert right.grad is not None
        assert close(left.grad.cpu(), right.grad)


class _LiveMemory(TorchDispatchMode):
    """Largest number of bytes in storages that were made under it and live at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        arguments = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in arguments:
                storage = tensor.untyped_storage()
                self._known[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self._known = {place: known for place, known in self._known.items() if not known[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._known.values()))
        return result


@pytest.mark.parametrize(
    "tree", [ModeTree.perfect(8), ModeTree.chain(8), ModeTree.perfect(9, 3), ModeTree.star(7), ModeTree.random(8, seed=2)], ids=repr
)
def test_the_plan_states_the_true_peak(tree: ModeTree) -> None:
    shape = make_shape(tree, 3, 20)
    weights = [torch.randn(size) for size in shape.weights]
    plan = make_plan(shape)
    with _LiveMemory() as memory:
        execute.contract(shape, weights)
    assert 0.9 * plan.peak_bytes <= memory.peak <= 1.1 * plan.peak_bytes
    limit = (plan.peak_bytes + plan.output_bytes) // 2
    if limit < plan.peak_bytes:
        with _LiveMemory() as memory:
            execute.contract(shape, weights, memory_limit=limit)
        assert memory.peak <= 1.1 * limit


def test_the_peak_counts_copies_and_what_a_gradient_needs() -> None:
    tree = ModeTree.from_nested((4, ((((3, 0, 1),), 2),)))
    shape = make_shape(tree, (30, 5, 30, 1, 30), dict(zip(tree.interior, (20, 20, 1, 5, 20))))
    weights = [torch.randn(size) for size in shape.weights]
    plan = make_plan(shape, Request.make(fixed=[0, 4]))
    assert any(operation.kind == "copy" for operation in plan.program.operations)
    with _LiveMemory() as memory:
        execute.contract(shape, weights, fixed={0: 0, 4: 0})
    assert memory.peak == plan.peak_bytes
    chain = make_shape(ModeTree.chain(12), 2, 64)
    recorded = make_plan(chain, recorded=True)
    assert recorded.peak_bytes > 1.5 * make_plan(chain).peak_bytes
    weights = [torch.randn(size, requires_grad=True) for size in chain.weights]
    with _LiveMemory() as memory:
        result = execute.contract(chain, weights)
    assert 0.95 * recorded.peak_bytes <= memory.peak <= 1.05 * recorded.peak_bytes
    with pytest.raises(MemoryLimitError):
        execute.contract(chain, weights, memory_limit=result.nbytes)
