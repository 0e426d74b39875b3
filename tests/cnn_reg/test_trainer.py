from __future__ import annotations

import functools
import random

import pytest
import torch
from training_cases import make_config, make_model, make_task, shades

from cnn_reg.training.arithmetic import arithmetic
from cnn_reg.training.loop import DivergedError, InterruptedTrainingError, train
from cnn_reg.training.trainer import Trainer
from tensornet.files.runs import Run

RECIPES = {
    "penalty": {},
    "no penalty": {"coefficient": 0.0, "observe_every": 2},
    "parts": {"accumulate": 2},
    "uneven batches": {"batch_size": 7, "accumulate": 3},
    "bfloat16": {"precision": "bfloat16"},
    "channels last": {"channels_last": True},
    "deterministic": {"deterministic": True},
    "every second step": {"penalty_every": 2, "observe_every": 3},
    "several pairs": {"pairs": 2, "permutation": "random", "batch_norm": "frozen"},
}


class CrashError(RuntimeError):
    """Something that nobody foresaw."""


def same(left, right):
    """Whether nested data are alike to the bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def outcome(trainer, run):
    """The state and the records of a training, without times."""
    state = trainer.state()
    state["position"].pop("seconds")
    timed = ("seconds", "images_per_second")
    return state, [{name: value for name, value in record.items() if name not in timed} for record in run.records()]


def begin(folder, **changes):
    """A trainer in the state of the folder's run, if there is one."""
    config = make_config(**changes)
    run = Run(folder, {"config": str(config)}, resume=True)
    trainer = Trainer(config, make_task(validation=config.validation_images), make_model())
    state = run.restore()
    if state is not None:
        trainer.set(state)
    return trainer, run


def train_with_ends(folder, ends, **changes):
    """Trains to the end with interruptions and crashes after given numbers of further steps."""
    for kind, after in [*ends, ("no", 10**6)]:
        with arithmetic(make_config(**changes), "cpu", seed=0):
            trainer, run = begin(folder, **changes)
            left = [after]

            def on_step(_, left=left, kind=kind):
                left[0] -= 1
                if left[0] == 0 and kind == "crash":
                    raise CrashError

            try:
                train(trainer, run, on_step=on_step, stopping=lambda left=left, kind=kind: left[0] == 0 and kind == "stop")
            except (CrashError, InterruptedTrainingError):
                random.random(), torch.rand(3)  # whatever happens in between must not matter
                continue
            return outcome(trainer, run)
    raise AssertionError


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_that_ends_anywhere_continues_to_the_same_bits(name, tmp_path):
    recipe = RECIPES[name]
    whole = train_with_ends(tmp_path / "whole", [], validation_images=4, **recipe)
    choose = random.Random(name)
    for attempt in range(3):
        ends = [(choose.choice(["stop", "crash"]), choose.randint(1, 5)) for _ in range(3)]
        assert same(train_with_ends(tmp_path / str(attempt), ends, validation_images=4, **recipe), whole), ends


def test_a_stop_at_the_last_step_of_an_epoch_resumes_with_its_evaluation(tmp_path):
    whole = train_with_ends(tmp_path / "whole", [])
    assert same(train_with_ends(tmp_path / "ended", [("stop", 3), ("stop", 3)]), whole)


def test_the_state_matters():
    config = make_config()
    with arithmetic(config, "cpu", seed=0):
        first = Trainer(config, make_task(), make_model())
        train(first, None)
    with arithmetic(config, "cpu", seed=1):
        second = Trainer(config, make_task(), make_model())
        train(second, None)
    assert not same(first.state()["model"], second.state()["model"])


def test_measuring_the_cosine_leaves_a_training_without_penalty_as_it_is():
    found = []
    for every in (1, 10**6):
        config = make_config(coefficient=0.0, observe_every=every)
        with arithmetic(config, "cpu", seed=0):
            trainer = Trainer(config, make_task(), make_model())
            train(trainer, None)
        state = trainer.state()
        found.append([state["model"], state["generator"], trainer.order])
    assert same(*found)


