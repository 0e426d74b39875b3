"""Local components of a factorization (Definition 2): norms, directions, unbalancedness, pruning and balancing.

The ``r``'th local component at an interior node is made of ``L = 1 + number of children`` weight vectors, ``LC(node, r)``: row ``r``
of the node's weight and column ``r`` of every child's. All functions take the weights in the order of ``tree.nodes`` and are
differentiable in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tensornet.checks import integer, short
from tensornet.shape import shape_of_weights
from tensornet.tree import ModeTree, Node, check_tree

Keep: TypeAlias = Mapping[Node, Any]  # a number, or a sequence, array or tensor of indices or truth values


def weight_vector_norms(tree: ModeTree, weights: Sequence[Tensor]) -> dict[Node, Tensor]:
    """Norms of all weight vectors by the local component they belong to: ``{interior node: (R_node, L)}``.

    The first column belongs to the rows of the node's weight, the others to the columns of its children's, in their order. The
    norms are real (of float32 at least) and neither overflow nor underflow.

    Raises:
        ValueError: The weights do not belong to the tree.

    Example:
        >>> tree = ModeTree.star(2)
        >>> weights = [torch.tensor([[3.0], [4.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0]])]
        >>> weight_vector_norms(tree, weights)
        {(0, 1): tensor([[2., 5., 1.]])}
    """
    _check(tree, weights)
    return {node: _stacked(tree, weights, place) for place, node in enumerate(tree.interior, tree.order)}


def local_component_norms(tree: ModeTree, weights: Sequence[Tensor]) -> dict[Node, Tensor]:
    """Norms of all local components (Definition 2): ``{interior node: (R_node,)}``.

    A local component is the tensor product of its weight vectors, hence its norm the product of theirs. It only overflows or
    underflows where the result itself is too large or too small for its type.

    Raises:
        ValueError: The weights do not belong to the tree.

    Example:
        >>> tree = ModeTree.star(2)
        >>> weights = [torch.tensor([[3.0], [4.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0]])]
        >>> local_component_norms(tree, weights)
        {(0, 1): tensor([10.])}
    """
    return {node: _product(norms) for node, norms in weight_vector_norms(tree, weights).items()}


def directions(tree: ModeTree, weights: Sequence[Tensor], node: Node, component: int) -> list[Tensor]:
    """Weights whose end tensor is the direction ``C_H^(node, r)`` that a local component imposes on the end tensor (Theorem 1).

    The component's weight vectors are normalised and the node's other local components are zero; all sizes stay. The end tensor is
    the sum over ``r`` of local component norm times direction, at every interior node. A component of norm zero has direction zero.

    Args:
        tree: The mode tree.
        weights: One weight a node, in the order of ``tree.nodes``.
        node: An interior node.
        component: ``r``, counted from 0.

    Raises:
        TypeError: ``component`` is no integer.
        ValueError: ``node`` is no interior node, ``component`` is out of range, or the weights do not belong to the tree.

    Example:
        >>> tree = ModeTree.star(2)
        >>> weights = [torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0, 1.0]]), torch.tensor([[2.0], [1.0]])]
        >>> [weight.tolist() for weight in directions(tree, weights, (0, 1), component=0)]
        [[[1.0, 0.0]], [[1.0, 0.0]], [[1.0], [0.0]]]
    """
    _check(tree, weights)
    place = _interior(tree, node)
    chosen = _component(node, integer("component", component), weights[place].shape[0])
    result = list(weights)
    for owner, axis in _members(tree, place):
        weight = weights[owner]
        norm = _norms(weight, axis)[chosen].to(weight.dtype)
        unit = weight.narrow(1 - axis, chosen, 1) / torch.where(norm == 0, torch.ones_like(norm), norm)
        places = torch.arange(weight.shape[1 - axis], device=weight.device).unsqueeze(axis)
        result[owner] = torch.where(places == chosen, unit, weight.new_zeros(()))
    return result


def unbalancedness(tree: ModeTree, weights: Sequence[Tensor], *, fixed_root: bool = False) -> Tensor:
    """The unbalancedness magnitude (Definition 5), a scalar.

    It is the largest difference ``| ||w||^2 - ||w'||^2 |`` of two weight vectors of one local component, over all interior nodes and
    local components. Gradient flow keeps each of these differences constant (Lemma 2).

    Args:
        tree: The mode tree.
        weights: One weight a node, in the order of ``tree.nodes``.
        fixed_root: The root's weight is not trained and its rows do not count; on a star this is the unbalancedness magnitude of a
            CP factorization (Section 2.2).

    Raises:
        ValueError: The weights do not belong to the tree.

    Example:
        >>> tree = ModeTree.star(2)
        >>> weights = [torch.tensor([[3.0], [4.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0]])]
        >>> unbalancedness(tree, weights), unbalancedness(tree, weights[:2] + [torch.zeros(1, 1)], fixed_root=True)
        (tensor(24.), tensor(24.))
    """
    _check(tree, weights)
    spreads = []
    for place in range(tree.order, len(tree.nodes)):
        squares = _stacked(tree, weights, place, fixed_root).square()
        spreads.append((squares.amax(1) - squares.amin(1)).amax())
    return torch.stack(spreads).amax()


def prune(tree: ModeTree, weights: Sequence[Tensor], keep: Keep) -> list[Tensor]:
    """Weights without the local components that are not kept (Proposition 1, Appendix E.6).

    Removing the ``r``'th local component of a node removes row ``r`` of its weight and column ``r`` of its children's weights.
    Weights that lose nothing are returned themselves, and nodes that shared a weight share it still where they lose the same.

    Args:
        tree: The mode tree.
        weights: One weight a node, in the order of ``tree.nodes``.
        keep: ``{interior node: kept components}``, where these are a number ``k`` (the ``k`` of largest norm, in their present order),
            indices (in the given order), or a mask with one truth value a component. Nodes that are left out keep all.

    Raises:
        TypeError: ``keep`` is no mapping, or a choice is none of the three kinds.
        ValueError: A node is no interior node, an index is out of range or repeated, nothing is kept, a mask has a wrong length, or
            the weights do not belong to the tree.

    Example:
        >>> tree = ModeTree.star(2)
        >>> weights = [torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0, 1.0]]), torch.tensor([[2.0], [1.0]])]
        >>> [weight.tolist() for weight in prune(tree, weights, {(0, 1): 1})]
        [[[3.0]], [[5.0]], [[2.0]]]
    """
    result = list(weights)
    cut: dict[tuple[int, int, tuple[int, ...]], Tensor] = {}  # what nodes that share a weight lose alike is cut once
    for place, chosen in sorted(_kept(tree, weights, keep).items()):
        for owner, axis in _members(tree, place):
            weight = result[owner]
            known = (id(weight), axis, tuple(chosen))
            if known not in cut:
                cut[known] = weight.index_select(1 - axis, torch.tensor(chosen, device=weight.device))
            result[owner] = cut[known]
    return result


def pruning_bound(tree: ModeTree, weights: Sequence[Tensor], keep: Keep) -> Tensor:
    """Bound on the Frobenius distance between the end tensors before and after :func:`prune` (Proposition 1), a scalar.

    The smallest ``epsilon`` that meets the proposition's condition, the maximum over interior nodes of
    ``(|T| - N) * B^(|T| - 1 - |C(node)|)`` times the sum of the norms of the node's pruned local components. ``|T|`` is the number of
    nodes, ``N`` the order, ``|C(node)|`` the number of children and ``B`` the largest Frobenius norm of a weight.

    Args:
        tree: The mode tree.
        weights: One weight a node, in the order of ``tree.nodes``.
        keep: What is kept, as for :func:`prune`; with numbers, the proposition's ranks ``R'``.

    Raises:
        TypeError: As for :func:`prune`.
        ValueError: As for :func:`prune`.

    Example:
        >>> tree = ModeTree.star(2)
        >>> weights = [torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0, 1.0]]), torch.tensor([[2.0], [1.0]])]
        >>> pruning_bound(tree, weights, {(0, 1): 1})  # one interior node; the pruned component has norm 1
        tensor(1.)
    """
    kept = _kept(tree, weights, keep)
    largest = torch.stack([_norms(weight.flatten(), 0) for weight in weights]).amax()
    bound = torch.zeros_like(largest)
    for place, chosen in kept.items():
        norms = _product(_stacked(tree, weights, place))
        lost = set(range(len(norms))).difference(chosen)
        tail = norms[sorted(lost)].sum()
        scaled = tail * len(tree.interior) * largest ** (len(tree.nodes) - 1 - len(tree.child_ids[place]))
        bound = torch.maximum(bound, torch.where(tail > 0, scaled, tail))  # 0 * inf is 0 here
    return bound


def balanced(tree: ModeTree, weights: Sequence[Tensor], *, fixed_root: bool = False) -> list[Tensor]:
    """Rescaled weights whose unbalancedness magnitude (Definition 5) is zero up to rounding; the end tensor changes.

    At the root, all weight vectors of a local component get the geometric mean of their norms; from there downward, those of a
    component get the norm that its row has by then. Where one vector of a local component is zero, all become zero.

    Args:
        tree: The mode tree.
        weights: One weight a node, in the order of ``tree.nodes``.
        fixed_root: The root's weight stays as it is and does not count, as in :func:`unbalancedness`.

    Raises:
        ValueError: The weights do not belong to the tree.

    Example:
        >>> tree = ModeTree.star(2)
        >>> weights = [torch.tensor([[3.0], [4.0]]), torch.tensor([[0.5], [0.0]]), torch.tensor([[0.4]])]
        >>> round(unbalancedness(tree, balanced(tree, weights)).item(), 5)
        0.0
    """
    _check(tree, weights)
    result = list(weights)
    top = len(tree.nodes) - 1
    for place in range(tree.order, top + 1):
        empty = (_stacked(tree, result, place, fixed_root) == 0).any(1)
        for owner, axis in _members(tree, place, fixed_root):
            result[owner] = result[owner].masked_fill(empty.unsqueeze(axis), 0)
    for place in range(top, tree.order - 1, -1):
        norms = _stacked(tree, result, place, fixed_root)
        wanted = norms.log().mean(1).exp() if place == top else norms[:, 0]
        for (owner, axis), norm in zip(_members(tree, place, fixed_root), norms.unbind(1)):
            factor = torch.where(norm > 0, wanted / norm, torch.zeros_like(norm))
            result[owner] = result[owner] * factor.to(result[owner].dtype).unsqueeze(axis)
    return result


def _members(tree: ModeTree, place: int, fixed_root: bool = False) -> list[tuple[int, int]]:
    """Where the weight vectors of a node's local components are: ids of weights, and the axis along which the vectors run."""
    row = [] if fixed_root and tree.parent_ids[place] < 0 else [(place, 1)]
    return row + [(child, 0) for child in tree.child_ids[place]]


