"""Saved factorizations and completers: round trips of all that makes them up."""

from __future__ import annotations

import generators
import numpy as np
import pytest
import torch
from sklearn.base import clone

from tensornet import HTF, ModeTree, TensorCompleter
from tensornet.files.objects import load, save
from tensornet.files.storage import read_nested, write_nested


class TestFactorizations:
    @pytest.mark.parametrize("seed", range(20))
    def test_round_trip(self, tmp_path, seed):
        tree, weights = generators.random_case(seed, outputs=1 + seed % 3, dtype=np.complex128 if seed % 4 == 0 else np.float64)
        htf = HTF.from_weights(tree, weights)
        save(tmp_path / "a.safetensors", htf)
        found = load(tmp_path / "a.safetensors")
        assert (found.tree, found.mode_sizes, found.ranks) == (htf.tree, htf.mode_sizes, htf.ranks)
        assert all(torch.equal(found.weights[node], htf.weights[node]) for node in tree.nodes)
        assert all(isinstance(weight, torch.nn.Parameter) and weight.requires_grad for weight in found.parameters())

    @pytest.mark.parametrize(
        "options",
        [
            {"fixed_root": True},
            {"shared": True},
            {"shared": True, "fixed_root": True},
            {"pooling": "max", "activation": "relu"},
            {"pooling": "mean"},
            {"dtype": torch.bfloat16, "outputs": 3},
        ],
    )
    def test_all_else_that_makes_up_a_factorization(self, tmp_path, options):
        htf = HTF(ModeTree.grid((4, 2)), mode_sizes=3, ranks=4, init_std=1.0, **options)
        save(tmp_path / "a.safetensors", htf)
        found = load(tmp_path / "a.safetensors")
        assert (found.fixed_root, found.combination) == (htf.fixed_root, htf.combination)
        assert [weight.shape for weight in found.parameters()] == [weight.shape for weight in htf.parameters()]
        indices = torch.randint(3, (20, 8))
        assert torch.equal(found.entries(indices), htf.entries(indices))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
    def test_shared_weights_stay_shared_and_frozen_ones_frozen(self, tmp_path, dtype):
        htf = HTF(ModeTree.perfect(4), ranks=2, shared=True, init_std=1.0, dtype=dtype)
        htf.weights[(0,)].requires_grad_(False)
        with torch.no_grad():
            save(tmp_path / "a.safetensors", htf)
        found = load(tmp_path / "a.safetensors")
        assert [(name, weight.requires_grad) for name, weight in found.named_parameters()] == [
            ("weight_0", False),
            ("weight_4", True),
            ("weight_6", True),
        ]
        assert torch.equal(found.contract(), htf.contract())

    def test_computed_weights_are_trained(self, tmp_path):
        htf = HTF(ModeTree.star(3), ranks=2)
        torch.nn.utils.parametrize.register_parametrization(htf, "weight_0", torch.nn.Tanh())
        with torch.no_grad():
            save(tmp_path / "a.safetensors", htf)
        found = load(tmp_path / "a.safetensors")
        assert torch.equal(found.weights[(0,)], htf.weights[(0,)])
        assert all(weight.requires_grad for weight in found.weight_list())

    def test_files_that_do_not_say_which_weights_are_trained(self, tmp_path):
        path = tmp_path / "a.safetensors"
        save(path, HTF(ModeTree.star(3)))
        write_nested(path, {key: value for key, value in read_nested(path, kind="HTF").items() if key != "trained"}, kind="HTF")
        assert len(list(load(path).parameters())) == 4

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_could_not_be_loaded_is_not_written(self, tmp_path, value):
        htf = HTF(ModeTree.star(2), ranks=2)
        htf.weights[(1,)].data[1, 0] = value
        with pytest.raises(ValueError, match=rf"the weight of node \(1,\) must be finite; found {value} at \(1, 0\)"):
            save(tmp_path / "a.safetensors", htf)
        with pytest.raises(TypeError, match=r"must be .* floating type; got torch.float8_e4m3fn"):
            save(tmp_path / "a.safetensors", HTF(ModeTree.star(2)).to(torch.float8_e4m3fn))
        assert not list(tmp_path.iterdir())

    def test_thousands_of_modes(self, tmp_path):
        htf = HTF(ModeTree.chain(2000), ranks=2)
        save(tmp_path / "a.safetensors", htf)
        assert load(tmp_path / "a.safetensors").tree == htf.tree

    def test_nothing_else(self, tmp_path):
        with pytest.raises(TypeError, match="save writes an HTF or a TensorCompleter; got dict"):
            save(tmp_path / "a.safetensors", {})
        write_nested(tmp_path / "a.safetensors", 1, kind="checkpoint")
        with pytest.raises(ValueError, match=r"a\.safetensors holds a checkpoint; a HTF or TensorCompleter is needed"):
            load(tmp_path / "a.safetensors")


class TestCompleters:
    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"tree": ModeTree.star(2), "ranks": np.int64(3), "dtype": torch.float64, "smooth": {1: 2.0}, "batch_size": 4},
            {"tree": ModeTree.chain(2), "ranks": {(0, 1): 2}, "mode_sizes": (9, 8), "optimizer": "group_rmsprop", "seed": 7},
        ],
    )
    @pytest.mark.parametrize("phase", [1, 1j])
    def test_round_trip(self, parameters, phase, tmp_path):
        if phase == 1j:
            parameters = {**parameters, "dtype": torch.complex128}
        indices = np.random.default_rng(0).integers(0, (5, 4), (30, 2))
        completer = TensorCompleter(steps=12, **parameters).fit(indices, phase * np.sin(indices.sum(1)))
        save(tmp_path / "a.safetensors", completer)
        found = load(tmp_path / "a.safetensors")
        assert found.get_params() == {**completer.get_params(), "device": "cpu"}
        assert torch.equal(found.complete(), completer.complete())
        assert (found.history_, found.lengths_, found.scale_) == (completer.history_, completer.lengths_, completer.scale_)
        assert (found.offset_, type(found.offset_)) == (completer.offset_, type(completer.offset_))
        longer = [one.set_params(warm_start=True, steps=20).fit(indices, phase * np.sin(indices.sum(1))) for one in (found, completer)]
        assert torch.equal(longer[0].complete(), longer[1].complete())
        assert not hasattr(clone(found), "htf_")

    def test_before_it_has_learned(self, tmp_path):
        save(tmp_path / "a.safetensors", TensorCompleter(steps=3))
        assert repr(load(tmp_path / "a.safetensors")) == "TensorCompleter(steps=3, device='cpu')"

    def test_a_parameter_that_is_no_data(self, tmp_path):
        with pytest.raises(TypeError, match=r"only tensors, numbers, strings .* can be written; got function"):
            save(tmp_path / "a.safetensors", TensorCompleter(smooth=lambda: 3))

    @pytest.mark.parametrize("change", [{"parameters": {"steps": 3}}, {"learned": {}}, {"learned": {"htf_": 3}}, {"parameters": 3}])
    def test_damaged(self, change, tmp_path):
        path = tmp_path / "a.safetensors"
        save(path, TensorCompleter(steps=2).fit([[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0]))
        write_nested(path, {**read_nested(path, kind="TensorCompleter"), **change}, kind="TensorCompleter")
        with pytest.raises(ValueError, match=r"a\.safetensors is damaged"):
            load(path)
