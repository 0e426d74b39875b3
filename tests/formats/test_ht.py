"""The hierarchical Tucker format against dense tensors: arithmetic, norms, truncation and decomposition."""

from __future__ import annotations

import generators
import numpy as np
import pytest
import torch

from tensornet.analysis.ranks import hierarchical_rank, hierarchical_singular_values
from tensornet.formats.hsvd import hsvd
from tensornet.formats.ht import HT, DependentColumnsWarning, ToleranceWarning
from tensornet.htf import HTF
from tensornet.tree import ModeTree


def dense(ht):
    """The tensor by one einsum over all nodes, which shares nothing with the format but its tensors."""
    order, nodes = ht.tree.order, len(ht.tensors)
    operands = []
    for place, (tensor, below) in enumerate(zip(ht.tensors, ht.tree.child_ids)):
        operands += [tensor, [*([order + child for child in below] or [place]), order + place]]
    return torch.einsum(*operands, [*range(order), order + nodes - 1]).squeeze(-1)


SEEDS = range(12)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_dense_tensors(seed, dtype):
    left, right = generators.random_ht(seed, dtype), generators.random_ht(seed, dtype, shift=1)
    a, b = dense(left), dense(right)
    near = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(left.contract(), a, **near)
    torch.testing.assert_close((left + right).contract(), a + b, **near)
    torch.testing.assert_close((left - 2 * right).contract(), a - 2 * b, **near)
    torch.testing.assert_close(left.inner(right), (a.conj() * b).sum(), **near)
    torch.testing.assert_close(left.norm(), torch.linalg.vector_norm(a), **near)
    torch.testing.assert_close(left.orthogonalised().contract(), a, **near)
    torch.testing.assert_close(left.truncate().contract(), a, **near)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("seed", SEEDS)
def test_hsvd_is_exact_with_the_hierarchical_rank(seed, dtype):
    ht = generators.random_ht(seed, dtype)
    tensor = dense(ht)
    found = hsvd(tensor, ht.tree)
    torch.testing.assert_close(found.contract(), tensor, rtol=1e-10, atol=1e-10)
    assert found.ranks == {node: max(rank, 1) for node, rank in hierarchical_rank(tensor, ht.tree, rtol=1e-10).items()}
    assert found.error_bound <= 1e-13 * torch.linalg.vector_norm(tensor).item()


@pytest.mark.parametrize("rtol", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_error_bound_is_one_and_keeps_the_tolerance(seed, rtol):
    tree = ModeTree.random(4, seed=seed, unary=0.2)
    tensor = torch.from_numpy(np.random.default_rng(seed).standard_normal((3, 4, 2, 5)))
    found = hsvd(tensor, tree, rtol=rtol)
    error = torch.linalg.vector_norm(found.contract() - tensor).item()
    assert error <= found.error_bound * (1 + 1e-12) + 1e-12
    assert found.error_bound <= rtol * torch.linalg.vector_norm(tensor).item()
    again = found.truncate(atol=0.5)
    assert torch.linalg.vector_norm(again.contract() - tensor).item() <= again.error_bound * (1 + 1e-12) + 1e-12


def test_the_bound_is_the_tails_of_the_singular_values():
    tree = ModeTree.perfect(4)
    tensor = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 3, 3, 3)))
    with pytest.warns(ToleranceWarning, match="max_rank=2 leaves an error bound of"):
        found = hsvd(tensor, tree, max_rank=2)
    values = hierarchical_singular_values(tensor, tree)
    del values[2, 3]  # the same as of (0, 1), and counted once
    tails = sum(value[2:].square().sum().item() for value in values.values())
    assert found.error_bound == pytest.approx(tails**0.5)
    assert set(found.ranks.values()) == {2}


def test_norms_of_differences_are_exact_where_inner_products_are_not():
    ht = generators.random_ht(3)
    change = 1e-11 * ht
    found = (ht + change - ht).norm().item()
    assert found == pytest.approx(1e-11 * ht.norm().item(), rel=1e-3)


