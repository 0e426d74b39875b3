"""Runs and charts as tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from cnn_reg.config import FIELDS, as_dict
from cnn_reg.results.charts import Chart, Point
from cnn_reg.results.records import Record
from cnn_reg.results.tables import Cell, Table
from cnn_reg.results.wording import AXES, duration, percent, plain, task_of, varying, words
from tensornet import __version__


def runs_table(records: Sequence[Record], folder: Path) -> Table:
    """What a reader wants to know of runs: one row each, with the fields in which they differ, and their tasks where these differ.

    Args:
        records: The runs.
        folder: Below which they lie.

    Example:
        >>> runs_table([Record(Path("a/b"), "failed", "no disk")], Path("a")).rows
        (('failed', '0', '', '', '', 'b', 'no disk'),)
    """
    fields = told_fields(records)
    told = ("task",) if common_task(records) is None else ()
    columns = (*told, *(name.replace("_", " ") for name in fields), "state", "done", "test", "train", "time", "run", "note")
    rows = (_run_row(record, folder, fields) for record in records)
    return Table(columns, tuple(row if told else row[1:] for row in rows))


def common_task(records: Sequence[Record]) -> str | None:
    """The data set and the network that all runs have in common; ``None`` where they differ.

    Example:
        >>> from cnn_reg.config import Config
        >>> common_task([Record(Path("a"), "finished", config=Config()), Record(Path("b"), "failed")])
        'Pathfinder, resnet18'
    """
    tasks = {task_of(record.config) for record in records if record.config is not None}
    return None if len(tasks) > 1 else "".join(tasks)


def told_fields(records: Sequence[Record]) -> list[str]:
    """Fields that tell runs apart, beside their data sets and networks: path length or distance, coefficient, seed, and all that differ.

    Example:
        >>> from cnn_reg.config import Config
        >>> told_fields([Record(Path("a"), "finished", config=Config()), Record(Path("b"), "finished", config=Config(width=0.5))])
        ['path_length', 'width', 'coefficient', 'seed']
    """
    configs = [record.config for record in records if record.config is not None]
    told = {"coefficient", "seed", *varying(configs)} if configs else set()
    told |= {name for config in configs for name in AXES if name in as_dict(config)}
    return [name for name in FIELDS if name in told - {"dataset", "source", "model", "matched"}]


def _run_row(record: Record, folder: Path, fields: Sequence[str]) -> tuple[Cell, ...]:
    known = {} if record.config is None else as_dict(record.config)
    other = record.version not in ("", __version__)
    limit = f" of {record.config.epochs}" if record.config is not None and record.state != "finished" else ""
    return (
        None if record.config is None else task_of(record.config),
        *(known.get(name) for name in fields),
        f"{record.state} (version {record.version})" if other else record.state,
        f"{record.epochs}{limit}",
        percent(record.test_accuracy),
        percent(record.train_accuracy),
        duration(record.seconds),
        plain(record.folder.relative_to(folder).as_posix()),
        record.reason or _age(record),
    )


def _age(record: Record) -> str:
    """Of a run that may be running or interrupted, when it last wrote."""
    if record.state not in ("running", "unfinished") or record.written is None:
        return ""
    return f"last wrote {duration(max(0.0, time.time() - record.written))} ago"


def what(record: Record, fields: Sequence[str]) -> str:
    """What a run is, in words.

    Example:
        >>> from cnn_reg.config import Config
        >>> what(Record(Path("a"), "finished", config=Config(seed=3)), ["path_length", "seed"])
        'Pathfinder, resnet18, path length 7, seed 3'
    """
    if record.config is None:
        return ""
    known = as_dict(record.config)
    return f"{task_of(record.config)}, {words((name, known[name]) for name in fields if name in known)}"


def full_table(records: Sequence[Record], folder: Path) -> Table:
    """Everything that is known of runs, in numbers: one row each, with all fields of the configurations.

    Example:
        >>> full_table([Record(Path("a/b"), "failed", "no disk")], Path("a")).rows[0][:2]
        ('b', 'failed')
    """
    own = ("epochs_done", "train_accuracy", "test_accuracy", "distance_only_accuracy", "seconds", "device", "version", "reason")
    rows = []
    for record in records:
        fields = {} if record.config is None else as_dict(record.config)
        known = (record.epochs, record.train_accuracy, record.test_accuracy, record.distance_accuracy, record.seconds, record.device)
        name = plain(record.folder.relative_to(folder).as_posix())
        rows.append((name, record.state, *known, record.version, record.reason, *(fields.get(field) for field in FIELDS)))
    return Table(("run", "state", *own, *FIELDS), tuple(rows))


def charts_table(charts: Sequence[Chart]) -> Table:
    """The numbers of at least one chart: one row a point, accuracies in percent.

    Example:
        >>> from cnn_reg.results.charts import Line, Point
        >>> charts_table([Chart("t", "distance", (Line("a", (Point(0, (0.5, 0.75), 1),)),), ())]).rows
        (('a', 0, 2, 62.5, 17.68, '50.0 75.0', 1),)
    """
    several = len(charts) > 1
    place = ("axis", "at") if several else (charts[0].axis.replace("_", " "),)
    columns = ("line", *place, "runs", "mean", "deviation", "each", "missing", "distance alone", "paper")
    rows: list[tuple[Cell, ...]] = []
    for chart in charts:
        task, axis = ((chart.title.partition(":")[0],), (chart.axis.replace("_", " "),)) if several else ((), ())
        rows += [(*task, row.label, *axis, *_numbers(point)) for row in chart.lines for point in row.points]
    return _without_empty(Table((("task", *columns) if several else columns), tuple(rows)))


def _without_empty(table: Table) -> Table:
    kept = [number for number in range(len(table.columns)) if any(row[number] is not None for row in table.rows)]
    return Table(tuple(table.columns[number] for number in kept), tuple(tuple(row[number] for number in kept) for row in table.rows))


def _numbers(point: Point) -> tuple[Cell, ...]:
    return (
        point.x,
        len(point.accuracies),
        _rounded(point.mean),
        _rounded(point.deviation),
        " ".join(percent(value) for value in point.accuracies),
        point.missing,
        _rounded(point.distance_accuracy),
        _rounded(point.published),
    )


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
