"""Reversed programs: what they compute is tested with execute; here their shape."""

from __future__ import annotations

import math

import pytest

from tensornet.contraction.adjoint import reverse
from tensornet.contraction.plan import make_plan
from tensornet.shape import make_shape
from tensornet.tree import ModeTree

TREES = [ModeTree.perfect(8), ModeTree.chain(6), ModeTree.star(5), *(ModeTree.random(7, seed=seed) for seed in range(8))]


@pytest.mark.parametrize("tree", TREES, ids=repr)
def test_gradients_have_the_sizes_of_their_operands(tree: ModeTree) -> None:
    program = make_plan(make_shape(tree, 3, 5)).program
    adjoint = reverse(program, [True] * len(program.operands))
    first = len(program.operands) + len(program.operations)
    made = {first + place: math.prod(operation.result) for place, operation in enumerate(adjoint.operations)}
    assert [made[slot] for slot in adjoint.gradients] == [math.prod(shape) for shape in program.operands]


@pytest.mark.parametrize("tree", TREES, ids=repr)
def test_products_cost_at_most_twice_the_forward_ones(tree: ModeTree) -> None:
    program = make_plan(make_shape(tree, 3, 5)).program
    work = [
        sum(math.prod(operation.result) * operation.left_view[-1] for operation in operations if operation.kind == "product")
        for operations in (program.operations, reverse(program, [True] * len(program.operands)).operations)
    ]
    assert work[1] == 2 * work[0]


def test_only_what_is_needed_is_computed() -> None:
    program = make_plan(make_shape(ModeTree.perfect(8), 3, 5)).program
    everything = reverse(program, [True] * 15)
    one = reverse(program, [True] + [False] * 14)
    assert [slot >= 0 for slot in one.gradients] == [True] + [False] * 14
    assert len(one.operations) <= len(everything.operations) // 2
    none = reverse(program, [False] * 15)
    assert none.operations == ()
    assert none.gradients == (-1,) * 15


def test_results_are_freed_and_gradients_kept() -> None:
    program = make_plan(make_shape(ModeTree.chain(6), 3, 5)).program
    adjoint = reverse(program, [True] * len(program.operands))
    freed = [slot for slots in adjoint.last_use for slot in slots]
    assert len(freed) == len(set(freed))
    result = len(program.operands) + len(program.operations) - 1  # its place is taken by the gradient that is given
    assert not {*adjoint.gradients, result} & set(freed)
    assert set(range(len(program.operands), result)) <= set(freed)