def _stacked(tree: ModeTree, weights: Sequence[Tensor], place: int, fixed_root: bool = False) -> Tensor:
    return torch.stack([_norms(weights[owner], axis) for owner, axis in _members(tree, place, fixed_root)], dim=1)


def _norms(weight: Tensor, axis: int) -> Tensor:
    """Euclidean norms along an axis, of scaled numbers, so that squares neither overflow nor underflow."""
    values = torch.cat([weight.real, weight.imag], axis) if weight.is_complex() else weight
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    limits = torch.finfo(values.dtype)
    scale: Tensor = torch.linalg.vector_norm(values.detach(), math.inf, dim=axis, keepdim=True).clamp(limits.tiny, limits.max)
    norms: Tensor = torch.linalg.vector_norm(values / scale, dim=axis)
    return norms * scale.squeeze(axis)


def _product(factors: Tensor) -> Tensor:
    """Product along the last axis; powers of two are split off and put back at the end, since partial products may leave the range."""
    total: Tensor | int = 0
    while True:
        factors, exponents = torch.frexp(factors)  # from 1/2 to below 1, so that the product of 64 stays in the range
        total = total + exponents.sum(-1)
        if factors.shape[-1] <= 64:
            return _times_power(factors.prod(-1), total)
        padded = torch.nn.functional.pad(factors, (0, -factors.shape[-1] % 64), value=1.0)
        factors = padded.reshape(*padded.shape[:-1], -1, 64).prod(-1)


