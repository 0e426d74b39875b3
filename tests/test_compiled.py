"""Compiled loops: the memory that they are given, their copies, and folders that nothing can be written to."""

from __future__ import annotations

import copy

import numba
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tensornet.compiled import CompiledCall, compilable


def blend(numbers, places, size, weight):
    for turn in range(size):
        numbers[places[turn]] += weight * turn


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arguments_of_every_kind(dtype):
    numbers, places = torch.ones(7, dtype=dtype), torch.tensor([4, 0, 5])
    CompiledCall(blend, numbers[1:], places, 3, 0.25)()
    assert numbers.tolist() == [1.0, 1.25, 1.0, 1.0, 1.0, 1.0, 1.5]


def test_memory_is_kept_as_long_as_the_call():
    calls = [CompiledCall(blend, torch.ones(1 << 16), torch.tensor([3]), 1, 0.5) for _ in range(8)]
    others = [torch.zeros(1 << 16) for _ in range(8)]
    for call in calls:
        call()
    assert not any(other.any() for other in others)


def test_a_copy_is_of_copied_memory():
    numbers = torch.ones(3)
    call = CompiledCall(blend, numbers, torch.tensor([0, 1]), 2, 1.0)
    copied, other = copy.deepcopy([call, numbers])
    copied()
    assert numbers.tolist() == [1.0, 1.0, 1.0]
    assert other.tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize("error", [RuntimeError("no locator available"), OSError("no space left"), EOFError("ran out of input")])
def test_without_a_folder_for_machine_code(error, monkeypatch):
    real = numba.cfunc
    asked = []

    def cfunc(*args, cache=False, **options):
        asked.append(cache)
        if cache:
            raise error
        return real(*args, **options)

    def halve(numbers, size):
        for place in range(size):
            numbers[place] /= 2

    monkeypatch.setattr(numba, "cfunc", cfunc)
    tensor = torch.ones(3)
    CompiledCall(halve, tensor, 2)()
    assert tensor.tolist() == [0.5, 0.5, 1.0]
    assert asked == [True, False]


def test_what_is_wrong_with_loops_is_said():
    def loops(numbers):
        numbers[0] = numbers.nothing

    with pytest.raises(numba.core.errors.TypingError, match="nothing"):
        CompiledCall(loops, torch.ones(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int32])
def test_other_numbers_are_not_for_it(dtype):
    assert not compilable(torch.ones(2, dtype=dtype))
    assert not compilable(torch.ones(2, device="meta"))


def test_tensors_without_memory_and_processes_that_compile_nothing_are_not_for_it(monkeypatch):
    with FakeTensorMode():
        assert not compilable(torch.ones(2))
    assert compilable(torch.nn.Parameter(torch.ones(2)))
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert not compilable(torch.ones(2))
