"""The module: weights and their initialisation, delegation, matrix and CP factorization as cases, torch's own machinery."""

from __future__ import annotations

import copy
import pickle
import warnings

import generators
import numpy as np
import oracles
import pytest
import torch
from torch.nn.utils import prune

from tensornet.analysis.ranks import hierarchical_rank, matricize
from tensornet.contraction.plan import MemoryLimitError
from tensornet.evaluation.circuit import observe
from tensornet.htf import HTF
from tensornet.tree import ModeTree, RepeatedNode


def test_defaults_need_nothing_but_a_tree() -> None:
    htf = HTF(ModeTree.perfect(4))
    assert htf.mode_sizes == (2, 2, 2, 2)
    assert htf.contract().shape == (2, 2, 2, 2)
    assert htf.contract().dtype == torch.get_default_dtype()


@pytest.mark.parametrize("seed", range(15))
def test_default_ranks_represent_every_tensor(seed: int) -> None:
    """Gradient-free: with generic weights the end tensors span all tensors, since the Jacobian has full rank."""
    tree = ModeTree.random(4, seed=seed, unary=0.2)
    htf = HTF(
        tree,
        mode_sizes=[2, 3, 2, 2],
        init_std=1.0,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
        outputs=1 + seed % 2,
    )
    weights = htf.weight_list()
    end = htf.contract()
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(end.flatten()[place], weights, retain_graph=True)])
        for place in range(end.numel())
    ]
    assert torch.linalg.matrix_rank(torch.stack(rows)) == end.numel()


def test_default_ranks_reconstruct_a_given_tensor_exactly() -> None:
    """The construction in the docstring of the default ranks, for a binary tree over four modes of size 2."""
    target = torch.randn(2, 2, 2, 2, dtype=torch.float64)
    htf = HTF(ModeTree.perfect(4), dtype=torch.float64)
    assert htf.ranks == {(0, 1): 4, (2, 3): 4, (0, 1, 2, 3): 4}
    basis = torch.eye(2, dtype=torch.float64)
    first, second = torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")
    weights = {(mode,): basis[:, (first if mode % 2 == 0 else second).flatten()] for mode in range(4)}
    weights[(0, 1)] = torch.eye(4, dtype=torch.float64)
    weights[(2, 3)] = target.reshape(4, 4).T
    weights[(0, 1, 2, 3)] = torch.ones(4, 1, dtype=torch.float64)
    assert torch.allclose(HTF.from_weights(htf.tree, weights).contract(), target)


def test_enormous_default_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"need about 1e308 weights .* give smaller ones with ranks="):
        HTF(ModeTree.perfect(1024))


