"""Plans: which pairs of tensors a contraction joins in which order, what that costs, and whether it fits into memory.

``Shape`` + ``Request`` -> ``Plan``, without tensors. Candidates are paths along the mode tree and opt_einsum's own searches where
these stay cheap; one cost model chooses. This is the only importer of opt_einsum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import opt_einsum

from tensornet.network import Labels, Network, Request, make_network
from tensornet.paths import SSAPath, along_tree, centres, separate
from tensornet.shape import Shape

_MOST_SEARCHED = 128  # operands up to which opt_einsum's greedy search is tried
_MOST_SEARCHED_WELL = 12  # operands up to which its better searches are
_MOST_SLICES = 1 << 16


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


@dataclass(frozen=True, eq=False)
class Plan:
    """A contraction, ready to be executed on tensors of the sizes that it was made for; ``str()`` gives a table.

    Attributes:
        network: What is contracted.
        source: Where the path comes from.
        steps: The pairwise contractions (of one slice, where ``slices`` is not empty).
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
    steps: tuple[Step, ...]
    flops: int
    bytes_moved: int
    peak_bytes: int
    slices: tuple[tuple[int, int], ...]
    seconds: float
    itemsize: int
    machine: Machine

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
        ssa = [(step.left, step.right) for step in self.steps]
        return tuple(tuple(sorted(pair)) for pair in opt_einsum.paths.ssa_to_linear(ssa))

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
) -> Plan:
    """Chooses the cheapest way to contract what ``request`` asks of a factorization of this shape. Plans are cached.

    Args:
        shape: Tree and sizes.
        request: What to contract; the end tensor by default.
        itemsize: Bytes of a number.
        machine: Rates by which candidates are compared.
        memory_limit: Bytes that intermediate results and end result may take together; unlimited by default. Where no candidate
            fits, the contraction is cut into slices over mode or rank indices.

    Raises:
        MemoryLimitError: Nothing fits into ``memory_limit``, not even in slices.
        ValueError: The request names a mode that does not exist, or one twice.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> make_plan(make_shape(ModeTree.chain(8), mode_sizes=6, ranks=64)).source
        'along the tree, centre (0, 1, 2, 3, 4)'
    """
    network = make_network(shape, request)
    found = [_evaluate(network, path, source, itemsize, machine) for source, path in _candidates(shape, network)]
    fitting = [plan for plan in found if memory_limit is None or plan.peak_bytes <= memory_limit]
    if fitting:
        return min(fitting, key=lambda plan: plan.seconds)
    assert memory_limit is not None
    smallest = min(found, key=lambda plan: plan.peak_bytes)
    if smallest.output_bytes <= memory_limit:
        sliced = [plan for plan in (_slice(plan, memory_limit) for plan in found) if plan is not None]
        if sliced:
            return min(sliced, key=lambda plan: plan.seconds)
    sizes = " x ".join(map(str, network.output_sizes[:12])) or "a scalar"
    raise MemoryLimitError(
        f"contracting to {sizes}{' x ...' if len(network.output_sizes) > 12 else ''} needs {memory(smallest.peak_bytes)} "
        f"({memory(smallest.output_bytes)} for the result) but may use {memory(memory_limit)}; entries(indices) evaluates chosen "
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


def _evaluate(
    network: Network,
    path: SSAPath,
    source: str,
    itemsize: int,
    machine: Machine,
    slices: tuple[tuple[int, int], ...] = (),
) -> Plan:
    """The plan of a path, with the costs of its steps; the sizes of sliced labels are those of one slice."""
    sizes = dict(network.sizes)
    slice_count = 1
    for label, parts in slices:
        sizes[label] = -(-sizes[label] // parts)
        slice_count *= parts
    holders = dict.fromkeys(sizes, 0)  # tensors, the end result among them, that still hold a label
    for labels in (*network.operands, network.output):
        for label in labels:
            holders[label] += 1
    tensors: list[Labels] = list(network.operands)
    counts = [_count(labels, sizes) for labels in tensors]
    whole = network.size(network.output)
    live = 0
    if slices:  # the whole result, and the parts of the operands that are cut out of them
        cut = dict(slices).keys()
        live = whole + sum(size for size, labels in zip(counts, tensors) if not cut.isdisjoint(labels))
    flops = moved = 0
    peak = max(whole, live)
    seconds = 0.0
    steps = []
    for left, right in path:
        first, second = tensors[left], tensors[right]
        result = []
        work = 1
        for label in dict.fromkeys(first + second):
            work *= sizes[label]
            others = holders[label] - (label in first) - (label in second)
            holders[label] = others + 1
            if others:
                result.append(label)
        product = len(result) < len({*first, *second})
        entries = _count(result, sizes)
        traffic = counts[left] + counts[right] + entries
        live += entries
        peak = max(peak, live)
        steps.append(Step(left, right, (first, second, tuple(result)), work * (1 + product), traffic * itemsize, live * itemsize))
        live -= sum(counts[place] for place in (left, right) if place >= len(network.operands))
        tensors.append(tuple(result))
        counts.append(entries)
        flops += work * (1 + product)
        moved += traffic
        seconds += _seconds(work * (1 + product) * product, traffic * itemsize, machine)
    if not separate(network.output, *steps[-1].labels[:2]):  # whoever reads the result has to put its axes in order
        seconds += _seconds(0, 2 * whole * itemsize, machine)
    return Plan(
        network,
        source,
        tuple(steps),
        flops * slice_count,
        (moved * slice_count + (whole if slices else 0)) * itemsize,
        peak * itemsize,
        slices,
        seconds * slice_count,
        itemsize,
        machine,
    )


def _count(labels: Sequence[int], sizes: Mapping[int, int]) -> int:
    total = 1
    for label in labels:
        total *= sizes[label]
    return total


def _seconds(product_flops: int, traffic: int, machine: Machine) -> float:
    try:
        return max(product_flops / machine.flops, traffic / machine.bandwidth) + machine.overhead
    except OverflowError:
        return math.inf


def _slice(plan: Plan, memory_limit: int) -> Plan | None:
    """Halves mode and rank indices of a plan until it fits: always the one that leaves the smallest peak, then the least work."""
    path = tuple((step.left, step.right) for step in plan.steps)

    def rank(trial: Plan) -> tuple[int, int, int]:
        return trial.peak_bytes, sum(step.live_bytes for step in trial.steps), trial.flops

    while plan.peak_bytes > memory_limit:
        parts = dict(plan.slices)
        trials = []
        for label, size in plan.network.sizes.items():
            if parts.get(label, 1) < size:
                slices = tuple(sorted({**parts, label: min(size, 2 * parts.get(label, 1))}.items()))
                trials.append(_evaluate(plan.network, path, plan.source, plan.itemsize, plan.machine, slices))
        best = min(trials, key=rank, default=None)
        if best is None or best.slice_count > _MOST_SLICES or (parts and rank(best)[:2] >= rank(plan)[:2]):
            return None
        plan = best
    return plan


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
