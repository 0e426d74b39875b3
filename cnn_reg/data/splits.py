"""Pathfinder images in the form that networks are trained on: reduced, in two splits, with what the distance alone would reach."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_reg.data import baseline, pathfinder_file
from cnn_reg.data.image_set import StoredImages, resize
from cnn_reg.data.pathfinder import PIECE, check_length, pieces
from tensornet.checks import integer

TRAIN, TEST, SIZE = 10_000, 10_000, 150

Piece = tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any]]  # images, labels, distances


class Splits(NamedTuple):
    """Two sets of images, both normalised by the first one's mean and standard deviation.

    Attributes:
        train: Images to learn from.
        test: Images to measure on.
        distance_accuracy: How often the distance of the circles alone predicts the label of the test images, by a band chosen on the
            training images. A network's accuracy is to be read beside it.
    """

    train: StoredImages
    test: StoredImages
    distance_accuracy: float


def generate_splits(
    path_length: int,
    num_train: int = TRAIN,
    num_test: int = TEST,
    seed: int = 0,
    *,
    size: int = SIZE,
    matched: bool = False,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Splits:
    """Draws images of the given path length and seed: the first ``num_train`` to learn from, and the next ones to measure on.

    Args:
        path_length: Paddles of a path.
        num_train: Training images.
        num_test: Test images.
        seed: Of the images.
        size: Rows and columns after reduction.
        matched: Both classes have the same distances of the circles.
        workers: Threads.
        progress: Called with the number of images there are, after every piece of them.

    Raises:
        TypeError: An argument is no integer.
        ValueError: An argument is out of range.

    Example:
        >>> made = generate_splits(5, 20, 10, size=100)
        >>> made.train.batch(torch.arange(4)).shape, len(made.test), made.test.name
        (torch.Size([4, 1, 100, 100]), 10, 'Pathfinder, path length 5')
    """
    count = _count(num_train, num_test)
    made = pieces(path_length, count, seed, matched=matched, workers=workers)
    parts = ((piece.images, piece.labels, piece.metadata["distance"]) for piece in made)
    return _split(parts, check_length(path_length), matched, num_train, size, progress)


def load_splits(
    path: str | os.PathLike[str],
    num_train: int = TRAIN,
    num_test: int = TEST,
    *,
    size: int = SIZE,
    wanted: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Splits:
    """The same of a file: its first ``num_train`` images, and the next ``num_test``.

    Args:
        path: A file of :func:`cnn_reg.data.pathfinder_file.write`.
        num_train: Training images.
        num_test: Test images.
        size: Rows and columns after reduction.
        wanted: What the file has to have been made with: any of ``path_length``, ``seed`` and ``matched``.
        progress: Called with the number of images there are, after every piece of them.

    Raises:
        ValueError: The file is damaged, of another kind, made with other settings, or holds fewer images.
        OSError: It cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "images.safetensors")
        >>> done = list(pathfinder_file.write(path, 3, 12))
        >>> load_splits(path, 8, 4).test.image_size
        (150, 150)
    """
    count, found = _count(num_train, num_test), pathfinder_file.read(path)
    if count > len(found.ends):
        raise ValueError(f"{os.fspath(path)} holds {len(found.ends)} images; {num_train} + {num_test} are wanted")
    other = pathfinder_file.differences(found.config, wanted or {})
    if other:
        raise ValueError(f"{os.fspath(path)} holds other images: {other}")
    known = found.known

    def part(begin: int) -> Piece:
        end = min(begin + PIECE, count)
        try:
            return found.images(begin, end), known["labels"][begin:end], known["distance"][begin:end]
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None

    parts = (part(begin) for begin in range(0, count, PIECE))
    return _split(parts, found.config["path_length"], found.config["matched"], num_train, size, progress)


def _count(num_train: int, num_test: int) -> int:
    return integer("num_train", num_train, least=1) + integer("num_test", num_test, least=1)


def _split(parts: Iterable[Piece], length: int, matched: bool, num_train: int, size: int, progress: Callable[[int], None] | None) -> Splits:
    images: list[Tensor] = []
    labels, distances = np.zeros(0, dtype=np.uint8), np.zeros(0)
    for pixels, label, distance in parts:
        images.append(resize(torch.from_numpy(pixels).unsqueeze(1), size))
        labels, distances = np.concatenate([labels, label]), np.concatenate([distances, distance])
        if progress:
            progress(len(labels))
    name = f"Pathfinder, path length {length}{', distances matched' if matched else ''}"
    together = torch.cat(images)
    train = StoredImages(together[:num_train], labels[:num_train], name)
    test = StoredImages(together[num_train:], labels[num_train:], name, (train.mean, train.std))
    chosen = baseline.band(distances[:num_train], labels[:num_train])
    return Splits(train, test, baseline.accuracy(distances[num_train:], labels[num_train:], chosen))
