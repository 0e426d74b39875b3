"""Nests of compiled loops against NumPy's einsum, on views in any order with broadcast and summed axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tensornet.contraction import nests
from tensornet.contraction.lowering import Operation, contiguous_strides
from tensornet.contraction.nests import nest


def laid(sizes, order, broadcast):
    """Shape and strides of a view whose axes lie in memory in this order, of size 1 where the factor is broadcast."""
    view = tuple(1 if axis in broadcast else size for axis, size in enumerate(sizes))
    strides = dict(zip(order, contiguous_strides([view[axis] for axis in order])))
    return view, tuple(strides[axis] for axis in range(len(sizes)))


def operation(rng, sizes, summed=(), left_broadcast=(), right_broadcast=(), *, left_order=None, right_order=None):
    """An operation, and factors for it."""
    axes = range(len(sizes))
    left = laid(sizes, left_order or axes, left_broadcast)
    right = laid(sizes, right_order or axes, right_broadcast)
    result = tuple(size for axis, size in enumerate(sizes) if axis not in summed)
    made = Operation("multiply", 0, 1, result, *left, *right, summed=tuple(summed))
    return made, *(torch.from_numpy(rng.standard_normal(math.prod(view))) for view, _ in (left, right))


def expected(made, left, right):
    first = left.numpy()[: math.prod(made.left_view)]
    second = right.numpy()[: math.prod(made.right_view)]
    views = [
        np.lib.stride_tricks.as_strided(factor, view, [stride * factor.itemsize for stride in strides])
        for factor, view, strides in ((first, made.left_view, made.left_strides), (second, made.right_view, made.right_strides))
    ]
    return (views[0] * views[1]).sum(made.summed)


CASES = {
    "elementwise": {"sizes": (3, 4)},
    "outer": {"sizes": (3, 4, 5), "left_broadcast": (1,), "right_broadcast": (0,)},
    "vector": {"sizes": (6, 5), "right_broadcast": (0,)},
    "batch": {"sizes": (2, 3, 4, 7), "left_broadcast": (2,), "right_broadcast": (1,)},
    "sum of one axis": {"sizes": (3, 4, 5), "summed": (1,), "right_broadcast": (0,)},
    "sum of the first": {"sizes": (7, 4, 5), "summed": (0,), "right_broadcast": (1,)},
    "sums of two axes": {"sizes": (3, 2, 5, 4, 6), "summed": (1, 3), "right_broadcast": (2,), "left_broadcast": (0,)},
    "sum of two neighbours": {"sizes": (3, 2, 5, 6), "summed": (1, 2), "right_broadcast": (0,)},
    "permuted": {"sizes": (3, 4, 5), "summed": (0,), "left_order": (1, 0, 2), "right_order": (1, 0, 2)},
    "axes of one number": {"sizes": (1, 4, 1, 5), "summed": (2,)},
    "a sum of one number": {"sizes": (3, 1, 5), "summed": (1,)},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(CASES))
def test_products_and_sums(name, dtype):
    made, left, right = operation(np.random.default_rng(0), **CASES[name])
    left, right, out = left.to(dtype), right.to(dtype), torch.full(made.result, float("nan"), dtype=dtype)
    nest(made, contiguous_strides(made.result), left, right, out)()
    assert np.allclose(out, expected(made, left, right), rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=1e-5)


@pytest.mark.parametrize("terms", range(1, 14))
def test_sums_of_every_length(terms):
    made, left, right = operation(np.random.default_rng(terms), (terms, 3, 37), summed=(0,), right_broadcast=(1,))
    out = torch.full((3, 37), float("nan"), dtype=torch.float64)
    nest(made, (37, 1), left, right, out)()
    assert np.allclose(out, expected(made, left, right), rtol=1e-13, atol=1e-13)


def test_results_with_gaps_leave_what_is_between():
    made, left, right = operation(np.random.default_rng(0), (3, 4, 5), summed=(1,))
    out = torch.zeros(3, 8, dtype=torch.float64)
    nest(made, (8, 1), left, right, out)()
    assert np.allclose(out[:, :5], expected(made, left, right), rtol=1e-13)
    assert not out[:, 5:].any()


def test_numbers_that_are_not_finite_stay():
    made, left, right = operation(np.random.default_rng(0), (6, 5), summed=(0,))
    left[0], left[1], right[2] = float("nan"), float("inf"), 0.0
    out = torch.zeros(5, dtype=torch.float64)
    nest(made, (1,), left, right, out)()
    assert out.isnan()[0]
    assert out.isinf()[1]
    assert out[2:].isfinite().all()


OTHERS = {
    "no contiguous axis": {"sizes": (3, 4), "right_broadcast": (1,)},
    "a contiguous axis that is summed": {"sizes": (3, 4), "summed": (1,)},
    "turned": {"sizes": (3, 4), "right_order": (1, 0)},
    "nothing": {"sizes": (0, 4)},
    "a sum of nothing": {"sizes": (0, 4), "summed": (0,)},
    "nothing beside a broadcast axis": {"sizes": (0, 3), "right_broadcast": (0,)},
    "a sum of many terms": {"sizes": (513, 2), "summed": (0,)},
    "many axes": {"sizes": (2, 2, 2, 2, 2), "left_broadcast": (0, 2), "right_broadcast": (1, 3)},
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_what_is_left_to_torch(name):
    made, left, right = operation(np.random.default_rng(0), **OTHERS[name])
    assert nest(made, contiguous_strides(made.result), left, right, torch.empty(made.result, dtype=torch.float64)) is None


def test_large_tensors_and_other_numbers_are_left_to_torch(monkeypatch):
    made, left, right = operation(np.random.default_rng(0), (3, 4))
    out = torch.empty(3, 4, dtype=torch.float64)
    assert nest(made, (4, 1), left, right, out) is not None
    assert nest(made, (4, 1), left.to(torch.bfloat16), right.to(torch.bfloat16), out.to(torch.bfloat16)) is None
    monkeypatch.setattr(nests, "_SMALL_UNSUMMED", 11)
    assert nest(made, (4, 1), left, right, out) is None
    summed, left, right = operation(np.random.default_rng(0), (3, 4), summed=(0,))
    assert nest(summed, (1,), left, right, out) is not None
    monkeypatch.setattr(nests, "SMALL", 11)
    assert nest(summed, (1,), left, right, out) is None
