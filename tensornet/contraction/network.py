"""What is asked of a factorization, as a labelled network of tensors: the common language of planning and execution.

Labels are integers. ``Shape`` + ``Request`` -> ``Network``; no tensors.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import index

from tensornet.shape import Shape

Labels = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """What is to be contracted; the end tensor when nothing is given.

    Attributes:
        fixed: Modes that are fixed to one index and vanish from the result.
        projected: ``(mode, size)`` of modes that are contracted with a vector (size 0; the mode vanishes) or with a matrix
            ``(D_mode, size)`` (the mode takes that size).
        gram: Modes ``I`` of the matricization whose Gram matrix ``[[W; I]] [[W; I]]^H`` is asked for; ``None`` for the tensor.

    Example:
        >>> Request.make(fixed=[3], projected={0: 0, 1: 5})
        Request(fixed=(3,), projected=((0, 0), (1, 5)), gram=None)
    """

    fixed: tuple[int, ...] = ()
    projected: tuple[tuple[int, int], ...] = ()
    gram: tuple[int, ...] | None = None

    @classmethod
    def make(cls, *, fixed: Iterable[int] = (), projected: Mapping[int, int] | None = None, gram: Iterable[int] | None = None) -> Request:
        """Makes a request of unsorted arguments.

        Raises:
            TypeError: A mode is no integer, or ``projected`` no mapping.

        Example:
            >>> Request.make(gram=[2, 0]).gram
            (0, 2)
        """
        if not isinstance(projected or {}, Mapping):
            raise TypeError(f"projected must be a mapping from modes to sizes; got {type(projected).__name__}")
        pairs = sorted((_modes([mode], "projected")[0], size) for mode, size in (projected or {}).items())
        return cls(_modes(fixed, "fixed"), tuple(pairs), None if gram is None else _modes(gram, "gram"))

    def check(self, order: int) -> None:
        """Checks the request against the order of a factorization.

        Raises:
            ValueError: A mode is out of range, or named twice.

        Example:
            >>> Request(fixed=(4,)).check(4)
            Traceback (most recent call last):
                ...
            ValueError: modes must be from 0 to 3; got 4 in fixed
        """
        projected = tuple(mode for mode, _ in self.projected)
        for name, modes in (("fixed", self.fixed), ("projected", projected), ("gram", self.gram or ())):
            for mode in modes:
                if not 0 <= mode < order:
                    raise ValueError(f"modes must be from 0 to {order - 1}; got {mode} in {name}")
        named = self.fixed + projected + (self.gram or ())
        if len(set(named)) < len(named):
            twice = next(mode for mode in named if named.count(mode) > 1)
            raise ValueError(f"a mode can be fixed, projected or kept in the Gram matrix, but only once; got mode {twice} twice")


def _modes(given: Iterable[int], name: str) -> tuple[int, ...]:
    """Modes as integers in ascending order."""
    try:
        return tuple(sorted(index(mode) for mode in given))
    except TypeError:
        raise TypeError(f"modes must be integers; got {reprlib.repr(given)} in {name}") from None


@dataclass(frozen=True)
class Network:
    """Operands with labelled axes, the size of every label, and the labels of the result in their order.

    The operands are one weight a node (a row of it for a fixed mode, a vector for a root with one output), then one vector or
    matrix a projected mode; for a Gram matrix, all of them again, conjugated.

    Attributes:
        operands: Labels of every operand.
        sizes: Size of every label.
        output: Labels of the result.
        names: What every operand is, for people.
        first: Labels to be summed before those of interior nodes: of projected modes, and of a Gram matrix's columns.
        eliminate: For every interior node, the labels to be summed at it, in the order of ``tree.interior``.
        scalar_roots: Places of root weights among the operands when these have one column, which no label stands for.
    """

    operands: tuple[Labels, ...]
    sizes: Mapping[int, int]
    output: Labels
    names: tuple[str, ...]
    first: Labels
    eliminate: tuple[Labels, ...]
    scalar_roots: tuple[int, ...]

    def size(self, labels: Iterable[int]) -> int:
        """Number of entries of a tensor with these labels.

        Example:
            >>> from tensornet import ModeTree, make_shape
            >>> make_network(make_shape(ModeTree.star(3), 4, 5), Request()).size((0, 1))
            16
        """
        return math.prod(self.sizes[label] for label in labels)

    @cached_property
    def output_sizes(self) -> tuple[int, ...]:
        """Sizes of the result's axes."""
        return tuple(self.sizes[label] for label in self.output)


def make_network(shape: Shape, request: Request) -> Network:
    """The network of tensors whose contraction is what ``request`` asks of a factorization of this shape (Equation 3).

    Raises:
        ValueError: The request names a mode that does not exist, or one twice.

    Example:
        >>> from tensornet import ModeTree, make_shape
        >>> network = make_network(make_shape(ModeTree.star(2), 4, 5), Request())
        >>> network.operands, network.output  # mode labels 0 and 1, rank label 2
        (((0, 2), (1, 2), (2,)), (0, 1))
    """
    tree = shape.tree
    request.check(tree.order)
    count = len(tree.nodes)
    sizes = dict(enumerate(shape.mode_sizes + shape.rank_sizes))
    sizes[count] = shape.outputs
    projected = dict(request.projected)
    fixed = set(request.fixed)
    operands: list[Labels] = []
    names: list[str] = []
    for node, parent in enumerate(tree.parent_ids):
        column = (parent,) if parent >= 0 else (count,) if shape.outputs > 1 else ()
        row = () if node in fixed else (node,)
        operands.append(row + column)
        names.append(f"W{_name(tree.nodes[node])}" + ("[i]" if node in fixed else ""))
    output = []
    for mode in range(tree.order):
        if mode in fixed:
            continue
        if mode not in projected:
            output.append(mode)
            continue
        new = count + 1 + mode
        operands.append((mode, new) if projected[mode] else (mode,))
        names.append(f"{'matrix' if projected[mode] else 'vector'} on mode {mode}")
        if projected[mode]:
            sizes[new] = projected[mode]
            output.append(new)
    summed = tuple(mode for mode in projected)
    roots = (count - 1,) if shape.outputs == 1 else ()
    eliminate = tuple((node,) for node in range(tree.order, count))
    if request.gram is None:
        last = (count,) if shape.outputs > 1 else ()
        return Network(tuple(operands), sizes, tuple(output) + last, tuple(names), summed, eliminate, roots)

    kept = set(request.gram)
    shift = 2 * count + 1

    def second(label: int) -> int:
        """Labels of the conjugate copy: the columns of the matricization are summed, and so shared by both copies."""
        own = label in kept or tree.order <= label < count or label in summed
        return label + shift if own else label

    copies = tuple(tuple(second(label) for label in labels) for labels in operands)
    sizes.update({second(label): size for label, size in list(sizes.items())})
    rows = tuple(reversed(request.gram))
    columns = tuple(label for label in output if label not in kept)
    first = tuple(label for pair in ((mode, second(mode)) for mode in summed) for label in pair) + columns
    first += (count,) if shape.outputs > 1 else ()
    return Network(
        tuple(operands) + copies,
        sizes,
        rows + tuple(second(label) for label in rows),
        tuple(names) + tuple(f"conj {name}" for name in names),
        first,
        tuple((node, second(node)) for (node,) in eliminate),
        roots + tuple(root + len(operands) for root in roots),
    )


def _name(node: tuple[int, ...]) -> str:
    if len(node) > 6:
        return f"({node[0]},..,{node[-1]})"
    return "(" + ",".join(map(str, node)) + ")"
