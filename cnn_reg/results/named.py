"""The figures of Section 6 by name: which runs they show, and what of these is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnn_reg.config import Config
from cnn_reg.results.charts import Chart, make_charts
from cnn_reg.results.listings import read_listings
from cnn_reg.results.records import Record
from cnn_reg.sweeps.grids import named_grid
from cnn_reg.sweeps.paper import NAMES, SCALES
from tensornet.checks import choice

RUNS = "runs"  # the name of the figure of whatever runs there are
FIGURES = (*NAMES, RUNS)


def figure_charts(name: str, folder: Path, records: Sequence[Record]) -> list[Chart]:
    """The charts of a figure.

    Which runs it should show says the sweep's own list, if it is below the folder, or while its search goes on the size that the list
    tells; and otherwise the sweep of that name in the size of which most runs are there. The figure ``runs`` shows all sweeps and other
    runs that there are.

    Args:
        name: One of ``FIGURES``.
        folder: Where the runs lie.
        records: The runs.

    Raises:
        ValueError: There is no such figure, or no run.

    Example:
        >>> record = Record(Path("a"), "finished", config=Config(coefficient=9), version="0.1.0", test_accuracy=0.9)
        >>> import tempfile
        >>> chart = figure_charts("fig6-pathfinder", Path(tempfile.mkdtemp()), [record])[0]
        >>> [line.label for line in chart.lines], chart.notes[-1]
        (['coefficient 0', 'coefficient 3', 'coefficient 9'], 'Missing: 59 of 60 runs (59 not begun).')
    """
    choice("figure", name, FIGURES)
    if name == RUNS:
        return folder_charts(folder, records) or make_charts(records)
    return make_charts(records, expected_runs(name, folder, records), published=True)


def expected_runs(name: str, folder: Path, records: Sequence[Record]) -> Sequence[tuple[str, Config]]:
    """The runs of a sweep of the paper; see :func:`figure_charts`.

    Example:
        >>> len(expected_runs("fig6-same-class", Path("no such folder"), []))
        75
    """
    listings = [listing for listing in read_listings(folder) if listing.name == name]
    listed = [run for listing in listings for run in listing.runs]
    if listed:
        return listed
    there = {record.config for record in records}
    scales = [listing.scale for listing in listings if listing.scale in SCALES] or SCALES
    grids = [named_grid(name, scale).labelled() for scale in scales]
    return max(grids, key=lambda runs: sum(config in there for _, config in runs))


def folder_charts(folder: Path, records: Sequence[Record]) -> list[Chart]:
    """The charts of whatever lies in a folder: of sweeps, once their search is over, and of the runs that are of no sweep.

    Example:
        >>> folder_charts(Path("no such folder"), [])
        []
    """
    listings = read_listings(folder)
    charts = [
        chart for listing in listings if listing.runs for chart in make_charts(records, listing.runs, published=listing.name in NAMES)
    ]
    listed = {config for listing in listings for _, config in (*listing.runs, *listing.trials)}
    others = [record for record in records if record.config is not None and record.config not in listed]
    return charts + (make_charts(others) if others else [])