@pytest.mark.parametrize("seed", range(30))
def test_all_evaluations_agree(seed: int) -> None:
    tree, weights = generators.random_case(seed, outputs=1 + seed % 2, dtype=np.complex128 if seed % 5 == 0 else np.float64)
    htf = HTF.from_weights(tree, weights)
    end = torch.from_numpy(np.asarray(oracles.end_tensor(tree, weights)))
    indices = torch.cartesian_prod(*(torch.arange(size) for size in htf.mode_sizes)).reshape(-1, tree.order)
    one_hot = [torch.nn.functional.one_hot(indices[:, mode], size).to(end.dtype) for mode, size in enumerate(htf.mode_sizes)]
    flat = end.reshape(indices.shape[0], *end.shape[tree.order :])
    assert torch.allclose(htf.contract(), end, rtol=1e-10)
    assert torch.allclose(htf.entries(indices), flat, rtol=1e-10)
    assert torch.allclose(htf(one_hot), flat, rtol=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_lemma_1_ranks_bound_the_hierarchical_rank(seed: int) -> None:
    tree = ModeTree.random(5, seed=seed)
    htf = HTF(tree, mode_sizes=3, ranks=1 + seed % 3, init_std=1.0, dtype=torch.float64)
    ranks = hierarchical_rank(htf.contract().detach(), tree, rtol=1e-9)
    for node, rank in ranks.items():
        parent = tree.parent(node)
        assert parent is not None
        assert rank <= htf.ranks[parent]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_matrix_factorization_of_any_depth(depth: int) -> None:
    nested: object = 1
    for _ in range(depth - 2):
        nested = [nested]
    htf = HTF(ModeTree.from_nested((0, nested)), mode_sizes=[5, 4], ranks=6, fixed_root=True, dtype=torch.float64, init_std=0.5)  # type: ignore[arg-type]
    trained = [weight for weight in htf.weight_list() if weight.requires_grad]
    assert len(trained) == depth == len(list(htf.parameters()))
    product = trained[0]
    for weight in reversed(trained[1:]):
        product = product @ weight.T
    assert torch.allclose(htf.contract(), product)


def test_cp_factorization_is_a_star_with_a_fixed_root() -> None:
    htf = HTF(ModeTree.star(3), mode_sizes=[3, 4, 5], ranks=6, fixed_root=True, dtype=torch.float64, init_std=1.0)
    first, second, third = htf.parameters()
    assert torch.allclose(htf.contract(), torch.einsum("ar,br,cr->abc", first, second, third))
    norms = first.norm(dim=0) * second.norm(dim=0) * third.norm(dim=0)
    assert torch.allclose(htf.local_component_norms()[(0, 1, 2)], norms)
    squares = torch.stack([weight.square().sum(0) for weight in (first, second, third)])
    assert torch.allclose(htf.unbalancedness(), (squares.amax(0) - squares.amin(0)).max())
    htf.contract().sum().backward()
    assert all(weight.grad is not None for weight in htf.parameters())
    assert torch.equal(htf.weights[(0, 1, 2)], torch.ones(6, 1, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bfloat16])
def test_gaussian_initialisation(dtype: torch.dtype) -> None:
    htf = HTF(ModeTree.perfect(4), mode_sizes=100, ranks=100, init_std=0.3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    values = torch.cat([weight.detach().flatten() for weight in htf.weight_list()])
    assert values.dtype == dtype
    spread = values.to(torch.complex128 if dtype.is_complex else torch.float64).abs().square().mean().sqrt()
    assert abs(float(spread) - 0.3) < 4 * 0.3 / (2 * values.numel()) ** 0.5 + 0.3 * 2**-8 * (dtype == torch.bfloat16)
    assert HTF(ModeTree.perfect(4), init_std=0).contract().abs().max() == 0


def test_generator_decides_the_weights() -> None:
    first, second = (HTF(ModeTree.perfect(4), generator=torch.Generator().manual_seed(5)).contract() for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(1)
    assert not torch.equal(HTF(ModeTree.perfect(4)).contract(), HTF(ModeTree.perfect(4)).contract())


def test_balanced_initialisation_has_no_unbalancedness() -> None:
    for seed in range(10):
        htf = HTF(ModeTree.random(6, seed=seed, unary=0.2), mode_sizes=3, ranks=4, init="balanced", init_std=1.0, dtype=torch.float64)
        largest = max(float(weight.detach().square().sum()) for weight in htf.weight_list())
        assert htf.unbalancedness() <= 1e-14 * largest


def test_shared_weights_are_one_parameter_a_level() -> None:
    htf = HTF(ModeTree.perfect(8), mode_sizes=3, ranks=4, shared=True, init_std=1.0, dtype=torch.float64)
    assert len(list(htf.parameters())) == 4
    assert htf.weights[(0,)] is htf.weights[(7,)]
    assert htf.weights[(0, 1)] is not htf.weights[(0,)]
    separate = HTF.from_weights(htf.tree, {node: weight.detach().clone() for node, weight in htf.weights.items()})
    assert torch.allclose(htf.contract(), separate.contract())
    htf.contract().square().sum().backward()
    separate.contract().square().sum().backward()
    shared = htf.weights[(0,)].grad
    assert shared is not None
    assert torch.allclose(shared, sum(separate.weights[(mode,)].grad for mode in range(8)))  # type: ignore[arg-type, misc]


def test_gradients_reach_given_tensors() -> None:
    tree = ModeTree.from_nested(((0, 2), 1))
    weights = {node: torch.randn(2, 2, dtype=torch.float64, requires_grad=True) for node in tree.nodes[:-1]}
    weights[tree.root] = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *values: HTF.from_weights(tree, dict(zip(tree.nodes, values))).contract(), tuple(weights[node] for node in tree.nodes)
    )


@pytest.mark.parametrize("trained", [True, False])
def test_given_parameters_are_used_as_they_are(trained: bool) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2), requires_grad=trained)
    htf = HTF.from_weights(ModeTree.star(2), {(0,): parameter, (1,): parameter, (0, 1): torch.ones(2, 1)})
    assert htf.weights[(0,)] is htf.weights[(1,)] is parameter
    assert parameter.requires_grad == trained
    assert len(list(htf.parameters())) == 2


