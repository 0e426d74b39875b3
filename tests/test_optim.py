"""The adaptive step, against Appendix D.2.1 written out in NumPy."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tensornet.files.storage import read_nested, write_nested
from tensornet.htf import HTF
from tensornet.optim import GroupRMSprop, adaptive_step
from tensornet.tree import ModeTree


def reference(weights, gradients, lr=1e-2, beta=0.99, eps=1e-6):
    """``weights`` after a step for every list in ``gradients``: the formulas of Appendix D.2.1, number by number."""
    weights, gamma = [weight.copy() for weight in weights], 0.0
    for t, step in enumerate(gradients, 1):
        squared_norm = sum(abs(number) ** 2 for gradient in step for number in gradient.ravel().tolist())
        gamma = beta * gamma + (1 - beta) * squared_norm
        eta = lr / (math.sqrt(gamma / (1 - beta**t)) + eps)
        weights = [weight - eta * gradient for weight, gradient in zip(weights, step)]
    return weights


def random_steps(seed, shapes=((3, 4), (5,), ()), steps=20, dtype=np.float64):
    """Weights, and gradients of very different sizes."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        numbers = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else 0)
        return np.asarray(numbers, dtype=dtype)

    return [draw(shape) for shape in shapes], [[draw(shape) * 10.0 ** rng.integers(-6, 3) for shape in shapes] for _ in range(steps)]


def follow(optimizer, parameters, gradients):
    for step in gradients:
        for parameter, gradient in zip(parameters, step):
            parameter.grad = None if gradient is None else torch.as_tensor(gradient).to(parameter.dtype)
        optimizer.step()


def parameters_of(weights, dtype=None):
    return [torch.nn.Parameter(torch.tensor(weight, dtype=dtype)) for weight in weights]


def agree(parameters, weights, tolerance=1e-12):
    pairs = zip(parameters, weights, strict=True)
    return all(np.allclose(parameter.detach().numpy(), weight, rtol=tolerance, atol=tolerance) for parameter, weight in pairs)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("settings", [{}, {"lr": 0.3, "beta": 0.5, "eps": 1e-2}, {"beta": 0.0, "eps": 0.0}, {"lr": 0.0}])
def test_steps_are_those_of_the_paper(dtype, settings):
    weights, gradients = random_steps(0, dtype=dtype)
    parameters = parameters_of(weights)
    follow(GroupRMSprop(parameters, **settings), parameters, gradients)
    assert agree(parameters, reference(weights, gradients, **settings))


def test_the_pure_function_is_the_formula():
    gamma = 0.0
    for t, squared_norm in enumerate([4.0, 0.0, 9.0], 1):
        gamma, eta = adaptive_step(gamma, squared_norm, t, lr=0.5, beta=0.9, eps=0.1)
        average = sum(0.1 * 0.9 ** (t - s) * value for s, value in enumerate([4.0, 0.0, 9.0][:t], 1))
        assert gamma == pytest.approx(average)
        assert eta == pytest.approx(0.5 / (math.sqrt(average / (1 - 0.9**t)) + 0.1))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.complex64, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 5e-3)]
)
def test_other_precisions(dtype, tolerance):
    weights, gradients = random_steps(1, steps=5)
    parameters = parameters_of(weights, dtype)
    follow(GroupRMSprop(parameters), parameters, gradients)
    found = [parameter.to(torch.complex128 if dtype.is_complex else torch.float64) for parameter in parameters]
    assert agree(found, reference(weights, gradients), tolerance)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e25), (torch.complex64, 1e25), (torch.float16, 1e4), (torch.float32, 1e-30)])
def test_norms_neither_overflow_nor_underflow(dtype, size):
    """The first step has the length ``lr``, however long the gradient."""
    parameter = torch.nn.Parameter(torch.zeros(100, dtype=dtype))
    follow(GroupRMSprop([parameter], lr=1.0, eps=0.0), [parameter], [[torch.full((100,), size)]])
    assert float(parameter.detach().abs().double().square().sum().sqrt()) == pytest.approx(1.0, rel=1e-2)


