"""The hierarchical Tucker format of any mode tree: transfer tensors, arithmetic, orthogonalisation and truncation.

Norms and truncation orthogonalise from the leaves to the root and decompose from the root downward; no Gram matrix is formed, so that
singular values are exact to rounding and do not stop at its square root.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tensornet.arrays import as_tensor, check_finite
from tensornet.checks import integer, real, short
from tensornet.tree import ModeTree, Node, check_tree

if TYPE_CHECKING:
    from tensornet.htf import HTF


class DependentColumnsWarning(UserWarning):
    """Gradients through the orthogonalisation of columns that depend on each other are not defined, and come out as NaN.

    Example:
        >>> issubclass(DependentColumnsWarning, UserWarning)
        True
    """


class ToleranceWarning(UserWarning):
    """``max_rank`` made a truncation miss the tolerance it was given.

    Example:
        >>> issubclass(ToleranceWarning, UserWarning)
        True
    """


@dataclass(frozen=True, eq=False)
class HT:
    """A tensor in the hierarchical Tucker format.

    Attributes:
        tree: The mode tree.
        tensors: One a node, in the order of ``tree.nodes``: ``(D_n, k)`` for a leaf, ``(k of every child ..., k)`` for an interior
            node, and 1 for the last axis of the root. Arrays become tensors, and all get the type that holds them all.
        error_bound: Bound on the Frobenius distance to the tensor that truncations started from; 0 where there was none.

    Raises:
        TypeError: ``tree`` is no mode tree, or a tensor no dense array of numbers.
        ValueError: A tensor has a wrong shape or is on another device, or an entry is not finite.

    Example:
        >>> HT(ModeTree.star(2), (torch.eye(2), torch.eye(2), torch.ones(2, 2, 1))).contract()
        tensor([[1., 1.],
                [1., 1.]])
    """

    tree: ModeTree
    tensors: tuple[Tensor, ...]
    error_bound: float = 0.0

    @classmethod
    def from_tt(cls, cores: Sequence[Any]) -> HT:
        """A tensor train ``G_0[i_0] G_1[i_1] ... G_{N-1}[i_{N-1}]`` on the chain of its modes, exactly.

        Args:
            cores: ``(r_{n-1}, D_n, r_n)`` for every mode, the outer ranks 1; at least two.

        Raises:
            TypeError: A core is no array of numbers.
            ValueError: Sizes do not fit.

        Example:
            >>> HT.from_tt([torch.ones(1, 2, 3), torch.ones(3, 4, 1)]).contract().shape
            torch.Size([2, 4])
        """
        given = list(_alike(_listed("cores", cores)))
        sizes = [tuple(core.shape) for core in given]
        fits = len(given) > 1 and all(core.dim() == 3 for core in given) and given[0].shape[0] == 1 == given[-1].shape[2]
        if not fits or any(left[2] != right[0] for left, right in zip(sizes, sizes[1:])):
            raise ValueError(f"cores must have the shapes (r, D, s) of a train, from r = 1 to s = 1; got {sizes}")
        leaves = [given[0][0], *(torch.eye(core.shape[1], dtype=core.dtype, device=core.device) for core in given[1:])]
        return cls(ModeTree.chain(len(given)), (*leaves, *given[1:]))

    @classmethod
    def from_tucker(cls, core: Any, factors: Sequence[Any]) -> HT:
        """A Tucker decomposition, the core multiplied by a factor along every mode, on the star of its modes, exactly.

        Args:
            core: ``(k_0, ..., k_{N-1})``.
            factors: ``(D_n, k_n)`` for every mode.

        Raises:
            TypeError: The core or a factor is no array of numbers.
            ValueError: Sizes do not fit.

        Example:
            >>> HT.from_tucker(torch.ones(2, 3), [torch.ones(4, 2), torch.ones(5, 3)]).contract().shape
            torch.Size([4, 5])
        """
        middle, *columns = _alike([core, *_listed("factors", factors)])
        if not columns or tuple(middle.shape) != tuple(factor.shape[-1] for factor in columns):
            raise ValueError(
                f"factors must be matrices (D_n, k_n) for a core {tuple(middle.shape)}; got {[tuple(factor.shape) for factor in columns]}"
            )
        return cls(ModeTree.star(len(columns)), (*columns, middle.unsqueeze(-1)))

    def __post_init__(self) -> None:
        check_tree(self.tree)
        object.__setattr__(self, "tensors", _alike(self.tensors))
        if len(self.tensors) != len(self.tree.nodes):
            raise ValueError(f"tensors needs one per node; got {len(self.tensors)} for {len(self.tree.nodes)} nodes")
        for node, tensor, below in zip(self.tree.nodes, self.tensors, self.tree.child_ids):
            check_finite(f"the tensor of node {short(node)}", tensor)
            wanted = tuple(self.tensors[child].shape[-1] for child in below)
            if tensor.dim() != (len(below) + 1 if below else 2) or (below and tuple(tensor.shape[:-1]) != wanted):
                raise ValueError(
                    f"the tensor of node {short(node)} must have the axes {wanted or '(D,)'} and one more; got {tuple(tensor.shape)}"
                )
        if self.tensors[-1].shape[-1] != 1:
            raise ValueError(f"the last axis of the root's tensor must be 1; got {self.tensors[-1].shape[-1]}")

    @property
    def mode_sizes(self) -> tuple[int, ...]:
        """Mode sizes ``D_0 .. D_{N-1}``."""
        return tuple(tensor.shape[0] for tensor in self.tensors[: self.tree.order])

    @property
    def ranks(self) -> dict[Node, int]:
        """``{node except the root: k}``, bounds on the hierarchical tensor rank (Definition 4)."""
        return {node: tensor.shape[-1] for node, tensor in zip(self.tree.nodes[:-1], self.tensors)}

    def contract(self) -> Tensor:
        """The tensor itself, modes in ascending order.

        Example:
            >>> HT(ModeTree.star(1), (torch.ones(3, 2), torch.ones(2, 1))).contract()
            tensor([2., 2., 2.])
        """
        frames: list[Tensor] = []
        modes: list[list[int]] = []
        for place, (tensor, below) in enumerate(zip(self.tensors, self.tree.child_ids)):
            for child in below:  # the first axis left is this child's; its entries go to the end
                tensor = torch.tensordot(tensor, frames[child], dims=([0], [1]))
            frames.append(tensor.reshape(tensor.shape[0], -1).T if below else tensor)
            modes.append([mode for child in below for mode in modes[child]] if below else [place])
        given = modes[-1]
        tensor = frames[-1].reshape([self.mode_sizes[mode] for mode in given])
        return tensor.permute([given.index(mode) for mode in range(self.tree.order)])

    def to_htf(self) -> HTF:
        """A factorization whose end tensor is this tensor, exactly.

        A node gets a local component for every combination of its children's columns, so that ``R_node`` is the product of the
        children's ranks: a factorization has no mixing of columns but by such components.

        Example:
            >>> HT(ModeTree.star(2), (torch.eye(2), torch.eye(3), torch.ones(2, 3, 1))).to_htf().ranks
            {(0, 1): 6}
        """
        from tensornet.htf import HTF  # which knows this module, since it converts the other way

        return HTF.from_weights(self.tree, dict(zip(self.tree.nodes, htf_weights(self.tree, self.tensors))))

    # Arithmetic

    def __add__(self, other: HT) -> HT:
        """The sum, whose ranks are the sums of the ranks."""
        mine, others = self._beside(other)
        tensors = []
        last = len(mine) - 1
        for place, (left, right) in enumerate(zip(mine, others)):
            shared = [0] if place < self.tree.order else [left.dim() - 1] if place == last else []
            sizes = [a if axis in shared else a + b for axis, (a, b) in enumerate(zip(left.shape, right.shape))]
            total = left.new_zeros(sizes)
            total[tuple(slice(0, size) for size in left.shape)] += left
            total[tuple(slice(0 if axis in shared else -size, None) for axis, size in enumerate(right.shape))] += right
            tensors.append(total)
        return HT(self.tree, tuple(tensors), self.error_bound + other.error_bound)

    def __mul__(self, factor: complex | Tensor) -> HT:
        """The multiple by a number."""
        if isinstance(factor, HT) or (isinstance(factor, Tensor) and factor.dim()):
            return NotImplemented
        size = float(abs(torch.as_tensor(factor)))
        return HT(self.tree, (*self.tensors[:-1], self.tensors[-1] * factor), self.error_bound * size)

    __rmul__ = __mul__

    def __truediv__(self, divisor: complex | Tensor) -> HT:
        """The multiple by the inverse of a number."""
        return self * (1 / divisor)

    def __neg__(self) -> HT:
        """The negative."""
        return self * -1

    def __sub__(self, other: HT) -> HT:
        """The difference, whose ranks are the sums of the ranks."""
        return self + -other

    def inner(self, other: HT) -> Tensor:
        """The inner product with another tensor, this one conjugated; without forming either.

        Example:
            >>> vectors = HT(ModeTree.star(2), (torch.ones(3, 1), torch.ones(2, 1), torch.ones(1, 1, 1)))
            >>> vectors.inner(vectors)
            tensor(6.)
        """
        grams: list[Tensor] = []
        for left, right, below in zip(*self._beside(other), self.tree.child_ids):
            for child in below:
                right = torch.tensordot(right, grams[child], dims=([0], [1]))
            right = right.movedim(0, -1) if below else right
            axes = list(range(left.dim() - 1))
            grams.append(torch.tensordot(left.conj(), right, dims=(axes, axes)))
        return grams[-1].reshape(())

    def norm(self) -> Tensor:
        """The Frobenius norm, by orthogonalisation: exact to rounding also where terms of a difference cancel.

        Its gradient is that of the inner product, which has no need of independent columns; at 0 it is 0.

        Example:
            >>> HT(ModeTree.star(2), (torch.eye(2), torch.eye(2), torch.eye(2).unsqueeze(2))).norm()
            tensor(1.4142)
        """
        with torch.no_grad():
            norm: Tensor = torch.linalg.vector_norm(self.orthogonalised().tensors[-1])
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in self.tensors):
            return norm
        square = self.inner(self).real
        return norm + (square - square.detach()) / torch.where(norm > 0, 2 * norm, torch.inf)

    def _beside(self, other: HT) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The tensors of both, of the type that holds them all."""
        if not isinstance(other, HT):
            raise TypeError(f"both must be in the hierarchical Tucker format; got {type(other).__name__}")
        if self.tree != other.tree or self.mode_sizes != other.mode_sizes:
            raise ValueError(f"both need one tree and the same mode sizes; got {short(self.mode_sizes)} and {short(other.mode_sizes)}")
        both = _alike((*self.tensors, *other.tensors))
        return both[: len(self.tensors)], both[len(self.tensors) :]

    # Truncation

    def orthogonalised(self) -> HT:
        """The same tensor, where the frame of every node but the root has orthonormal columns.

        A :class:`DependentColumnsWarning` says so where gradients are recorded that do not exist. Types of 16 bits become float32.

        Example:
            >>> ht = HT(ModeTree.star(1), (2 * torch.eye(2), torch.ones(2, 1))).orthogonalised()
            >>> ht.norm()
            tensor(2.8284)
        """
        result: list[Tensor] = []
        factors: list[Tensor] = []
        for tensor, below in zip(self.tensors, self.tree.child_ids):
            tensor = at_least_float32(tensor)
            for child in below:
                tensor = torch.tensordot(tensor, factors[child], dims=([0], [1]))
            tensor = tensor.movedim(0, -1) if below else tensor
            if len(result) < len(self.tensors) - 1:
                matrix, factor = torch.linalg.qr(tensor.reshape(-1, tensor.shape[-1]))
                _warn_of_dependent_columns(factor)
                factors.append(factor)
                tensor = matrix.reshape(*tensor.shape[:-1], -1)
            result.append(tensor)
        return HT(self.tree, tuple(result), self.error_bound)

    def singular_values(self) -> dict[Node, Tensor]:
        """Singular values of the matricizations by all nodes but the root, descending, as many as the ranks: those left out are zero.

        Example:
            >>> HT(ModeTree.star(2), (torch.eye(2), torch.eye(2), torch.ones(2, 2, 1))).singular_values()[0,].round(decimals=4)
            tensor([2., 0.])
        """
        found = {node: values for node, _, values in _decompositions(self.orthogonalised())}
        return {node: found[place] for place, node in enumerate(self.tree.nodes[:-1])}

    def truncate(self, *, rtol: float | None = None, atol: float | None = None, max_rank: int | None = None) -> HT:
        """A tensor of lower ranks within a tolerance in the Frobenius norm; its error bound says how near it is.

        The tolerance is shared among the nodes, and what one does not use goes to the next. The new error bound is the root of the sum
        of all squared tails of singular values, plus the present one. By default, what rounding of numbers of this tensor's norm may
        have made is cut off; what is left of terms that cancel is larger, and goes with an ``atol`` of their size.

        Args:
            rtol: Tolerance beside the norm.
            atol: Tolerance; with ``rtol``, the larger of both counts.
            max_rank: Largest rank of any node; where it makes the tolerance fail, a :class:`ToleranceWarning` says so.

        Raises:
            TypeError: An argument is no number.
            ValueError: It is out of its range.

        Example:
            >>> ht = HT(ModeTree.star(2), (torch.eye(2), torch.eye(2), torch.diag(torch.tensor([1.0, 0.1])).unsqueeze(2)))
            >>> cut = ht.truncate(atol=0.2)
            >>> cut.ranks, round(cut.error_bound, 4)
            ({(0,): 1, (1,): 1}, 0.1)
        """
        most = None if max_rank is None else integer("max_rank", max_rank, 1)
        given = self.orthogonalised()
        size = torch.linalg.vector_norm(given.tensors[-1]).item()
        share = torch.finfo(given.tensors[0].dtype).eps * len(given.tensors) if rtol is None and atol is None else real("rtol", rtol or 0.0)
        budget = max(share * size, real("atol", atol or 0.0))
        return _Truncation(given, budget, most).result()


