"""Feature maps against NumPy, patches by loops over their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tensornet.layers.features import AffineFeatures, PatchFeatures, TrigonometricFeatures


def close(found, wanted):
    wanted = wanted.detach() if isinstance(wanted, torch.Tensor) else wanted
    np.testing.assert_allclose(found.detach(), wanted, rtol=1e-10, atol=1e-12)


INPUTS = torch.rand(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_affine():
    wanted = np.concatenate([np.ones((5, 4, 1)), (INPUTS.numpy() - 0.25) / 0.5], axis=2)
    close(AffineFeatures(center=0.25, scale=0.5)(INPUTS), wanted)


def test_trigonometric():
    angles = INPUTS.numpy() * np.pi / 2
    close(TrigonometricFeatures()(INPUTS), np.concatenate([np.cos(angles), np.sin(angles)], axis=2) / np.sqrt(3))


@pytest.mark.parametrize("features", [AffineFeatures(), TrigonometricFeatures(), PatchFeatures(4, dtype=torch.float64)])
def test_inputs_without_channels_are_of_one_channel(features):
    close(features(INPUTS[:, :, 0]), features(INPUTS[:, :, :1]))


@pytest.mark.parametrize(
    ("size", "channels", "patch", "stride"),
    [((5,), 2, 3, 1), ((4, 5), 1, 2, 2), ((4, 3), 3, 3, 1), ((7, 5), 2, 2, 3), ((3, 2, 4), 2, 2, 1)],
)
def test_patches(size, channels, patch, stride):
    features = PatchFeatures(
        size, 4, channels=channels, patch=patch, stride=stride, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    nn.init.normal_(features.convolution.bias)
    weight, bias = features.convolution.weight.detach().numpy(), features.convolution.bias.detach().numpy()
    inputs = torch.randn(2, int(np.prod(size)), channels, dtype=torch.float64).numpy()
    images = inputs.reshape(2, *size, channels)
    before = [max((-(-length // stride) - 1) * stride + patch - length, 0) // 2 for length in size]
    wanted = np.zeros((2, *features.grid, 5))
    wanted[..., 0] = 1
    for place in np.ndindex(*features.grid):
        wanted[(slice(None), *place, slice(1, None))] = bias
        for offset in np.ndindex(*[patch] * len(size)):
            pixel = tuple(stride * cell + step - first for cell, step, first in zip(place, offset, before))
            if all(0 <= axis < length for axis, length in zip(pixel, size)):
                wanted[(slice(None), *place, slice(1, None))] += images[(slice(None), *pixel)] @ weight[(..., *offset)].T
    close(features(torch.tensor(inputs)), np.maximum(wanted, 0).reshape(2, -1, 5))
