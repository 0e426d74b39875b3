from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cnn_reg.cli import main
from tensornet.files.runs import Run
from tensornet.files.storage import read_json, read_nested

ROOT = Path(__file__).parent.parent.parent
FIELDS = ("train_images=24", "test_images=16", "image_size=32", "width=0.125", "batch_size=8", "path_length=3")
TINY = [part for field in FIELDS for part in ("--set", field)]


def records(folder):
    timed = ("seconds", "images_per_second")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in timed} for line in lines]


def same_weights(one, other):
    left, right = (read_nested(folder / "checkpoint.safetensors", kind="checkpoint")["state"]["model"] for folder in (one, other))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_s_folder_holds_everything_and_the_end_says_what_was_done(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", *TINY, "--epochs", "2", "--coefficient", "1", "--out", str(folder), "--set", "validation_images=8"]) == 0
    shown = capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "checkpoint.safetensors",
        "curves.png",
    }
    summary = read_json(folder / "summary.json")
    assert summary["epochs"] == 2
    assert summary["test_accuracy"] == records(folder)[-1]["test_accuracy"]
    assert f"Test accuracy {summary['test_accuracy']:.4f} after the last epoch" in shown
    assert f"The distance between the circles alone predicts {summary['distance_only_accuracy']:.4f} of the test labels." in shown
    assert "The full run: cnn-reg train --preset paper --dataset pathfinder --path-length 3 --model resnet18 --device cuda" in shown
    best = max(records(folder), key=lambda record: record["validation_accuracy"])
    assert summary["best_validation"]["test_accuracy"] == best["test_accuracy"]
    assert read_json(folder / "config.json")["coefficient"] == 1.0
    assert all(0 <= record["cosine"] <= 1.000001 for record in records(folder))


def test_a_complete_run_is_not_trained_again(tmp_path, capsys):
    arguments = ["train", *TINY, "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert main([*arguments, "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith("run holds a run already; resume it (--resume), or give another folder\n")


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path, capsys):
    arguments = ["train", *TINY, "--epochs", "1", "--out", str(tmp_path / "run"), "--resume"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "--coefficient", "2", "--seed", "3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has coefficient = 9.0, got 2.0; seed = 0, got 3" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "papr"], "unknown preset 'papr' (did you mean paper?)"),
        (["--set", "momentun=0"], "unknown field 'momentun' (did you mean momentum?)"),
        (["--set", "path_length=2"], "path_length must be from 3 to 20; got 2"),
        (["--epochs", "x"], "epochs must be an integer; got 'x'"),
        (["--set", "width=1", "--model", "torchvision.models:resnet81"], "model torchvision.models:resnet81 cannot be found"),
        (["--dataset", "same-class", "--source", "digts"], "unknown source 'digts' (did you mean digits?)"),
    ],
)
def test_bad_arguments_give_one_line_and_code_2(arguments, message, tmp_path, capsys):
    assert main(["train", *TINY, *arguments, "--out", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.startswith("cnn-reg: error: ")
    assert shown.count("\n") == 1


def test_is_same_class_of_a_stand_in_says_so(tmp_path, capsys):
    arguments = ["--dataset", "same-class", "--source", "random", "--distance", "40", "--set", "image_size=56", "--epochs", "1"]
    assert main(["train", *TINY[:4], *TINY[6:-2], *arguments, "--out", str(tmp_path / "run")]) == 0
    assert "not CIFAR10" in capsys.readouterr().out
    assert "not CIFAR10" in read_json(tmp_path / "run" / "summary.json")["task"]


def test_a_model_of_another_package(tmp_path):
    arguments = ["--model", "torchvision.models:squeezenet1_1", "--epochs", "1", "--coefficient", "0"]
    assert main(["train", *TINY[:6], *TINY[8:], *arguments, "--out", str(tmp_path / "run")]) == 0


def command(folder):
    return [sys.executable, "-m", "cnn_reg", "train", *TINY, "--epochs", "4", "--coefficient", "1", "--out", str(folder), "--resume"]


@pytest.mark.slow
def test_killed_at_any_time_it_resumes_to_the_same_bits(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "whole"), check=True, cwd=ROOT, env=environment, capture_output=True, timeout=300)
    killed = tmp_path / "killed"
    for lines, number in ((1, signal.SIGKILL), (2, signal.SIGTERM), (3, signal.SIGKILL)):
        process = subprocess.Popen(command(killed), cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        metrics = killed / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= lines):
            time.sleep(0.01)
        process.send_signal(number)
        shown = process.communicate(timeout=120)[0]
        assert process.returncode in (-number, 128 + number, 0)
        if process.returncode == 128 + number:
            assert "The same command with --resume continues." in shown
    subprocess.run(command(killed), check=True, cwd=ROOT, env=environment, capture_output=True, timeout=300)
    assert records(killed) == records(tmp_path / "whole")
    assert same_weights(killed, tmp_path / "whole")


def test_a_checkpoint_that_is_none_is_one_line(tmp_path, capsys):
    arguments = ["train", *TINY, "--epochs", "1", "--out", str(tmp_path / "run"), "--resume"]
    assert main(arguments) == 0
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"cos\nsystem\n")
    capsys.readouterr()
    assert main(arguments) == 2
    assert "checkpoint.safetensors is no file of tensornet, or truncated" in capsys.readouterr().err
    assert Run(tmp_path / "run", read_json(tmp_path / "run" / "config.json"), resume=True).records()
