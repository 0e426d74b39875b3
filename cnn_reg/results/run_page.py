"""The page of a single run: configuration, curves, test images with predictions, locality."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from cnn_reg.config import Config, as_dict, preset
from cnn_reg.figures import curve_panels, locality_panels
from cnn_reg.locality_profile import locality_profile
from cnn_reg.results.pages import Image, panel_image, pixel_image, render
from cnn_reg.results.predictions import Sample, sample_predictions
from cnn_reg.results.records import Record, read_run
from cnn_reg.results.tables import Table
from cnn_reg.results.wording import AXES, duration, percent, plain, task_of, words
from cnn_reg.sweeps.jobs import IMAGES
from cnn_reg.tasks import make_task
from cnn_reg.trained import load_network

MEASURED = 32  # test images on which locality is measured
CURVES = ("accuracy by epoch", "loss by epoch, on a logarithmic scale", "absolute cosine by epoch")
LOCALITY = ("absolute cosine by the distance of the patches", "singular values of the outputs", "effective receptive field")


def run_page(folder: str | os.PathLike[str], *, data: Path | None = None, device: torch.device | str = "cpu") -> str:
    """The page of the run in a folder; what cannot be shown, such as the images of an absent data set, is named in it.

    Args:
        folder: The run's folder.
        data: Where CIFAR10 lies or is downloaded to.
        device: Where to compute.

    Raises:
        ValueError: The configuration of the run cannot be read.

    Example:
        >>> import tempfile
        >>> from tensornet.files.runs import Run
        >>> run = Run(tempfile.mkdtemp(), {**as_dict(Config(seed=3)), "version": "0.1.0"})
        >>> "seed 3" in run_page(run.folder)
        True
    """
    record = read_run(folder)
    if record.config is None:
        raise ValueError(record.reason)
    config = record.config
    values, configuration = as_dict(config), _configuration(config)
    axis = next(name for name in AXES if name in values)
    return render(
        "run.html",
        title=f"{task_of(config)}: {words((name, values[name]) for name in (axis, 'coefficient', 'seed'))}",
        folder=record.folder.resolve().name,
        facts=_facts(record, config),
        reason=record.reason,
        meaning=": the circles are connected" if config.dataset == "pathfinder" else ": both pictures are of one class",
        notes=["The pictures are a stand-in of CIFAR10."] if config.dataset == "same-class" and config.source != "cifar10" else [],
        curves=[panel_image(*pair) for pair in zip(curve_panels(record.epoch_records, record.distance_accuracy), CURVES)]
        if record.epoch_records
        else [],
        changed=Table(configuration.columns, tuple(row for row in configuration.rows if row[-1])),
        configuration=configuration,
        epochs=_epochs(record),
        **_network_parts(record.folder, data, device),
    )


def _facts(record: Record, config: Config) -> list[tuple[str, str]]:
    facts = [
        ("state", record.state),
        ("test accuracy", percent(record.test_accuracy) or "-"),
        ("training accuracy", percent(record.train_accuracy) or "-"),
        ("distance alone", percent(record.distance_accuracy)),
        ("epochs", f"{record.epochs} of {config.epochs}"),
        ("time of the steps", duration(record.seconds)),
        ("device", record.device),
        ("version", record.version),
    ]
    return [(name, value) for name, value in facts if value]


def _configuration(config: Config) -> Table:
    values = as_dict(config)
    paper = as_dict(preset("paper", dataset=config.dataset, model=config.model))
    rows = tuple((name.replace("_", " "), plain(value), "" if value == paper[name] else str(paper[name])) for name, value in values.items())
    return Table(("field", "value", "in the paper's recipe, where it differs"), rows)


def _epochs(record: Record) -> Table:
    names = list(dict.fromkeys(name for epoch in record.epoch_records for name, value in epoch.items() if not isinstance(value, list)))
    rows = tuple(tuple(_cell(epoch.get(name)) for name in names) for epoch in record.epoch_records)
    return Table(tuple(name.replace("_", " ") for name in names), rows)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else plain(value)


def _network_parts(folder: Path, data: Path | None, device: torch.device | str) -> dict[str, Any]:
    """Test images with predictions and pictures of locality, or why there are none."""
    nothing: dict[str, Any] = {"right": [], "wrong": [], "refusal": "", "locality": [], "measured": 0, "unmeasured": ""}
    try:
        config, network = load_network(folder)
        cache = Path(folder).parent / IMAGES  # of the sweep that the run may be of
        images = make_task(config, data, device, cache=cache if cache.is_dir() else None).test
    except (ValueError, OSError) as error:
        return {**nothing, "refusal": plain(error)}
    right, wrong = sample_predictions(network.to(device), images)
    found = {**nothing, "right": [_sample(sample) for sample in right], "wrong": [_sample(sample) for sample in wrong]}
    chosen = images.batch(torch.arange(min(MEASURED, len(images))))
    try:
        profile = locality_profile(words([("coefficient", config.coefficient), ("seed", config.seed)]), network, chosen)
    except ValueError as error:  # images that are too few or too small, or a network without convolutions
        return {**found, "unmeasured": plain(error)}
    return {**found, "measured": len(chosen), "locality": [panel_image(*pair) for pair in zip(locality_panels([profile]), LOCALITY)]}


def _sample(sample: Sample) -> Image:
    text = f"label {sample.label}, network {sample.probability:.2f}"
    return pixel_image(sample.picture, f"test image {sample.number}, {text}", text)
