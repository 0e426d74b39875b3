from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from cnn_reg.data import pathfinder_file
from cnn_reg.data.pathfinder import generate
from tensornet.files import storage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images.safetensors"


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pathfinder_file, "PIECE", 4)


def same(one, other):
    assert one.config == other.config
    assert bytes(one.streams) == bytes(other.streams)
    assert (one.ends == other.ends).all()
    assert all((one.known[name] == other.known[name]).all() for name in pathfinder_file.KNOWN)


def test_a_file_holds_what_is_generated(path, small_pieces):
    assert list(pathfinder_file.write(path, 5, 10, seed=2)) == [4, 8, 10]
    found, expected = pathfinder_file.read(path), generate(5, 10, seed=2)
    assert (found.images() == expected.images).all()
    assert (found.images(3, 7) == expected.images[3:7]).all()
    assert (found.known["labels"] == expected.labels).all()
    assert all((found.known[name] == values).all() for name, values in expected.metadata.items())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "nothing else is left"


@pytest.mark.parametrize("after", [1, 2])
def test_what_was_interrupted_continues_with_the_same_images(path, small_pieces, after, monkeypatch):
    list(pathfinder_file.write(path.with_name("whole.safetensors"), 5, 10, workers=2))
    writing = pathfinder_file.write(path, 5, 10)
    for _ in range(after):
        next(writing)
    writing.close()
    assert not path.exists()
    drawn = []
    monkeypatch.setattr(
        pathfinder_file, "generate", lambda *given, **options: drawn.append(options["first"]) or generate(*given, **options)
    )
    assert list(pathfinder_file.write(path, 5, 10)) == [4, 8, 10]
    assert drawn == [0, 4, 8][after:], "what was there is not drawn again"
    same(pathfinder_file.read(path), pathfinder_file.read(path.with_name("whole.safetensors")))


@pytest.mark.slow
def test_killed_processes_lose_nothing(path):
    code = f"from cnn_reg.data import pathfinder_file as f\nfor done in f.write({str(path)!r}, 3, 3000): print(done, flush=True)"
    whole = path.with_name("whole.safetensors")
    list(pathfinder_file.write(whole, 3, 3000))
    for wait in (0.05, 0.3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline().strip() == "500", "the first piece is there, drawn or found"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    list(pathfinder_file.write(path, 3, 3000))
    same(pathfinder_file.read(path), pathfinder_file.read(whole))


def test_a_finished_file_is_left_alone(path, small_pieces):
    list(pathfinder_file.write(path, 5, 6))
    before, leftover = path.read_bytes(), path.with_name("images.safetensors.parts")
    leftover.mkdir()
    assert list(pathfinder_file.write(path, 5, 6)) == [6]
    assert path.read_bytes() == before
    assert not leftover.exists(), "pieces that a kill at the very end left behind"


def test_other_images_are_not_overwritten(path, small_pieces):
    list(pathfinder_file.write(path, 5, 6))
    with pytest.raises(ValueError, match=r"images.safetensors holds other images: path_length = 5, not 7, seed = 0, not 1"):
        next(pathfinder_file.write(path, 7, 6, seed=1))
    path.write_text("precious")
    with pytest.raises(ValueError, match="no file of tensornet"):
        next(pathfinder_file.write(path, 5, 6))
    assert path.read_text() == "precious"


def test_pieces_of_other_images_are_not_used(path, small_pieces):
    writing = pathfinder_file.write(path, 5, 10)
    next(writing)
    writing.close()
    with pytest.raises(ValueError, match="seed = 0, got 1"):
        next(pathfinder_file.write(path, 5, 10, seed=1))


def test_a_damaged_image_is_named(path, small_pieces):
    list(pathfinder_file.write(path, 5, 6))
    data = storage.read_nested(path, kind=pathfinder_file.KIND)
    data["pixels"][int(data["ends"][2]) + 40] ^= 255
    storage.write_nested(path, data, kind=pathfinder_file.KIND)
    found = pathfinder_file.read(path)
    assert found.images(0, 3).shape == (3, 300, 300)
    with pytest.raises(ValueError, match="image 3 is damaged"):
        found.images()


@pytest.mark.parametrize("change", ["short", "ends", "missing"])
def test_parts_that_do_not_fit_together(path, small_pieces, change):
    list(pathfinder_file.write(path, 5, 6))
    data = storage.read_nested(path, kind=pathfinder_file.KIND)
    if change == "short":
        data["known"]["labels"] = data["known"]["labels"][:-1]
    elif change == "ends":
        data["ends"] = data["ends"].flip(0)
    else:
        del data["known"]["circles"]
    storage.write_nested(path, data, kind=pathfinder_file.KIND)
    with pytest.raises(ValueError, match="is damaged"):
        pathfinder_file.read(path)


def test_truncated_files(path, small_pieces):
    list(pathfinder_file.write(path, 5, 6))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no file of tensornet, or truncated"):
        pathfinder_file.read(path)


def test_a_full_disk_loses_nothing(path, small_pieces, monkeypatch):
    writing = pathfinder_file.write(path, 5, 10)
    next(writing)
    real = storage.save_file

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage, "save_file", full)
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\)"):
        list(writing)
    monkeypatch.setattr(storage, "save_file", real)
    assert list(pathfinder_file.write(path, 5, 10))[-1] == 10
    assert torch.from_numpy(pathfinder_file.read(path).images()).equal(torch.from_numpy(generate(5, 10).images))


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*absent does not exist"):
        next(pathfinder_file.write(tmp_path / "absent" / "images.safetensors", 5, 10))


def test_files_are_small(path):
    list(pathfinder_file.write(path, 7, 20))
    assert path.stat().st_size < 20 * 300 * 300 / 10
    assert np.array_equal(pathfinder_file.read(path).images(19), generate(7, 1, first=19).images)
