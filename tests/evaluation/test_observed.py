"""Preparation of indices: how many rows each table has, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generators import random_case

from tensornet.evaluation.circuit import Combination, entries
from tensornet.evaluation.folding import every_entry, every_sample, split
from tensornet.evaluation.observed import PAYS, observe, once
from tensornet.shape import make_shape, shape_of_weights
from tensornet.tree import ModeTree


def groups(observed):
    stages = observed.stages
    return [*stages.shared, *(group for chunk in stages.chunks for group in chunk)]


class TestRows:
    def test_all_entries_where_they_are_few(self):
        shape = make_shape(ModeTree.perfect(8), 6, 16)
        observed = observe(shape, np.random.default_rng(0).integers(0, 6, (5000, 8)))
        rows = dict(zip(shape.tree.nodes, observed.rows))
        assert rows[(0, 1)] == 36
        assert rows[(0, 1, 2, 3)] == 1296
        assert rows[shape.tree.root] == 5000
        assert observed.last is None

    def test_the_samples_where_all_differ(self):
        shape = make_shape(ModeTree.perfect(8), 100, 16)
        observed = observe(shape, np.random.default_rng(0).integers(0, 100, (1000, 8)))
        assert set(observed.rows[:8]) == {100}
        assert set(observed.rows[8:]) == {1000}

    def test_what_occurs_where_it_is_less(self):
        shape = make_shape(ModeTree.perfect(8), 50, 16)
        rng = np.random.default_rng(0)
        few = rng.integers(0, 50, (30, 4))
        indices = np.concatenate([few[rng.integers(0, 30, 4000)], rng.integers(0, 50, (4000, 4))], axis=1)
        rows = dict(zip(shape.tree.nodes, observe(shape, indices).rows))
        for node in ((0, 1), (2, 3), (0, 1, 2, 3)):
            assert 30 <= rows[node] <= 33
        assert rows[(4, 5)] == 2500 or rows[(4, 5)] < 2300
        assert rows[(4, 5, 6, 7)] == 4000

    def test_repeated_entries_are_computed_once(self):
        shape = make_shape(ModeTree.perfect(8), 50, 16)
        rng = np.random.default_rng(0)
        indices = rng.integers(0, 50, (100, 8))[rng.integers(0, 100, 20000)]
        observed = observe(shape, indices)
        assert all(90 <= number <= 112 for number in observed.rows[8:])
        assert observed.stages.chunks == ()
        assert observed.last.shape == (20000,)

    def test_entries_of_a_small_tensor_come_of_one_matrix_product(self):
        shape = make_shape(ModeTree.perfect(4), 8, 512)
        observed = observe(shape, np.random.default_rng(0).permutation(np.stack(np.unravel_index(np.arange(4096), (8,) * 4), 1))[:2048])
        assert observed.rows[4:] == (64, 64, 4096)
        assert [group.joined for group in groups(observed)] == [False, False, True]

    def test_leaves_with_more_rows_than_samples(self):
        shape = make_shape(ModeTree.star(3), 10**6, 2)
        assert observe(shape, [[0, 5, 999_999], [1, 2, 3]]).rows[:3] == (2, 2, 2)

    def test_never_much_more_than_what_occurs(self):
        for seed in range(200):
            tree, arrays = random_case(seed, max_order=8, max_mode_size=9)
            shape = shape_of_weights(tree, {node: array.shape for node, array in arrays.items()})
            rng = np.random.default_rng(seed)
            samples = int(rng.integers(1, 400))
            indices = np.stack([rng.integers(0, rng.integers(1, size + 1), samples) for size in shape.mode_sizes], axis=1)
            observed = observe(shape, indices)
            for node, number in zip(tree.interior, observed.rows[tree.order :]):
                occurring = len(np.unique(indices[:, list(node)], axis=0))
                assert number <= max(15 * occurring, samples // 16)  # 15 where all entries come of one matrix product


class TestOnce:
    @pytest.mark.parametrize("samples", [0, 1, 7, 300])
    def test_the_same_entries_and_gradients(self, samples):
        for seed in range(60):
            tree, arrays = random_case(seed, max_mode_size=9)
            shape = shape_of_weights(tree, {node: array.shape for node, array in arrays.items()})
            weights = [torch.from_numpy(arrays[node]).requires_grad_() for node in tree.nodes]
            rng = np.random.default_rng(seed)
            indices = np.stack([rng.integers(size, size=samples) for size in shape.mode_sizes], axis=1)
            mix = torch.from_numpy(rng.standard_normal(samples))
            results = []
            for prepare in (observe, once):
                values = entries(shape, weights, prepare(shape, indices))
                results.append([values, *torch.autograd.grad((values * mix).sum(), weights)])
            for found, wanted in zip(*results):
                torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)

    def test_few_samples_are_not_searched_for_repetitions(self):
        shape = make_shape(ModeTree.perfect(4), 1000, 16)
        repeated = np.tile(np.arange(PAYS) % 3, (4, 1)).T
        assert once(shape, repeated[:-1]).rows[-1] == PAYS - 1
        assert once(shape, repeated).rows[-1] < 100

    def test_of_large_leaves_only_the_rows_of_the_samples_are_taken(self):
        assert once(make_shape(ModeTree.star(2), 10**6, 4), [[0, 1], [5, 10**6 - 1]]).rows == (2, 2, 2)

    def test_small_tables_have_all_entries(self):
        shape = make_shape(ModeTree.perfect(4), 4, 16)
        assert once(shape, np.zeros((1000, 4), dtype=int)).rows[4] == 16


class TestFolding:
    def test_levels_of_a_perfect_tree_are_single_groups(self):
        shape = make_shape(ModeTree.perfect(64), 8, 4)
        observed = observe(shape, np.random.default_rng(0).integers(0, 8, (1000, 64)))
        assert [group.count for group in groups(observed)] == [64, 32, 16, 8, 4, 2, 1]
        assert [group.count for group in every_sample(shape, 10, torch.device("cpu")).chunks[0]] == [64, 32, 16, 8, 4, 2, 1]

    @pytest.mark.parametrize(("kind", "most"), [("perfect", 7), ("chain", 2), ("star", 7)])
    def test_nodes_with_many_samples_are_apart_and_need_few_tables_at_a_time(self, kind, most):
        stages = every_sample(make_shape(getattr(ModeTree, kind)(64), 8, 32), 5000, torch.device("cpu"))
        alive, largest = set(), 0
        for place, group in enumerate(stages.chunks[0]):
            assert group.count == 1
            alive = alive - {part.group for part in group.parts} | {place}
            largest = max(largest, len(alive))
        assert largest == most

    def test_nodes_with_many_children_are_split(self):
        shape = make_shape(ModeTree.star(9), 2, 5)
        products = split(shape, 1000)
        assert [len(product.parts) for product in products[9:]] == [2] * 8
        assert [product.node for product in products[9:]] == [-1] * 7 + [9]

    def test_every_member_is_taken_once(self):
        for seed in range(50):
            tree, arrays = random_case(seed, max_order=9)
            shape = shape_of_weights(tree, {node: array.shape for node, array in arrays.items()})
            stages, modes = every_entry(shape)
            assert sorted(modes) == list(range(tree.order))
            assert sorted(node for group in stages.shared for node in group.nodes) == list(range(len(tree.nodes)))
            taken = {place: [] for place in range(len(stages.shared))}
            for group in stages.shared:
                for part in group.parts:
                    taken[part.group] += range(part.first, part.first + group.count)
            assert all(sorted(taken[place]) == list(range(group.count)) for place, group in enumerate(stages.shared[:-1]))

    def test_chunks_keep_memory_linear(self):
        shape = make_shape(ModeTree.perfect(16), 8, 64)
        observed = observe(shape, np.random.default_rng(0).integers(0, 8, (100_000, 16)))
        bounds = observed.stages.bounds
        assert len(bounds) > 2
        assert bounds[0][0] == 0
        assert bounds[-1][1] == 100_000
        assert all(stop == start for (_, stop), (start, _) in zip(bounds, bounds[1:]))


class TestKinds:
    """Indices in whatever way they are held give the same preparation."""

    shape = make_shape(ModeTree.star(2), 9, 2)
    rows = np.array([[0, 1], [2, 3], [8, 4]])
    read_only = rows.copy()
    read_only.setflags(write=False)

    @pytest.mark.parametrize(
        "given",
        [
            np.ascontiguousarray(rows[::-1])[::-1],
            np.asfortranarray(rows),
            rows.astype(">i4"),
            rows.astype(np.uint64),
            read_only,
            list(rows),
            [tuple(row) for row in rows.tolist()],
            torch.tensor(rows, dtype=torch.uint8),
            torch.tensor(rows).t().contiguous().t(),
        ],
        ids=["reversed", "by columns", "big-endian", "uint64", "read-only", "list of arrays", "tuples", "uint8", "transposed"],
    )
    def test_the_same_entries(self, given):
        weights = [torch.arange(1.0, 10.0)[:, None].expand(9, 2), torch.linspace(1, 2, 9)[:, None].expand(9, 2), torch.ones(2, 1)]
        wanted = entries(self.shape, weights, torch.tensor(self.rows))
        assert torch.equal(entries(self.shape, weights, observe(self.shape, given)), wanted)

    @pytest.mark.parametrize("order", [1, 2])
    def test_later_changes_of_the_given_array_are_not_seen(self, order):
        shape = make_shape(ModeTree.star(order), 9, 2)
        weights = [torch.randn(size) for size in shape.weights]
        given = torch.tensor(self.rows[:, :order]).t().contiguous().t()
        observed = observe(shape, given)
        before = entries(shape, weights, observed)
        given.zero_()
        assert torch.equal(entries(shape, weights, observed), before)

    @pytest.mark.parametrize("mode_size", [3, 1000])
    @pytest.mark.parametrize("pooling", ["product", "max"])
    def test_prepared_in_inference_mode_for_training(self, mode_size, pooling):
        shape = make_shape(ModeTree.perfect(4), mode_size, 2)
        with torch.inference_mode():
            given = torch.arange(80).view(20, 4) % mode_size
            observed = observe(shape, given).to("cpu")
        weights = [torch.ones(size, requires_grad=True) for size in shape.weights]
        entries(shape, weights, observed, combination=Combination(pooling)).sum().backward()
        assert weights[0].grad.sum() > 0


class TestErrors:
    shape = make_shape(ModeTree.star(3), (4, 5, 6), 2)

    def test_numbers_that_no_signed_integer_holds(self):
        with pytest.raises(ValueError, match="got 9223372036854775809 in row 0 for mode 1 of size 5"):
            observe(self.shape, np.array([[0, 2**63 + 1, 0]], dtype=np.uint64))

    def test_sparse_tensors(self):
        with pytest.raises(TypeError, match=r"indices must be dense; got a tensor of the layout torch\.sparse_coo"):
            observe(self.shape, torch.eye(3, dtype=torch.int64).to_sparse())

    @pytest.mark.parametrize(("wrong", "value"), [((1, 1), 5), ((2, 0), -1), ((0, 2), 600)])
    def test_out_of_range(self, wrong, value):
        indices = np.zeros((3, 3), dtype=np.int64)
        indices[wrong] = value
        row, mode = wrong
        with pytest.raises(ValueError, match=rf"got {value} in row {row} for mode {mode} of size {self.shape.mode_sizes[mode]}"):
            observe(self.shape, indices)

    def test_wrong_shapes(self):
        for wrong in (np.zeros(3, dtype=int), np.zeros((3, 2), dtype=int), np.zeros((3, 3, 1), dtype=int)):
            with pytest.raises(ValueError, match=r"indices need the shape \(B, 3\), a row for every entry"):
                observe(self.shape, wrong)

    @pytest.mark.parametrize("wrong", [np.zeros((2, 3)), np.zeros((2, 3), dtype=bool), torch.zeros(2, 3, dtype=torch.complex64)])
    def test_no_integers(self, wrong):
        with pytest.raises(TypeError, match="indices must be integers; got torch"):
            observe(self.shape, wrong)

    @pytest.mark.parametrize("wrong", [None, "entries", [["a", "b", "c"]], {"rows": 1}, [[1, 2, 3], [1]]])
    def test_no_arrays(self, wrong):
        with pytest.raises(TypeError, match="indices must be an array of numbers; got"):
            observe(self.shape, wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_moves_to_a_device():
    shape = make_shape(ModeTree.perfect(8), 4, 3)
    there = observe(shape, np.random.default_rng(0).integers(0, 4, (500, 8))).to("cuda")
    assert there.device.type == "cuda"
    tensors = [part.rows for group in groups(there) for part in group.parts if part.rows is not None]
    assert tensors
    assert all(tensor.device == there.device for tensor in tensors)
