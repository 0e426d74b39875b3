"""Mode trees (Definition 1 of Razin, Maman and Cohen 2022).

A mode tree over the modes ``0 .. N-1`` is a rooted tree with exactly ``N`` leaves, one a mode, whose nodes are labelled with the
sets of modes below them. This file knows nothing of sizes, ranks or tensors, and needs the standard library alone.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from tensornet import drawing
from tensornet.checks import integer, real, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Node: TypeAlias = tuple[int, ...]
Nested: TypeAlias = int | Sequence["Nested"]


class RepeatedNode(tuple[int, ...]):
    """A node that has the same modes as another node of its tree, because one of the two has a single child.

    Definition 1 identifies nodes with their mode sets, which fails for nodes with one child ("degenerate" in Section 4.3.1). Of
    all nodes with the same modes, the leaf (if there is one) or else the uppermost is a plain tuple; each of the others is a
    ``RepeatedNode`` that carries its distance from that one. It has the items of the plain tuple, but equals only itself.

    Example:
        >>> tree = ModeTree.from_nested(([0], 1))  # a node with the single child 0
        >>> tree.interior
        (RepeatedNode((0,), 1), (0, 1))
    """

    distance: int

    def __new__(cls, modes: Iterable[int], distance: int) -> RepeatedNode:
        """Makes the node with the given modes, ``distance`` edges away from the plain-named node with the same modes."""
        node = super().__new__(cls, modes)
        object.__setattr__(node, "distance", distance)
        return node

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a node is immutable; cannot set {name!r}")

    def __getnewargs__(self) -> tuple[Node, int]:
        return tuple(self), self.distance

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RepeatedNode) and self.distance == other.distance and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((tuple(self), self.distance))

    def __repr__(self) -> str:
        return f"RepeatedNode({tuple(self)!r}, {self.distance})"


class ModeTree:
    """An immutable, hashable mode tree.

    Nodes are sorted tuples of modes; the root is ``tuple(range(order))``. Build one with :meth:`star`, :meth:`perfect`,
    :meth:`balanced`, :meth:`chain`, :meth:`grid`, :meth:`random` or, for any other tree, :meth:`from_nested`.

    Every node also has an integer ``id``, its place in :attr:`nodes`: leaf ``n`` has id ``n``, and interior nodes follow with
    children before parents. Ids keep long trees fast, since a tuple of a thousand modes is slow to hash.

    Attributes:
        order: Number of modes ``N``.
        nodes: All nodes; leaves in ascending order, then the interior ones.
        child_ids: For every node, the ids of its children (empty for a leaf).
        parent_ids: For every node, its parent's id; -1 for the root.

    Example:
        >>> tree = ModeTree.from_nested(((0, 2), (1, 3)))
        >>> print(tree)
        (0, 1, 2, 3)
        ├── (0, 2)
        │   ├── 0
        │   └── 2
        └── (1, 3)
            ├── 1
            └── 3
        >>> tree.children((0, 2)), tree.parent((0, 2))
        (((0,), (2,)), (0, 1, 2, 3))
    """

    __slots__ = ("_hash", "_ids", "child_ids", "nodes", "order", "parent_ids")

    order: int
    nodes: tuple[Node, ...]
    child_ids: tuple[tuple[int, ...], ...]
    parent_ids: tuple[int, ...]
    _ids: dict[Node, int]
    _hash: int

    def __init__(self, nested: Nested) -> None:
        """Makes the tree of nested sequences of modes; see :meth:`from_nested`."""
        self._fill(*_parse(nested))

    def _fill(self, order: int, children: tuple[tuple[int, ...], ...]) -> None:
        _set = object.__setattr__
        _set(self, "order", order)
        _set(self, "child_ids", children)
        parents = [-1] * len(children)
        for node, below in enumerate(children):
            for child in below:
                parents[child] = node
        _set(self, "parent_ids", tuple(parents))
        _set(self, "nodes", _labels(order, children, parents))
        _set(self, "_ids", {node: place for place, node in enumerate(self.nodes)})
        _set(self, "_hash", hash((order, children)))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a ModeTree is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a ModeTree is immutable; cannot delete {name!r}")

    def __reduce__(self) -> tuple[Any, tuple[int, tuple[tuple[int, ...], ...]]]:
        return _restore, (self.order, self.child_ids)  # nested tuples would meet pickle's recursion limit

    # Builders

    @classmethod
    def from_nested(cls, nested: Nested) -> ModeTree:
        """Makes a tree from nested sequences: a mode is a leaf, a sequence is an interior node over its items.

        Modes may stand in any place and nodes may have any number of children, one included. The order in which children are
        given is kept, and counts when trees are compared.

        Raises:
            TypeError: An item is neither an integer nor a sequence.
            ValueError: A mode is missing, repeated or negative, or a node is empty.

        Example:
            >>> ModeTree.from_nested(((0, 2), (1, (3, 4)))).interior
            ((0, 2), (3, 4), (1, 3, 4), (0, 1, 2, 3, 4))
        """
        return cls(nested)

    @classmethod
    def from_text(cls, text: str) -> ModeTree:
        """Makes a tree from nested parentheses as :meth:`to_nested` prints them, of any depth.

        Raises:
            ValueError: The text is something else, or a mode is missing or repeated, or a node is empty.

        Example:
            >>> ModeTree.from_text("((0, 2), 1)").interior
            ((0, 2), (0, 1, 2))
        """
        levels: list[list[Nested]] = [[]]
        closing: list[str] = []
        before = "("
        for token in re.findall(r"[0-9]+|\S", text):
            begins = before in "([,"  # whether an item may begin
            if token in "([" and begins:
                levels.append([])
                closing.append(")]"["([".index(token)])
            elif closing and token == closing[-1]:
                items, closed = levels.pop(), closing.pop()
                grouped = len(items) == 1 and before != "," and closed == ")"  # (0) is 0, and (0,) a node
                levels[-1].append(items[0] if grouped else tuple(items))
            elif token.isdigit() and begins:
                levels[-1].append(int(token))
            elif token != "," or begins:
                break
            before = token
        else:
            if not closing and levels[0]:
                return cls(levels[0][0] if len(levels[0]) == 1 and before != "," else tuple(levels[0]))
        raise ValueError(f"a tree is written as nested parentheses, such as ((0,1),(2,3)); got {text[:60]!r}")

    @classmethod
    def star(cls, order: int) -> ModeTree:
        """The root over all leaves: CP (tensor) factorization.

        With one mode, the root has the leaf's modes; ``(0,)`` names the leaf and ``RepeatedNode((0,), 1)`` the root.

        Raises:
            TypeError: ``order`` is no integer.
            ValueError: ``order`` is below 1.

        Example:
            >>> ModeTree.star(3).to_nested()
            (0, 1, 2)
        """
        return cls(tuple(range(integer("order", order, 1))))

    @classmethod
    def perfect(cls, order: int, arity: int = 2) -> ModeTree:
        """The perfect tree over adjacent modes, whose interior nodes all have ``arity`` children (Appendix A).

        Raises:
            TypeError: An argument is no integer.
            ValueError: ``order`` is not a power of ``arity`` (with an exponent of at least 1), or ``arity`` is below 2.

        Example:
            >>> ModeTree.perfect(9, arity=3).to_nested()
            ((0, 1, 2), (3, 4, 5), (6, 7, 8))
        """
        order, arity = integer("order", order, 1), integer("arity", arity)
        if arity < 2:
            raise ValueError(f"a perfect tree needs an arity of at least 2; got {arity}")
        power = arity
        while power < order:
            power *= arity
        if power != order:
            raise ValueError(
                f"a perfect tree of arity {arity} needs an order that is a power of {arity}; got {order} (ModeTree.balanced takes any)"
            )
        return cls.balanced(order, arity)

    @classmethod
    def balanced(cls, order: int, arity: int = 2) -> ModeTree:
        """The tree over adjacent modes that splits every node into ``arity`` parts as equal as possible, for any order.

        Raises:
            TypeError: An argument is no integer.
            ValueError: ``order`` is below 1 or ``arity`` below 2.

        Example:
            >>> ModeTree.balanced(5).to_nested()
            (((0, 1), 2), (3, 4))
            >>> ModeTree.balanced(5, arity=3).to_nested()
            ((0, 1), (2, 3), 4)
        """
        order, arity = integer("order", order, 1), integer("arity", arity)
        if arity < 2:
            raise ValueError(f"a balanced tree needs an arity of at least 2; got {arity}")

        def split(start: int, stop: int) -> Nested:
            size = stop - start
            if size == 1:
                return start
            parts = min(arity, size)
            bounds = [start + (size * part + parts - 1) // parts for part in range(parts + 1)]
            return tuple(split(low, high) for low, high in zip(bounds, bounds[1:]))

        nested = split(0, order)
        return cls(nested if order > 1 else (nested,))

    @classmethod
    def chain(cls, order: int) -> ModeTree:
        """The caterpillar ``((((0, 1), 2), 3), ...)``, whose ranks are those of a tensor train.

        Raises:
            TypeError: ``order`` is no integer.
            ValueError: ``order`` is below 2.

        Example:
            >>> ModeTree.chain(4).to_nested()
            (((0, 1), 2), 3)
        """
        if integer("order", order) < 2:
            raise ValueError(f"a chain needs an order of at least 2; got {order}")
        nested: Nested = (0, 1)
        for mode in range(2, order):
            nested = (nested, mode)
        return cls(nested)

    @classmethod
    def grid(cls, shape: Sequence[int], window: int | Sequence[int] = 2) -> ModeTree:
        """The tree of a convolutional network's pooling windows over an array of modes, such as the pixels of an image.

        Modes are the elements in row-major order. On every level, neighbouring nodes in one ``window`` become one node, until
        one is left; windows at the far border are smaller where the sizes do not divide (Appendix A, last paragraph but one).

        Args:
            shape: Size of the array along each of its axes.
            window: Elements pooled along each axis on each level; one number stands for all axes.

        Raises:
            TypeError: A size or window is no integer.
            ValueError: A size is below 1, a window is below 1, or a window is 1 on an axis that is longer than 1.

        Example:
            >>> ModeTree.grid((2, 4), window=(2, 2)).to_nested()
            ((0, 1, 4, 5), (2, 3, 6, 7))
        """
        if not isinstance(shape, Sequence):
            raise TypeError(f"shape must be a sequence of sizes; got {shape!r} of type {type(shape).__name__}")
        sizes = [integer("shape", size, 1) for size in shape]
        if not sizes:
            raise ValueError("shape needs at least one axis; got ()")
        windows = [integer("window", width, 1) for width in (window if isinstance(window, Sequence) else [window] * len(sizes))]
        if len(windows) != len(sizes):
            raise ValueError(f"window needs one size per axis of shape; got {len(windows)} for {len(sizes)} axes")
        for size, width in zip(sizes, windows):
            if width == 1 and size > 1:
                raise ValueError(f"a window of 1 never pools an axis of size {size}; window sizes must be at least 2 there")
        level: list[Nested] = list(range(math.prod(sizes)))
        while len(level) > 1:
            sizes, level = _pool(sizes, windows, level)
        return cls(level[0] if not isinstance(level[0], int) else (level[0],))

    @classmethod
    def random(cls, order: int, *, max_arity: int = 4, seed: int = 0, unary: float = 0.0) -> ModeTree:
        """A random tree over randomly ordered modes; the same for the same arguments.

        Args:
            order: Number of modes.
            max_arity: Largest number of children, at least 2.
            seed: Seed of the random draw.
            unary: Probability with which a single-child node is put above a node, from 0 to below 1.

        Raises:
            TypeError: ``order`` or ``max_arity`` is no integer, or ``unary`` no number.
            ValueError: An argument is out of its range.

        Example:
            >>> ModeTree.random(6, seed=1) == ModeTree.random(6, seed=1)
            True
        """
        order, max_arity, unary = integer("order", order, 1), integer("max_arity", max_arity), real("unary", unary, below=1)
        if max_arity < 2:
            raise ValueError(f"max_arity must be at least 2; got {max_arity}")
        rng = random.Random(f"{order} {max_arity} {seed}")
        parts: list[Nested] = list(range(order))
        rng.shuffle(parts)
        while len(parts) > 1:
            arity = rng.randint(2, min(max_arity, len(parts)))
            start = rng.randrange(len(parts) - arity + 1)
            merged: Nested = tuple(_raise(part, unary, rng) for part in parts[start : start + arity])
            parts[start : start + arity] = [merged]
        top = _raise(parts[0], unary, rng)
        return cls(top if not isinstance(top, int) else (top,))

    # Structure

    @property
    def root(self) -> Node:
        """The node that holds all modes."""
        return self.nodes[-1]

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The leaves ``(0,), (1,), ...`` in ascending order."""
        return self.nodes[: self.order]

    @property
    def interior(self) -> tuple[Node, ...]:
        """The nodes that are not leaves, children before parents."""
        return self.nodes[self.order :]

    @property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """Ids of the nodes of each height, leaves first; the height of a node is its longest distance from a leaf below it.

        Example:
            >>> ModeTree.chain(3).levels
            ((0, 1, 2), (3,), (4,))
        """
        heights: list[int] = []
        levels: list[list[int]] = []
        for place, below in enumerate(self.child_ids):
            height = 1 + max((heights[child] for child in below), default=-1)
            heights.append(height)
            if height == len(levels):
                levels.append([])
            levels[height].append(place)
        return tuple(map(tuple, levels))

    def id(self, node: Node) -> int:
        """The place of ``node`` in :attr:`nodes`.

        Raises:
            ValueError: The tree has no such node.

        Example:
            >>> ModeTree.perfect(4).id((0, 1))
            4
        """
        try:
            return self._ids[node]
        except (KeyError, TypeError):
            raise ValueError(f"{short(node)} is not a node of this tree; its nodes are sorted tuples such as {short(self.root)}") from None

    def children(self, node: Node) -> tuple[Node, ...]:
        """The children of ``node`` in their given order; ``()`` for a leaf.

        Raises:
            ValueError: The tree has no such node.

        Example:
            >>> ModeTree.perfect(4).children((0, 1))
            ((0,), (1,))
        """
        return tuple(self.nodes[child] for child in self.child_ids[self.id(node)])

    def parent(self, node: Node) -> Node | None:
        """The parent of ``node``; ``None`` for the root.

        Raises:
            ValueError: The tree has no such node.

        Example:
            >>> ModeTree.perfect(4).parent((0, 1))
            (0, 1, 2, 3)
        """
        parent = self.parent_ids[self.id(node)]
        return None if parent < 0 else self.nodes[parent]

    def to_nested(self) -> Nested:
        """The nested tuples from which :meth:`from_nested` makes this tree.

        Example:
            >>> ModeTree.chain(3).to_nested()
            ((0, 1), 2)
        """
        nested: list[Any] = []
        for place, below in enumerate(self.child_ids):
            nested.append(tuple(nested[child] for child in below) if below else place)
        return nested[-1]  # type: ignore[no-any-return]

    # Comparison and pictures

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModeTree) and self.order == other.order and self.child_ids == other.child_ids

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if len(self.nodes) <= 64:
            return f"ModeTree({self.to_nested()!r})"
        return f"<ModeTree of {self.order} modes and {len(self.nodes) - self.order} interior nodes>"

    def __str__(self) -> str:
        return drawing.text(self)

    def _repr_svg_(self) -> str:
        return drawing.svg(self)

    def draw(self) -> Figure:
        """The tree as a matplotlib figure (matplotlib is imported here, on use).

        Example:
            >>> figure = ModeTree.perfect(8).draw()
            >>> len(figure.axes)
            1
        """
        return drawing.figure(self)


