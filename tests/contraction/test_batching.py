"""Batches: what they compute on laid-out memory, against the operations one by one, both in NumPy; and which operations are joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import generators
import numpy as np
import pytest

from tensornet.contraction.adjoint import reverse
from tensornet.contraction.batching import Layout, Place, Placed, reuse
from tensornet.contraction.lowering import Operation, Program, lower
from tensornet.contraction.network import Request, make_network
from tensornet.contraction.paths import along_tree
from tensornet.contraction.plan import make_plan
from tensornet.shape import Shape, make_shape, shape_of_weights
from tensornet.tree import ModeTree

Array = np.ndarray[Any, Any]


def strided(flat: Array, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> Array:
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, [flat.itemsize * stride for stride in strides])


def computed(operation: Operation, left: Array, right: Array) -> Array:
    if operation.kind == "copy":
        return left
    return left @ right if operation.kind == "product" else (left * right).sum(operation.summed)


def one_by_one(operations: Sequence[Operation], slots: list[Array]) -> None:
    for operation in operations:
        left = strided(slots[operation.left], operation.left_view, operation.left_strides)
        right = strided(slots[operation.right], operation.right_view, operation.right_strides)
        slots.append(np.ascontiguousarray(computed(operation, left, right)).reshape(-1))


def on_buffers(steps: Sequence[Placed], buffers: Sequence[Array]) -> None:
    for step in steps:
        operation = step.operation
        left = strided(buffers[operation.left], operation.left_view, operation.left_strides, step.left)
        right = strided(buffers[operation.right], operation.right_view, operation.right_strides, step.right)
        out = strided(buffers[step.result.buffer], operation.result, step.strides, step.result.offset)
        out[...] = computed(operation, left, right)


def laid_out(shape: Shape, program: Program) -> tuple[Layout, list[Placed], list[Placed], Place, tuple[int, ...]]:
    """A contraction with its reverse: weights in buffer 0, their gradients at the same places of buffer 1, the end tensor's in 2."""
    adjoint = reverse(program, [True] * len(program.operands))
    sizes = [math.prod(size) for size in program.operands]
    order = [node for level in shape.tree.levels for node in level]  # side by side
    starts = [sum(sizes[other] for other in order[: order.index(node)]) for node in range(len(sizes))]
    layout = Layout([sum(sizes), sum(sizes), math.prod(shape.end_sizes)], [Place(0, start) for start in starts])
    forward = layout.placed(layout.add(program.operations))
    end = forward[-1].result
    layout.places[-1] = Place(2)
    targets = {slot: Place(1, start) for slot, start in zip(adjoint.gradients, starts)}
    return layout, forward, layout.placed(layout.add(adjoint.operations, targets, late=True)), end, adjoint.gradients


TREES = {
    "binary": ModeTree.perfect(8),
    "ternary": ModeTree.perfect(9, 3),
    "star": ModeTree.star(4),
    "chain": ModeTree.chain(5),
    "crossed": ModeTree.from_nested(((0, 2), (1, 3))),
    "reversed": ModeTree.from_nested(((5, 4), (3, 2), (1, 0))),
    "uneven": ModeTree.from_nested(((0, 1), (2, 3), (4, 5, 6), (7, (8, 9)))),
}


def assert_same(shape: Shape, seed: int) -> None:
    program = make_plan(shape, itemsize=8).program
    layout, forward, backward, end, gradients = laid_out(shape, program)
    rng = np.random.default_rng(seed)
    slots = [rng.standard_normal(math.prod(size)) for size in program.operands]
    direction = rng.standard_normal(math.prod(shape.end_sizes))
    memories = reuse([*forward, *backward], layout.buffers, kept=[0, 1, 2])
    assert all(layout.buffers[mine] == layout.buffers[own] for own, mine in enumerate(memories))
    own = [np.full(size, np.nan) for size in layout.buffers]
    buffers = [own[place] for place in memories]
    order = [node for level in shape.tree.levels for node in level]
    buffers[0][:], buffers[2][:] = np.concatenate([slots[node] for node in order]), direction
    on_buffers(forward, buffers)
    one_by_one(program.operations, slots)
    assert np.allclose(buffers[end.buffer], slots[-1], rtol=1e-12)
    slots[-1] = direction
    one_by_one(reverse(program, [True] * len(program.operands)).operations, slots)
    on_buffers(backward, buffers)
    assert np.allclose(buffers[1], np.concatenate([slots[gradients[node]] for node in order]), rtol=1e-10, atol=1e-10)
    assert np.array_equal(buffers[0], np.concatenate([slots[node] for node in order]))


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_batches_compute_what_the_operations_do(tree: ModeTree) -> None:
    assert_same(make_shape(tree, 2, 3), 0)


