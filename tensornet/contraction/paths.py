"""Contraction paths along the mode tree, found by eliminating rank indices one after the other, in linear time.

Every rank index is a label shared by the weights of a node and of all its children. Eliminating it contracts all tensors that hold
it into one. Eliminating from the leaves to a chosen node (the centre) gives one path a centre: with the root as centre the literal
walk of Equation 3, with a node in the middle of a chain two halves that are joined by one matrix product.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tensornet.contraction.network import Labels, Network
from tensornet.tree import ModeTree

SSAPath = tuple[tuple[int, int], ...]  # pairs of tensor ids; operands come first, then the results of the steps
Joined = tuple[Labels, Labels, Labels]  # labels of both tensors of a step and of its result

_MOST_SPLITS = 9  # largest number of tensors on one label for which every split into two groups is tried,
_FEWER_SPLITS = 4  # and that in networks of more than
_MANY = 200  # operands


def along_tree(network: Network, tree: ModeTree, centre: int) -> SSAPath:
    """The path that eliminates the rank indices from all sides towards that of the interior node with id ``centre``.

    Example:
        >>> from tensornet import ModeTree, Request, make_shape
        >>> from tensornet.contraction.network import make_network
        >>> tree = ModeTree.star(2)
        >>> along_tree(make_network(make_shape(tree, 4, 5), Request()), tree, centre=2)
        ((2, 1), (0, 3))
    """
    order = list(network.first)
    for node in _towards(tree, centre):
        order.extend(network.eliminate[node - tree.order])
    return _eliminate(network, order)


def centres(network: Network, tree: ModeTree, most: int = 12) -> tuple[int, ...]:
    """Interior nodes worth trying as centres: the root first, then those whose largest branch is smallest.

    The last step at a centre joins its branches (its children's tensors and the rest of the network) by one matrix product, which
    is best when no branch is much larger than the others.

    Example:
        >>> from tensornet import ModeTree, Request, make_shape
        >>> from tensornet.contraction.network import make_network
        >>> tree = ModeTree.chain(6)
        >>> network = make_network(make_shape(tree, 4, 5), Request())
        >>> [tree.nodes[centre] for centre in centres(network, tree, most=2)]
        [(0, 1, 2, 3, 4, 5), (0, 1, 2, 3)]
    """
    root = len(tree.nodes) - 1
    kept = set(network.output)
    shown = [0.0] * tree.order  # logarithm of the size in which a mode appears in the result
    for labels in network.operands:
        if labels and labels[0] < tree.order:
            shown[labels[0]] += sum(math.log2(network.sizes[label]) for label in labels if label in kept)
    weight: list[float] = []
    for node, below in enumerate(tree.child_ids):
        weight.append(sum(weight[child] for child in below) if below else shown[node])
    total = weight[root]
    largest = {
        node: max([weight[child] for child in tree.child_ids[node]] + [total - weight[node]]) for node in range(tree.order, root + 1)
    }
    ranked = sorted((size, -node) for node, size in largest.items() if node != root)
    return (root, *(-node for _, node in ranked[: most - 1]))


def follow(network: Network, path: SSAPath) -> tuple[Joined, ...]:
    """For every step of a path the labels of its tensors and of its result: all of both that others, or the end result, still hold.

    Example:
        >>> from tensornet import ModeTree, Request, make_shape
        >>> from tensornet.contraction.network import make_network
        >>> tree = ModeTree.star(2)
        >>> network = make_network(make_shape(tree, 4, 5), Request())
        >>> follow(network, along_tree(network, tree, centre=2))
        (((2,), (1, 2), (2, 1)), ((0, 2), (2, 1), (0, 1)))
    """
    output = set(network.output)
    holders = Counter(label for labels in network.operands for label in labels)
    tensors = list(network.operands)
    joined = []
    for left, right in path:
        first, second = tensors[left], tensors[right]
        shared = set(first).intersection(second)
        holders.subtract(shared)
        gone = {label for label in shared if holders[label] == 1 and label not in output}
        tensors.append(tuple(label for label in first if label not in gone) + tuple(label for label in second if label not in shared))
        joined.append((first, second, tensors[-1]))
    return tuple(joined)


def span(labels: Labels, positions: Mapping[int, int]) -> tuple[int, int]:
    """First and last place that the labels have in the result; an empty range where they have none.

    Example:
        >>> span((7, 2, 1), {1: 0, 2: 1}), span((7,), {1: 0, 2: 1})
        ((0, 1), (2, -1))
    """
    places = [positions[label] for label in labels if label in positions]
    return (min(places), max(places)) if places else (len(positions), -1)


def apart(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether one range of places ends before the other begins: a product of two such tensors has its axes in order.

    Example:
        >>> apart((0, 1), (2, 3)), apart((0, 2), (1, 3))
        (True, False)
    """
    return first[1] < second[0] or second[1] < first[0]


def _towards(tree: ModeTree, centre: int) -> list[int]:
    """Interior nodes with ``centre`` last, such that every branch seen from the centre is finished from its far end."""
    order: list[int] = []
    stack = [(centre, -1)]
    while stack:
        node, origin = stack.pop()
        order.append(node)
        around = (*tree.child_ids[node], tree.parent_ids[node])
        stack.extend((near, node) for near in around if near >= tree.order and near != origin)
    order.reverse()
    return order


def _eliminate(network: Network, order: Sequence[int]) -> SSAPath:
    """Of the labels that stay, only the number of entries and the range of places in the result matter, whatever their number."""
    positions = {label: position for position, label in enumerate(network.output)}
    limit = _MOST_SPLITS if len(network.operands) <= _MANY else _FEWER_SPLITS
    summed: dict[int, Labels] = {}
    kept: dict[int, int] = {}
    spans: dict[int, tuple[int, int]] = {}
    holders: dict[int, list[int]] = {}
    for place, labels in enumerate(network.operands):
        summed[place] = tuple(label for label in labels if label not in positions)
        kept[place] = network.size(label for label in labels if label in positions)
        spans[place] = span(labels, positions)
        for label in summed[place]:
            holders.setdefault(label, []).append(place)
    path: list[tuple[int, int]] = []

    def join(left: int, right: int, current: int = -1, *, last: bool = False) -> int:
        fresh = len(network.operands) + len(path)
        path.append((left, right))
        labels = tuple(dict.fromkeys(summed.pop(left) + summed.pop(right)))
        for label in labels:
            if label != current:
                holders[label] = [place for place in holders[label] if place not in (left, right)] + [fresh]
        summed[fresh] = tuple(label for label in labels if label != current) if last else labels
        kept[fresh] = kept.pop(left) * kept.pop(right)
        (begin, end), (other_begin, other_end) = spans.pop(left), spans.pop(right)
        spans[fresh] = min(begin, other_begin), max(end, other_end)
        return fresh

    for label in order:
        members = holders.pop(label)
        if len(members) == 1:
            holders[label] = members
            continue
        sizes = [kept[place] * network.size(other for other in summed[place] if other != label) for place in members]
        ends = []
        for group in _split(members, sizes, [spans[place] for place in members], limit):
            result = group[0]
            for place in group[1:]:
                result = join(result, place, label)
            ends.append(result)
        join(ends[0], ends[1], label, last=True)
    remaining = list(summed)
    while len(remaining) > 1:  # parts that share no index: an outer product
        remaining = [join(remaining[0], remaining[1]), *remaining[2:]]
    return tuple(path)


def _split(members: list[int], sizes: list[int], spans: list[tuple[int, int]], limit: int) -> tuple[list[int], list[int]]:
    """Two groups whose elementwise (Khatri-Rao) products are smallest; each group in ascending order of size.

    Among splits of equal cost, one whose groups hold separate ranges of the result's axes (``spans``) is preferred, since their
    matrix product then has the axes in order.
    """
    ranked = sorted(range(len(members)), key=lambda place: (sizes[place], spans[place]))
    if len(ranked) == 2:
        return [members[ranked[0]]], [members[ranked[1]]]
    groups: tuple[list[int], list[int]] = ([], [])
    if len(ranked) > limit:
        products = [1, 1]
        for place in reversed(ranked):
            smaller = int((products[1], len(groups[1])) < (products[0], len(groups[0])))
            groups[smaller].insert(0, place)
            products[smaller] *= sizes[place]
    else:
        splits = (
            (list(chosen), [place for place in ranked if place not in chosen])
            for count in range(1, len(ranked))
            for chosen in itertools.combinations(ranked[:-1], count)  # the largest is in the second group: mirrored splits are the same
        )
        groups = min(splits, key=lambda split: _split_cost(split, sizes, spans))
    return [members[place] for place in groups[0]], [members[place] for place in groups[1]]


def _split_cost(groups: tuple[list[int], list[int]], sizes: list[int], spans: list[tuple[int, int]]) -> tuple[int, bool]:
    products = sum(math.prod(sizes[place] for place in group) for group in groups if len(group) > 1)
    first, second = ((min(spans[place][0] for place in group), max(spans[place][1] for place in group)) for group in groups)
    return products, not apart(first, second)
