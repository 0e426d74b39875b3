"""The regularizer against closed forms, finite differences, and what must hold for every network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cnn_reg import PenaltyInfo, Region, gradient_direction_penalty, resnet18, sample_disjoint_regions, twice_differentiable

LEFT, RIGHT = Region(1, 0, 2, 2), Region(0, 3, 3, 2)  # of images of 4 x 5


class Case(NamedTuple):
    """A small network tanh -> linear whose gradients are known in closed form."""

    x: torch.Tensor  # (batch, 2, 4, 5)
    hidden: torch.Tensor  # (7, 40)
    top: torch.Tensor  # (classes, 7)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ self.hidden.T).tanh() @ self.top.T

    def gradient(self, x: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
        """Gradient of each sample's ``top`` output at its input, without differentiating."""
        slope = 1 - (x.flatten(1) @ self.hidden.T).tanh().square()
        return ((slope * top) @ self.hidden).view_as(x)


def _case(classes: int = 1, batch: int = 5) -> Case:
    numbers = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=numbers, dtype=torch.float64)

    return Case(draw(batch, 2, 4, 5), draw(7, 40).div(3).requires_grad_(), draw(classes, 7).requires_grad_())


def _expected(
    case: Case, i: Region, j: Region, *, order: list[int], tops: list[int], shape: str = "absolute", stopped: str = "none"
) -> torch.Tensor:
    """The penalty, sample by sample, from the closed form of the gradient."""
    terms = []
    for sample, other in enumerate(order):
        x = case.x[sample].clone()
        x[:, j.top : j.top + j.height, j.left : j.left + j.width] = case.x[other][:, j.top : j.top + j.height, j.left : j.left + j.width]
        top = case.top[tops[sample]]
        one, two = (
            case.gradient(inputs[None], top)[0, :, i.top : i.top + i.height, i.left : i.left + i.width].reshape(-1)
            for inputs in (case.x[sample], x)
        )
        one, two = one.detach() if stopped in ("first", "both") else one, two.detach() if stopped in ("second", "both") else two
        cosine = (one * two).sum() / torch.linalg.norm(one) / torch.linalg.norm(two)
        terms.append({"absolute": cosine.abs(), "squared": cosine**2, "signed": cosine}[shape])
    return torch.stack(terms).mean()


def _assert_same(case: Case, got: torch.Tensor, expected: torch.Tensor) -> None:
    """Values agree, and so do the derivatives in all weights."""
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    weights = [case.hidden, case.top]
    gradients = [torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True) for value in (got, expected)]
    assert gradients[1][0].any()
    for mine, theirs in zip(*gradients):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)


NEXT = [1, 2, 3, 4, 0]


@pytest.mark.parametrize("shape", ["absolute", "squared", "signed"])
@pytest.mark.parametrize("stopped", ["none", "first", "second"])
def test_it_is_the_closed_form(shape, stopped):
    case = _case()
    penalty, info = gradient_direction_penalty(case, case.x, LEFT, RIGHT, cosine=shape, stop_gradient=stopped)
    _assert_same(case, penalty, _expected(case, LEFT, RIGHT, order=NEXT, tops=[0] * 5, shape=shape, stopped=stopped))
    absolute = _expected(case, LEFT, RIGHT, order=NEXT, tops=[0] * 5)
    assert info.mean_abs_cosine == pytest.approx(absolute.item(), rel=1e-12)
    assert (info.samples, info.zero_gradients, info.nonfinite_gradients, info.skipped) == (5, 0, 0, None)
    assert 0 < penalty.detach().abs() < 0.99


def test_without_a_graph_it_is_only_measured():
    case = _case()
    expected = _expected(case, LEFT, RIGHT, order=NEXT, tops=[0] * 5)
    penalty, info = gradient_direction_penalty(case, case.x, LEFT, RIGHT, stop_gradient="both")
    with torch.no_grad():
        measured, _ = gradient_direction_penalty(case, case.x, LEFT, RIGHT)
    with torch.inference_mode():
        inferred = [gradient_direction_penalty(case, x, LEFT, RIGHT)[0] for x in (case.x, case.x + 0)]
    for value in (penalty, measured, *inferred):
        torch.testing.assert_close(value.clone(), expected.detach())
        assert not value.requires_grad
    info.outputs.sum().backward()
    assert case.hidden.grad.any()


