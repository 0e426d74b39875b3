"""The convolutional arithmetic circuit that is equivalent to a hierarchical tensor factorization (Appendix A of the paper).

It evaluates entries of the end tensor, and inner products with rank-one tensors, from the leaves to the root, and never forms the end
tensor. Costs are linear in the numbers of samples and modes. With another pooling than the product, the same circuit realizes the
generalized factorizations of Cohen and Shashua 2016.

Weights are given as lists of tensors in the order of ``shape.tree.nodes``, of one dtype and on one device, as ``HTF.weight_list``
gives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tensornet.arrays import as_tensor
from tensornet.evaluation.folding import every_entry, every_sample
from tensornet.evaluation.observed import Observed, observe, once
from tensornet.evaluation.reverse import evaluate
from tensornet.evaluation.sweep import Rules, power_of_two
from tensornet.shape import Shape

__all__ = ["Activation", "Combination", "Observed", "Pooling", "combination", "entries", "forward", "grid", "grid_bytes", "observe"]

Pooling = Literal["product", "max", "mean"]
Activation = Literal["relu"] | None

# Weights of a size between 1/100 and 100 of which products stay in range; fewer for float16, which reaches from 1e-7 to 7e4 alone.
FACTORS = {torch.float64: 120, torch.complex128: 120, torch.float32: 16, torch.complex64: 16, torch.bfloat16: 16, torch.float16: 2}


@dataclass(frozen=True)
class Combination:
    """How a node combines the channels of its children, after their weights.

    Attributes:
        pooling: ``"product"`` (Equation 3), ``"max"`` or ``"mean"``.
        activation: Applied before pooling: ``None`` or ``"relu"``.

    Raises:
        ValueError: A name is unknown.

    Example:
        >>> Combination("max", "relu")
        Combination(pooling='max', activation='relu')
    """

    pooling: Pooling = "product"
    activation: Activation = None

    def __post_init__(self) -> None:
        if self.pooling not in ("product", "max", "mean"):
            raise ValueError(f"pooling must be 'product', 'max' or 'mean'; got {self.pooling!r}")
        if self.activation not in (None, "relu"):
            raise ValueError(f"activation must be None or 'relu'; got {self.activation!r}")


PRODUCT = Combination()


def combination(pooling: Pooling = "product", activation: Activation = None) -> Combination:
    """The combination with the given names.

    Raises:
        ValueError: A name is unknown.

    Example:
        >>> combination("mean")
        Combination(pooling='mean', activation=None)
    """
    return Combination(pooling, activation)


def entries(
    shape: Shape, weights: Sequence[Tensor], indices: Any, *, combination: Combination = PRODUCT, log: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Entries of the end tensor (Equation 3), which is not formed.

    A node costs the least of all its entries, those that occur among the indices, and one a sample. Intermediate results are scaled
    by powers of two where they could leave the range of the dtype, so that only an entry itself can over- or underflow.

    Args:
        shape: Tree and sizes.
        weights: The weight of every node.
        indices: ``(B, N)`` integers, or what :func:`~tensornet.evaluation.observed.observe` made of them.
        combination: How children are combined.
        log: Return ``(sign, log(abs(entry)))`` instead, which never over- or underflow; for complex entries the sign is a phase.

    Returns:
        ``(B,)``, or ``(B, K)`` with ``K > 1`` outputs; differentiable in the weights, any number of times.

    Raises:
        TypeError: The indices are no integers.
        ValueError: They have a wrong shape, are out of range, or were prepared for another shape or device.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> shape = make_shape(ModeTree.perfect(4), mode_sizes=3, ranks=2)
        >>> weights = [torch.ones(size) for size in shape.weights]
        >>> entries(shape, weights, [[0, 1, 2, 0], [2, 2, 2, 2]])
        tensor([8., 8.])
        >>> sign, logarithm = entries(shape, weights, [[0, 1, 2, 0]], log=True)
        >>> round(float(logarithm), 3)
        2.079
    """
    device = weights[0].device
    observed = indices if isinstance(indices, Observed) else once(shape, indices, device)
    if observed.shape != shape:
        raise ValueError("indices must be observed for the factorization's own tree and sizes; got indices observed for others")
    if observed.device != device:
        raise ValueError(f"indices must be observed where the weights are; got {observed.device} and {device} (use observed.to)")
    values, exponents = evaluate(observed.stages, weights, (), _rules(weights, combination, log))
    return _result(values, exponents, observed.last, log)