def htf_weights(tree: ModeTree, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Weights of the factorization that is a hierarchical Tucker format, see :meth:`HT.to_htf`; gradients flow.

    Example:
        >>> [tuple(weight.shape) for weight in htf_weights(ModeTree.star(2), (torch.eye(2), torch.eye(3), torch.ones(2, 3, 1)))]
        [(2, 6), (3, 6), (6, 1)]
    """
    weights = [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors]
    for below, tensor in zip(tree.child_ids, tensors):
        ranks = tensor.shape[:-1]
        for axis, child in enumerate(below):
            columns = [rank if place == axis else 1 for place, rank in enumerate(ranks)]
            rows = len(weights[child])
            weights[child] = weights[child].reshape(rows, *columns).expand(rows, *ranks).reshape(rows, -1)
    return weights


def _listed(name: str, given: Any) -> list[Any]:
    try:
        return list(given)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of arrays; got {type(given).__name__}") from None


def _alike(given: Sequence[Any]) -> tuple[Tensor, ...]:
    """Tensors of one floating type, the smallest that holds them all, on one device."""
    tensors = [as_tensor(f"tensor {place}", tensor) for place, tensor in enumerate(given)]
    if len({tensor.device for tensor in tensors}) > 1:
        raise ValueError(f"tensors must be on one device; got {', '.join(sorted({str(tensor.device) for tensor in tensors}))}")
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.bool)
    if not (dtype.is_floating_point or dtype.is_complex):
        dtype = torch.get_default_dtype()
    return tuple(tensor.to(dtype) for tensor in tensors)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in a type that can be decomposed.

    Example:
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _warn_of_dependent_columns(factor: Tensor) -> None:
    """Warns where a triangular factor is singular to rounding, and gradients go through it."""
    if not factor.requires_grad or not factor.numel():
        return
    diagonal = factor.detach().diagonal().abs()
    if diagonal.min() <= torch.finfo(factor.dtype).eps * len(diagonal) * diagonal.max():
        warnings.warn(
            "columns depend on each other, so that gradients through their orthogonalisation do not exist; truncate without them first",
            DependentColumnsWarning,
            stacklevel=4,
        )


def _decompositions(given: HT) -> Iterator[tuple[int, Tensor, Tensor]]:
    """From the root downward, every node's left singular vectors in its frame, which is orthonormal, and singular values."""
    tree, tensors = given.tree, given.tensors
    weighted = {len(tensors) - 1: tensors[-1]}
    for place in range(len(tensors) - 1, tree.order - 1, -1):
        above = weighted.pop(place)
        for axis, child in enumerate(tree.child_ids[place]):
            basis, values, _ = torch.linalg.svd(above.movedim(axis, 0).reshape(above.shape[axis], -1), full_matrices=False)
            if child >= tree.order:
                weighted[child] = torch.tensordot(tensors[child], basis * values, dims=1)
            yield child, basis, values


class _Truncation:
    """One truncation, from the root downward; the frames of the given tensor are orthonormal."""

    def __init__(self, given: HT, budget: float, most: int | None) -> None:
        self.given, self.budget, self.most = given, budget, most
        self.left = budget**2  # of the squared tolerance
        root = given.tree.child_ids[-1]
        self.twin = root[1] if len(root) == 2 else -1  # has the singular values of its sibling, and is projected at no further cost
        self.waiting = len(given.tensors) - 1 - (self.twin >= 0)
        self.spent = 0.0

    def result(self) -> HT:
        """The truncated tensor."""
        tree, tensors = self.given.tree, list(self.given.tensors)
        bases: dict[int, Tensor] = {}
        for node, basis, values in _decompositions(self.given):
            rank = bases[tree.child_ids[-1][0]].shape[1] if node == self.twin else self._rank(values)
            bases[node] = basis[:, :rank]
        for place, below in enumerate(tree.child_ids):
            tensor = tensors[place]
            for child in below:
                tensor = torch.tensordot(tensor, bases[child].conj(), dims=([0], [0]))
            tensor = tensor.movedim(0, -1) if below else tensor
            tensors[place] = torch.tensordot(tensor, bases[place], dims=1) if place in bases else tensor
        error = math.sqrt(self.spent)
        if error > self.budget:
            warnings.warn(
                f"max_rank={self.most} leaves an error bound of {error:.3g} above the tolerance {self.budget:.3g}",
                ToleranceWarning,
                stacklevel=3,
            )
        return HT(tree, tuple(tensors), self.given.error_bound + error)

    def _rank(self, values: Tensor) -> int:
        """The rank that a node keeps, whose cost is paid."""
        tails = values.double().square().flip(0).cumsum(0).flip(0).tolist()  # of ranks 0, 1, ...
        rank = next((rank for rank, tail in enumerate(tails) if rank and tail <= self.left / self.waiting), len(tails))
        rank = min(rank, self.most or rank)
        cost = tails[rank] if rank < len(tails) else 0.0
        self.left, self.waiting, self.spent = max(self.left - cost, 0.0), self.waiting - 1, self.spent + cost
        return rank
