from __future__ import annotations

import re
import threading

import pytest
from filelock import FileLock
from sweep_cases import make_grid, make_jobs

from cnn_reg.config import as_dict, run_id
from cnn_reg.sweeps.executors import in_process
from cnn_reg.sweeps.grid import Grid, Range, Search, Variant
from cnn_reg.sweeps.grids import named_grid
from cnn_reg.sweeps.jobs import LOCK, Job, Outcome, Place, State
from cnn_reg.sweeps.search import trial_config
from cnn_reg.sweeps.sweep import check_folder, run_jobs, states, with_chosen, write_listing
from tensornet import __version__
from tensornet.files.runs import Run
from tensornet.files.storage import read_json, write_json


def test_the_listing_is_what_reports_start_from(tmp_path):
    grid = named_grid("fig12-same-class", "small")
    write_listing(tmp_path, grid, grid.labelled())
    found = read_json(tmp_path / "sweep.json")
    assert {name: found[name] for name in ("name", "scale", "note", "version")} == {
        "name": "fig12-same-class",
        "scale": "small",
        "note": "digits, not CIFAR10",
        "version": __version__,
    }
    for run, (variant, config) in zip(found["runs"], grid.labelled(), strict=True):
        assert run["id"] == run_id(config, __version__)
        assert run["folder"].endswith(run["id"])
        assert (run["variant"], run["fields"]) == (variant, as_dict(config))


def test_a_folder_holds_one_sweep(tmp_path):
    check_folder(tmp_path / "none", make_grid())
    write_listing(tmp_path, make_grid(), make_grid().labelled())
    check_folder(tmp_path, make_grid(seeds=5))  # more of the same
    with pytest.raises(ValueError, match=re.escape(f"a folder holds one sweep; {tmp_path} has tiny (own), got other (own)")):
        check_folder(tmp_path, Grid("other"))
    write_json(tmp_path / "sweep.json", [])
    with pytest.raises(ValueError, match="has something else, got tiny"):
        check_folder(tmp_path, make_grid())
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep.json is no JSON file"):
        check_folder(tmp_path, make_grid())
    with pytest.raises(ValueError, match=r"a sweep needs a folder; .*sweep.json is a file"):
        check_folder(tmp_path / "sweep.json", make_grid())


def test_what_is_done_is_not_asked_for_again(tmp_path):
    jobs = make_jobs(tmp_path, seeds=3, epochs=1)
    assert run_jobs(jobs[:2], in_process(Place()))[jobs[1]].state is State.DONE
    asked = []

    def execute(left, stopping):
        asked.extend(left)
        yield from in_process(Place())(left, stopping)

    told = []
    found = run_jobs(jobs, execute, on_outcome=told.append)
    assert asked == jobs[2:]
    assert [outcome.job for outcome in told] == jobs[2:]
    assert {job: outcome.state for job, outcome in found.items()} == dict.fromkeys(jobs, State.DONE)
    assert set(states(jobs).values()) == {State.DONE}


def test_failures_leave_the_others_alone_and_are_tried_again(tmp_path):
    bad, good = make_jobs(tmp_path, seeds=1, epochs=1, learning_rate=1e30)[0], make_jobs(tmp_path, seeds=1, epochs=1)[0]
    found = run_jobs([bad, good], in_process(Place()))
    assert [found[job].state for job in (bad, good)] == [State.FAILED, State.DONE]
    told = []
    run_jobs([bad, good], in_process(Place()), on_outcome=told.append)
    assert [(outcome.job, outcome.state) for outcome in told] == [(bad, State.FAILED)]


def test_a_run_of_another_process_is_waited_for_and_taken_over(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1, epochs=1)
    job.folder.mkdir(parents=True)
    lock = FileLock(job.folder / LOCK, thread_local=False)
    lock.acquire()
    free = threading.Timer(1.5, lock.release)
    free.start()
    told = []
    found = run_jobs([job], in_process(Place()), on_outcome=told.append)
    free.join()
    assert found[job].state is State.DONE
    assert [outcome.state for outcome in told] == [State.DONE]


