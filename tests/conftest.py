"""What every test starts from: a fixed random state and no display; GPU tests only where there is a GPU."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_cases import HOLES, WAVES

os.environ.setdefault("MPLBACKEND", "Agg")
collect_ignore = [] if importlib.util.find_spec("PySide6") else ["browser_program.py"]  # whose documentation is looked through for examples


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests marked ``gpu`` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def fixed_random_state() -> Iterator[None]:
    """Every test draws the same numbers, whichever tests ran before it, and leaves torch's default dtype as it was."""
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    yield
    assert torch.get_default_dtype() == dtype, "the test changed torch's default dtype"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and lines that are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def waves(folder: Path) -> Path:
    """A matrix with holes."""
    np.save("waves.npy", np.where(HOLES, np.nan, WAVES))
    return folder
