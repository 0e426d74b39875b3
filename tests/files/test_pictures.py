"""Pictures: round trips in every format, what is known of them, and files that are none."""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
import pytest

from tensornet.files.pictures import SUFFIXES, photograph, read_mask, read_picture, write_picture

Image = pytest.importorskip("PIL.Image")

LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(float)
SMOOTH = np.add.outer(np.linspace(0, 120, 32), np.linspace(0, 120, 48))


def test_every_format_is_tested():
    assert set(LOSSLESS) < set(SUFFIXES)
    assert len(SUFFIXES) == 7


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("pixels", [COLOURS, COLOURS[..., 0], COLOURS[:1, :1]])
def test_lossless_round_trip(tmp_path, suffix, pixels):
    write_picture(tmp_path / f"a{suffix}", pixels)
    found, known = read_picture(tmp_path / f"a{suffix}")
    assert np.array_equal(found, pixels)
    assert (found.dtype, known) == (np.float64, None)


@pytest.mark.parametrize("suffix", sorted(set(SUFFIXES) - set(LOSSLESS)))
@pytest.mark.parametrize("colours", [1, 3])
def test_lossy_round_trip(tmp_path, suffix, colours):
    """Grey WebP pictures do not exist."""
    pixels = SMOOTH if colours == 1 else np.stack([SMOOTH] * 3, 2)
    write_picture(tmp_path / f"a{suffix}", pixels)
    found, known = read_picture(tmp_path / f"a{suffix}")
    assert found.shape == ((32, 48, 3) if suffix == ".webp" else pixels.shape)
    assert np.abs((found if pixels.ndim == found.ndim else found[..., 0]) - pixels).mean() < 3
    assert known is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffixes_in_upper_case(tmp_path, suffix):
    write_picture(tmp_path / f"a{suffix}", SMOOTH)
    write_picture(tmp_path / f"A{suffix.upper()}", SMOOTH)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"A{suffix.upper()}").read_bytes()


def test_numbers_are_rounded_and_limited(tmp_path):
    write_picture(tmp_path / "a.png", np.array([[-50.0, 0.4, 0.6, 254.6, 1e9]]))
    assert read_picture(tmp_path / "a.png")[0].tolist() == [[0, 0, 1, 255, 255]]


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "wanted", "known"),
    [
        ("1", 1, ".png", 255, None),
        ("L", 7, ".png", 7, None),
        ("P", 0, ".png", [9, 8, 7], None),
        ("RGB", (1, 2, 3), ".tif", [1, 2, 3], None),
        ("CMYK", (0, 0, 0, 0), ".tif", [255, 255, 255], None),
        ("LA", (7, 128), ".png", 7, True),
        ("LA", (7, 127), ".png", 7, False),
        ("RGBA", (1, 2, 3, 128), ".png", [1, 2, 3], True),
        ("RGBA", (1, 2, 3, 127), ".tif", [1, 2, 3], False),
        ("RGBA", (255, 255, 255, 0), ".webp", None, False),
    ],
)
def test_modes(tmp_path, mode, colour, suffix, wanted, known):
    picture = Image.new(mode, (3, 2), colour)
    if mode == "P":
        picture.putpalette([9, 8, 7])
    picture.save(tmp_path / f"a{suffix}")
    found, where = read_picture(tmp_path / f"a{suffix}")
    assert found.shape[:2] == (2, 3)
    assert wanted is None or (found == wanted).all()
    assert where is None if known is None else (where.shape == (2, 3) and (where == known).all())


@pytest.mark.parametrize(("mode", "transparency"), [("P", 1), ("P", bytes([255, 0])), ("L", 1), ("RGB", (1, 1, 1))])
def test_a_transparent_colour_is_unknown(tmp_path, mode, transparency):
    picture = Image.new(mode, (2, 1), 0)
    if mode == "P":
        picture.putpalette([9, 8, 7, 6, 5, 4])
    picture.putpixel((1, 0), (1, 1, 1) if mode == "RGB" else 1)
    picture.save(tmp_path / "a.png", transparency=transparency)
    assert read_picture(tmp_path / "a.png")[1].tolist() == [[True, False]]


def test_masks_are_where_a_picture_is_bright(tmp_path):
    write_picture(tmp_path / "grey.png", np.array([[0.0, 127, 128, 255]]))
    assert read_mask(tmp_path / "grey.png").tolist() == [[False, False, True, True]]
    write_picture(tmp_path / "colour.png", np.array([[[255.0, 255, 0], [255, 0, 0]]]))
    assert read_mask(tmp_path / "colour.png").tolist() == [[True, False]]


def png(colour_type, channels):
    """A PNG file of one pixel with 16 bits per channel, which Pillow does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixel = zlib.compress(bytes(1 + 2 * channels))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, colour_type, 0, 0, 0))
        + chunk(b"IDAT", pixel)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_more_bits_per_channel_are_not_dropped_silently(tmp_path, colour_type, channels):
    (tmp_path / "a.png").write_bytes(png(colour_type, channels))
    with pytest.raises(ValueError, match="a picture with 8 bits per channel is needed; got 16 bits"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_other_modes_are_refused(tmp_path, mode):
    Image.new(mode, (2, 2)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=f"a picture with 8 bits per channel is needed; got mode {mode} of Pillow"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"P6 1 1 255\n", b"\x80\x04K\x01."])
def test_foreign_files(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="no picture, or truncated"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files(tmp_path, suffix):
    write_picture(tmp_path / f"a{suffix}", COLOURS)
    whole = (tmp_path / f"a{suffix}").read_bytes()
    for share in (0.2, 0.5, 0.8):
        (tmp_path / f"b{suffix}").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match="no picture, or truncated"):
            read_picture(tmp_path / f"b{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_never_another_error(tmp_path, suffix):
    write_picture(tmp_path / f"a{suffix}", COLOURS)
    rng, whole, errors = np.random.default_rng(0), (tmp_path / f"a{suffix}").read_bytes(), []
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        (tmp_path / f"b{suffix}").write_bytes(damaged)
        try:
            read_picture(tmp_path / f"b{suffix}")  # damaged pixels may be pixels still
        except ValueError as error:
            errors.append(str(error))
    assert errors
    assert all(re.search("no picture, or truncated|8 bits per channel", text) for text in errors)


def test_large_pictures_are_read_and_enormous_ones_refused(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.png", SMOOTH)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SMOOTH.size - 1)
    assert read_picture(tmp_path / "a.png")[0].shape == SMOOTH.shape
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SMOOTH.size // 2 - 1)
    with pytest.raises(ValueError, match=r"no picture, or truncated .*exceeds limit"):
        read_picture(tmp_path / "a.png")


def test_the_photograph():
    pixels = photograph()
    assert (pixels.shape, pixels.dtype) == ((427, 640, 3), np.float64)
    assert 0 <= pixels.min() < pixels.max() <= 255
