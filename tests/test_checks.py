"""Checks of arguments: what passes, and one short line for what does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tensornet.checks import integer, line, real, short


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), torch.tensor(3)])
def test_integers(value):
    assert type(integer("rank", value, least=3)) is int
    assert integer("rank", value) == 3


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_real_numbers(value):
    assert type(real("rate", value)) is float
    assert real("rate", value, below=0.6) == 0.5
    assert real("rate", 0) == 0


@pytest.mark.parametrize(
    ("check", "value", "error", "message"),
    [
        (integer, 2.0, TypeError, "x must be an integer; got 2.0 of type float"),
        (integer, True, TypeError, "x must be an integer; got True of type bool"),
        (integer, np.arange(99), TypeError, r"x must be an integer; got array\(.*\.\.\. of type ndarray"),
        (lambda name, value: integer(name, value, 1), 0, ValueError, "x must be at least 1; got 0"),
        (integer, 2**63, ValueError, "x must fit into 64 bits; got 9223372036854775808"),
        (integer, -(2**64), ValueError, "x must fit into 64 bits; got -18446744073709551616"),
        (real, "1", TypeError, "x must be a number; got '1' of type str"),
        (real, 1j, TypeError, "x must be a number; got 1j of type complex"),
        (real, np.ones(99), TypeError, r"x must be a number; got array\(.*\.\.\. of type ndarray"),
        (real, torch.ones(99), TypeError, r"x must be a number; got tensor\(.*\.\.\. of type Tensor"),
        (real, -0.1, ValueError, "x must be at least 0 and finite; got -0.1"),
        (real, math.inf, ValueError, "x must be at least 0 and finite; got inf"),
        (real, math.nan, ValueError, "x must be at least 0 and finite; got nan"),
        (lambda name, value: real(name, value, 1), 1, ValueError, "x must be at least 0 and below 1; got 1"),
    ],
)
def test_all_else_is_refused(check, value, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        check("x", value)


def test_texts_are_short_and_one_line():
    assert short(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    assert len(short("a" * 100)) == 80
    assert line(ValueError("one\n  two")) == "one two"
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert short(nested) == "a deeply nested node"
