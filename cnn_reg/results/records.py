"""What is known of runs from the files in their folders alone, finished or not, damaged ones included."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnn_reg.config import Config
from cnn_reg.results.wording import plain
from cnn_reg.sweeps.jobs import FAILURE, state_of
from cnn_reg.sweeps.jobs import State as JobState
from cnn_reg.trained import read_config
from tensornet import __version__
from tensornet.files.runs import CONFIG, RECORDS, SUMMARY, read_records
from tensornet.files.storage import read_json

State = Literal["finished", "running", "unfinished", "failed", "unreadable"]
STATES: tuple[State, ...] = ("finished", "running", "unfinished", "failed", "unreadable")


@dataclass(frozen=True)
class Record:
    """What the folder of a run says.

    Attributes:
        folder: Where it lies.
        state: ``finished``; ``running`` in a sweep; ``unfinished``, which was interrupted, or is running outside of a sweep, where nothing
            tells; ``failed``; or ``unreadable``, which is damaged or of another program or version.
        reason: Why it failed or cannot be read, in one line.
        config: What was asked for; ``None`` where that cannot be read.
        version: Of this package, by which it was begun.
        epochs: That are done.
        epoch_records: One of each of these epochs, as in ``metrics.jsonl``; what is no number is left out.
        train_accuracy: After the last epoch, from 0 to 1; ``None`` before the first.
        test_accuracy: Likewise.
        seconds: That the steps took.
        distance_accuracy: Of a prediction from the distance of the circles alone; ``None`` until the run is finished, and without circles.
        device: Where it was trained; empty until it is finished.
        written: When its records were last written, in seconds since 1970.

    Example:
        >>> Record(Path("runs/a"), "failed", "the disk is full").config is None
        True
    """

    folder: Path
    state: State
    reason: str = ""
    config: Config | None = None
    version: str = ""
    epochs: int = 0
    epoch_records: tuple[Mapping[str, Any], ...] = ()
    train_accuracy: float | None = None
    test_accuracy: float | None = None
    seconds: float | None = None
    distance_accuracy: float | None = None
    device: str = ""
    written: float | None = None


def read_runs(folder: str | os.PathLike[str]) -> list[Record]:
    """The records of all runs in a folder and below it, by the order of their paths; nothing in these folders makes it fail.

    Raises:
        ValueError: The folder is none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> characters = (folder / "config.json").write_text("{")
        >>> [record.state for record in read_runs(folder)]
        ['unreadable']
    """
    top = Path(folder)
    if not top.is_dir():
        raise ValueError(f"runs are looked for in a folder; {top} is none")
    return [read_run(place) for place in sorted({path.parent for name in (CONFIG, FAILURE) for path in top.rglob(name)})]


def read_run(folder: str | os.PathLike[str]) -> Record:
    """The record of the run in a folder.

    Example:
        >>> import tempfile
        >>> from cnn_reg.config import as_dict
        >>> from tensornet.files.runs import Run
        >>> run = Run(tempfile.mkdtemp(), {**as_dict(Config(seed=3)), "version": "0.1.0"})
        >>> run.record(epoch=1, train_accuracy=0.5, test_accuracy=0.625, seconds=2.0)
        >>> record = read_run(run.folder)
        >>> record.state, record.config.seed, record.epochs, record.test_accuracy
        ('unfinished', 3, 1, 0.625)
    """
    place = Path(folder)
    known: dict[str, Any] = {}
    try:
        failure = _object(place / FAILURE) if (place / FAILURE).exists() else None
        if failure is not None and not (place / CONFIG).exists():
            return Record(place, "failed", _reason(failure))
        config, version = read_config(place)
        known |= {"config": config, "version": plain(version)}
        epochs = tuple(epoch for epoch in map(_epoch, read_records(place / RECORDS)) if _number(epoch, "epoch") is not None)
        written = max(path.stat().st_mtime for path in (place / CONFIG, place / RECORDS) if path.exists())
        known |= {"epoch_records": epochs, "written": written, **_progress(epochs)}
        if (place / SUMMARY).exists():
            return Record(place, "finished", **{**known, **_outcome(_object(place / SUMMARY))})
    except (ValueError, OSError, RecursionError) as error:
        return Record(place, "unreadable", plain(error), **known)
    if failure is not None:
        return Record(place, "failed", _reason(failure), **known)
    return Record(place, "running" if state_of(place) is JobState.RUNNING else "unfinished", **known)


def finished(records: Iterable[Record]) -> list[tuple[Config, Record]]:
    """The finished runs with their configurations, of which each counts once: of copies, one of this version, else the newest.

    Example:
        >>> finished([Record(Path("a"), "failed", "out of memory", Config())])
        []
    """
    found: dict[Config, Record] = {}
    for record in records:
        if record.state == "finished" and record.config is not None:
            found[record.config] = max(found.get(record.config, record), record, key=_rank)
    return list(found.items())


def _rank(record: Record) -> tuple[bool, float]:
    return record.version == __version__, record.written or 0.0


def _object(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged")
    return found


def _reason(failure: Mapping[str, Any]) -> str:
    return plain(failure.get("reason") or "for an unknown reason")


def _epoch(record: Any) -> dict[str, Any]:
    """What a line of the metrics says in numbers, and in lists of them."""

    def usable(value: Any) -> bool:
        return bool(value) and all(map(usable, value)) if isinstance(value, list) else _number({"": value}, "") is not None

    return {name: value for name, value in record.items() if usable(value)} if isinstance(record, dict) else {}


def _progress(epochs: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    """What the epochs say that are done."""
    last: Mapping[str, Any] = epochs[-1] if epochs else {}
    times = [_number(record, "seconds") for record in epochs]
    return {
        "epochs": int(last.get("epoch", 0)),
        "train_accuracy": _share(last, "train_accuracy"),
        "test_accuracy": _share(last, "test_accuracy"),
        "seconds": sum(time for time in times if time is not None) if epochs else None,
    }


def _outcome(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary of a finished run says.

    Raises:
        ValueError: It does not say the accuracies.
    """
    found = {
        "train_accuracy": _share(summary, "train_accuracy"),
        "test_accuracy": _share(summary, "test_accuracy"),
        "seconds": _number(summary, "training_seconds"),
        "distance_accuracy": _share(summary, "distance_only_accuracy"),
    }
    if found["train_accuracy"] is None or found["test_accuracy"] is None:
        raise ValueError(f"{SUMMARY} holds no accuracies")
    return {**found, "device": plain(summary.get("device", ""))}


def _number(values: Mapping[str, Any], name: str) -> float | None:
    found = values.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not -math.inf < found < math.inf:
        return None
    return float(found) if abs(found) < 1e300 else None  # integers may be larger than any float


def _share(values: Mapping[str, Any], name: str) -> float | None:
    found = _number(values, name)
    return found if found is not None and 0 <= found <= 1 else None
