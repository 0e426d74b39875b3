"""Images of which only a window varies."""

from __future__ import annotations

import torch

from cnn_reg.window import bounding_box, put, window_of

BOX = (slice(0, 2), slice(0, 1), slice(1, 3), slice(0, 2))


def test_the_window_is_replaced_and_the_rest_a_constant():
    images = torch.randn(2, 1, 4, 3, dtype=torch.float64)
    before = images.clone()
    values = torch.randn(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    placed = put(values, images, BOX)
    assert torch.equal(placed[BOX], values)
    outside = torch.ones(4, 3, dtype=torch.bool)
    outside[1:3, 0:2] = False
    assert torch.equal(placed[..., outside], before[..., outside])
    assert torch.equal(images, before)
    assert torch.autograd.gradcheck(lambda given: put(given, images, BOX), values)
    assert torch.autograd.gradgradcheck(lambda given: put(given, images, BOX).pow(3), values)


def test_it_is_known_only_directly_afterwards():
    values = torch.zeros(2, 1, 2, 2, requires_grad=True)
    placed = put(values, torch.randn(2, 1, 4, 3), BOX)
    found = window_of(placed)
    assert found is not None
    assert found.values is values
    assert found.box == BOX
    assert window_of(placed * 2) is None
    assert window_of(placed.detach()) is None


def test_the_box_is_the_smallest_around_all_places():
    one, other = torch.zeros(5, 6, dtype=torch.bool), torch.zeros(5, 6, dtype=torch.bool)
    one[1, 4], other[3, 2] = True, True
    assert bounding_box([one, other], 2, (7, 3, 5, 6)) == (slice(0, 7), slice(0, 3), slice(1, 4), slice(2, 5))
    assert bounding_box([one], 1, (7, 5, 6)) == (slice(0, 7), slice(1, 2), slice(4, 5))
    assert bounding_box([torch.tensor([False, True, True, False])], 2, (7, 3, 4)) == (slice(0, 7), slice(0, 3), slice(1, 3))
