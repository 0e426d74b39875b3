"""Plans: valid for the einsum they state, cheap to make, never worse than the generic searches, within the limit."""

from __future__ import annotations

import time

import generators
import numpy as np
import opt_einsum
import oracles
import pytest

from tensornet.contraction.costs import CPU, CUDA
from tensornet.contraction.network import Request
from tensornet.contraction.plan import MemoryLimitError, Plan, count, make_plan, memory
from tensornet.shape import make_shape, shape_of_weights
from tensornet.tree import ModeTree

TREES = {
    "binary": ModeTree.perfect(8),
    "ternary": ModeTree.perfect(9, arity=3),
    "chain": ModeTree.chain(8),
    "star": ModeTree.star(6),
    "crossed": ModeTree.from_nested(((0, 2), (1, 3))),
    "unary": ModeTree.from_nested(([[0]], [(1, 2)])),
    "random": ModeTree.random(9, seed=3),
}


@pytest.mark.parametrize("seed", range(20))
def test_equation_and_path_contract_the_weights_to_the_end_tensor(seed: int) -> None:
    tree, weights = generators.random_case(seed, max_order=6)
    plan = make_plan(shape_of_weights(tree, {node: weight.shape for node, weight in weights.items()}), itemsize=8)
    operands = [weights[node] for node in tree.nodes]
    expected = oracles.end_tensor(tree, weights)
    for optimize in (list(plan.path), True):
        found = opt_einsum.contract(plan.equation, *operands, optimize=optimize)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TREES)
def test_flops_are_those_that_opt_einsum_counts(name: str) -> None:
    shape = make_shape(TREES[name], 3, 4)
    plan = make_plan(shape)
    views = [
        np.empty(tuple(plan.network.sizes[label] for label in labels) + ((1,) if place in plan.network.scalar_roots else ()))
        for place, labels in enumerate(plan.network.operands)
    ]
    _, info = opt_einsum.contract_path(plan.equation, *views, optimize=list(plan.path))
    # opt_einsum counts the root's column as summed in the step that uses the root: twice our operations there
    assert plan.flops <= float(info.opt_cost) <= 1.5 * plan.flops


@pytest.mark.parametrize("name", TREES)
def test_never_dearer_than_the_generic_searches(name: str) -> None:
    shape = make_shape(TREES[name], 4, 16)
    plan = make_plan(shape)
    network = plan.network
    inputs = [frozenset(labels) for labels in network.operands]
    for search in (opt_einsum.paths.greedy, opt_einsum.paths.auto):
        path = search(inputs, frozenset(network.output), dict(network.sizes))
        views = [np.empty(tuple(network.sizes[label] for label in labels)) for labels in network.operands]
        words = ",".join("".join(opt_einsum.get_symbol(label) for label in labels) for labels in network.operands)
        equation = words + "->" + "".join(opt_einsum.get_symbol(label) for label in network.output)
        _, info = opt_einsum.contract_path(equation, *views, optimize=path)
        assert plan.flops <= 1.05 * float(info.opt_cost)


def test_a_chain_is_split_in_two_halves() -> None:
    shape = make_shape(ModeTree.chain(8), mode_sizes=6, ranks=64)
    plan = make_plan(shape)
    assert plan.flops < 1.2 * 2 * 64 * 6**8  # one product of two halves
    bottom_up = 2 * 64 * 64 * 6**7
    assert plan.flops < bottom_up / 4


def test_planning_a_thousand_modes_takes_milliseconds() -> None:
    shape = make_shape(ModeTree.perfect(1024), mode_sizes=2, ranks=8)
    request = Request.make(fixed=range(1014))
    start = time.perf_counter()
    plan = make_plan(shape, request)
    assert time.perf_counter() - start < 2.0  # tens of milliseconds on an idle machine
    assert plan.network.output == tuple(range(1014, 1024))
    assert plan.peak_bytes < 1 << 20
    huge = make_plan(shape)
    assert huge.output_bytes == 4 * 2**1024
    assert "1e308 B" in str(huge)


def test_peak_and_live_memory_of_a_known_case() -> None:
    plan = make_plan(make_shape(ModeTree.star(2), 4, 5))
    # weight times root (20 numbers), then the 16 entries of the result while the product is alive
    assert [step.live_bytes for step in plan.steps] == [80, 144]
    assert plan.peak_bytes == 144
    assert plan.output_bytes == 64


def test_memory_limit_slices_and_then_refuses() -> None:
    shape = make_shape(ModeTree.from_nested(((0, 1), (2, 3))), mode_sizes=4, ranks=200)
    free = make_plan(shape)
    assert not free.slices
    limit = free.output_bytes + (free.peak_bytes - free.output_bytes) // 3
    sliced = make_plan(shape, memory_limit=limit)
    assert sliced.peak_bytes <= limit < free.peak_bytes
    assert sliced.slice_count > 1
    assert sliced.flops >= free.flops
    assert "slices" in str(sliced)
    with pytest.raises(MemoryLimitError, match=r"needs .* but may use 100 B; entries\(indices\)"):
        make_plan(shape, memory_limit=100)


def test_plans_are_cached_and_print_a_line_a_step() -> None:
    shape = make_shape(ModeTree.perfect(8), 2, 3)
    plan = make_plan(shape)
    assert make_plan(make_shape(ModeTree.perfect(8), 2, 3)) is plan
    table = str(plan).splitlines()
    assert sum(line.startswith("#") for line in table) == len(plan.steps) == 14
    assert plan.equation in str(plan)


def test_rates_of_a_gpu_are_used_when_asked() -> None:
    shape = make_shape(ModeTree.perfect(8), 8, 64)
    assert make_plan(shape, machine=CUDA).seconds < make_plan(shape, machine=CPU).seconds


def test_more_than_52_labels() -> None:
    plan = make_plan(make_shape(ModeTree.perfect(64), 2, 3), Request.make(fixed=range(60)))
    assert len(set(plan.equation) - set(",->")) > 52


def test_numbers_for_people() -> None:
    assert [memory(1), memory(1024), memory(10 * 2**30)] == ["1 B", "1.0 KiB", "10.0 GiB"]
    assert [count(99_999), count(10**400)] == ["99999", "about 1e400"]
    assert isinstance(make_plan(make_shape(ModeTree.star(1), 3, 2)), Plan)


def test_of_paths_that_cost_the_same_the_one_towards_the_root_is_taken() -> None:
    """Its branches are alike, whatever the last digits of a sum of times say."""
    for size, rank in ((8, 512), (4, 100), (6, 64)):
        assert make_plan(make_shape(ModeTree.perfect(4), size, rank), recorded=True).source == "along the tree, centre (0, 1, 2, 3)"
