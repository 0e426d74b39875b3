"""TensorCompleter: what it recovers, scikit-learn's manners, the same numbers again, interruption and resuming, bad input."""

from __future__ import annotations

import inspect

import numpy as np
import oracles
import pytest
import torch
from generators import ORDER_4 as TREES
from sklearn.base import clone, is_regressor
from sklearn.model_selection import GridSearchCV, KFold

from tensornet import HTF, ModeTree, TensorCompleter
from tensornet.completion.fitting import DivergenceWarning, Training
from tensornet.contraction.plan import MemoryLimitError
from tensornet.files.storage import read_nested, write_nested

QUICK = {"ranks": 3, "smooth": None, "lr": 0.05, "weight_decay": 0.01}
TINY = ([[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0])


def partly_known(tree, size=6, share=0.5, dtype=torch.float64):
    """Indices and values of a tensor of hierarchical rank 2, known and hidden ones."""
    truth = HTF(tree, size, 2, init_std=1.0, generator=torch.Generator().manual_seed(0), dtype=dtype).contract().detach().numpy()
    indices, values = np.indices(truth.shape).reshape(tree.order, -1).T, truth.reshape(-1)
    known = np.random.default_rng(0).random(len(values)) < share
    return (indices[known], values[known]), (indices[~known], values[~known])


def waves():
    """A smooth matrix: indices and values of all entries, and which are known."""
    rows, columns = np.indices((12, 10)).reshape(2, -1)
    return np.stack([rows, columns], 1), np.sin(rows / 3) * np.cos(columns / 4), np.random.default_rng(0).random(120) < 0.5


def fitted(data=None, *, callback=None, state=None, **parameters):
    indices, values, known = data or waves()
    return TensorCompleter(**{"ranks": 2, "steps": 20, **parameters}).fit(indices[known], values[known], callback=callback, state=state)


def assert_same(first, second):
    """The same bits."""
    assert torch.equal(first.complete(), second.complete())
    assert (first.history_, first.n_iter_) == (second.history_, second.n_iter_)


class TestRecovery:
    @pytest.mark.parametrize("name", TREES)
    def test_hidden_entries_of_a_tensor_of_low_hierarchical_rank(self, name):
        known, hidden = partly_known(TREES[name])
        assert TensorCompleter(TREES[name], steps=200, **QUICK).fit(*known).score(*hidden) > 0.95

    def test_with_nothing_but_the_entries(self):
        known, hidden = partly_known(TREES["balanced"])
        completer = TensorCompleter(steps=300).fit(*known)
        assert completer.htf_.tree == TREES["balanced"]
        assert completer.score(*hidden) > 0.95

    def test_with_the_adaptive_step_of_the_paper(self):
        known, hidden = partly_known(TREES["star"])
        completer = TensorCompleter(TREES["star"], optimizer="group_rmsprop", steps=400, **{**QUICK, "ranks": 2}).fit(*known)
        assert completer.score(*hidden) > 0.95

    def test_complex_values(self):
        known, hidden = partly_known(TREES["star"], dtype=torch.complex128)
        completer = TensorCompleter(TREES["star"], steps=200, **QUICK).fit(*known)
        assert completer.score(*hidden) > 0.95
        assert completer.predict(hidden[0]).dtype == torch.complex64

    def test_smoothness_helps_and_is_found(self):
        indices, values, known = waves()
        score = {}
        for smooth in ("auto", None):
            completer = fitted(steps=150, smooth=smooth)
            score[smooth] = completer.score(indices[~known], values[~known])
            assert all(length > 0 for length in completer.lengths_) == (smooth == "auto")
        assert score["auto"] > score[None] + 0.05
        assert score["auto"] > 0.7

    @pytest.mark.parametrize(("smooth", "lengths"), [(None, (0, 0)), (3, (3, 3)), ({1: 2.5}, (0, 2.5))])
    def test_lengths_as_given(self, smooth, lengths):
        assert fitted(steps=1, smooth=smooth).lengths_ == lengths

    def test_equal_values(self):
        assert torch.allclose(TensorCompleter(steps=100).fit(TINY[0], [2.0, 2.0, 2.0]).predict(TINY[0]), torch.tensor(2.0), atol=0.01)

    @pytest.mark.parametrize("index", [[0], [2], [1, 0, 2]])
    def test_one_entry(self, index):
        completer = TensorCompleter(steps=100).fit([index], [3.0])
        assert completer.complete().shape == tuple(place + 1 for place in index)
        assert completer.predict([index]).item() == pytest.approx(3.0, abs=0.05)


class TestPrediction:
    @pytest.mark.parametrize("name", TREES)
    def test_agrees_with_the_dense_tensor(self, name):
        tree = TREES[name]
        (indices, values), _ = partly_known(tree, size=3)
        completer = TensorCompleter(tree, steps=3, dtype=torch.float64).fit(indices, values)
        weights = {node: weight.detach().numpy() for node, weight in completer.htf_.weights.items()}
        dense = oracles.end_tensor(tree, weights) * completer.scale_ + completer.offset_
        assert np.allclose(completer.complete(), dense, rtol=1e-10)
        assert np.allclose(completer.predict(np.argwhere(dense == dense)), dense.reshape(-1), rtol=1e-10)
        assert completer.score(indices, values) == pytest.approx(
            1 - np.square(dense[tuple(indices.T)] - values).mean() / values.var(), rel=1e-10
        )

    def test_a_tensor_too_large_to_be_formed(self):
        indices = np.random.default_rng(0).integers(0, 1000, (200, 6))
        completer = TensorCompleter(mode_sizes=1000, steps=2).fit(indices, indices.sum(1).astype(float))
        assert completer.predict(indices).shape == (200,)
        with pytest.raises(MemoryLimitError, match=r"needs about 1e18 B .*entries"):
            completer.complete()

    def test_no_entries(self):
        assert TensorCompleter(steps=1).fit(*TINY).predict(np.zeros((0, 2), int)).shape == (0,)

    @pytest.mark.parametrize("order", [2, 3, 5])
    def test_usual_tree_and_ranks(self, order):
        indices = np.random.default_rng(0).integers(0, 5, (300, order))
        htf = TensorCompleter(steps=1).fit(indices, indices.sum(1)).htf_
        assert max(map(len, map(htf.tree.children, htf.tree.interior))) == (order if order <= 3 else 2)
        assert sum(weight.numel() for weight in htf.weight_list()) <= 300
        assert len(set(htf.ranks.values())) == 1

    @pytest.mark.gpu
    def test_on_cuda(self):
        completer = fitted(device="cuda", steps=3)
        assert completer.complete().device.type == "cuda"
        assert torch.allclose(completer.complete().cpu(), fitted(steps=3).complete(), rtol=1e-3, atol=1e-4)


class TestManners:
    def test_parameters_are_the_constructors_arguments(self):
        signature = inspect.signature(TensorCompleter).parameters
        assert TensorCompleter().get_params() == {name: parameter.default for name, parameter in signature.items()}
        given = {**dict.fromkeys(signature, "kept as it is"), "seed": 7}
        assert TensorCompleter(**given).get_params() == given == TensorCompleter().set_params(**given).get_params()

    def test_clone(self):
        completer = fitted(tree=ModeTree.star(2), smooth={0: 1.0})
        again = clone(completer)
        assert again.get_params() == completer.get_params()
        assert not hasattr(again, "htf_")

    def test_what_is_learned_ends_in_an_underscore(self):
        completer = TensorCompleter(steps=2)
        before = dict(vars(completer))
        assert set(before) == set(completer.get_params())
        assert completer.fit(*TINY) is completer
        assert {name: value for name, value in vars(completer).items() if not name.endswith("_")} == before

    def test_repr_shows_what_differs_from_the_usual(self):
        assert repr(TensorCompleter(steps=5, ranks=2)) == "TensorCompleter(ranks=2, steps=5)"
        assert repr(TensorCompleter(mode_sizes=np.array([4, 4]))) == "TensorCompleter(mode_sizes=array([4, 4]))"

    def test_scikit_learns_search_of_parameters(self):
        indices = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), -1).reshape(-1, 3)
        values = (indices + 1).prod(1).astype(float)
        cut = KFold(3, shuffle=True, random_state=0)
        search = GridSearchCV(TensorCompleter(mode_sizes=(5, 5, 5), steps=500), {"ranks": [1, 4]}, cv=cut)
        assert is_regressor(search)
        assert search.fit(indices, values).best_score_ > 0.5

    def test_values_whose_squares_overflow_are_refused(self):
        with pytest.raises(ValueError, match="the squares of the values must not overflow"), np.errstate(over="ignore", invalid="ignore"):
            TensorCompleter(steps=2).fit([[0, 0], [0, 1], [1, 0]], [1e160, 2e160, 3e160])

    @pytest.mark.parametrize("call", [lambda it: it.predict([[0, 0]]), lambda it: it.complete(), lambda it: it.score(*TINY)])
    def test_not_fitted(self, call):
        with pytest.raises(RuntimeError, match="call fit first"):
            call(TensorCompleter())

    @pytest.mark.parametrize(
        "convert",
        [
            lambda array: array.tolist(),
            torch.from_numpy,
            lambda array: array.astype(array.dtype.newbyteorder(">")),
            lambda array: np.ascontiguousarray(array[::-1])[::-1],
            lambda array: np.broadcast_to(array, array.shape),
        ],
        ids=["lists", "tensors", "big-endian", "reversed", "read-only"],
    )
    def test_kinds_of_arrays(self, convert):
        indices, values, known = waves()
        same = TensorCompleter(ranks=2, steps=20).fit(convert(indices[known]), convert(values[known]))
        assert_same(same, fitted())
        assert torch.equal(same.predict(convert(indices)), fitted().predict(indices))


