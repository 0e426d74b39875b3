"""Mode trees: Definition 1 on every builder, the paper's trees by hand, names of single-child nodes, size, immutability, bad input."""

from __future__ import annotations

import ast
import copy
import itertools
import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from tensornet.tree import ModeTree, RepeatedNode

BUILT = {
    "star": ModeTree.star(5),
    "star of one": ModeTree.star(1),
    "perfect": ModeTree.perfect(8),
    "perfect of arity 3": ModeTree.perfect(27, arity=3),
    "balanced": ModeTree.balanced(11),
    "balanced of arity 4": ModeTree.balanced(23, arity=4),
    "balanced of one": ModeTree.balanced(1),
    "chain": ModeTree.chain(6),
    "nested": ModeTree.from_nested(((0, 2), (1, (3, 4)))),
    "single children": ModeTree.from_nested([[[[0]], [[1, 2]]]]),
    "grid": ModeTree.grid((5, 7), window=(2, 3)),
    "line": ModeTree.grid((6,), window=4),
    "volume": ModeTree.grid((3, 2, 4)),
    "pixel": ModeTree.grid((1, 1)),
    **{f"random {seed}": ModeTree.random(1 + seed, max_arity=2 + seed % 4, seed=seed, unary=0.1 * (seed % 5)) for seed in range(30)},
}


@pytest.mark.parametrize("tree", BUILT.values(), ids=BUILT)
def test_definition_1_holds(tree):
    assert tree.leaves == tuple((mode,) for mode in range(tree.order))
    assert tree.nodes == tree.leaves + tree.interior
    assert len(set(tree.nodes)) == len(tree.nodes)
    assert tuple(tree.root) == tuple(range(tree.order))
    assert [node for node in tree.nodes if not tree.children(node)] == list(tree.leaves)
    for node in tree.interior:
        assert sorted(mode for child in tree.children(node) for mode in child) == list(node)
        assert all(isinstance(mode, int) for mode in node)
    assert [tree.id(node) for node in tree.nodes] == list(range(len(tree.nodes)))


@pytest.mark.parametrize("tree", BUILT.values(), ids=BUILT)
def test_children_come_before_parents_and_know_each_other(tree):
    assert tree.parent(tree.root) is None
    assert tree.parent_ids[-1] == -1
    for place, node in enumerate(tree.nodes):
        assert tree.children(node) == tuple(tree.nodes[child] for child in tree.child_ids[place])
        for child in tree.child_ids[place]:
            assert child < place
            assert tree.parent_ids[child] == place
            assert tree.parent(tree.nodes[child]) == node
    assert Counter(child for below in tree.child_ids for child in below) == Counter(range(len(tree.nodes) - 1))


@pytest.mark.parametrize("tree", BUILT.values(), ids=BUILT)
def test_levels_are_heights(tree):
    def height(node):
        return max((1 + height(child) for child in tree.child_ids[node]), default=0)

    assert sorted(itertools.chain.from_iterable(tree.levels)) == list(range(len(tree.nodes)))
    assert all(height(node) == level for level, found in enumerate(tree.levels) for node in found)
    assert tree.levels[-1] == (len(tree.nodes) - 1,)


@pytest.mark.parametrize("tree", BUILT.values(), ids=BUILT)
def test_trees_can_be_rebuilt_copied_and_pickled(tree):
    copies = ModeTree.from_nested(tree.to_nested()), copy.copy(tree), copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))
    for other in copies:
        assert other == tree
        assert hash(other) == hash(tree)
        assert other.nodes == tree.nodes
        assert str(other) == str(tree)


def test_trees_by_hand():
    assert ModeTree.star(4).to_nested() == (0, 1, 2, 3)
    assert ModeTree.perfect(4).to_nested() == ((0, 1), (2, 3))
    assert ModeTree.perfect(2).to_nested() == (0, 1)
    assert ModeTree.perfect(9, arity=3).to_nested() == ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    assert ModeTree.perfect(5, arity=5).to_nested() == (0, 1, 2, 3, 4)
    assert ModeTree.balanced(3).to_nested() == ((0, 1), 2)
    assert ModeTree.balanced(7, arity=3).to_nested() == ((0, 1, 2), (3, 4), (5, 6))
    assert ModeTree.chain(2).to_nested() == (0, 1)
    assert ModeTree.chain(5).to_nested() == ((((0, 1), 2), 3), 4)
    assert ModeTree.from_nested([2, [1, 0]]).to_nested() == (2, (1, 0))
    assert ModeTree.from_nested([range(3), range(3, 5)]).interior == ((0, 1, 2), (3, 4), (0, 1, 2, 3, 4))
    assert ModeTree.chain(4).interior == ((0, 1), (0, 1, 2), (0, 1, 2, 3))


