from __future__ import annotations

import threading

import pytest
import torch

from cnn_reg.data import split_cache
from cnn_reg.data.split_cache import cached_splits
from cnn_reg.data.splits import generate_splits


def test_what_is_read_is_what_was_made(tmp_path):
    made = generate_splits(5, 20, 10, seed=3, size=32, matched=True)
    for _ in range(2):  # made, then read
        found = cached_splits(tmp_path, 5, 20, 10, 3, size=32, matched=True)
        for split, known in ((found.train, made.train), (found.test, made.test)):
            assert torch.equal(split.images, known.images)
            assert torch.equal(split.labels, known.labels)
            assert torch.equal(split.batch(torch.arange(4)), known.batch(torch.arange(4)))  # with the same moments
            assert split.name == known.name
        assert found.distance_accuracy == made.distance_accuracy
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_whatever_changes_images_has_a_file_of_its_own_and_workers_do_not(tmp_path):
    first = cached_splits(tmp_path, 5, 20, 10, 0, size=32, workers=1)
    assert torch.equal(cached_splits(tmp_path, 5, 20, 10, 0, size=32, workers=2).train.images, first.train.images)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    for length, train, test, seed, size in (
        (7, 20, 10, 0, 32),
        (5, 18, 10, 0, 32),
        (5, 20, 12, 0, 32),
        (5, 20, 10, 1, 32),
        (5, 20, 10, 0, 40),
    ):
        found = cached_splits(tmp_path, length, train, test, seed, size=size)
        assert (len(found.train), len(found.test), found.train.image_size) == (train, test, (size, size))
    assert len(list(tmp_path.glob("*.safetensors"))) == 6


def test_those_who_come_at_once_make_images_once(tmp_path, monkeypatch):
    made = []

    def counted(*arguments, **options):
        made.append(arguments)
        return generate_splits(*arguments, **options)

    monkeypatch.setattr(split_cache, "generate_splits", counted)
    found = []
    threads = [threading.Thread(target=lambda: found.append(cached_splits(tmp_path, 3, 30, 10, 0, size=32))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(found)) == (1, 3)


def test_a_damaged_file_is_named(tmp_path):
    cached_splits(tmp_path, 5, 20, 10, 0, size=32)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path.name} is no file of tensornet, or truncated"):
        cached_splits(tmp_path, 5, 20, 10, 0, size=32)