def test_given_arrays_are_copied() -> None:
    array = np.ones((2, 3))
    htf = HTF.from_weights(ModeTree.star(2), {(0,): array, (1,): np.ones((2, 3)), (0, 1): np.ones((3, 1))})
    array[:] = 5
    assert htf.contract().tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_arrays_that_torch_does_not_take_itself() -> None:
    array = np.arange(6.0).reshape(2, 3)
    frozen = array.copy()
    frozen.flags.writeable = False
    expected = HTF.from_weights(ModeTree.star(1), {(0,): array, RepeatedNode((0,), 1): np.ones((3, 1))}).weights[(0,)]
    for given in (array[::-1, ::-1].copy()[::-1, ::-1], array.astype(">f8"), frozen, np.asfortranarray(array)):
        htf = HTF.from_weights(ModeTree.star(1), {(0,): given, RepeatedNode((0,), 1): np.ones((3, 1))})
        assert torch.equal(htf.weights[(0,)], expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({(0, 1): None}, TypeError, r"the weight of node \(0, 1\) must be an array of numbers; got NoneType"),
        (
            {(0,): np.ones((2, 2), dtype=int)},
            TypeError,
            r"the type of the weight of node \(0,\) must be .*; got torch.int64",
        ),
        (
            {(0,): torch.ones(2, 2).to(torch.float8_e4m3fn)},
            TypeError,
            r"floating type; got torch.float8_e4m3fn",
        ),
        ({(0,): torch.eye(2).to_sparse()}, TypeError, r"the weight of node \(0,\) must be dense; got .* torch.sparse_coo"),
        ({(0,): np.full((2, 2), np.nan)}, ValueError, r"the weight of node \(0,\) must be finite; found nan at \(0, 0\)"),
        ({(0,): np.ones((2, 3))}, ValueError, r"got \(2, 3\) for node \(0,\) and \(2, 1\) for its parent \(0, 1\)"),
        ({(0,): np.ones(2)}, ValueError, r"a weight must be a non-empty matrix .* got the shape \(2,\) for node \(0,\)"),
        ({(0,): np.ones((2, 2), dtype=np.float32)}, ValueError, "all weights must have one dtype; got"),
        ({(5,): np.ones((2, 2))}, ValueError, r"\(5,\) is not a node of this tree"),
    ],
)
def test_bad_weights(change: dict, error: type[Exception], message: str) -> None:  # type: ignore[type-arg]
    weights = {(0,): np.ones((2, 2)), (1,): np.ones((2, 2)), (0, 1): np.ones((2, 1))}
    with pytest.raises(error, match=message) as caught:
        HTF.from_weights(ModeTree.star(2), {**weights, **change})
    assert "\n" not in str(caught.value)


