"""What paths through a network cost: arithmetic, memory traffic, time on a machine, and how slices save memory; no tensors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tensornet.contraction.network import Labels, Network
from tensornet.contraction.paths import SSAPath, apart, follow, span

_MOST_SLICES = 1 << 16


@dataclass(frozen=True)
class Machine:
    """Rates by which plans are compared. Only their ratios matter, and these differ little between machines of one kind.

    Attributes:
        name: ``"cpu"`` or ``"cuda"``.
        flops: Matrix-product rate in real operations per second.
        bandwidth: Memory traffic in bytes per second.
        overhead: Time of an operation on no data, in seconds.
    """

    name: str
    flops: float
    bandwidth: float
    overhead: float


CPU = Machine("cpu", flops=1.2e11, bandwidth=1.5e10, overhead=3e-6)
CUDA = Machine("cuda", flops=4e13, bandwidth=3e12, overhead=5e-6)


@dataclass(frozen=True)
class Step:
    """One pairwise contraction.

    Attributes:
        left: Id of the first tensor; operands come first, then the results of the steps.
        right: Id of the second one.
        labels: Labels of both and of the result.
        flops: Arithmetic operations on numbers of the result's type.
        bytes_moved: Bytes of both tensors and of the result.
        live_bytes: Bytes of all intermediate results that exist during this step.
    """

    left: int
    right: int
    labels: tuple[Labels, Labels, Labels]
    flops: int
    bytes_moved: int
    live_bytes: int


@dataclass(frozen=True)
class Candidate:
    """A path and its estimated costs; bytes are counted without copies.

    Attributes:
        source: Where the path comes from.
        path: The pairwise contractions.
        slices: ``(label, parts)``: the labels over which it is cut.
        flops: All arithmetic operations, over all slices.
        bytes_moved: All memory traffic.
        peak_bytes: Largest total size of intermediate results and end result at any time.
        live_bytes: Their total size, summed over the steps.
        seconds: Estimated time.
    """

    source: str
    path: SSAPath
    slices: tuple[tuple[int, int], ...]
    flops: int
    bytes_moved: int
    peak_bytes: int
    live_bytes: int
    seconds: float


def sliced_sizes(network: Network, slices: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Sizes of the labels in the largest slice.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> plan = make_plan(make_shape(ModeTree.star(2), 4, 5))
        >>> sliced_sizes(plan.network, [(0, 2)])[0]
        2
    """
    parts = dict(slices)
    return {label: -(-size // parts.get(label, 1)) for label, size in network.sizes.items()}


def around_slices(network: Network, sizes: Mapping[int, int], slices: Sequence[tuple[int, int]]) -> int:
    """Entries that sliced contractions keep around a slice: the whole result, and what is cut out of the operands.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> plan = make_plan(make_shape(ModeTree.star(2), 4, 5))
        >>> around_slices(plan.network, sliced_sizes(plan.network, [(0, 2)]), [(0, 2)])  # 4 x 4, and 2 x 5 of the first leaf
        26
    """
    cut = dict(slices).keys()
    return network.size(network.output) + sum(_count(labels, sizes) for labels in network.operands if not cut.isdisjoint(labels))


def estimate(
    network: Network,
    path: SSAPath,
    source: str,
    slices: tuple[tuple[int, int], ...] = (),
    *,
    itemsize: int,
    machine: Machine,
    recorded: bool,
) -> Candidate:
    """The costs of a path. Of labels that stay only the number of entries is followed, so that their number costs nothing.

    Args:
        network: What is contracted.
        path: The pairwise contractions.
        source: Where the path comes from.
        slices: ``(label, parts)``: the labels over which it is cut.
        itemsize: Bytes of a number.
        machine: Rates that make times of operations and bytes.
        recorded: All intermediate results are kept.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> plan = make_plan(make_shape(ModeTree.star(2), 4, 5))
        >>> estimate(plan.network, plan.ssa_path, "", itemsize=4, machine=CPU, recorded=False).flops
        180
    """
    sizes = sliced_sizes(network, slices) if slices else network.sizes
    slice_count = math.prod(parts for _, parts in slices)
    output = set(network.output)
    summed = [frozenset(labels).difference(output) for labels in network.operands]
    kept = [_count(labels, sizes) // _count(inner, sizes) for labels, inner in zip(network.operands, summed)]
    entries = [_count(labels, sizes) for labels in network.operands]
    positions = {label: position for position, label in enumerate(network.output)}
    spans = [span(labels, positions) for labels in network.operands]
    holders = Counter(label for labels in summed for label in labels)
    whole = network.size(network.output)
    live = around_slices(network, sizes, slices) if slices else 0
    peak = max(whole, live)
    flops = moved = all_live = 0
    seconds = 0.0
    for left, right in path:
        shared = summed[left] & summed[right]
        holders.subtract(shared)
        gone = frozenset(label for label in shared if holders[label] == 1)
        both = summed[left] | summed[right]
        kept.append(kept[left] * kept[right])
        work = kept[-1] * _count(both, sizes)
        summed.append(both - gone)
        entries.append(work // _count(gone, sizes))
        traffic = entries[left] + entries[right] + entries[-1]
        live += entries[-1]
        peak = max(peak, live)
        all_live += live
        if not recorded:
            live -= sum(entries[place] for place in (left, right) if place >= len(network.operands))
        flops += work * (2 if gone else 1)
        moved += traffic
        seconds += _seconds(2 * work if gone else 0, traffic * itemsize, machine)
        spans.append((min(spans[left][0], spans[right][0]), max(spans[left][1], spans[right][1])))
    if not apart(spans[path[-1][0]], spans[path[-1][1]]):  # whoever reads the result has to put its axes in order
        seconds += _seconds(0, 2 * whole * itemsize, machine)
    return Candidate(
        source,
        path,
        slices,
        flops * slice_count,
        (moved * slice_count + (whole if slices else 0)) * itemsize,
        peak * itemsize,
        all_live * itemsize,
        seconds * slice_count,
    )


def steps(network: Network, path: SSAPath, slices: Sequence[tuple[int, int]], itemsize: int) -> Iterator[Step]:
    """The steps of a path with their costs.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> plan = make_plan(make_shape(ModeTree.star(2), 4, 5))
        >>> [step.flops for step in steps(plan.network, plan.ssa_path, (), itemsize=4)]
        [20, 160]
    """
    sizes = sliced_sizes(network, slices)
    live = around_slices(network, sizes, slices) if slices else 0
    counts = [_count(labels, sizes) for labels in network.operands]
    for (left, right), (first, second, result) in zip(path, follow(network, path)):
        union = {*first, *second}
        work = _count(union, sizes) * (2 if len(result) < len(union) else 1)
        counts.append(_count(result, sizes))
        live += counts[-1]
        traffic = counts[left] + counts[right] + counts[-1]
        yield Step(left, right, (first, second, result), work, traffic * itemsize, live * itemsize)
        live -= sum(counts[place] for place in (left, right) if place >= len(network.operands))


def _count(labels: Iterable[int], sizes: Mapping[int, int]) -> int:
    total = 1
    for label in labels:
        total *= sizes[label]
    return total


def _seconds(product_flops: int, traffic: int, machine: Machine) -> float:
    try:
        return max(product_flops / machine.flops, traffic / machine.bandwidth) + machine.overhead
    except OverflowError:
        return math.inf


def cut(network: Network, candidate: Candidate, memory_limit: int, cost: Callable[..., Candidate]) -> Candidate | None:
    """Halves mode and rank indices of a path until it fits: always the one that leaves the smallest peak, then the least work.

    Args:
        network: What is contracted.
        candidate: A path that does not fit.
        memory_limit: Bytes that it may use.
        cost: :func:`estimate` of a path, its source and slices.

    Returns:
        The path with slices; ``None`` where none were found.

    Example:
        >>> from functools import partial
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> plan = make_plan(make_shape(ModeTree.perfect(4), 4, 200))
        >>> cost = partial(estimate, plan.network, itemsize=4, machine=CPU, recorded=False)
        >>> len(cut(plan.network, cost(plan.ssa_path, ""), 12000, cost).slices) > 0
        True
    """

    def rank(trial: Candidate) -> tuple[int, int, int]:
        return trial.peak_bytes, trial.live_bytes, trial.flops

    while candidate.peak_bytes > memory_limit:
        parts = dict(candidate.slices)
        trials = []
        for label in _labels_at_peak(network, candidate):
            size = network.sizes[label]
            if parts.get(label, 1) < size:
                slices = tuple(sorted({**parts, label: min(size, 2 * parts.get(label, 1))}.items()))
                trials.append(cost(candidate.path, candidate.source, slices))
        best = min(trials, key=rank, default=None)
        if best is None or math.prod(number for _, number in best.slices) > _MOST_SLICES:
            return None
        if parts and rank(best)[:2] >= rank(candidate)[:2]:
            return None
        candidate = best
    return candidate


def _labels_at_peak(network: Network, candidate: Candidate) -> list[int]:
    """Labels of the tensors that exist when most memory is used; to slice others would not save any."""
    sizes = sliced_sizes(network, candidate.slices)
    joined = follow(network, candidate.path)
    live: dict[int, tuple[int, Labels]] = {}
    most, labels = 0, set(network.output)
    for place, ((left, right), (_, _, result)) in enumerate(zip(candidate.path, joined), len(network.operands)):
        live[place] = _count(result, sizes), result
        used = sum(entries for entries, _ in live.values())
        if used > most:
            most, labels = used, {label for _, held in live.values() for label in held}
        live.pop(left, None)
        live.pop(right, None)
    return sorted(labels)
