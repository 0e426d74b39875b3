"""Feature maps, the classifier and factorized weights, against end tensors by the oracle and torch's own dense layers."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import end_tensor, measure
from torch import nn
from torch.nn import functional

from tensornet.evaluation.circuit import Combination
from tensornet.layers.classifier import HTFClassifier
from tensornet.layers.factorized import HTFConv2d, HTFLinear
from tensornet.layers.features import AffineFeatures, PatchFeatures, TrigonometricFeatures
from tensornet.tree import ModeTree

SIX = {  # trees over six places
    "chain": ModeTree.chain(6),
    "star": ModeTree.star(6),
    "crossed": ModeTree.from_nested(((5, 0), (3, (1, 4)), 2)),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(htf):
    """The end tensor by the oracle."""
    return end_tensor(htf.tree, {node: weight.detach().numpy() for node, weight in htf.weights.items()})


def agree(found, wanted, tolerance=1e-10):
    found, wanted = (np.asarray(values.detach() if isinstance(values, torch.Tensor) else values) for values in (found, wanted))
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max(initial=0) <= tolerance * max(np.abs(wanted).max(initial=0), 1.0)


class OneHot(nn.Module):
    """Whole numbers as indicators, so that logits are entries."""

    def forward(self, inputs):
        return functional.one_hot(inputs[..., 0].round().long(), 3).to(inputs.dtype)


class TestClassifier:
    @pytest.mark.parametrize("tree", SIX.values(), ids=SIX)
    @pytest.mark.parametrize("features", [AffineFeatures(0.5, 0.5), TrigonometricFeatures(), PatchFeatures((2, 3), 2, channels=2)])
    def test_logits_are_inner_products_with_the_end_tensor(self, tree, features):
        features = features.double()
        options = {"channels": 2, "features": features, "tree": tree, "ranks": 3, "dtype": torch.float64}
        model = HTFClassifier((2, 3), 4, generator=seeded(), **options)
        images = torch.rand(5, 2, 2, 3, dtype=torch.float64)
        vectors = features(images.flatten(2).mT).detach().numpy()  # places in row-major order
        products = np.stack([measure(dense(model.htf), list(sample)) for sample in vectors])
        agree(model(images), 10 * products / np.linalg.norm(products, axis=1, keepdims=True))
        agree(HTFClassifier((2, 3), 4, generator=seeded(), normalize=False, **options)(images), products)

    @pytest.mark.parametrize("pooling", ["product", "max", "mean"])
    @pytest.mark.parametrize("activation", [None, "relu"])
    def test_logits_of_indicators_are_entries_of_the_grid_tensor(self, pooling, activation):
        rule = {"pooling": pooling, "activation": activation}
        model = HTFClassifier(4, 2, features=OneHot(), ranks=3, normalize=False, dtype=torch.float64, **rule)
        assert model.htf.combination == Combination(pooling, activation)
        numbers = torch.randint(0, 3, (20, 4))
        agree(model(numbers.double()), model.htf.contract()[tuple(numbers.T)])

    def test_normalisation_keeps_the_direction_for_every_pooling(self):
        for pooling in ("product", "max", "mean"):
            model = HTFClassifier((4, 4), 3, normalize=True, pooling=pooling, dtype=torch.float64)
            images = torch.rand(5, 4, 4, dtype=torch.float64)
            agree(model(images), 10 * functional.normalize(model.htf(model.features(images.flatten(1))), dim=1))

    def test_forms_of_inputs(self):
        model = HTFClassifier((4, 4), 3)
        images = torch.rand(5, 1, 4, 4)
        assert torch.equal(model(images), model(images[:, 0]))
        sequences = HTFClassifier(8, 3)
        assert torch.equal(sequences(torch.arange(16.0).view(2, 8, 1) / 16), sequences(torch.arange(16.0).view(2, 8) / 16))
        assert model(images[:0]).shape == (0, 3)

    def test_default_trees(self):
        assert HTFClassifier((8, 4), 2).htf.tree == ModeTree.grid((8, 4), 2)
        assert HTFClassifier((9, 9), 2, window=3).htf.tree == ModeTree.grid((9, 9), 3)
        assert HTFClassifier((8, 8), 2, features=PatchFeatures((8, 8), patch=2, stride=2)).htf.tree == ModeTree.grid((4, 4), 2)

    def test_shared_weights_do_not_tell_places_apart(self):
        model = HTFClassifier((4, 4), 3, shared=True, dtype=torch.float64)
        assert sum(weight.numel() for weight in model.htf.parameters()) == 2 * 16 + 16 * 16 + 16 * 3
        images = torch.rand(5, 4, 4, dtype=torch.float64)
        agree(model(images), model(images.flip(1, 2)))  # windows, and pixels within them, change places
        agree(model(images), model(images.roll(2, 1)))
        assert not torch.allclose(model(images), model(images.roll(1, 1)))

    @pytest.mark.parametrize("features", [None, TrigonometricFeatures(), PatchFeatures((32, 32), 4)])
    @pytest.mark.parametrize("tree", [None, ModeTree.star(1024), ModeTree.chain(1024)], ids=["windows", "star", "chain"])
    def test_thousand_modes_in_single_precision(self, features, tree):
        model = HTFClassifier((32, 32), 5, features=features, tree=tree, ranks=4, generator=seeded())
        logits = model(torch.rand(3, 32, 32, generator=seeded()))
        assert torch.allclose(logits.norm(dim=1), torch.tensor(10.0))
        functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
        assert all(torch.isfinite(weight.grad).all() and weight.grad.any() for weight in model.htf.parameters())

    def test_weights_start_near_those_that_ignore_the_inputs(self):
        model = HTFClassifier((4, 4), 3, noise=0.0, normalize=False, dtype=torch.float64)
        agree(model(torch.rand(5, 4, 4, dtype=torch.float64)), model.htf.weight_list()[-1].sum(0).expand(5, 3))

    @pytest.mark.parametrize("pooling", ["product", "mean"])
    def test_gradients(self, pooling):
        model = HTFClassifier(
            (2, 3), 2, features=PatchFeatures((2, 3), 2, dtype=torch.float64), ranks=2, pooling=pooling, dtype=torch.float64
        )
        names, weights = zip(*model.named_parameters())
        images = torch.rand(3, 2, 3, dtype=torch.float64, requires_grad=True)

        def run(images, *weights):
            return torch.func.functional_call(model, dict(zip(names, weights)), images)

        assert torch.autograd.gradcheck(run, (images, *weights))

    def test_randomness_is_an_argument(self):
        models = [
            HTFClassifier((4, 4), 3, features=PatchFeatures((4, 4), generator=source), generator=source)
            for source in map(seeded, (1, 1, 2))
        ]
        images = torch.rand(2, 4, 4)
        assert torch.equal(models[0](images), models[1](images))
        assert not torch.equal(models[0](images), models[2](images))
        models[2].load_state_dict(models[0].state_dict())
        assert torch.equal(models[0](images), models[2](images))

    def test_nan_stays_in_its_sample(self):
        images = torch.rand(3, 4, 4)
        images[1, 2, 2] = torch.nan
        assert HTFClassifier((4, 4), 3)(images).isnan().any(1).tolist() == [False, True, False]

    def test_mixed_precision(self):
        model = HTFClassifier((4, 4), 3, features=PatchFeatures((4, 4)))
        images = torch.rand(5, 4, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(images)
        assert mixed.dtype == torch.float32
        agree(mixed, model(images), 0.3)  # bfloat16 keeps three digits, and 16 features are multiplied; logits are up to 10

    def test_learns_what_no_linear_model_of_the_inputs_does(self):
        bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
        labels = (bits[:, 1] != bits[:, 4]).long()
        model = HTFClassifier(6, 2, ranks=4, generator=seeded())
        optimizer = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(100):
            optimizer.zero_grad()
            functional.cross_entropy(model(bits), labels).backward()
            optimizer.step()
        assert torch.equal(model(bits).argmax(1), labels)

    @pytest.mark.parametrize("tree", ["windows", "chain", "star"])
    def test_the_example_learns_digits(self, tree):
        pytest.importorskip("sklearn")
        example = runpy.run_path(str(Path(__file__).parent.parent.parent / "examples" / "digits.py"))
        assert example["run"](example["RECIPES"][tree], 0, epochs=4).held_out > 0.8  # 95 % and more takes 20 epochs


LINEAR = [  # inputs, outputs, tree
    ((2, 3), (4, 2), None),
    ((2, 3, 2), (5,), None),
    ((4,), (2, 1, 3), None),
    ((2, 3), (4, 2), ModeTree.from_nested((2, (0, 3), 1))),
    ((2, 3), (4, 2), ModeTree.chain(4)),
]


class TestLinear:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    @pytest.mark.parametrize(("inputs", "outputs", "tree"), LINEAR)
    def test_against_the_dense_layer(self, inputs, outputs, tree, dtype):
        layer = HTFLinear(inputs, outputs, 3, tree=tree, generator=seeded(), dtype=dtype)
        nn.init.normal_(layer.bias)
        assert layer.htf.mode_sizes == (*outputs, *inputs)
        weight = dense(layer.htf).reshape(np.prod(outputs), np.prod(inputs))
        agree(layer.weight, weight)
        vectors = torch.randn(2, 4, weight.shape[1], dtype=dtype)
        agree(layer(vectors), vectors.numpy() @ weight.T + layer.bias.detach().numpy())
        layer.bias = None
        agree(layer(vectors[0, 0]), weight @ vectors[0, 0].numpy())

    @pytest.mark.parametrize(
        ("inputs", "outputs", "nested"), [(2, 2, ((0, 2), (1, 3))), (1, 3, (((0, 3), 1), 2)), (3, 1, (((0, 1), 2), 3)), (1, 1, (0, 1))]
    )
    def test_default_tree_pairs_outputs_with_inputs(self, inputs, outputs, nested):
        assert HTFLinear([2] * inputs, [2] * outputs, 2).htf.tree == ModeTree.from_nested(nested)

    def test_gradients(self):
        layer = HTFLinear((2, 2), (3,), 2, dtype=torch.float64)
        names, weights = zip(*layer.named_parameters())
        vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda vectors, *weights: torch.func.functional_call(layer, dict(zip(names, weights)), vectors), (vectors, *weights)
        )

    @pytest.mark.parametrize("tree", [None, ModeTree.star(4)], ids=["balanced", "star"])
    def test_initial_weights_have_variance_one_over_inputs(self, tree):
        generator = seeded()
        sizes = [HTFLinear((3, 4), (2, 5), 6, tree=tree, generator=generator).weight.square().mean().item() * 12 for _ in range(400)]
        error = np.std(sizes) / 20  # of the mean of 400 independent layers
        assert error < 0.1
        assert abs(np.mean(sizes) - 1) < 4 * error


class TestConv2d:
    @pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 0), (2, 3, 2)])
    @pytest.mark.parametrize("tree", [None, ModeTree.star(6)], ids=["balanced", "star"])
    def test_against_the_dense_layer(self, tree, kernel, stride, padding):
        layer = HTFConv2d((2, 3), (2, 2), kernel, 3, stride=stride, padding=padding, tree=tree, generator=seeded(), dtype=torch.float64)
        nn.init.normal_(layer.kernel.bias)
        weight = torch.tensor(dense(layer.kernel.htf).reshape(4, 6, kernel, kernel), requires_grad=True)
        agree(layer.weight, weight)
        images = torch.randn(2, 6, 7, 5, dtype=torch.float64, requires_grad=True)
        found, wanted = layer(images), functional.conv2d(images, weight, layer.kernel.bias, stride, padding)
        agree(found, wanted)
        mix = torch.randn_like(wanted)
        of_image, of_bias, of_weight = torch.autograd.grad((wanted * mix).sum(), (images, layer.kernel.bias, weight))
        agree(torch.autograd.grad((found * mix).sum(), images, retain_graph=True)[0], of_image)
        parameters = list(layer.parameters())
        through = torch.autograd.grad((layer.weight * of_weight).sum() + (layer.kernel.bias * of_bias).sum(), parameters)
        for first, second in zip(torch.autograd.grad((found * mix).sum(), parameters), through):
            agree(first, second)

    def test_without_bias(self):
        layer = HTFConv2d((2,), (3,), 2, 3, bias=False)
        assert not layer(torch.zeros(1, 2, 4, 4)).any()


def classifier(**options):
    return HTFClassifier((4, 4), 3, **options)


WRONG = [
    (lambda: AffineFeatures(scale=0), ValueError, "scale must be a number other than 0"),
    (lambda: AffineFeatures(center=float("nan")), ValueError, "center must be finite; got nan"),
    (lambda: AffineFeatures(scale="1"), TypeError, "scale must be a number; got '1' of type str"),
    (lambda: AffineFeatures()(torch.ones(2, 3, dtype=torch.int64)), TypeError, "must be a tensor of a real floating type; got torch.int64"),
    (lambda: TrigonometricFeatures()(np.ones((2, 3))), TypeError, "must be a tensor of a real floating type; got ndarray"),
    (lambda: TrigonometricFeatures()(torch.ones(2)), ValueError, r"need the shape \(B, N\) or \(B, N, C\); got \(2,\)"),
    (lambda: PatchFeatures((2, 2, 2, 2)), ValueError, "size must have one to three axes"),
    (lambda: PatchFeatures((2, 2), 0), ValueError, "features, channels, patch and stride must be at least 1; got 0"),
    (lambda: PatchFeatures((2, 2), dtype=torch.int64), TypeError, "dtype must be a real floating type of torch; got torch.int64"),
    (lambda: PatchFeatures((2, 2))(torch.ones(1, 5)), ValueError, r"inputs need the shape \(B, 4, 1\); got \(1, 5\)"),
    (lambda: PatchFeatures((2, 2))(torch.ones(1, 4).double()), TypeError, "weights' type torch.float32; got torch.float64"),
    (lambda: HTFClassifier((4, 0), 3), ValueError, "size must be at least 1; got 0"),
    (lambda: HTFClassifier((4, 4), 1), ValueError, "classes must be at least 2; got 1"),
    (lambda: HTFClassifier((4, 4), 3.0), TypeError, "channels and classes must be an integer; got 3.0 of type float"),
    (lambda: classifier(dtype=torch.complex64), TypeError, "dtype must be a real floating type of torch; got torch.complex64"),
    (lambda: classifier(noise=-1), ValueError, "noise must be at least 0 and finite; got -1"),
    (lambda: classifier(tree="chain"), TypeError, "tree must be a ModeTree; got str"),
    (lambda: classifier(tree=ModeTree.star(5)), ValueError, "one mode for each of the 16 places of the features; got 5 modes"),
    (lambda: classifier(ranks=0), ValueError, "ranks must be at least 1; got 0"),
    (lambda: classifier(pooling="sum"), ValueError, "pooling must be 'product', 'max' or 'mean'; got 'sum'"),
    (lambda: classifier(features="affine"), TypeError, "features must be a torch module; got str"),
    (lambda: classifier(features=nn.Flatten()), ValueError, r"features must map \(B, 16, 1\) to \(B, N, D\); got \(9, 16\)"),
    (lambda: classifier(features=PatchFeatures((5, 5))), ValueError, r"must take inputs \(B, 16, 1\) of torch.float32; inputs need"),
    (lambda: classifier(features=nn.Threshold(2, torch.nan)), ValueError, "features must be finite for inputs from 0 to 1"),
    (lambda: classifier()(np.ones((2, 4, 4))), TypeError, "inputs must be a tensor; got ndarray"),
    (lambda: classifier()(torch.ones(2, 4, 4).double()), TypeError, "weights' type torch.float32; got torch.float64"),
    (lambda: classifier()(torch.ones(2, 4, 4, device="meta")), ValueError, "weights' device cpu; got meta"),
    (lambda: classifier()(torch.ones(2, 4, 5)), ValueError, r"shape \(B, 1, 4, 4\) or \(B, 4, 4\); got \(2, 4, 5\)"),
    (lambda: HTFClassifier(5, 2, channels=3)(torch.ones(2, 3, 5)), ValueError, r"shape \(B, 5, 3\); got \(2, 3, 5\)"),
    (lambda: HTFLinear((), (2,), 3), ValueError, r"in_sizes needs at least one size; got \(\)"),
    (lambda: HTFLinear((2, 3), (2,), 3, tree=ModeTree.star(4)), ValueError, "mode_sizes needs one size per mode; got 3 for 4 modes"),
    (lambda: HTFLinear((2, 3), (2,), 3, dtype=torch.int32), TypeError, "dtype must be a real or complex floating type; got torch.int32"),
    (lambda: HTFLinear((2, 3), (2,), 3)([1.0] * 6), TypeError, "inputs must be a tensor; got list"),
    (lambda: HTFLinear((2, 3), (2,), 3)(torch.ones(5)), ValueError, r"inputs need the shape \(..., 6\); got \(5,\)"),
    (lambda: HTFLinear((2, 3), (2,), 3)(torch.ones(6).double()), TypeError, "weights' type torch.float32; got torch.float64"),
    (lambda: HTFConv2d((2,), (3,), (3, 3), 2), TypeError, r"kernel_size and stride must be an integer; got \(3, 3\) of type tuple"),
    (lambda: HTFConv2d((2,), (3,), 3, 2, padding=-1), ValueError, "padding must be at least 0; got -1"),
    (lambda: HTFConv2d((2,), (3,), 3, 2)(torch.ones(2, 8, 8)), ValueError, r"inputs need the shape \(B, 2, H, W\)"),
    (lambda: HTFConv2d((2,), (3,), 4, 2, padding=1)(torch.ones(1, 2, 1, 8)), ValueError, r"H and W of at least 2; got \(1, 2, 1, 8\)"),
    (lambda: HTFConv2d((2,), (3,), 1, 2)(torch.ones(1, 2, 4, 4, dtype=torch.int64)), TypeError, "type torch.float32; got torch.int64"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors_are_one_clear_line(wrong, error, message):
    with pytest.raises(error, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)
