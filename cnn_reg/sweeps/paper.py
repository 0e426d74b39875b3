"""The sweeps of Figures 6, 11, 12 and 13 as plain data, in three sizes.

``full`` is what was published. ``medium`` is meant for one GPU within about an hour, ``small`` for two cores within a few hours: fewer and
smaller images, fewer channels, fewer seeds, the same code. ``small`` also has fewer path lengths, distances and coefficients, and takes the
digits of scikit-learn in place of CIFAR10, so that it needs no download.
"""

from __future__ import annotations

from typing import Any

SCALES = ("full", "medium", "small")
DATASETS = ("same-class", "pathfinder")
_FIGURES = ("fig6", "fig11", "fig12", "fig13")
NAMES = tuple(f"{figure}-{dataset}" for figure in _FIGURES for dataset in DATASETS)

_COEFFICIENTS = {"same-class": [0.0, 0.1, 1.0], "pathfinder": [0.0, 3.0, 9.0]}  # in the figures' legends
_DISTANCES = [0, 40, 80, 120, 160]
_LENGTHS = {"resnet18": [3, 5, 7, 9], "resnet34": [3, 5, 7, 9, 11]}

# What a size takes away.
_MEDIUM: dict[str, dict[str, Any]] = {
    "pathfinder": {"test_images": 2000, "image_size": 100, "width": 0.5, "channels_last": True, "tf32": True},
    "same-class": {"test_images": 2000, "image_size": 112, "width": 0.5, "channels_last": True, "tf32": True},
}
_MEDIUM_EPOCHS = {"resnet18": 40, "resnet34": 30}
_SMALL_COEFFICIENTS = {"same-class": [0.0, 1.0], "pathfinder": [0.0, 3.0]}
_SMALL_DISTANCES = [0, 80, 160]
_SMALL_LENGTHS = [3, 5]  # what so few images still teach
_DIGITS = {"source": "digits", "epochs": 15}  # which are learned soon
_SEEDS = {  # by figure: 6, 11, 12, 13
    "full": (5, 5, 5, 5),
    "medium": (3, 2, 2, 2),
    "small": (3, 2, 2, 1),
}
_TRIALS = {"full": (20, 20), "medium": (8, 4), "small": (4, 2)}  # of the search for each of four variants; by figure: 12, 13


def description(name: str, scale: str) -> dict[str, Any]:
    """A sweep of the paper, as a file of one's own would describe it.

    Weight decay, dropout and the coefficients that go with them are not known from the paper, whose Table 1 was tuned on the largest
    distance: 160 pixels, path length 9 for ResNet18 and 11 for ResNet34. They are searched for on the sweep's largest, on images of another
    seed than the figure's.

    Args:
        name: One of ``NAMES``.
        scale: One of ``SCALES``.

    Example:
        >>> description("fig6-pathfinder", "full")["axes"]
        {'seed': [0, 1, 2, 3, 4], 'path_length': [3, 5, 7, 9], 'coefficient': [0.0, 3.0, 9.0]}
    """
    figure, _, dataset = name.partition("-")
    model = "resnet18" if figure in ("fig6", "fig12") else "resnet34"
    small = scale == "small"
    if dataset == "pathfinder":
        place = {"path_length": _SMALL_LENGTHS if small else _LENGTHS[model]}
    else:
        place = {"distance": _SMALL_DISTANCES if small else _DISTANCES}
    axes: dict[str, list[Any]] = {"seed": list(range(_SEEDS[scale][_FIGURES.index(figure)])), **place}
    base = _base(dataset, model, scale)
    found: dict[str, Any] = {"name": name, "preset": "study" if small else "paper", "base": base, "axes": axes}
    if figure in ("fig6", "fig11"):
        axes["coefficient"] = (_SMALL_COEFFICIENTS if small else _COEFFICIENTS)[dataset]
    else:
        trials = _TRIALS[scale][_FIGURES.index(figure) - 2]
        found["variants"] = _standard_techniques(dataset)
        found["search"] = {"trials": trials, "at": {**{field: values[-1] for field, values in place.items()}, "data_seed": 1}}
    return found


def _base(dataset: str, model: str, scale: str) -> dict[str, Any]:
    base: dict[str, Any] = {"dataset": dataset, "model": model}
    if scale == "medium":
        return base | {"epochs": _MEDIUM_EPOCHS[model]} | _MEDIUM[dataset]
    return base | (_DIGITS if scale == "small" and dataset == "same-class" else {})


def _standard_techniques(dataset: str) -> list[dict[str, Any]]:
    """Weight decay or dropout, each alone and with the penalty."""
    decay = {"weight_decay": {"low": 1e-5, "high": 1e-1, "start": 1e-3}}
    dropout = {"dropout": {"low": 0.05, "high": 0.7, "start": 0.3, "log": False}}
    low, high = {"same-class": (0.1, 3.0), "pathfinder": (1.0, 10.0)}[dataset]
    penalty = {"coefficient": {"low": low, "high": high, "start": _COEFFICIENTS[dataset][-1]}}
    return [
        {"name": "weight decay", "coefficient": 0.0, **decay},
        {"name": "dropout", "coefficient": 0.0, **dropout},
        {"name": "weight decay and penalty", **penalty, **decay},
        {"name": "dropout and penalty", **penalty, **dropout},
    ]
