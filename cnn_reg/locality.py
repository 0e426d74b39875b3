"""How local a network is: gradients' directions by distance, the effective receptive field, dependence between regions.

All functions take any model with one number a sample (or a choice of one, ``output``), run it in evaluation mode and leave it as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cnn_reg.penalty import gradient_direction_penalty
from cnn_reg.regions import AnyRegion, Region, region_index, region_mask
from tensornet import effective_rank
from tensornet.checks import integer

Output: TypeAlias = Callable[[Any], Tensor] | Tensor | None


@dataclass(frozen=True)
class CosinesAtDistance:
    """|cos| of the gradients at a patch before and after another one, so far away, is replaced.

    Attributes:
        distance: Of the patches' corners, in pixels.
        mean: Mean of |cos|; NaN without samples.
        quantiles: Of |cos|: 5, 25, 50, 75 and 95 percent.
        samples: Number of samples and pairs of patches.
        zero: How many of them were left out because a gradient is zero.
    """

    distance: float
    mean: float
    quantiles: tuple[float, ...]
    samples: int
    zero: int


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def cosines_by_distance(
    model: nn.Module,
    images: Tensor,
    distances: Sequence[float],
    *,
    patch_size: int = 2,
    pairs: int = 8,
    output: Output = None,
    generator: torch.Generator | None = None,
) -> list[CosinesAtDistance]:
    """How much the direction of the gradient at a patch depends on what is in another patch, by their distance (Section 6.1).

    Args:
        model: Maps images (batch, channels, rows, columns) to outputs.
        images: At least two; what replaces a patch comes from the next image.
        distances: Of the patches' corners in pixels, in directions drawn at random; places are rounded to pixels.
        patch_size: Side of both patches, in pixels.
        pairs: Pairs of patches drawn for every distance.
        output: As of :func:`gradient_direction_penalty`.
        generator: Source of the places; torch's global one by default.

    Raises:
        TypeError: The images are no floating-point tensor.
        ValueError: There are fewer than two images, or no two such patches that far apart.

    Example:
        >>> images = torch.rand(4, 1, 16, 16, dtype=torch.float64)
        >>> local = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1)).double()
        >>> near, far = cosines_by_distance(local, images, [2, 10], pairs=4)
        >>> near.mean < 1, round(far.mean, 6)  # beyond its receptive field nothing turns the gradient
        (True, 1.0)
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) < 2:
        raise ValueError(f"at least two images (batch, channels, rows, columns) are needed; got {tuple(getattr(images, 'shape', ()))}")
    size = (images.shape[2], images.shape[3])
    found = []
    with _measured(model):
        for distance in distances:
            drawn = [_patches(size, integer("patch_size", patch_size, 1), distance, generator) for _ in range(integer("pairs", pairs, 1))]
            firsts, seconds = zip(*drawn)
            _, info = gradient_direction_penalty(model, images, list(firsts), list(seconds), output=output, stop_gradient="both")
            kept = info.cosines[~(info.zero | info.nonfinite)].abs().double().cpu()
            levels = (
                torch.quantile(kept, torch.tensor(QUANTILES, dtype=torch.float64)).tolist() if len(kept) else [math.nan] * len(QUANTILES)
            )
            mean = kept.mean().item() if len(kept) else math.nan
            found.append(CosinesAtDistance(float(distance), mean, tuple(levels), info.cosines.numel(), info.zero_gradients))
    return found


def _patches(size: tuple[int, int], side: int, distance: float, generator: torch.Generator | None) -> tuple[Region, Region]:
    """Two disjoint patches whose corners are so far apart, in a random direction."""
    places = [length - side for length in size]
    for _ in range(1000):
        angle, first, second = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        shift = (round(distance * math.sin(2 * math.pi * angle)), round(distance * math.cos(2 * math.pi * angle)))
        room = [place - abs(move) for place, move in zip(places, shift)]
        if min(room) < 0 or max(map(abs, shift)) < side:
            continue
        top, left = (int(draw * (free + 1)) + max(0, -move) for draw, free, move in zip((first, second), room, shift))
        return Region(top, left, side, side), Region(top + shift[0], left + shift[1], side, side)
    raise ValueError(f"two disjoint {side} x {side} patches at distance {distance:g} do not fit into an image of {size[0]} x {size[1]}")


@dataclass(frozen=True)
class ReceptiveField:
    """Where the centre of a layer looks.

    Attributes:
        energy: ``(rows, columns)``: mean square of the gradient with respect to each pixel, with sum 1; zeros where it vanishes.
        radius: Distance from the centre of that energy, in pixels, within which half of it lies; NaN where it vanishes.
    """

    energy: Tensor
    radius: float


