"""Contraction to end tensors, slices, projections and Gram matrices: arguments -> request -> plan, and operands -> tensor."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from torch import Tensor

from tensornet.contraction.costs import CPU, CUDA
from tensornet.contraction.network import Request
from tensornet.contraction.plan import MemoryLimitError, Plan, make_plan, memory
from tensornet.contraction.programs import run_plan
from tensornet.shape import Shape

_LOOKED_UP = 64 << 20  # bytes from which a contraction is held against the memory that is free


def contract(
    shape: Shape,
    weights: Sequence[Tensor],
    *,
    fixed: Mapping[int, int] | None = None,
    projected: Mapping[int, Tensor] | None = None,
    memory_limit: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The end tensor of Equation 3, or a part or projection of it.

    Args:
        shape: Tree and sizes.
        weights: One weight a node, in the order of ``shape.tree.nodes``.
        fixed: ``{mode: index}``: the slice of the end tensor at these indices, without those modes.
        projected: ``{mode: vector (D_mode,) or matrix (D_mode, E)}``: the end tensor contracted with them along these modes; a
            vector's mode vanishes, a matrix's takes size ``E``. Nothing is conjugated.
        memory_limit: Bytes that intermediate results and the result may take together; by default what is free on the device. With
            gradients, intermediate results are kept, and the backward pass takes up to as much again.
        out: Contiguous tensor to write the result into; not where gradients are recorded.

    Returns:
        Tensor of shape ``mode_sizes`` (and ``outputs`` last, when above 1) with the asked changes. Where modes cross in the tree it
        may be a permuted view, as torch.einsum's results are.

    Raises:
        MemoryLimitError: The contraction does not fit; nothing has been allocated.
        TypeError: A mode or an index is no integer, a projection or ``out`` no tensor.
        ValueError: A mode, an index or a size does not fit the factorization.

    Example:
        >>> from tensornet import HTF, ModeTree
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=5, init_std=1.0, dtype=torch.float64)
        >>> part = contract(htf.shape, htf.weight_list(), fixed={0: 1, 3: 2})
        >>> bool(torch.allclose(part, htf.contract()[1, :, :, 2]))
        True
    """
    if torch.compiler.is_compiling():
        return _uncompiled(contract)(shape, weights, fixed=fixed, projected=projected, memory_limit=memory_limit, out=out)
    request = _END_TENSOR
    if fixed or projected:
        _check_mappings(fixed, projected)
        request = Request.make(fixed=fixed or (), projected={mode: _width(mode, matrix) for mode, matrix in (projected or {}).items()})
    operands = _operands(shape, weights, fixed or {}, projected or {}, request)
    recording = _is_recording(operands)
    plan = plan_contraction(shape, request, weights[0].dtype, weights[0].device, memory_limit, recorded=recording)
    return run_plan(plan, operands, out, recording)


def gram(shape: Shape, weights: Sequence[Tensor], modes: Sequence[int], *, memory_limit: int | None = None) -> Tensor:
    """The Gram matrix ``[[W; I]] [[W; I]]^H`` of the end tensor's matricization by ``modes`` (Definition 3), without the end tensor.

    Rows are ordered as in :func:`tensornet.matricize`, the first mode fastest; several outputs count as columns.

    Raises:
        MemoryLimitError: The contraction does not fit; nothing has been allocated.
        ValueError: A mode is out of range or repeated.

    Example:
        >>> from tensornet import HTF, ModeTree, matricize
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=5, init_std=1.0, dtype=torch.float64)
        >>> matrix = matricize(htf.contract(), [0, 1])
        >>> bool(torch.allclose(gram(htf.shape, htf.weight_list(), [0, 1]), matrix @ matrix.T))
        True
    """
    if torch.compiler.is_compiling():
        return _uncompiled(gram)(shape, weights, modes, memory_limit=memory_limit)
    request = Request.make(gram=modes)
    operands = _operands(shape, weights, {}, {}, request)
    recording = _is_recording(operands)
    plan = plan_contraction(shape, request, weights[0].dtype, weights[0].device, memory_limit, recorded=recording)
    rows = math.prod(shape.mode_sizes[mode] for mode in request.gram or ())
    conjugated = tuple(operand.conj().resolve_conj() for operand in operands)
    return run_plan(plan, (*operands, *conjugated), None, recording).reshape(rows, rows)


_END_TENSOR = Request()


