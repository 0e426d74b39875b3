from __future__ import annotations

import json
import os
import random

import pytest
from filelock import FileLock
from run_cases import made_run

from cnn_reg.config import Config
from cnn_reg.results.records import FAILURE, finished, read_run, read_runs
from cnn_reg.sweeps.jobs import LOCK
from tensornet import __version__
from tensornet.files.runs import Run
from tensornet.files.storage import write_json

REASON = "RuntimeError: CUDA out of memory"


def test_a_finished_run(tmp_path):
    config = Config(path_length=9, seed=3)
    record = read_run(made_run(tmp_path, config, 0.8125).folder)
    assert (record.state, record.reason, record.config, record.epochs) == ("finished", "", config, 3)
    assert (record.test_accuracy, record.train_accuracy, record.seconds) == (0.8125, 0.95, 150.0)
    assert (record.distance_accuracy, record.device) == (0.83, "cpu, 1 threads")
    assert [epoch["epoch"] for epoch in record.epoch_records] == [1, 2, 3]


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    run = made_run(tmp_path, Config(), 0.75, epochs=2, finished=False)
    os.utime(run.folder / "config.json", (5, 5))
    os.utime(run.folder / "metrics.jsonl", (60, 60))
    record = read_run(tmp_path)
    assert (record.state, record.epochs, record.seconds, record.test_accuracy) == ("unfinished", 2, 100.0, 0.75)
    assert record.written == 60


def test_a_run_that_a_sweep_is_doing(tmp_path):
    made_run(tmp_path, Config(), epochs=1, finished=False)
    with FileLock(tmp_path / LOCK):
        assert read_run(tmp_path).state == "running"
    assert read_run(tmp_path).state == "unfinished"


def test_a_run_that_has_no_epoch_yet(tmp_path):
    record = read_run(made_run(tmp_path, Config(), epochs=0, finished=False).folder)
    assert (record.state, record.epochs, record.test_accuracy, record.seconds) == ("unfinished", 0, None, None)


def test_a_failed_run_says_why_in_one_line(tmp_path):
    made_run(tmp_path, Config(), epochs=1, finished=False)
    write_json(tmp_path / FAILURE, {"reason": f"{REASON}\nmore", "time": "2026-11-25T14:00:00+00:00"})
    record = read_run(tmp_path)
    assert (record.state, record.reason, record.epochs) == ("failed", f"{REASON} more", 1)


def test_reasons_cannot_steer_a_terminal(tmp_path):
    (tmp_path / FAILURE).write_text('{"reason": "\\u001b[2J gone \\ud800\\u0007"}')
    assert read_run(tmp_path).reason == "\ufffd[2J gone \ufffd\ufffd"


def test_a_run_that_failed_before_it_began(tmp_path):
    write_json(tmp_path / FAILURE, {"reason": REASON})
    assert [(record.state, record.reason, record.config) for record in read_runs(tmp_path)] == [("failed", REASON, None)]


def test_a_finished_run_is_finished_whatever_failed_before(tmp_path):
    made_run(tmp_path, Config())
    write_json(tmp_path / FAILURE, {"reason": REASON})
    assert read_run(tmp_path).state == "finished"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("config.json", '{"data', "is no JSON file"),
        ("config.json", '{"mode_sizes": [4, 4], "seed": 0}', "is no configuration of a training by cnn-reg"),
        ("config.json", '{"version": "9.9", "colour": "red"}', "unknown field 'colour' (version '9.9')"),
        ("summary.json", '{"test_acc', "is no JSON file"),
        ("summary.json", "[]", "is damaged"),
        ("summary.json", '{"test_accuracy": "good", "train_accuracy": 1.0}', "holds no accuracies"),
        ("summary.json", '{"test_accuracy": 81.2, "train_accuracy": 1.0}', "holds no accuracies"),
        ("summary.json", '{"test_accuracy": NaN, "train_accuracy": 1.0}', "holds no accuracies"),
        ("failure.json", "[1, 2]", "is damaged"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, text, reason):
    made_run(tmp_path / "good", Config())
    made_run(tmp_path / "bad", Config(seed=1))
    (tmp_path / "bad" / name).write_text(text)
    bad, good = read_runs(tmp_path)
    assert (bad.state, good.state) == ("unreadable", "finished")
    assert reason in bad.reason
    assert "\n" not in bad.reason


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    made_run(tmp_path, Config(), finished=False)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert (read_run(tmp_path).state, read_run(tmp_path).epochs) == ("unfinished", 2)


