"""The paper's figures, from the records of runs alone."""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensornet.checks import line
from tensornet.dynamics.experiments import EXPERIMENTS
from tensornet.files.runs import CONFIG, RECORDS, read_records
from tensornet.files.storage import read_json, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")
WIDTH = 44  # characters of a title's line
FIGURES: Mapping[str, tuple[tuple[str, ...], ...]] = {  # figure -> the experiments of its parts, by the names that they may have
    "1": (("fig1-matrix",), ("fig1-tensor",), ("fig1-hierarchical", "fig8")),
    "8": (("fig8", "fig1-hierarchical"),),
    "9": (("fig9",),),
    "10": (("fig10",),),
}


@dataclass(frozen=True)
class Curves:
    """The records of a run, as figures need them.

    Attributes:
        folder: Where the run lies.
        config: Its configuration.
        records: Its records.
    """

    folder: Path
    config: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One panel: which curves of which run; without a run, what is missing.

    Attributes:
        title: Its title.
        what: ``"norms"`` or ``"singular"``.
        name: The node or set of modes.
        run: The run.
    """

    title: str
    what: str
    name: str
    run: Curves | None


def find_runs(folder: str | os.PathLike[str]) -> list[Curves]:
    """All runs of experiments in a folder and below it, by the order of their paths.

    Raises:
        ValueError: A file of a run is damaged, or the folder is none.

    Example:
        >>> import tempfile
        >>> find_runs(tempfile.mkdtemp())
        []
    """
    top = Path(folder)
    if not top.is_dir():
        raise ValueError(f"runs are looked for in a folder; {top} is none")
    found = []
    for path in sorted(top.rglob(CONFIG)):
        config = read_json(path)
        records = read_records(path.with_name(RECORDS))
        if isinstance(config, dict) and "matricizations" in config and records:
            found.append(Curves(path.parent, config, records))
    return found


def panels_of_run(run: Curves) -> list[Panel]:
    """All panels of one run: local components at one node below the root and at the root, then the singular values.

    Example:
        >>> record = {"step": 0, "norms": {"0,1": [1.0], "0,1,2": [2.0]}, "singular": {"0,1": [3.0]}}
        >>> run = Curves(Path("."), {"mode_sizes": [2, 2, 2]}, [record])
        >>> [panel.title for panel in panels_of_run(run)]
        ['local components at {0,1}', 'local components at {0,1,2}', 'singular values, modes {0,1}']
    """
    norms, singular = list(run.records[0]["norms"]), list(run.records[0]["singular"])
    nodes = norms if len(norms) < 2 else [norms[0], norms[-1]]
    found = [Panel(f"local components at {{{name}}}", "norms", name, run) for name in nodes]
    return found + [Panel(f"singular values, modes {{{name}}}", "singular", name, run) for name in singular]


def panels_of_figure(number: str, runs: Sequence[Curves]) -> list[Panel]:
    """The panels of a figure of the paper, of runs of its experiments.

    Of several runs of an experiment, those count that are as the paper's but for the seed, and of these that of the smallest seed. Where
    there is none, another is taken, and the titles tell what it has otherwise.

    Raises:
        ValueError: There is no such figure.

    Example:
        >>> [panel.title for panel in panels_of_figure("1", [])]
        ['fig1-matrix', 'fig1-tensor', 'fig1-hierarchical']
    """
    if number not in FIGURES:
        raise ValueError(f"the figures are {', '.join(FIGURES)}; got {number}")
    found: list[Panel] = []
    for names in FIGURES[number]:
        fitting = sorted(
            (bool(changed(run)), int(run.config["seed"]), place) for place, run in enumerate(runs) if run.config["name"] in names
        )
        if not fitting:
            found.append(Panel(names[0], "", "", None))
            continue
        run = runs[fitting[0][-1]]
        made = [_headline(run)] if number == "1" else panels_of_run(run)
        if other := ", ".join(changed(run)):
            made = [replace(panel, title="\n".join([panel.title, *textwrap.wrap(f"with {other}", WIDTH)])) for panel in made]
        found += made
    return found


def changed(run: Curves) -> list[str]:
    """In what a run differs from the experiment of its name, beside the seed, as ``field=value``.

    Example:
        >>> changed(Curves(Path("."), {"name": "fig9", "seed": 3, "ranks": 64}, []))
        ['ranks=64']
    """
    usual = json.loads(json.dumps(asdict(EXPERIMENTS[run.config["name"]])))  # with lists for tuples, as in the run's file
    return [f"{name}={value}" for name, value in run.config.items() if name != "seed" and value != usual.get(name)]


def panels_of_sweep(folders: Sequence[Path], runs: Sequence[Curves]) -> list[Panel]:
    """One panel for every folder of a sweep, as Figure 1 shows a factorization, titled with the folder's name.

    Example:
        >>> [panel.run for panel in panels_of_sweep([Path("runs/init_std=0.1")], [])]
        [None]
    """
    known = {run.folder: _headline(run) for run in runs}
    found = [(folder.name, known.get(folder)) for folder in folders]
    return [
        replace(panel, title=f"{name}\n{panel.title.splitlines()[-1]}") if panel else Panel(name, "", "", None) for name, panel in found
    ]


def _headline(run: Curves) -> Panel:
    """The one panel by which Figure 1 shows a factorization."""
    last = run.records[0]
    what = "norms" if last["norms"] else "singular"
    name = list(last[what])[-1]
    titles = {"matrix": "matrix factorization\nsingular values", "tensor": "tensor factorization\ncomponent norms"}
    title = titles.get(run.config["kind"], f"hierarchical tensor factorization\nlocal component norms at {{{name}}}")
    return Panel(title, what, name, run)


def draw(panels: Sequence[Panel], path: str | os.PathLike[str], columns: int | None = None) -> None:
    """Writes a figure with the panels side by side, or in rows of so many ``columns``, as PNG, SVG or PDF by the file's suffix.

    Raises:
        ValueError: The suffix is another.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "figure.png")
        >>> draw([Panel("fig9", "", "", None)], path)
        >>> path.exists()
        True
    """
    from matplotlib.figure import Figure

    path = Path(path)
    check_suffix(path)
    columns = columns or len(panels)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns, 3.2 * rows), layout="constrained")
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels):
        _panel(axes, panel)
    with replacing(path) as new:
        figure.savefig(new, dpi=110)


def check_suffix(path: Path) -> None:
    """Raises where a figure cannot be written under a name.

    Raises:
        ValueError: Its suffix is none of a figure's.

    Example:
        >>> check_suffix(Path("figure.pdf"))
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a figure is written as {', '.join(SUFFIXES)}; got {path.name!r}")


def _panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=10)
    if panel.run is None:
        axes.text(0.5, 0.5, f"no run of {line(panel.title)}", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    steps = [record["step"] for record in panel.run.records]
    for curve in _curves(panel):
        axes.plot(steps, curve, linewidth=1.2)
    axes.set_xlabel(f"iterations (reconstruction error {panel.run.records[-1]['error']:.4f})")


def _curves(panel: Panel) -> Iterator[tuple[float, ...]]:
    """The largest values over the records, then the second largest, and so on."""
    assert panel.run is not None
    return zip(*(record[panel.what][panel.name] for record in panel.run.records))
