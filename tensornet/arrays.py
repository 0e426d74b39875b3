"""Arrays of all kinds as torch tensors, tensors as the vectors of solvers and optimizers, random ones, and checks of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tensornet.checks import line, short


def as_tensor(name: str, given: Any) -> Tensor:
    """The tensor of the numbers in a tensor, an array, or nested sequences.

    A tensor is returned as it is. Arrays share their memory with the result where torch can, and are copied where it cannot:
    reversed and read-only ones, and those of another byte order. Sequences of floats get torch's default type.

    Args:
        name: What the error calls it.
        given: The array.

    Raises:
        TypeError: It is no array of numbers, of a type that torch has not, or sparse.

    Example:
        >>> as_tensor("values", np.array([1.0, 2.0], dtype=">f4")[::-1])
        tensor([2., 1.])
    """
    try:
        if isinstance(given, Tensor):
            tensor = given
        elif hasattr(given, "__array__"):
            array = np.asarray(given)
            tensor = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
        else:
            tensor = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be an array of numbers; got {type(given).__name__} ({line(error)})") from None
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be dense; got a tensor of the layout {tensor.layout}")
    return tensor


def check_floating(name: str, dtype: object) -> None:
    """Raises where ``dtype`` is no type to calculate with, as integers and 8-bit floats are none.

    Raises:
        TypeError: It is none.

    Example:
        >>> check_floating("dtype", torch.complex64)
    """
    if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype.is_complex) or dtype.itemsize < 2:
        raise TypeError(f"{name} must be a real or complex floating type; got {short(dtype)} (torch's of 16 bits and more will do)")


def check_finite(name: str, tensor: Tensor) -> None:
    """Raises where an entry is NaN or infinite.

    Raises:
        ValueError: One is; the error names the first.

    Example:
        >>> check_finite("weight", torch.ones(2, 2))
    """
    flat = tensor.detach().squeeze().flatten()  # axes of size 1 count in torch's limit of 64
    if not (finite := torch.isfinite(flat)).all():
        first = (~finite).nonzero()[0, 0]
        place = tuple(int(index) for index in torch.unravel_index(first, tensor.shape)) if tensor.dim() else ()
        raise ValueError(f"{name} must be finite; found {flat[first].item()} at {place}")


def check_real(name: str, dtype: Any) -> None:
    """Raises where ``dtype`` is given and no real floating type.

    Raises:
        TypeError: It is none.

    Example:
        >>> check_real("dtype", None)
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"{name} must be a real floating type of torch; got {short(dtype)}")


def check_like(inputs: Any, weight: Tensor) -> None:
    """Raises where inputs are of another kind than the weight that they meet; automatic mixed precision may convert types.

    Raises:
        TypeError: They are no tensor, or of another type.
        ValueError: They are on another device.

    Example:
        >>> check_like(torch.ones(3), torch.ones(2, 2))
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor; got {type(inputs).__name__}")
    if inputs.device != weight.device:
        raise ValueError(f"inputs must be on the weights' device {weight.device}; got {inputs.device}")
    if inputs.dtype != weight.dtype and not (inputs.is_floating_point() and torch.is_autocast_enabled(inputs.device.type)):
        raise TypeError(f"inputs must have the weights' type {weight.dtype}; got {inputs.dtype}")


def fill_normal(weight: Tensor, std: float, generator: torch.Generator | None) -> None:
    """Fills a weight with normal numbers of mean 0 and standard deviation ``std``, drawn where the generator is.

    Example:
        >>> weight = torch.empty(3, 2)
        >>> fill_normal(weight, 0.0, None)
        >>> weight.abs().sum()
        tensor(0.)
    """
    with torch.no_grad():
        place = generator.device if generator else weight.device
        weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype, device=place).mul_(std))


def as_vector(tensors: Sequence[Tensor]) -> np.ndarray[Any, Any]:
    """All numbers of tensors of one type as one array, a complex one as two; for solvers on the CPU.

    Example:
        >>> as_vector([torch.ones(1, 2), torch.zeros(1)])
        array([1., 1., 0.], dtype=float32)
    """
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    found: np.ndarray[Any, Any] = (torch.view_as_real(flat).flatten() if flat.is_complex() else flat).cpu().numpy()
    return found


def fill_from_vector(vector: np.ndarray[Any, Any], tensors: Sequence[Tensor]) -> None:
    """Writes what :func:`as_vector` gave into tensors, which keep their memory.

    Example:
        >>> pair = torch.zeros(1, dtype=torch.complex64)
        >>> fill_from_vector(np.array([1.0, 2.0]), [pair])
        >>> pair
        tensor([1.+2.j])
    """
    flat = torch.from_numpy(vector)
    flat = torch.view_as_complex(flat.view(-1, 2)) if tensors[0].is_complex() else flat
    with torch.no_grad():
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(part.view_as(tensor))


def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """Moves tensors of one type into one new vector, one after the other; they become views of it.

    Example:
        >>> first, second = torch.ones(2, 2), torch.zeros(3)
        >>> vector = side_by_side([first, second])
        >>> vector[0] = 5
        >>> first
        tensor([[5., 1.],
                [1., 1.]])
    """
    vector = torch.cat([tensor.detach().flatten() for tensor in tensors])
    for tensor, part in zip(tensors, vector.split([tensor.numel() for tensor in tensors])):
        tensor.data = part.view_as(tensor)
    return vector
