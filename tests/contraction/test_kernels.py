"""Kernels: each against NumPy on random strided views, into new memory and into given memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tensornet.contraction import kernels
from tensornet.contraction.lowering import Operation, contiguous_strides

SHAPES = ((4, 6), (6, 5), (2, 4, 6), (2, 6, 5), (6, 4), (5, 6))
PRODUCT = Operation("product", 0, 1, (4, 5), (4, 6), (6, 1), (6, 5), (5, 1))
TURNED = Operation("product", 4, 5, (4, 5), (4, 6), (1, 4), (6, 5), (1, 6))
BATCHED = Operation("product", 2, 3, (2, 4, 5), (2, 4, 6), (24, 6, 1), (2, 6, 5), (30, 5, 1))
BROADCAST = Operation("multiply", 0, 4, (4, 6, 6), (4, 1, 6), (6, 0, 1), (4, 6, 1), (1, 4, 0))
LEADING = Operation("multiply", 0, 5, (5, 4, 6), (1, 4, 6), (0, 6, 1), (5, 1, 6), (6, 0, 1))
PERMUTED = Operation("multiply", 2, 0, (6, 2, 4), (6, 2, 4), (1, 24, 6), (6, 1, 4), (1, 0, 6))
SUMMED = Operation("multiply", 2, 0, (2, 6), (2, 4, 6), (24, 6, 1), (1, 4, 6), (0, 6, 1), summed=(1,))
COPY = Operation("copy", 2, 2, (6, 2, 4), (6, 2, 4), (1, 24, 6))
ALL = [PRODUCT, TURNED, BATCHED, BROADCAST, LEADING, PERMUTED, SUMMED, COPY]


def expected(operation: Operation, arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    def view(slot: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray[Any, Any]:
        return np.lib.stride_tricks.as_strided(arrays[slot], shape, [arrays[slot].itemsize * stride for stride in strides])

    left = view(operation.left, operation.left_view, operation.left_strides)
    if operation.kind == "copy":
        return left
    right = view(operation.right, operation.right_view, operation.right_strides)
    return left @ right if operation.kind == "product" else (left * right).sum(operation.summed)


@pytest.mark.parametrize("operation", ALL, ids=lambda operation: f"{operation.kind}{operation.left}{operation.right}")
@pytest.mark.parametrize("limit", ["_HUGE", "_BLOCKED", None])
def test_agrees_with_numpy(operation: Operation, limit: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if limit:  # as large results are computed
        monkeypatch.setattr(kernels, limit, 1)
        monkeypatch.setattr(kernels, "_BLOCK_ROWS", 1)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in SHAPES]
    slots = [torch.from_numpy(array) for array in arrays]
    steps = kernels.bind([operation], [()], SHAPES, torch.float64, cpu=True)
    wanted = expected(operation, arrays)
    for out in (None, torch.full(operation.result, float("nan"), dtype=torch.float64)):
        found = list(slots)
        kernels.run(steps, found, out=out)
        assert found[-1].is_contiguous()
        assert torch.allclose(found[-1], torch.from_numpy(np.ascontiguousarray(wanted)), rtol=1e-14)
        if out is not None:
            assert found[-1].data_ptr() == out.data_ptr()
    assert all(np.array_equal(array, slot) for array, slot in zip(arrays, slots))


def test_gradients_that_die_are_summed_in_place_but_inputs_are_not() -> None:
    copied = Operation("copy", 2, 2, (2, 4, 6), (2, 4, 6), contiguous_strides((2, 4, 6)))
    again = Operation("multiply", 6, 0, (2, 6), (2, 4, 6), (24, 6, 1), (1, 4, 6), (0, 6, 1), summed=(1,))
    slots = [torch.ones(shape) * 2 for shape in SHAPES]
    steps = kernels.bind([copied, again], [(), (6,)], SHAPES, torch.float32, cpu=True)
    kernels.run(steps, slots, keep=True)
    assert torch.equal(slots[6], torch.full((2, 4, 6), 4.0))  # overwritten by the product
    assert torch.equal(slots[7], torch.full((2, 6), 16.0))
    assert torch.equal(slots[2], torch.full((2, 4, 6), 2.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bfloat16])
def test_memory_in_huge_pages_is_ordinary_memory(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_HUGE", 1)
    made = kernels.empty((3, 1000), torch.empty(0, dtype=dtype))
    assert made.shape == (3, 1000)
    assert made.dtype == dtype
    assert made.data_ptr() % kernels._HUGE_PAGE == 0
    kept = made.zero_()[1]
    del made
    assert torch.equal(kept, torch.zeros(1000, dtype=dtype))
    assert torch.equal(kept.clone().add_(1), torch.ones(1000, dtype=dtype))
