"""Files of pairs of pictures: numbers and labels alone, with which source they belong to; one file serves every distance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from cnn_reg.data import sources
from cnn_reg.data.same_class import SameClassPairs, digest, draw_pairs
from tensornet.checks import line
from tensornet.files import storage

KIND = "set of pairs of pictures"


def write(
    path: str | os.PathLike[str], source: str, split: str, num_pairs: int, seed: int = 0, *, folder: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Draws pairs of a source's pictures and writes their numbers.

    Args:
        path: Where to write.
        source: Name of the source; see :func:`cnn_reg.data.sources.load`, also for what follows.
        split: ``train`` or ``test``.
        num_pairs: How many pairs.
        seed: Of the pairs.
        folder: Where CIFAR10 lies.

    Returns:
        What was written: ``config``, ``pairs`` ``(n, 2)`` and ``labels`` ``(n,)``.

    Raises:
        ValueError: There is no such source or split, or a file is there already.
        OSError: The file cannot be written, or CIFAR10 cannot be had.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "pairs.safetensors")
        >>> write(path, "random", "test", 8)["pairs"].shape
        torch.Size([8, 2])
    """
    if Path(path).exists():
        raise ValueError(f"{os.fspath(path)} is there already; give another name")
    found = sources.load(source, split, folder)
    pairs = draw_pairs(found.classes, num_pairs, seed)
    labels = (found.classes[pairs[:, 0]] == found.classes[pairs[:, 1]]).to(torch.uint8)
    config = {"source": source, "title": found.name, "split": split, "num_pairs": num_pairs, "seed": seed, "digest": digest(found)}
    data = {"config": config, "pairs": pairs, "labels": labels}
    storage.write_nested(path, data, kind=KIND)
    return data


def load(path: str | os.PathLike[str], distance: int, *, folder: str | os.PathLike[str] | None = None, **options: Any) -> SameClassPairs:
    """The pairs of a file at a distance, with the pictures of their source.

    Args:
        path: What :func:`write` wrote.
        distance: Pixels between the two pictures.
        folder: Where CIFAR10 lies.
        options: Of :class:`cnn_reg.data.same_class.SameClassPairs`: ``image_size`` and ``scale``.

    Raises:
        ValueError: The file is damaged or of another kind, or the source holds other pictures now.
        OSError: The file cannot be read, or CIFAR10 cannot be had.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "pairs.safetensors")
        >>> data = write(path, "random", "test", 8)
        >>> load(path, 40).name
        'random (not CIFAR10), 40 pixels apart'
    """
    data = storage.read_nested(path, kind=KIND)
    try:
        config, pairs = data["config"], data["pairs"]
        source, split, wanted = config["source"], config["split"], config["digest"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)} is damaged ({line(error)} is missing)") from None
    found = sources.load(source, split, folder)
    if digest(found) != wanted:
        raise ValueError(f"{os.fspath(path)} belongs to other pictures than those of {found.name} that are there now")
    return SameClassPairs.of(found, len(pairs), distance, pairs=pairs, **options)
