"""Layouts: no copies of large tensors. That programs compute the right thing is tested with execute."""

from __future__ import annotations

import math

import pytest

from tensornet.contraction.lowering import lower
from tensornet.contraction.network import Request
from tensornet.contraction.plan import make_plan
from tensornet.shape import make_shape
from tensornet.tree import ModeTree


@pytest.mark.parametrize("name", ["binary", "chain", "ternary"])
def test_no_copies_where_modes_do_not_cross(name: str) -> None:
    tree = {"binary": ModeTree.perfect(8), "chain": ModeTree.chain(8), "ternary": ModeTree.perfect(9, 3)}[name]
    program = make_plan(make_shape(tree, 3, 20)).program
    assert not program.permutation
    assert all(operation.kind != "copy" for operation in program.operations)


def test_no_copies_of_intermediate_results_where_modes_cross() -> None:
    for seed in range(20):
        tree = ModeTree.random(7, seed=seed)
        program = make_plan(make_shape(tree, 3, 20)).program
        copied = [math.prod(operation.result) for operation in program.operations if operation.kind == "copy"]
        assert sum(copied) <= 0.1 * 3**7


def test_memory_is_given_back_as_soon_as_possible() -> None:
    program = make_plan(make_shape(ModeTree.perfect(8), 3, 20)).program
    freed = [slot for slots in program.last_use for slot in slots]
    results = range(len(program.operands), len(program.operands) + len(program.operations) - 1)
    assert sorted(freed) == list(results)


def test_sizes_of_a_slice() -> None:
    plan = make_plan(make_shape(ModeTree.star(3), 4, 5), Request.make(fixed=[2]))
    assert plan.program.output_sizes == (4, 4)
    assert lower(plan.network, plan.ssa_path, {**plan.network.sizes, 0: 2}).output_sizes == (2, 4)