class TestSameAgain:
    def test_the_seed_determines_everything(self):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = fitted(seed=5)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert_same(first, fitted(seed=5))
        assert not torch.equal(first.complete(), fitted(seed=6).complete())

    @pytest.mark.parametrize("optimizer", ["adam", "group_rmsprop"])
    @pytest.mark.parametrize("validation", [0.0, 0.2])
    def test_resumed_from_any_state(self, optimizer, validation, tmp_path):
        given, states = {"optimizer": optimizer, "validation": validation}, []
        whole = fitted(callback=lambda progress: states.append(progress.state), **given)
        for number in (0, 9, 19):
            write_nested(tmp_path / "state", states[number], kind="state")
            for state in (states[number], read_nested(tmp_path / "state", kind="state")):
                assert_same(fitted(state=state, **given), whole)

    def test_warm_start_goes_on_where_the_previous_fit_ended(self):
        indices, values, known = waves()
        completer = fitted(warm_start=True)
        old = completer.history_
        completer.set_params(steps=30).fit(indices[known], values[known])
        assert (completer.n_iter_, completer.history_[:20], len(completer.history_)) == (30, old, 30)
        completer.set_params(warm_start=False).fit(indices[known], values[known])
        assert completer.history_[:20] != old


class TestInterruption:
    @pytest.mark.parametrize("stop", [1, 7, 20])
    def test_from_the_callback(self, stop):
        def interrupt(progress):
            if progress.step == stop:
                raise KeyboardInterrupt

        completer = fitted(callback=interrupt)
        assert completer.interrupted_
        assert completer.n_iter_ == len(completer.history_) == stop
        best = min(completer.history_, key=lambda record: record["held_out"])
        assert completer.state_["best"]["step"] == best["step"]
        assert_same(fitted(state=completer.state_), fitted())
        assert not fitted().interrupted_

    @pytest.mark.parametrize("stop", [0, 7])
    def test_within_a_step(self, stop, monkeypatch):
        move = Training._move

        def interrupted(training):
            if training.step < stop:
                return move(training)
            for weight in training.white.parameters():
                weight.data.fill_(torch.nan)  # half a step, of which nothing may be seen
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Training, "_move", interrupted)
            completer = fitted()
        assert (completer.interrupted_, completer.n_iter_) == (True, stop)
        assert bool(completer.complete().isfinite().all())
        assert_same(fitted(state=completer.state_), fitted())


