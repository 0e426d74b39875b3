"""Training on observed entries: the objective and its gradient against the dense formula, the schedule, records, states, bad settings."""

from __future__ import annotations

import math
from types import MappingProxyType

import generators
import numpy as np
import oracles
import pytest
import torch

from tensornet.completion.batches import Prepared
from tensornet.completion.fitting import FALL, Settings, Training
from tensornet.shape import make_shape
from tensornet.tree import ModeTree

KINDS = MappingProxyType({"real": np.float64, "complex": np.complex128})


def prepared(shape, entries):
    """All of these entries, for every step."""
    indices, values = (given.numpy() for given in entries)
    return Prepared(shape, (indices, values), len(values), dtype=entries[1].dtype)


def case(seed, kind="real", *, rest=4, count=15, **settings):
    """A training on a random tree, with the lengths of its modes."""
    tree, weights = generators.random_case(seed, max_order=4, max_mode_size=4, max_rank=3, dtype=KINDS[kind])
    rng = np.random.default_rng(seed)
    sizes = tuple(len(weights[leaf]) for leaf in tree.leaves)
    shape = make_shape(tree, sizes, {node: len(weights[node]) for node in tree.interior})
    lengths = tuple(float(length) for length in rng.choice([0.0, 0.7, 3.0], tree.order))
    known, hidden = (
        (
            torch.from_numpy(rng.integers(0, sizes, (number, tree.order))),
            torch.from_numpy(generators.random_array(rng, (number,), KINDS[kind])),
        )
        for number in (count, rest)
    )
    batches, others = (prepared(shape, entries) if len(entries[1]) else None for entries in (known, hidden))
    training = Training(shape, Settings(lengths, **settings), count, batches, others, dtype=known[1].dtype)
    with torch.no_grad():
        for weight, node in zip(training.white.weight_list(), tree.nodes):
            weight.copy_(torch.from_numpy(weights[node]))
    return training, known, hidden


def correlated(weight, length):
    """A leaf's weight with correlated rows, by the Cholesky factor of the covariance matrix."""
    places = np.arange(len(weight))
    distances = np.abs(places[:, None] - places)
    return np.linalg.cholesky(np.exp(-distances / length)) @ weight if length else weight


def predicted(training, white, indices):
    tree, lengths = training.shape.tree, training.settings.lengths
    weights = {
        node: correlated(white[place], lengths[place]) if place < tree.order else white[place] for place, node in enumerate(tree.nodes)
    }
    return oracles.end_tensor(tree, weights)[tuple(indices.numpy().T)]


def objective(training, known, white, *, fall=1.0):
    """The formula in TensorCompleter's description, with the end tensor formed."""
    settings, count = training.settings, len(known[1])
    residual = predicted(training, white, known[0]) - known[1].numpy()
    end = oracles.end_tensor(training.shape.tree, dict(zip(training.shape.tree.nodes, white)))
    squares = sum(np.square(np.abs(weight)).sum() for weight in white)
    return (
        np.square(np.abs(residual)).mean()
        + settings.penalty / count * np.square(np.abs(end)).sum()
        + settings.weight_decay * fall / count * squares
    )


def white_weights(training):
    return [weight.detach().numpy().copy() for weight in training.white.weight_list()]


def assert_slopes(training, known, *, seed, fall=1.0):
    """The gradient that a training leaves agrees with differences of the dense objective, in random directions."""
    white = white_weights(training)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        direction = [generators.random_array(rng, weight.shape, weight.dtype) for weight in white]
        slope = sum((weight.grad.numpy().conj() * way).real.sum() for weight, way in zip(training.white.weight_list(), direction))
        step = 1e-5
        ahead, back = (
            objective(training, known, [weight + sign * step * way for weight, way in zip(white, direction)], fall=fall) for sign in (1, -1)
        )
        assert slope == pytest.approx((ahead - back) / (2 * step), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_loss_and_gradient_agree_with_the_dense_formula(seed, kind):
    training, known, _ = case(seed, kind, rest=0, penalty=0.3, weight_decay=0.7)
    loss, asked = training._differentiate()
    residual = predicted(training, white_weights(training), known[0]) - known[1].numpy()
    assert loss.item() == pytest.approx(np.square(np.abs(residual)).mean(), rel=1e-10)
    assert not asked
    assert_slopes(training, known, seed=seed)


@pytest.mark.parametrize(("rest", "fall"), [(4, FALL**0.5), (0, 1.0)])
def test_weight_decay_falls_where_held_out_entries_choose(rest, fall):
    training, known, _ = case(3, rest=rest, weight_decay=20.0, steps=10)
    training.step = 5
    training._differentiate()
    assert_slopes(training, known, seed=3, fall=fall)


@pytest.mark.parametrize("seed", range(5))
def test_records_tell_the_mean_squared_errors(seed):
    training, known, hidden = case(seed, steps=1, lr=0.1)
    before = white_weights(training)
    seen = []
    assert training.run(seen.append)
    after = white_weights(training)
    (record,) = training.history
    assert record["loss"] == pytest.approx(np.square(predicted(training, before, known[0]) - known[1].numpy()).mean(), rel=1e-10)
    assert record["held_out"] == pytest.approx(np.square(predicted(training, after, hidden[0]) - hidden[1].numpy()).mean(), rel=1e-10)
    (progress,) = seen
    assert (progress.step, progress.steps, progress.loss, progress.held_out, progress.best) == (1, 1, record["loss"], record["held_out"], 1)
    assert np.allclose(training.best_htf().entries(hidden[0]).detach(), predicted(training, after, hidden[0]), rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 7, 130, 199])
