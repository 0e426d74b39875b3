"""Arrays as tensors: every layout, byte order and kind of array, no copies without need, and one line for what is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tensornet.arrays import as_tensor, check_finite

NUMBERS = np.arange(12.0).reshape(3, 4)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "given",
    [
        NUMBERS,
        NUMBERS[::-1].copy()[::-1],
        np.asfortranarray(NUMBERS),
        NUMBERS.astype(">f8"),
        NUMBERS.astype("<f8"),
        read_only(NUMBERS),
        np.rec.fromarrays([NUMBERS.astype("i1"), NUMBERS], names="a, b")["b"],  # strides of 9 bytes
    ],
)
def test_arrays_of_any_layout(given):
    assert torch.equal(as_tensor("values", given), torch.tensor(NUMBERS.tolist(), dtype=torch.float64))


@pytest.mark.parametrize("kind", ["?", "u1", "i8", "f2", "f4", "c8", "c16"])
def test_types_stay(kind):
    assert as_tensor("values", NUMBERS.astype(kind)[::-1]).numpy().dtype == np.dtype(kind)
    assert as_tensor("values", np.array(1, kind)).shape == ()
    assert as_tensor("values", np.zeros((0, 3), kind)).shape == (0, 3)


def test_nothing_is_copied_without_need():
    array, tensor = NUMBERS.copy(), torch.ones(2, requires_grad=True)
    as_tensor("values", array)[0, 0] = 7
    assert array[0, 0] == 7
    assert as_tensor("values", tensor) is tensor


def test_sequences_have_the_types_of_torch():
    assert as_tensor("values", [[1.0], [2.0]]).dtype == torch.get_default_dtype()
    assert as_tensor("values", (1, 2)).dtype == torch.int64
    assert as_tensor("values", 1j).dtype == torch.complex64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "values must be an array of numbers; got NoneType"),
        ("a", "values must be an array of numbers; got str"),
        ([[1.0], [1.0, 2.0]], "values must be an array of numbers; got list"),
        (np.array([["a"]]), "values must be an array of numbers; got ndarray"),
        (np.array([object()]), "values must be an array of numbers; got ndarray"),
        (NUMBERS.astype(np.longdouble), "values must be an array of numbers; got ndarray"),
        (torch.eye(2).to_sparse(), r"values must be dense; got a tensor of the layout torch\.sparse_coo"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_in_one_line(given, message):
    with pytest.raises(TypeError, match=message) as caught:
        as_tensor("values", given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("shape", "place"), [((), r"\(\)"), ((3,), r"\(2,\)"), ((2, 1, 3), r"\(1, 0, 2\)"), ((1,) * 70, r"\((0, )*0\)")])
def test_the_first_number_that_is_not_finite_is_named(shape, place):
    tensor = torch.zeros(shape)
    check_finite("values", tensor)
    tensor.view(-1)[-1] = torch.inf
    with pytest.raises(ValueError, match=rf"values must be finite; found inf at {place}$"):
        check_finite("values", tensor)
