"""The loop: the paper's step and early stop, the paper's effect, seeds, batches and noise, other optimizers, resuming in the same bits."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from tensornet.contraction.execute import contract
from tensornet.dynamics import training
from tensornet.dynamics.experiments import OPTIMIZERS, experiment
from tensornet.dynamics.flow import gradient_flow
from tensornet.dynamics.training import Training
from tensornet.files.partial import write

SMALL = {"ranks": "8", "true_rank": "2", "mode_sizes": "5,5,5", "samples": "80", "init_std": "0.05", "record_every": "10"}


def small(**settings):
    return experiment("quick-tensor", {**SMALL, **settings})


def test_steps_are_those_of_the_paper():
    """Against Appendix D.2.1 in NumPy: CP completion, the mean squared error, and the adaptive step."""
    training = Training(small(max_steps="30", dtype="float64"))
    factors = [weight.detach().numpy().copy() for weight in training.parameters]
    indices = tuple(training.problem.observations.indices.T.numpy())
    values, gamma = training.problem.values.numpy(), 0.0
    list(training.run())
    for t in range(1, 31):
        rows = [factor[index] for factor, index in zip(factors, indices)]
        residual = 2 / len(values) * (rows[0] * rows[1] * rows[2]).sum(1) - 2 / len(values) * values
        gradients = []
        for mode in range(3):
            others = rows[(mode + 1) % 3] * rows[(mode + 2) % 3] * residual[:, None]
            gradient = np.zeros_like(factors[mode])
            np.add.at(gradient, indices[mode], others)
            gradients.append(gradient)
        gamma = 0.99 * gamma + 0.01 * sum((gradient**2).sum() for gradient in gradients)
        eta = 0.01 / (math.sqrt(gamma / (1 - 0.99**t)) + 1e-6)
        factors = [factor - eta * gradient for factor, gradient in zip(factors, gradients)]
    for weight, factor in zip(training.parameters, factors):
        assert np.allclose(weight.detach().numpy(), factor, rtol=1e-8, atol=1e-12)


def test_it_stops_after_a_hundred_calm_steps():
    training = Training(small())
    records = list(training.run())
    assert training.ended == "converged"
    assert training.calm == 100
    assert records[-1]["loss"] < 5e-5
    assert records[-1]["step"] == training.step
    losses = [record["loss"] for record in records if record["step"] >= training.step - 99]
    assert max(losses) < 5e-5
    assert records[-1]["error"] < 0.05
    norms = records[-1]["norms"]["0,1,2"]
    assert norms[1] > 5 * norms[2]  # two components, as the truth has


def test_a_seed_gives_the_same_run_and_another_seed_another():
    first, second, third = (list(Training(small(max_steps="50", seed=seed)).run()) for seed in ("3", "3", "4"))
    assert first == second
    assert first != third


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch": "20", "noise": "1e-4"},
        {"optimizer": "adam"},
        {"optimizer": "momentum", "lr": "0.1"},
        {"optimizer": "flow", "dtype": "float64"},
    ],
)
def test_a_resumed_run_ends_in_the_same_bits(settings):
    chosen = small(max_steps="60", **settings)
    whole, first, second = Training(chosen), Training(chosen), Training(chosen)
    expected = list(whole.run())
    found = []
    for record in first.run():
        found.append(record)
        if record["step"] == 30:
            break
    second.load(first.state())
    found += list(second.run())
    assert found == expected
    assert all(torch.equal(left, right) for left, right in zip(second.parameters, whole.parameters))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_lowers_the_loss(name):
    chosen = small(max_steps="300", dtype="float64", optimizer=name, init_std="0.3", lr="0.05" if name in ("gd", "momentum") else "0.01")
    records = list(Training(chosen).run())
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]


@pytest.mark.parametrize("settings", [{"loss": "l1"}, {"loss": "huber"}, {"task": "sensing"}, {"init": "balanced"}, {"batch": "40"}])
def test_variants_learn(settings):
    records = list(Training(small(max_steps="600", **settings)).run())
    assert records[-1]["error"] < 0.9


def test_divergence_ends_a_run():
    training = Training(small(optimizer="gd", lr="1e6", init_std="1", max_steps="500"))
    records = list(training.run())
    assert training.ended == "diverged"
    assert all(math.isfinite(record["loss"]) for record in records)


def test_an_interruption_ends_the_loop_after_a_whole_step():
    training = Training(small(max_steps="100"))
    steps = [record["step"] for record in training.run(lambda: training.step == 11)]
    assert steps == [0, 10]
    assert training.ended == ""
    assert training.step == 11


def test_a_ground_truth_from_a_file(tmp_path):
    array = np.random.default_rng(0).standard_normal((5, 5, 5))
    write(tmp_path / "truth.npy", array)
    training = Training(small(truth=str(tmp_path / "truth.npy")))
    assert np.allclose(training.problem.truth, array * math.sqrt(125) / np.linalg.norm(array), rtol=1e-5)
    with pytest.raises(ValueError, match=r"must be a whole array of the sizes \(5, 5, 4\); got 125 of \(5, 5, 5\)"):
        Training(small(truth=str(tmp_path / "truth.npy"), mode_sizes="5,5,4"))


def test_a_state_of_another_experiment_is_refused():
    with pytest.raises(ValueError, match="the checkpoint does not belong to this experiment"):
        Training(small()).load(Training(small(ranks="9")).state())
    with pytest.raises(ValueError, match="the checkpoint does not belong to this experiment"):
        Training(small()).load({"step": 3})


def test_gradient_flow_is_a_choice():
    """Beside the solver's own integration, and with the invariant of Lemma 2, which gradient descent only keeps for small steps."""
    chosen = small(optimizer="flow", dtype="float64", init_std="0.3", max_steps="40")
    training = Training(chosen)
    start = [weight.detach().clone() for weight in training.parameters]
    before = training.htf.unbalancedness()
    assert before > 0.1
    records = list(training.run())
    elapsed = training.optimizer.param_groups[0]["time"]
    assert elapsed > 0
    assert records[-1]["loss"] < records[0]["loss"]
    root = training.htf.weight_list()[-1].detach()
    places, values = tuple(training.problem.observations.indices.T), training.problem.values

    def objective(weights):
        return (contract(training.htf.shape, [*weights, root])[places] - values).square().mean()

    expected = gradient_flow(objective, start, [elapsed], rtol=1e-9, atol=1e-12).weights[0]
    for weight, other in zip(training.parameters, expected):
        assert torch.allclose(weight.detach(), other, rtol=1e-4, atol=1e-6)
    assert torch.isclose(training.htf.unbalancedness(), before, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"dtype": "float64", "batch": "20"}, {"dtype": "float64", "noise": "1e-3"}])