def test_the_direction_is_that_of_gradient_descent():
    htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=4, init_std=0.5, dtype=torch.float64)
    before = [weight.detach().clone() for weight in htf.parameters()]
    htf.contract().square().sum().backward()
    GroupRMSprop(htf.parameters(), lr=0.1, eps=0.0).step()
    moves = [old - weight.detach() for old, weight in zip(before, htf.parameters())]
    length = sum(float(weight.grad.square().sum()) for weight in htf.parameters()) ** 0.5
    assert all(torch.allclose(move, 0.1 * weight.grad / length) for move, weight in zip(moves, htf.parameters()))


def test_it_learns_a_tensor():
    target = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=1, init_std=1.0, dtype=torch.float64).contract().detach()
    htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=3, init_std=0.5, dtype=torch.float64)
    optimizer = GroupRMSprop(htf.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = (htf.contract() - target).square().sum() / target.square().sum()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-2 * losses[0]


def test_every_group_has_its_own_average_and_settings():
    weights, gradients = random_steps(2)
    parameters = parameters_of(weights)
    optimizer = GroupRMSprop([{"params": parameters[:1], "lr": 0.3}, {"params": parameters[1:2], "beta": 0.5}], eps=1e-3)
    optimizer.add_param_group({"params": parameters[2:], "eps": 1.0})
    follow(optimizer, parameters, gradients)
    for place, settings in enumerate(({"lr": 0.3, "eps": 1e-3}, {"beta": 0.5, "eps": 1e-3}, {"eps": 1.0})):
        alone = reference(weights[place : place + 1], [step[place : place + 1] for step in gradients], **settings)
        assert agree(parameters[place : place + 1], alone)


def test_parameters_without_a_gradient_stay_and_do_not_count():
    weights, gradients = random_steps(3)
    parameters = parameters_of(weights)
    optimizer = GroupRMSprop([{"params": parameters[:2]}, {"params": parameters[2:]}])
    follow(optimizer, parameters, [[first, None, None] for first, _, _ in gradients[:5]])
    follow(optimizer, parameters, gradients[5:])
    assert agree(
        parameters[2:], reference(weights[2:], [step[2:] for step in gradients[5:]])
    )  # bias correction begins with its own first step
    mixed = [[first, second if place >= 5 else 0 * second] for place, (first, second, _) in enumerate(gradients)]
    assert agree(parameters[:2], reference(weights[:2], mixed))


def test_zero_gradients_move_nothing():
    parameter = torch.nn.Parameter(torch.ones(3))
    follow(GroupRMSprop([parameter], lr=1.0), [parameter], [[torch.zeros(3)]] * 2)
    assert parameter.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("through", ["memory", "file"])
@pytest.mark.parametrize("done", [0, 7])
def test_state_goes_on_in_another_optimizer(tmp_path, through, done):
    weights, gradients = random_steps(4)
    parameters = parameters_of(weights)
    optimizer = GroupRMSprop([{"params": parameters[:1], "lr": 0.3}, {"params": parameters[1:]}], beta=0.9)
    follow(optimizer, parameters, gradients[:done])
    state = copy.deepcopy(optimizer.state_dict())
    if through == "file":
        write_nested(tmp_path / "a.safetensors", state, kind="state")
        state = read_nested(tmp_path / "a.safetensors", kind="state")
    others = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    other = GroupRMSprop([{"params": others[:1]}, {"params": others[1:]}])
    follow(other, others, [[None] * 3])
    other.load_state_dict(state)
    follow(optimizer, parameters, gradients[done:])
    follow(other, others, gradients[done:])
    assert all(torch.equal(first, second) for first, second in zip(parameters, others))
    assert agree(parameters[:1], reference(weights[:1], [step[:1] for step in gradients], lr=0.3, beta=0.9))


@pytest.mark.parametrize("as_tensor", [False, True])
def test_schedulers_set_the_base_rate(as_tensor):
    weights, gradients = random_steps(5, shapes=((4,),), steps=6)
    parameters = parameters_of(weights)
    optimizer = GroupRMSprop(parameters, lr=torch.tensor(0.5, dtype=torch.float64) if as_tensor else 0.5, beta=0.0, eps=0.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
    lengths = []
    for step in gradients:
        before = parameters[0].detach().clone()
        follow(optimizer, parameters, [step])
        scheduler.step()
        lengths.append(float((parameters[0].detach() - before).norm()))
    assert lengths == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])  # with beta and eps 0 every step is as long as the rate