def _times_power(values: Tensor, exponents: Tensor) -> Tensor:
    """``values * 2^exponents`` in two steps, since the power itself may leave the range where the result does not."""
    most = 2 * (math.frexp(torch.finfo(values.dtype).max)[1] - 1)
    exponents = exponents.clamp(-most, most)
    half = exponents.div(2, rounding_mode="floor")
    return values * torch.exp2(half.to(values.dtype)) * torch.exp2((exponents - half).to(values.dtype))


def _check(tree: ModeTree, weights: Sequence[Tensor]) -> None:
    check_tree(tree)
    if len(weights) != len(tree.nodes):
        raise ValueError(f"weights needs one matrix per node; got {len(weights)} for {len(tree.nodes)} nodes")
    shape_of_weights(tree, {node: tuple(weight.shape) for node, weight in zip(tree.nodes, weights)})


def _interior(tree: ModeTree, node: Node) -> int:
    place = tree.id(node)
    if place < tree.order:
        raise ValueError(f"local components belong to interior nodes; got the leaf {node}")
    return place


def _component(node: Node, number: int, count: int) -> int:
    if not 0 <= number < count:
        raise ValueError(f"local components of node {node} are numbered from 0 to {count - 1}; got {number}")
    return number


def _kept(tree: ModeTree, weights: Sequence[Tensor], keep: Keep) -> dict[int, list[int]]:
    """The kept components of every node in ``keep``, as indices, by node id."""
    _check(tree, weights)
    if not isinstance(keep, Mapping):
        raise TypeError(f"keep must be a mapping from interior nodes to kept components; got {type(keep).__name__}")
    kept = {}
    for node, choice in keep.items():
        place = _interior(tree, node)
        count = weights[place].shape[0]
        given = _integers(node, choice)
        if given.dim() == 1:
            kept[place] = _listed(node, given, count)
        elif (number := int(given)) > count:
            raise ValueError(f"no more local components can be kept than there are; got {number} for the {count} of node {node}")
        else:
            norms = _product(_stacked(tree, weights, place).detach())
            kept[place] = sorted(norms.argsort(descending=True, stable=True)[: max(number, 0)].tolist())
        if not kept[place]:
            raise ValueError(f"at least one local component of a node must be kept; got {short(choice)} for node {node}")
    return kept


def _integers(node: Node, choice: object) -> Tensor:
    """A number, indices or a mask as a tensor."""
    try:
        given = choice if isinstance(choice, Tensor) else torch.tensor(choice)
    except (TypeError, ValueError, RuntimeError):
        given = torch.tensor(math.nan)
    wrong = given.is_floating_point() or given.is_complex() or (given.dim() == 0 and given.dtype == torch.bool)
    if given.dim() > 1 or (wrong and given.numel()):
        raise TypeError(
            f"kept components must be a number, indices or a mask; got {short(choice)} of type {type(choice).__name__} for node {node}"
        )
    return given


def _listed(node: Node, given: Tensor, count: int) -> list[int]:
    """Component indices of a tensor of indices, or of a mask."""
    if given.dtype == torch.bool:
        if len(given) != count:
            raise ValueError(f"a mask needs one truth value per local component; got {len(given)} for the {count} of node {node}")
        return [component for component, kept in enumerate(given.tolist()) if kept]
    indices = [_component(node, number, count) for number in given.tolist()]
    if len(set(indices)) != len(indices):
        raise ValueError(f"every kept local component is named once; got {indices} for node {node}")
    return indices
