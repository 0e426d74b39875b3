"""Sweeps of runs that take a second or two, and what is compared of them."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from cnn_reg.sweeps.grid import Grid
from cnn_reg.sweeps.jobs import Job
from tensornet.files.storage import read_json, read_nested

TINY = {"path_length": 3, "train_images": 24, "test_images": 16, "image_size": 32, "width": 0.125, "batch_size": 8}


def make_grid(seeds: int = 2, epochs: int = 2, **changes: object) -> Grid:
    """A run a seed."""
    base = {**TINY, "epochs": epochs, "coefficient": 0.0, "patience": 0, **changes}
    return Grid("tiny", base=base, axes={"seed": tuple(range(seeds))})


def make_jobs(root: Path, seeds: int = 2, epochs: int = 2, **changes: object) -> list[Job]:
    """The jobs of such a sweep."""
    return [Job(config, root) for config in make_grid(seeds, epochs, **changes).configs()]


def grid_file(path: Path, seeds: int = 2, epochs: int = 2, **changes: object) -> Path:
    """The same sweep as a TOML file."""
    base = dict(make_grid(seeds, epochs, **changes).base)
    lines = ['name = "tiny"', "[base]", *(f"{name} = {json.dumps(value)}" for name, value in base.items())]
    path.write_text("\n".join([*lines, "[axes]", f"seed = {list(range(seeds))}"]) + "\n")
    return path


def epochs_of(folder: Path) -> int:
    """Epochs that are recorded in a run's folder."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def results(jobs: list[Job], root: Path) -> list[dict[str, object]]:
    """What came of each job in a sweep's folder: its records and summary without times, and the last weights."""
    found = []
    for job in jobs:
        folder = root / job.folder.name
        timed = ("seconds", "images_per_second", "training_seconds")
        lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
        model = read_nested(folder / "checkpoint.safetensors", kind="checkpoint")["state"]["model"]
        weights = torch.cat([value.double().flatten() for value in model.values()]).tolist()
        plain = [
            {name: value for name, value in known.items() if name not in timed} for known in [*lines, read_json(folder / "summary.json")]
        ]
        found.append({"folder": folder.name, "table": plain, "weights": weights})
    return found