def test_a_closure_computes_the_loss():
    parameter = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = GroupRMSprop([parameter], lr=1.0, eps=0.0)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 9.0
    assert parameter.item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -0.1}, "lr must be at least 0 and finite; got -0.1"),
        ({"lr": math.inf}, "lr must be at least 0 and finite; got inf"),
        ({"lr": math.nan}, "lr must be at least 0 and finite; got nan"),
        ({"lr": torch.tensor(-1.0)}, "lr must be at least 0 and finite; got -1.0"),
        ({"eps": -1e-9}, "eps must be at least 0 and finite; got -1e-09"),
        ({"beta": 1.0}, "beta must be from 0 to below 1; got 1.0"),
        ({"beta": -0.5}, "beta must be from 0 to below 1; got -0.5"),
        ({"beta": math.nan}, "beta must be from 0 to below 1; got nan"),
    ],
)
def test_bad_settings(settings, message):
    parameter = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=message):
        GroupRMSprop([parameter], **settings)
    optimizer = GroupRMSprop([parameter])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], **settings})
    assert len(optimizer.param_groups) == 1


def test_sparse_gradients_are_refused():
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.eye(3)[0].to_sparse()
    with pytest.raises(ValueError, match="GroupRMSprop needs dense gradients; got a sparse one"):
        GroupRMSprop([parameter]).step()
    assert parameter.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e17, 1e30])
def test_norms_of_any_size_that_the_type_holds(size):
    """The first step has the length ``lr``, also where squares of the gradient leave float32's range."""
    parameter = torch.nn.Parameter(torch.zeros(1000))
    parameter.grad = torch.full((1000,), size)
    GroupRMSprop([parameter], lr=0.5, eps=0.0).step()
    assert parameter.norm().item() == pytest.approx(0.5, rel=1e-5)


def test_no_gradient_at_first_and_no_eps_is_no_step():
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = GroupRMSprop([weight], lr=1.0, eps=0.0)
    weight.grad = torch.zeros(2)
    optimizer.step()
    assert weight.tolist() == [3, 4]
    weight.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    assert weight.isfinite().all()
    assert weight.tolist() != [3, 4]


def test_hooks_of_every_kind_are_run():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = GroupRMSprop([weight], lr=0.125, eps=0.0)
    registers = {
        "before all": register_optimizer_step_pre_hook,
        "before": optimizer.register_step_pre_hook,
        "after": optimizer.register_step_post_hook,
        "after all": register_optimizer_step_post_hook,
    }
    for number, (name, register) in enumerate(registers.items()):
        seen = []
        hook = register(lambda *_, name=name, seen=seen: seen.append((name, weight[0].item())))
        start = weight[0].item()
        optimizer.step()
        assert seen == [(name, start if number < 2 else weight[0].item())]
        hook.remove()
        optimizer.step()
        assert len(seen) == 1


def test_a_hook_that_a_closure_registers_is_run():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = GroupRMSprop([weight], lr=0.1)
    seen = []

    def closure():
        optimizer.register_step_post_hook(lambda *_: seen.append("after"))
        weight.grad = torch.ones(2)
        return 0.0

    optimizer.step(closure)
    assert seen == ["after"]


def test_the_profiler_sees_steps():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = GroupRMSprop([weight], lr=0.1)
    weight.grad = torch.ones(2)
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert "Optimizer.step#GroupRMSprop.step" in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_step_records_nothing_for_automatic_differentiation(device):
    weight = torch.nn.Parameter(torch.ones(2, 3, device=device))
    optimizer = GroupRMSprop([weight], lr=0.1)
    for name in ("gamma", "count"):
        optimizer.param_groups[0][name] = torch.zeros((), dtype=torch.float64)  # comes to the parameters' device
    (weight.grad,) = torch.autograd.grad(weight.pow(3).sum(), weight, create_graph=True)
    version = weight._version
    optimizer.step()
    assert weight.is_leaf
    for name in ("gamma", "count"):
        assert optimizer.param_groups[0][name].device.type == device
        assert not optimizer.param_groups[0][name].requires_grad
    assert weight._version > version  # what was computed from it before cannot be differentiated by mistake
