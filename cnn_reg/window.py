"""Images of which only a window varies, so that a first convolution need not differentiate at all the other pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.autograd import Function

Box: TypeAlias = tuple[slice, ...]  # for every axis of a batch, from the first to the last place of the window


def put(values: torch.Tensor, images: torch.Tensor, box: Box) -> torch.Tensor:
    """The images with other values in a window, differentiable in these values.

    Args:
        values: What is in the window, of the box's sizes.
        images: The batch, of any sizes; a constant.
        box: The window.

    Example:
        >>> values = torch.full((1, 2), 5.0, requires_grad=True)
        >>> put(values, torch.zeros(1, 4), (slice(0, 1), slice(1, 3)))
        tensor([[0., 5., 5., 0.]], grad_fn=<_PutBackward>)
    """
    placed: torch.Tensor = _Put.apply(values, images, box)
    return placed


class Window(NamedTuple):
    """The variable part of images."""

    values: torch.Tensor
    box: Box
    node: Any  # of the graph, to which the gradient at the values goes


def window_of(images: torch.Tensor) -> Window | None:
    """The window of images that come directly from :func:`put`.

    Example:
        >>> values = torch.ones(1, 2, requires_grad=True)
        >>> images = put(values, torch.zeros(1, 4), (slice(0, 1), slice(1, 3)))
        >>> window_of(images).values is values, window_of(images + 1)
        (True, None)
    """
    put_node: Any = images.grad_fn
    expected: Any = _Put._backward_cls
    if not isinstance(put_node, expected):
        return None
    return Window(put_node.values, put_node.box, put_node.next_functions[0][0])


def bounding_box(masks: Sequence[torch.Tensor], front: int, batch: Sequence[int]) -> Box:
    """The smallest box around places of a batch.

    Args:
        masks: Boolean masks over the places; at least one place is chosen.
        front: Axes before those of the places.
        batch: Sizes of the batch.

    Example:
        >>> mask = torch.tensor([[False, True, False, True], [False, False, False, False]])
        >>> bounding_box([mask], 2, (8, 3, 2, 4))
        (slice(0, 8, None), slice(0, 3, None), slice(0, 1, None), slice(1, 4, None))
    """
    chosen = torch.stack(list(masks)).any(0)
    box = [slice(0, size) for size in batch]
    for axis in range(chosen.ndim):
        places = chosen.movedim(axis, 0).flatten(1).any(1).nonzero() if chosen.ndim > 1 else chosen.nonzero()
        box[front + axis] = slice(int(places.min()), int(places.max()) + 1)
    return tuple(box)


class _Put(Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, images: torch.Tensor, box: Box) -> torch.Tensor:
        ctx.values, ctx.box = values, box
        placed = images.clone()
        placed[box] = values
        return placed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient[ctx.box], None, None
