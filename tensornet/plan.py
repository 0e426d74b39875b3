"""Plans: which pairs of tensors a contraction joins in which order, what that costs, and whether it fits into memory.

``Shape`` + ``Request`` -> ``Plan``, without tensors. Candidates are paths along the mode tree and opt_einsum's own searches where
these stay cheap; one cost model chooses, and the program of the chosen path tells the true peak. This is the only importer of
opt_einsum.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

import opt_einsum

from tensornet.lowering import Program, lower
from tensornet.network import Labels, Network, Request, make_network
from tensornet.paths import SSAPath, along_tree, apart, centres, follow, span
from tensornet.shape import Shape

_MOST_SEARCHED = 128  # operands up to which opt_einsum's greedy search is tried
_MOST_SEARCHED_WELL = 12  # operands up to which its better searches are
_MOST_SLICES = 1 << 16
_MOST_MEMORY = 1 << 50  # bytes above which no program is made


class MemoryLimitError(MemoryError):
    """A contraction needs more memory than it may use; raised before anything is allocated."""


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
class _Candidate:
    """A path and its estimated costs, the numbers of :class:`Plan`; bytes are counted without copies."""

    source: str
    path: SSAPath
    slices: tuple[tuple[int, int], ...]
    flops: int
    bytes_moved: int
    peak_bytes: int
    live_bytes: int  # summed over the steps
    seconds: float


@dataclass(frozen=True, eq=False)
class Plan:
    """A contraction, ready to be executed on tensors of the sizes that it was made for; ``str()`` gives a table.

    Attributes:
        network: What is contracted.
        source: Where the path comes from.
        ssa_path: The pairwise contractions (of one slice, where ``slices`` is not empty), as pairs of tensors: the operands are
            numbered first, then the results.
        flops: All arithmetic operations, over all slices.
        bytes_moved: All memory traffic.
        peak_bytes: Largest total size of intermediate results and end result at any time; the operands are not counted.
        slices: ``(label, parts)``: the labels over which the contraction is cut to save memory.
        seconds: Estimated time.
        itemsize: Bytes of a number.
        machine: The rates used.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> plan = make_plan(make_shape(ModeTree.star(2), 4, 5))
        >>> plan.equation, plan.path, plan.flops
        ('ab,cb,bd->ac', ((1, 2), (0, 1)), 180)
    """

    network: Network
    source: str
    ssa_path: SSAPath
    flops: int
    bytes_moved: int
    peak_bytes: int
    slices: tuple[tuple[int, int], ...]
    seconds: float
    itemsize: int
    machine: Machine

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The pairwise contractions with their costs (of one slice)."""
        return tuple(_steps(self.network, self.ssa_path, self.slices, self.itemsize))

    @cached_property
    def program(self) -> Program:
        """The operations that contract the network, or the largest slice of it."""
        return lower(self.network, self.ssa_path, _sliced_sizes(self.network, self.slices))

    @cached_property
    def equation(self) -> str:
        """The einsum equation over the operands; a root with one output is a matrix with one column in it."""
        symbols: dict[int, str] = {}

        def word(labels: Sequence[int]) -> str:
            return "".join(symbols.setdefault(label, opt_einsum.get_symbol(len(symbols))) for label in labels)

        words = [word(labels + ((-1,) if place in self.network.scalar_roots else ())) for place, labels in enumerate(self.network.operands)]
        return ",".join(words) + "->" + word(self.network.output)

    @cached_property
    def path(self) -> tuple[tuple[int, ...], ...]:
        """The path in opt_einsum's linear format: places in the shrinking list of tensors."""
        return tuple(tuple(sorted(pair)) for pair in opt_einsum.paths.ssa_to_linear(self.ssa_path))

    @property
    def output_bytes(self) -> int:
        """Bytes of the end result."""
        return self.network.size(self.network.output) * self.itemsize

    @property
    def slice_count(self) -> int:
        """Number of slices that are contracted one after the other."""
        count = 1
        for _, parts in self.slices:
            count *= parts
        return count

    def __str__(self) -> str:
        names = [*self.network.names, *(f"#{number}" for number in range(1, len(self.steps) + 1))]
        equation = self.equation if len(self.equation) <= 100 else self.equation[:97] + "..."
        sizes = " x ".join(map(str, self.network.output_sizes)) or "scalar"
        head = [
            f"contraction of {len(self.network.operands)} tensors to {sizes if len(sizes) <= 100 else sizes[:97] + '...'}",
            f"  equation      {equation}",
            f"  path          {self.source}" + (f", {self.slice_count} slices" if self.slices else ""),
            f"  operations    {count(self.flops)}",
            f"  memory moved  {memory(self.bytes_moved)}",
            f"  peak memory   {memory(self.peak_bytes)} (result {memory(self.output_bytes)})",
        ]
        rows = [("step", "joins", "with", "result", "operations", "memory moved", "live memory")]
        shown = range(len(self.steps)) if len(self.steps) <= 60 else [*range(30), *range(len(self.steps) - 30, len(self.steps))]
        for place in shown:
            step = self.steps[place]
            result = " x ".join(str(self.network.sizes[label]) for label in step.labels[2]) or "scalar"
            result = result if len(result) <= 48 else result[:45] + "..."
            cells = (f"#{place + 1}", names[step.left], names[step.right], result)
            rows.append((*cells, count(step.flops), memory(step.bytes_moved), memory(step.live_bytes)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) if column < 4 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths)))
            for row in rows
        ]
        if len(shown) < len(self.steps):
            lines.insert(31, f"... {len(self.steps) - len(shown)} more steps")
        return "\n".join([*head, *(line.rstrip() for line in lines)])


