"""Cosines that never are NaN."""

from __future__ import annotations

import math

import pytest
import torch

from cnn_reg.cosines import cosines


def test_they_are_the_quotient_of_product_and_norms():
    left, right = torch.randn(2, 6, 5, dtype=torch.float64)
    expected = [
        sum(a * b for a, b in zip(one, other)) / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))
        for one, other in zip(left.tolist(), right.tolist())
    ]
    torch.testing.assert_close(cosines(left, right).values, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-14)


def test_derivatives():
    left, right = torch.randn(2, 4, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: cosines(a, b).values, (left, right))
    assert torch.autograd.gradgradcheck(lambda a, b: cosines(a, b).values, (left, right))


@pytest.mark.parametrize(("small", "large"), [(1e-17, 1e37), (1e-15, 1.0), (1.0, 1e30)])
def test_norms_neither_underflow_nor_overflow(small, large):
    left, right = torch.randn(2, 4, 3)
    scaled = cosines(left * small, right * large)
    torch.testing.assert_close(scaled.values, cosines(left, right).values)
    assert not scaled.zero.any()


def test_rows_without_a_cosine_are_told_apart_and_have_no_derivative():
    rows = [[1.0, 2.0], [0.0, 0.0], [1e-20, 1e-42], [math.inf, 1.0], [math.nan, 0.0], [2.0, 0.0]]
    left = torch.tensor(rows, requires_grad=True)
    right = torch.tensor([[2.0, 1.0]] * 5 + [[0.0, 0.0]], requires_grad=True)
    found = cosines(left, right)
    assert found.zero.tolist() == [False, True, True, False, False, True]
    assert found.nonfinite.tolist() == [False, False, False, True, True, False]
    torch.testing.assert_close(found.values, torch.tensor([0.8, 0, 0, 0, 0, 0]))
    found.values.sum().backward()
    for side in (left, right):
        assert side.grad.isfinite().all()
        assert not side.grad[1:].any()
        assert side.grad[0].any()


def test_they_are_computed_in_float32_or_better():
    left, right = torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cosines(left, right).values, cosines(left.clone(), right).values)
        assert cosines(left.bfloat16(), right.bfloat16()).values.dtype == torch.float32
    assert cosines(left.double(), right).values.dtype == torch.float64