def check_tree(tree: object) -> None:
    """Raises where ``tree`` is no mode tree.

    Raises:
        TypeError: It is none.

    Example:
        >>> check_tree(ModeTree.star(2))
    """
    if not isinstance(tree, ModeTree):
        raise TypeError(f"tree must be a ModeTree; got {type(tree).__name__} (ModeTree.from_nested makes one of nested tuples)")


def _restore(order: int, children: tuple[tuple[int, ...], ...]) -> ModeTree:
    tree = ModeTree.__new__(ModeTree)
    tree._fill(order, children)
    return tree


def _raise(part: Nested, probability: float, rng: random.Random) -> Nested:
    """Puts single-child nodes above ``part``, each further one with the given probability."""
    while probability and rng.random() < probability:
        part = (part,)
    return part


def _pool(sizes: list[int], windows: list[int], level: list[Nested]) -> tuple[list[int], list[Nested]]:
    """One level of pooling windows over a row-major array of nodes; a window with a single element stays that element."""
    pooled = [-(-size // width) for size, width in zip(sizes, windows)]
    groups: list[list[Nested]] = [[] for _ in range(math.prod(pooled))]
    for place, item in enumerate(level):
        target, scale, rest = 0, 1, place
        for size, width, count in zip(reversed(sizes), reversed(windows), reversed(pooled)):
            rest, coordinate = divmod(rest, size)
            target += coordinate // width * scale
            scale *= count
        groups[target].append(item)
    return pooled, [tuple(group) if len(group) > 1 else group[0] for group in groups]


def _parse(nested: Nested) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Order and children of every node, as ids; checks Definition 1 without recursion, so that depth has no limit."""
    if not _is_node(nested):
        raise TypeError(f"a tree is made of a sequence of modes and nodes; got {short(nested)} of type {type(nested).__name__}")
    modes: set[int] = set()
    found: list[tuple[Any, list[int]]] = []  # interior nodes in postorder: given node, its children (-1 - place when interior)
    stack: list[tuple[Any, list[int], list[Any]]] = []
    top: list[int] = []
    pending: list[Any] = [nested]
    current: tuple[Any, list[int], list[Any]] = (None, top, pending)
    while True:
        given, below, waiting = current
        if waiting:
            item = waiting.pop()
            if _is_node(item):
                if not len(item):
                    raise ValueError(f"every interior node needs at least one child; got {item!r} in {short(given or nested)}")
                stack.append(current)
                current = (item, [], list(reversed(item)))
            else:
                below.append(_mode(item, modes, given))
            continue
        if not stack:
            break
        found.append((given, below))
        current = stack.pop()
        current[1].append(-len(found))
    order = len(modes)
    missing = [mode for mode in range(order) if mode not in modes]
    if missing:
        raise ValueError(f"the {order} modes must be 0 to {order - 1}; missing {short(missing)}, found {max(modes)} in {short(nested)}")
    interior = tuple(tuple(child if child >= 0 else order - 1 - child for child in below) for _, below in found)
    return order, ((),) * order + interior


def _is_node(item: object) -> bool:
    return isinstance(item, Sequence) and not isinstance(item, (str, bytes))


def _mode(item: Any, modes: set[int], given: object) -> int:
    try:
        mode = integer("a mode", item)
    except TypeError as error:
        raise TypeError(f"{error} in node {short(given)}; nodes are sequences") from None
    if mode < 0:
        raise ValueError(f"modes are numbered from 0; got {mode} in node {short(given)}")
    if mode in modes:
        raise ValueError(f"every mode belongs to one leaf; mode {mode} is repeated in node {short(given)}")
    modes.add(mode)
    return mode


def _labels(order: int, children: tuple[tuple[int, ...], ...], parents: list[int]) -> tuple[Node, ...]:
    """The public name of every node; see RepeatedNode for nodes that share their modes."""
    labels: list[Node] = [(mode,) for mode in range(order)]
    for below in children[order:]:
        modes = itertools.chain.from_iterable(labels[child] for child in below)
        labels.append(labels[below[0]] if len(below) == 1 else tuple(sorted(modes)))
    names = list(labels)
    for place in range(len(labels)):
        if len(children[place]) == 1:
            continue  # a chain of single-child nodes is named from its lowest node
        run = [place]
        while (above := parents[run[-1]]) >= 0 and len(children[above]) == 1:
            run.append(above)
        if place >= order:
            run.reverse()
        for distance, member in enumerate(run[1:], 1):
            names[member] = RepeatedNode(labels[place], distance)
        names[run[0]] = labels[place]
    return tuple(names)
