from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from sweep_cases import TINY, epochs_of, grid_file, make_jobs, results

from cnn_reg.cli import main, sweep
from cnn_reg.cli.sweep import places
from cnn_reg.results.named import folder_charts
from cnn_reg.results.records import read_runs
from cnn_reg.sweeps.executors import in_process
from cnn_reg.sweeps.jobs import Place, State, state_of
from tensornet.files.storage import read_json

ROOT = Path(__file__).parents[2]


def here(grid, out, *more):
    """Arguments of a sweep in this process."""
    return ["sweep", str(grid), "--out", str(out), "--workers", "1", "--device", "cpu", *more]


def start(grid, out, *more):
    """A sweep in a session of its own."""
    command = [sys.executable, "-m", "cnn_reg", "sweep", str(grid), "--out", str(out), "--device", "cpu", *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_a_sweep_from_the_dry_run_to_the_end(tmp_path, capsys):
    grid, out = grid_file(tmp_path / "grid.toml", seeds=2, epochs=1), tmp_path / "out"
    assert main(here(grid, out, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("tiny (own): 2 runs, 2 waiting\n")
    assert "how long that takes is told once a run is done" in shown
    assert not out.exists()
    assert main(here(grid, out)) == 0
    shown = capsys.readouterr().out
    assert shown.count("\ndone: ") + shown.startswith("done: ") == 2
    assert "tiny (own): 2 runs, 2 done, after 0:" in shown
    assert main(here(grid, out, "--dry-run", "--set", "seed=0,1,2")) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("tiny (own): 3 runs, 2 done, 1 waiting\n")
    assert re.search(
        r"Left: \S+ x 10\^15 operations at most; about \d:\d\d:\d\d one after the other, at the speed of the 2 runs done\.", shown
    )
    assert main(here(grid, out)) == 0
    assert "done: " not in capsys.readouterr().out  # nothing is done twice
    assert [run["fields"]["seed"] for run in read_json(out / "sweep.json")["runs"]] == [0, 1]


def test_the_dry_run_of_a_figure_lists_what_differs(tmp_path, capsys):
    assert main(["sweep", "fig12-same-class", "--scale", "small", "--out", str(tmp_path / "out"), "--dry-run", "--set", "seed=0"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("fig12-same-class (small; digits, not CIFAR10): 12 runs, 12 waiting\n")
    assert "Before, 4 runs for each of weight decay (weight_decay), dropout (dropout), weight decay and penalty (coefficient" in shown
    assert "at distance 160, data_seed 1: 0." in shown
    header = next(line for line in shown.splitlines() if line.startswith("state"))
    assert header.split()[:6] == ["state", "variant", "distance", "dropout", "coefficient", "weight_decay"]


def test_a_figure_s_sweep_ends_with_the_command_of_the_figure(tmp_path, capsys):
    fields = {**TINY, "seed": 0, "coefficient": "0,3", "epochs": 1}
    changes = [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]
    out = tmp_path / "out"
    assert main(here("fig6-pathfinder", out, "--scale", "small", *changes)) == 0
    shown = capsys.readouterr().out
    assert "fig6-pathfinder (small): 2 runs, 2 done, after 0:" in shown
    assert shown.endswith(f"The figure: cnn-reg figure fig6-pathfinder --runs {out} --out {out}/fig6-pathfinder.png\n")


def test_failures_are_told_and_the_exit_code_says_so(tmp_path, capsys):
    grid, out = grid_file(tmp_path / "grid.toml", seeds=1, epochs=1, learning_rate=1e30), tmp_path / "out"
    assert main(here(grid, out)) == 1
    shown = capsys.readouterr().out
    assert re.search(r"failed: pathfinder-3-resnet18-coefficient-0-seed-0-\w+: DivergedError: the training loss of epoch 1 is nan", shown)
    assert "1 run, 1 failed" in shown
    assert "The same command tries failed runs again; their failure.json holds the reasons." in shown
    assert main(here(grid, out, "--dry-run")) == 0
    assert "DivergedError" in capsys.readouterr().out


def test_a_search_chooses_what_the_grid_leaves_open(tmp_path, capsys):
    path = grid_file(tmp_path / "grid.toml", seeds=2, epochs=1)
    text = (
        '[[variants]]\nname = "decay"\nweight_decay = {low = 1e-4, high = 1e-1, start = 1e-3}\n[search]\ntrials = 3\nat = {data_seed = 1}\n'
    )
    path.write_text(path.read_text() + text)
    assert main(here(path, tmp_path / "out")) == 0
    assert capsys.readouterr().out.count("done: ") == 5
    listing = read_json(tmp_path / "out" / "sweep.json")
    trials = [run["fields"]["weight_decay"] for run in listing["trials"]]
    scores = [read_json(tmp_path / "out" / run["folder"] / "summary.json")["test_accuracy"] for run in listing["trials"]]
    assert len(set(trials)) == 3
    assert trials[0] == 1e-3
    assert listing["chosen"] == {"decay": {"weight_decay": trials[scores.index(max(scores))]}}
    assert [run["fields"]["weight_decay"] for run in listing["runs"]] == [listing["chosen"]["decay"]["weight_decay"]] * 2
    assert main(here(path, tmp_path / "out")) == 0
    assert "done: " not in capsys.readouterr().out
    assert read_json(tmp_path / "out" / "sweep.json") == listing
    assert main(here(path, tmp_path / "out", "--dry-run")) == 0  # which knows what was chosen
    shown = capsys.readouterr().out
    assert shown.startswith("tiny (own): 2 runs, 2 done\n")
    assert "Before, " not in shown


def test_the_listing_tells_of_a_search_that_goes_on(tmp_path, capsys, monkeypatch):
    path, out = grid_file(tmp_path / "grid.toml", seeds=1, epochs=1), tmp_path / "out"
    path.write_text(path.read_text() + '[[variants]]\nname = "decay"\nweight_decay = {low = 1e-4, high = 1e-1, start = 1e-3}\n')
    path.write_text(path.read_text() + "[search]\ntrials = 5\nat = {data_seed = 1}\n")
    do, calls = sweep.run_jobs, []

    def run_jobs(jobs, *arguments, **options):
        calls.append(jobs)
        return do(jobs, *arguments, **options) if len(calls) == 1 else {}  # interrupted before the second part

    monkeypatch.setattr(sweep, "run_jobs", run_jobs)
    assert main(here(path, out)) == 1
    listing = read_json(out / "sweep.json")
    assert (len(listing["trials"]), listing["runs"], listing["chosen"]) == (5, [], {})
    assert folder_charts(out, read_runs(out)) == []


def test_runs_are_done_in_a_process_of_their_own_unless_one_worker_is_asked_for(tmp_path, monkeypatch):
    grid, used = grid_file(tmp_path / "grid.toml", seeds=1, epochs=1), []

    @contextlib.contextmanager
    def processes(places):
        used.append(places)
        yield in_process(places[0])

    monkeypatch.setattr(sweep, "local_processes", processes)
    monkeypatch.setattr(sweep, "_cores", lambda: 1)
    assert main(here(grid, tmp_path / "a")) == 0
    assert used == []
    assert main(["sweep", str(grid), "--out", str(tmp_path / "b"), "--device", "cpu"]) == 0
    assert used == [[Place("cpu", 1)]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig6-pathfinder", "--set", "model=run_cases:without_convolutions", "--set", "width=0.5"], "dropout and width are of resnet18"),
        (["fig6-pathfindr"], "unknown sweep 'fig6-pathfindr' (did you mean fig6-pathfinder?)"),
        (["fig6-pathfinder", "--scale", "smal"], "unknown scale 'smal' (did you mean small?)"),
        (["fig6-pathfinder", "--set", "epoch=3"], "unknown field 'epoch' (did you mean epochs?)"),
        (["fig6-pathfinder", "--set", "path_length=2"], "path_length must be from 3 to 20; got 2"),
        (["none.toml"], "none.toml: No such file or directory"),
        (["none.toml", "--scale", "small"], "--scale is for the paper's figures; none.toml describes one size"),
        (["fig6-pathfinder", "--device", "cuda:99"], "no device 'cuda:99' here; there are cpu"),
        (["fig6-pathfinder", "--device", "cpu", "--per-device", "2"], "--per-device is for GPUs"),
        (["fig6-pathfinder", "--ray", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        (["fig6-pathfinder", "--ray", "auto", "--workers", "2"], "--workers is for this machine"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments, "--out", "out"]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert message in shown.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_sweep_is_refused(tmp_path, capsys):
    assert main(here(grid_file(tmp_path / "grid.toml", seeds=1, epochs=1), tmp_path / "out")) == 0
    capsys.readouterr()
    assert main(here("fig6-pathfinder", tmp_path / "out")) == 2
    assert "has tiny (own), got fig6-pathfinder (full)" in capsys.readouterr().err


def test_places_on_the_processor():
    assert places("cpu", workers=3, threads=2) == [Place("cpu", 2)] * 3
    assert len({place.threads for place in places("cpu")}) == 1
    assert all(place.threads >= 1 for place in places("cpu", workers=1000))


def test_places_on_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [place.device for place in places("auto", per_device=2)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [place.device for place in places("cuda:1", per_device=2)] == ["cuda:1", "cuda:1"]
    assert [place.device for place in places("cuda", workers=1)] == ["cuda:0"]
    with pytest.raises(ValueError, match="5 workers on 2 GPUs need --per-device 3"):
        places("cuda", workers=5)
    with pytest.raises(ValueError, match="no device 'cuda:2' here; there are cpu, cuda:0, cuda:1"):
        places("cuda:2")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_leaves_everything_so_that_the_same_command_goes_on(number, workers, tmp_path):
    grid, out = grid_file(tmp_path / "grid.toml", seeds=2, epochs=1000), tmp_path / "out"
    jobs = make_jobs(out, seeds=2, epochs=1000)
    sweep = start(grid, out, "--workers", workers)
    while not epochs_of(jobs[0].folder):
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.02)
    os.killpg(sweep.pid, number) if number == signal.SIGINT else sweep.send_signal(number)  # as a terminal does, and as kill does
    shown, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 128 + number
    assert "Not all is done; the same command goes on." in shown
    assert "Traceback" not in shown + errors
    assert state_of(jobs[0].folder) is State.INTERRUPTED
    assert (jobs[0].folder / "checkpoint.safetensors").exists()
    assert not list(out.glob(".stop-*"))


@pytest.mark.slow
def test_killed_at_random_and_started_again_it_ends_in_the_same_table(tmp_path):
    """SIGKILL to all processes of a sweep at random moments, from the imports to the last run."""
    seeds, epochs, draw = 3, 4, random.Random(5)
    grid, out = grid_file(tmp_path / "grid.toml", seeds=seeds, epochs=epochs, coefficient=1.0, dropout=0.3), tmp_path / "out"
    jobs = make_jobs(out, seeds=seeds, epochs=epochs, coefficient=1.0, dropout=0.3)
    states, kills = [], 0
    while kills < 3:
        sweep = start(grid, out, "--workers", "2", "--threads", "1")
        before = sum(epochs_of(job.folder) for job in jobs)
        while sum(epochs_of(job.folder) for job in jobs) < before + 1 and sweep.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.6))
        if sweep.poll() is not None:
            break
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.communicate()
        kills += 1
        states.append([state_of(job.folder) for job in jobs])
    assert kills >= 2, "it was done before it was killed"
    assert any(State.INTERRUPTED in known for known in states)
    sweep = start(grid, out, "--workers", "2", "--threads", "1")
    shown, errors = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, shown + errors
    alone = make_jobs(tmp_path / "alone", seeds=seeds, epochs=epochs, coefficient=1.0, dropout=0.3)
    list(in_process(Place("cpu", 1))(alone, lambda: False))
    assert results(jobs, out) == results(alone, tmp_path / "alone")


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_disk_that_takes_no_more_is_a_failure_of_the_run_and_not_of_the_sweep(tmp_path):
    grid, out = grid_file(tmp_path / "grid.toml", seeds=2, epochs=1), tmp_path / "out"
    words = [sys.executable, "-m", "cnn_reg", *here(grid, out)]
    script = f"ulimit -f 100; exec {' '.join(words)}"  # files of 100 KB at most, fewer than a checkpoint has
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("failed: ") == 2
    assert "File too large" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert all("File too large" in json.loads(path.read_text())["reason"] for path in out.glob("*/failure.json"))
    assert main(here(grid, out)) == 0
