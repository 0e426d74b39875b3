"""Operations -> operations on memory that is laid out beforehand, those that are alike as one on a batch; no tensors.

Branches of a tree that are alike ask for the same operations on other weights. Where the factors of such operations lie at equal
distances in memory, one operation with an axis more does them all, and its results lie at equal distances again: so a level of a perfect
tree, whose weights lie side by side, becomes one batched matrix product. A result that no batch has made waits for its place until it is
read, and lies beside those that are read with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tensornet.contraction.lowering import Operation, Sizes, contiguous_strides


@dataclass(frozen=True, order=True)
class Place:
    """Where a contiguous tensor lies.

    Attributes:
        buffer: Number of the buffer.
        offset: The entry of the buffer with which it begins.
    """

    buffer: int
    offset: int = 0


@dataclass(frozen=True)
class Batch:
    """Operations that are done as one.

    Attributes:
        operation: The first of them, alone.
        left: Slots of all left factors.
        right: Slots of all right factors.
        results: Slots of all results.
    """

    operation: Operation
    left: tuple[int, ...]
    right: tuple[int, ...]
    results: tuple[int, ...]


@dataclass(frozen=True)
class Placed:
    """An operation, with an axis more for a batch, whose factors and result have their places.

    Attributes:
        operation: The operation; its slots are buffers.
        left: Entry of the left factor's buffer with which the view begins.
        right: Likewise for the right factor.
        result: Where the result begins.
        strides: Strides of the result there.
    """

    operation: Operation
    left: int
    right: int
    result: Place
    strides: Sizes


class Layout:
    """Buffers, and the places in them of all slots.

    Args:
        buffers: Entries of every buffer that is there from the beginning.
        places: Places of the slots that are.

    Attributes:
        buffers: Entries of every buffer.
        places: The place of every slot; ``None`` while a result waits for it.

    Example:
        >>> from tensornet import ModeTree, make_plan, make_shape
        >>> program = make_plan(make_shape(ModeTree.perfect(4), 8, 64)).program  # four leaves, two nodes, the root's vector
        >>> layout = Layout([10304], [Place(0, start) for start in (0, 512, 1024, 1536, 2048, 6144, 10240)])
        >>> [placed.operation.result for placed in layout.placed(layout.add(program.operations))]
        [(2, 8, 8, 64), (2, 64, 64), (64, 64), (64, 64)]
    """

    def __init__(self, buffers: Sequence[int], places: Sequence[Place]) -> None:
        self.buffers = list(buffers)
        self.places: list[Place | None] = list(places)
        self._sizes = [0] * len(places)  # entries of results

    def add(self, operations: Sequence[Operation], targets: Mapping[int, Place] | None = None, *, late: bool = False) -> list[Batch]:
        """Batches operations, whose results become the next slots.

        Args:
            operations: Each reads slots of those before it, or slots that have their places.
            targets: Slots of results that are to lie at a certain place.
            late: Look for operations alike among those equally far from the end, as in a reverse, not from the beginning.

        Returns:
            The batches in an order in which they can be done.

        Example:
            >>> doubles = [Operation("multiply", slot, slot, (2,), (2,), (1,), (2,), (1,)) for slot in (0, 1)]
            >>> [batch.results for batch in Layout([4], [Place(0, 0), Place(0, 2)]).add(doubles)]
            [(2, 3)]
        """
        first = len(self.places)
        targets = targets or {}
        self.places += [targets.get(first + number) for number in range(len(operations))]
        self._sizes += [math.prod(operation.result) for operation in operations]
        batches = []
        for level in _levels(operations, first, late=late):
            alike: dict[Operation, list[int]] = {}
            for slot in level:
                alike.setdefault(self._kind(operations[slot - first]), []).append(slot)
            for slots in alike.values():
                members = [_Member(operations[slot - first], slot) for slot in slots]
                for run in self._runs(members):
                    batches.append(Batch(run[0].operation, *zip(*((member.left, member.right, member.slot) for member in run))))
                    if len(run) > 1 and self.places[run[0].slot] is None:
                        self._lay([member.slot for member in run])
        for slot in (slot for slot, place in enumerate(self.places) if place is None):
            self._lay([slot])  # what nothing reads
        return batches

    def placed(self, batches: Iterable[Batch]) -> list[Placed]:
        """Batches as operations on buffers.

        Example:
            >>> Layout([], []).placed([])
            []
        """
        return [self._placed(batch) for batch in batches]

    def _place(self, slot: int) -> Place:
        place = self.places[slot]
        assert place is not None
        return place

    def _lay(self, slots: Sequence[int]) -> None:
        """Gives results that wait for their places a buffer, in which they lie side by side."""
        size = self._sizes[slots[0]]
        for number, slot in enumerate(slots):
            self.places[slot] = Place(len(self.buffers), number * size)
        self.buffers.append(len(slots) * size)

    def _kind(self, operation: Operation) -> Operation:
        """What operations have in common that can be done together."""
        buffers = []
        for slot in (operation.left, operation.right):
            place = self.places[slot]
            buffers.append(-1 - self._sizes[slot] if place is None else place.buffer)
        return replace(operation, left=buffers[0], right=buffers[1])

    def _runs(self, members: list[_Member]) -> Iterator[list[_Member]]:
        """Operations that are alike, parted into those whose factors lie at equal distances; factors that wait are placed so."""
        reads = Counter(slot for member in members for slot in (member.left, member.right))
        for slot, times in reads.items():
            if times > 1 and self.places[slot] is None:  # it cannot lie beside others as often
                self._lay([slot])
        first = Place(-1)
        members.sort(key=lambda member: [self.places[slot] or first for slot in (member.left, member.right, member.slot)])
        alone = members[0].operation.kind == "product" and len(members[0].operation.result) > 2
        run: list[_Member] = []
        for member in members:
            if run:
                steps = self._steps(run[-1], member)
                if alone or min(steps) < 0 or (len(run) > 1 and steps != self._steps(run[0], run[1])):
                    yield self._settled(run)
                    run = []
            run.append(member)
        yield self._settled(run)

    def _settled(self, run: list[_Member]) -> list[_Member]:
        """The operations of a run, now that its factors have places."""
        for slots in ([member.left for member in run], [member.right for member in run]):
            if self.places[slots[0]] is None:
                self._lay(slots)
        return run

    def _steps(self, member: _Member, following: _Member) -> list[int]:
        """Distances in memory between the factors and the results of two operations; 0 for those that wait, -1 if only one does."""
        steps = []
        for slot, other in ((member.left, following.left), (member.right, following.right), (member.slot, following.slot)):
            place, further = self.places[slot], self.places[other]
            if place is None or further is None:
                steps.append(-1 if place or further else 0)
            else:
                steps.append(further.offset - place.offset if place.buffer == further.buffer else -1)
        return steps

    def _placed(self, batch: Batch) -> Placed:
        operation, count = batch.operation, len(batch.results)
        left, right, result = (self._place(slots[0]) for slots in (batch.left, batch.right, batch.results))
        strides = contiguous_strides(operation.result)
        if count > 1:
            steps = [self._place(slots[1]).offset - self._place(slots[0]).offset for slots in (batch.left, batch.right, batch.results)]
            operation = replace(
                operation,
                result=(count, *operation.result),
                left_view=(count, *operation.left_view),
                left_strides=(steps[0], *operation.left_strides),
                right_view=(count, *operation.right_view),
                right_strides=(steps[1], *operation.right_strides),
                summed=tuple(axis + 1 for axis in operation.summed),
            )
            strides = (steps[2], *strides)
        return Placed(replace(operation, left=left.buffer, right=right.buffer), left.offset, right.offset, result, strides)


@dataclass(frozen=True)
class _Member:
    """An operation among those alike, and the slot of its result."""

    operation: Operation
    slot: int

    @property
    def left(self) -> int:
        return self.operation.left

    @property
    def right(self) -> int:
        return self.operation.right


def _levels(operations: Sequence[Operation], first: int, *, late: bool) -> list[list[int]]:
    """Slots of results that do not depend on each other, by their distance from the beginning or, from far to near, from the end."""
    distance = [0] * (first + len(operations))
    numbered = list(enumerate(operations, first))
    for slot, operation in reversed(numbered) if late else numbered:
        if late:
            for factor in (operation.left, operation.right):
                distance[factor] = max(distance[factor], distance[slot] + 1)
        else:
            distance[slot] = 1 + max(distance[operation.left], distance[operation.right])
    levels: dict[int, list[int]] = {}
    for slot, _ in numbered:
        levels.setdefault(distance[slot], []).append(slot)
    return [levels[depth] for depth in sorted(levels, reverse=late)]


def reuse(steps: Sequence[Placed], buffers: Sequence[int], kept: Sequence[int]) -> list[int]:
    """For every buffer the one whose memory it can take over, itself where there is none.

    Args:
        steps: All operations, in their order.
        buffers: Entries of every buffer.
        kept: Buffers that are somebody else's, or needed to the end.

    Example:
        >>> double = Operation("multiply", 0, 0, (2,), (2,), (1,), (2,), (1,))
        >>> chain = [Placed(replace(double, left=place, right=place), 0, 0, Place(place + 1), (1,)) for place in range(3)]
        >>> reuse(chain, [2] * 4, kept=[0, 3])
        [0, 1, 2, 3]
        >>> reuse(chain, [2] * 4, kept=[0])
        [0, 1, 2, 1]
    """
    last = {buffer: place for place, step in enumerate(steps) for buffer in (step.operation.left, step.operation.right)}
    memory = list(range(len(buffers)))
    free: dict[int, list[int]] = {}
    own = set(range(len(buffers))).difference(kept)
    begun: set[int] = set()
    for place, step in enumerate(steps):
        made = step.result.buffer
        if made in own - begun and (waiting := free.get(buffers[made])):
            memory[made] = waiting.pop()
        begun.add(made)
        for buffer in sorted({step.operation.left, step.operation.right} & own):
            if last[buffer] == place:
                free.setdefault(buffers[buffer], []).append(memory[buffer])
    return memory
