"""Plans: which pairs of tensors a contraction joins in which order, what that costs, and whether it fits into memory.

``Shape`` + ``Request`` -> ``Plan``, without tensors. Candidates are paths along the mode tree and opt_einsum's own searches where
these stay cheap; one cost model chooses, and the program of the chosen path tells the true peak. This is the only importer of
opt_einsum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

import opt_einsum

from tensornet.contraction.costs import CPU, Candidate, Machine, Step, around_slices, cut, estimate, sliced_sizes, steps
from tensornet.contraction.lowering import Program, lower
from tensornet.contraction.network import Network, Request, make_network
from tensornet.contraction.paths import SSAPath, along_tree, centres
from tensornet.shape import Shape

_MOST_SEARCHED = 128  # operands up to which opt_einsum's greedy search is tried
_MOST_SEARCHED_WELL = 12  # operands up to which its better searches are
_MOST_MEMORY = 1 << 50  # bytes above which no program is made


class MemoryLimitError(MemoryError):
    """A contraction needs more memory than it may use; raised before anything is allocated."""


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
        return tuple(steps(self.network, self.ssa_path, self.slices, self.itemsize))

    @cached_property
    def program(self) -> Program:
        """The operations that contract the network, or the largest slice of it."""
        return lower(self.network, self.ssa_path, sliced_sizes(self.network, self.slices))

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
    cost = partial(estimate, network, itemsize=itemsize, machine=machine, recorded=recorded)
    # of paths with equal costs the first one, whose branches are alike where those of the tree are
    found = sorted((cost(path, source) for source, path in _candidates(shape, network)), key=lambda candidate: _rounded(candidate.seconds))
    made = partial(_made, network, itemsize=itemsize, machine=machine, recorded=recorded)
    if memory_limit is None:
        return made(found[0])
    for candidate in found:
        if candidate.peak_bytes <= memory_limit and (plan := made(candidate)).peak_bytes <= memory_limit:
            return plan
    smallest = min(candidate.peak_bytes for candidate in found)
    result_bytes = network.size(network.output) * itemsize
    if result_bytes <= memory_limit:
        sliced = [candidate for candidate in (cut(network, each, memory_limit, cost) for each in found) if candidate is not None]
        for candidate in sorted(sliced, key=lambda candidate: _rounded(candidate.seconds)):
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


def _rounded(seconds: float) -> float:
    """A time without the digits that depend on the order of a sum."""
    return float(f"{seconds:.9g}")


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


def _made(network: Network, candidate: Candidate, *, itemsize: int, machine: Machine, recorded: bool) -> Plan:
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
    around = around_slices(network, sliced_sizes(network, slices), slices) if slices else 0
    used = plan.program.total if recorded else plan.program.peak
    return replace(plan, peak_bytes=max(around + used, network.size(network.output)) * itemsize)


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
