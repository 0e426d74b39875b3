"""Loops over the CPU's memory, compiled when first needed: for tensors so small that calls of torch take longer than the arithmetic."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache, partial
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

Argument = Tensor | int | float

SMALL = 1 << 18  # numbers up to which one thread needs no longer than the threads of torch
_REAL = (torch.float32, torch.float64)


def compilable(tensor: Tensor) -> bool:
    """Whether compiled loops can read a tensor: real numbers of 32 or 64 bits in the CPU's memory, unless numba is told not to compile.

    Example:
        >>> compilable(torch.ones(2)), compilable(torch.ones(2, dtype=torch.bfloat16))
        (True, False)
    """
    plain = type(tensor) in (Tensor, torch.nn.Parameter)  # others need not have memory
    return plain and tensor.device.type == "cpu" and tensor.dtype in _REAL and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


class CompiledCall:
    """A call of a function of memory as machine code, which is kept on disk for the next process where there is a folder for it.

    Args:
        loops: A function in numba's part of Python that returns nothing. It reads a tensor as ``tensor[place]``, from its first number on,
            whatever its strides, and nothing checks that the place is inside. Sums may be done in another order than is written. Torch does
            not learn what was overwritten: :func:`torch.autograd.graph.increment_version` tells it.
        arguments: Its arguments: tensors of 32-bit or 64-bit real numbers, or of 64-bit integers, in the CPU's memory, and numbers.

    Example:
        >>> def double(numbers, size):
        ...     for place in range(size):
        ...         numbers[place] *= 2
        >>> tensor = torch.ones(3)
        >>> CompiledCall(double, tensor, 2)()
        >>> tensor
        tensor([2., 2., 1.])
    """

    def __init__(self, loops: Callable[..., None], *arguments: Argument) -> None:
        self._loops, self._arguments = loops, arguments
        code = _machine_code(loops, *(_kind(argument) for argument in arguments))
        self._call = partial(code, *(argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments))

    def __call__(self) -> None:
        """Does it."""
        self._call()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is of copied tensors."""
        return CompiledCall, (self._loops, *self._arguments)


def _kind(argument: Argument) -> str:
    """The argument's type as numba calls it, with a star for memory."""
    if isinstance(argument, Tensor):
        return f"{str(argument.dtype).removeprefix('torch.')}*"
    return "int64" if isinstance(argument, int) else "float64"


@cache
def _machine_code(loops: Callable[..., None], *kinds: str) -> Callable[..., None]:
    """The function for arguments of these types, as one of addresses and numbers."""
    from numba import cfunc, types

    plain = [getattr(types, kind.rstrip("*")) for kind in kinds]
    signature = types.void(*(types.CPointer(own) if "*" in kind else own for own, kind in zip(plain, kinds)))  # type: ignore[no-untyped-call]
    flags = {"contract", "reassoc"}  # what was compiled with others is not compiled anew by itself
    try:
        code: Any = cfunc(signature, cache=True, fastmath=flags)(loops)
    except (RuntimeError, OSError, EOFError, UnpicklingError):  # no folder to keep it, no space there, or files that were cut off
        code = cfunc(signature, fastmath=flags)(loops)
    numbers: dict[str, Any] = {"int64": ctypes.c_int64, "float64": ctypes.c_double}
    function: Any = ctypes.CFUNCTYPE(None, *(numbers.get(kind, ctypes.c_void_p) for kind in kinds))(code.address)
    function.code = code  # which has to live as long
    return function  # type: ignore[no-any-return]
