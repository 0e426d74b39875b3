"""Matricization, ranks and separation rank against loops over Definitions 3, 4 and 6, Lemma 1, Proposition 4, NumPy and TensorLy."""

from __future__ import annotations

import itertools
import math
import threading

import numpy as np
import pytest
import tensorly
import torch
from generators import random_array, random_case
from oracles import end_tensor, measure

from tensornet.analysis.ranks import effective_rank, hierarchical_rank, hierarchical_singular_values, matricize, separation_rank
from tensornet.evaluation.circuit import forward
from tensornet.shape import shape_of_weights
from tensornet.tree import ModeTree, RepeatedNode

SEEDS = range(60)


def subsets(order):
    return [subset for size in range(order + 1) for subset in itertools.combinations(range(order), size)]


def naive_matricization(tensor, modes):
    """Footnote 7, entry by entry, with its 1-based indices."""
    rows = sorted(modes)
    columns = [mode for mode in range(tensor.ndim) if mode not in rows]
    result = np.full([math.prod(tensor.shape[mode] for mode in part) for part in (rows, columns)], np.nan, tensor.dtype)
    for entry in np.ndindex(tensor.shape):
        place = []
        for part in (rows, columns):
            index = 1
            for count, mode in enumerate(part):
                index += (entry[mode] + 1 - 1) * math.prod(tensor.shape[before] for before in part[:count])
            place.append(index - 1)
        result[tuple(place)] = tensor[entry]
    return result


@pytest.mark.parametrize("sizes", [(), (3,), (2, 3), (2, 3, 4), (3, 1, 2, 2)])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_matricizations_are_those_of_footnote_7(sizes, dtype):
    tensor = random_array(np.random.default_rng(0), sizes, dtype) if sizes else np.array(2.0, dtype)
    for modes in subsets(len(sizes)):
        expected = naive_matricization(tensor, modes)
        for given in (modes, modes[::-1], list(modes), set(modes), iter(modes), np.array(modes, dtype=int)):
            np.testing.assert_array_equal(matricize(tensor, given), expected)
        found = matricize(torch.from_numpy(tensor), modes)
        np.testing.assert_array_equal(found.numpy(), expected)
        assert found.dtype == torch.from_numpy(tensor).dtype


def test_matricization_of_a_known_tensor():
    tensor = np.arange(24).reshape(2, 3, 4)  # Kolda's convention: the entry (i, j, k) of mode 1 is in column i + 2 k
    assert matricize(tensor, [1])[2].tolist() == [tensor[i, 2, k] for k in range(4) for i in range(2)]
    assert matricize(tensor, [0, 2]).T.tolist() == matricize(tensor, [1]).tolist()


def test_matricizations_agree_with_tensorly():
    rng = np.random.default_rng(0)
    tensor = rng.standard_normal((2, 3, 4, 5))
    for mode in range(4):  # TensorLy's last mode is fastest
        np.testing.assert_array_equal(matricize(tensor, [mode]), tensorly.unfold(tensor.transpose(), 3 - mode))
    for modes in subsets(4):
        others = [mode for mode in range(4) if mode not in modes]
        np.testing.assert_array_equal(matricize(tensor, modes), tensorly.base.matricize(tensor, modes[::-1], others[::-1]))


def test_matricization_can_be_undone():
    tensor = torch.randn(2, 3, 4, 5)
    matrix = matricize(tensor, [3, 1])
    back = matrix.reshape(5, 3, 4, 2).permute(3, 1, 2, 0)
    assert torch.equal(back, tensor)


