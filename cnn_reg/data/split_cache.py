"""Reduced Pathfinder images kept in a folder, so that many runs make them once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from cnn_reg.data.image_set import StoredImages
from cnn_reg.data.splits import Splits, generate_splits
from tensornet import __version__
from tensornet.files.storage import read_nested, write_nested

KIND = "Pathfinder splits"


def cached_splits(folder: Path, path_length: int, num_train: int, num_test: int, seed: int, **options: Any) -> Splits:
    """What :func:`~cnn_reg.data.splits.generate_splits` gives, read from the folder if it was made before, else made and kept there.

    Of several processes that need the same images at once, one makes them and the others wait.

    Args:
        folder: Made where absent.
        path_length: Paddles of a path.
        num_train: Training images.
        num_test: Test images.
        seed: Of the images.
        options: The others of ``generate_splits``; ``workers`` has no influence on images.

    Raises:
        ValueError: An argument is out of range, or the file in the folder is damaged.
        OSError: The folder cannot be read or written to.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> made = cached_splits(folder, 5, 20, 10, seed=0, size=32)
        >>> again = cached_splits(folder, 5, 20, 10, seed=0, size=32)
        >>> torch.equal(made.train.images, again.train.images), made.distance_accuracy == again.distance_accuracy
        (True, True)
    """
    key = json.dumps([path_length, num_train, num_test, seed, {**options, "workers": None}, __version__], sort_keys=True)
    name = f"pathfinder-{path_length}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    path = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        if path.exists():
            return _read(path)
        made = generate_splits(path_length, num_train, num_test, seed, **options)
        parts = {split: {"images": data.images, "labels": data.labels} for split, data in (("train", made.train), ("test", made.test))}
        known = {"name": made.train.name, "moments": (made.train.mean, made.train.std), "distance_accuracy": made.distance_accuracy}
        write_nested(path, {**parts, **known}, kind=KIND)
    return made


def _read(path: Path) -> Splits:
    found = read_nested(path, kind=KIND)
    train, test = (StoredImages(**found[split], name=found["name"], moments=found["moments"]) for split in ("train", "test"))
    return Splits(train, test, found["distance_accuracy"])
