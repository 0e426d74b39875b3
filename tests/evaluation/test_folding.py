"""Which nodes are computed together, what of the steps is shared, and in what order children are multiplied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generators import random_case
from oracles import end_tensor

from tensornet.evaluation.circuit import entries, grid
from tensornet.evaluation.folding import Part, every_entry, every_sample, split
from tensornet.evaluation.observed import observe
from tensornet.shape import make_shape, shape_of_weights
from tensornet.tree import ModeTree

CPU = torch.device("cpu")


def counts(tree, mode_sizes=2, ranks=3):
    """Numbers of members of the groups that evaluate the network."""
    return [group.count for group in every_sample(make_shape(tree, mode_sizes, ranks), 10, CPU).chunks[0]]


class TestGroups:
    @pytest.mark.parametrize(("order", "arity"), [(2, 2), (128, 2), (81, 3)])
    def test_a_perfect_tree_has_a_group_a_level(self, order, arity):
        tree = ModeTree.perfect(order, arity)
        folded = every_sample(make_shape(tree, 2, 3), 10, CPU).chunks[0]
        assert [group.count for group in folded if group.nodes] == [len(level) for level in tree.levels]
        assert len(folded) == 1 + (len(tree.levels) - 1) * (arity - 1)  # a product of three is two products of two

    def test_unequal_nodes_are_apart(self):
        assert counts(ModeTree.perfect(8), (2,) * 7 + (3,)) == [7, 1, 3, 1, 1, 1, 1]
        tree = ModeTree.perfect(8)
        assert counts(tree, 2, {node: 4 if node == (4, 5) else 3 for node in tree.interior}) == [6, 2, 3, 1, 1, 1, 1]

    def test_subtrees_that_differ_in_order_alone_are_together(self):
        assert counts(ModeTree.from_nested((((0, 1), 2), (3, (4, 5))))) == [6, 2, 2, 1]
        assert counts(ModeTree.from_nested((((5, 3), 0), (2, (1, 4))))) == [6, 2, 2, 1]

    def test_groups_grow_with_depth_and_not_with_order(self):
        assert len(counts(ModeTree.balanced(1000))) < 20
        assert len(counts(ModeTree.star(1024))) == 11
        assert len(counts(ModeTree.grid((64, 64), 2))) == 13

    def test_members_have_weights_of_one_size_and_factors_that_follow_each_other(self):
        for seed in range(100):
            tree, arrays = random_case(seed, max_order=9, max_rank=2, max_mode_size=2)
            shape = shape_of_weights(tree, {node: array.shape for node, array in arrays.items()})
            groups = every_sample(shape, 10, CPU).chunks[0]
            for place, group in enumerate(groups):
                assert len({shape.weights[node] for node in group.nodes}) <= 1
                assert all(part.group < place for part in group.parts)
                assert all(part.first + group.count <= groups[part.group].count for part in group.parts)

    @pytest.mark.parametrize("tree", [ModeTree.perfect(8), ModeTree.balanced(7), ModeTree.from_nested(((0, (3, 5)), ((1, 6), 4), (2, 7)))])
    def test_nearly_equal_nodes_give_the_right_numbers(self, tree):
        """Two sizes and two ranks at random: most groups have several members, and factors from several groups."""
        for seed in range(20):
            rng = np.random.default_rng(seed)
            shape = make_shape(tree, rng.integers(2, 4, tree.order).tolist(), {node: int(rng.integers(1, 3)) for node in tree.interior})
            arrays = [rng.standard_normal(size) for size in shape.weights]
            wanted = end_tensor(tree, dict(zip(tree.nodes, arrays)))
            weights = [torch.tensor(array) for array in arrays]
            np.testing.assert_allclose(grid(shape, weights), wanted, rtol=1e-10, atol=1e-12)
            indices = np.stack([rng.integers(0, size, 50) for size in shape.mode_sizes], axis=1)
            np.testing.assert_allclose(entries(shape, weights, indices), wanted[tuple(indices.T)], rtol=1e-10, atol=1e-12)

    def test_equal_shapes_are_folded_once(self):
        first, second = (make_shape(ModeTree.perfect(8), 2, 3) for _ in range(2))
        assert every_sample(first, 10, CPU).chunks[0] is every_sample(second, 99, CPU).chunks[0]
        assert every_entry(first)[0].shared is every_entry(second)[0].shared


class TestSplit:
    def test_small_tables_are_multiplied_first(self):
        products = split(make_shape(ModeTree.star(4), (2, 100, 3, 50), 2), 1000)
        assert [product.parts for product in products[4:]] == [(0, 2), (4, 3), (1, 5)]

    def test_every_product_is_a_factor_once(self):
        for seed in range(50):
            tree, arrays = random_case(seed, max_order=12, max_arity=9)
            products = split(shape_of_weights(tree, {node: array.shape for node, array in arrays.items()}), 100)
            assert sorted(part for product in products for part in product.parts) == list(range(len(products) - 1))
            assert [product.node for product in products if product.node >= 0] == list(range(len(tree.nodes)))


class TestSamples:
    def test_tables_that_samples_share_come_first_and_are_computed_once(self):
        shape = make_shape(ModeTree.perfect(8), 6, 64)
        stages = observe(shape, np.random.default_rng(0).integers(0, 6, (20_000, 8))).stages
        assert [group.count for group in stages.shared] == [8, 4, 2]
        assert [[group.count for group in chunk] for chunk in stages.chunks] == [[1]] * len(stages.chunks)

    def test_chunks_have_their_own_rows(self, monkeypatch):
        monkeypatch.setattr("tensornet.evaluation.folding._most_kept", lambda device, steps: 2000)
        shape = make_shape(ModeTree.perfect(8), 4, 5)
        indices = np.random.default_rng(0).integers(0, 4, (300, 8))
        stages = observe(shape, indices).stages
        monkeypatch.undo()
        assert len(stages.chunks) > 2
        for (start, stop), (group,) in zip(stages.bounds, stages.chunks):
            assert all(len(part.rows) == stop - start for part in group.parts)

    @pytest.mark.parametrize("size", [7, 2**16, 2**16 + 1])  # sorted as 16 bits, or as they are
    def test_bags_gather_what_comes_of_one_row(self, size):
        rng = np.random.default_rng(0)
        rows = np.concatenate([rng.integers(0, min(size, 1000), 40), [size - 1, size - 1]])  # most rows come not at all
        order, begins = Part(0, 0, size, torch.tensor(rows, dtype=torch.int32)).bags
        bags = np.split(order.numpy(), begins.numpy()[1:])
        assert len(bags) == size
        for row in {*rows.tolist(), 5}:
            assert bags[row].tolist() == np.flatnonzero(rows == row).tolist()
