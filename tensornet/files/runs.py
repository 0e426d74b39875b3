"""The folder of a run: its configuration, a record per line, checkpoints, and a summary."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensornet.files import storage

CONFIG, RECORDS, CHECKPOINT, SUMMARY = "config.json", "metrics.jsonl", "checkpoint.safetensors", "summary.json"


class Run:
    """A run's folder, which is made where absent.

    It holds ``config.json`` (what was asked for), ``metrics.jsonl`` (a record per line), ``checkpoint.safetensors`` (the newest) and
    ``summary.json`` (written at the end). A run is resumed by giving the same folder and configuration: :meth:`restore` then returns
    the state of the newest checkpoint, and records written after it are dropped, since they will be written again.

    Args:
        folder: Where the run lies.
        config: What determines the run, in numbers, strings, lists and dictionaries.
        resume: Continue the run that is in the folder, if there is one.

    Raises:
        ValueError: The folder holds a run already, and ``resume`` is false or its configuration is another.
        OSError: The folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> run = Run(folder, {"seed": 0})
        >>> run.record(step=1, loss=0.5)
        >>> run.checkpoint({"step": 1})
        >>> run.record(step=2, loss=0.25)
        >>> resumed = Run(folder, {"seed": 0}, resume=True)
        >>> resumed.restore()
        {'step': 1}
        >>> resumed.records()
        [{'step': 1, 'loss': 0.5}]
    """

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any], *, resume: bool = False) -> None:
        self.folder = Path(folder)
        self._kept: int | None = None  # records up to the checkpoint that was restored; later ones are dropped with the next new one
        self.config = json.loads(json.dumps(dict(config)))  # as it will be read again: tuples become lists
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"a run needs a folder; {self.folder} is a file")
        path = self.folder / CONFIG
        if path.exists() and not self._nothing_done(path):
            if not resume:
                raise ValueError(f"{self.folder} holds a run already; resume it (--resume), or give another folder")
            self._compare(storage.read_json(path))
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            storage.write_json(path, self.config)

    def _nothing_done(self, path: Path) -> bool:
        """Whether the folder holds no more than the configuration of a run of this kind, as one that failed at once leaves behind."""
        if any(other.name != CONFIG and not other.name.startswith(".") for other in self.folder.iterdir()):
            return False
        found = storage.read_json(path)
        return isinstance(found, dict) and found.keys() == self.config.keys()

    def _compare(self, found: Any) -> None:
        found = found if isinstance(found, dict) else {}
        names = sorted(found.keys() | self.config.keys())
        differing = [name for name in names if found.get(name) != self.config.get(name)]
        if differing:
            listed = "; ".join(f"{name} = {found.get(name)!r}, got {self.config.get(name)!r}" for name in differing)
            raise ValueError(f"a run is resumed with the configuration it was begun with; {self.folder} has {listed}")

    def record(self, **values: Any) -> None:
        """Adds a line of named values to the records.

        Example:
            >>> import tempfile
            >>> run = Run(tempfile.mkdtemp(), {})
            >>> run.record(step=1, loss=0.5)
            >>> run.records()
            [{'step': 1, 'loss': 0.5}]
        """
        self._drop()
        with (self.folder / RECORDS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All records; a line that was cut short by an interruption is left out.

        Example:
            >>> import tempfile
            >>> Run(tempfile.mkdtemp(), {}).records()
            []
        """
        return read_records(self.folder / RECORDS)[: self._kept]

    def _drop(self) -> None:
        """Leaves the records out that were written after the checkpoint."""
        lines = _lines(self.folder / RECORDS)
        if self._kept is not None and len(lines) > self._kept:
            with storage.replacing(self.folder / RECORDS) as new:
                new.write_text("".join(lines[: self._kept]), encoding="utf-8")
        self._kept = None

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Writes the state from which :meth:`restore` continues, in place of the previous one.

        Args:
            state: Nested dictionaries, lists, tensors, numbers and strings; whatever the rest of the run depends on, such as weights,
                ``optimizer.state_dict()`` and ``generator.get_state()``.

        Raises:
            TypeError: Something else is in ``state``.

        Example:
            >>> import tempfile, torch
            >>> run = Run(tempfile.mkdtemp(), {})
            >>> run.checkpoint({"random": torch.Generator().manual_seed(3).get_state()})
            >>> torch.Generator().set_state(run.restore()["random"]).initial_seed()
            3
        """
        storage.write_nested(self.folder / CHECKPOINT, {"records": len(self.records()), "state": dict(state)}, kind="checkpoint")

    def restore(self) -> dict[str, Any] | None:
        """The state of the newest checkpoint, or ``None`` without one; later records are dropped, on the disk with the next new one.

        Raises:
            ValueError: The checkpoint is damaged, or of another program.

        Example:
            >>> import tempfile
            >>> Run(tempfile.mkdtemp(), {}).restore() is None
            True
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            self._kept = 0
            return None
        try:
            known: Any = storage.read_nested(path, kind="checkpoint")
        except ValueError as error:
            raise ValueError(f"{error}; without this file the run begins anew") from None
        kept, state = (known.get("records"), known.get("state")) if isinstance(known, dict) else (None, None)
        if not isinstance(kept, int) or kept < 0 or not isinstance(state, dict):
            raise ValueError(f"{path} is no checkpoint of a run")
        self._kept = kept
        return state

    def finish(self, **values: Any) -> None:
        """Writes the summary.

        Example:
            >>> import tempfile
            >>> run = Run(tempfile.mkdtemp(), {})
            >>> run.finish(error=0.125)
            >>> storage.read_json(run.folder / "summary.json")
            {'error': 0.125}
        """
        self._drop()
        storage.write_json(self.folder / SUMMARY, values)


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records in a file, up to a line that is damaged, or was cut short by an interruption; none where there is no file.

    Example:
        >>> read_records("no such file")
        []
    """
    found = []
    for line in _lines(Path(path)):
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
