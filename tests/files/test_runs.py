"""Folders of runs: what is written survives, what is resumed goes on as if nothing had happened."""

from __future__ import annotations

import pytest
import torch

from tensornet.files import runs
from tensornet.files.runs import Run
from tensornet.files.storage import read_json, write_nested
from tensornet.optim import GroupRMSprop

CONFIG = {"seed": 0, "sizes": (2, 3), "lr": 0.1, "name": None}


def test_a_run_holds_its_files(tmp_path):
    run = Run(tmp_path / "deep" / "run", CONFIG)
    run.record(step=1, loss=0.5)
    run.record(step=2, loss=float("inf"), note="ü\u2028\n")
    run.checkpoint({"step": 2})
    run.finish(error=0.25)
    assert sorted(path.name for path in run.folder.iterdir()) == ["checkpoint.safetensors", "config.json", "metrics.jsonl", "summary.json"]
    assert read_json(run.folder / "config.json") == {**CONFIG, "sizes": [2, 3]}
    assert run.records() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("inf"), "note": "ü\u2028\n"}]
    assert read_json(run.folder / "summary.json") == {"error": 0.25}
    assert len((run.folder / "metrics.jsonl").read_text().split("\n")) == 3


def test_a_folder_without_a_run_may_hold_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert Run(tmp_path, CONFIG, resume=True).restore() is None
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_is_not_overwritten(tmp_path):
    Run(tmp_path, CONFIG).record(step=1)
    with pytest.raises(ValueError, match=r"holds a run already; resume it \(--resume\), or give another folder"):
        Run(tmp_path, CONFIG)
    assert Run(tmp_path, CONFIG, resume=True).records() == [{"step": 1}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "has seed = 0, got 1$"),
        ({"sizes": (2, 4)}, r"has sizes = \[2, 3\], got \[2, 4\]$"),
        ({"new": "x"}, "has new = None, got 'x'$"),
        ({"seed": 1, "lr": 0.2}, r"has lr = 0\.1, got 0\.2; seed = 0, got 1$"),
    ],
)
def test_another_configuration_is_refused_with_all_that_differs(tmp_path, change, message):
    Run(tmp_path, CONFIG).record(step=1)
    with pytest.raises(ValueError, match=f"a run is resumed with the configuration it was begun with; .*{message}"):
        Run(tmp_path, {**CONFIG, **change}, resume=True)
    resumed = Run(tmp_path, CONFIG, resume=True)
    assert resumed.records() == [{"step": 1}]
    assert resumed.config == read_json(tmp_path / "config.json")


def test_records_after_the_checkpoint_are_dropped_and_written_again(tmp_path):
    run = Run(tmp_path, CONFIG)
    for step in range(5):
        run.record(step=step)
        if step % 2 == 0:
            run.checkpoint({"step": step})
    run.record(step="lost")
    resumed = Run(tmp_path, CONFIG, resume=True)
    assert resumed.restore() == {"step": 4}
    resumed.record(step=5)
    assert [record["step"] for record in resumed.records()] == [0, 1, 2, 3, 4, 5]


def test_without_a_checkpoint_a_run_begins_anew(tmp_path):
    Run(tmp_path, CONFIG).record(step=0)
    resumed = Run(tmp_path, CONFIG, resume=True)
    assert resumed.restore() is None
    assert resumed.records() == []


@pytest.mark.parametrize("kept", range(1, 12))
def test_a_line_cut_short_by_an_interruption_is_left_out(tmp_path, kept):
    run = Run(tmp_path, CONFIG)
    run.record(step=1)
    run.checkpoint({})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 22}\n'[:kept])
    assert run.records() == [{"step": 1}]
    resumed = Run(tmp_path, CONFIG, resume=True)
    assert resumed.restore() == {}
    resumed.record(step=2)
    assert resumed.records() == [{"step": 1}, {"step": 2}]


def test_a_configuration_with_which_nothing_was_done_gives_way(tmp_path):
    Run(tmp_path, CONFIG)
    Run(tmp_path, {**CONFIG, "seed": 1}).record(step=1)
    assert read_json(tmp_path / "config.json")["seed"] == 1


