"""The commands `tensornet dynamics` and `tensornet figure`: what they print and write, errors in one line, Ctrl-C and resuming."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from command_cases import call

from tensornet.cli import dynamics
from tensornet.files.runs import read_records
from tensornet.files.storage import read_json

SMALL = ("--set", "ranks=6", "--set", "mode_sizes=5,5,5", "--set", "samples=80", "--set", "record_every=10")


def test_a_run_prints_its_report_and_draws_its_figure(folder, capsys):
    assert call("dynamics", "quick-tensor", "--out", "run", "--seed", 1, *SMALL, "--set", "max_steps=50") == 0
    out = capsys.readouterr().out
    assert "quick-tensor, seed 1: 5 x 5 x 5 from 80 entries, tensor factorization with 6 components a node" in out
    assert "local components at 0,1,2" in out
    assert "step 50, loss" in out
    assert "quick-tensor: step 50, loss" in out
    assert "max_steps" in out
    assert "(true 3)" in out
    assert (folder / "run" / "figure.png").stat().st_size > 5000
    assert read_json(folder / "run" / "config.json")["seed"] == 1


def test_a_sweep_runs_every_combination(folder, capsys):
    sweep = ("--sweep", "init_std=0.1,0.01", "--sweep", "seed=0,1")
    assert call("dynamics", "quick-matrix", "--out", "runs", *sweep, "--set", "ranks=6", "--set", "max_steps=10") == 0
    names = sorted(path.name for path in (folder / "runs").iterdir() if path.is_dir())
    assert names == ["init_std=0.01,seed=0", "init_std=0.01,seed=1", "init_std=0.1,seed=0", "init_std=0.1,seed=1"]
    assert read_json(folder / "runs" / names[0] / "config.json")["init_std"] == 0.01
    out = capsys.readouterr().out
    assert "singular values at 0" in out
    assert f"The figure of all runs is in {Path('runs', 'figure.png')}.\n" in out
    assert (folder / "runs" / "figure.png").stat().st_size > 5000


def test_ctrl_c_and_resume(folder, capsys, monkeypatch):
    arguments = ("dynamics", "quick-tensor", "--out", "run", *SMALL, "--set", "max_steps=60")
    view, calls = dynamics._view, []

    def interrupt(*given):
        calls.append(given)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return view(*given)

    monkeypatch.setattr(dynamics, "REFRESH", 0.0)
    monkeypatch.setattr(dynamics, "_view", interrupt)
    assert call(*arguments) == 130
    out = capsys.readouterr().out
    assert "Interrupted at step 21; the same command with --resume goes on." in out
    assert "quick-tensor: step 20, loss" in out
    assert "not ended" in out
    assert call(*arguments) == 2
    assert "holds a run already; resume it (--resume), or give another folder" in capsys.readouterr().err
    assert call(*arguments, "--resume") == 0
    assert [record["step"] for record in read_records("run/metrics.jsonl")] == list(range(0, 61, 10))


def test_ctrl_c_in_the_last_step_ends_a_sweep_too(folder, capsys, monkeypatch):
    view = dynamics._view

    def interrupt(records, *more):
        if records[-1]["step"] == 10:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return view(records, *more)

    monkeypatch.setattr(dynamics, "_view", interrupt)
    assert call("dynamics", "quick-tensor", "--out", "runs", *SMALL, "--set", "max_steps=10", "--sweep", "seed=0,1") == 130
    assert capsys.readouterr().err == "tensornet: interrupted\n"
    assert [path.name for path in (folder / "runs").iterdir()] == ["seed=0"]
    assert read_json(folder / "runs" / "seed=0" / "summary.json")["steps"] == 10  # it is complete


def test_the_live_picture_is_drawn_now_and_then_and_at_the_end(folder, monkeypatch):
    steps, view = [], dynamics._view
    monkeypatch.setattr(dynamics, "_view", lambda records, *more: steps.append(records[-1]["step"]) or view(records, *more))
    monkeypatch.setattr(dynamics, "REFRESH", 3600.0)
    assert call("dynamics", "quick-tensor", "--out", "run", *SMALL, "--set", "max_steps=50") == 0
    assert steps == [0, 50]


def test_values_of_a_sweep_may_have_commas_in_parentheses(folder, capsys):
    words = ("--sweep", "tree=((0,1),2), (0,(1,2))", "--sweep", "seed=1,1", "--set", "matricizations=0", "--set", "max_steps=10")
    assert call("dynamics", "quick-hierarchical", "--out", "runs", "--set", "mode_sizes=4,4,4", "--set", "samples=30", *words) == 0
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["figure.png", "tree=((0,1),2),seed=1", "tree=(0,(1,2)),seed=1"]
    capsys.readouterr()
    assert call("dynamics", "quick-tensor", "--out", "more", "--sweep", "samples=20,99999", "--set", "max_steps=10") == 2
    assert "samples must be at most the number of entries" in capsys.readouterr().err
    assert not (folder / "more").exists()  # not even the first run is begun


def test_a_run_that_diverges_at_once(folder, capsys):
    arguments = ("--set", "init_std=1e30", "--set", "max_steps=5")
    assert call("dynamics", "quick-tensor", "--out", "run", *SMALL, *arguments) == 0
    assert "The run diverged before its first record." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fig11", "--out", "run"), "unknown value of EXPERIMENT: fig11"),
        (("fig8",), "the following arguments are required: --out"),
        (("fig8", "--out", "run", "--set", "ranks"), "a field is set as KEY=VALUE, such as ranks=128; got 'ranks'"),
        (("quick-matrix", "--out", "run", "--set", "matricizations=()"), "matricizations must not be empty"),
        (
            ("fig8", "--out", "run", "--set", "matricizations=(0,),1"),
            "matricizations are lists of modes, such as ((0,1),(0,2)); got ((0,), 1)",
        ),
        (("fig8", "--out", "run", "--set", "rank=3"), "unknown field 'rank'"),
        (
            ("fig8", "--out", "run", "--set", "samples=5000", "--set", "ranks=2"),
            "samples must be at most the number of entries, 4096; got 5000",
        ),
        (("fig8", "--out", "run", "--device", "tpu"), "the device 'tpu' cannot be used"),
        (("fig8", "--out", "file"), "a run needs a folder"),
    ],
)
def test_errors_are_one_line(folder, capsys, arguments, message):
    (folder / "file").write_text("mine")
    assert call("dynamics", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert (folder / "file").read_text() == "mine"


def test_figures_from_runs(folder, capsys):
    assert call("dynamics", "fig1-tensor", "--out", "runs/a", "--set", "ranks=6", "--set", "max_steps=100") == 0
    capsys.readouterr()
    for suffix in ("png", "svg", "pdf"):
        assert call("figure", 1, "--runs", "runs", "--out", f"figure.{suffix}") == 0
        assert (folder / f"figure.{suffix}").stat().st_size > 5000
    out = capsys.readouterr().out
    assert "There is no run of fig1-matrix in runs." in out
    assert f"fig1-tensor: {Path('runs', 'a')} (seed 0, with ranks=6, max_steps=100)\n" in out
    assert call("figure", 1, "--runs", "runs", "--out", "no/a.png") == 2
    assert "the folder no does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, "--runs", ".", "--out", "a.png"), "unknown value of FIGURE: 2"),
        ((1, "--runs", "nowhere", "--out", "a.png"), "runs are looked for in a folder; nowhere is none"),
        ((1, "--runs", ".", "--out", "a.gif"), "a figure is written as .png, .svg, .pdf; got 'a.gif'"),
        ((1, "--runs", ".", "--out", "a.png"), "there is no run of fig1-matrix, fig1-tensor, fig1-hierarchical in ."),
    ],
)
def test_errors_of_figures(folder, capsys, arguments, message):
    assert call("figure", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
