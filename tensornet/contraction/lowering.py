"""A network and a path -> ``Program``: every step becomes a matrix product or an elementwise one on views of memory; no tensors.

The order of the axes of every intermediate result is chosen so that the step that reads it can view it as a matrix: first every
result is asked, from the last step to the first, for the orders that its reader would like; then every step, from the first to
the last, takes the best order that it can produce without copying. Copies are inserted only where that fails.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tensornet.contraction.network import Labels, Network
from tensornet.contraction.paths import Joined, SSAPath, follow

_MOST_ORDERS = 8  # orders that are considered for a result

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One operation on tensors in slots; slots hold the inputs first, then the results of the operations, all contiguous.

    Each factor is read as a strided view of its slot: a permutation of blocks of axes, with size 1 where an axis is broadcast.

    Attributes:
        kind: ``"product"``: the (batched) matrix product of the views ``(m, k)`` and ``(k, n)``. ``"multiply"``: their elementwise
            product, summed over ``summed``. ``"copy"``: a contiguous copy of the left view.
        left: Slot of the left factor.
        right: Slot of the right factor (for a copy, the left one again).
        result: Shape of the result.
        left_view: Shape in which the left factor is read.
        left_strides: Strides of that view.
        right_view: Likewise for the right factor.
        right_strides: Likewise for the right factor.
        summed: Axes over which an elementwise product is summed.
    """

    kind: Literal["product", "multiply", "copy"]
    left: int
    right: int
    result: Sizes
    left_view: Sizes
    left_strides: Sizes
    right_view: Sizes = ()
    right_strides: Sizes = ()
    summed: Sizes = ()


@dataclass(frozen=True, eq=False)
class Program:
    """Operations that contract a network (or a slice of it).

    Attributes:
        operands: Shapes of the operands.
        operations: What is done, in order; the last one gives the result.
        last_use: For every operation, the slots of intermediate results that are not read again after it.
        stored: Sizes of the axes of the result as it is stored.
        permutation: Permutation that brings the stored axes into the asked order; empty when they are.
        output_sizes: Sizes of the result in the asked order.
    """

    operands: tuple[Sizes, ...]
    operations: tuple[Operation, ...]
    last_use: tuple[tuple[int, ...], ...]
    stored: Sizes
    permutation: tuple[int, ...]
    output_sizes: Sizes

    @cached_property
    def peak(self) -> int:
        """Largest number of entries that intermediate results, copies and the result have together at any time."""
        entries = [math.prod(operation.result) for operation in self.operations]
        live = peak = 0
        for size, dead in zip(entries, self.last_use):
            live += size
            peak = max(peak, live)
            live -= sum(entries[slot - len(self.operands)] for slot in dead)
        return peak

    @cached_property
    def total(self) -> int:
        """Entries of all intermediate results, copies and the result."""
        return sum(math.prod(operation.result) for operation in self.operations)


def lower(network: Network, path: SSAPath, sizes: Mapping[int, int] | None = None) -> Program:
    """Makes the program that contracts a network along a path.

    Args:
        network: The network.
        path: Pairs of tensors.
        sizes: Sizes of the labels, where they are not those of the network (for a slice).

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> plan = make_plan(make_shape(ModeTree.star(2), 4, 5))
        >>> [operation.kind for operation in lower(plan.network, plan.ssa_path).operations]
        ['multiply', 'product']
    """
    return _Lowering(network, path, sizes or network.sizes).run()


