"""Low hierarchical ranks of what a completer learned: found where they are true, and only then; what is left as it was trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generators import ORDER_4 as TREES

from tensornet import HT, HTF, ModeTree, TensorCompleter, hierarchical_rank, load, save
from tensornet.completion import completer as completer_module
from tensornet.completion import refinement
from tensornet.completion.refinement import refined
from tensornet.evaluation.observed import Observed


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors are no work for several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def low_rank(tree, rank, sizes=7, dtype=torch.float64, seed=0):
    """A tensor of these hierarchical ranks, with entries of about 1."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (sizes,) * tree.order if isinstance(sizes, int) else sizes
    tensors = []
    for place, below in enumerate(tree.child_ids):
        columns = 1 if place == len(tree.nodes) - 1 else rank
        shape = (*(tensors[child].shape[-1] for child in below), columns) if below else (sizes[place], columns)
        tensors.append(torch.randn(shape, generator=generator, dtype=dtype))
    return HT(tree, tuple(tensors)).contract().numpy()


def observed(truth, share=0.6, noise=0.0, seed=0):
    """Indices and values of a share of the entries, with noise relative to their spread."""
    rng = np.random.default_rng(seed)
    indices = np.indices(truth.shape).reshape(truth.ndim, -1).T
    indices = indices[rng.random(len(indices)) < share]
    values = truth[tuple(indices.T)]
    return indices, values + noise * values.std() * rng.standard_normal(len(values))


def error(completer, truth):
    """Relative to the norm of the truth."""
    return np.linalg.norm(completer.complete().numpy() - truth) / np.linalg.norm(truth)