def test_gradient_flow_is_exact_or_refused(settings):
    with pytest.raises(ValueError, match="gradient flow needs dtype float64, batch 0 and noise 0"):
        small(optimizer="flow", **settings)


def test_true_ranks_are_those_of_the_truth_in_double_precision():
    training = Training(experiment("fig1-hierarchical", {"seed": "2", "ranks": "2"}))  # whose fifth singular value is 8e-5 of the first
    assert training.problem.truth.dtype == torch.float32
    assert training.true_ranks == {"0,1": 5, "0,2": 25}


def test_a_loss_of_bounded_slope_does_not_hide_divergence():
    settings = {"ranks": "4", "optimizer": "gd", "lr": "1e3", "loss": "l1", "init_std": "0.5", "record_every": "1", "max_steps": "200"}
    training = Training(experiment("quick-tensor", settings))
    records = list(training.run())
    assert training.ended == "diverged"
    assert records
    json.dumps(records, allow_nan=False)


def test_a_checkpoint_goes_on_where_the_generated_truth_is_rounded_otherwise(monkeypatch):
    """As on a machine with another processor, or another number of threads."""
    state, make = Training(small()).state(), training.make_problem

    def rounded(*given):
        problem = make(*given)
        return dataclasses.replace(problem, truth=problem.truth * (1 + 1e-15))

    monkeypatch.setattr(training, "make_problem", rounded)
    other = Training(small())
    other.load(state)
    assert other.step == 0


def test_truths_that_are_complex_or_were_changed(tmp_path):
    array, path = np.random.default_rng(0).normal(size=(4, 4, 4)), tmp_path / "truth.npy"
    settings = {"truth": str(path), "mode_sizes": "4,4,4", "ranks": "4", "samples": "40", "max_steps": "10"}
    np.save(path, array)
    state = Training(experiment("quick-tensor", settings)).state()
    Training(experiment("quick-tensor", settings)).load(state)
    np.save(path, array[::-1])
    with pytest.raises(ValueError, match=r"the run was begun with another ground truth than .*truth\.npy holds now"):
        Training(experiment("quick-tensor", settings)).load(state)
    np.save(path, array + 1j)
    with pytest.raises(ValueError, match=r"the ground truth in .*truth\.npy must be real; got torch.complex128"):
        Training(experiment("quick-tensor", settings))