def test_a_configuration_beside_other_files_stays(tmp_path):
    Run(tmp_path, CONFIG)
    (tmp_path / "piece").write_text("made with it")
    with pytest.raises(ValueError, match="has seed = 0, got 1"):
        Run(tmp_path, {**CONFIG, "seed": 1}, resume=True)


@pytest.mark.parametrize("content", [[], {}, {"records": "x", "state": {}}, {"records": -1, "state": {}}, {"records": 0, "state": None}])
def test_a_foreign_checkpoint_costs_no_records(tmp_path, content):
    Run(tmp_path, CONFIG).record(step=1)
    write_nested(tmp_path / "checkpoint.safetensors", content, kind="checkpoint")
    resumed = Run(tmp_path, CONFIG, resume=True)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is no checkpoint of a run"):
        resumed.restore()
    assert Run(tmp_path, CONFIG, resume=True).records() == [{"step": 1}]


def test_records_stay_until_there_are_new_ones(tmp_path):
    Run(tmp_path, CONFIG).record(step=1)
    before = (tmp_path / "metrics.jsonl").read_text()
    resumed = Run(tmp_path, CONFIG, resume=True)
    assert resumed.restore() is None
    assert (tmp_path / "metrics.jsonl").read_text() == before
    resumed.record(step=2)
    assert resumed.records() == [{"step": 2}]


class Training:
    """Noisy descent, whose course depends on weights, moments and random numbers."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)
        self.weight = torch.nn.Parameter(torch.randn(4, generator=self.generator))
        self.optimizer = GroupRMSprop([self.weight], lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)

    def step(self):
        self.optimizer.zero_grad()
        (self.weight * torch.randn(4, generator=self.generator)).square().sum().backward()
        self.optimizer.step()
        self.scheduler.step()

    def state(self):
        return {
            "weight": self.weight,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": self.generator.get_state(),
        }

    def set(self, state):
        self.weight.data.copy_(state["weight"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["random"])


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path):
    whole = Training()
    for _ in range(10):
        whole.step()
    run, first = Run(tmp_path, CONFIG), Training()
    for step in range(6):
        first.step()
        if step == 3:
            run.checkpoint(first.state())
    state, second = Run(tmp_path, CONFIG, resume=True).restore(), Training()
    assert state is not None
    second.set(state)
    for _ in range(6):
        second.step()
    assert torch.equal(second.weight, whole.weight)


def test_a_checkpoint_that_cannot_be_written_leaves_the_previous_one(tmp_path):
    run = Run(tmp_path, CONFIG)
    run.checkpoint({"step": 1})
    with pytest.raises(TypeError, match="can be written; got object"):
        run.checkpoint({"step": object()})
    assert run.restore() == {"step": 1}
    with pytest.raises(TypeError, match="Tensor is not JSON serializable"):
        run.record(loss=torch.ones(1))
    assert run.records() == []


def test_damaged_and_foreign_checkpoints(tmp_path):
    run, path = Run(tmp_path, CONFIG), tmp_path / runs.CHECKPOINT
    run.record(step=1)
    run.checkpoint({"weights": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is no file of tensornet, or truncated"):
        run.restore()
    write_nested(path, {}, kind="HTF")
    with pytest.raises(
        ValueError, match=r"checkpoint\.safetensors holds a HTF; a checkpoint is needed; without this file the run begins anew"
    ):
        run.restore()
    assert run.records() == [{"step": 1}]


def test_bad_folders_and_configurations(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"a run needs a folder; .*file is a file"):
        Run(tmp_path / "file", CONFIG)
    with pytest.raises(OSError, match="file"):
        Run(tmp_path / "file" / "below", CONFIG)
    with pytest.raises(TypeError, match="Tensor is not JSON serializable"):
        Run(tmp_path / "new", {"a": torch.ones(1)})
    assert not (tmp_path / "new").exists()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON file"):
        Run(tmp_path, CONFIG, resume=True)
    (tmp_path / "config.json").write_text('{"of": "another program"}')
    with pytest.raises(ValueError, match="holds a run already"):
        Run(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"has lr = None, got 0\.1"):
        Run(tmp_path, CONFIG, resume=True)