def test_about_a_hundred_records_the_last_step_among_them(steps):
    training, *_ = case(1, steps=steps, patience=steps)
    rates = []
    training.run(lambda progress: rates.append(training.optimizer.param_groups[0]["lr"]))
    recorded = [record["step"] for record in training.history]
    assert recorded[-1] == steps == training.step
    assert min(steps, 100) <= len(recorded) <= 200
    assert rates == pytest.approx([0.01 * (1 + math.cos(math.pi * (step - 1) / steps)) for step in recorded])


@pytest.mark.parametrize("shape", [make_shape(ModeTree.star(2), 4, 9), make_shape(ModeTree.perfect(4), 4, 12)])
def test_the_first_end_tensor_is_as_large_as_asked_for(shape):
    """The mean over seeds of its entries' squares is the square of ``init_scale``; tolerance: 4 standard errors of that mean."""
    none = prepared(shape, (torch.zeros(1, shape.tree.order, dtype=torch.long), torch.zeros(1, dtype=torch.float64)))
    squares = []
    for seed in range(300):
        training = Training(shape, Settings((0.0,) * shape.tree.order, init_scale=0.3, seed=seed), 1, none, dtype=torch.float64)
        squares.append(training.white.contract().square().mean().item())
    error = np.std(squares) / math.sqrt(len(squares))
    assert error < 0.15 * 0.3**2
    assert abs(np.mean(squares) - 0.3**2) < 4 * error


class TestStates:
    def test_a_loaded_state_is_the_one_that_was_saved(self):
        first, *_ = case(2, steps=6)
        first.run()
        second, *_ = case(2, steps=6)
        second.load(first.snapshot)
        assert str(second.snapshot) == str(first.snapshot)
        assert torch.equal(second.best_htf().contract(), first.best_htf().contract())

    def test_training_does_not_change_a_state_that_was_handed_out(self):
        training, *_ = case(2, steps=6)
        states, texts = [], []
        training.run(lambda progress: (states.append(progress.state), texts.append(str(progress.state))))
        assert [str(state) for state in states] == texts
        assert len(set(texts)) == 6

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"weights": []}, r"weights of the same sizes; got \[\] for"),
            ({"best": {"step": 1, "error": 0.5, "weights": [torch.zeros(2, 2)]}}, r"same sizes; got \[\(2, 2\)\]"),
            ({"best": None}, "one of an earlier training"),
            ({"step": "first"}, "one of an earlier training"),
            ({"history": [{}]}, "one of an earlier training"),
            ({"optimizer": {}}, "one of an earlier training"),
            ({"optimizer": {"state": {}, "param_groups": [{"momentum": 0.9}]}}, "the same optimizer; got another one's for adam"),
            ({"more": 1}, "one of an earlier training"),
        ],
    )
    def test_another_state_is_refused(self, change, match):
        training, *_ = case(2)
        with pytest.raises(ValueError, match=match):
            training.load({**training.snapshot, **change})


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"steps": 0}, ValueError, "steps must be finite and at least 1; got 0"),
        ({"steps": 2.5}, TypeError, "steps must be an integer; got 2.5"),
        ({"patience": 0}, ValueError, "patience must be finite and at least 1; got 0"),
        ({"penalty": -1.0}, ValueError, "penalty must be finite and at least 0; got -1.0"),
        ({"weight_decay": math.nan}, ValueError, "weight_decay must be finite and at least 0; got nan"),
        ({"weight_decay": None}, TypeError, "weight_decay must be a number; got None"),
        ({"init_scale": math.inf}, ValueError, "init_scale must be finite and at least 0; got inf"),
        ({"lr": -0.1}, ValueError, "lr must be finite and at least 0; got -0.1"),
        ({"lr": "fast"}, TypeError, "lr must be a number; got 'fast'"),
        ({"seed": -1}, ValueError, "seed must be finite and at least 0; got -1"),
        ({"seed": 2**63}, ValueError, "seed must be finite and"),
        ({"seed": "x"}, TypeError, "seed must be an integer; got 'x'"),
        ({"optimizer": "sgd"}, ValueError, "optimizer must be one of adam, group_rmsprop; got 'sgd'"),
        ({"lengths": (1.0, -2.0)}, ValueError, "a correlation length must be .*; got -2.0 for mode 1"),
    ],
)
def test_bad_settings(given, error, match):
    with pytest.raises(error, match=match):
        Settings(**{"lengths": (), **given})


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3)])
def test_numbers_of_numpy_are_numbers(number):
    assert Settings((), steps=number, lr=np.float32(0.5), penalty=number).rate == 0.5
