"""Contraction paths along the mode tree, found by eliminating rank indices one after the other; linear time a path.

Every rank index is a label shared by the weights of a node and of all its children. Eliminating it contracts all tensors that hold
it into one. Eliminating from the leaves to a chosen node (the centre) gives one path a centre: with the root as centre the literal
walk of Equation 3, with a node in the middle of a chain two halves that are joined by one matrix product.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from tensornet.network import Labels, Network
from tensornet.tree import ModeTree

SSAPath = tuple[tuple[int, int], ...]  # pairs of tensor ids; operands come first, then the results of the steps

_MOST_SPLITS = 9  # largest number of tensors on one label for which every split into two groups is tried


def along_tree(network: Network, tree: ModeTree, centre: int) -> SSAPath:
    """The path that eliminates the rank indices from all sides towards that of the interior node with id ``centre``.

    Example:
        >>> from tensornet import ModeTree, Request, make_shape
        >>> from tensornet.network import make_network
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
        >>> from tensornet.network import make_network
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
    tensors: dict[int, Labels] = dict(enumerate(network.operands))
    holders: dict[int, list[int]] = {}
    for place, labels in tensors.items():
        for label in labels:
            holders.setdefault(label, []).append(place)
    positions = {label: position for position, label in enumerate(network.output)}
    path: list[tuple[int, int]] = []
    fresh = len(tensors)

    def join(left: int, right: int, summed: int | None) -> int:
        nonlocal fresh
        path.append((left, right))
        labels = tuple(label for label in dict.fromkeys(tensors.pop(left) + tensors.pop(right)) if label != summed)
        for label in labels:
            holders[label] = [place for place in holders[label] if place not in (left, right)] + [fresh]
        tensors[fresh] = labels
        fresh += 1
        return fresh - 1

    for label in order:
        members = holders.pop(label)
        holders[label] = members
        if len(members) == 1:
            continue
        sizes = [network.size(other for other in tensors[place] if other != label) for place in members]
        left, right = _split(members, sizes, [_span(tensors[place], positions) for place in members])
        ends = []
        for group in (left, right):
            result = group[0]
            for place in group[1:]:
                result = join(result, place, None)
            ends.append(result)
        join(ends[0], ends[1], label)
        del holders[label]
    remaining = list(tensors)
    while len(remaining) > 1:  # parts that share no index: an outer product
        remaining = [join(remaining[0], remaining[1], None), *remaining[2:]]
    return tuple(path)


def _span(labels: Labels, positions: dict[int, int]) -> tuple[int, int]:
    """First and last place that the labels have in the result; an empty range where they have none."""
    places = [positions[label] for label in labels if label in positions]
    return (min(places), max(places)) if places else (len(positions), -1)


def _split(members: list[int], sizes: list[int], spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Two groups whose elementwise (Khatri-Rao) products are smallest; each group in ascending order of size.

    Among splits of equal cost, one whose groups hold separate ranges of the result's axes (``spans``) is preferred, since their
    matrix product then has the axes in order.
    """
    ranked = sorted(range(len(members)), key=lambda place: (sizes[place], spans[place]))
    if len(ranked) == 2:
        return [members[ranked[0]]], [members[ranked[1]]]
    groups: tuple[list[int], list[int]] = ([], [])
    if len(ranked) > _MOST_SPLITS:
        products = [1, 1]
        for place in reversed(ranked):
            smaller = int(products[1] < products[0])
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
    return products, not _apart(first, second)


def separate(output: Labels, left: Labels, right: Labels) -> bool:
    """Whether the axes that two tensors give to the result come one after the other in it, so that their product has them in order.

    Example:
        >>> separate((0, 1, 2, 3), (1, 0), (2, 3)), separate((0, 1, 2, 3), (0, 2), (1, 3))
        (True, False)
    """
    positions = {label: position for position, label in enumerate(output)}
    return _apart(_span(left, positions), _span(right, positions))


def _apart(first: tuple[int, int], second: tuple[int, int]) -> bool:
    return first[1] < second[0] or second[1] < first[0]
