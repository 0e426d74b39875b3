"""The command `tensornet`: its help and errors, and its commands `plan` and `demo`."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest
import torch
from command_cases import call, pixels

import tensornet
from tensornet import HTF, ModeTree
from tensornet.cli import demo


class TestCommand:
    def test_without_arguments_it_shows_its_help(self, capsys):
        assert call() == 0
        assert capsys.readouterr().out.startswith("usage: tensornet")

    @pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["demo", "--help"], ["complete", "--help"]])
    def test_help_has_examples(self, arguments, capsys):
        assert call(*arguments) == 0
        assert "examples:\n  tensornet " in capsys.readouterr().out

    def test_version(self, capsys):
        assert call("--version") == 0
        assert capsys.readouterr().out == f"tensornet-htf {tensornet.__version__}\n"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["complte"], "unknown command complte (did you mean complete?); choose from demo, complete, plan"),
            (["plan", "--tree", "(0,1)", "--rank", "3"], "unknown argument --rank (did you mean --ranks?)"),
            (["complete", "--sed=3"], "unknown argument --sed=3 (did you mean --seed?)"),
            (["demo", "--xyzzy"], "unknown argument --xyzzy\n"),
            (["plan", "--tree", "(0,1)", "--dtype", "float23"], "unknown value of --dtype: float23 (did you mean float32?); choose from"),
            (["plan"], "the following arguments are required: --tree"),
            (["plan", "--tree", "(0,(1,2"], "a tree is written as nested parentheses, such as ((0,1),(2,3)); got '(0,(1,2'"),
            (["plan", "--tree", "(0,0)"], "argument --tree: "),
            (["plan", "--tree", "(0,1)", "--mode-sizes", "4,x"], "an integer is needed, or several with commas between; got '4,x'"),
            (["plan", "--tree", "(0,1)", "--memory-limit", "much"], "an amount of memory such as 2GB or 512MiB is needed; got 'much'"),
            (["complete", "--fraction", "1.5"], "a share above 0 and below 1 is needed; got '1.5'"),
            (["complete", "--steps", "0"], "a positive integer is needed; got '0'"),
            (["complete", "--seed", "-1"], "argument --seed: "),
            (["complete", "--device", "abacus"], "the device 'abacus' cannot be used"),
            (["plan", "--tree", "(0,1)", "--ranks", "0"], "ranks must be at least 1; got 0"),
            (["plan", "--tree", "(0,1)", "--mode-sizes", "2,3,4"], "mode_sizes needs one size per mode; got 3 for 2 modes"),
            (["plan", "--tree", "((0,1),(2,3))", "--ranks", "2,3"], "--ranks needs one number, or one per interior node; got 2 for 3"),
            (["plan", "--tree", "((0,1),(2,3))", "--mode-sizes", "99", "--ranks", "2", "--memory-limit", "1MB"], "may use"),
            (["complete", "--mask", "mask.png"], "--mask needs a file to complete"),
            (["complete", "waves.npy"], "--out is needed with a file to complete"),
            (
                ["complete", "--set", "penalties=3"],
                "unknown setting 'penalties' (did you mean penalty?); choose from penalty, weight_decay, optimizer",
            ),
            (["complete", "--set", "patience=soon"], "patience must be an integer; got 'soon'"),
            (["complete", "--set", "penalty"], "a field is set as KEY=VALUE"),
            (["complete", "--set", "lr=-1"], "lr must be finite and at least 0; got -1.0"),
            (["complete", "--set", "validation=1"], "validation must be a share from 0 to below 1; got 1.0"),
        ],
    )
    def test_wrong_arguments_give_one_line_and_code_2(self, arguments, said, waves, capsys):
        assert call(*arguments) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("tensornet")
        assert said in shown.err
        assert shown.err.count("\n") == 1

    def test_runs_as_a_module(self, folder):
        done = subprocess.run([sys.executable, "-m", "tensornet", "plan", "--tree", "0,"], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


class TestPlan:
    def test_the_tree_and_the_librarys_plan(self, capsys):
        tree = ModeTree.from_nested(((0, 2), (1, 3)))
        arguments = ["plan", "--tree", "((0,2),(1,3))", "--mode-sizes", "8,6,4,2", "--ranks", "5,4,3", "--dtype", "float64"]
        assert call(*arguments) == 0
        htf = HTF(tree, (8, 6, 4, 2), dict(zip(tree.interior, (5, 4, 3))), dtype=torch.float64)
        assert capsys.readouterr().out == f"{tree}\n\n{htf.plan()}\n"

    def test_it_says_that_the_result_does_not_fit(self, capsys):
        assert call("plan", "--tree", "(0,1,2,3)", "--mode-sizes", "100000", "--ranks", "2") == 0
        found = capsys.readouterr().out.splitlines()[-1]
        assert "GiB that are free here: contract() refuses it, entries() needs far less." in found


class TestDemo:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(demo, "CONTRACTED", {"order": 4, "size": 3, "rank": 2})
        monkeypatch.setattr(demo, "SECONDS", 0.0)
        monkeypatch.setattr(demo, "learn", functools.partial(demo.learn, size=3, rank=4, steps=60))

    def test_it_draws_compares_and_learns(self, folder, capsys):
        assert call("demo", "--out", "new/folder") == 0
        shown = capsys.readouterr().out
        for text in ("A mode tree", "torch.einsum", "opt_einsum", "local components at", "reconstruction error", "iteration 60"):
            assert text in shown
        assert pixels("new/folder/demo.png").std() > 1

    def test_an_output_that_is_a_file(self, folder, capsys):
        folder.joinpath("taken").write_text("mine")
        assert call("demo", "--out", "taken") == 2
        assert capsys.readouterr().err == "tensornet: error: --out must be a folder; taken is a file\n"
        assert folder.joinpath("taken").read_text() == "mine"

    def test_ctrl_c(self, folder, monkeypatch, capsys):
        monkeypatch.setattr(demo, "_look", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call("demo") == 130
        assert capsys.readouterr().err == "tensornet: interrupted\n"
