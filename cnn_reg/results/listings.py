"""Which runs a sweep consists of, as the ``sweep.json`` in its folder says."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from cnn_reg.config import Config, from_dict
from cnn_reg.sweeps.jobs import LISTING
from tensornet.checks import line
from tensornet.files.storage import read_json


class Listing(NamedTuple):
    """A sweep and its runs.

    Attributes:
        name: Of the sweep.
        scale: Its size.
        runs: Each with the name of its variant, which may be empty.
        trials: The runs of the search before.
    """

    name: str
    scale: str
    runs: tuple[tuple[str, Config], ...]
    trials: tuple[tuple[str, Config], ...]


def read_listings(folder: str | os.PathLike[str]) -> list[Listing]:
    """All sweeps in a folder and below it; of one that cannot be read, a warning says why.

    Example:
        >>> import tempfile
        >>> read_listings(tempfile.mkdtemp())
        []
    """
    found = []
    for path in sorted(Path(folder).rglob(LISTING)):
        try:
            found.append(_read(path))
        except (ValueError, OSError) as error:
            warnings.warn(f"a sweep's list of runs is left out: {line(error)}", stacklevel=2)
    return found


def _read(path: Path) -> Listing:
    data = read_json(path)
    try:
        return Listing(str(data["name"]), str(data["scale"]), *(_runs(data[part]) for part in ("runs", "trials")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or of another version ({line(error)})") from None


def _runs(listed: Any) -> tuple[tuple[str, Config], ...]:
    return tuple((str(run["variant"]), from_dict(run["fields"])) for run in listed)