@pytest.mark.parametrize("arity", [2, 3, 5])
def test_perfect_trees_are_perfect(arity):
    for depth in (1, 2, 3):
        tree = ModeTree.perfect(arity**depth, arity)
        assert [len(level) for level in tree.levels] == [arity ** (depth - level) for level in range(depth + 1)]
        assert all(len(tree.children(node)) == arity for node in tree.interior)
        assert all(node == tuple(range(node[0], node[0] + len(node))) for node in tree.nodes)


@pytest.mark.parametrize("arity", [2, 3, 4, 7])
def test_balanced_trees_are_balanced(arity):
    for order in range(2, 60):
        tree = ModeTree.balanced(order, arity)
        assert len(tree.levels) - 1 == math.ceil(round(math.log(order, arity), 9))
        for node in tree.interior:
            sizes = [len(child) for child in tree.children(node)]
            assert len(sizes) == min(arity, len(node))
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("shape", "window"),
    [((4, 4), 2), ((5, 7), (2, 3)), ((1, 6), (1, 2)), ((9,), 4), ((3, 2, 5), (2, 2, 3)), ((2, 2), (5, 9)), ([3, 3], [2, 2])],
)
def test_grid_nodes_are_the_windows_of_all_levels(shape, window):
    tree = ModeTree.grid(shape, window)
    widths = [window] * len(shape) if isinstance(window, int) else window
    expected = set()
    for level in range(1, 5):
        blocks: dict[tuple[int, ...], list[int]] = {}
        for mode, place in enumerate(itertools.product(*map(range, shape))):
            blocks.setdefault(tuple(at // width**level for at, width in zip(place, widths)), []).append(mode)
        expected |= {tuple(block) for block in blocks.values()}
    assert set(tree.interior) == {block for block in expected if len(block) > 1}
    assert tree.order == math.prod(shape)


def test_grid_of_an_image_is_the_perfect_tree_of_its_windows():
    tree = ModeTree.grid((8, 8), window=(2, 2))
    assert [len(level) for level in tree.levels] == [64, 16, 4, 1]
    assert tree.children((0, 1, 8, 9)) == ((0,), (1,), (8,), (9,))
    assert tree.parent((0, 1, 8, 9)) == (0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)


def test_random_trees():
    drawn = [ModeTree.random(12, seed=seed) for seed in range(50)]
    assert len(set(drawn)) > 45
    assert drawn == [ModeTree.random(12, seed=seed) for seed in range(50)]
    arities = Counter(len(below) for tree in drawn for below in tree.child_ids if below)
    assert set(arities) == {2, 3, 4}
    assert any(node[-1] - node[0] >= len(node) for tree in drawn for node in tree.interior)  # modes that are not adjacent
    assert {len(below) for below in ModeTree.random(30, max_arity=2).child_ids} == {0, 2}
    assert {len(below) for seed in range(5) for below in ModeTree.random(30, unary=0.3, seed=seed).child_ids} == {0, 1, 2, 3, 4}


def test_a_known_random_tree():
    """Seeds must mean the same trees on every machine and in every version of Python."""
    assert ModeTree.random(6, seed=1).to_nested() == ((3, 1, 5, 0), 2, 4)
    assert ModeTree.random(5, max_arity=3, seed=2, unary=0.3).to_nested() == (((4, 3), (2, (1,))), 0)


def test_single_child_nodes_over_a_leaf():
    tree = ModeTree.from_nested([[[0]], 1])
    once, twice = RepeatedNode((0,), 1), RepeatedNode([0], 2)
    assert tree.interior == (once, twice, (0, 1))
    assert tree.children(twice) == (once,)
    assert tree.children(once) == ((0,),)
    assert tree.parent((0,)) == once
    assert tree.leaves == ((0,), (1,))


def test_single_child_nodes_over_interior_nodes():
    tree = ModeTree.from_nested([[[0, 1]], 2])
    assert tree.interior == (RepeatedNode((0, 1), 1), (0, 1), (0, 1, 2))
    assert tree.children((0, 1)) == (RepeatedNode((0, 1), 1),)
    tree = ModeTree.from_nested([[[0, 1]]])
    assert tree.root == (0, 1)
    assert type(tree.root) is tuple
    assert tree.interior == (RepeatedNode((0, 1), 2), RepeatedNode((0, 1), 1), (0, 1))


def test_a_tree_of_one_mode_is_named_from_its_leaf():
    tree = ModeTree.from_nested([[0]])
    assert tree.nodes == ((0,), RepeatedNode((0,), 1), RepeatedNode((0,), 2))
    assert tree.root == RepeatedNode((0,), 2)
    assert tree.parent(tree.root) is None


def test_repeated_nodes_equal_only_themselves():
    node = RepeatedNode((0, 1), 2)
    assert tuple(node) == (0, 1)
    assert node == RepeatedNode((0, 1), 2)
    assert hash(node) == hash(RepeatedNode((0, 1), 2))
    plain = (0, 1)
    assert node != plain
    assert plain != node
    assert not node == plain  # noqa: SIM201
    assert node != RepeatedNode((0, 1), 1)
    assert node != RepeatedNode((0, 2), 2)
    assert len({(0, 1), node, RepeatedNode((0, 1), 2), RepeatedNode((0, 1), 1)}) == 3
    assert repr(node) == "RepeatedNode((0, 1), 2)"
    for other in (copy.copy(node), copy.deepcopy(node), pickle.loads(pickle.dumps(node)), eval(repr(node))):
        assert other == node
        assert other.distance == 2
    with pytest.raises(AttributeError, match="a node is immutable; cannot set 'distance'"):
        node.distance = 3


def test_nodes_can_be_named_by_other_integers():
    tree = ModeTree.perfect(4)
    assert tree.id(tuple(np.arange(2))) == 4
    assert ModeTree.from_nested([np.int64(1), torch.tensor(0)]) == ModeTree.from_nested((1, 0))
    assert ModeTree.balanced(np.int8(100), np.int8(2)) == ModeTree.balanced(100)
    assert ModeTree.perfect(np.uint8(128)) == ModeTree.perfect(128)
    assert ModeTree.chain(np.int32(3)) == ModeTree.chain(3)
    assert ModeTree.star(torch.tensor(3)) == ModeTree.star(3)
    assert ModeTree.grid(torch.Size([4, 4]), np.int64(2)) == ModeTree.grid((4, 4))
    assert ModeTree.random(np.int16(9), max_arity=np.int8(3)) == ModeTree.random(9, max_arity=3)


def test_the_order_of_children_counts():
    one, other = ModeTree.from_nested(((0, 1), 2)), ModeTree.from_nested((2, (0, 1)))
    assert one != other
    assert one.children((0, 1, 2)) == ((0, 1), (2,))
    assert other.children((0, 1, 2)) == ((2,), (0, 1))
    assert ModeTree.star(3) != ModeTree.chain(3)
    assert ModeTree.star(3) != (0, 1, 2)
    assert len({ModeTree.perfect(4), ModeTree.balanced(4), ModeTree.from_nested([[0, 1], [2, 3]])}) == 1


def test_trees_are_immutable():
    tree = ModeTree.perfect(4)
    with pytest.raises(AttributeError, match="a ModeTree is immutable; cannot set 'order'"):
        tree.order = 5
    with pytest.raises(AttributeError, match="a ModeTree is immutable; cannot set 'note'"):
        tree.note = "new"
    with pytest.raises(AttributeError, match="a ModeTree is immutable; cannot delete 'nodes'"):
        del tree.nodes


def test_repr():
    tree = ModeTree.from_nested(((0, 2), [1]))
    assert repr(tree) == "ModeTree(((0, 2), (1,)))"
    assert eval(repr(tree)) == tree
    assert repr(ModeTree.balanced(1000)) == "<ModeTree of 1000 modes and 999 interior nodes>"
    single = 0
    for _ in range(5000):
        single = [single]
    assert repr(ModeTree.from_nested(single)) == "<ModeTree of 1 modes and 5000 interior nodes>"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ModeTree.chain(4000),
        lambda: ModeTree.star(10000),
        lambda: ModeTree.balanced(10000, 3),
        lambda: ModeTree.grid((100, 90)),
        lambda: ModeTree.random(3000, unary=0.4),
    ],
    ids=["chain", "star", "balanced", "grid", "random"],
)
def test_thousands_of_modes(make):
    tree = make()
    assert pickle.loads(pickle.dumps(tree)) == tree
    assert copy.deepcopy(tree) == tree
    assert ModeTree.from_nested(tree.to_nested()) == tree
    assert len(set(tree.nodes)) == len(tree.nodes)
    assert sum(map(len, tree.levels)) == len(tree.nodes)
    assert len(str(tree).splitlines()) <= 201