def test_a_missing_weight_is_named() -> None:
    with pytest.raises(ValueError, match=r"weights needs one matrix per node; got 1 for 3 nodes \(missing \(1,\)\)"):
        HTF.from_weights(ModeTree.star(2), {(0,): np.ones((2, 2))})
    with pytest.raises(TypeError, match="weights must be a mapping from nodes to matrices; got list"):
        HTF.from_weights(ModeTree.star(2), [np.ones((2, 2))])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": torch.int64}, TypeError, "dtype must be a real or complex floating type; got torch.int64"),
        ({"dtype": np.float32}, TypeError, "dtype must be a real or complex floating type; got <class 'numpy.float32'>"),
        ({"dtype": torch.float8_e4m3fn}, TypeError, r"dtype must be .*; got torch.float8_e4m3fn \(torch's of 16 bits and more will do\)"),
        ({"init_std": -1.0}, ValueError, "init_std must be at least 0 and finite; got -1.0"),
        ({"init_std": float("nan")}, ValueError, "init_std must be at least 0 and finite; got nan"),
        ({"init_std": float("inf")}, ValueError, "init_std must be at least 0 and finite; got inf"),
        ({"init_std": "1"}, TypeError, "init_std must be a number; got '1' of type str"),
        ({"init_std": torch.ones(2)}, TypeError, r"init_std must be a number; got tensor\(\[1., 1.\]\) of type Tensor"),
        ({"generator": 0}, TypeError, "generator must be a torch.Generator; got 0 of type int"),
        ({"init": "uniform"}, ValueError, "init must be 'gaussian' or 'balanced'; got 'uniform'"),
        ({"init": "balanced", "shared": True}, ValueError, "cannot hold for shared weights"),
        ({"mode_sizes": [2, 2]}, ValueError, "mode_sizes needs one size per mode; got 2 for 4 modes"),
        ({"mode_sizes": 0}, ValueError, "mode_sizes must be at least 1; got 0"),
        ({"mode_sizes": 2.5}, TypeError, "mode_sizes must be an integer; got 2.5"),
        ({"ranks": 0}, ValueError, "ranks must be at least 1; got 0"),
        ({"ranks": {(0, 1): 3}}, ValueError, r"ranks needs one entry per interior node; got 1 for 3 nodes \(missing \(2, 3\)\)"),
        ({"ranks": {(0, 7): 3}}, ValueError, r"\(0, 7\) is not a node of this tree"),
        ({"outputs": 0}, ValueError, "outputs must be at least 1; got 0"),
        ({"pooling": "median"}, ValueError, "pooling must be"),
        ({"activation": "tanh"}, ValueError, "activation must be"),
    ],
)
def test_bad_options(options: dict, error: type[Exception], message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(error, match=message) as caught:
        HTF(ModeTree.perfect(4), **options)
    assert "\n" not in str(caught.value)


def test_a_tree_is_needed() -> None:
    with pytest.raises(TypeError, match="tree must be a ModeTree; got tuple"):
        HTF(((0, 1), 2))  # type: ignore[arg-type]


def test_plan_and_memory_limit() -> None:
    htf = HTF(ModeTree.perfect(8), mode_sizes=4, ranks=16)
    plan = htf.plan()
    with torch.no_grad():  # a gradient needs more memory than the plan tells
        assert torch.equal(htf.contract(memory_limit=plan.peak_bytes), htf.contract())
    with pytest.raises(MemoryLimitError, match=r"may use 1 B"):
        htf.contract(memory_limit=1)
    assert htf.double().plan().peak_bytes == 2 * plan.peak_bytes


def test_gram_is_that_of_the_matricization() -> None:
    htf = HTF(ModeTree.perfect(4), mode_sizes=[2, 3, 4, 2], ranks=3, init_std=1.0, dtype=torch.float64)
    for modes in ([], [1], [0, 2], [3, 0], [0, 1, 2, 3]):
        matrix = matricize(htf.contract(), modes)
        assert torch.allclose(htf.gram(modes), matrix @ matrix.T)


def test_generalized_factorization_contracts_to_its_grid_tensor() -> None:
    htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=4, pooling="max", activation="relu", init_std=1.0, dtype=torch.float64)
    grid = htf.contract()
    indices = torch.cartesian_prod(*[torch.arange(3)] * 4)
    assert torch.allclose(grid.flatten(), htf.entries(indices))
    for method in (htf.plan, lambda: htf.gram([0]), lambda: htf.contract(fixed={0: 1})):
        with pytest.raises(ValueError, match=r"needs? product pooling without activation"):
            method()


def test_moving_copying_and_pickling() -> None:
    htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=4, init_std=1.0)
    expected = htf.contract().detach()
    for other in (copy.deepcopy(htf), pickle.loads(pickle.dumps(htf))):
        assert torch.equal(other.contract(), expected)
        assert other.tree == htf.tree
    fresh = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=4)
    fresh.load_state_dict(htf.state_dict())
    assert torch.equal(fresh.contract(), expected)
    assert torch.allclose(htf.to(torch.float64).contract().float(), expected, rtol=1e-4)
    assert all(weight.dtype == torch.float64 for weight in htf.weights.values())


