"""Paths along the tree."""

from __future__ import annotations

import time

import numpy as np
import opt_einsum
import pytest

from tensornet.contraction.network import Request, make_network
from tensornet.contraction.paths import along_tree, apart, centres, span
from tensornet.shape import make_shape
from tensornet.tree import ModeTree

TREES = {
    "binary": ModeTree.perfect(8),
    "ternary": ModeTree.perfect(9, arity=3),
    "chain": ModeTree.chain(8),
    "star": ModeTree.star(6),
    "crossed": ModeTree.from_nested(((0, 2), (1, 3))),
    "unary": ModeTree.from_nested(([[0]], [(1, 2)])),
    "random": ModeTree.random(9, seed=3),
    "wide": ModeTree.star(14),
}


@pytest.mark.parametrize("name", TREES)
def test_every_candidate_joins_every_tensor_once(name: str) -> None:
    tree = TREES[name]
    for request in (Request(), Request.make(fixed=[0]), Request.make(projected={0: 0, 1: 2}), Request.make(gram=[0])):
        network = make_network(make_shape(tree, 2, 3), request)
        for centre in centres(network, tree, most=100):
            path = along_tree(network, tree, centre)
            joined = [place for pair in path for place in pair]
            assert len(path) == len(network.operands) - 1
            assert sorted(joined) == list(range(len(network.operands) + len(path) - 1))


@pytest.mark.parametrize("name", ["binary", "crossed", "unary", "random"])
def test_every_candidate_gives_the_end_tensor(name: str) -> None:
    tree = TREES[name]
    network = make_network(make_shape(tree, 2, 3), Request())
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal([network.sizes[label] for label in labels]) for labels in network.operands]
    words = ["".join(opt_einsum.get_symbol(label) for label in labels) for labels in (*network.operands, network.output)]
    equation = ",".join(words[:-1]) + "->" + words[-1]
    expected = opt_einsum.contract(equation, *operands, optimize="greedy")
    for centre in centres(network, tree, most=100):
        linear = opt_einsum.paths.ssa_to_linear(along_tree(network, tree, centre))
        np.testing.assert_allclose(opt_einsum.contract(equation, *operands, optimize=linear), expected)


def test_the_root_is_always_tried_and_the_middle_of_a_chain_next() -> None:
    tree = ModeTree.chain(9)
    network = make_network(make_shape(tree, 3, 4), Request())
    assert [len(tree.nodes[centre]) for centre in centres(network, tree, most=3)] in ([9, 5, 6], [9, 5, 4])
    modes_left = make_network(make_shape(tree, 3, 4), Request.make(fixed=range(6)))
    assert len(tree.nodes[centres(modes_left, tree, most=2)[1]]) == 8  # between the three modes that are left


def test_ranges_of_axes() -> None:
    positions = {0: 0, 1: 1, 2: 2}
    assert apart(span((9,), positions), span((0, 1, 2), positions))
    assert apart(span((2,), positions), span((1, 0), positions))
    assert not apart(span((0, 2), positions), span((1,), positions))


@pytest.mark.parametrize("order", [9, 10, 40])
def test_many_tensors_without_entries_of_their_own_are_joined(order: int) -> None:
    shape = make_shape(ModeTree.star(order), 2, 3)
    network = make_network(shape, Request.make(fixed=range(order)))  # only the shared rank index is left
    assert len(along_tree(network, shape.tree, order)) == order


def test_paths_of_large_trees_take_linear_time() -> None:
    for tree in (ModeTree.chain(4096), ModeTree.star(4096), ModeTree.perfect(4096)):
        network = make_network(make_shape(tree, 2, 3), Request())
        start = time.perf_counter()
        along_tree(network, tree, len(tree.nodes) - 1)
        assert time.perf_counter() - start < 10  # two tenths of a second on an idle machine; a quadratic search takes a minute
