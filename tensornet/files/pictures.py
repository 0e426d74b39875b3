"""Pictures as arrays of numbers from 0 to 255, with masks; and a photograph to try things on."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
HALF = 128  # from which a pixel of a mask or an alpha channel counts as known
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # Pillow's names of those with 8 bits per channel


def read_picture(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The pixels, ``(rows, columns)`` of a grey picture or ``(rows, columns, 3)``, and where they are known; ``None`` for everywhere.

    Raises:
        ValueError: The file is no picture, truncated, or has more than 8 bits per channel.
        OSError: It cannot be opened.
        ModuleNotFoundError: Pillow is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "grey.png")
        >>> write_picture(path, np.array([[0.0, 255.0]]))
        >>> read_picture(path)
        (array([[  0., 255.]]), None)
    """
    from PIL import Image

    with path.open("rb"):  # a missing or unreadable file is reported as such
        pass
    try:
        # Pillow warns of large pictures, of what is broken in a file beside the pixels, and of some transparent colours.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            deep = any(";16" in str(tile[3]) for tile in picture.tile)  # Pillow drops half of the bits of colours
            picture.load()
            if deep or picture.mode not in MODES:
                found = "16 bits" if deep else f"mode {picture.mode} of Pillow"
            else:
                return _pixels(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture, or truncated ({error})") from None
    raise ValueError(f"a picture with 8 bits per channel is needed; got {found}")


def _pixels(picture: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    known = None
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        known = np.asarray(picture.convert("RGBA"))[..., 3] >= HALF
    pixels = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
    return np.asarray(pixels).astype(np.float64), known


def read_mask(path: Path) -> NDArray[Any]:
    """Where a picture is bright, ``(rows, columns)``.

    Raises:
        ValueError: As for :func:`read_picture`.
        OSError: The file cannot be opened.
        ModuleNotFoundError: Pillow is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "mask.png")
        >>> write_picture(path, np.array([[0.0, 255.0]]))
        >>> read_mask(path)
        array([[False,  True]])
    """
    pixels, _ = read_picture(path)
    return (pixels if pixels.ndim == 2 else pixels.mean(2)) >= HALF


def write_picture(path: Path, pixels: NDArray[Any]) -> None:
    """Writes numbers, rounded and limited to 0 to 255, of the shape ``(rows, columns)`` or ``(rows, columns, 3)``.

    Raises:
        OSError: The folder is missing, or cannot be written to.
        ModuleNotFoundError: Pillow is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "colour.png")
        >>> write_picture(path, np.array([[[300.0, 1.4, -2.0]]]))
        >>> read_picture(path)[0].tolist()
        [[[255.0, 1.0, 0.0]]]
    """
    from PIL import Image

    encoded = io.BytesIO()  # since Pillow takes a file cut short by a full disk for written
    picture = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    picture.save(encoded, Image.registered_extensions()[path.suffix.lower()])
    path.write_bytes(encoded.getvalue())


def photograph() -> NDArray[Any]:
    """The photograph ``china.jpg`` that scikit-learn ships, shape ``(427, 640, 3)``.

    Raises:
        ModuleNotFoundError: scikit-learn or Pillow is not installed.

    Example:
        >>> photograph().shape
        (427, 640, 3)
    """
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image("china.jpg")).astype(np.float64)
