"""Options that several subcommands have."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds ``--data``: where the images of a run's data set come from, as of :func:`cnn_reg.tasks.make_task`.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_data(parser)
        >>> parser.parse_args(["--data", "pictures"]).data.name
        'pictures'
    """
    parser.add_argument(
        "--data", type=Path, metavar="PLACE", help="folder where CIFAR10 lies or is downloaded to, or a file of cnn-reg data pathfinder"
    )