def _uncompiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that torch.compile calls between two graphs: plans are not for tracing."""
    return cast(Callable[..., Tensor], torch.compiler.disable(function))


def _is_recording(operands: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)


def plan_contraction(
    shape: Shape,
    request: Request,
    dtype: torch.dtype,
    device: torch.device,
    memory_limit: int | None = None,
    *,
    recorded: bool = False,
) -> Plan:
    """The plan by which :func:`contract` would do what is asked, within ``memory_limit`` or the memory that is free.

    Where it is ``recorded`` for a gradient, all intermediate results are kept, and count.

    Raises:
        MemoryLimitError: The contraction does not fit.
        TypeError: The limit is no number.
        ValueError: The request does not fit the factorization, or the limit is negative.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> plan_contraction(make_shape(ModeTree.star(2), 4, 5), Request(), torch.float32, torch.device("cpu")).peak_bytes
        144
    """
    machine = CUDA if device.type == "cuda" else CPU
    itemsize = dtype.itemsize
    plan = make_plan(shape, request, itemsize=itemsize, machine=machine, recorded=recorded)
    limit = _limit(plan.peak_bytes, device, memory_limit)
    if plan.peak_bytes <= limit:
        return plan
    return make_plan(shape, request, itemsize=itemsize, machine=machine, memory_limit=limit, recorded=recorded)


def need_memory(needed: int, device: torch.device, memory_limit: int | None = None) -> None:
    """Raises where a computation does not fit into ``memory_limit`` or the memory that is free.

    Raises:
        MemoryLimitError: It does not.
        TypeError: The limit is no number.
        ValueError: It is negative.

    Example:
        >>> need_memory(100, torch.device("cpu"), memory_limit=100)
    """
    limit = _limit(needed, device, memory_limit)
    if needed > limit:
        raise MemoryLimitError(
            f"the end tensor needs {memory(needed)} but may use {memory(limit)}; entries(indices) evaluates chosen entries without it"
        )


def _limit(needed: int, device: torch.device, memory_limit: int | None) -> int:
    if memory_limit is None:
        return needed if needed < _LOOKED_UP else available_memory(device)
    if not isinstance(memory_limit, int | float):
        raise TypeError(f"memory_limit must be a number of bytes; got {memory_limit!r}")
    if not memory_limit >= 0:
        raise ValueError(f"memory_limit must be a number of bytes; got {memory_limit}")
    return int(min(memory_limit, sys.maxsize))


def available_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device now, as the system tells.

    Example:
        >>> available_memory(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = int(psutil.virtual_memory().available)
    try:  # a container may be allowed less than the machine has
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used -= int(kinds.get("inactive_file", 0))  # contents of files, which are dropped when memory is needed
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))


def _width(mode: int, matrix: Tensor) -> int:
    if not isinstance(matrix, Tensor):
        raise TypeError(f"projected needs tensors; got {type(matrix).__name__} for mode {mode}")
    if matrix.ndim not in (1, 2) or 0 in matrix.shape:
        raise ValueError(f"projected needs vectors (D,) or matrices (D, E); got shape {tuple(matrix.shape)} for mode {mode}")
    return 0 if matrix.ndim == 1 else matrix.shape[1]


def _check_mappings(fixed: Any, projected: Any) -> None:
    for name, given in (("fixed", fixed), ("projected", projected)):
        if not isinstance(given or {}, Mapping):
            raise TypeError(f"{name} must be a mapping from modes; got {type(given).__name__}")


def _operands(
    shape: Shape, weights: Sequence[Tensor], fixed: Mapping[int, int], projected: Mapping[int, Tensor], request: Request
) -> tuple[Tensor, ...]:
    """The network's operands in its order."""
    request.check(shape.tree.order)
    operands = [weight if weight.is_contiguous() else weight.contiguous() for weight in weights]
    for mode, index in fixed.items():
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise TypeError(f"fixed needs integer indices; got {index!r} for mode {mode}")
        if not 0 <= index < shape.mode_sizes[mode]:
            raise ValueError(f"an index must be from 0 to {shape.mode_sizes[mode] - 1}; got {index} for mode {mode}")
        operands[mode] = operands[mode][index]
    for mode, matrix in sorted(projected.items()):
        if matrix.shape[0] != shape.mode_sizes[mode]:
            raise ValueError(f"a projection of mode {mode} needs {shape.mode_sizes[mode]} rows; got shape {tuple(matrix.shape)}")
        if matrix.dtype != weights[0].dtype or matrix.device != weights[0].device:
            raise ValueError(
                f"projections must have the weights' dtype and device; got {matrix.dtype} on {matrix.device} for mode {mode}, "
                f"weights are {weights[0].dtype} on {weights[0].device}"
            )
        operands.append(matrix.contiguous())
    return tuple(operands)