class _Lowering:
    def __init__(self, network: Network, path: SSAPath, sizes: Mapping[int, int]) -> None:
        self.network = network
        self.steps: list[tuple[int, int, Joined]] = [(*pair, labels) for pair, labels in zip(path, follow(network, path))]
        self.sizes = sizes
        self.operands = network.operands
        self.orders: list[Labels] = list(self.operands)  # actual order of the axes of every slot
        self.slots = list(range(len(self.operands)))  # tensor id of the path -> slot
        self.operations: list[Operation] = []

    def run(self) -> Program:
        wishes = self._wishes()
        for place, (left, right, (first, _, result)) in enumerate(self.steps):
            left, right = self.slots[left], self.slots[right]
            wish = wishes[place] or [result]
            kept = set(result)
            if any(label not in kept for label in first):
                self._product(left, right, kept, wish)
            else:
                self._multiply(left, right, wish)
            self.slots.append(len(self.orders) - 1)
        stored = self.orders[self.slots[-1]]
        output = self.network.output
        permutation = tuple(stored.index(label) for label in output)
        operations = tuple(self.operations)
        scalar_roots = self.network.scalar_roots
        return Program(
            tuple(self._shape(labels) + (1,) * (place in scalar_roots) for place, labels in enumerate(self.operands)),
            operations,
            last_use(operations, len(self.operands)),
            self._shape(stored),
            () if permutation == tuple(range(len(output))) else permutation,
            self._shape(output),
        )

    def _wishes(self) -> list[list[Labels]]:
        """For every step, orders of its result's axes that would serve its reader, the best first."""
        count = len(self.operands)
        wishes: list[list[Labels]] = [[] for _ in self.steps]
        if wishes:
            wishes[-1] = [self.network.output]
        for place in reversed(range(len(self.steps))):
            left, right, (first, second, result) = self.steps[place]
            kept, others = set(result), set(second)
            shared = [label for label in first if label in others]
            summed = tuple(label for label in shared if label not in kept)
            batch = tuple(label for label in shared if label in kept)
            for tensor, labels in ((left, first), (right, second)):
                if tensor < count:
                    continue
                own = set(labels)
                orders: dict[Labels, None] = {}
                for wish in wishes[place] or [result]:
                    free = tuple(label for label in wish if label in own and label not in batch)
                    if not summed:
                        orders[tuple(label for label in wish if label in own)] = None
                        continue
                    orders[batch + free + summed] = None
                    orders[batch + summed + free] = None
                wishes[tensor - count] = list(itertools.islice(orders, _MOST_ORDERS))
        return wishes

    def _product(self, left: int, right: int, kept: set[int], wish: list[Labels]) -> None:
        """A matrix product, in the order of its two factors that serves the reader of its result best."""
        first, second = self.orders[left], self.orders[right]
        shared = set(first) & set(second)
        summed = tuple(label for label in first if label in shared and label not in kept)
        batch = tuple(label for label in first if label in shared and label in kept)
        frees = [tuple(label for label in order if label not in shared) for order in (first, second)]
        options = [batch + frees[0] + frees[1], batch + frees[1] + frees[0]]
        swap = _closeness(options[1], wish) < _closeness(options[0], wish)
        if wish == [self.network.output] and not any(option in wish for option in options):
            swap = self._count(frees[0]) < self._count(frees[1])  # no step reads it, and threads share rows out
        if swap:
            left, right = right, left
            frees.reverse()
        left, left_turned = self._as_matrix(left, batch, summed, frees[0], rows_first=True)
        right, right_turned = self._as_matrix(right, batch, summed, frees[1], rows_first=False)
        b, k = self._count(batch), self._count(summed)
        m, n = (self._count(free) for free in frees)
        front, left_front, right_front = ((b,), (m * k,), (k * n,)) if batch else ((), (), ())
        self._append(
            Operation(
                "product",
                left,
                right,
                (*front, m, n),
                (*front, m, k),
                (*left_front, 1, m) if left_turned else (*left_front, k, 1),
                (*front, k, n),
                (*right_front, 1, k) if right_turned else (*right_front, n, 1),
            ),
            batch + frees[0] + frees[1],
        )

    def _as_matrix(self, slot: int, batch: Labels, summed: Labels, free: Labels, *, rows_first: bool) -> tuple[int, bool]:
        """The slot in which a factor can be viewed as a (batched) matrix, and whether that matrix is stored transposed."""
        straight, turned = (free + summed, summed + free) if rows_first else (summed + free, free + summed)
        if self.orders[slot] == batch + straight:
            return slot, False
        if self.orders[slot] == batch + turned:
            return slot, True
        return self._copy(slot, batch + straight), False

    def _copy(self, slot: int, order: Labels) -> int:
        strides = self._strides(self.orders[slot])
        self._append(Operation("copy", slot, slot, self._shape(order), self._shape(order), strides(order)), order)
        return len(self.orders) - 1

    def _multiply(self, left: int, right: int, wish: list[Labels]) -> None:
        """An elementwise product; any order of the result is possible, and the larger factor's last axis had better stay last."""
        if self._count(self.orders[left]) < self._count(self.orders[right]):
            left, right = right, left
        first, second = self.orders[left], self.orders[right]
        order = min(wish, key=lambda labels: (labels[-1:] != first[-1:], labels[-1:] != second[-1:], wish.index(labels)))
        blocks = _blocks(order, first, second)
        views = []
        for own in (first, second):
            strides = self._strides(own)
            views.append(tuple(self._count(block) if block[0] in own else 1 for block in blocks))
            views.append(tuple(strides(block[-1:])[0] if block[0] in own else 0 for block in blocks))
        shape = tuple(self._count(block) for block in blocks)
        self._append(Operation("multiply", left, right, shape, *views), order)

    def _strides(self, own: Labels) -> Callable[[Labels], Sizes]:
        """Strides of a contiguous tensor with axes ``own``, as a function of the labels asked for."""
        strides = dict(zip(own, contiguous_strides(self._shape(own))))
        return lambda labels: tuple(strides[label] for label in labels)

    def _append(self, operation: Operation, order: Labels) -> None:
        self.operations.append(operation)
        self.orders.append(order)

    def _shape(self, labels: Iterable[int]) -> Sizes:
        return tuple(self.sizes[label] for label in labels)

    def _count(self, labels: Iterable[int]) -> int:
        return math.prod(self.sizes[label] for label in labels)