def test_matricization_keeps_dtype_and_memory_where_it_can():
    tensor = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert matricize(tensor, [1]).dtype == torch.bfloat16
    assert matricize(tensor, [1]).data_ptr() == matricize(tensor, [0]).data_ptr() == tensor.data_ptr()
    assert matricize(np.zeros((2, 2), np.int8), [0]).dtype == np.int8
    assert torch.autograd.gradcheck(lambda given: matricize(given, [2, 0]), torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(
    ("tensor", "modes", "error", "message"),
    [
        (torch.zeros(2, 2), [2], ValueError, r"modes must be from 0 to 1; got \[2\]"),
        (torch.zeros(2, 2), [-1, 0], ValueError, r"modes must be from 0 to 1; got \[-1, 0\]"),
        (torch.zeros(2, 2), [1, 1], ValueError, r"every mode is named once; got \[1, 1\]"),
        (torch.zeros(2, 2), [0.0], TypeError, r"modes must be integers; got \[0.0\]"),
        (torch.zeros(2, 2), 0, TypeError, r"modes must be integers; got 0"),
        ([[1.0]], [0], TypeError, r"tensor must be a torch tensor or a NumPy array; got list"),
    ],
)
def test_wrong_modes_are_refused(tensor, modes, error, message):
    with pytest.raises(error, match=message):
        matricize(tensor, modes)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_hierarchical_ranks_are_those_of_the_naive_matricizations(dtype):
    for seed in SEEDS:
        tree, weights = random_case(seed, dtype=dtype)
        tensor = end_tensor(tree, weights)
        ranks = hierarchical_rank(tensor, tree)
        values = hierarchical_singular_values(tensor, tree)
        assert list(ranks) == list(values) == list(tree.nodes[:-1])
        assert hierarchical_rank(torch.from_numpy(tensor), tree) == ranks
        for node in tree.nodes[:-1]:
            matrix = naive_matricization(tensor, node)
            assert ranks[node] == np.linalg.matrix_rank(matrix)
            expected = np.linalg.svd(matrix, compute_uv=False)
            np.testing.assert_allclose(values[node], expected, rtol=1e-12, atol=1e-13 * expected.max())
            assert values[node].dtype == np.float64


@pytest.mark.parametrize("outputs", [1, 3])
def test_ranks_are_at_most_the_numbers_of_local_components_as_lemma_1_states(outputs):
    reached = 0
    for seed in range(150):
        tree, weights = random_case(seed, outputs=outputs, max_mode_size=5, max_rank=3)
        tensor = end_tensor(tree, weights)
        for node in tree.interior:
            for child in tree.children(node):
                values = np.linalg.svd(matricize(tensor, child), compute_uv=False)  # outputs count as columns
                rank = int((values > 1e-10 * values[0]).sum())
                assert rank <= weights[node].shape[0]
                reached += rank == weights[node].shape[0] > 1
    assert reached > 50


def test_ranks_of_repeated_nodes():
    tree = ModeTree.from_nested([[[0]], [[1, 2]]])
    ranks = hierarchical_rank(torch.eye(4).reshape(4, 2, 2), tree)
    assert ranks[0,] == ranks[RepeatedNode((0,), 1)] == ranks[RepeatedNode((0,), 2)] == 4
    assert ranks[1, 2] == ranks[RepeatedNode((1, 2), 1)] == 4
    assert hierarchical_rank(torch.ones(3), ModeTree.from_nested([[0]])) == {(0,): 1, RepeatedNode((0,), 1): 1}


def test_more_axes_than_torch_copes_with():
    """Axes of size 1 count in the 64 that many of torch's functions take, and the end tensor may have any number of them."""
    sizes = [1] * 70
    sizes[3], sizes[50], sizes[69] = 2, 3, 4
    tensor = torch.randn(24, dtype=torch.float64).reshape(sizes)
    tree = ModeTree.chain(70)
    assert hierarchical_rank(tensor, tree)[(3,)] == hierarchical_rank(tensor.mT, ModeTree.star(70))[(3,)] == 2
    assert hierarchical_rank(tensor, tree)[tuple(range(51))] == 4
    assert torch.equal(matricize(tensor, [2, 69]), matricize(tensor.squeeze(), [2]))
    assert matricize(tensor, [0]).shape == (1, 24)
    tensor.view(-1)[13] = math.nan
    with pytest.raises(ValueError, match=r"tensor must be finite; found nan at \((0, ){3}1, (0, ){19}.*0, 1\)"):
        hierarchical_rank(tensor, tree)
    assert separation_rank(lambda x: sum(given[:, 0] for given in x), [2, 3] + [1] * 68, [0]) == 2


def test_the_tolerance_of_the_rank():
    tensor = torch.diag(torch.tensor([1.0, 1e-3, 1e-12], dtype=torch.float64))
    star = ModeTree.star(2)
    assert hierarchical_rank(tensor, star) == {(0,): 3, (1,): 3}
    assert hierarchical_rank(tensor, star, rtol=1e-6) == {(0,): 2, (1,): 2}
    assert hierarchical_rank(tensor, star, rtol=0.5) == {(0,): 1, (1,): 1}
    assert hierarchical_rank(tensor.float(), star) == {(0,): 2, (1,): 2}
    assert hierarchical_rank(tensor.numpy().astype(np.float32), star) == {(0,): 2, (1,): 2}
    assert hierarchical_rank(torch.zeros(3, 3), star) == hierarchical_rank(torch.zeros(3, 3), star, rtol=0) == {(0,): 0, (1,): 0}
    assert hierarchical_rank(torch.zeros(0, 3), star) == {(0,): 0, (1,): 0}
    wide = torch.zeros(2, 1000, dtype=torch.float64)  # NumPy's default tolerance is 1000 eps here
    wide[0, 0], wide[1, 1] = 1, 900 * torch.finfo(torch.float64).eps
    assert hierarchical_rank(wide, star)[0,] == np.linalg.matrix_rank(wide.numpy()) == 1
    assert hierarchical_rank(wide[:, :800], star)[0,] == np.linalg.matrix_rank(wide.numpy()[:, :800]) == 2


def test_small_singular_values_are_accurate():
    """Through a Gram matrix, everything below 1e-8 of the largest would be lost."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((size, 4)))[0] for size in (6, 20))
    wanted = np.array([1, 1e-4, 1e-9, 1e-13])
    tensor = ((left * wanted) @ right.T).reshape(2, 3, 4, 5)
    found = hierarchical_singular_values(tensor, ModeTree.perfect(4))[0, 1]
    np.testing.assert_allclose(found[:4], wanted, atol=1e-15)


def test_other_types_of_numbers():
    tree = ModeTree.star(2)
    integers = np.arange(6).reshape(2, 3)
    expected = np.linalg.svd(integers, compute_uv=False)
    for given in (integers, integers.astype(np.uint8), integers.astype(">f8"), integers[::-1, ::-1].astype(float)[::-1, ::-1]):
        np.testing.assert_allclose(hierarchical_singular_values(given, tree)[0,], expected, rtol=1e-12)
    for given in (torch.from_numpy(integers), torch.from_numpy(integers).bfloat16(), torch.from_numpy(integers).half()):
        np.testing.assert_allclose(hierarchical_singular_values(given, tree)[0,].numpy(), expected, rtol=1e-5)
    frozen = integers.astype(float)
    frozen.flags.writeable = False
    assert hierarchical_rank(frozen, tree) == {(0,): 2, (1,): 2}
    assert hierarchical_rank(np.eye(2, dtype=bool), tree) == {(0,): 2, (1,): 2}


def test_singular_values_are_differentiable():
    tensor = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: tuple(hierarchical_singular_values(given, ModeTree.chain(3)).values()), tensor)


@pytest.mark.parametrize("function", [hierarchical_rank, hierarchical_singular_values])
def test_wrong_tensors_are_refused(function):
    tree = ModeTree.chain(3)
    with pytest.raises(ValueError, match="tensor needs one axis per mode of the tree; got 2 axes for 3 modes"):
        function(torch.zeros(2, 2), tree)
    bad = np.zeros((2, 2, 2))
    bad[1, 0, 1] = np.nan
    with pytest.raises(ValueError, match=r"tensor must be finite; found nan at \(1, 0, 1\)"):
        function(bad, tree)
    with pytest.raises(ValueError, match=r"tensor must be finite; found inf at \(0, 0, 0\)"):
        function(torch.full((2, 2, 2), math.inf), tree)
    with pytest.raises(TypeError, match="tree must be a ModeTree; got tuple"):
        function(torch.zeros(2, 2), (0, 1))
    with pytest.raises(TypeError, match=r"tensor must be dense; got a tensor of the layout torch.sparse_coo"):
        function(torch.zeros(2, 2, 2).to_sparse(), tree)
    with pytest.raises(TypeError, match="tensor must be a torch tensor or a NumPy array; got list"):
        function([[1.0]], tree)
    with pytest.raises(TypeError, match="tensor must be an array of numbers; got ndarray"):
        function(np.array([[["a"]]]), tree)
    with pytest.raises(TypeError, match=r"tensor must be an array of numbers; got ndarray .*longdouble"):
        function(np.zeros((2, 2, 2), np.longdouble), tree)


@pytest.mark.parametrize("rtol", [-1e-3, math.nan, math.inf])
def test_wrong_tolerances_are_refused(rtol):
    with pytest.raises(ValueError, match="rtol must be at least 0 and finite; got"):
        hierarchical_rank(torch.ones(2, 2), ModeTree.star(2), rtol=rtol)
    with pytest.raises(ValueError, match="rtol must be at least 0 and finite; got"):
        separation_rank(lambda x: x[0][:, 0], [1], [0], rtol=rtol)


def test_effective_ranks_of_known_values():
    assert effective_rank(np.array([3.0])) == pytest.approx(1)
    assert effective_rank(np.full(7, 0.2)) == pytest.approx(7)
    assert effective_rank(np.array([0.0, 5.0, 0.0, 5.0])) == pytest.approx(2)
    assert effective_rank(np.array([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)
    assert effective_rank(np.array([4, 2, 2])) == pytest.approx(2**1.5)
    assert effective_rank(np.zeros(3)) == effective_rank(np.zeros(0)) == 0
    assert effective_rank(torch.zeros(3)).item() == 0


def test_effective_ranks_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    for size in range(1, 30):
        values = rng.exponential(size=size) ** 4
        entropy = 0.0
        for value in values:
            share = value / values.sum()
            entropy -= share * math.log(share)
        assert effective_rank(values) == pytest.approx(math.exp(entropy), rel=1e-12)
        assert effective_rank(torch.from_numpy(values)).item() == pytest.approx(math.exp(entropy), rel=1e-12)


def test_effective_ranks_do_not_change_with_scale():
    values = np.array([1.0, 0.5, 0.25, 0.0])
    expected = effective_rank(values)
    for scale in (1e-300, 1e-100, 1e100, 1e308):
        assert effective_rank(scale * values) == pytest.approx(expected, rel=1e-12)
    assert effective_rank(np.full(8, 1.5e308)) == pytest.approx(8)


def test_effective_ranks_keep_kind_and_type():
    assert isinstance(effective_rank(np.ones(2)), np.float64)
    assert isinstance(effective_rank(np.ones(2, np.float32)), np.float32)
    assert effective_rank(torch.ones(2)).dtype == torch.float32
    assert effective_rank(torch.ones(2)).shape == ()


def test_effective_ranks_are_differentiable():
    values = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(effective_rank, values)
    for zeros in ([1.0, 0.5, 0.0], [0.0, 0.0]):
        values = torch.tensor(zeros, requires_grad=True)
        (gradient,) = torch.autograd.grad(effective_rank(values), values)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.array([1.0, -0.5]), ValueError, "singular_values must be at least 0; got -0.5"),
        (torch.tensor([1.0, math.nan]), ValueError, r"singular_values must be finite; found nan at \(1,\)"),
        (torch.tensor([math.inf]), ValueError, r"singular_values must be finite; found inf at \(0,\)"),
        (torch.ones(2, 2), ValueError, r"singular_values must be a vector; got the shape \(2, 2\)"),
        (torch.tensor(1.0), ValueError, r"singular_values must be a vector; got the shape \(\)"),
        (torch.ones(2, dtype=torch.complex64), TypeError, "singular_values must be real; got torch.complex64"),
        ([1.0], TypeError, "singular_values must be a torch tensor or a NumPy array; got list"),
    ],
)
def test_wrong_singular_values_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        effective_rank(values)


def inner_products(tree, weights):
    """The function of Proposition 4: inner products with the end tensor."""
    tensor = end_tensor(tree, weights)
    return lambda inputs: np.array([measure(tensor, list(vectors)) for vectors in zip(*(given.numpy() for given in inputs))])


def network(tree, weights):
    """The same function as the network of Appendix A computes it."""
    shape = shape_of_weights(tree, {node: weight.shape for node, weight in weights.items()})
    tensors = [torch.from_numpy(weights[node]) for node in tree.nodes]
    return lambda inputs: forward(shape, tensors, inputs)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("evaluated", [inner_products, network])
def test_separation_ranks_are_the_ranks_of_the_matricizations_as_proposition_4_states(evaluated, dtype):
    seen = set()
    for seed in range(25):
        tree, weights = random_case(seed, max_order=4, max_mode_size=3, max_rank=2, dtype=dtype)
        tensor, function = end_tensor(tree, weights), evaluated(tree, weights)
        rng = np.random.default_rng(seed)
        templates = [random_array(rng, (size + 1, size), dtype) for size in tensor.shape]
        for subset in subsets(tree.order):
            values = np.linalg.svd(matricize(tensor, subset), compute_uv=False)
            expected = int((values > 1e-10 * values[0]).sum())
            assert separation_rank(function, tensor.shape, subset, rtol=1e-10, dtype=torch.from_numpy(tensor).dtype) == expected
            assert separation_rank(function, templates, subset, rtol=1e-10) == expected
            seen.add(expected)
    assert seen >= {1, 2}


def test_separation_ranks_of_known_functions():
    line = torch.linspace(0.1, 1, 9, dtype=torch.float64).unsqueeze(1)

    def rank(function, subset):
        return separation_rank(lambda x: function(*(given[:, 0] for given in x)), [line] * 3, subset, rtol=1e-10)

    assert rank(lambda x, y, z: torch.zeros_like(x), [0]) == 0
    assert rank(lambda x, y, z: torch.exp(x + y + z), [1]) == 1
    assert rank(lambda x, y, z: x + y + z, [0, 2]) == 2
    assert rank(lambda x, y, z: torch.cos(x - y) * z, [0]) == 2
    assert rank(lambda x, y, z: torch.cos(x - y) * z, [2]) == 1
    assert rank(lambda x, y, z: (x + y * z) ** 4, [1, 2]) == 5
    assert rank(lambda x, y, z: (x - y).abs(), [0]) == 9  # infinite: a lower bound that the number of templates limits
    assert rank(lambda x, y, z: x + y + z, []) == rank(lambda x, y, z: x + y + z, [0, 1, 2]) == 1


def test_separation_rank_evaluates_in_batches_without_gradients():
    batches = []
    weight = torch.ones(1, requires_grad=True)

    def function(inputs):
        batches.append(len(inputs[0]))
        result = weight * inputs[0][:, 0] * inputs[1].sum(1)
        assert not result.requires_grad
        return result

    assert separation_rank(function, [3, 5], [0], batch_size=4) == 1
    assert batches == [4, 4, 4, 3]


def test_separation_rank_takes_what_functions_return():
    assert separation_rank(lambda x: x[0][:, 0].numpy() * x[1][:, 0].numpy(), [2, 2], [0]) == 1
    assert separation_rank(lambda x: (x[0] * x[1]).sum(1).to(torch.int64), [3, 3], [0]) == 3
    assert separation_rank(lambda x: (x[0] * x[1]).sum(1), [np.eye(3), torch.eye(3)], [1]) == 3


@pytest.mark.parametrize(
    ("function", "templates", "subset", "options", "error", "message"),
    [
        (lambda x: x[0], [2, 2], [0], {}, ValueError, r"must return one number a point; got the shape \(4, 2\) for 4 points"),
        (lambda x: x[0].sum(), [2, 2], [0], {}, ValueError, r"must return one number a point; got the shape \(\) for 4 points"),
        (lambda x: None, [2, 2], [0], {}, TypeError, "the function's result must be a torch tensor .*; got NoneType"),
        (lambda x: x[0][:, 0] / 0, [2, 2], [0], {}, ValueError, r"the function's result must be finite; found inf at \(0, 0\)"),
        (lambda x: x[0][:, 0], [2, 2], [2], {}, ValueError, r"modes must be from 0 to 1; got \[2\]"),
        (lambda x: x[0][:, 0], [2, 2], [0, 0], {}, ValueError, "every mode is named once"),
        (lambda x: x[0][:, 0], [2, 2.0], [0], {}, TypeError, "templates must be matrices or input sizes; got float for input 1"),
        (lambda x: x[0][:, 0], [True, 2], [0], {}, TypeError, "templates must be matrices or input sizes; got bool for input 0"),
        (lambda x: x[0][:, 0], [2, torch.ones(3)], [0], {}, ValueError, r"templates must be a matrix \(M, D\); got .* \(3,\) for input 1"),
        (lambda x: x[0][:, 0], [10**3] * 3, [0], {}, ValueError, r"must have 1 to 10000000 points; got \[1000, 1000, 1000\]"),
        (lambda x: x[0][:, 0], [2, torch.ones(0, 3)], [0], {}, ValueError, r"must have 1 to .* points; got \[2, 0\]"),
        (lambda x: x[0][:, 0], [2, 2], [0], {"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        (lambda x: x[0][:, 0], [2, 2], [0], {"batch_size": 2.5}, TypeError, "batch_size must be an integer; got 2.5 of type float"),
        (lambda x: x[0][:, 0], [2, 2], [0], {"max_points": "a"}, TypeError, "max_points must be an integer; got 'a' of type str"),
        (lambda x: x[0][:, 0], [2, 2], [0], {"rtol": "a"}, TypeError, "rtol must be a number; got 'a' of type str"),
        (lambda x: x[0][:, 0], [2, 2], [0], {"dtype": np.float32}, TypeError, "dtype must be a type of torch; got <class 'numpy.float32'>"),
        (lambda x: x[0][:, 0], 3, [0], {}, TypeError, "templates needs one entry per input; got 3 of type int"),
        (lambda x: x[0][:, 0], [-2, 2], [0], {}, ValueError, r"templates\[0\] must be at least 1; got -2"),
        (lambda x: x[0][:, 0], [3, 3], [0], {"max_points": 8}, ValueError, "the grid must have 1 to 8 points"),
    ],
)
def test_wrong_functions_and_templates_are_refused(function, templates, subset, options, error, message):
    with pytest.raises(error, match=message):
        separation_rank(function, templates, subset, **options)


def test_the_backend_of_tensorly_stays():
    before = tensorly.get_backend()
    assert before != "pytorch"
    seen = []
    hierarchical_rank(torch.eye(2), ModeTree.star(2))
    other = threading.Thread(target=lambda: seen.append(tensorly.get_backend()))  # sees the process-wide backend
    other.start()
    other.join()
    assert [tensorly.get_backend(), *seen] == [before, before]


@pytest.mark.gpu
def test_on_a_gpu():
    tree, weights = random_case(3)
    tensor = torch.from_numpy(end_tensor(tree, weights))
    values = hierarchical_singular_values(tensor.cuda(), tree)
    for node, expected in hierarchical_singular_values(tensor, tree).items():
        assert values[node].is_cuda
        torch.testing.assert_close(values[node].cpu(), expected)
    assert hierarchical_rank(tensor.cuda(), tree) == hierarchical_rank(tensor, tree)
    assert effective_rank(torch.ones(3).cuda()).is_cuda
    assert separation_rank(lambda x: (x[0] * x[1]).sum(1), [3, 3], [0], device="cuda") == 3
