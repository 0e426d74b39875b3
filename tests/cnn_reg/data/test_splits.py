from __future__ import annotations

import pytest
import torch

from cnn_reg.data import pathfinder_file
from cnn_reg.data.image_set import resize
from cnn_reg.data.pathfinder import generate
from cnn_reg.data.splits import generate_splits, load_splits


def test_the_splits_are_the_images_in_order():
    made = generate_splits(5, 30, 20, seed=7, size=100)
    whole = generate(5, 50, seed=7)
    small = resize(torch.from_numpy(whole.images).unsqueeze(1), 100)
    assert torch.equal(made.train.images, small[:30])
    assert torch.equal(made.test.images, small[30:])
    assert torch.equal(torch.cat([made.train.labels, made.test.labels]), torch.from_numpy(whole.labels).float())


def test_both_are_normalised_by_the_training_images():
    made = generate_splits(5, 40, 10)
    every = made.train.batch(torch.arange(40))
    assert every.shape == (40, 1, 150, 150)
    assert abs(every.mean()) < 1e-5
    assert abs(every.std(correction=0) - 1) < 1e-5
    assert torch.equal(made.test.mean, made.train.mean)
    assert torch.equal(made.test.std, made.train.std)


def test_a_file_gives_the_same_as_generating(tmp_path):
    path, seen = tmp_path / "images.safetensors", []
    list(pathfinder_file.write(path, 9, 60, seed=1, matched=True))
    loaded = load_splits(path, 30, 20, progress=seen.append)
    made = generate_splits(9, 30, 20, seed=1, matched=True, workers=2)
    assert seen == [50]
    assert loaded.train.name == made.train.name == "Pathfinder, path length 9, distances matched"
    assert torch.equal(loaded.train.images, made.train.images)
    assert torch.equal(loaded.test.batch(torch.arange(20)), made.test.batch(torch.arange(20)))
    assert loaded.distance_accuracy == made.distance_accuracy


def test_the_distance_alone_reaches_what_is_published():
    made = generate_splits(3, 500, 500, size=10)
    assert abs(made.distance_accuracy - 0.95) < 0.03 + 3 * (0.95 * 0.05 / 500) ** 0.5


def test_too_few_images(tmp_path):
    path = tmp_path / "images.safetensors"
    list(pathfinder_file.write(path, 3, 5))
    with pytest.raises(ValueError, match=r"images.safetensors holds 5 images; 10000 \+ 10000 are wanted"):
        load_splits(path)
    with pytest.raises(ValueError, match="num_test must be at least 1; got 0"):
        load_splits(path, 5, 0)
