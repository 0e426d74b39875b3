"""Training steps in blocks: losses stay on the device, the host reads those of a block at once, and CUDA replays a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tensornet.graphs import capture


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
        >>> blocks.rewind(1)
        >>> weight.item()
        4.0
    """

    def __init__(self, step: Callable[[], Tensor], state: Sequence[Tensor], size: int) -> None:
        self.size = size
        self._state = list(state)
        self._start = [tensor.detach().clone() for tensor in state]
        self._losses = torch.zeros(size, dtype=torch.float64, device=state[0].device)
        self._place = torch.zeros(1, dtype=torch.int64, device=state[0].device)

        def recorded() -> None:
            loss = step()
            self._losses.index_copy_(0, self._place, loss.double().view(1))
            self._place.add_(1).remainder_(size)  # capturing calls it more often than a small block has places

        self._step: Callable[[], object] = recorded
        if state[0].is_cuda:
            self._step = capture(recorded)
            self.rewind(0)

    def run(self, count: int) -> list[float]:
        """Does ``count`` steps and returns their losses."""
        with torch.no_grad():
            torch._foreach_copy_(self._start, self._state)
        self._repeat(count)
        found: list[float] = self._losses[:count].tolist()
        return found

    def rewind(self, count: int) -> None:
        """Leaves what the latest block came to after its first ``count`` steps."""
        with torch.no_grad():
            torch._foreach_copy_(self._state, self._start)
        self._repeat(count)

    def _repeat(self, count: int) -> None:
        self._place.zero_()
        for _ in range(count):
            self._step()