class TestFound:
    @pytest.mark.parametrize("name", TREES)
    def test_the_true_ranks_and_the_true_tensor(self, name):
        truth = low_rank(TREES[name], 2)
        completer = TensorCompleter(TREES[name], dtype=torch.float64).fit(*observed(truth))
        assert completer.hierarchical_ranks_ == hierarchical_rank(truth, TREES[name], rtol=1e-9)
        assert error(completer, truth) < 1e-5
        assert (completer.offset_, completer.error_ < 1e-10) == (0.0, True)
        assert min(record["held_out"] for record in completer.history_) > 1e-6  # of the training alone

    @pytest.mark.parametrize("sizes", [(40, 30), (12, 1, 10, 8)])
    def test_with_no_tree_given(self, sizes):
        truth = low_rank(ModeTree.star(len(sizes)), 2 if len(sizes) == 2 else 1, sizes)
        completer = TensorCompleter().fit(*observed(truth, share=0.8))
        assert set(completer.hierarchical_ranks_.values()) <= {1, 2}
        assert error(completer, truth) < 1e-5

    def test_complex_tensors(self):
        truth = low_rank(TREES["balanced"], 2, dtype=torch.complex128)
        completer = TensorCompleter().fit(*observed(truth))
        assert set(completer.hierarchical_ranks_.values()) == {2}
        assert completer.htf_.weight_list()[0].dtype == torch.complex64
        assert error(completer, truth) < 1e-5

    def test_a_constant_beside_costs_no_more_than_one_rank(self):
        truth = low_rank(TREES["balanced"], 2) + 20
        completer = TensorCompleter().fit(*observed(truth))
        assert set(completer.hierarchical_ranks_.values()) == {3}
        assert error(completer, truth) < 1e-5

    def test_noise_is_averaged_out_as_by_who_knows_the_ranks(self):
        truth = low_rank(TREES["balanced"], 2)
        indices, values = observed(truth, noise=0.2)
        completer = TensorCompleter().fit(indices, values)
        assert set(completer.hierarchical_ranks_.values()) == {2}
        free = 4 * 2 * (7 - 2) + 2 * 2 * (4 - 2) + 4  # dimension of the tensors of these ranks
        assert error(completer, truth) < 1.5 * 0.2 * np.sqrt(free / len(values))

    def test_an_index_without_entries_gets_the_average(self):
        truth = low_rank(TREES["balanced"], 2)
        completer = TensorCompleter(mode_sizes=(7, 9, 7, 7)).fit(*observed(truth))
        assert set(completer.hierarchical_ranks_.values()) == {2}
        average = torch.from_numpy(truth.mean(1)).float()
        torch.testing.assert_close(completer.complete()[:, 8], average, rtol=1e-4, atol=1e-4)

    def test_again_the_same_bits(self):
        entries = observed(low_rank(TREES["chain"], 2), noise=0.1)
        first = TensorCompleter(TREES["chain"]).fit(*entries)
        state = []
        stopped = TensorCompleter(TREES["chain"]).fit(*entries, callback=lambda seen: state.append(seen.state))
        resumed = TensorCompleter(TREES["chain"]).fit(*entries, state=state[len(state) // 2])
        for other in (stopped, resumed):
            assert torch.equal(other.complete(), first.complete())
            assert other.hierarchical_ranks_ == first.hierarchical_ranks_ is not None

    def test_it_is_saved(self, tmp_path):
        completer = TensorCompleter().fit(*observed(low_rank(TREES["balanced"], 2)))
        save(tmp_path / "found.safetensors", completer)
        again = load(tmp_path / "found.safetensors")
        assert torch.equal(again.complete(), completer.complete())
        assert (again.hierarchical_ranks_, again.error_) == (completer.hierarchical_ranks_, completer.error_)
        assert again.hierarchical_ranks_ is not None

    @pytest.mark.parametrize("shift", [5, 1e4])
    def test_a_mean_far_from_zero_costs_no_digits(self, shift):
        truth = low_rank(TREES["balanced"], 2)
        truth = truth / truth.std() + shift
        completer = TensorCompleter(dtype=torch.float64).fit(*observed(truth))
        assert max(completer.hierarchical_ranks_.values()) <= 3
        assert error(completer, truth) * shift < (1e-4 if shift == 5 else 0.05)  # where it stays apart, it is known as well as a mean is
        assert (completer.offset_ == 0) == (shift == 5)

    def test_an_index_without_entries_of_a_smooth_mode_keeps_what_its_neighbours_tell(self):
        rows, columns = np.indices((60, 40)).reshape(2, -1)
        values = np.sin(rows / 6) * np.cos(columns / 5)
        known = (np.random.default_rng(0).random(2400) < 0.6) & (rows % 20 > 1)
        completer = TensorCompleter().fit(np.stack([rows, columns], 1)[known], values[known])
        assert all(length > 0 for length in completer.lengths_)
        assert completer.hierarchical_ranks_ is None


class TestLeft:
    def trained(self, monkeypatch, *entries, **parameters):
        """The completer, and one of the training alone."""
        completer = TensorCompleter(**parameters).fit(*entries)
        monkeypatch.setattr(completer_module, "refined", lambda *_, **__: None)
        return completer, TensorCompleter(**parameters).fit(*entries)

    @pytest.mark.parametrize("parameters", [{"ranks": 3}, {"validation": 0.0}, {"validation": 0.005}])
    def test_as_trained(self, parameters, monkeypatch):
        entries = observed(low_rank(TREES["balanced"], 2))
        completer, alone = self.trained(monkeypatch, *entries, **parameters)
        assert completer.hierarchical_ranks_ is None
        assert torch.equal(completer.complete(), alone.complete())
        assert completer.error_ == completer.state_["best"]["error"]

    @pytest.mark.parametrize("sizes", [(40, 40), (20, 20, 20), (8, 8, 8, 8)])
    @pytest.mark.parametrize("seed", range(2))
    def test_a_tensor_of_full_rank_gets_no_worse(self, sizes, seed, monkeypatch):
        rng = np.random.default_rng(seed)
        truth = np.zeros(sizes)
        for strength in 0.6 ** np.arange(12):
            vectors = [rng.standard_normal(size) for size in sizes]
            truth += strength * np.einsum(
                vectors[0], [0], *(part for place, vector in enumerate(vectors[1:], 1) for part in (vector, [place]))
            )
        indices, values = observed(truth / truth.std(), share=800 / truth.size, noise=0.1, seed=seed)
        completer, alone = self.trained(monkeypatch, indices, values)
        assert error(completer, truth / truth.std()) < 1.2 * error(alone, truth / truth.std())

    def test_more_numbers_than_entries(self):
        rng = np.random.default_rng(0)
        indices, parts = rng.integers(0, 20, (700, 2)), rng.standard_normal((2, 20))
        values = parts[0][indices[:, 0]] * parts[1][indices[:, 1]] + 0.1 * rng.standard_normal(700)
        completer = TensorCompleter(mode_sizes=(1000, 1000)).fit(indices, values)
        assert completer.score(indices, values) > 0.95
        rng = np.random.default_rng(0)
        sparse = rng.integers(0, 1000, (700, 2))
        assert TensorCompleter(steps=30).fit(sparse, rng.standard_normal(700)).hierarchical_ranks_ is None

    @pytest.mark.parametrize("order", [40, 500])
    def test_stars_of_high_order(self, order):
        rng = np.random.default_rng(0)
        indices = rng.integers(0, 2, (700, order))
        completer = TensorCompleter(ModeTree.star(order), steps=3).fit(indices, rng.standard_normal(700))
        assert completer.hierarchical_ranks_ is None

    def test_batches(self):
        entries = observed(low_rank(TREES["balanced"], 2))
        assert TensorCompleter(batch_size=500, steps=300).fit(*entries).hierarchical_ranks_ is None

    def test_entries_on_the_disk(self, tmp_path):
        indices, values = observed(low_rank(TREES["balanced"], 2))
        np.save(tmp_path / "indices.npy", indices)
        np.save(tmp_path / "values.npy", values)
        completer = TensorCompleter(steps=300).fit(tmp_path / "indices.npy", tmp_path / "values.npy")
        assert completer.hierarchical_ranks_ is None

    def test_a_smooth_tensor_whose_smoothness_tells_more(self, monkeypatch):
        rng = np.random.default_rng(0)
        rows, columns = np.indices((60, 60)).reshape(2, -1)
        values = np.sin((rows - 30) ** 2 / 200 + columns / 9) + 0.3 * rng.standard_normal(3600)
        known = rng.random(3600) < 0.12
        entries = np.stack([rows, columns], 1)[known], values[known]
        completer, alone = self.trained(monkeypatch, *entries)
        assert completer.hierarchical_ranks_ is None
        assert torch.equal(completer.complete(), alone.complete())

    def test_ctrl_c(self, monkeypatch):
        entries = observed(low_rank(TREES["balanced"], 2))

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(completer_module, "refined", interrupted)
            completer = TensorCompleter().fit(*entries)
        assert (completer.interrupted_, completer.hierarchical_ranks_) == (True, None)
        assert completer.score(*entries) > 0.99
        resumed = TensorCompleter().fit(*entries, state=completer.state_)
        assert not resumed.interrupted_
        assert resumed.hierarchical_ranks_ is not None


class TestFits:
    def case(self, steps=1000.0, error=0.5):
        rng = np.random.default_rng(0)
        truth = low_rank(TREES["balanced"], 2) / 10
        indices, values = observed(truth)
        hidden = rng.random(len(values)) < 0.1
        known, rest = (indices[~hidden], values[~hidden]), (indices[hidden], values[hidden])
        generator = torch.Generator().manual_seed(1)
        htf = HTF(TREES["balanced"], 7, 6, init_std=0.6, generator=generator)  # learned nothing: any start will do
        return refined(htf, 0.0, known, rest, error, steps=steps, ordered=[False] * 4)

    def test_any_start_is_truncated_and_fitted(self):
        found = self.case()
        assert found.error < 0.1
        assert all(tensor.dtype == torch.float64 for tensor in found.tensor.tensors)

    @pytest.mark.parametrize("error", [0.0, 1.0, float("inf"), 1e-9])
    def test_nothing_to_gain_or_nothing_learned(self, error):
        assert self.case(error=error) is None

    def test_no_more_work_than_a_quarter_of_the_training(self, monkeypatch):
        work, entries = [], refinement._entries

        def counted(shape, tensors, indices):
            work.extend([shape] if isinstance(indices, Observed) else [])  # and not those of judging, which are a few
            return entries(shape, tensors, indices)

        monkeypatch.setattr(refinement, "_entries", counted)
        monkeypatch.setattr(refinement, "FREE", 0)
        self.case(steps=1000)
        search = refinement._Search.__new__(refinement._Search)
        search.known = (None, np.zeros(1300))
        allowed = 250 * search.cost(HTF(TREES["balanced"], 7, 6).shape)
        assert 0.1 * allowed < sum(map(search.cost, work)) < 1.05 * allowed  # the last search along a line may go beyond
        work.clear()
        assert self.case(steps=1) is None
        assert not work

    @pytest.mark.parametrize("limit", ["LARGEST", "WIDEST", "MOST"])
    def test_no_more_memory_than_is_allowed(self, limit, monkeypatch):
        monkeypatch.setattr(refinement, limit, 1)
        assert self.case() is None

    def test_a_solver_that_fails_changes_nothing(self, monkeypatch):
        import scipy.optimize

        found = type("Found", (), {"x": np.array([np.nan]), "fun": np.nan, "nit": 3, "nfev": 3})
        monkeypatch.setattr(scipy.optimize, "minimize", lambda *_, **__: found)
        result = self.case()
        assert result is None