def test_the_order_of_samples_does_not_depend_on_the_coefficient():
    orders = []
    for coefficient in (0.0, 2.0):
        config = make_config(coefficient=coefficient)
        trainer = Trainer(config, make_task(), make_model())
        train(trainer, None)
        orders.append(trainer.order)
    assert torch.equal(*orders)


def test_every_sample_is_seen_once_an_epoch():
    task = make_task(23, validation=5)
    seen = []
    batch = task.train.batch
    task.train.batch = lambda indices: (seen.append(indices.clone()), batch(indices))[1]
    trainer = Trainer(make_config(), task, make_model())
    assert trainer.steps == 3
    assert list(trainer.epoch_steps()) == [1, 2, 3]
    assert sorted(torch.cat(seen).tolist()) == list(range(23))


def test_stops_after_perfect_epochs_in_a_row(tmp_path):
    config = make_config(coefficient=0.0, epochs=60, patience=4, learning_rate=0.1)
    trainer = Trainer(config, make_task(kind=shades), make_model(0.0))
    run = Run(tmp_path, {})
    assert train(trainer, run) == "4 epochs of perfect training accuracy"
    perfect = [record["train_accuracy"] == 1 for record in run.records()]
    assert perfect[-5:] == [False, True, True, True, True] or perfect == [True] * 4
    assert all(not all(perfect[start : start + 4]) for start in range(len(perfect) - 4))


def test_patience_0_never_stops():
    config = make_config(coefficient=0.0, epochs=7, patience=0, learning_rate=0.1)
    assert train(Trainer(config, make_task(kind=shades), make_model(0.0)), None) == "7 epochs"


def test_a_perfect_row_that_breaks_starts_anew():
    trainer = Trainer(make_config(), make_task(), make_model())
    trainer.perfect = 19
    list(trainer.epoch_steps())
    trainer.finish_epoch()
    assert trainer.perfect == 0


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_checkpoint(tmp_path):
    config = make_config(learning_rate=1e20, coefficient=0.0)
    run = Run(tmp_path, {})
    with pytest.raises(DivergedError, match="the training loss of epoch 1 is nan; try a smaller learning_rate"):
        train(Trainer(config, make_task(), make_model()), run)
    assert run.restore() is None


def test_a_checkpoint_of_another_network_is_refused():
    config = make_config()
    other = Trainer(config, make_task(), make_model(batch_norm=False)).state()
    with pytest.raises(ValueError, match="the checkpoint is of another network"):
        Trainer(config, make_task(), make_model()).set(other)


def test_a_checkpoint_of_more_processes_is_refused():
    trainer = Trainer(make_config(), make_task(), make_model())
    state = trainer.state()
    with pytest.raises(ValueError, match="the checkpoint is of 2 processes; a run is resumed with as many, got 1"):
        trainer.set({**state, "processes": state["processes"] * 2})


def test_a_penalized_step_makes_two_forward_passes_and_a_plain_one_makes_one():
    passes = []
    for coefficient, observed in ((1.0, 50), (0.0, 50)):
        model = make_model()
        count = [0]
        model.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        trainer = Trainer(make_config(coefficient=coefficient, observe_every=observed), make_task(), model)
        steps = trainer.epoch_steps()
        next(steps)
        first = count[0]
        next(steps)
        passes.append((first, count[0] - first))
    assert passes == [(2, 2), (2, 1)]  # the very first step measures |cos|


def test_a_compiled_network_takes_the_same_steps(monkeypatch, tmp_path):
    """Traced by torch.compile and run as traced; which machine code it would make of that is torch's."""
    traced = functools.partial(torch.compile, backend="eager")
    calls = []
    monkeypatch.setattr(torch, "compile", lambda model: calls.append(model) or traced(model))
    plain, compiled = (
        train_with_ends(tmp_path / str(chosen), [], coefficient=0.0, observe_every=2, compile=chosen) for chosen in (False, True)
    )
    assert len(calls) == 1
    assert same(plain, compiled)