def test_parametrized_and_functional_weights() -> None:
    htf = HTF(ModeTree.star(2), mode_sizes=3, ranks=2, init_std=1.0)
    doubled = {name: 2 * value for name, value in htf.named_parameters()}
    assert torch.allclose(torch.func.functional_call(htf, doubled, (torch.ones(1, 2, 3),)), 8 * htf(torch.ones(1, 2, 3)))
    torch.nn.utils.parametrizations.orthogonal(htf, "weight_0")
    assert torch.allclose(htf.weights[(0,)].T @ htf.weights[(0,)], torch.eye(2), atol=1e-5)
    assert htf.contract().shape == (3, 3)


class TestRegisteredAnew:
    """torch's own tools take parameters out of the module and put them back, at another place."""

    def test_masked(self) -> None:
        htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=4, init_std=1.0)
        prune.l1_unstructured(htf, "weight_0", amount=5)
        assert htf.weights[(0,)] is htf.weight_0
        assert int((htf.weights[(0,)] == 0).sum()) == 5
        prune.remove(htf, "weight_0")
        assert all(weight is getattr(htf, f"weight_{node}") for node, weight in enumerate(htf.weight_list()))

    def test_parametrized_for_a_while(self) -> None:
        htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=3, init_std=1.0)
        expected = htf.contract()
        torch.nn.utils.parametrize.register_parametrization(htf, "weight_0", torch.nn.Identity())
        torch.nn.utils.parametrize.remove_parametrizations(htf, "weight_0")
        assert next(iter(htf.parameters())) is not htf.weight_0
        assert htf.weights[(0,)] is htf.weight_0
        assert torch.equal(htf.contract(), expected)


class TestPruned:
    def test_weights_are_copies(self) -> None:
        htf = HTF(ModeTree.perfect(4), ranks=4, fixed_root=True)
        pruned = htf.prune({(0, 1): 2})
        assert pruned.ranks == {**htf.ranks, (0, 1): 2}
        assert not {weight.data_ptr() for weight in htf.weight_list()} & {weight.data_ptr() for weight in pruned.weight_list()}
        assert torch.equal(pruned.weights[(2,)], htf.weights[(2,)])
        assert [name for name, _ in pruned.named_parameters()] == [name for name, _ in htf.named_parameters()]

    def test_weights_stay_shared_and_frozen(self) -> None:
        htf = HTF(ModeTree.perfect(8), mode_sizes=3, ranks=4, shared=True, init_std=1.0)
        htf.weights[(0,)].requires_grad_(False)
        same = htf.prune({(0, 1): [0, 2], (2, 3): [0, 2], (4, 5): [0, 2], (6, 7): [0, 2]})
        assert len(list(same.parameters())) == len(list(htf.parameters())) == 4
        assert [weight.requires_grad for weight in same.parameters()] == [weight.requires_grad for weight in htf.parameters()]
        one = htf.prune({(0, 1): [0, 2]})
        assert one.weights[(0,)] is one.weights[(1,)] is not one.weights[(2,)]
        assert one.weights[(2,)] is one.weights[(7,)]
        assert not one.weights[(0,)].requires_grad
        assert one.weights[(0, 1)].requires_grad
        htf.weights[(0,)].data.zero_()
        assert one.contract().abs().max() > 0

    def test_computed_weights_are_trained(self) -> None:
        htf = HTF(ModeTree.star(3))
        torch.nn.utils.parametrize.register_parametrization(htf, "weight_0", torch.nn.Tanh())
        with torch.no_grad():
            pruned = htf.prune({(0, 1, 2): 1})
        assert len([weight for weight in pruned.parameters() if weight.requires_grad]) == 4

    def test_a_subclass_gives_a_plain_factorization(self) -> None:
        class Named(HTF):
            def __init__(self, tree: ModeTree, name: str) -> None:
                super().__init__(tree)
                self.name = name

        assert type(Named(ModeTree.star(3), "a").prune({(0, 1, 2): 1})) is HTF


def test_capture_needs_a_gpu() -> None:
    htf = HTF(ModeTree.star(2))
    observed = observe(htf.shape, [[0, 1]])
    for call in (lambda: htf.contract(capture=True), lambda: htf.entries(observed, capture=True)):
        with pytest.raises(ValueError, match="capture=True needs weights on a CUDA device; they are on cpu"):
            call()
    with pytest.raises(TypeError, match=r"capture=True needs indices prepared by tensornet.observe; got list"):
        htf.entries([[0, 1]], capture=True)
    with pytest.raises(TypeError, match=r"capture=True needs the inputs as one tensor \(B, N, D\); got list"):
        htf([torch.ones(1, 2)] * 2, capture=True)
    with pytest.raises(ValueError, match="capture=True contracts the whole end tensor"):
        htf.contract(fixed={0: 0}, capture=True)


