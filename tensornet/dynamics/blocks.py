"""Training steps in blocks: losses stay on the device, the host reads those of a block at once, and CUDA replays a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tensornet.graphs import capture


def kept_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What an optimizer that has done a step keeps for the next one.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> weight.grad = torch.ones(2)
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> optimizer.step()
        >>> kept_tensors(optimizer)
        [tensor([1., 1.])]
    """
    kept = [value for state in optimizer.state.values() for value in state.values()]
    kept += [value for group in optimizer.param_groups for name, value in group.items() if name != "params"]
    return [value for value in kept if isinstance(value, Tensor)]


class Blocks:
    """Repeats a training step without waiting for it; on a CUDA device the step is captured as a graph, and replayed.

    Args:
        step: Does one step and returns its loss, a tensor without axes. It does the same operations on the same memory every time.
        state: All tensors that a step changes and the next one depends on. What capturing does to them is undone.
        size: Steps of a block at most.

    Example:
        >>> weight = torch.tensor(8.0)
        >>> def halve():
        ...     return weight.mul_(0.5).clone()
        >>> blocks = Blocks(halve, [weight], size=3)
        >>> blocks.run(3), weight.item()
        ([4.0, 2.0, 1.0], 1.0)
    """

    def __init__(self, step: Callable[[], Tensor], state: Sequence[Tensor], size: int) -> None:
        self._state = list(state)
        self._start = [tensor.detach().clone() for tensor in state]
        device = state[0].device
        self._losses = torch.zeros(size, dtype=torch.float64, device=device)
        self._step = step
        if device.type == "cuda":
            self._step = capture(step, device=device)
            self.rewind(0)

    def run(self, count: int) -> list[float]:
        """Does ``count`` steps, at most as many as a block has, and returns their losses.

        Example:
            >>> weight = torch.tensor(8.0)
            >>> Blocks(lambda: weight.mul_(0.5).clone(), [weight], size=3).run(2)
            [4.0, 2.0]
        """
        with torch.no_grad():
            torch._foreach_copy_(self._start, self._state)
        for loss in self._losses[:count].unbind():
            loss.copy_(self._step())
        found: list[float] = self._losses[:count].tolist()
        return found

    def rewind(self, count: int) -> None:
        """Leaves what the latest block came to after its first ``count`` steps.

        Example:
            >>> weight = torch.tensor(8.0)
            >>> blocks = Blocks(lambda: weight.mul_(0.5).clone(), [weight], size=3)
            >>> losses = blocks.run(3)
            >>> blocks.rewind(0)
            >>> weight.item()
            8.0
        """
        with torch.no_grad():
            torch._foreach_copy_(self._state, self._start)
        for _ in range(count):
            self._step()
