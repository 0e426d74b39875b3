"""Loss and gradients of both ways against torch's own differentiation of the end tensor."""

from __future__ import annotations

import copy

import pytest
import torch

from tensornet.contraction import execute
from tensornet.contraction.plan import MemoryLimitError
from tensornet.dynamics.losses import Loss
from tensornet.dynamics.objective import Objective
from tensornet.dynamics.observations import Entries
from tensornet.dynamics.problems import Problem, completion, low_rank_truth, sensing
from tensornet.htf import HTF
from tensornet.shape import make_shape
from tensornet.tree import ModeTree

TREES = {
    "matrix": (ModeTree.from_nested((0, ((1,),))), (6, 5), True),
    "tensor": (ModeTree.star(3), (4, 3, 5), True),
    "hierarchical": (ModeTree.perfect(4), (3, 2, 4, 3), False),
    "crossed": (ModeTree.from_nested(((0, 2), (1, 3))), (3, 2, 4, 3), False),
}


def make(kind, task):
    tree, sizes, fixed_root = TREES[kind]
    generator = torch.Generator().manual_seed(5)
    truth = low_rank_truth(ModeTree.star(len(sizes)), sizes, 2, generator, fixed_root=True)
    problem = (completion if task == "completion" else sensing)(truth, 20, generator)
    htf = HTF(tree, sizes, 4, init_std=0.7, fixed_root=fixed_root, generator=generator, dtype=torch.float64)
    return htf, problem


@pytest.mark.parametrize("way", ["contract", "sweep"])
@pytest.mark.parametrize("task", ["completion", "sensing"])
@pytest.mark.parametrize("kind", sorted(TREES))
def test_loss_and_gradients(kind, task, way):
    htf, problem = make(kind, task)
    trained = list(htf.parameters())
    residual = problem.observations.of(htf.contract()) - problem.values
    expected = residual.square().mean()
    gradients = torch.autograd.grad(expected, trained)
    assert Objective(htf, problem, Loss(), way).backward().item() == pytest.approx(expected.item())
    for weight, gradient in zip(trained, gradients):
        assert torch.allclose(weight.grad, gradient)
        assert weight.grad.shape == weight.shape


def test_a_batch_has_its_own_loss():
    htf, problem = make("tensor", "completion")
    rows = torch.tensor([3, 3, 7])
    residual = (problem.observations.of(htf.contract()) - problem.values)[rows]
    assert Objective(htf, problem, Loss()).chosen(rows).backward().item() == pytest.approx(residual.square().mean().item())