@lru_cache(maxsize=512)
def make_plan(
    shape: Shape,
    request: Request = Request(),  # noqa: B008 - immutable
    *,
    itemsize: int = 4,
    machine: Machine = CPU,
    memory_limit: int | None = None,
    recorded: bool = False,
) -> Plan:
    """Chooses the cheapest way to contract what ``request`` asks of a factorization of this shape. Plans are cached.

    Args:
        shape: Tree and sizes.
        request: What to contract; the end tensor by default.
        itemsize: Bytes of a number.
        machine: Rates by which candidates are compared.
        memory_limit: Bytes that intermediate results and end result may take together; unlimited by default. Where no candidate
            fits, the contraction is cut into slices over mode or rank indices.
        recorded: For a gradient, all intermediate results are kept (those of a slice, until its gradient is known).

    Raises:
        MemoryLimitError: Nothing fits into ``memory_limit``, not even in slices.
        ValueError: The request names a mode that does not exist, or one twice.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> make_plan(make_shape(ModeTree.chain(8), mode_sizes=6, ranks=64)).source
        'along the tree, centre (0, 1, 2, 3, 4)'
    """
    network = make_network(shape, request)
    cost = partial(_estimate, network, itemsize=itemsize, machine=machine, recorded=recorded)
    found = sorted((cost(path, source) for source, path in _candidates(shape, network)), key=lambda candidate: candidate.seconds)
    made = partial(_made, network, itemsize=itemsize, machine=machine, recorded=recorded)
    if memory_limit is None:
        return made(found[0])
    for candidate in found:
        if candidate.peak_bytes <= memory_limit and (plan := made(candidate)).peak_bytes <= memory_limit:
            return plan
    smallest = min(candidate.peak_bytes for candidate in found)
    result_bytes = network.size(network.output) * itemsize
    if result_bytes <= memory_limit:
        sliced = [candidate for candidate in (_slice(network, each, memory_limit, cost) for each in found) if candidate is not None]
        for candidate in sorted(sliced, key=lambda candidate: candidate.seconds):
            if (plan := made(candidate)).peak_bytes <= memory_limit:
                return plan
    sizes = " x ".join(map(str, network.output_sizes[:12])) or "a scalar"
    raise MemoryLimitError(
        f"contracting to {sizes}{' x ...' if len(network.output_sizes) > 12 else ''} needs {memory(smallest)} "
        f"({memory(result_bytes)} for the result) but may use {memory(memory_limit)}; entries(indices) evaluates chosen "
        f"entries without the end tensor, contract(fixed=...) a slice of it"
    )


def _candidates(shape: Shape, network: Network) -> Iterator[tuple[str, SSAPath]]:
    tree = shape.tree
    count = len(network.operands)
    for centre in centres(network, tree, most=12 if count <= 200 else 3):
        node = tree.nodes[centre]
        name = str(tuple(node)) if len(node) <= 12 else f"({node[0]}, ..., {node[-1]})"
        yield f"along the tree, centre {name}", along_tree(network, tree, centre)
    if count <= _MOST_SEARCHED and network.size(network.output) < 1 << 60:
        inputs = [frozenset(labels) for labels in network.operands]
        searches = {"greedy": opt_einsum.paths.greedy}
        if count <= _MOST_SEARCHED_WELL:
            searches["auto"] = opt_einsum.paths.auto
        for name, search in searches.items():
            linear = search(inputs, frozenset(network.output), dict(network.sizes))
            yield f"opt_einsum {name}", _pairs(linear, count)


