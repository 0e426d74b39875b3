"""Sizes of factorizations: completion and checks, sizes read off weights, and default ranks that represent every tensor."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from generators import random_array, random_case
from oracles import end_tensor

from tensornet.shape import MOST_DEFAULT_WEIGHTS, Shape, make_shape, shape_of_weights
from tensornet.tree import ModeTree, RepeatedNode

TREE = ModeTree.from_nested(((0, 2), 1))


def test_sizes_of_weights():
    shape = make_shape(TREE, (2, 3, 4), {(0, 2): 5, (0, 1, 2): 6}, outputs=7)
    assert shape.weights == ((2, 5), (3, 6), (4, 5), (5, 6), (6, 7))
    assert shape.ranks == {(0, 2): 5, (0, 1, 2): 6}
    assert shape.end_sizes == (2, 3, 4, 7)
    assert make_shape(TREE, (2, 3, 4), 5).end_sizes == (2, 3, 4)


def test_ways_to_give_sizes():
    expected = make_shape(TREE, (3, 3, 3), {(0, 2): 5, (0, 1, 2): 5})
    assert make_shape(TREE, 3, 5) == expected
    assert make_shape(TREE, np.int64(3), np.int32(5), np.int8(1)) == expected
    assert make_shape(TREE, torch.Size([3, 3, 3]), {(0, 1, 2): torch.tensor(5), (0, 2): 5}) == expected
    for sizes in (np.array([2, 3, 4]), torch.tensor([2, 3, 4]), range(2, 5)):
        assert make_shape(TREE, sizes, 5) == make_shape(TREE, (2, 3, 4), 5)
    assert make_shape(TREE, np.array(3), 5) == make_shape(TREE, torch.tensor(3), 5) == expected
    assert make_shape(TREE, ranks=1).mode_sizes == (2, 2, 2)
    assert all(type(size) is int for size in make_shape(TREE, [np.int8(3)] * 3, np.int64(5)).weights[0])


def test_nodes_with_one_child_have_ranks_of_their_own():
    tree = ModeTree.from_nested([[0], [[1]]])
    ranks = {RepeatedNode((0,), 1): 2, RepeatedNode((1,), 1): 3, RepeatedNode((1,), 2): 4, (0, 1): 5}
    assert make_shape(tree, 6, ranks).weights == ((6, 2), (6, 3), (2, 5), (3, 4), (4, 5), (5, 1))


def test_shapes_can_be_compared_hashed_and_pickled():
    shape = make_shape(TREE, 3, 5)
    assert len({shape, make_shape(TREE, 3, 5), make_shape(TREE, 3, 5, 2), make_shape(TREE, 3, 6), make_shape(TREE, 4, 5)}) == 4
    assert pickle.loads(pickle.dumps(shape)) == shape
    assert hash(pickle.loads(pickle.dumps(shape))) == hash(shape)
    assert make_shape(ModeTree.star(3), 3, {(0, 1, 2): 5}) != shape
    with pytest.raises(AttributeError, match="cannot assign to field 'outputs'"):
        shape.outputs = 2


def test_shapes_are_read_off_weights():
    for seed in range(50):
        tree, weights = random_case(seed, outputs=1 + seed % 3)
        shape = shape_of_weights(tree, {node: weight.shape for node, weight in weights.items()})
        assert shape.weights == tuple(weights[node].shape for node in tree.nodes)
        assert shape == make_shape(tree, shape.mode_sizes, shape.ranks, shape.outputs)
        assert end_tensor(tree, weights).shape == shape.end_sizes


def represent(tree, targets):
    """Weights of the default ranks whose ``K`` end tensors are the ``K`` given ones (last axis), by the default ranks' construction.

    Top down: every node gets the tensors that it has to produce, one a column of its weight.
    """
    shape = make_shape(tree, targets.shape[:-1], outputs=targets.shape[-1])
    wanted = {tree.root: np.moveaxis(targets, -1, 0)}
    weights = {}
    for node in reversed(tree.nodes):
        below = tree.children(node)
        tensors = wanted[node]
        if not below:
            weights[node] = tensors.T
            continue
        sizes = [math.prod(shape.mode_sizes[mode] for mode in child) for child in below]
        free = int(np.argmax(sizes))  # this child takes what is left when the others are basis tensors
        axes = [1 + node.index(mode) for child in below for mode in child]
        parts = np.moveaxis(tensors.transpose([0, *axes]).reshape([-1, *sizes]), 1 + free, -1)
        whole = len(tensors) >= sizes[free]  # then the free child produces its basis as well
        rows, columns = [], [[] for _ in below]
        for place in itertools.product(*map(range, parts.shape[1:-1])):
            for choice in range(sizes[free] if whole else len(tensors)):
                rows.append(parts[(slice(None), *place, choice)] if whole else np.eye(len(tensors))[choice])
                units = [np.eye(size)[at] for size, at in zip(parts.shape[1:-1], place)]
                units.insert(free, np.eye(sizes[free])[choice] if whole else parts[(choice, *place)])
                for column, unit in zip(columns, units):
                    column.append(unit)
        weights[node] = np.array(rows)
        for child, column in zip(below, columns):
            wanted[child] = np.array(column).reshape([-1, *(shape.mode_sizes[mode] for mode in child)])
    assert tuple(weights[node].shape for node in tree.nodes) == shape.weights
    return weights


def test_default_ranks_represent_every_tensor():
    rng = np.random.default_rng(0)
    for seed in range(40):
        tree, weights = random_case(seed, max_mode_size=3)
        sizes = [weights[leaf].shape[0] for leaf in tree.leaves]
        for outputs in (1, 2, 5):
            targets = random_array(rng, (*sizes, outputs))
            found = end_tensor(tree, represent(tree, targets))
            np.testing.assert_allclose(found.reshape(targets.shape), targets, atol=1e-12)


def test_default_ranks_by_hand():
    assert make_shape(ModeTree.star(2), (3, 5)).rank_sizes == (3,)
    assert make_shape(ModeTree.star(3), (3, 5, 4)).rank_sizes == (12,)
    assert make_shape(ModeTree.star(2), (3, 5), outputs=2).rank_sizes == (6,)
    assert make_shape(ModeTree.star(2), (3, 5), outputs=99).rank_sizes == (15,)
    assert make_shape(ModeTree.perfect(4)).ranks == {(0, 1): 4, (2, 3): 4, (0, 1, 2, 3): 4}
    assert make_shape(ModeTree.chain(4)).ranks == {(0, 1): 4, (0, 1, 2): 4, (0, 1, 2, 3): 2}


def test_enormous_default_ranks_are_refused():
    assert sum(map(math.prod, make_shape(ModeTree.perfect(16), 3).weights)) < MOST_DEFAULT_WEIGHTS
    with pytest.raises(ValueError, match=r"need about 1e9 weights \(ranks up to 65536\); give smaller ones with ranks="):
        make_shape(ModeTree.perfect(16), 4)
    with pytest.raises(ValueError, match=r"need about 1e\d+ weights \(ranks up to about 1e\d+\); give smaller ones with ranks="):
        make_shape(ModeTree.chain(3000))
    assert len(make_shape(ModeTree.chain(3000), ranks=2).rank_sizes) == 2999


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((((0, 1), 2),), TypeError, r"tree must be a ModeTree; got tuple \(ModeTree.from_nested makes one of nested tuples\)"),
        ((TREE, [2, 3]), ValueError, "mode_sizes needs one size per mode; got 2 for 3 modes"),
        ((TREE, [2, 3, 0]), ValueError, r"mode_sizes\[2\] must be at least 1; got 0"),
        ((TREE, [2, 3, 4.0]), TypeError, r"mode_sizes\[2\] must be an integer; got 4.0 of type float"),
        ((TREE, -1), ValueError, "mode_sizes must be at least 1; got -1"),
        ((TREE, True), TypeError, "mode_sizes must be an integer; got True of type bool"),
        ((TREE, np.array([2.0, 3.0, 4.0])), TypeError, r"mode_sizes\[0\] must be an integer; got 2.0 of type float"),
        ((TREE, torch.tensor([True] * 3)), TypeError, r"mode_sizes\[0\] must be an integer; got True of type bool"),
        ((TREE, np.ones((3, 2), int)), TypeError, r"mode_sizes\[0\] must be an integer; got \[1, 1\] of type list"),
        ((TREE, {2, 3}), TypeError, r"mode_sizes must be an integer; got \{2, 3\} of type set"),
        ((TREE, 2, np.ones(40, int)), TypeError, r"ranks must be an integer; got array\(\[1, 1, .*\.\.\. of type ndarray$"),
        ((TREE, 2, 0), ValueError, "ranks must be at least 1; got 0"),
        ((TREE, 2, [3, 3]), TypeError, r"ranks must be an integer; got \[3, 3\] of type list"),
        ((TREE, 2, {(0, 2): 3}), ValueError, r"ranks needs one entry per interior node; got 1 for 2 nodes \(missing \(0, 1, 2\)\)"),
        ((TREE, 2, {(0, 2): 3, (0, 1, 2): 3, (1,): 3}), ValueError, r"one entry per interior node; got 3 for 2 nodes \(\(1,\) is a leaf\)"),
        ((TREE, 2, {(0, 1): 3}), ValueError, r"\(0, 1\) is not a node of this tree"),
        ((TREE, 2, {(0, 2): 3, (0, 1, 2): 0}), ValueError, r"ranks\[\(0, 1, 2\)\] must be at least 1; got 0"),
        ((TREE, 2, {(0, 2): "3", (0, 1, 2): 1}), TypeError, r"ranks\[\(0, 2\)\] must be an integer; got '3' of type str"),
        ((TREE, 2, 3, 0), ValueError, "outputs must be at least 1; got 0"),
        ((TREE, 2, 3, 1.5), TypeError, "outputs must be an integer; got 1.5 of type float"),
    ],
)
def test_wrong_sizes_are_refused(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        make_shape(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sizes", [((2, 2), (3, 3), 1), ((2, 2, 2), (3,), 1), ((2, 2, 0), (3, 3), 1), ((2, 2, 2), (3, -1), 1), ((2, 2, 2), (3, 3), 0)]
)
def test_shapes_check_themselves(sizes):
    with pytest.raises(ValueError, match=r"a shape needs \(mode sizes, ranks\) of the numbers \(3, 2\), and every size at least 1; got"):
        Shape(TREE, *sizes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({(0,): (2, 3), (1,): (2, 3)}, r"weights needs one matrix per node; got 2 for 3 nodes \(missing \(0, 1\)\)"),
        ({(0,): (2, 3), (1,): (2, 3), (0, 1): (3, 1), (0, 2): (3, 1)}, r"\(0, 2\) is not a node of this tree"),
        ({(0,): (2, 3), (1,): (2, 3), (0, 1): (3,)}, r"must be a non-empty matrix .*; got the shape \(3,\) for node \(0, 1\)"),
        ({(0,): (0, 3), (1,): (2, 3), (0, 1): (3, 1)}, r"must be a non-empty matrix .*; got the shape \(0, 3\) for node \(0,\)"),
        ({(0,): (2, 3), (1,): (2, 4), (0, 1): (3, 1)}, r"got \(2, 4\) for node \(1,\) and \(3, 1\) for its parent \(0, 1\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        shape_of_weights(ModeTree.star(2), sizes)


def test_weights_of_no_tree_are_refused():
    with pytest.raises(TypeError, match="tree must be a ModeTree; got str"):
        shape_of_weights("star", {})