@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
@pytest.mark.parametrize("places", [range(0, 36, 9), range(0, 36, 2), [3, 3, 3, *range(20)]], ids=["few", "many", "repeated"])
def test_entries_masked_or_picked_out_have_the_same_loss(places, name):
    """A part of at least a quarter is looked at through a mask, unless an entry is observed more than once."""
    htf = HTF(ModeTree.perfect(4), (3, 2, 3, 2), 4, init_std=0.7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    observed = Entries((3, 2, 3, 2), torch.tensor(list(places)))
    values = torch.randn(len(observed), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    residual = htf.contract().reshape(-1)[observed.places] - values
    size = residual.abs()
    huber = torch.where(size <= 0.5, residual.square() / 2, 0.5 * (size - 0.25))
    expected = {"l2": residual.square(), "l1": size, "huber": huber}[name].mean()
    gradients = torch.autograd.grad(expected, list(htf.parameters()))
    objective = Objective(htf, Problem(torch.zeros(3, 2, 3, 2), observed, values), Loss(name, delta=0.5), "contract")
    assert (objective._masked is not None) == (places == range(0, 36, 2))
    for _ in range(2):  # nothing is left of the first time
        assert objective.backward().item() == pytest.approx(expected.item())
        for weight, gradient in zip(htf.parameters(), gradients, strict=True):
            assert torch.allclose(weight.grad, gradient)


@pytest.mark.parametrize("way", ["contract", "sweep"])
def test_a_step_of_the_vector_is_one_of_the_weights(way):
    htf, problem = make("tensor", "completion")  # its root is not trained
    objective = Objective(htf, problem, Loss(), way)
    before = [weight.detach().clone() for weight in htf.weight_list()]
    objective.backward()
    torch.optim.SGD([objective.vector], lr=0.5, momentum=0.9).step()
    for weight, start in zip(htf.weight_list(), before, strict=True):
        assert torch.equal(weight.detach(), start - 0.5 * weight.grad if weight.requires_grad else start)
    assert not torch.equal(htf.weight_list()[0].detach(), before[0])
    assert objective.vector.numel() == sum(weight.numel() for weight in htf.parameters())


@pytest.mark.parametrize("way", ["contract", "sweep"])
def test_gradients_come_back_after_they_were_cleared(way):
    htf, problem = make("hierarchical", "completion")
    objective = Objective(htf, problem, Loss(), way)
    optimizer = torch.optim.SGD([objective.vector], lr=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        htf.zero_grad()
        losses.append(objective.backward().item())
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert all(weight.grad is not None for weight in htf.parameters())


@pytest.mark.parametrize("way", ["contract", "sweep"])
def test_frozen_weights_stay(way):
    htf, problem = make("hierarchical", "completion")
    frozen = htf.weight_list()[1]
    frozen.requires_grad_(False)
    before = frozen.clone()
    objective = Objective(htf, problem, Loss(), way)
    objective.backward()
    torch.optim.AdamW([objective.vector], weight_decay=1.0).step()
    assert torch.equal(frozen, before)
    assert frozen.grad is None


MOVES = {
    "another objective": lambda htf, problem: Objective(htf, problem, Loss()),
    "assigned": lambda htf, problem: htf.load_state_dict({name: tensor.clone() for name, tensor in htf.state_dict().items()}, assign=True),
    "float": lambda htf, problem: htf.float(),
    "turned": lambda htf, problem: setattr(htf.weight_list()[4], "data", htf.weight_list()[4].data.t()),  # at the same place
}


@pytest.mark.parametrize("move", sorted(MOVES))
def test_weights_that_were_moved_are_noticed(move):
    htf, problem = make("hierarchical", "completion")
    objective = Objective(htf, problem, Loss())
    MOVES[move](htf, problem)
    with pytest.raises(RuntimeError, match="the weights are no longer where the objective moved them"):
        objective.backward()


def test_a_copy_is_noticed():
    objective = Objective(*make("hierarchical", "completion"), Loss())
    with pytest.raises(RuntimeError, match="the weights are no longer where the objective moved them"):
        copy.deepcopy(objective).backward()


def test_what_cannot_be_an_objective():
    _, problem = make("hierarchical", "completion")
    tree, sizes, _ = TREES["hierarchical"]
    for settings in ({"shared": True}, {"pooling": "max"}):
        htf = HTF(ModeTree.perfect(4), 3, 4, dtype=torch.float64, **settings)
        with pytest.raises(ValueError, match="an objective needs pooling by products and weights that are neither shared nor parametrized"):
            Objective(htf, completion(torch.ones(3, 3, 3, 3), 20, torch.Generator()), Loss())
    for other in (HTF(tree, 3, 4, dtype=torch.float64), HTF(tree, sizes, 4, outputs=2, dtype=torch.float64)):
        with pytest.raises(ValueError, match="the problem must have the sizes of the end tensor"):
            Objective(other, problem, Loss())


def test_a_contraction_that_does_not_fit_is_refused_or_replaced_by_a_sweep(monkeypatch):
    tree = ModeTree.perfect(8)
    htf = HTF(tree, 8, 64)
    places = torch.arange(0, 8**8, 16)
    problem = Problem(torch.zeros(1), Entries((8,) * 8, places), torch.zeros(len(places)))
    for free in (66, 100):  # MiB: too little for the intermediate results; for the reverse
        monkeypatch.setattr(execute, "available_memory", lambda device, free=free: free << 20)
        with pytest.raises(MemoryLimitError):
            Objective(htf, problem, Loss(), "contract")
        assert Objective(htf, problem, Loss()).way == "sweep"


def test_the_cheaper_way_is_chosen():
    htf, problem = make("hierarchical", "completion")
    assert Objective(htf, problem, Loss()).way == "contract"
    tree = ModeTree.perfect(16)
    large = HTF(tree, 4, 3)  # 4^16 entries do not fit
    assert make_shape(tree, 4, 3) == large.shape
    places = torch.arange(0, 4**16, 4**16 // 50)
    entries = Entries((4,) * 16, places)
    objective = Objective(large, Problem(torch.zeros(1), entries, torch.ones(len(places))), Loss())
    assert objective.way == "sweep"
    assert objective.backward().item() == pytest.approx(1.0)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_matrix_factorization_follows_the_products_of_matrices(depth):
    """A step of gradient descent, against the same on W1 W2 ... WL, with the matrices that the tree holds transposed."""
    nested = 1
    for _ in range(depth - 2):
        nested = (nested,)
    htf = HTF(ModeTree.from_nested((0, nested)), [6, 5], 4, init_std=0.7, fixed_root=True, dtype=torch.float64)
    truth = low_rank_truth(ModeTree.star(2), [6, 5], 2, torch.Generator().manual_seed(0), fixed_root=True)
    problem = completion(truth, 20, torch.Generator().manual_seed(1))
    first, last, *between = htf.parameters()
    factors = [first, *(weight.T for weight in reversed(between)), last.T]
    matrices = [factor.detach().clone().requires_grad_() for factor in factors]
    product = torch.linalg.multi_dot(matrices)
    assert torch.allclose(htf.contract(), product)
    (product.reshape(-1)[problem.observations.places] - problem.values).square().mean().backward()
    Objective(htf, problem, Loss()).backward()
    gradients = [first.grad, *(weight.grad.T for weight in reversed(between)), last.grad.T]
    for matrix, gradient in zip(matrices, gradients, strict=True):
        assert torch.allclose(matrix.grad, gradient)
