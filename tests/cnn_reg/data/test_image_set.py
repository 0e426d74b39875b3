from __future__ import annotations

import pytest
import torch

from cnn_reg.data import StoredImages
from cnn_reg.data.image_set import channel_moments, normalise, resize


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


def test_batches_have_mean_0_and_deviation_1():
    made = StoredImages(pictures(50, 3, 8, 9), torch.arange(50) % 2, "noise")
    every = made.batch(torch.arange(50))
    assert torch.allclose(every.mean((0, 2, 3)), torch.zeros(3), atol=1e-6)
    assert torch.allclose(every.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-6)


def test_a_batch_is_the_formula():
    images = pictures(5, 2, 4, 4)
    mean, std = torch.tensor([0.3, 0.6]), torch.tensor([0.2, 0.5])
    made = StoredImages(images, [0, 1, 0, 1, 1], "noise", (mean, std))
    expected = (images[[4, 1]].double() / 255 - mean[:, None, None]) / std[:, None, None]
    found = made.batch(torch.tensor([4, 1]))
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=1e-6)


def test_moments_are_exact():
    images = pictures(20, 3, 7, 5)
    values = images.double() / 255
    mean, std = channel_moments(images)
    assert torch.allclose(mean.double(), values.mean((0, 2, 3)), atol=1e-7)
    assert torch.allclose(std.double(), values.std((0, 2, 3), correction=0), atol=1e-7)


def test_a_channel_that_does_not_vary_is_divided_by_1():
    made = StoredImages(torch.full((2, 3, 3), 51, dtype=torch.uint8), [0, 1], "flat")
    assert torch.allclose(made.batch(torch.arange(2)), torch.zeros(2, 1, 3, 3), atol=1e-7)


def test_resizing_is_torchvisions():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = pictures(3, 1, 300, 300)
    expected = functional.resize(images.float(), [150, 150], antialias=True)
    assert (resize(images, 150).float() - expected).abs().max() <= 0.5
    assert resize(images, 300) is images


def test_resizing_in_portions_changes_nothing():
    images = pictures(300, 1, 12, 12)
    assert torch.equal(resize(images, (6, 5))[290:], resize(images[290:], (6, 5)))


def test_items_and_moving():
    made = StoredImages(pictures(4, 6, 6), [0, 1, 1, 0], "noise").to("cpu")
    image, label = made[-1]
    assert torch.equal(image, made.batch(torch.tensor([3]))[0])
    assert label == 0
    with pytest.raises(IndexError, match="range"):
        made[4]
    assert torch.equal(made.to("meta").labels.new_ones(1, device="cpu"), torch.ones(1))
    assert made.images.device.type == "cpu", "the original stays where it was"


def test_bad_input():
    with pytest.raises(ValueError, match=r"images must be uint8 .*; got float32 of shape \(4, 6, 6\)"):
        StoredImages(torch.rand(4, 6, 6), [0] * 4, "noise")
    with pytest.raises(ValueError, match=r"one label an image is needed; got .* for 4 images"):
        StoredImages(pictures(4, 6, 6), [0] * 3, "noise")


def test_normalising_writes_one_new_tensor():
    pixels = pictures(2, 1, 3, 3)
    before = pixels.clone()
    normalise(pixels, torch.tensor([0.5]), torch.tensor([0.5]))
    assert torch.equal(pixels, before)
