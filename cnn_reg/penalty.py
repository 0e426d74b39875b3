"""The regularizer of Section 6.1: how little the gradient at one region of the input turns when another region is replaced."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from cnn_reg.cosines import cosines
from cnn_reg.passes import BATCH_NORMS, BatchNorm, RandomState, batch_norm_set
from cnn_reg.regions import AnyRegion, Index, region_index, region_mask
from cnn_reg.window import Box, bounding_box, put

_SHAPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "absolute": torch.abs,
    "squared": torch.square,
    "signed": lambda cosine: cosine,
}
_BRANCHES = ("none", "first", "second", "both")


@dataclass(frozen=True)
class PenaltyInfo:
    """What the penalty was computed from. The tensors stay on the device; numbers are fetched only when they are read.

    Args:
        outputs: What the model returned for the unchanged images, with its graph, for the loss of the training step.
        cosines: Cosine of each pair of regions and sample, shape (pairs, batch), without a graph; 0 where there is none.
        zero: Which of them there are none of, because a gradient is zero.
        nonfinite: Which of them there are none of, because a gradient is infinite or not a number.
        skipped: Why there is no penalty at all, or ``None``.

    Example:
        >>> penalty, info = gradient_direction_penalty(lambda x: x.flatten(1).prod(1), torch.rand(4, 1, 2), [0], [1])
        >>> info.cosines.shape, info.zero_gradients, info.skipped
        (torch.Size([1, 4]), 0, None)
    """

    outputs: Any
    cosines: torch.Tensor
    zero: torch.Tensor
    nonfinite: torch.Tensor
    skipped: str | None = None

    @property
    def zero_gradients(self) -> int:
        """How many samples were left out because one of their two gradients is zero, over all pairs of regions."""
        return int(self.zero.sum())

    @property
    def nonfinite_gradients(self) -> int:
        """How many samples were left out because one of their two gradients is infinite or not a number."""
        return int(self.nonfinite.sum())

    @property
    def samples(self) -> int:
        """Over how many samples the mean was taken, over all pairs of regions."""
        return self.cosines.numel() - self.zero_gradients - self.nonfinite_gradients

    @property
    def mean_abs_cosine(self) -> float:
        """Mean |cos| over these samples, whichever cosine is penalized; 0 without samples."""
        return float(self.cosines.abs().sum()) / max(1, self.samples)


def gradient_direction_penalty(
    model: Callable[[torch.Tensor], Any],
    images: torch.Tensor,
    region_i: AnyRegion | Sequence[AnyRegion],
    region_j: AnyRegion | Sequence[AnyRegion],
    *,
    output: Callable[[Any], torch.Tensor] | torch.Tensor | None = None,
    cosine: Literal["absolute", "squared", "signed"] = "absolute",
    stop_gradient: Literal["none", "first", "second", "both"] = "none",
    permutation: Literal["cyclic", "random"] | torch.Tensor = "cyclic",
    generator: torch.Generator | None = None,
    batch_norm: BatchNorm = "update",
    same_dropout: bool = False,
    channel_dim: int | None = 1,
) -> tuple[torch.Tensor, PenaltyInfo]:
    """Mean over the batch of ``|cos(g, g')|``, the regularizer of Section 6.1, and what it was computed from.

    ``g`` is the gradient of a sample's output f(x) with respect to the input's places in region I, and ``g'`` the same at x', which is
    x with region J taken from another sample of the batch. A function that models no dependence between the regions,
    ``f(x) = a(x_I) b(x_J)``, has the cosine 1 or -1; a loss with the penalty pushes away from that::

        penalty, info = gradient_direction_penalty(model, images, region_i, region_j)
        loss = criterion(info.outputs, labels) + coefficient * penalty

    The model runs once on the images, with outputs that serve the loss too, and once more for each pair of regions. Samples with a
    gradient that is zero (no entry reaches 1e-19 in float32, see :func:`cnn_reg.cosines.cosines`) or not finite have no cosine: they
    are left out of the mean and counted, so that the penalty is never NaN, nor is its derivative in these gradients, which is 0. With no
    samples left the penalty is 0. A sample whose own outputs are not finite spoils the weights' gradients all the same, as it does those
    of the loss: leave it out of the batch.

    Under autocast the model runs as autocast says, and the cosine in float32 or better. In float16 the gradients need a scale, which
    the cosine does not see: ``output=lambda logits: 1024 * logits.flatten()``. Under ``DistributedDataParallel`` pass the wrapped
    model, made with ``broadcast_buffers=False``; samples are exchanged within the batch of a process. Models compiled by
    ``torch.compile`` cannot be differentiated twice. Within ``torch.no_grad()`` and ``torch.inference_mode()`` the
    penalty is only measured.

    Args:
        model: Maps a batch to its outputs. It runs in the mode it is in.
        images: Batch of floating-point inputs, (batch, channels, rows, columns), (batch, channels, length) or alike. They are
            constants: no gradient flows back into them.
        region_i: Where gradients are taken: a :class:`Region`, a boolean mask (tensor or array) over the places, or the indices of
            places, counted row by row. A list of these for several pairs.
        region_j: What is replaced: likewise, disjoint from ``region_i``, and as many.
        output: Which number of each sample f is. ``None``: the only output; with several classes, the logit that is the largest on
            the unchanged images, the same in all passes. A tensor of class labels: the logits of these. A function: takes what the
            model returns to a tensor (batch,).
        cosine: Penalize the ``"absolute"`` value (published), the ``"squared"`` or the ``"signed"`` cosine.
        stop_gradient: Which gradient counts as constant: none (published), the ``"first"`` (g), the ``"second"`` (g'), or ``"both"``,
            which measures without the memory and time of second derivatives.
        permutation: Which sample gives region J. ``"cyclic"``: the next one (published). ``"random"``: the next one after the batch
            is shuffled, so that all others are equally likely. A tensor: sample ``permutation[b]`` gives to sample b.
        generator: Source of randomness of ``"random"``; torch's global one by default.
        batch_norm: Batch normalisation in the passes on x': ``"update"`` runs as ever, so that running statistics move in each pass
            (published); ``"frozen"`` leaves the running statistics alone; ``"eval"`` normalises by them.
        same_dropout: Start all passes from the same random state, so that dropout removes the same units (published: it does not).
        channel_dim: Axis of the channels: 1, -1, or ``None`` where every entry of a sample is a place.

    Returns:
        The penalty, a scalar of float32 or better, and a :class:`PenaltyInfo`. A batch of one has no other sample: its penalty is 0,
        and ``info.skipped`` says so.

    Raises:
        TypeError: The images are no floating-point tensor, a region is none, or ``batch_norm`` needs a module and the model is none.
        ValueError: Regions overlap, reach outside or differ in number; an option has an unknown value; a permutation has a fixed
            point; f is no single number a sample.

    Example:
        >>> from cnn_reg import Region
        >>> x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
        >>> top, bottom = Region(0, 0, 1, 4), Region(3, 0, 1, 4)
        >>> penalty, info = gradient_direction_penalty(lambda x: x[:, 0, 0].sin().sum(1) * x[:, 0, 3].prod(1), x, top, bottom)
        >>> round(penalty.item(), 12), info.zero_gradients
        (1.0, 0)
        >>> gradient_direction_penalty(lambda x: (x[:, 0, 0] * x[:, 0, 3]).sum(1), x, top, bottom)[0].item() < 0.99
        True
    """
    _check_choices(cosine=(cosine, tuple(_SHAPES)), stop_gradient=(stop_gradient, _BRANCHES), batch_norm=(batch_norm, BATCH_NORMS))
    pairs, box = _pairs(region_i, region_j, images, channel_dim)
    source = _source(permutation, len(images), generator, images.device)
    wanted = torch.is_grad_enabled()
    start = RandomState(images.device) if same_dropout else None
    with torch.inference_mode(False), torch.enable_grad():
        images = images.clone() if images.is_inference() else images.detach()
        window = images[box].requires_grad_()
        outputs = model(put(window, images, box))
        if source is None:
            return _skipped(outputs, len(pairs), images)
        scalar = _reduction(output, outputs, len(images))
        graph = wanted and stop_gradient in ("none", "second")
        first = _gradient(scalar(outputs), window, graph=graph, keep=wanted)
        found = []
        for index_i, index_j in pairs:
            changed = images.clone()
            changed[index_j] = images[index_j][source]
            window = changed[box].requires_grad_()
            if start is not None:
                start.restore()
            with batch_norm_set(model, batch_norm):
                values = scalar(model(put(window, changed, box)))
            second = _gradient(values, window, graph=wanted and stop_gradient in ("none", "first"), keep=False)
            found.append(cosines(first[index_i].flatten(1), second[index_i].flatten(1)))
        values, zero, nonfinite = (torch.stack(part) for part in zip(*found))
        left = (~(zero | nonfinite)).sum().clamp(min=1)
        penalty = _SHAPES[cosine](values).sum() / left
    return penalty, PenaltyInfo(outputs, values.detach(), zero, nonfinite)


def _gradient(values: torch.Tensor, window: torch.Tensor, *, graph: bool, keep: bool) -> torch.Tensor:
    """Gradient of each sample's value at a window of its input; zero where it does not depend on it."""
    if not values.requires_grad:
        return torch.zeros_like(window)
    (found,) = torch.autograd.grad(values.sum(), window, create_graph=graph, retain_graph=graph or keep, materialize_grads=True)
    window.requires_grad_(False)  # the loss's own backward pass has no use for their gradient
    return found


def _skipped(outputs: Any, pairs: int, images: torch.Tensor) -> tuple[torch.Tensor, PenaltyInfo]:
    empty = images.new_zeros((pairs, 0), dtype=torch.promote_types(images.dtype, torch.float32))
    reason = f"a batch of {len(images)} has no other sample to take region J from"
    return empty.sum(), PenaltyInfo(outputs, empty, empty.bool(), empty.bool(), reason)


def _reduction(output: Callable[[Any], torch.Tensor] | torch.Tensor | None, outputs: Any, batch: int) -> Callable[[Any], torch.Tensor]:
    """The function from what the model returns to one number a sample."""
    if callable(output):
        return lambda found: _one_a_sample(output(found), batch)
    if not isinstance(outputs, torch.Tensor):
        raise ValueError(f"the model returns a {type(outputs).__name__}; output= must be a function from it to a tensor (batch,)")
    if outputs.numel() == batch and output is None:
        return lambda found: _one_a_sample(found, batch)
    if outputs.ndim != 2 or len(outputs) != batch:
        shape = tuple(outputs.shape)
        raise ValueError(f"the model returns the shape {shape} for {batch} samples; output= must be a function to a tensor (batch,)")
    classes = outputs.detach().argmax(1) if output is None else _labels(output, *outputs.shape).to(outputs.device)
    return lambda found: found.gather(1, classes[:, None]).squeeze(1)


def _labels(labels: Any, batch: int, classes: int) -> torch.Tensor:
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.shape != (batch,):
        given = f"{labels.dtype} of shape {tuple(labels.shape)}" if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise TypeError(f"output must be a function or a tensor of {batch} integer labels; got {given}")
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise ValueError(f"labels must be from 0 to {classes - 1}; got {int(labels.min())} to {int(labels.max())}")
    return labels.long().clone() if labels.is_inference() else labels.long()


def _one_a_sample(values: torch.Tensor, batch: int) -> torch.Tensor:
    if values.numel() != batch or values.shape[:1] != (batch,):
        raise ValueError(f"the output must be one number a sample, {batch} in all; got the shape {tuple(values.shape)}")
    return values.flatten()


def _pairs(region_i: Any, region_j: Any, images: torch.Tensor, channel_dim: int | None) -> tuple[list[tuple[Index, Index]], Box]:
    """A box around the regions I, and for each pair what picks I out of the box and J out of a batch."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        raise TypeError(f"images must be a tensor of floating-point numbers; got {getattr(images, 'dtype', type(images).__name__)}")
    axes = images.ndim - 1 if channel_dim is None else images.ndim - 2
    if axes < 1 or channel_dim not in (None, 1, -1, images.ndim - 1):
        raise ValueError(f"channel_dim must be 1, -1 or None, beside a batch axis and places; got {channel_dim} for {tuple(images.shape)}")
    begin = 2 if channel_dim == 1 else 1
    size = tuple(images.shape[begin : begin + axes])
    before = (slice(None),) * begin
    regions = [_several(region_i, size), _several(region_j, size)]
    if len(regions[0]) != len(regions[1]) or not regions[0]:
        raise ValueError(f"region_i and region_j must be as many; got {len(regions[0])} and {len(regions[1])}")
    masks = [(region_mask(one, size), region_mask(other, size)) for one, other in zip(*regions)]
    for first, second in masks:
        shared = int((first & second).sum())
        if shared:
            raise ValueError(f"region_i and region_j must be disjoint; they share {shared} of their places")
    box = bounding_box([first for first, _ in masks], begin, images.shape)
    corner = [part.start for part in box[begin : begin + axes]]
    pairs = []
    for one, other in zip(*regions):
        inside = _shifted(region_index(one, size), corner)
        pairs.append(((*before, *_on(images.device, inside)), (*before, *_on(images.device, region_index(other, size)))))
    return pairs, box


def _shifted(index: Index, corner: Sequence[int]) -> Index:
    """What picks the same places out of a box with this corner."""
    return tuple(
        slice(part.start - begin, part.stop - begin) if isinstance(part, slice) else part - begin for part, begin in zip(index, corner)
    )


def _several(regions: Any, size: tuple[int, ...]) -> list[Any]:
    """The regions of a list of them; of a single one, a list."""
    if not isinstance(regions, list | tuple) or all(isinstance(entry, numbers.Integral) for entry in regions):
        return [regions]
    try:
        found = torch.as_tensor(regions)
    except (TypeError, ValueError, RuntimeError):
        return list(regions)
    return [regions] if found.dtype == torch.bool and tuple(found.shape) == size else list(regions)


def _on(device: torch.device, index: Index) -> Index:
    return tuple(part.to(device) if isinstance(part, torch.Tensor) else part for part in index)


def _source(permutation: Any, batch: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor | None:
    """Which sample gives its region J to each; ``None`` where there is no other."""
    if isinstance(permutation, torch.Tensor):
        given = permutation.flatten().tolist()
        if sorted(given) != list(range(batch)):
            raise ValueError(f"a permutation needs each of 0 to {batch - 1} once; got {given}")
        fixed = [place for place, other in enumerate(given) if place == other]
        if fixed and batch > 1:
            raise ValueError(f"a permutation must have no fixed point; sample {fixed[0]} would take region J from itself")
        source = permutation.flatten().to(device)
    else:
        _check_choices(permutation=(permutation, ("cyclic", "random")))
        source = torch.arange(batch, device=device).roll(-1)
        if permutation == "random":
            order = torch.randperm(batch, generator=generator, device="cpu" if generator is None else generator.device).to(device)
            source = torch.empty_like(order).scatter_(0, order, order.roll(-1))
    return source if batch > 1 else None


def _check_choices(**choices: tuple[Any, tuple[str, ...]]) -> None:
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