def test_small_singular_values_survive():
    matrix = torch.diag(torch.logspace(0, -14, 15, dtype=torch.float64))
    assert hsvd(matrix, ModeTree.star(2)).ranks == {(0,): 15, (1,): 15}
    assert hsvd(matrix, ModeTree.star(2), rtol=2e-10).ranks == {(0,): 10, (1,): 10}


def test_wrong_arguments():
    with pytest.raises(ValueError, match="tensor needs one axis per mode"):
        hsvd(torch.ones(2, 2), ModeTree.star(3))
    with pytest.raises(ValueError, match="max_rank must be at least 1"):
        hsvd(torch.ones(2, 2), ModeTree.star(2), max_rank=0)
    with pytest.raises(ValueError, match="last axis of the root"):
        HT(ModeTree.star(1), (torch.ones(2, 1), torch.ones(1, 2)))
    with pytest.raises(ValueError, match="must have the axes"):
        HT(ModeTree.star(1), (torch.ones(2, 3), torch.ones(2, 1)))
    with pytest.raises(ValueError, match="same mode sizes"):
        hsvd(torch.ones(2, 2), ModeTree.star(2)) + hsvd(torch.ones(2, 3), ModeTree.star(2))


@pytest.mark.parametrize("order", [2, 3, 5])
def test_from_tensor_trains(order):
    rng = np.random.default_rng(order)
    ranks, sizes = [1, *rng.integers(1, 4, order - 1), 1], rng.integers(1, 5, order)
    cores = [rng.standard_normal((ranks[mode], sizes[mode], ranks[mode + 1])) for mode in range(order)]
    expected = cores[0]
    for core in cores[1:]:
        expected = np.tensordot(expected, core, 1)
    np.testing.assert_allclose(HT.from_tt(cores).contract().numpy(), expected[0, ..., 0], atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_from_tucker(order):
    rng = np.random.default_rng(order)
    core = rng.standard_normal(tuple(rng.integers(1, 4, order)))
    factors = [rng.standard_normal((int(rng.integers(1, 5)), size)) for size in core.shape]
    expected = core
    for factor in factors:  # the first axis left goes to the end
        expected = np.tensordot(expected, factor, ([0], [1]))
    np.testing.assert_allclose(HT.from_tucker(core, factors).contract().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: HT.from_tt([np.ones((1, 2, 3)), np.ones((2, 2, 1))]), "shapes .* of a train"),
        (lambda: HT.from_tt([np.ones((1, 2, 1))]), "shapes .* of a train"),
        (lambda: HT.from_tucker(np.ones((2, 3)), [np.ones((4, 2)), np.ones((4, 2))]), r"for a core \(2, 3\); got"),
    ],
)
def test_wrong_trains_and_tucker_decompositions(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("seed", range(12))
def test_singular_values_are_those_of_the_tensor(seed, dtype):
    ht = generators.random_ht(seed, dtype)
    dense_values = hierarchical_singular_values(ht.contract(), ht.tree)
    for node, values in hierarchical_singular_values(ht, ht.tree).items():
        count = min(len(values), len(dense_values[node]))
        torch.testing.assert_close(values[:count], dense_values[node][:count], rtol=1e-9, atol=1e-9)
        assert (values[count:] < 1e-9).all()
        assert (dense_values[node][count:] < 1e-9).all()


def test_singular_values_need_the_same_tree():
    ht = generators.random_ht(0)
    with pytest.raises(ValueError, match="format of the same tree"):
        hierarchical_singular_values(ht, ModeTree.star(7))


def random_ht(tree, rank, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return HTF(tree, mode_sizes=3, ranks=rank, init_std=1.0, dtype=dtype, generator=generator).to_ht()


@pytest.mark.parametrize(
    ("one", "other"), [(torch.float32, torch.float64), (torch.float64, torch.complex128), (torch.float32, torch.complex64)]
)
def test_sums_and_products_have_the_type_that_holds_both(one, other):
    left, right = random_ht(ModeTree.perfect(4), 2, one), random_ht(ModeTree.perfect(4), 2, other, seed=1)
    for total in (left + right, right + left):
        assert total.contract().dtype == torch.promote_types(one, other)
        torch.testing.assert_close(total.contract(), left.contract() + right.contract(), rtol=1e-5, atol=1e-5)
    inner = (left.contract().to(other).conj() * right.contract()).sum()
    torch.testing.assert_close(left.inner(right), inner, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 1.5, 1 + 2j, torch.tensor(3.0), np.float64(0.5)])
def test_multiples_by_any_number(factor):
    ht = hsvd(random_ht(ModeTree.perfect(4), 3).contract(), ModeTree.perfect(4), max_rank=2, rtol=1.0)
    assert ht.error_bound > 0
    for multiple in (ht * factor, factor * ht, ht / (1 / factor)):
        torch.testing.assert_close(multiple.contract(), ht.contract() * factor)
        assert type(multiple.error_bound) is float
        assert multiple.error_bound == pytest.approx(ht.error_bound * abs(complex(factor)))


@pytest.mark.parametrize("factor", ["2", random_ht(ModeTree.perfect(4), 2), torch.ones(2)])
def test_only_by_numbers(factor):
    with pytest.raises(TypeError):
        random_ht(ModeTree.perfect(4), 2) * factor


def test_the_norm_has_a_gradient_also_where_columns_depend_on_each_other():
    weights = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    twice = HTF.from_cp(None, weights).to_ht()
    found = torch.autograd.grad((twice + twice).norm(), weights)
    expected = torch.autograd.grad(2 * torch.linalg.vector_norm(HTF.from_cp(None, weights).contract()), weights)
    for mine, other in zip(found, expected):
        torch.testing.assert_close(mine, other)
    zero = twice - twice
    assert all(not gradient.isnan().any() for gradient in torch.autograd.grad(zero.norm(), weights))


def test_gradients_through_truncation():
    tree = ModeTree.perfect(4)
    start = [tensor.clone().requires_grad_() for tensor in random_ht(tree, 3).tensors]
    direction = torch.randn(3, 3, 3, 3, dtype=torch.float64)

    def value(*tensors):
        return (HT(tree, tensors).truncate(max_rank=2, rtol=1.0).contract() * direction).sum()

    assert torch.autograd.gradcheck(value, start)


def test_gradients_that_do_not_exist_are_told():
    tensors = [tensor.clone().requires_grad_() for tensor in random_ht(ModeTree.perfect(4), 2).tensors]
    ht = HT(ModeTree.perfect(4), tensors)
    with pytest.warns(DependentColumnsWarning, match="columns depend on each other"):
        (ht + ht).orthogonalised()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_decompositions_of_other_types(dtype):
    tensor = torch.arange(16).reshape(2, 2, 2, 2).to(dtype)
    ht = hsvd(tensor, ModeTree.perfect(4))
    assert ht.contract().dtype == torch.float32
    torch.testing.assert_close(ht.contract(), tensor.float(), rtol=1e-5, atol=1e-4)


def test_arrays_and_integers_are_taken():
    ht = HT.from_tt([np.ones((1, 2, 3)), np.ones((3, 2, 1), dtype=np.float32)])
    assert ht.tensors[0].dtype == torch.float64
    assert HT.from_tucker([[1, 0], [0, 2]], [[[1, 0], [0, 1]]] * 2).norm().item() == pytest.approx(5**0.5)
    with pytest.raises(TypeError, match="cores must be a sequence of arrays; got NoneType"):
        HT.from_tt(None)
    with pytest.raises(ValueError, match=r"at least one entry; got the shape \(0, 3\)"):
        hsvd(np.zeros((0, 3)), ModeTree.star(2))
