"""Several processes that train one model: who takes which part of a batch, sums over all of them, and errors of one of them.

The gradients are summed once a step, after the last backward pass of every process. The forward passes of a penalty, its gradients with
respect to the inputs and the accumulation of parts need no communication, and a process whose part of a small last batch is empty takes
part in the sum all the same. This is why models are not wrapped in ``DistributedDataParallel``, which attaches itself to forward passes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tensornet.checks import line

T = TypeVar("T")


class ProcessEndedError(ConnectionError):
    """Another process has ended, or cannot be reached, so that nothing can be summed any more."""


class OtherProcessError(RuntimeError):
    """Another process has failed at what all of them do; it raises the error itself."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.

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

    def share(self, count: int) -> range:
        """This process's places among ``count``: consecutive ones, as many as the others' or one more.

        Example:
            >>> Processes(rank=1, size=3).share(8)
            range(2, 5)
        """
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in its place; the same bits in all of them.

        Raises:
            ProcessEndedError: Another process has ended.

        Example:
            >>> Processes().sum(torch.ones(2))
            tensor([1., 1.])
        """
        if self.size > 1:
            with self._reached():
                dist.all_reduce(tensor)
        return tensor

    def sum_together(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors of one type by their sums over the processes, in one message.

        Raises:
            ProcessEndedError: Another process has ended.

        Example:
            >>> loss = torch.tensor(0.5)
            >>> Processes().sum_together([torch.ones(2), loss])
            >>> loss
            tensor(0.5000)
        """
        if self.size == 1:
            return
        flat = self.sum(torch.cat([tensor.reshape(-1) for tensor in tensors]))
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(summed.view(tensor.shape))

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
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.sum_together([parameter.grad for parameter in trained if parameter.grad is not None])

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

        Raises:
            ProcessEndedError: Another process has ended.

        Example:
            >>> Processes().gather("mine")
            ['mine']
        """
        if self.size == 1:
            return [state]
        found: list[Any] = [None] * self.size
        with self._reached():
            dist.all_gather_object(found, state)
        return found

    def together(self, work: Callable[[], T]) -> T:
        """What the work returns in this process. Where it fails in one process, all of them fail.

        Raises:
            ValueError: As the work does, as any error of these kinds, in the first process where it failed.
            OtherProcessError: In the other processes.
            ProcessEndedError: Another process has ended.

        Example:
            >>> Processes().together(lambda: 3)
            3
        """
        if self.size == 1:
            return work()
        error = None
        try:
            result = work()
        except (ValueError, TypeError, OSError, MemoryError, RuntimeError, ImportError) as caught:
            error = caught
        own = error is not None and not isinstance(error, OtherProcessError)  # not one that it was told of within the work
        texts = self.gather(f"{type(error).__name__}: {line(error)}" if own else None)
        failed = next((rank for rank, text in enumerate(texts) if text is not None), None)
        if error is not None and failed in (self.rank, None):
            raise error
        if failed is not None:
            raise OtherProcessError(f"process {failed} failed ({texts[failed]})")
        return result

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ProcessEndedError(f"another of the {self.size} processes has ended, or cannot be reached ({line(error)})") from None


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
