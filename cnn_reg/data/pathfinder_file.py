"""Files of Pathfinder images: written in pieces, so that making one can be interrupted and continued.

A file holds each image as a zlib stream of its 300 x 300 bytes, all in one row, since the images are nearly empty: about 3 KB instead of
90. A stream carries a checksum. While a file is made, its pieces lie in the folder named like it with ``.parts`` added.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnn_reg.data.pathfinder import PIECE, SIZE, check_length, generate
from tensornet.checks import integer, line
from tensornet.files import runs, storage

KIND, PART = "set of Pathfinder images", "part of a set of Pathfinder images"
LEVEL = 1  # of compression
KNOWN = ("labels", "circles", "distance", "restarts", "paddles", "skipped")


class Pathfinder(NamedTuple):
    """What a file holds.

    Attributes:
        config: ``path_length``, ``num_images``, ``seed`` and ``matched``.
        known: Arrays by name with a row an image: ``labels``, and the metadata of :func:`cnn_reg.data.pathfinder.generate`.
        streams: The compressed images, in one row.
        ends: ``(n,)`` where each image's stream ends.
    """

    config: dict[str, Any]
    known: dict[str, NDArray[Any]]
    streams: memoryview
    ends: NDArray[np.int64]

    def images(self, begin: int = 0, end: int | None = None) -> NDArray[np.uint8]:
        """The images from number ``begin`` to before ``end``, ``(n, 300, 300)``.

        Raises:
            ValueError: An image is damaged.

        Example:
            >>> import tempfile
            >>> path = Path(tempfile.mkdtemp(), "images.safetensors")
            >>> done = list(write(path, 5, 3))
            >>> read(path).images(1).shape
            (2, 300, 300)
        """
        bounds = np.concatenate([[0], self.ends])
        chosen = range(len(self.ends))[begin:end]
        made = np.empty((len(chosen), SIZE, SIZE), dtype=np.uint8)
        for place, index in enumerate(chosen):
            try:
                pixels = zlib.decompress(self.streams[bounds[index] : bounds[index + 1]])
                made[place] = np.frombuffer(pixels, dtype=np.uint8).reshape(SIZE, SIZE)
            except (zlib.error, ValueError) as error:
                raise ValueError(f"image {index} is damaged ({line(error)})") from None
        return made


def write(
    path: str | os.PathLike[str], path_length: int, num_images: int, seed: int = 0, *, matched: bool = False, workers: int = 1
) -> Iterator[int]:
    """Makes a file of images, and yields after each piece how many images there are.

    Pieces that an interrupted call left behind are used, so the same call continues it; a finished file is left as it is.

    Args:
        path: Where to write.
        path_length: As of :func:`cnn_reg.data.pathfinder.generate`, like what follows.
        num_images: How many images.
        seed: Of the images.
        matched: Both classes have the same distances of the circles.
        workers: Threads.

    Raises:
        ValueError: There is something else at ``path``, or pieces of other images; or an argument is out of range.
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> import tempfile
        >>> list(write(Path(tempfile.mkdtemp(), "images.safetensors"), 3, 600))
        [500, 600]
    """
    path, count = Path(path), integer("num_images", num_images, least=1)
    config = {
        "path_length": check_length(path_length),
        "num_images": count,
        "seed": integer("seed", seed, least=0),
        "matched": bool(matched),
    }
    folder = path.with_name(f"{path.name}.parts")
    if path.exists():
        found = read(path).config
        if found != config:
            raise ValueError(f"{path} holds other images: {differences(found, config)}")
        shutil.rmtree(folder, ignore_errors=True)  # there only if a call was killed at its very end
        yield count
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    runs.Run(folder, config, resume=True)
    parts = [folder / f"{first:09d}.safetensors" for first in range(0, count, PIECE)]
    for first, part in zip(range(0, count, PIECE), parts):
        size = min(PIECE, count - first)
        if not part.exists():
            made = generate(path_length, size, seed, first=first, matched=matched, workers=workers)
            streams = _compress(made.images, workers)
            known = {name: torch.from_numpy(values) for name, values in {"labels": made.labels, **made.metadata}.items()}
            pixels = torch.frombuffer(bytearray(b"".join(streams)), dtype=torch.uint8)
            sizes = torch.tensor([len(stream) for stream in streams])
            storage.write_nested(part, {"known": known, "pixels": pixels, "sizes": sizes}, kind=PART)
        if first + size < count:
            yield first + size
    _join(path, config, parts)
    shutil.rmtree(folder)
    yield count


def read(path: str | os.PathLike[str]) -> Pathfinder:
    """What :func:`write` wrote.

    Raises:
        ValueError: The file is damaged, or another kind of file.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "images.safetensors")
        >>> done = list(write(path, 5, 3))
        >>> read(path).config
        {'path_length': 5, 'num_images': 3, 'seed': 0, 'matched': False}
    """
    data = storage.read_nested(path, kind=KIND)
    try:
        config, known, ends = data["config"], {name: data["known"][name].numpy() for name in KNOWN}, data["ends"].numpy()
        count, pixels = config["num_images"], data["pixels"].numpy()
        whole = all(len(values) == count for values in (*known.values(), ends))
        if not whole or len(pixels) != ends[-1] or (np.diff(ends, prepend=0) < 0).any():
            raise ValueError("its parts do not fit together")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is damaged ({line(error)})") from None
    return Pathfinder(config, known, memoryview(pixels), ends)


def _compress(images: NDArray[np.uint8], workers: int) -> list[bytes]:
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda image: zlib.compress(image, LEVEL), images))


def _join(path: Path, config: dict[str, Any], parts: list[Path]) -> None:
    read_parts = [storage.read_nested(part, kind=PART) for part in parts]
    known: dict[str, Tensor] = {name: torch.cat([part["known"][name] for part in read_parts]) for name in KNOWN}
    pixels = torch.cat([part["pixels"] for part in read_parts])
    ends = torch.cat([part["sizes"] for part in read_parts]).cumsum(0)
    storage.write_nested(path, {"config": config, "known": known, "pixels": pixels, "ends": ends}, kind=KIND)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What a file's configuration has otherwise than wanted, in words; nothing where it is as wanted.

    Example:
        >>> differences({"path_length": 5, "seed": 0}, {"seed": 2})
        'seed = 0, not 2'
    """
    return ", ".join(f"{name} = {found.get(name)!r}, not {value!r}" for name, value in wanted.items() if found.get(name) != value)
