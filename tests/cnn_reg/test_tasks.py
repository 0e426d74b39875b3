from __future__ import annotations

import pytest
import torch

from cnn_reg.config import Config
from cnn_reg.data import pathfinder_file
from cnn_reg.regions import Region
from cnn_reg.tasks import make_task


def test_pathfinder_s_splits_share_no_image_and_validation_is_extra():
    config = Config(path_length=3, train_images=6, validation_images=3, test_images=5, image_size=32)
    task = make_task(config)
    assert (len(task.train), len(task.test), task.training_images) == (9, 5, 6)
    images = torch.cat([task.train.images, task.test.images])
    assert len(torch.unique(images.flatten(1), dim=0)) == 14
    first, second = task.regions(torch.Generator().manual_seed(0))
    assert (first.height, first.width) == (2, 2)
    assert abs(first.top - second.top) >= 2 or abs(first.left - second.left) >= 2
    assert 0 <= task.baseline <= 1


def test_regions_of_is_same_class_are_the_two_squares_in_random_order():
    config = Config(dataset="same-class", source="random", distance=160, train_images=6, test_images=5, image_size=224)
    task = make_task(config)
    generator = torch.Generator().manual_seed(0)
    drawn = {task.regions(generator) for _ in range(50)}
    left, right = Region(96, 0, 32, 32), Region(96, 192, 32, 32)
    assert drawn == {(left, right), (right, left)}
    assert "not CIFAR10" in task.title
    assert task.baseline is None


def test_images_of_a_file_are_those_that_would_be_made(tmp_path):
    config = Config(path_length=3, train_images=6, validation_images=3, test_images=5, image_size=32, data_seed=2)
    path = tmp_path / "images.safetensors"
    list(pathfinder_file.write(path, 3, 14, 2))
    made, read = make_task(config, tmp_path), make_task(config, path)
    for one, other in ((made.train, read.train), (made.test, read.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    assert made.baseline == read.baseline
    with pytest.raises(ValueError, match=r"images\.safetensors holds other images: seed = 2, not 0"):
        make_task(Config(path_length=3, train_images=6, test_images=5), path)
    with pytest.raises(ValueError, match=r"images\.safetensors holds 14 images; 9 \+ 6 are wanted"):
        make_task(Config(path_length=3, train_images=9, test_images=6, data_seed=2), path)
    with pytest.raises(FileNotFoundError):
        make_task(config, tmp_path / "absent")
