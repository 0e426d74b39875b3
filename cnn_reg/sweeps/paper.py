"""The sweeps of Figures 6, 11, 12 and 13 as plain data, in three sizes.

``full`` is what was published. ``medium`` is meant for one GPU within about an hour, ``small`` for two cores within a night: fewer and
smaller images, fewer channels, fewer seeds, the same code. Where CIFAR10 is replaced by a stand-in, the note says so.
"""

from __future__ import annotations

from typing import Any

SCALES = ("full", "medium", "small")
DATASETS = ("same-class", "pathfinder")
NAMES = tuple(f"fig{figure}-{dataset}" for figure in (6, 11, 12, 13) for dataset in DATASETS)

_COEFFICIENTS = {"same-class": [0.0, 0.1, 1.0], "pathfinder": [0.0, 3.0, 9.0]}  # in the figures' legends
_DISTANCES = [0, 40, 80, 120, 160]
_LENGTHS = {"resnet18": [3, 5, 7, 9], "resnet34": [3, 5, 7, 9, 11]}
_TRIALS = {"full": 20, "medium": 8, "small": 4}  # of the search, for each of four variants

# Where a size differs from the preset "paper" (full) or "study" (small).
_MEDIUM = {
    "pathfinder": {"test_images": 2000, "image_size": 100, "width": 0.5, "epochs": 40},
    "same-class": {"test_images": 2000, "image_size": 112, "width": 0.5, "epochs": 40},
}
_FAST = {"channels_last": True, "tf32": True}
_SEEDS = {"full": 5, "medium": 3, "small": 3}
_SMALL = {  # epochs and seeds that two cores can do in a night
    ("resnet18", "pathfinder"): (40, 3),
    ("resnet34", "pathfinder"): (40, 1),
    ("resnet18", "same-class"): (15, 3),
    ("resnet34", "same-class"): (15, 2),
}


def description(name: str, scale: str) -> dict[str, Any]:
    """A sweep of the paper, as a file of one's own would describe it.

    Weight decay, dropout and the coefficients that go with them are not known from the paper, whose Table 1 was tuned on the largest
    distance: 160 pixels, path length 9 for ResNet18 and 11 for ResNet34. They are searched for there, on images of another seed than the
    figure's.

    Args:
        name: One of ``NAMES``.
        scale: One of ``SCALES``.

    Example:
        >>> description("fig6-pathfinder", "full")["axes"]
        {'seed': [0, 1, 2, 3, 4], 'path_length': [3, 5, 7, 9], 'coefficient': [0.0, 3.0, 9.0]}
    """
    figure, _, dataset = name.partition("-")
    model = "resnet18" if figure in ("fig6", "fig12") else "resnet34"
    base, seeds = _base(dataset, model, scale)
    place = {"path_length": _LENGTHS[model]} if dataset == "pathfinder" else {"distance": _DISTANCES}
    axes: dict[str, list[Any]] = {"seed": list(range(seeds)), **place}
    found: dict[str, Any] = {"name": name, "preset": "study" if scale == "small" else "paper", "base": base, "axes": axes}
    if base.get("source") == "digits":
        found["note"] = "digits, not CIFAR10"
    if figure in ("fig6", "fig11"):
        axes["coefficient"] = _COEFFICIENTS[dataset]
    else:
        found["variants"] = _standard_techniques(dataset)
        found["search"] = {"trials": _TRIALS[scale], "at": {**{name: values[-1] for name, values in place.items()}, "data_seed": 1}}
    return found


def _base(dataset: str, model: str, scale: str) -> tuple[dict[str, Any], int]:
    base: dict[str, Any] = {"dataset": dataset, "model": model}
    if scale == "medium":
        base |= _MEDIUM[dataset] | _FAST
    if scale == "small":
        base["epochs"], seeds = _SMALL[model, dataset]
        return base | ({"source": "digits"} if dataset == "same-class" else {}), seeds
    return base, _SEEDS[scale]


def _standard_techniques(dataset: str) -> list[dict[str, Any]]:
    """Weight decay or dropout, each alone and with the penalty."""
    decay = {"weight_decay": {"low": 1e-5, "high": 1e-1, "start": 1e-3}}
    dropout = {"dropout": {"low": 0.05, "high": 0.7, "start": 0.3, "log": False}}
    low, _, high = {"same-class": (0.1, None, 3.0), "pathfinder": (1.0, None, 10.0)}[dataset]
    penalty = {"coefficient": {"low": low, "high": high, "start": _COEFFICIENTS[dataset][-1]}}
    return [
        {"name": "weight decay", "coefficient": 0.0, **decay},
        {"name": "dropout", "coefficient": 0.0, **dropout},
        {"name": "weight decay and penalty", **penalty, **decay},
        {"name": "dropout and penalty", **penalty, **dropout},
    ]