class TestHeldOut:
    def test_given_ones_choose_the_best_state(self):
        indices, values, known = waves()
        completer = TensorCompleter(ranks=6, steps=60, lr=0.2, smooth=None, weight_decay=0.0, patience=60)
        completer.fit(indices[known], values[known], held_out=(indices[~known], values[~known]))
        errors = [record["held_out"] for record in completer.history_]
        assert min(errors) < errors[-1]  # it was over-fitted in the end
        squares = (completer.predict(indices[~known]).numpy() - values[~known]) ** 2
        assert squares.mean() / completer.scale_**2 == pytest.approx(min(errors), rel=1e-4)

    def test_without_any(self):
        completer = fitted(validation=0.0)
        assert all(record["held_out"] is None for record in completer.history_)
        assert completer.state_["best"]["error"] == min(record["loss"] for record in completer.history_)

    def test_it_stops_when_nothing_improves(self):
        completer = fitted(steps=200, patience=4, lr=0.0)
        assert (completer.n_iter_, completer.interrupted_) == (10, False)  # a record every 2 steps, of which the first is the best

    def test_a_diverging_training_keeps_the_best(self):
        with pytest.warns(DivergenceWarning, match="the loss is nan at step .*; training stopped"):
            completer = fitted(lr=1e30, steps=20)
        assert bool(completer.complete().isfinite().all())