def test_thousands_of_modes() -> None:
    htf = HTF(ModeTree.chain(2000), mode_sizes=2, ranks=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = htf.entries(torch.zeros(3, 2000, dtype=torch.long))
    assert value.shape == (3,)
    sign, magnitude = htf.entries(torch.zeros(3, 2000, dtype=torch.long), log=True)
    assert torch.isfinite(magnitude).all()
    assert set(sign.tolist()) <= {-1.0, 1.0}
    assert "order=2000" in repr(htf)


@pytest.mark.gpu
def test_on_a_gpu_with_captured_calls() -> None:
    htf = HTF(ModeTree.perfect(8), mode_sizes=4, ranks=16, init_std=0.5, device="cuda")
    assert htf.contract().is_cuda
    with torch.no_grad():
        plain = htf.contract()
        assert torch.allclose(htf.contract(capture=True), plain)
        htf.weights[(0,)].mul_(2)
        assert torch.allclose(htf.contract(capture=True), 2 * plain)
        observed = observe(htf.shape, torch.randint(4, (100, 8), device="cuda"))
        for _ in range(2):
            assert torch.allclose(htf.entries(observed, capture=True), htf.entries(observed))
        assert len(htf._captured) == 2
        inputs = torch.randn(100, 8, 4, device="cuda")
        assert torch.allclose(htf(inputs, capture=True), htf(inputs), rtol=1e-4)


def test_pooled_end_tensors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MemoryLimitError, match=r"the end tensor needs .* but may use 1 B; entries\(indices\)"):
        HTF(ModeTree.perfect(8), 4, 2, pooling="max").contract(memory_limit=1)
    with pytest.raises(MemoryLimitError, match=r"the end tensor needs about 1e\d+ B but may use"):
        HTF(ModeTree.perfect(64), 4, 4, pooling="mean").contract()
    assert HTF(ModeTree.perfect(4), 3, 2, pooling="max").contract(memory_limit=10**6).shape == (3, 3, 3, 3)


@pytest.mark.parametrize("tree", [None, ModeTree.from_nested(((0, 2), [1]))], ids=["star", "crossed"])
def test_from_cp(tree: ModeTree | None) -> None:
    rng = np.random.default_rng(0)
    weights, factors = rng.standard_normal(4), [rng.standard_normal((size, 4)) for size in (2, 3, 5)]
    expected = np.einsum("r,ar,br,cr->abc", weights, *factors)
    np.testing.assert_allclose(HTF.from_cp(weights, factors, tree).contract().detach().numpy(), expected, atol=1e-12)
    ones = HTF.from_cp(None, factors, tree).contract().detach().numpy()
    np.testing.assert_allclose(ones, np.einsum("ar,br,cr->abc", *factors), atol=1e-12)


def test_to_cp_is_its_inverse() -> None:
    htf = HTF(ModeTree.star(3), mode_sizes=(2, 3, 4), ranks=5, init_std=1.0, dtype=torch.float64)
    torch.testing.assert_close(HTF.from_cp(*htf.to_cp()).contract(), htf.contract())


def test_what_is_no_cp_decomposition() -> None:
    with pytest.raises(ValueError, match="only factorizations of stars"):
        HTF(ModeTree.perfect(4), ranks=2).to_cp()
    with pytest.raises(ValueError, match="one output"):
        HTF(ModeTree.star(2), ranks=2, outputs=2).to_cp()
    with pytest.raises(ValueError, match=r"matrices \(D_n, R\) with one R"):
        HTF.from_cp(None, [np.ones((2, 3)), np.ones((2, 2))])
    with pytest.raises(ValueError, match="one number per column"):
        HTF.from_cp([1.0], [np.ones((2, 3))])
    with pytest.raises(ValueError, match="one mode per factor"):
        HTF.from_cp(None, [np.ones((2, 3))], ModeTree.star(2))