def effective_receptive_field(model: nn.Module, images: Tensor, layer: nn.Module | None = None) -> ReceptiveField:
    """The effective receptive field of a layer (Luo, Li, Urtasun and Zemel 2016): what the place in its centre depends on.

    The gradient is that of a random combination of the channels in the centre, the same for all images.

    Args:
        model: Maps images (batch, channels, rows, columns) to outputs.
        images: Over which the mean is taken.
        layer: A module in the model with outputs (batch, channels, rows, columns); the last convolution by default.

    Raises:
        ValueError: There is no such layer, or it is not reached.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1))
        >>> field = effective_receptive_field(net, torch.rand(3, 1, 9, 9))
        >>> int((field.energy > 0).sum())  # two convolutions of 3 x 3 see 5 x 5
        25
    """
    chosen = layer
    if chosen is None:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            raise ValueError("the model has no Conv2d; give a layer whose outputs have rows and columns")
        chosen = convolutions[-1]
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
        seen.append(outputs)
        return outputs.clone() if isinstance(outputs, Tensor) else outputs  # which later layers may change in place

    handle = chosen.register_forward_hook(keep)
    inputs = images.detach().requires_grad_()
    try:
        with _measured(model), torch.enable_grad():
            model(inputs)
    finally:
        handle.remove()
    if not seen or not isinstance(seen[-1], Tensor) or seen[-1].ndim != 4:
        raise ValueError("the layer must be reached and return (batch, channels, rows, columns)")
    maps = seen[-1]
    mix = torch.randn(maps.shape[1], generator=torch.Generator().manual_seed(0)).to(maps)
    centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2] @ mix
    (gradient,) = torch.autograd.grad(centre.sum(), inputs)
    energy = gradient.double().square().sum(1).mean(0)
    total = energy.sum()
    energy = energy / total if total > 0 else energy
    return ReceptiveField(energy, _radius(energy) if total > 0 else math.nan)


def _radius(energy: Tensor) -> float:
    rows, columns = (torch.arange(length, dtype=energy.dtype, device=energy.device) for length in energy.shape)
    centre = (energy.sum(1) @ rows, energy.sum(0) @ columns)
    distances = torch.hypot(rows[:, None] - centre[0], columns - centre[1]).flatten()
    order = distances.argsort()
    inside = energy.flatten()[order].cumsum(0)
    return distances[order][torch.searchsorted(inside, 0.5).clamp(max=len(order) - 1)].item()


@dataclass(frozen=True)
class Separation:
    """How strongly a function depends on two regions together.

    Attributes:
        singular_values: Of the matrix of its values, in descending order, divided by their root of the sum of squares.
        rank: How many exceed ``rtol`` times the largest: a lower bound of the separation rank (Definition 6, Appendix E.10).
        effective_rank: Exponential of the entropy of the singular values divided by their sum.
    """

    singular_values: Tensor
    rank: int
    effective_rank: float


def estimated_separation(
    model: nn.Module,
    images: Tensor,
    region_i: AnyRegion,
    region_j: AnyRegion,
    *,
    output: Callable[[Any], Tensor] | None = None,
    rtol: float = 1e-3,
    batch_size: int = 256,
) -> Separation:
    """The separation rank of a model with respect to two regions (Definition 6), estimated on a grid of inputs.

    Of ``n`` images, every one's region I is combined with every one's region J, on the first image elsewhere: the matrix of the ``n^2``
    outputs has a rank of at most the separation rank.

    Args:
        model: Maps images (batch, channels, rows, columns) to outputs.
        images: At least two; the templates of both regions.
        region_i: As of :func:`gradient_direction_penalty`.
        region_j: Likewise, disjoint from it.
        output: A function from what the model returns to one number a sample, where there are several.
        rtol: Singular values above this times the largest count.
        batch_size: Images that are evaluated at once.

    Raises:
        ValueError: A region does not fit, the regions share places, there are fewer than two images, or the model returns no single
            finite number a sample.

    Example:
        >>> images = torch.rand(6, 1, 4, 4, dtype=torch.float64)
        >>> product = lambda x: x[:, 0, 0].sum(1) * x[:, 0, 3].sum(1)
        >>> estimated_separation(product, images, Region(0, 0, 1, 4), Region(3, 0, 1, 4)).rank
        1
    """
    if len(images) < 2:
        raise ValueError(f"at least two images are needed; got {len(images)}")
    size = tuple(images.shape[2:])
    if (region_mask(region_i, size) & region_mask(region_j, size)).any():
        raise ValueError("region_i and region_j must be disjoint")
    index_i, index_j = ((slice(None), slice(None), *region_index(region, size)) for region in (region_i, region_j))
    count = len(images)
    values = []
    with _measured(model), torch.no_grad():
        for numbers in torch.arange(count * count, device=images.device).split(batch_size):
            mixed = images[:1].expand(len(numbers), *images.shape[1:]).clone()
            mixed[index_i] = images[index_i][numbers // count]
            mixed[index_j] = images[index_j][numbers % count]
            outputs = model(mixed)
            found: Tensor = outputs if output is None else output(outputs)
            if found.numel() != len(numbers):
                raise ValueError(f"the output must be one number a sample; got the shape {tuple(found.shape)} for {len(numbers)} samples")
            values.append(found.flatten().double())
    if not torch.isfinite(torch.cat(values)).all():
        raise ValueError("the output must be finite for all combinations of the regions; it is not")
    singular = torch.linalg.svdvals(torch.cat(values).view(count, count))
    size_of = singular.square().sum().sqrt()
    singular = singular / size_of if size_of > 0 else singular
    rank = int((singular > rtol * singular[0]).sum())
    return Separation(singular, rank, float(effective_rank(singular)) if size_of > 0 else 0.0)


@contextmanager
def _measured(model: Any) -> Iterator[None]:
    """The model in evaluation mode, without gradients of its parameters."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, want in wanted:
            parameter.requires_grad_(want)