def test_lines_of_another_kind_are_left_out(tmp_path):
    run = made_run(tmp_path, Config(), epochs=1, finished=False)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('7\n{"step": 3}\n{"epoch": "two"}\n')
        file.write(json.dumps({"epoch": 2, "test_accuracy": "high", "seconds": 10**400, "cosine_quantiles": ["a"], "loss": True}) + "\n")
    record = read_run(tmp_path)
    assert (record.epochs, record.test_accuracy, record.seconds) == (2, None, 50.0)
    assert record.epoch_records[-1] == {"epoch": 2}


def test_no_damage_makes_reading_fail(tmp_path):
    """Files cut anywhere, and with any byte another, give a record each."""
    draw = random.Random(0)
    made_run(tmp_path, Config(), finished=True)
    write_json(tmp_path / FAILURE, {"reason": REASON})
    states = set()
    for _ in range(300):
        path = tmp_path / draw.choice(("config.json", "metrics.jsonl", "summary.json", FAILURE))
        before = path.read_bytes()
        damaged = bytearray(before[: draw.randrange(len(before))] if draw.random() < 0.5 else before)
        for _ in range(draw.randrange(3)):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(bytes(damaged))
        (record,) = read_runs(tmp_path)
        states.add(record.state)
        assert "\n" not in record.reason
        assert bool(record.reason) == (record.state != "finished")
        path.write_bytes(before)
    assert {"finished", "unreadable"} <= states


def test_runs_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path):
    for name in ("b/deep/er", "a", "c"):
        made_run(tmp_path / name, Config())
    assert [record.folder.name for record in read_runs(tmp_path)] == ["a", "er", "c"]


def test_a_folder_is_needed(tmp_path):
    with pytest.raises(ValueError, match=r"runs are looked for in a folder; .*absent is none"):
        read_runs(tmp_path / "absent")


def test_of_copies_the_newest_of_this_version_counts(tmp_path):
    for age, (name, accuracy, version) in enumerate(
        [("c0", 0.3, "0.0.9"), ("b", 0.5, __version__), ("c1", 0.7, __version__), ("a", 0.75, __version__)]
    ):
        folder = made_run(tmp_path / name, Config(), accuracy, version=version).folder
        for path in folder.iterdir():
            os.utime(path, (1e9 - age, 1e9 - age))
    made_run(tmp_path / "c", Config(seed=1), 0.25)
    Run(tmp_path / "d", {"seed": 0})
    assert [(config.seed, record.test_accuracy) for config, record in finished(read_runs(tmp_path))] == [(0, 0.5), (1, 0.25)]
    for age, accuracy in enumerate((0.25, 0.375)):  # neither of this version
        folder = made_run(tmp_path / f"e{age}", Config(seed=2), accuracy, version="0.0.9").folder
        for path in folder.iterdir():
            os.utime(path, (1e9 + age, 1e9 + age))
    assert finished(read_runs(tmp_path))[-1][1].test_accuracy == 0.375


def test_lines_that_are_damaged_end_the_records(tmp_path):
    run = made_run(tmp_path / "a", Config(), finished=False, epochs=2)
    path = run.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"epoch": \xff}\n')
    assert read_runs(tmp_path)[0].epochs == 2
    path.write_text('{"epoch": [1]}\n')
    assert (read_runs(tmp_path)[0].state, read_runs(tmp_path)[0].epochs) == ("unfinished", 0)