INDICES, VALUES = TINY
BAD = [
    ({"values": [1.0, np.nan, 2.0]}, ValueError, "values must be finite, and missing entries left out; got nan"),
    ({"values": [1.0, -np.inf, 2.0]}, ValueError, "values must be finite, .*; got -inf"),
    ({"values": [1.0, 2.0]}, ValueError, r"shape \(B, N\) and values \(B,\); got \(3, 2\) and \(2,\)"),
    ({"values": [[1.0], [2.0], [3.0]]}, ValueError, r"got \(3, 2\) and \(3, 1\)"),
    ({"values": ["a", "b", "c"]}, TypeError, "values must be an array of numbers; got list"),
    ({"values": None}, TypeError, "values must be an array of numbers; got NoneType"),
    ({"values": [[1.0], [2.0, 3.0], [1.0]]}, TypeError, "values must be an array of numbers"),
    ({"indices": [0, 1, 1]}, ValueError, r"got \(3,\) and \(3,\)"),
    ({"indices": np.zeros((0, 2), int), "values": []}, ValueError, "at least one observed entry"),
    ({"indices": [], "values": []}, ValueError, r"got \(0,\) and \(0,\)"),
    ({"indices": np.zeros((3, 0), int)}, ValueError, "at least one observed entry"),
    ({"indices": np.array(INDICES, float)}, TypeError, "indices must be integers; got torch.float64"),
    ({"indices": np.array(INDICES, bool)}, TypeError, "indices must be integers; got torch.bool"),
    ({"indices": [[0, 0], [0, 1], [1]]}, TypeError, "indices must be an array of numbers"),
    ({"indices": [[0, 0], [0, -1], [1, 0]]}, ValueError, "from 0 to below the mode's size; got -1"),
    ({"mode_sizes": (2, 1)}, ValueError, "got 1 for mode 1 of size 1"),
    ({"mode_sizes": (2, 2, 2)}, ValueError, "one size per mode; got 3 for 2"),
    ({"held_out": 3}, TypeError, "held_out must be a pair of indices and values; got int"),
    ({"held_out": ([[0, 0, 0]], [1.0])}, ValueError, "as many columns as the others; got 3 for 2"),
    ({"held_out": ([[0, 0]], [np.nan])}, ValueError, "values must be finite"),
    ({"held_out": ([[0, 5]], [1.0]), "mode_sizes": 2}, ValueError, "got 5 for mode 1 of size 2"),
    ({"held_out": ([[0, 0]], [1j]), "dtype": torch.float32}, TypeError, "complex values need a complex dtype; got torch.float32"),
    ({"tree": ((0, 1),)}, TypeError, "tree must be a ModeTree or 'auto'"),
    ({"tree": ModeTree.star(3)}, ValueError, "a column per mode of the tree; got 2 for 3"),
    ({"ranks": "many"}, ValueError, "ranks must be .* 'auto'; got 'many'"),
    ({"ranks": 0}, ValueError, "ranks must be at least 1; got 0"),
    ({"ranks": {(0,): 2}}, ValueError, "ranks needs one entry per interior node"),
    ({"smooth": "very"}, ValueError, "smooth must be lengths, None or 'auto'; got 'very'"),
    ({"smooth": {2: 1.0}}, ValueError, "smooth names modes from 0 to 1; got 2"),
    ({"smooth": -1.0}, ValueError, "correlation length must be a finite number of at least 0; got -1.0"),
    ({"smooth": [1.0, 2.0]}, TypeError, "correlation length must be a number"),
    ({"optimizer": "sgd"}, ValueError, "optimizer must be one of adam, group_rmsprop; got 'sgd'"),
    ({"validation": 1.0}, ValueError, "validation must be a share from 0 to below 1; got 1.0"),
    ({"validation": "5%"}, TypeError, "validation must be a number; got '5%'"),
    ({"dtype": torch.int64}, TypeError, "dtype must be a real or complex floating type; got torch.int64"),
    ({"dtype": "float32"}, TypeError, "dtype must be one of torch's; got 'float32'"),
    ({"state": {}}, ValueError, "state must be one of an earlier training"),
]


