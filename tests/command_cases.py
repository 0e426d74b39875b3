"""How tests call the command `tensornet`, and a matrix with holes to complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tensornet.cli import main

WAVES = np.add.outer(np.sin(np.arange(12) / 3), np.cos(np.arange(9) / 4))
HOLES = np.random.default_rng(0).random(WAVES.shape) < 0.3


def call(*arguments: object) -> object:
    """The command's exit code."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def pixels(path: str | Path) -> NDArray[np.float64]:
    """A picture's values."""
    with Image.open(path) as picture:
        return np.asarray(picture).astype(float)
