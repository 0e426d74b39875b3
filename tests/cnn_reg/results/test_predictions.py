from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnn_reg.data import SameClassPairs, StoredImages
from cnn_reg.results.predictions import as_picture, sample_predictions


class Brightness(nn.Module):
    """A logit of the mean brightness, which is random in training mode."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, images):
        return self.dropout(images).mean((1, 2, 3))


def data(count=300):
    labels = torch.arange(count) % 3 == 0
    pixels = torch.randint(0, 120, (count, 6, 6), dtype=torch.uint8)
    pixels[torch.arange(count) % 2 == 0] += 130
    return StoredImages(pixels, labels.int(), "made")


def test_first_right_and_first_wrong():
    images, network = data(), Brightness()
    right, wrong = sample_predictions(network, images, count=5)
    bright = [number % 2 == 0 for number in range(300)]
    label = [number % 3 == 0 for number in range(300)]
    assert [sample.number for sample in right] == [number for number in range(300) if bright[number] == label[number]][:5]
    assert [sample.number for sample in wrong] == [number for number in range(300) if bright[number] != label[number]][:5]
    for sample in (*right, *wrong):
        assert sample.label == label[sample.number]
        expected = images.batch(torch.tensor([sample.number])).mean().sigmoid().item()
        assert sample.probability == pytest.approx(expected, abs=1e-6)
        assert sample.picture.shape == (6, 6)
    assert network.training


def test_fewer_than_asked_for_where_there_are_fewer():
    dark = StoredImages(torch.tensor([[[0, 0]], [[9, 9]]], dtype=torch.uint8), [0, 1], "two")
    right, wrong = sample_predictions(Brightness(), dark, count=3)
    assert [len(right), len(wrong)] == [2, 0]
    with pytest.raises(ValueError, match="count must be at least 1"):
        sample_predictions(Brightness(), dark, count=0)


def test_pictures_are_the_pixels_they_were_made_of():
    pixels = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    pixels[:, 0, 0], pixels[:, -1, -1] = 0, 255
    images = StoredImages(pixels, [0, 1, 1], "three")
    for number in range(3):
        picture = as_picture(images.batch(torch.tensor([number]))[0])
        np.testing.assert_array_equal(picture, pixels[number].numpy())


def test_a_strip_is_shown_without_its_padding():
    made = SameClassPairs(torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8) % 2, 4, 80)
    assert as_picture(made.batch(torch.tensor([0]))[0]).shape == (32, 224, 3)


def test_an_image_of_one_value():
    assert as_picture(torch.full((1, 4, 4), 3.0)).tolist() == [[0] * 4] * 4