@pytest.mark.parametrize("block", range(4))
def test_batches_of_random_trees_compute_what_the_operations_do(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        tree, weights = generators.random_case(seed, max_order=7, outputs=1 + seed % 2, max_mode_size=3, max_rank=2)
        assert_same(shape_of_weights(tree, {node: weight.shape for node, weight in weights.items()}), seed)


@pytest.mark.parametrize("order", [4, 8, 9, 16])
def test_a_level_of_a_perfect_tree_is_one_matrix_product(order: int) -> None:
    """Of all its nodes with their weights; in reverse two for all nodes that are alike up to the root's child above them."""
    tree = ModeTree.perfect(order, 3 if order == 9 else 2)
    shape = make_shape(tree, 2, 8)
    network = make_network(shape, Request())
    _, forward, backward, _, _ = laid_out(shape, lower(network, along_tree(network, tree, centre=len(tree.nodes) - 1)))
    arity, counts = len(tree.children(tree.root)), [len(level) for level in tree.levels[1:-1]]
    made = [step.operation.result for step in forward if step.operation.kind == "product"]
    assert [result[0] for result in made[:-1]] == counts
    assert all(len(result) == 3 for result in made[:-1])
    reverse_products = [step for step in backward if step.operation.kind == "product"]
    assert len(reverse_products) == 2 * (1 + sum(arity**depth for depth in range(len(counts))))


def test_operations_at_unequal_distances_stay_apart() -> None:
    double = Operation("multiply", 0, 1, (2,), (2,), (1,), (2,), (1,))
    pairs = [(0, 3), (1, 4), (2, 5)]
    operations = [Operation("multiply", left, right, (2,), (2,), (1,), (2,), (1,)) for left, right in pairs]
    even = Layout([20], [Place(0, start) for start in (0, 4, 8, 10, 12, 14)])
    assert [step.operation.result for step in even.placed(even.add(operations))] == [(3, 2)]
    uneven = Layout([20], [Place(0, start) for start in (0, 4, 9, 11, 13, 15)])
    assert [step.operation.result for step in uneven.placed(uneven.add(operations))] == [(2, 2), (2,)]
    falling = Layout([20], [Place(0, start) for start in (0, 4, 8, 14, 12, 10)])
    assert [step.operation.result for step in falling.placed(falling.add(operations))] == [(2,), (2,), (2,)]
    other = Layout([20, 2], [Place(0), Place(0, 2), Place(1)])
    assert len(other.add([double, Operation("multiply", 0, 2, (2,), (2,), (1,), (2,), (1,))])) == 2


def test_a_result_that_is_read_waits_for_those_that_are_read_with_it() -> None:
    """Two sums of different shapes, whose results are multiplied by weights side by side."""
    sums = [
        Operation("multiply", 0, 1, (2,), (3, 2), (2, 1), (3, 2), (2, 1), summed=(0,)),
        Operation("multiply", 2, 3, (2,), (4, 2), (2, 1), (4, 2), (2, 1), summed=(0,)),
    ]
    products = [Operation("multiply", 6, 4, (2,), (2,), (1,), (2,), (1,)), Operation("multiply", 7, 5, (2,), (2,), (1,), (2,), (1,))]
    layout = Layout([6, 6, 8, 8, 4], [Place(0), Place(1), Place(2), Place(3), Place(4), Place(4, 2)])
    steps = layout.placed(layout.add([*sums, *products]))
    assert [step.operation.result for step in steps] == [(2,), (2,), (2, 2)]
    assert [step.result for step in steps] == [Place(5), Place(5, 2), Place(6)]
    assert layout.buffers == [6, 6, 8, 8, 4, 4, 4]


def test_what_nothing_reads_has_a_place_too() -> None:
    layout = Layout([2], [Place(0)])
    layout.add([Operation("copy", 0, 0, (2,), (2,), (1,))])
    assert layout.places == [Place(0), Place(1)]
    assert layout.buffers == [2, 2]


def test_a_result_that_several_read_has_a_place_of_its_own() -> None:
    """It is the left factor of three operations that are alike, and cannot lie three times beside itself."""
    made = Operation("multiply", 0, 0, (2,), (2,), (1,), (2,), (1,))
    readers = [Operation("multiply", 4, other, (2,), (2,), (1,), (2,), (1,)) for other in (1, 2, 3)]
    layout = Layout([8], [Place(0, start) for start in (0, 2, 4, 6)])
    steps = layout.placed(layout.add([made, *readers]))
    assert [step.operation.result for step in steps] == [(2,), (3, 2)]
    assert layout.buffers == [8, 2, 6]
    assert steps[1].operation.left_strides == (0, 1)


def test_products_that_are_batched_already_stay_alone() -> None:
    product = Operation("product", 0, 1, (2, 3, 3), (2, 3, 3), (9, 3, 1), (2, 3, 3), (9, 3, 1))
    layout = Layout([90], [Place(0, start) for start in range(0, 72, 18)])
    steps = layout.placed(layout.add([product, replace(product, left=2, right=3)]))
    assert [step.operation.result for step in steps] == [(2, 3, 3), (2, 3, 3)]