def test_permutations():
    case = _case()
    given = [2, 3, 4, 0, 1]
    penalty, _ = gradient_direction_penalty(case, case.x, LEFT, RIGHT, permutation=torch.tensor(given))
    _assert_same(case, penalty, _expected(case, LEFT, RIGHT, order=given, tops=[0] * 5))

    def random(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        return gradient_direction_penalty(case, case.x, LEFT, RIGHT, permutation="random", generator=generator)[0].item()

    values = [random(seed) for seed in range(6)]
    orders = [order for order in itertools.permutations(range(5)) if all(place != other for place, other in enumerate(order))]
    with torch.no_grad():
        possible = torch.stack([_expected(case, LEFT, RIGHT, order=list(order), tops=[0] * 5) for order in orders])
    assert all((possible - value).abs().min() < 1e-12 for value in values)
    assert len(set(values)) > 1
    assert values == [random(seed) for seed in range(6)]


def test_classes():
    case = _case(classes=3)
    labels = [2, 0, 1, 1, 0]
    labelled, _ = gradient_direction_penalty(case, case.x, LEFT, RIGHT, output=torch.tensor(labels))
    with torch.inference_mode():
        inferred, _ = gradient_direction_penalty(case, case.x + 0, LEFT, RIGHT, output=torch.tensor(labels))
    assert inferred.item() == labelled.item()
    _assert_same(case, labelled, _expected(case, LEFT, RIGHT, order=NEXT, tops=labels))
    largest, info = gradient_direction_penalty(case, case.x, LEFT, RIGHT)
    _assert_same(case, largest, _expected(case, LEFT, RIGHT, order=NEXT, tops=info.outputs.argmax(1).tolist()))
    second, _ = gradient_direction_penalty(case, case.x, LEFT, RIGHT, output=lambda outputs: outputs[:, 1])
    _assert_same(case, second, _expected(case, LEFT, RIGHT, order=NEXT, tops=[1] * 5))
    scaled, _ = gradient_direction_penalty(
        lambda x: {"logits": case(x)}, case.x, LEFT, RIGHT, output=lambda found: found["logits"][:, 1] * 99
    )
    _assert_same(case, scaled, second)


def test_several_pairs_are_one_mean():
    case = _case()
    pairs = [(LEFT, RIGHT), (RIGHT, LEFT), (Region(0, 0, 1, 1), Region(3, 4, 1, 1))]
    penalty, info = gradient_direction_penalty(case, case.x, [i for i, _ in pairs], [j for _, j in pairs])
    _assert_same(case, penalty, torch.stack([_expected(case, i, j, order=NEXT, tops=[0] * 5) for i, j in pairs]).mean())
    assert info.cosines.shape == (3, 5)
    assert info.samples == 15


@pytest.mark.parametrize("channel_dim", [1, -1, None])
def test_kinds_of_regions_and_axes(channel_dim):
    """The same function, seen as images, as sequences of vectors, and as flat vectors whose entries are the places."""
    case = _case()
    expected = _expected(case, LEFT, RIGHT, order=NEXT, tops=[0] * 5)
    mask_i, mask_j = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask_i[1:3, :2] = mask_j[:3, 3:] = True
    places_i, places_j = (mask.flatten().nonzero().flatten().tolist() for mask in (mask_i, mask_j))
    if channel_dim == 1:
        pairs, x, model = [(mask_i, mask_j), (places_i, places_j), (set(places_i), mask_j.numpy())], case.x, case
    elif channel_dim == -1:
        pairs, x, model = [(mask_i, places_j), (LEFT, RIGHT)], case.x.movedim(1, -1), lambda x: case(x.movedim(-1, 1))
    else:
        pairs = [tuple([*places, *(place + 20 for place in places)] for places in (places_i, places_j))]
        x, model = case.x.flatten(1), lambda x: case(x.view(-1, 2, 4, 5))
    for i, j in pairs:
        _assert_same(case, gradient_direction_penalty(model, x, i, j, channel_dim=channel_dim)[0], expected)
    if channel_dim == -1:
        sequence, model = x.flatten(1, 2), lambda x: case(x.movedim(-1, 1).unflatten(2, (4, 5)))
        _assert_same(case, gradient_direction_penalty(model, sequence, places_i, places_j, channel_dim=-1)[0], expected)


class Smooth(nn.Module):
    """A small convolutional network with batch normalisation that is differentiable as often as one likes."""

    def __init__(self, normalised: bool = True) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if normalised else nn.Identity
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), norm(3), nn.Softplus(), nn.Conv2d(3, 2, 3), norm(2), nn.Softplus())
        self.top = nn.Linear(2, 1)
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return self.top(self.layers(x).mean((2, 3)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", ["update", "frozen", "eval"])
def test_finite_differences_of_a_convolutional_network(batch_norm, training):
    model = Smooth().double().train(training)
    x = torch.randn(3, 1, 5, 5, dtype=torch.float64)
    names, start = zip(*model.named_parameters())
    if batch_norm == "eval":  # running statistics are constants: here the first pass must not make them depend on the weights
        for layer in (model.layers[1], model.layers[4]):
            layer.momentum = 0.0

    def value(*weights: torch.Tensor) -> torch.Tensor:
        statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
        given = statistics | dict(zip(names, weights))
        bound = Bound(lambda inputs: torch.func.functional_call(model, given, inputs), model)
        return gradient_direction_penalty(bound, x, Region(0, 0, 2, 2), Region(3, 2, 2, 2), batch_norm=batch_norm)[0]

    assert torch.autograd.gradcheck(value, start, fast_mode=True)


class Bound(nn.Module):
    """A function together with the module whose layers it runs."""

    def __init__(self, run: Any, inner: nn.Module) -> None:
        super().__init__()
        self.run, self.inner = run, inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_separable_function_gives_one(dtype):
    x = torch.rand(6, 3, 8, 8, dtype=dtype)
    i, j = sample_disjoint_regions(8, 3, torch.Generator().manual_seed(5))

    def part(x: torch.Tensor, region: Region) -> torch.Tensor:
        return x[:, :, region.top : region.top + 3, region.left : region.left + 3].flatten(1)

    penalty, info = gradient_direction_penalty(lambda x: part(x, i).sin().prod(1) * part(x, j).cos().sum(1), x, i, j)
    assert info.samples == 6
    assert penalty.item() == pytest.approx(1, abs=4 * torch.finfo(dtype).eps)


def test_it_needs_two_forward_passes_as_published():
    model = Smooth()
    x = torch.randn(4, 1, 6, 6)
    before = model.state_dict()["layers.1.num_batches_tracked"].clone()
    penalty, info = gradient_direction_penalty(model, x, [0, 1], [30, 31])
    assert model.passes == 2
    (nn.functional.binary_cross_entropy_with_logits(info.outputs.flatten(), torch.ones(4)) + 9 * penalty).backward()
    assert model.passes == 2
    assert model.layers[1].num_batches_tracked == before + 2
    assert all(weight.grad.any() for weight in model.parameters())
    for treatment in ("frozen", "eval"):
        gradient_direction_penalty(model, x, [0, 1], [30, 31], batch_norm=treatment)
    assert model.layers[1].num_batches_tracked == before + 4


def test_running_statistics_that_are_left_alone_are_those_of_the_first_pass():
    model, twin, x = Smooth(), Smooth(), torch.randn(4, 1, 6, 6)
    twin.load_state_dict(model.state_dict())
    penalty, info = gradient_direction_penalty(model, x, [0, 1], [30, 31], batch_norm="frozen")
    torch.testing.assert_close(info.outputs, twin(x))
    for mine, theirs in zip(model.buffers(), twin.buffers()):
        assert torch.equal(mine, theirs)
    published, _ = gradient_direction_penalty(twin, x, [0, 1], [30, 31])
    torch.testing.assert_close(penalty, published)


def test_the_same_dropout_in_both_passes():
    """Region J is the same in all images, so the passes differ by nothing but dropout."""
    layers = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
    x = torch.randn(5, 1, 4, 4)
    x[:, 0, 3] = 1
    same, _ = gradient_direction_penalty(layers, x, Region(0, 0, 2, 4), Region(3, 0, 1, 4), same_dropout=True)
    other, _ = gradient_direction_penalty(layers, x, Region(0, 0, 2, 4), Region(3, 0, 1, 4))
    assert same.item() == pytest.approx(1, abs=1e-6)
    assert other.item() < 0.95
    torch.manual_seed(3)
    gradient_direction_penalty(layers, x, [0], [1], same_dropout=True)
    after = torch.rand(1)
    torch.manual_seed(3)
    layers(x)
    assert torch.equal(after, torch.rand(1)), "the random state goes on as after one pass"


def _rectified(zero: list[int]) -> tuple[nn.Module, torch.Tensor]:
    """A network of ReLUs without biases, and images of which some are 0 up to region J, with J where nothing is seen."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 9, bias=False), nn.ReLU(), nn.Linear(9, 7), nn.Softplus(), nn.Linear(7, 1)).double()
    x = torch.randn(6, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        model[1].weight[:, 15] = 0.1
        x[:, 0, 3, 3] = torch.rand(6)
        x[zero] = 0
        x[zero, :, 3, 3] = -1
    return model, x


def test_samples_with_a_zero_gradient_are_left_out_and_counted():
    model, x = _rectified([1, 4])
    i, j = Region(0, 0, 2, 2), Region(3, 0, 1, 2)
    penalty, info = gradient_direction_penalty(model, x, i, j, permutation=torch.tensor([2, 4, 3, 5, 1, 0]))
    rest = [0, 2, 3, 5]
    order = torch.tensor([1, 2, 3, 0])
    alone, _ = gradient_direction_penalty(model, x[rest], i, j, permutation=order)
    assert info.zero.tolist() == [[False, True, False, False, True, False]]
    assert (info.zero_gradients, info.samples) == (2, 4)
    torch.testing.assert_close(penalty, alone, rtol=1e-12, atol=0)
    assert info.mean_abs_cosine == pytest.approx(penalty.item(), rel=1e-12)
    mine, theirs = (torch.autograd.grad(value, list(model.parameters()), materialize_grads=True) for value in (penalty, alone))
    for one, other in zip(mine, theirs):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)


def test_all_gradients_zero():
    model, x = _rectified([0, 1, 2, 3, 4, 5])
    penalty, info = gradient_direction_penalty(model, x, Region(0, 0, 2, 2), Region(3, 0, 1, 2))
    assert (penalty.item(), info.zero_gradients, info.samples, info.mean_abs_cosine) == (0, 6, 0, 0)
    penalty.backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


@pytest.mark.parametrize("model", [lambda x: torch.ones(len(x)), lambda x: x[:, 0, 3].sum(1), lambda x: x.detach().flatten(1).sum(1)])
def test_outputs_that_do_not_depend_on_the_region(model):
    penalty, info = gradient_direction_penalty(model, torch.rand(3, 1, 4, 4), Region(0, 0, 1, 1), Region(2, 0, 1, 1))
    assert (penalty.item(), info.zero_gradients) == (0, 3)


def test_infinite_gradients_are_left_out_and_counted():
    x = torch.rand(4, 1, 2, 2) + 0.5
    x[2, 0, 0, 0] = 0
    penalty, info = gradient_direction_penalty(lambda x: x[:, 0, 0].sqrt().sum(1) * x[:, 0, 1].sum(1), x, [0, 1], [2, 3])
    assert penalty.item() == pytest.approx(1, abs=1e-6)
    assert (info.nonfinite_gradients, info.zero_gradients, info.samples) == (1, 0, 3)


@pytest.mark.parametrize("factor", [1e-15, 1e30])
def test_the_scale_of_the_output_does_not_matter(factor):
    model, x = Smooth(normalised=False), torch.randn(4, 1, 6, 6)
    values = [gradient_direction_penalty(model, x, [0, 1, 6, 7], [20, 21], output=lambda f, c=c: c * f.flatten())[0] for c in (1, factor)]
    torch.testing.assert_close(*values)
    gradients = [torch.autograd.grad(value, model.layers[0].weight)[0] for value in values]
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-16, 1e-22, 1e-30, 1e-35])
@pytest.mark.parametrize("change", [lambda network: network, twice_differentiable], ids=["plain", "twice"])
def test_vanishing_outputs_never_make_a_gradient_that_is_not_finite(change, factor):
    torch.manual_seed(0)
    model = change(resnet18(in_channels=1, width=0.125))
    penalty, info = gradient_direction_penalty(
        model, torch.randn(4, 1, 32, 32), Region(2, 2, 4, 4), Region(20, 20, 4, 4), output=lambda logits: factor * logits.flatten()
    )
    assert info.samples in (0, 4)
    assert (info.samples == 4) == (factor == 1e-16)
    penalty.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


def test_a_batch_of_one_is_skipped():
    model, x = Smooth(), torch.randn(1, 1, 6, 6)
    penalty, info = gradient_direction_penalty(model, x, [0], [1])
    assert (penalty.item(), info.samples, info.mean_abs_cosine) == (0, 0, 0)
    assert info.skipped == "a batch of 1 has no other sample to take region J from"
    (info.outputs.sum() + penalty).backward()
    assert model.passes == 1
    assert model.top.weight.grad.any()


def test_autocast():
    model, x = Smooth(), torch.randn(128, 1, 8, 8)
    i, j = Region(0, 0, 4, 4), Region(5, 5, 3, 3)
    exact, _ = gradient_direction_penalty(model, x, i, j)
    exact_gradient = torch.autograd.grad(exact, model.layers[0].weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        penalty, info = gradient_direction_penalty(model, x, i, j)
    gradient = torch.autograd.grad(penalty, model.layers[0].weight)[0]
    assert penalty.dtype == info.cosines.dtype == torch.float32
    assert info.outputs.dtype == torch.bfloat16
    # bfloat16 has 8 bits: cosines near 1 lose the square of that, gradients a few times it, and a mean over samples less.
    torch.testing.assert_close(penalty, exact, rtol=0, atol=0.02)
    assert torch.linalg.norm(gradient - exact_gradient) < 0.2 * torch.linalg.norm(exact_gradient)


def test_channels_last_and_resnet():
    torch.manual_seed(1)
    model, x = resnet18(width=1 / 16).double(), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    i, j = Region(4, 4, 8, 8), Region(20, 20, 9, 7)
    penalty, _ = gradient_direction_penalty(model, x, i, j)
    last, _ = gradient_direction_penalty(model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), i, j)
    torch.testing.assert_close(last, penalty)
    weights = list(model.parameters())
    for one, other in zip(*(torch.autograd.grad(value, weights, materialize_grads=True) for value in (penalty, last))):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_images_are_left_as_they_are():
    x = torch.randn(4, 1, 6, 6, requires_grad=True)
    copy = x.detach().clone()
    penalty, info = gradient_direction_penalty(Smooth(), x, [0], [9])
    (penalty + info.outputs.sum()).backward()
    assert torch.equal(x.detach(), copy)
    assert x.grad is None


ONE = torch.rand(4, 1, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"region_j": Region(0, 1, 2, 2)}, ValueError, "region_i and region_j must be disjoint; they share 2 of their places"),
        ({"region_j": [Region(0, 0, 1, 1)] * 2}, ValueError, "region_i and region_j must be as many; got 1 and 2"),
        ({"region_j": Region(3, 0, 2, 1)}, ValueError, "a region must lie in the image of 4 x 4"),
        (
            {"images": torch.zeros(4, 1, 4, 4, dtype=torch.uint8)},
            TypeError,
            "images must be a tensor of floating-point numbers; got torch.uint8",
        ),
        ({"images": [[0.0]]}, TypeError, "images must be a tensor of floating-point numbers; got list"),
        ({"images": torch.rand(4, 16)}, ValueError, r"channel_dim must be 1, -1 or None, .*; got 1 for \(4, 16\)"),
        ({"channel_dim": 2}, ValueError, r"channel_dim must be 1, -1 or None, .*; got 2 for \(4, 1, 4, 4\)"),
        ({"cosine": "abs"}, ValueError, "cosine must be one of absolute, squared, signed; got 'abs'"),
        ({"stop_gradient": True}, ValueError, "stop_gradient must be one of none, first, second, both; got True"),
        ({"batch_norm": "freeze"}, ValueError, "batch_norm must be one of update, frozen, eval; got 'freeze'"),
        ({"batch_norm": "eval"}, TypeError, r"batch_norm='eval' needs a torch\.nn\.Module"),
        ({"permutation": "shuffle"}, ValueError, "permutation must be one of cyclic, random; got 'shuffle'"),
        ({"permutation": torch.tensor([1, 0, 2, 3])}, ValueError, "no fixed point; sample 2 would take region J from itself"),
        ({"permutation": torch.tensor([1, 0, 2])}, ValueError, r"a permutation needs each of 0 to 3 once; got \[1, 0, 2\]"),
        ({"output": lambda f: f.sum()}, ValueError, r"the output must be one number a sample, 4 in all; got the shape \(\)"),
        ({"output": torch.zeros(4)}, TypeError, r"a tensor of 4 integer labels; got torch\.float32 of shape \(4,\)"),
        ({"output": "labels"}, TypeError, "a function or a tensor of 4 integer labels; got str"),
        ({"output": torch.tensor([0, 1, 2, 3])}, ValueError, "labels must be from 0 to 2; got 0 to 3"),
        ({"model": lambda x: (x, x)}, ValueError, r"the model returns a tuple; output= must be a function from it to a tensor \(batch,\)"),
        ({"model": lambda x: x}, ValueError, r"returns the shape \(4, 1, 4, 4\) for 4 samples; output= must be a function"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    given = {"model": lambda x: x[:, 0, :3].sum(2), "images": ONE, "region_i": Region(0, 0, 2, 2), "region_j": Region(3, 0, 1, 4)}
    with pytest.raises(error, match=message) as raised:
        gradient_direction_penalty(**(given | arguments))
    assert "\n" not in str(raised.value)


def _penalized(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> PenaltyInfo:
    penalty, info = gradient_direction_penalty(model, x, Region(0, 0, 2, 2), Region(4, 3, 2, 2))
    (nn.functional.binary_cross_entropy_with_logits(info.outputs.flatten(), y) + 3 * penalty).backward()
    return info


def _halves() -> tuple[Smooth, torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    return Smooth().double(), torch.randn(2, 4, 1, 6, 6, dtype=torch.float64), torch.randint(2, (2, 4)).double()


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model, x, y = _halves()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    for _ in range(2):
        model.zero_grad()
        _penalized(wrapped, x[rank], y[rank])
    torch.save({name: weight.grad for name, weight in model.named_parameters()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one(tmp_path: Path):
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    model, x, y = _halves()
    for half in range(2):
        _penalized(model, x[half], y[half])
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[0][name], weight.grad / 2, rtol=1e-10, atol=1e-13)
        assert torch.equal(found[0][name], found[1][name])


def test_a_mask_of_nested_lists_is_one_region_and_a_list_of_masks_several():
    images = torch.randn(4, 1, 6, 6)
    mask, other = torch.zeros(6, 6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)
    mask[0, :3], other[4, 2:] = True, True
    torch.manual_seed(0)
    model = Smooth()
    expected, _ = gradient_direction_penalty(model, images, mask, other)
    found, info = gradient_direction_penalty(model, images, mask.tolist(), other.tolist())
    assert info.cosines.shape == (1, 4)
    torch.testing.assert_close(found, expected)
    _, info = gradient_direction_penalty(model, images, [mask.tolist(), other.tolist()], [other.tolist(), mask.tolist()])
    assert info.cosines.shape == (2, 4)