def _pairs(linear: Sequence[tuple[int, ...]], count: int) -> SSAPath:
    """A linear path as pairs of tensor ids; steps that join more than two tensors are split."""
    pairs: list[tuple[int, int]] = []
    ids = list(range(count))
    for places in linear:
        joined = [ids.pop(place) for place in sorted(places, reverse=True)]
        result = joined[0]
        for other in joined[1:]:
            pairs.append((result, other))
            result = count + len(pairs) - 1
        ids.append(result)
    return tuple(pairs)


def _sliced_sizes(network: Network, slices: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Sizes of the labels in the largest slice."""
    parts = dict(slices)
    return {label: -(-size // parts.get(label, 1)) for label, size in network.sizes.items()}


def _around_slices(network: Network, sizes: Mapping[int, int], slices: Sequence[tuple[int, int]]) -> int:
    """Entries that sliced contractions keep around a slice: the whole result, and what is cut out of the operands."""
    cut = dict(slices).keys()
    return network.size(network.output) + sum(_count(labels, sizes) for labels in network.operands if not cut.isdisjoint(labels))


def _estimate(
    network: Network,
    path: SSAPath,
    source: str,
    slices: tuple[tuple[int, int], ...] = (),
    *,
    itemsize: int,
    machine: Machine,
    recorded: bool,
) -> _Candidate:
    """The costs of a path. Of labels that stay only the number of entries is followed, so that their number costs nothing."""
    sizes = _sliced_sizes(network, slices) if slices else network.sizes
    slice_count = math.prod(parts for _, parts in slices)
    output = set(network.output)
    summed = [frozenset(labels).difference(output) for labels in network.operands]
    kept = [_count(labels, sizes) // _count(inner, sizes) for labels, inner in zip(network.operands, summed)]
    entries = [_count(labels, sizes) for labels in network.operands]
    positions = {label: position for position, label in enumerate(network.output)}
    spans = [span(labels, positions) for labels in network.operands]
    holders = Counter(label for labels in summed for label in labels)
    whole = network.size(network.output)
    live = _around_slices(network, sizes, slices) if slices else 0
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
    return _Candidate(
        source,
        path,
        slices,
        flops * slice_count,
        (moved * slice_count + (whole if slices else 0)) * itemsize,
        peak * itemsize,
        all_live * itemsize,
        seconds * slice_count,
    )


def _made(network: Network, candidate: _Candidate, *, itemsize: int, machine: Machine, recorded: bool) -> Plan:
    """The plan of a candidate, with the peak of its program, where that can run at all."""
    plan = Plan(
        network,
        candidate.source,
        candidate.path,
        candidate.flops,
        candidate.bytes_moved,
        candidate.peak_bytes,
        candidate.slices,
        candidate.seconds,
        itemsize,
        machine,
    )
    if candidate.peak_bytes > _MOST_MEMORY:
        return plan
    slices = candidate.slices
    around = _around_slices(network, _sliced_sizes(network, slices), slices) if slices else 0
    used = plan.program.total if recorded else plan.program.peak
    return replace(plan, peak_bytes=max(around + used, network.size(network.output)) * itemsize)


def _steps(network: Network, path: SSAPath, slices: Sequence[tuple[int, int]], itemsize: int) -> Iterator[Step]:
    sizes = _sliced_sizes(network, slices)
    live = _around_slices(network, sizes, slices) if slices else 0
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


def _slice(network: Network, candidate: _Candidate, memory_limit: int, cost: Callable[..., _Candidate]) -> _Candidate | None:
    """Halves mode and rank indices of a path until it fits: always the one that leaves the smallest peak, then the least work."""

    def rank(trial: _Candidate) -> tuple[int, int, int]:
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


def _labels_at_peak(network: Network, candidate: _Candidate) -> list[int]:
    """Labels of the tensors that exist when most memory is used; to slice others would not save any."""
    sizes = _sliced_sizes(network, candidate.slices)
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


def memory(number: int) -> str:
    """A number of bytes, for people.

    Example:
        >>> memory(3 * 2**20)
        '3.0 MiB'
    """
    if number < 1024:
        return f"{number} B"
    for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"), 1):
        if number < 1024 ** (power + 1):
            return f"{number / 1024**power:.1f} {unit}"
    return f"about 1e{math.floor(math.log10(number))} B"


def count(number: int) -> str:
    """A number of operations, for people.

    Example:
        >>> count(12_300_000)
        '1.2e+07'
    """
    return str(number) if number < 10**5 else f"{number:.1e}" if number < 10**300 else f"about 1e{math.floor(math.log10(number))}"