@pytest.mark.parametrize(
    ("nested", "error", "message"),
    [
        ((0, 2), ValueError, r"the 2 modes must be 0 to 1; missing \[1\], found 2 in \(0, 2\)"),
        ((1, (2, 3)), ValueError, r"the 3 modes must be 0 to 2; missing \[0\], found 3 in \(1, \(2, 3\)\)"),
        ((0, 10**12), ValueError, r"the 2 modes must be 0 to 1; missing \[1\], found 1000000000000"),
        ((0, (1, 0)), ValueError, r"every mode belongs to one leaf; mode 0 is repeated in node \(1, 0\)"),
        ((0, (1, -1)), ValueError, r"modes are numbered from 0; got -1 in node \(1, -1\)"),
        ((0, ()), ValueError, r"every interior node needs at least one child; got \(\) in \(0, \(\)\)"),
        ([], ValueError, r"every interior node needs at least one child; got \[\] in \[\]"),
        ((0, 1.0), TypeError, r"a mode must be an integer; got 1.0 of type float in node \(0, 1.0\); nodes are sequences"),
        ((0, True), TypeError, r"a mode must be an integer; got True of type bool in node \(0, True\)"),
        ((0, (1, "2")), TypeError, r"a mode must be an integer; got '2' of type str in node \(1, '2'\)"),
        ((0, b"1"), TypeError, r"a mode must be an integer; got b'1' of type bytes"),
        ((0, None), TypeError, r"a mode must be an integer; got None of type NoneType"),
        ((0, {1, 2}), TypeError, r"a mode must be an integer; got \{1, 2\} of type set"),
        ((0, np.arange(1, 3)), TypeError, r"a mode must be an integer; got array\(\[1, 2\]\) of type ndarray"),
        (0, TypeError, r"a tree is made of a sequence of modes and nodes; got 0 of type int"),
        ("01", TypeError, r"a tree is made of a sequence of modes and nodes; got '01' of type str"),
        (np.arange(3), TypeError, r"a tree is made of a sequence of modes and nodes; got array\(\[0, 1, 2\]\) of type ndarray"),
        (None, TypeError, r"a tree is made of a sequence of modes and nodes; got None of type NoneType"),
    ],
)
def test_invalid_nested_sequences_are_refused(nested, error, message):
    with pytest.raises(error, match=message):
        ModeTree.from_nested(nested)