def contiguous_strides(sizes: Sequence[int]) -> Sizes:
    """Strides of a contiguous tensor.

    Example:
        >>> contiguous_strides((4, 3, 2))
        (6, 2, 1)
    """
    strides = []
    stride = 1
    for size in reversed(sizes):
        strides.append(stride)
        stride *= size
    return tuple(reversed(strides))


def last_use(operations: Sequence[Operation], kept: int) -> tuple[tuple[int, ...], ...]:
    """For every operation the slots, from number ``kept`` on, that no later operation reads.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> last_use(make_plan(make_shape(ModeTree.star(2), 4, 5)).program.operations, kept=3)
        ((), (3,))
    """
    last = {slot: place for place, operation in enumerate(operations) for slot in (operation.left, operation.right)}
    dead: list[list[int]] = [[] for _ in operations]
    for slot, place in last.items():
        if slot >= kept:
            dead[place].append(slot)
    return tuple(map(tuple, dead))


def _closeness(order: Labels, wishes: Sequence[Labels]) -> tuple[int, int]:
    """How far an order is from what its reader wants: place among the wishes; else whether the axes at its ends are as wished."""
    if order in wishes:
        return 0, wishes.index(order)
    ends = sum(order[:1] != wish[:1] and order[-1:] != wish[-1:] for wish in wishes)
    return 1 + ends, 0


def _blocks(order: Labels, first: Labels, second: Labels) -> list[Labels]:
    """Runs of axes that lie side by side in both factors or in the one that has them, and can be handled as one axis."""
    blocks: list[Labels] = []
    for label in order:
        last = blocks[-1][-1] if blocks else None
        if last is not None and all(_adjacent(last, label, own) for own in (first, second)):
            blocks[-1] += (label,)
        else:
            blocks.append((label,))
    return blocks


def _adjacent(label: int, following: int, own: Labels) -> bool:
    """Whether neither is an axis of ``own``, or both are and the second directly follows the first."""
    if label in own and following in own:
        return own.index(following) == own.index(label) + 1
    return label not in own and following not in own
