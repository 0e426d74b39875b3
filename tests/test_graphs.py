"""CUDA graphs; what can be tested without a GPU is that the lack of one is said."""

from __future__ import annotations

import pytest
import torch

from tensornet.graphs import capture


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_is_needed() -> None:
    with pytest.raises(ValueError, match="capturing needs a CUDA device; none is available"):
        capture(lambda x: x, torch.ones(2))


@pytest.mark.gpu
def test_replays_with_new_inputs() -> None:
    call = capture(lambda x: (x + 1, x.sum()), torch.zeros(3, device="cuda"))
    first, total = call(torch.full((3,), 2.0, device="cuda"))
    assert first.tolist() == [3.0, 3.0, 3.0]
    assert float(total) == 6.0
    with pytest.raises(ValueError, match=r"input 0 must be torch\.float32 of shape"):
        call(torch.zeros(4, device="cuda"))
    with pytest.raises(ValueError, match="takes 1 tensors; got 0"):
        call()
    with pytest.raises(ValueError, match="input 0 is on cpu"):
        capture(lambda x: x, torch.ones(2))


@pytest.mark.gpu
def test_training_steps_can_be_captured() -> None:
    weight = torch.ones(3, device="cuda", requires_grad=True)
    weight.grad = torch.zeros_like(weight)

    def step(target: torch.Tensor) -> torch.Tensor:
        weight.grad.zero_()
        loss = (weight - target).square().sum()
        loss.backward()
        with torch.no_grad():
            weight.sub_(weight.grad, alpha=0.1)
        return loss.detach()

    call = capture(step, torch.zeros(3, device="cuda"))
    losses = [float(call(torch.zeros(3, device="cuda"))) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("index", range(2))
def test_a_function_without_inputs_on_any_device(index: int) -> None:
    if index >= torch.cuda.device_count():
        pytest.skip("there is no such device")
    device = torch.device("cuda", index)
    total = torch.zeros((), device=device)
    call = capture(lambda: total.add_(1), device=device)
    total.zero_()
    assert [float(call()) for _ in range(3)] == [1.0, 2.0, 3.0]