def test_messages_stay_short_for_long_and_deep_trees():
    with pytest.raises(ValueError, match=r"mode 0 is repeated in node \[0, 1, 2, .*\.\.\.$"):
        ModeTree.from_nested([*range(5000), 0])
    nested = [0, 0]
    for mode in range(1, 5000):
        nested = [mode, nested]
    with pytest.raises(ValueError, match=r"mode 0 is repeated in node \[0, 0\]"):
        ModeTree.from_nested(nested)
    nested = [3000, 2999]
    for mode in range(2998, 0, -1):
        nested = [mode, nested]
    with pytest.raises(ValueError, match=r"missing \[0\], found 3000 in a deeply nested node"):
        ModeTree.from_nested(nested)
    with pytest.raises(ValueError, match=r"\(5000,\) is not a node of this tree; its nodes are sorted tuples such as .{80}$"):
        ModeTree.star(5000).id((5000,))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ModeTree.star(0), ValueError, "order must be at least 1; got 0"),
        (lambda: ModeTree.star(2.0), TypeError, "order must be an integer; got 2.0 of type float"),
        (lambda: ModeTree.star(True), TypeError, "order must be an integer; got True of type bool"),
        (lambda: ModeTree.star(np.arange(2)), TypeError, r"order must be an integer; got array\(\[0, 1\]\) of type ndarray"),
        (lambda: ModeTree.perfect(6), ValueError, r"arity 2 needs an order that is a power of 2; got 6 \(ModeTree.balanced takes any\)"),
        (lambda: ModeTree.perfect(1), ValueError, "needs an order that is a power of 2; got 1"),
        (lambda: ModeTree.perfect(8, arity=3), ValueError, "arity 3 needs an order that is a power of 3; got 8"),
        (lambda: ModeTree.perfect(8, arity=1), ValueError, "a perfect tree needs an arity of at least 2; got 1"),
        (lambda: ModeTree.perfect(0), ValueError, "order must be at least 1; got 0"),
        (lambda: ModeTree.perfect(4, arity="2"), TypeError, "arity must be an integer; got '2' of type str"),
        (lambda: ModeTree.balanced(-1), ValueError, "order must be at least 1; got -1"),
        (lambda: ModeTree.balanced(5, arity=1), ValueError, "a balanced tree needs an arity of at least 2; got 1"),
        (lambda: ModeTree.balanced(5, arity=2.5), TypeError, "arity must be an integer; got 2.5 of type float"),
        (lambda: ModeTree.chain(1), ValueError, "a chain needs an order of at least 2; got 1"),
        (lambda: ModeTree.chain("4"), TypeError, "order must be an integer; got '4' of type str"),
        (lambda: ModeTree.grid(()), ValueError, r"shape needs at least one axis; got \(\)"),
        (lambda: ModeTree.grid(8), TypeError, "shape must be a sequence of sizes; got 8 of type int"),
        (lambda: ModeTree.grid((4, 0)), ValueError, "shape must be at least 1; got 0"),
        (lambda: ModeTree.grid((4, 4.0)), TypeError, "shape must be an integer; got 4.0"),
        (lambda: ModeTree.grid((4, 4), window=(2,)), ValueError, "window needs one size per axis of shape; got 1 for 2 axes"),
        (lambda: ModeTree.grid((4, 4), window=1), ValueError, "a window of 1 never pools an axis of size 4"),
        (lambda: ModeTree.grid((4, 4), window=(2, 0)), ValueError, "window must be at least 1; got 0"),
        (lambda: ModeTree.grid((4, 4), window=2.0), TypeError, "window must be an integer; got 2.0 of type float"),
        (lambda: ModeTree.random(0), ValueError, "order must be at least 1; got 0"),
        (lambda: ModeTree.random(4, max_arity=1), ValueError, "max_arity must be at least 2; got 1"),
        (lambda: ModeTree.random(4, unary=1), ValueError, "unary must be at least 0 and below 1; got 1"),
        (lambda: ModeTree.random(4, unary=math.nan), ValueError, "unary must be at least 0 and below 1; got nan"),
        (lambda: ModeTree.random(4, unary="x"), TypeError, "unary must be a number; got 'x' of type str"),
        (lambda: ModeTree.star(np.arange(100)), TypeError, r"order must be an integer; got array\(\[.*\.\.\. of type ndarray$"),
    ],
)
def test_wrong_arguments_of_builders_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("method", [ModeTree.id, ModeTree.children, ModeTree.parent])
@pytest.mark.parametrize("node", [(1, 0), (0, 2), (), 0, [0, 1], None, (0.5,), "ab", RepeatedNode((0, 1), 1)])
def test_unknown_nodes_are_refused(method, node):
    with pytest.raises(ValueError, match="is not a node of this tree; its nodes are sorted tuples such as "):
        method(ModeTree.perfect(4), node)


@pytest.mark.parametrize("text", ["((0,2),(1,(3,4)))", "0, 1", "(((0)),1)", "[0, (1, 2),]", "([0], 1)", "0,", "((0,),1)"])
def test_from_text_is_what_python_reads(text):
    assert ModeTree.from_text(text) == ModeTree.from_nested(ast.literal_eval(text))


def test_from_text_has_no_limit_of_depth():
    chain = ModeTree.chain(2000)
    text, nested = "", chain.to_nested()
    for mode in range(1999, 0, -1):
        text = f", {mode}){text}"
    assert ModeTree.from_text("(" * 1999 + "0" + text) == chain
    assert nested[1] == 1999


@pytest.mark.parametrize(
    "text", ["", "(0,1", "0,1)", "(0 1)", "(0,,1)", "(,0)", "((0,1)(2,3))", "0(1)", "(a,b)", "(-1,0)", "(0,1.5)", "([0,1)"]
)
def test_from_text_refuses_everything_else(text):
    with pytest.raises(ValueError, match="a tree is written as nested parentheses, such as"):
        ModeTree.from_text(text)