class TestBadInput:
    @pytest.mark.parametrize(("given", "error", "match"), BAD)
    def test_one_clear_line_and_everything_stays(self, given, error, match):
        completer = TensorCompleter(steps=2).fit(INDICES, VALUES)
        before = {**vars(completer)}
        arguments = {"indices": INDICES, "values": VALUES}
        arguments.update({name: given[name] for name in given if name in ("indices", "values", "held_out", "state")})
        parameters = {name: value for name, value in given.items() if name not in arguments}
        with pytest.raises(error, match=match) as caught:
            completer.set_params(**parameters).fit(**arguments)
        assert "\n" not in str(caught.value)
        assert {name: value for name, value in vars(completer).items() if name.endswith("_")} == {
            name: value for name, value in before.items() if name.endswith("_")
        }

    @pytest.mark.parametrize(
        ("indices", "error", "match"),
        [
            ([[0, 2]], ValueError, "got 2 in row 0 for mode 1 of size 2"),
            ([[0, -1]], ValueError, "got -1 in row 0 for mode 1"),
            ([[0, 1, 1]], ValueError, r"the shape \(B, 2\).*; got \(1, 3\)"),
            ([0, 1], ValueError, r"the shape \(B, 2\).*; got \(2,\)"),
            ([[0.0, 1.0]], TypeError, "indices must be integers; got torch.float64"),
            ("all", TypeError, "indices must be an array of numbers; got str"),
        ],
    )
    def test_predict(self, indices, error, match):
        with pytest.raises(error, match=match):
            TensorCompleter(steps=1).fit(*TINY).predict(indices)

    def test_unknown_parameter(self):
        with pytest.raises(ValueError, match="has no parameter 'rank'; it has tree, mode_sizes, ranks"):
            TensorCompleter().set_params(rank=3)

    def test_an_error_in_the_callback_is_the_callers(self):
        with pytest.raises(ZeroDivisionError, match="division"):
            fitted(callback=lambda progress: 1 / 0)
