from __future__ import annotations

import pytest
import torch

from cnn_reg.data import pair_file, sources
from tensornet.files import storage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pairs.safetensors"


def test_a_file_serves_every_distance(path):
    written = pair_file.write(path, "random", "test", 20, seed=4)
    near, far = (pair_file.load(path, distance) for distance in (0, 160))
    assert torch.equal(near.pairs, far.pairs)
    assert torch.equal(near.labels, written["labels"].float())
    assert near.name == "random (not CIFAR10), 0 pixels apart"
    assert pair_file.load(path, 0, scale=0.5).image_size == (112, 112)
    assert path.stat().st_size < 20_000, "pictures are not in the file"


def test_an_existing_file_is_not_overwritten(path):
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"pairs.safetensors is there already; give another name"):
        pair_file.write(path, "random", "test", 20)
    assert path.read_text() == "precious"


def test_other_pictures_are_noticed(path, monkeypatch):
    pair_file.write(path, "random", "test", 20)
    found = sources.load("random", "test")
    monkeypatch.setattr(sources, "load", lambda *given: found._replace(images=255 - found.images))
    with pytest.raises(ValueError, match="belongs to other pictures than those of random"):
        pair_file.load(path, 0)


def test_foreign_and_damaged_files(path):
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="is no file of tensornet, or truncated"):
        pair_file.load(path, 0)
    storage.write_nested(path, {"config": {}}, kind=pair_file.KIND)
    with pytest.raises(ValueError, match="is damaged"):
        pair_file.load(path, 0)
    storage.write_nested(path, {}, kind="checkpoint")
    with pytest.raises(ValueError, match="holds a checkpoint; a set of pairs of pictures is needed"):
        pair_file.load(path, 0)
