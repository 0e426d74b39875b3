"""Runs arranged as a chart: accuracy along an axis, one line for each setting, a mean and a deviation over seeds for each point."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cnn_reg.config import FIELDS, Config, as_dict, from_dict, preset
from cnn_reg.data.image_set import NOT_CIFAR10
from cnn_reg.results.published import published_accuracy
from cnn_reg.results.records import Record, finished
from tensornet import __version__

REPEATED = ("seed", "data_seed")  # fields that make another run of the same experiment
SWITCHED_OFF = ("weight_decay", "dropout")  # fields whose value 0 need not be named
AXES = ("path_length", "distance")


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
        ...     Record(Path(f"{seed}"), "finished", config=Config(seed=seed), version=__version__, test_accuracy=0.5 + seed / 4)
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


def varying(configs: Sequence[Config]) -> list[str]:
    """Fields in which configurations differ, in the order of :class:`Config`; of two data sets, those that both have.

    Example:
        >>> varying([Config(seed=1, path_length=5), Config(seed=2, path_length=5)])
        ['seed']
    """
    dicts = [as_dict(config) for config in configs]
    return [name for name in FIELDS if len({fields[name] for fields in dicts if name in fields}) > 1]


def words(fields: Iterable[tuple[str, Any]]) -> str:
    """Names and values of fields in words.

    Example:
        >>> words([("weight_decay", 0.001), ("coefficient", 9.0), ("channels_last", True)])
        'weight decay 0.001, coefficient 9, channels last'
    """

    def told(name: str, value: Any) -> str:
        if isinstance(value, bool):
            return name if value else f"no {name}"
        return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"

    return ", ".join(told(name.replace("_", " "), value) for name, value in fields)


def task_of(config: Config) -> str:
    """The data set and the network of a configuration, without its path length or distance; stand-ins are marked.

    Example:
        >>> task_of(Config()), task_of(Config(dataset="same-class", source="digits"))
        ('Pathfinder, resnet18', 'Is Same Class, digits (not CIFAR10), resnet18')
    """
    if config.dataset == "pathfinder":
        return f"Pathfinder{', distances matched' if config.matched else ''}, {config.model}"
    return f"Is Same Class, {'CIFAR10' if config.source == 'cifar10' else f'{config.source} ({NOT_CIFAR10})'}, {config.model}"


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
    title = f"{task}: {_counted([point for row in lines for point in row.points])}"
    return Chart(title, axis, tuple(lines), tuple(_notes(configs, records, done, names, published)))


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


def _counted(points: Sequence[Point]) -> str:
    counts = sorted({len(point.accuracies) for point in points if point.accuracies})
    if not counts:
        return "no finished run"
    seeds = f"{counts[0]} seed{'s' if counts[0] > 1 else ''}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    return seeds if counts[-1] == 1 else f"mean and standard deviation over {seeds}"


def _notes(configs: list[Config], records: list[Record], done: dict[Config, Record], names: list[str], published: bool) -> list[str]:
    notes = []
    other = _not_the_paper_s(configs, names)
    if other:
        notes.append(f"Not the paper's recipe: {other}.")
    if published and any(published_accuracy(config) is not None for config in configs):
        notes.append("Faint: the paper's Figure 6, five seeds, read off its plots.")
    notes += _missing(configs, records, done)
    runs = [record for record in records if record.state == "finished" and record.config in set(configs)]
    copies = len(runs) - len({record.config for record in runs})
    if copies:
        notes.append(f"{copies} further run{'s' if copies > 1 else ''} of a configuration that is finished already not counted.")
    versions = sorted({record.version for record in runs if record.version != __version__})
    if versions:
        notes.append(f"Runs of version {', '.join(versions)} are among them.")
    return notes


def _not_the_paper_s(configs: list[Config], names: list[str]) -> str:
    """Fields that all runs share and that differ from the published recipe."""
    mine = as_dict(configs[0])
    theirs = as_dict(preset("paper", dataset=mine["dataset"], model=mine["model"]))
    left_out = (*names, *REPEATED, *AXES, "coefficient", *SWITCHED_OFF, "source", "matched", "model")
    return words((name, value) for name, value in mine.items() if name not in left_out and value != theirs[name])


def _missing(configs: list[Config], records: list[Record], done: dict[Config, Record]) -> list[str]:
    missing = [config for config in configs if config not in done]
    if not missing:
        return []
    begun = {record.config: record for record in records if record.state != "finished"}
    states = [begun.get(config) for config in missing]
    counted = Counter("not begun" if record is None else record.state for record in states)
    reasons = Counter(record.reason for record in states if record is not None and record.state == "failed")
    parts = [f"{count} {state}" for state, count in counted.items()]
    text = f"Missing: {len(missing)} of {len(configs)} runs ({', '.join(parts)})."
    return [text, *(f"Failed {count} time{'s' if count > 1 else ''}: {reason[:200]}" for reason, count in reasons.most_common(3))]
