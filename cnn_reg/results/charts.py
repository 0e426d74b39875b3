"""Runs arranged as a chart: accuracy along an axis, one line for each setting, a mean and a deviation over seeds for each point."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cnn_reg.config import FIELDS, Config, as_dict, from_dict
from cnn_reg.results.notes import chart_notes
from cnn_reg.results.published import published_accuracy
from cnn_reg.results.records import Record, finished
from cnn_reg.results.wording import AXES, SWITCHED_OFF, task_of, varying, words

REPEATED = ("seed", "data_seed")  # fields that make another run of the same experiment


@dataclass(frozen=True)
class Point:
    """All runs of one setting.

    Attributes:
        x: Value on the axis.
        accuracies: On the test images, from 0 to 1, of the finished runs, by their seeds.
        missing: How many runs are not finished.
        distance_accuracy: Mean accuracy of a prediction from the distance of the circles alone.
        published: The paper's accuracy.

    Example:
        >>> point = Point(7, (0.5, 0.75), missing=1)
        >>> point.mean, round(point.deviation, 4)
        (0.625, 0.1768)
    """

    x: float
    accuracies: tuple[float, ...]
    missing: int = 0
    distance_accuracy: float | None = None
    published: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean accuracy; ``None`` without a finished run."""
        return statistics.fmean(self.accuracies) if self.accuracies else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; ``None`` with fewer than two finished runs."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class Line:
    """The points of all runs that differ in their place on the axis and their seeds alone.

    Attributes:
        label: What it is, in words.
        points: By their places on the axis.
    """

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """A panel of a figure, and the rows of its table.

    Attributes:
        title: Data set, network and number of seeds; says so where the pictures are not CIFAR10's.
        axis: Field along the axis.
        lines: By their settings.
        notes: What a reader has to know beside the title: where the recipe is not the paper's, which runs are missing, and why.
    """

    title: str
    axis: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def make_charts(records: Iterable[Record], expected: Iterable[tuple[str, Config]] = (), *, published: bool = False) -> list[Chart]:
    """A chart for each data set, source and network of the runs.

    The axis is the path length or the distance of the pictures; where neither varies, the numeric field with the most values. Runs
    that differ in other fields than that and the seeds are on lines of their own.

    Args:
        records: Of runs, finished or not.
        expected: All runs of a sweep, where it is known, each with the name of its line or an empty one; runs that are not among them
            are then left out.
        published: Add the paper's accuracies.

    Raises:
        ValueError: There are no runs.

    Example:
        >>> from pathlib import Path
        >>> runs = [
        ...     Record(Path(f"{seed}"), "finished", config=Config(seed=seed), version="0.1.0", test_accuracy=0.5 + seed / 4)
        ...     for seed in (0, 1)
        ... ]
        >>> chart = make_charts(runs)[0]
        >>> chart.title, chart.lines[0].points[0].mean
        ('Pathfinder, resnet18: mean and standard deviation over 2 seeds', 0.625)
    """
    records = list(records)
    wanted = {from_dict(as_dict(config)): name for name, config in expected}
    wanted = wanted or dict.fromkeys((record.config for record in records if record.config is not None), "")
    if not wanted:
        raise ValueError("a figure needs at least one run; there is none whose configuration can be read")
    groups: dict[str, dict[Config, str]] = {}
    for config, name in wanted.items():
        groups.setdefault(task_of(config), {})[config] = name
    return [_chart(title, configs, records, published) for title, configs in groups.items()]


def _chart(task: str, labelled: dict[Config, str], records: list[Record], published: bool) -> Chart:
    configs = list(labelled)
    names = [field for field in varying(configs) if field not in REPEATED]
    axis = _axis(names, configs)
    own = [field for field in names if field != axis]
    done = dict(finished(records))
    settings = {tuple(getattr(config, field) for field in own): name for config, name in labelled.items()}
    if not any(settings.values()):
        settings = dict(sorted(settings.items()))
    lines = []
    for setting, name in settings.items():
        chosen = [config for config in configs if tuple(getattr(config, field) for field in own) == setting]
        places = sorted({getattr(config, axis) for config in chosen})
        points = [_point([config for config in chosen if getattr(config, axis) == x], done, axis, published) for x in places]
        lines.append(Line(_label(name, own, setting), tuple(points)))
    what = "seed" if len({config.data_seed for config in configs}) == 1 else "run"
    title = f"{task}: {_counted([point for row in lines for point in row.points], what)}"
    return Chart(title, axis, tuple(lines), tuple(chart_notes(configs, records, done, [axis, *names], published=published)))


def _axis(names: list[str], configs: list[Config]) -> str:
    for name in AXES:
        if name in names:
            return name
    numeric = [name for name in names if FIELDS[name] in ("int", "float")]
    if numeric:
        return max(numeric, key=lambda name: len({getattr(config, name) for config in configs}))
    return AXES[0] if configs[0].dataset == "pathfinder" else AXES[1]


def _point(configs: list[Config], done: dict[Config, Record], axis: str, published: bool) -> Point:
    runs = [done[config] for config in sorted(configs, key=lambda config: (config.seed, config.data_seed)) if config in done]
    alone = [run.distance_accuracy for run in runs if run.distance_accuracy is not None]
    return Point(
        getattr(configs[0], axis),
        tuple(run.test_accuracy for run in runs if run.test_accuracy is not None),
        len(configs) - len(runs),
        statistics.fmean(alone) if alone else None,
        published_accuracy(configs[0]) if published else None,
    )


def _label(name: str, fields: list[str], setting: tuple[Any, ...]) -> str:
    pairs = list(zip(fields, setting))
    values = words([pair for pair in pairs if pair[0] not in SWITCHED_OFF or pair[1]] or pairs[:1])
    return f"{name} ({values})" if name and values else name or values or "all runs"


def _counted(points: Sequence[Point], what: str) -> str:
    counts = sorted({len(point.accuracies) for point in points if point.accuracies})
    if not counts:
        return "no finished run"
    text = f"{counts[0]} {what}{'s' if counts[0] > 1 else ''}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {what}s"
    return text if counts[-1] == 1 else f"mean and standard deviation over {text}"