def forward(
    shape: Shape, weights: Sequence[Tensor], inputs: Tensor | Sequence[Tensor], *, combination: Combination = PRODUCT, log: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Outputs of the network of Appendix A: ``<x1 o ... o xN, W_H>`` for every sample (Proposition 3), nothing conjugated.

    Args:
        shape: Tree and sizes.
        weights: The weight of every node.
        inputs: ``(B, N, D)``, or for each of the ``N`` modes ``(B, D_n)``, of the weights' dtype and on their device.
        combination: How children are combined.
        log: Return ``(sign, log(abs(output)))`` instead, as :func:`entries` does.

    Returns:
        ``(B,)``, or ``(B, K)`` with ``K > 1`` outputs; differentiable in weights and inputs, any number of times.

    Raises:
        TypeError: The inputs are no tensors, or not of the weights' dtype.
        ValueError: They have wrong shapes, or are on another device.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> shape = make_shape(ModeTree.star(2), mode_sizes=2, ranks=1)
        >>> weights = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]), torch.ones(1, 1)]
        >>> forward(shape, weights, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
        tensor([4.])
    """
    by_mode = _inputs(shape, weights[0], inputs)
    stages = every_sample(shape, by_mode[0].shape[0], by_mode[0].device)
    values, exponents = evaluate(stages, weights, by_mode, _rules(weights, combination, log))
    return _result(values, exponents, None, log)


def grid(shape: Shape, weights: Sequence[Tensor], *, combination: Combination = PRODUCT) -> Tensor:
    """The grid tensor of a generalized factorization: all entries at once. With products it is the end tensor of Equation 3.

    Args:
        shape: Tree and sizes.
        weights: The weight of every node.
        combination: How children are combined.

    Returns:
        A tensor of the mode sizes, with a last axis of size ``K`` for ``K > 1`` outputs.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> shape = make_shape(ModeTree.star(2), mode_sizes=2, ranks=1)
        >>> weights = [torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [3.0]]), torch.ones(1, 1)]
        >>> grid(shape, weights, combination=Combination("max"))
        tensor([[1., 3.],
                [2., 3.]])
    """
    stages, modes = every_entry(shape)
    values, exponents = evaluate(stages, weights, (), _rules(weights, combination, False))
    flat = _unscaled(values, exponents)
    places = sorted(range(len(modes)), key=modes.__getitem__)
    tensor = flat.view(*(shape.mode_sizes[mode] for mode in modes), shape.outputs).permute(*places, len(modes))
    return tensor.squeeze(-1) if shape.outputs == 1 else tensor


def grid_bytes(shape: Shape, itemsize: int, *, combination: Combination = PRODUCT, recording: bool = False) -> int:
    """Bytes that :func:`grid` takes at least, its result included.

    Args:
        shape: Tree and sizes.
        itemsize: Bytes of a number.
        combination: How children are combined.
        recording: Gradients are recorded, for which all intermediate tables are kept.

    Example:
        >>> from tensornet.shape import make_shape
        >>> from tensornet.tree import ModeTree
        >>> grid_bytes(make_shape(ModeTree.perfect(4), mode_sizes=10, ranks=1), 4, combination=Combination("max"))
        80800
    """
    groups = every_entry(shape)[0].shared
    rows: list[int] = []
    live: dict[int, int] = {}
    taken = [0] * len(groups)
    kept = peak = 0
    for place, group in enumerate(groups):
        width = shape.weights[group.nodes[0]][0] if group.nodes else group.columns
        rows.append(math.prod(rows[part.group] for part in group.parts) if group.parts else width)
        table = group.count * rows[place] * group.columns
        product = group.count * rows[place] * width if len(group.parts) > 1 else 0
        if group.joined and combination.pooling == "product":
            product = group.count * rows[group.parts[1].group] * group.columns * width
        live[place] = table if group.nodes else 0  # else the product is the table
        peak = max(peak, sum(live.values()) + product)
        kept += live[place] + product
        for part in group.parts:
            taken[part.group] += group.count
            if taken[part.group] == groups[part.group].count:
                del live[part.group]
        live[place] = table
    return itemsize * (kept if recording else peak)


def _rules(weights: Sequence[Tensor], combination: Combination, log: bool) -> Rules:
    dtype = weights[0].dtype
    if dtype.is_complex and (combination.pooling == "max" or combination.activation):
        raise TypeError(f"max pooling and relu need real weights; got {dtype}")
    return Rules(combination.pooling, combination.activation, 0 if log else FACTORS[dtype])


def _inputs(shape: Shape, weight: Tensor, inputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """The inputs of every mode, checked."""
    order, sizes = shape.tree.order, shape.mode_sizes
    if isinstance(inputs, Tensor):
        as_tensor("inputs", inputs)
        if inputs.ndim != 3 or inputs.shape[1] != order or {inputs.shape[2]} != set(sizes):
            wanted = f"(B, {order}, {sizes[0]})" if len(set(sizes)) == 1 else f"{order} tensors (B, D_n), since mode sizes differ"
            raise ValueError(f"inputs need the shape {wanted}; got {tuple(inputs.shape)}")
        by_mode: Sequence[Tensor] = inputs.unbind(1)
    elif isinstance(inputs, Sequence) and not isinstance(inputs, str):
        by_mode = inputs
        if len(by_mode) != order:
            raise ValueError(f"inputs need one tensor for each of the {order} modes; got {len(by_mode)}")
    else:
        raise TypeError(f"inputs must be a tensor, or one tensor for each mode; got {type(inputs).__name__}")
    for mode, given in enumerate(by_mode):
        if not isinstance(given, Tensor):
            raise TypeError(f"inputs must be tensors; got {type(given).__name__} for mode {mode}")
        as_tensor(f"inputs for mode {mode}", given)
        if given.dtype != weight.dtype:
            raise TypeError(f"inputs must have the weights' type {weight.dtype}; got {given.dtype} for mode {mode}")
        if given.device != weight.device:
            raise ValueError(f"inputs must be on the weights' device {weight.device}; got {given.device} for mode {mode}")
        samples = "B" if mode == 0 else by_mode[0].shape[0]
        if given.ndim != 2 or given.shape[1] != sizes[mode] or samples not in ("B", given.shape[0]):
            raise ValueError(f"inputs need the shape ({samples}, {sizes[mode]}) for mode {mode}; got {tuple(given.shape)}")
    return by_mode


def _result(values: Tensor, exponents: Tensor | None, last: Tensor | None, log: bool) -> Tensor | tuple[Tensor, Tensor]:
    """Of the root's table, the row of every sample: values, or signs and logarithms."""
    if values.shape[1] == 1:
        values = values.squeeze(1)
    elif exponents is not None:
        exponents = exponents.unsqueeze(1)
    if last is not None:
        values = values.index_select(0, last)
        exponents = None if exponents is None else exponents.index_select(0, last)
    if not log:
        return _unscaled(values, exponents)
    scale, own = _inverse_power(values)  # near 1, squares of values, of which second derivatives consist, stay in range
    values, exponents = values * scale, own if exponents is None else exponents + own
    zero = values == 0
    size = values.masked_fill(zero, 1).abs().log().masked_fill(zero, -math.inf)  # the gradient of a logarithm of 0 is defined as 0
    return values.sgn(), size + exponents.to(size.dtype) * math.log(2)


def _inverse_power(values: Tensor) -> tuple[Tensor, Tensor]:
    """Powers of two, and the exponents of their inverses, that bring values to a size of about 1; constants for differentiation."""
    sizes = values.detach().abs()
    most = {torch.float64: 1022, torch.float16: 14}.get(sizes.dtype, 126)
    exponents = torch.frexp(sizes.to(torch.promote_types(sizes.dtype, torch.float32))).exponent.clamp(-most, most)
    return power_of_two(-exponents, sizes.dtype), exponents


def _unscaled(values: Tensor, exponents: Tensor | None) -> Tensor:
    """``values * 2**exponents``, which over- or underflows only if the result does."""
    if exponents is None:
        return values
    dtype = values.real.dtype if values.is_complex() else values.dtype
    most = 1022 if dtype == torch.float64 else 126
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    third = (exponents * (1 / 3)).to(exponents.dtype)  # far faster than //, and roughly is enough
    for part in (third, third, exponents - 2 * third):  # no step leaves the range before the result does
        wide = wide * power_of_two(part.clamp(-most, most), torch.promote_types(dtype, torch.float32))
    return wide.to(values.dtype)
