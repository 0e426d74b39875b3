"""Several processes that train one network: who takes which part of a batch, and sums over all of them.

The gradients are summed once a step, after the last backward pass of every process. The two forward passes of the penalty, its gradients
with respect to images and the accumulation of parts need no communication, and a process whose part of a small last batch is empty
takes part in the sum all the same. This is why the network is not wrapped in ``DistributedDataParallel``, which attaches itself to
forward passes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Example:
        >>> alone = Processes()
        >>> alone.rank, alone.size
        (0, 1)
    """

    rank: int = 0
    size: int = 1

    def parts(self, indices: Tensor, accumulate: int) -> list[Tensor]:
        """This process's parts of a batch of samples, ``accumulate`` at most; empty parts are left out.

        Example:
            >>> Processes(rank=1, size=2).parts(torch.arange(8), accumulate=2)
            [tensor([4, 5]), tensor([6, 7])]
        """
        parts = indices.tensor_split(accumulate * self.size)[self.rank * accumulate : (self.rank + 1) * accumulate]
        return [part for part in parts if len(part)]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in its place.

        Example:
            >>> Processes().sum(torch.ones(2))
            tensor([1., 1.])
        """
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process.

        Example:
            >>> Processes().any(False)
            False
        """
        return bool(self.sum(torch.tensor(float(flag), device=self._device())) > 0)

    def _device(self) -> torch.device:
        nccl = self.size > 1 and dist.get_backend() == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replaces the gradients of all parameters by their sums over the processes, in one message.

        Example:
            >>> weight = nn.Parameter(torch.ones(2))
            >>> weight.sum().backward()
            >>> Processes().sum_gradients([weight])
            >>> weight.grad
            tensor([1., 1.])
        """
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        grads = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in trained]
        flat = self.sum(torch.cat([grad.reshape(-1) for grad in grads]))
        for parameter, grad, summed in zip(trained, grads, flat.split([grad.numel() for grad in grads])):
            parameter.grad = grad.copy_(summed.view(grad.shape))

    def average_buffers(self, model: nn.Module) -> None:
        """Replaces the buffers of floating point, such as running statistics, by their means over the processes.

        Example:
            >>> Processes().average_buffers(nn.BatchNorm2d(3))
        """
        if self.size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    self.sum(buffer).div_(self.size)

    def gather(self, state: Any) -> list[Any]:
        """The states of all processes by rank, in every process.

        Example:
            >>> Processes().gather("mine")
            ['mine']
        """
        if self.size == 1:
            return [state]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, state)
        return found


ALONE = Processes()


@contextlib.contextmanager
def processes(device: torch.device | str) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that ``torchrun`` started, joined for the block, and the device of this one; one process without ``torchrun``.

    Example:
        >>> with processes("cpu") as (joined, device):
        ...     joined.size, device
        (1, device(type='cpu'))
    """
    device = torch.device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
