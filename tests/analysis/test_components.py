"""Local components against loops over Definitions 2 and 5, Theorem 1's directions and dynamics, Lemma 2, and Proposition 1."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
import torch
from generators import random_array, random_case
from oracles import end_tensor
from torch.autograd.functional import jvp

from tensornet.analysis.components import (
    balanced,
    directions,
    local_component_norms,
    prune,
    pruning_bound,
    unbalancedness,
    weight_vector_norms,
)
from tensornet.contraction.execute import contract
from tensornet.shape import shape_of_weights
from tensornet.tree import ModeTree

SEEDS = range(60)
STAR = ModeTree.star(2)


def case(seed, **options):
    """A random tree, its weights as arrays by node, and as tensors in the order of the nodes."""
    tree, arrays = random_case(seed, **options)
    return tree, arrays, [torch.from_numpy(arrays[node]) for node in tree.nodes]


def as_arrays(tree, weights):
    return {node: weight.detach().numpy() for node, weight in zip(tree.nodes, weights)}


def local_components(tree, arrays):
    """Every local component: its node, its number, and its weight vectors as Definition 2 lists them."""
    for node in tree.interior:
        for number in range(arrays[node].shape[0]):
            yield node, number, [arrays[node][number, :], *(arrays[child][:, number] for child in tree.children(node))]


def star(*columns, root):
    """Weights of a star with these leaf columns and rows of the root."""
    return [torch.tensor(column, dtype=torch.float64) for column in columns] + [torch.tensor(root, dtype=torch.float64)]


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("outputs", [1, 3])
def test_norms_are_those_of_the_tensor_products(dtype, outputs):
    for seed in SEEDS:
        tree, arrays, weights = case(seed, dtype=dtype, outputs=outputs)
        norms, vectors = local_component_norms(tree, weights), weight_vector_norms(tree, weights)
        assert list(norms) == list(vectors) == list(tree.interior)
        for node, number, members in local_components(tree, arrays):
            product = reduce(np.multiply.outer, members)
            assert norms[node][number].item() == pytest.approx(np.linalg.norm(product), rel=1e-13)
            assert vectors[node][number].numpy() == pytest.approx([np.linalg.norm(member) for member in members], rel=1e-13)


@pytest.mark.parametrize(
    ("dtype", "huge"), [(torch.float32, 1e30), (torch.float64, 1e300), (torch.complex64, 1e30), (torch.complex128, 1e300)]
)
def test_norms_neither_overflow_nor_underflow(dtype, huge):
    factors = [huge, 1 / huge] * 300 + [3 / huge, 1 / huge] * 50 + [huge] * 100
    tree = ModeTree.star(len(factors))
    weights = [torch.tensor([[factor], [0.0]], dtype=dtype) for factor in factors] + [torch.ones(1, 1, dtype=dtype)]
    (norms,) = local_component_norms(tree, weights).values()
    assert norms.item() == pytest.approx(3.0**50, rel=1e-4)
    (norms,) = local_component_norms(STAR, [torch.full((2, 1), tiny, dtype=dtype) for tiny in (1 / huge, huge)] + weights[-1:]).values()
    assert norms.item() == pytest.approx(2, rel=1e-5)


def test_norms_at_the_ends_of_the_range():
    (norms,) = local_component_norms(STAR, star([[0.0, 1e300, 1e-300]], [[1e300, 1e300, 1e-300]], root=[[1e300], [1e300], [1.0]])).values()
    assert norms.tolist() == [0.0, math.inf, 0.0]
    (norms,) = local_component_norms(STAR, star([[math.inf, math.nan]], [[1.0, 1.0]], root=[[1.0], [1.0]])).values()
    assert norms[0] == math.inf
    assert norms[1].isnan()
    tree = ModeTree.star(30)  # the product of the factors that are not zero is far outside of the range
    (norms,) = local_component_norms(tree, [torch.tensor([[0.0]])] + [torch.tensor([[1e30]])] * 29 + [torch.ones(1, 1)]).values()
    assert norms.item() == 0
    tiny = 5e-324
    (norms,) = local_component_norms(STAR, star([[tiny, 1.7e308]], [[1.0, 1.0]], root=[[1.0], [1.0]])).values()
    assert norms.tolist() == [tiny, 1.7e308]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_of_half_precision_are_computed_in_single(dtype):
    weights = [torch.tensor([[300.0], [400.0]], dtype=dtype), torch.full((1, 1), 256.0, dtype=dtype), torch.ones(1, 1, dtype=dtype)]
    assert local_component_norms(STAR, weights)[0, 1].tolist() == [128000.0]
    assert local_component_norms(STAR, weights)[0, 1].dtype == torch.float32
    assert [weight.dtype for weight in balanced(STAR, weights)] == [dtype] * 3
    assert [weight.dtype for weight in directions(STAR, weights, (0, 1), 0)] == [dtype] * 3


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_directions_are_those_of_theorem_1(dtype):
    for seed in SEEDS:
        tree, arrays, weights = case(seed, dtype=dtype, outputs=1 + seed % 2)
        norms = local_component_norms(tree, weights)
        for node in tree.interior:
            parts = []
            for number, norm in enumerate(norms[node].tolist()):
                alone = {other: array.copy() for other, array in arrays.items()}
                alone[node][[row for row in range(len(norms[node])) if row != number]] = 0
                chosen = directions(tree, weights, node, number)
                assert [weight.shape for weight in chosen] == [weight.shape for weight in weights]
                parts.append(norm * end_tensor(tree, as_arrays(tree, chosen)))
                np.testing.assert_allclose(parts[-1], end_tensor(tree, alone), rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(sum(parts), end_tensor(tree, arrays), rtol=1e-10, atol=1e-10)  # footnote 8


def test_the_direction_of_a_zero_component_is_zero():
    weights = star([[1.0, 0.0]], [[2.0, 3.0]], root=[[1.0], [5.0]])
    found = directions(STAR, weights, (0, 1), 1)
    assert [weight.tolist() for weight in found] == [[[0.0, 0.0]], [[0.0, 1.0]], [[0.0], [1.0]]]
    assert not end_tensor(STAR, as_arrays(STAR, found)).any()


def flow(tree, weights):
    """A loss gradient at the end tensor, and minus the gradient of that loss in the weights: the velocity of gradient flow."""
    weights = [weight.clone().requires_grad_() for weight in weights]
    end = contract(shape_of_weights(tree, {node: tuple(weight.shape) for node, weight in zip(tree.nodes, weights)}), weights)
    slope = torch.from_numpy(random_array(np.random.default_rng(0), tuple(end.shape)))
    return slope, [-gradient for gradient in torch.autograd.grad((end * slope).sum(), weights)]


def rates_of(function, tree, weights, velocity):
    """What a function of the weights gives by node, and how it moves with the weights."""
    found = jvp(lambda *given: tuple(function(tree, given).values()), tuple(weights), tuple(velocity))
    return [dict(zip(tree.interior, values)) for values in found]


def test_local_component_norms_evolve_as_theorem_1_states():
    for seed in range(25):
        tree, _, weights = case(seed)
        weights = balanced(tree, weights)
        slope, velocity = flow(tree, weights)
        norms, rates = rates_of(local_component_norms, tree, weights, velocity)
        for node in tree.interior:
            size = len(tree.children(node)) + 1
            for number, norm in enumerate(norms[node].tolist()):
                direction = end_tensor(tree, as_arrays(tree, directions(tree, weights, node, number)))
                expected = norm ** (2 - 2 / size) * size * np.vdot(-slope.numpy(), direction)
                assert rates[node][number].item() == pytest.approx(expected, rel=1e-9, abs=1e-11 * norm)


def test_differences_of_squared_norms_do_not_move_as_lemma_2_states():
    for seed in range(25):
        tree, _, weights = case(seed)
        _, velocity = flow(tree, weights)
        norms, rates = rates_of(weight_vector_norms, tree, weights, velocity)
        for node in tree.interior:
            found = 2 * norms[node] * rates[node]  # of the squared norms
            torch.testing.assert_close(found, found[:, :1].expand_as(found), rtol=1e-9, atol=1e-12 * found.abs().max().item())


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_unbalancedness_is_the_largest_difference(dtype):
    for seed in SEEDS:
        tree, arrays, weights = case(seed, dtype=dtype, outputs=1 + seed % 3)
        for fixed_root in (False, True):
            differences = [0.0]
            for node, _, members in local_components(tree, arrays):
                squares = [np.linalg.norm(member) ** 2 for member in members[fixed_root and node == tree.root :]]
                differences += [abs(one - other) for one in squares for other in squares]
            assert unbalancedness(tree, weights, fixed_root=fixed_root).item() == pytest.approx(max(differences), rel=1e-12)


def test_unbalancedness_of_a_cp_factorization_ignores_the_constant_root():
    weights = star([[3.0, 1.0], [4.0, 0.0]], [[5.0, 2.0]], root=[[1.0], [1.0]])
    assert unbalancedness(STAR, weights, fixed_root=True).item() == pytest.approx(3.0)  # |1 - 4|; |25 - 25| in the first component
    assert unbalancedness(STAR, weights).item() == pytest.approx(24.0)
    single = ModeTree.from_nested([[0], [1]])
    weights = [torch.ones(2, 3)] * 2 + [torch.ones(3, 4)] * 2 + [torch.ones(4, 1)]
    assert unbalancedness(single, weights, fixed_root=True).item() == pytest.approx(2.0)


def zeroed(tree, arrays, kept):
    """Weights with all local components but the kept ones set to zero, as in Appendix E.6."""
    result = {node: array.copy() for node, array in arrays.items()}
    for node, components in kept.items():
        lost = [number for number in range(arrays[node].shape[0]) if number not in components]
        result[node][lost, :] = 0
        for child in tree.children(node):
            result[child][:, lost] = 0
    return result


def random_choice(tree, arrays, rng):
    """Some nodes with some of their components."""
    nodes = [node for node in tree.interior if rng.random() < 0.7]
    return {node: rng.permutation(rows)[: rng.integers(1, rows + 1)].tolist() for node in nodes for rows in [arrays[node].shape[0]]}


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_pruning_equals_setting_to_zero(dtype):
    for seed in SEEDS:
        tree, arrays, weights = case(seed, dtype=dtype, outputs=1 + seed % 2)
        keep = random_choice(tree, arrays, np.random.default_rng(seed))
        pruned = prune(tree, weights, keep)
        sizes = shape_of_weights(tree, {node: tuple(weight.shape) for node, weight in zip(tree.nodes, pruned)})
        assert sizes.ranks == {node: len(keep[node]) if node in keep else arrays[node].shape[0] for node in tree.interior}
        expected = end_tensor(tree, zeroed(tree, arrays, keep))
        np.testing.assert_allclose(end_tensor(tree, as_arrays(tree, pruned)), expected, rtol=1e-10, atol=1e-12)


def test_ways_to_say_what_is_kept():
    weights = star([[1.0, 4.0, 2.0, 4.0]], [[1.0, 1.0, 1.0, 1.0]], root=[[1.0], [1.0], [1.0], [1.0]])

    def kept(choice):
        return prune(STAR, weights, {(0, 1): choice})[0][0].tolist()

    assert kept(1) == kept(np.int64(1)) == kept(torch.tensor(1)) == [4.0]
    assert kept(3) == [4.0, 2.0, 4.0]  # the largest, in their present order
    assert kept(4) == [1.0, 4.0, 2.0, 4.0]
    assert kept([2, 0]) == kept((2, 0)) == kept(np.array([2, 0])) == kept(torch.tensor([2, 0])) == [2.0, 1.0]
    assert kept(range(2)) == [1.0, 4.0]
    mask = [True, False, True, False]
    assert kept(mask) == kept(np.array(mask)) == kept(torch.tensor(mask)) == kept([np.bool_(item) for item in mask]) == [1.0, 2.0]
    assert [weight.tolist() for weight in prune(STAR, weights, {})] == [weight.tolist() for weight in weights]


def test_ties_keep_the_first():
    weights = star([[-2.0, 2.0, 2.0]], [[1.0, 1.0, 1.0]], root=[[1.0], [1.0], [1.0]])
    assert prune(STAR, weights, {(0, 1): 1})[0].tolist() == [[-2.0]]


@pytest.mark.parametrize("functions", [prune, pruning_bound])
@pytest.mark.parametrize(
    ("keep", "error", "message"),
    [
        ({(0,): 1}, ValueError, r"local components belong to interior nodes; got the leaf \(0,\)"),
        ({(0, 7): 1}, ValueError, r"\(0, 7\) is not a node of this tree"),
        ({(0, 1): [4]}, ValueError, r"local components of node \(0, 1\) are numbered from 0 to 3; got 4"),
        ({(0, 1): [-1]}, ValueError, r"numbered from 0 to 3; got -1"),
        ({(0, 1): [2, 2]}, ValueError, r"every kept local component is named once; got \[2, 2\] for node \(0, 1\)"),
        ({(0, 1): 5}, ValueError, r"no more local components can be kept than there are; got 5 for the 4 of node \(0, 1\)"),
        ({(0, 1): 0}, ValueError, r"at least one local component of a node must be kept; got 0 for node \(0, 1\)"),
        ({(0, 1): -2}, ValueError, r"at least one local component of a node must be kept; got -2"),
        ({(0, 1): []}, ValueError, r"at least one local component of a node must be kept; got \[\]"),
        ({(0, 1): [False] * 4}, ValueError, r"at least one local component of a node must be kept"),
        ({(0, 1): [True] * 3}, ValueError, r"a mask needs one truth value per local component; got 3 for the 4 of node \(0, 1\)"),
        ({(0, 1): True}, TypeError, r"kept components must be a number, indices or a mask; got True of type bool for node \(0, 1\)"),
        ({(0, 1): 1.0}, TypeError, r"kept components must be a number, indices or a mask; got 1.0 of type float"),
        ({(0, 1): [0.5]}, TypeError, r"kept components must be a number, indices or a mask; got \[0.5\]"),
        ({(0, 1): [[0, 1]]}, TypeError, r"kept components must be a number, indices or a mask"),
        ({(0, 1): [[0], [1, 2]]}, TypeError, r"kept components must be a number, indices or a mask"),
        ({(0, 1): {0, 1}}, TypeError, r"kept components must be a number, indices or a mask; got \{0, 1\} of type set"),
        ({(0, 1): "all"}, TypeError, r"kept components must be a number, indices or a mask; got 'all' of type str"),
        ({(0, 1): None}, TypeError, r"kept components must be a number, indices or a mask; got None"),
        (3, TypeError, r"keep must be a mapping from interior nodes to kept components; got int"),
    ],
)
def test_wrong_choices_are_refused(functions, keep, error, message):
    weights = star([[1.0, 4.0, 2.0, 4.0]], [[1.0, 1.0, 1.0, 1.0]], root=[[1.0], [1.0], [1.0], [1.0]])
    with pytest.raises(error, match=message):
        functions(STAR, weights, keep)


@pytest.mark.parametrize("nodes", [[(0, 1), (2, 3), (0, 1, 2, 3)], [(0, 1, 2, 3), (2, 3), (0, 1)], [(0, 1), (0, 1, 2, 3), (2, 3)]])
def test_shared_weights_that_lose_the_same_stay_shared(nodes):
    tree = ModeTree.perfect(4)
    leaf, middle, root = torch.randn(5, 4), torch.randn(4, 3), torch.randn(3, 1)
    pruned = prune(tree, [leaf] * 4 + [middle] * 2 + [root], {node: [1, 0] for node in nodes})
    assert len({id(weight) for weight in pruned}) == 3
    assert torch.equal(pruned[4], middle[[1, 0]][:, [1, 0]])
    partly = prune(tree, [leaf] * 4 + [middle] * 2 + [root], {(0, 1): [1, 0]})
    assert partly[0] is partly[1]
    assert partly[2] is partly[3] is leaf
    assert partly[5] is middle


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_pruning_moves_the_end_tensor_by_at_most_the_bound_of_proposition_1(dtype):
    ratios = []
    for seed in range(80):
        tree, arrays, weights = case(seed, dtype=dtype, outputs=1 + seed % 2)
        rng = np.random.default_rng(seed)
        ranks = {node: int(rng.integers(1, arrays[node].shape[0] + 1)) for node in tree.interior}
        for keep in (ranks, random_choice(tree, arrays, rng)):
            pruned = as_arrays(tree, prune(tree, weights, keep))
            end = end_tensor(tree, arrays)
            distance = np.linalg.norm(end - end_tensor(tree, pruned))
            bound = pruning_bound(tree, weights, keep).item()
            assert distance <= bound + 1e-12 * np.linalg.norm(end)
            ratios.append(distance / bound if bound else 0.0)
    assert max(ratios) > 0.99  # on a star that loses a single component, the bound is reached


def test_the_bound_is_the_propositions_formula():
    for seed in SEEDS:
        tree, arrays, weights = case(seed)
        ranks = {node: 1 + seed % arrays[node].shape[0] for node in tree.interior}
        largest = max(np.linalg.norm(array) for array in arrays.values())
        epsilon = 0.0
        for node in tree.interior:
            norms = [
                math.prod(np.linalg.norm(member) for member in members) for at, _, members in local_components(tree, arrays) if at == node
            ]
            tail = sum(sorted(norms, reverse=True)[ranks[node] :])
            epsilon = max(epsilon, tail * len(tree.interior) * largest ** (len(tree.nodes) - 1 - len(tree.children(node))))
        assert pruning_bound(tree, weights, ranks).item() == pytest.approx(epsilon, rel=1e-12)


def test_the_bound_is_zero_where_only_zero_components_are_lost():
    tree = ModeTree.balanced(40)
    weights = [torch.full((2, 2), 1e20, dtype=torch.float64) for _ in tree.nodes[:-1]] + [torch.tensor([[1.0], [0.0]], dtype=torch.float64)]
    assert pruning_bound(tree, weights, {tree.root: 1}).item() == 0
    assert pruning_bound(tree, weights, {tree.root: [1]}).item() == math.inf


@pytest.mark.parametrize("dtype", [np.float64, np.complex128, np.float32])
@pytest.mark.parametrize("fixed_root", [False, True])
def test_balanced_weights_have_no_unbalancedness(dtype, fixed_root):
    eps = np.finfo(dtype).eps
    for seed in SEEDS:
        tree, arrays, weights = case(seed, dtype=dtype, outputs=1 + seed % 2)
        result = balanced(tree, weights, fixed_root=fixed_root)
        assert [weight.dtype for weight in result] == [weight.dtype for weight in weights]
        norms = weight_vector_norms(tree, result)
        largest = max(found[:, 1:].max().item() for found in norms.values()) ** 2
        assert unbalancedness(tree, result, fixed_root=fixed_root).item() <= 40 * eps * largest
        assert 1e-3 < largest < 1e3
        assert torch.equal(result[-1], weights[-1]) or not fixed_root
        wanted = weight_vector_norms(tree, weights)[tree.root][:, int(fixed_root) :].double().log().mean(1).exp()
        torch.testing.assert_close(norms[tree.root][:, -1].double(), wanted, rtol=1e3 * eps, atol=0)
        for old, new in zip(arrays.values(), result):  # rows and columns are only rescaled, by positive factors
            ratio = (new.numpy() / old).real
            assert (ratio > 0).all()
            np.testing.assert_allclose(ratio, np.outer(ratio[:, 0], ratio[0]) / ratio[0, 0], rtol=1e3 * eps)


def test_balanced_empties_components_with_a_zero_vector():
    tree = ModeTree.from_nested(((0, 1), 2))
    weights = [torch.from_numpy(random_array(np.random.default_rng(0), size)) for size in [(2, 3), (2, 3), (2, 2), (3, 2), (2, 1)]]
    weights[0][:, 1] = 0  # empties component 1 of (0, 1): row 1 of its weight, whose other rows are
    weights[3][0, 0] = weights[3][2, 0] = 0  # zero in column 0, which empties component 0 of the root
    result = balanced(tree, weights)
    assert result[0][:, 1].tolist() == result[1][:, 1].tolist() == result[3][1].tolist() == [0.0, 0.0]
    assert result[2][:, 0].tolist() == result[3][:2, 0].tolist() == [0.0, 0.0]
    assert result[4][0].item() == 0
    assert unbalancedness(tree, result).item() < 1e-14
    norms = local_component_norms(tree, result)
    assert norms[0, 1].gt(0).tolist() == [True, False, True]
    assert norms[0, 1, 2].gt(0).tolist() == [False, True]
    weights[4][1] = 0  # empties the root's other component, and with it everything below
    assert not any(weight.any() for weight in balanced(tree, weights))


@pytest.mark.parametrize("fixed_root", [False, True])
def test_balanced_leaves_zeros_alone(fixed_root):
    weights = [torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3, 1) if fixed_root else torch.zeros(3, 1)]
    result = balanced(STAR, weights, fixed_root=fixed_root)
    assert all(torch.equal(old, new) for old, new in zip(weights, result))


def test_balanced_does_not_change_its_input():
    weights = star([[1.0, 0.0]], [[2.0, 3.0]], root=[[1.0], [5.0]])
    copies = [weight.clone() for weight in weights]
    balanced(STAR, weights)
    assert all(torch.equal(old, new) for old, new in zip(copies, weights))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients(dtype):
    tree, arrays, weights = case(4, dtype=dtype, max_mode_size=2, max_rank=2)
    assert len(tree.interior) > 1
    assert max(len(tree.children(node)) for node in tree.interior) > 1
    weights = [weight.requires_grad_() for weight in weights]
    keep = {tree.root: arrays[tree.root].shape[0] - 1 or 1}
    for function in (
        lambda *given: tuple(local_component_norms(tree, given).values()),
        lambda *given: unbalancedness(tree, given),
        lambda *given: tuple(directions(tree, given, tree.interior[0], 0)),
        lambda *given: tuple(prune(tree, given, keep)),
        lambda *given: pruning_bound(tree, given, {tree.interior[0]: 1}),
        lambda *given: tuple(balanced(tree, given)),
    ):
        assert torch.autograd.gradcheck(function, weights)


def test_gradients_at_zero_are_finite():
    weights = [weight.requires_grad_() for weight in star([[0.0, 1.0]], [[2.0, 0.0]], root=[[1.0], [0.0]])]
    loss = local_component_norms(STAR, weights)[0, 1].sum() + unbalancedness(STAR, weights)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, weights))


@pytest.mark.parametrize(
    "function",
    [
        weight_vector_norms,
        local_component_norms,
        unbalancedness,
        balanced,
        lambda tree, weights: directions(tree, weights, (0, 1), 0),
        lambda tree, weights: prune(tree, weights, {}),
        lambda tree, weights: pruning_bound(tree, weights, {}),
    ],
)
def test_weights_that_do_not_belong_to_the_tree_are_refused(function):
    with pytest.raises(ValueError, match="weights needs one matrix per node; got 2 for 3 nodes"):
        function(STAR, [torch.ones(2, 2), torch.ones(2, 2)])
    with pytest.raises(ValueError, match=r"columns of a node's weight must be the rows of its parent's; got \(2, 3\) for node \(1,\)"):
        function(STAR, [torch.ones(2, 2), torch.ones(2, 3), torch.ones(2, 1)])
    with pytest.raises(ValueError, match=r"must be a non-empty matrix .* for node \(0,\)"):
        function(STAR, [torch.ones(2), torch.ones(2, 3), torch.ones(3, 1)])
    with pytest.raises(TypeError, match="tree must be a ModeTree; got tuple"):
        function((0, 1), [torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 1)])


@pytest.mark.parametrize(
    ("node", "component", "error", "message"),
    [
        ((0,), 0, ValueError, r"local components belong to interior nodes; got the leaf \(0,\)"),
        ((1, 0), 0, ValueError, r"\(1, 0\) is not a node of this tree"),
        ((0, 1), 3, ValueError, r"local components of node \(0, 1\) are numbered from 0 to 2; got 3"),
        ((0, 1), -1, ValueError, r"numbered from 0 to 2; got -1"),
        ((0, 1), 1.0, TypeError, r"component must be an integer; got 1.0 of type float"),
        ((0, 1), True, TypeError, r"component must be an integer; got True of type bool"),
    ],
)
def test_wrong_directions_are_refused(node, component, error, message):
    with pytest.raises(error, match=message):
        directions(STAR, [torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 1)], node, component)


def test_a_thousand_modes():
    tree = ModeTree.chain(1000)
    weights = [torch.full((2, 2), 0.01) for _ in tree.nodes[:-1]] + [torch.full((2, 1), 0.01)]
    norms = local_component_norms(tree, weights)
    assert len(norms) == 999
    torch.testing.assert_close(norms[0, 1], torch.full((2,), 2e-4**1.5))
    assert unbalancedness(tree, balanced(tree, weights)).item() < 1e-9
