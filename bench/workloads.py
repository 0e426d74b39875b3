"""The named workloads, and the seeded tensors that they are run on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tensornet import ModeTree

Task = Literal["end", "entries", "network", "step"]
TASKS: dict[Task, str] = {
    "end": "End tensor",
    "entries": "Entries",
    "network": "Network evaluation",
    "step": "Training step, squared loss on observed entries",
}


@dataclass(frozen=True)
class Workload:
    """One thing to be timed; never changed once results with its name are published.

    Attributes:
        task: ``end``: the end tensor; ``entries``: entries at random indices; ``network``: the network of Appendix A on random
            inputs; ``step``: mean squared error on observed entries (drawn without repetition) and its gradient.
        tree: Mode tree.
        mode_sizes: ``D_n``.
        ranks: Rank of every interior node, in the order of ``tree.interior``.
        samples: Number of indices, inputs or observed entries.
        backward: Whether the gradient of all weights is wanted as well.
    """

    label: str
    task: Task
    tree: ModeTree
    mode_sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    samples: int = 0
    backward: bool = False

    @property
    def name(self) -> str:
        """Unique name: task, label, and ``+grad`` with the gradient."""
        return f"{self.task}/{self.label}" + ("+grad" if self.backward else "")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of every node's weight, by node id."""
        rows = self.mode_sizes + self.ranks
        return [(rows[node], rows[parent] if parent >= 0 else 1) for node, parent in enumerate(self.tree.parent_ids)]


@dataclass(frozen=True)
class Case:
    """A workload with its tensors, all on one device."""

    workload: Workload
    weights: list[Tensor]  # by node id; none requires a gradient
    indices: Tensor | None = None  # (samples, N)
    inputs: Tensor | None = None  # (samples, N, D)
    targets: Tensor | None = None  # (samples,)
    cotangent: Tensor | None = None  # gradient that is pulled back; absent for losses

    @property
    def tree(self) -> ModeTree:
        """The workload's mode tree."""
        return self.workload.tree


def _make(label: str, task: Task, tree: ModeTree, size: int | tuple[int, ...], rank: int | tuple[int, ...], samples: int = 0) -> Workload:
    sizes = (size,) * tree.order if isinstance(size, int) else size
    ranks = (rank,) * len(tree.interior) if isinstance(rank, int) else rank
    return Workload(label, task, tree, sizes, ranks, samples)


def _both(*workloads: Workload) -> Iterator[Workload]:
    for workload in workloads:
        yield from (workload, replace(workload, backward=True))


def workloads() -> tuple[Workload, ...]:
    """All workloads, in the order of the table."""
    nested = ModeTree.from_nested
    crossed = nested((((0, 4), (2, 6)), ((1, 5), (3, 7))))
    mixed = nested(((0, 3, 5), (1, (2, 4)), 6))
    perfect, chain, star = ModeTree.perfect, ModeTree.chain, ModeTree.star
    return (
        *_both(
            _make("binary8 D8 R64", "end", perfect(8), 8, 64),
            _make("binary4 D8 R512", "end", perfect(4), 8, 512),
            _make("ternary9 D3 R100", "end", perfect(9, 3), 3, 100),
            _make("chain8 D6 R64", "end", chain(8), 6, 64),
            _make("chain10 D4 R32", "end", chain(10), 4, 32),
            _make("star6 D12 R64", "end", star(6), 12, 64),
            _make("small4 D4 R8", "end", perfect(4), 4, 8),
            _make("crossed4 D32 R64", "end", nested(((0, 2), (1, 3))), 32, 64),
            _make("crossed8 D6 R32", "end", crossed, 6, 32),
            _make("random9 D4 R48", "end", ModeTree.random(9, seed=3), 4, 48),
            _make("mixed7", "end", mixed, (5, 9, 3, 16, 4, 7, 11), (24, 17, 40, 33)),
            _make("lopsided6", "end", chain(6), (3, 2, 4, 3, 2, 1500), (12, 30, 50, 70, 90)),
        ),
        *_both(
            _make("binary8 D8 R32", "entries", perfect(8), 8, 32, 10000),
            _make("binary16 D8 R32", "entries", perfect(16), 8, 32, 10000),
            _make("binary16 D8 R32 n1000", "entries", perfect(16), 8, 32, 1000),
            _make("binary64 D8 R32", "entries", perfect(64), 8, 32, 10000),
            _make("chain16 D8 R32", "entries", chain(16), 8, 32, 10000),
            _make("star16 D8 R32", "entries", star(16), 8, 32, 10000),
            _make("crossed8 D8 R32", "entries", crossed, 8, 32, 10000),
            _make("binary16 D8 R32", "network", perfect(16), 8, 32, 10000),
            _make("chain16 D8 R32", "network", chain(16), 8, 32, 10000),
        ),
        replace(_make("figure1-right", "step", perfect(4), 8, 512, 2048), backward=True),
        replace(_make("figure1-middle", "step", star(3), 16, 256, 2048), backward=True),
        replace(_make("figure10", "step", perfect(9, 3), 3, 100, 9840), backward=True),
    )


def make_case(workload: Workload, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0) -> Case:
    """The workload's tensors.

    Weights have random signs and magnitudes in [1/2, 3/2], those of interior nodes divided by the square root of their rows, so
    that every sum over a rank, and with it the end tensor, stays of order 1 in trees of any depth.
    """
    source = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        magnitudes = torch.rand(size, generator=source, dtype=torch.float64) + 0.5
        return magnitudes * (torch.randint(0, 2, size, generator=source) * 2 - 1)

    def place(tensor: Tensor) -> Tensor:
        return tensor.to(device=device, dtype=dtype)

    order = workload.tree.order
    weights = [
        place(draw(*size) if node < order else draw(*size) / math.sqrt(size[0])).contiguous() for node, size in enumerate(workload.sizes)
    ]
    if workload.task == "end":
        return Case(workload, weights, cotangent=place(draw(*workload.mode_sizes)))
    if workload.task == "network":
        inputs = draw(workload.samples, order, workload.mode_sizes[0]) / math.sqrt(workload.mode_sizes[0])
        return Case(workload, weights, inputs=place(inputs), cotangent=place(draw(workload.samples)))
    if workload.task == "entries":
        columns = [torch.randint(0, size, (workload.samples,), generator=source) for size in workload.mode_sizes]
        return Case(workload, weights, indices=torch.stack(columns, 1).to(device), cotangent=place(draw(workload.samples)))
    chosen = torch.randperm(math.prod(workload.mode_sizes), generator=source)[: workload.samples]
    indices = torch.stack(torch.unravel_index(chosen, workload.mode_sizes), 1)
    return Case(workload, weights, indices=indices.to(device), targets=place(draw(workload.samples)))