def test_two_sweeps_at_once_do_every_run_once(tmp_path):
    jobs = make_jobs(tmp_path, seeds=4, epochs=1)
    done: list[list[Outcome]] = [[], []]
    found: list[dict] = [{}, {}]

    def sweep(number):
        def execute(left, stopping):
            for outcome in in_process(Place())(left, stopping):
                done[number].append(outcome)
                yield outcome

        found[number] = run_jobs(jobs if number else jobs[::-1], execute)

    threads = [threading.Thread(target=sweep, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for known in found:
        assert {job: outcome.state for job, outcome in known.items()} == dict.fromkeys(jobs, State.DONE)
    assert all((job.folder / "metrics.jsonl").read_text().count("\n") == 1 for job in jobs)


def test_a_run_whose_process_was_asked_to_end_goes_on(tmp_path):
    (job,) = make_jobs(tmp_path, seeds=1, epochs=1)
    calls, told = [], []

    def execute(left, stopping):
        calls.append(left)
        yield from [Outcome(job, State.INTERRUPTED)] if len(calls) == 1 else in_process(Place())(left, stopping)

    assert run_jobs([job], execute, on_outcome=told.append)[job].state is State.DONE
    assert [outcome.state for outcome in told] == [State.DONE]


def seeds_of(root, part="runs"):
    return [entry["fields"]["seed"] for entry in read_json(root / "sweep.json")[part]]


def test_a_listing_keeps_what_other_calls_have_begun(tmp_path):
    write_listing(tmp_path, make_grid(3), make_grid(3).labelled())
    assert seeds_of(tmp_path) == [0, 1, 2]
    Run(make_jobs(tmp_path, 3)[2].folder, {})
    one = make_grid(1)
    write_listing(tmp_path, one, one.labelled())
    assert seeds_of(tmp_path) == [0, 2]  # nobody has begun 1
    write_listing(tmp_path, make_grid(3), make_grid(3).labelled())
    assert seeds_of(tmp_path) == [0, 1, 2]
    with pytest.raises(ValueError, match="a folder holds one sweep"):
        write_listing(tmp_path, Grid("other"), Grid("other").labelled())


def test_a_listing_of_another_search_is_left_behind(tmp_path):
    def grid(trials):
        variant = Variant("decay", ranges={"weight_decay": Range(1e-4, 1e-1, 1e-3)})
        return Grid("g", axes={"seed": (0, 1)}, variants=(variant, Variant("plain")), search=Search(trials, {"data_seed": 1}))

    first, chosen = grid(3), {"decay": {"weight_decay": 0.01}}
    tuned = first.tuned(chosen)
    trial = ("decay", trial_config(first, first.variants[0], {"weight_decay": 0.01}))
    for config in (*tuned.configs(), trial[1]):
        Run(Job(config, tmp_path).folder, {})
    write_listing(tmp_path, first, tuned.labelled(), [trial], chosen)
    assert with_chosen(tmp_path, first) == tuned
    write_listing(tmp_path, first, [])  # the same search, begun once more
    assert with_chosen(tmp_path, first) == tuned
    assert seeds_of(tmp_path) == [0, 0, 1, 1]
    assert seeds_of(tmp_path, "trials") == [0]
    assert with_chosen(tmp_path, grid(4)) == grid(4)  # more trials may choose another
    other = {"decay": {"weight_decay": 0.05}}
    write_listing(tmp_path, grid(4), [], [], other)
    assert [entry["variant"] for entry in read_json(tmp_path / "sweep.json")["runs"]] == ["plain", "plain"]
    write_json(tmp_path / "sweep.json", {"name": "g", "scale": "own", "runs": [3], "trials": [{"id": 1}]})  # of another program
    assert with_chosen(tmp_path, first) == first
    write_listing(tmp_path, first, [])
    assert seeds_of(tmp_path) == []


def test_a_sweep_that_is_asked_to_stop_begins_nothing(tmp_path):
    jobs = make_jobs(tmp_path, seeds=2)
    assert run_jobs(jobs, in_process(Place()), stopping=lambda: True) == {}
    assert not any(job.folder.exists() for job in jobs)
