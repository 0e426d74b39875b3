"""What is observed of a tensor, as a linear map of the end tensor with its adjoint: entries, or rank-one measurements."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Entries:
    """Observed entries of a tensor.

    Attributes:
        sizes: Mode sizes.
        places: Places of the entries in the flattened tensor.

    Example:
        >>> entries = Entries((2, 2), torch.tensor([0, 3]))
        >>> entries.of(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 4.])
        >>> entries.adjoint(torch.tensor([5.0, 6.0])).tolist()
        [[5.0, 0.0], [0.0, 6.0]]
    """

    sizes: tuple[int, ...]
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    @property
    def flops(self) -> int:
        """Operations of the map and its adjoint together."""
        return 2 * len(self) + math.prod(self.sizes)

    @property
    def repeated(self) -> bool:
        """Whether an entry is observed more than once."""
        return len(self.places.unique()) < len(self)

    @property
    def indices(self) -> Tensor:
        """``(B, N)``: the indices of every entry."""
        return torch.stack(torch.unravel_index(self.places, self.sizes), 1)

    def of(self, tensor: Tensor) -> Tensor:
        """The observed entries, ``(B,)``.

        Example:
            >>> Entries((3,), torch.tensor([2])).of(torch.tensor([1.0, 2.0, 3.0]))
            tensor([3.])
        """
        return tensor.reshape(-1).index_select(0, self.places)

    def adjoint(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """The tensor with these values at the observed entries, repeated ones added up, and zeros elsewhere, in ``out`` if it is given.

        Example:
            >>> Entries((3,), torch.tensor([2])).adjoint(torch.tensor([5.0]))
            tensor([0., 0., 5.])
        """
        tensor = values.new_empty(self.sizes) if out is None else out
        tensor.zero_().view(-1).scatter_add_(0, self.places, values)
        return tensor

    def chosen(self, rows: Tensor) -> Entries:
        """Some of the observations, as for a batch.

        Example:
            >>> Entries((3,), torch.tensor([0, 2])).chosen(torch.tensor([1])).places
            tensor([2])
        """
        return Entries(self.sizes, self.places[rows])

    def to(self, like: Tensor) -> Entries:
        """The same on a tensor's device.

        Example:
            >>> len(Entries((3,), torch.tensor([0, 2])).to(torch.ones(1)))
            2
        """
        return Entries(self.sizes, self.places.to(like.device))


class Measurements:
    """Inner products with rank-one tensors ``x_1 o ... o x_N``.

    They are computed from the end tensor as one matrix product: the tensor as a matrix of its first modes by the others, and the
    vectors multiplied to rows on either side.

    Args:
        vectors: For every mode ``(B, D_n)``, as :meth:`tensornet.HTF.forward` takes them.

    Example:
        >>> measurements = Measurements([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]])])
        >>> measurements.of(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))  # 3 * 1 + 6 * 3
        tensor([21.])
        >>> measurements.adjoint(torch.tensor([2.0])).tolist()
        [[6.0, 0.0], [12.0, 0.0]]
    """

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        self.vectors = list(vectors)
        self.sizes = tuple(vector.shape[1] for vector in vectors)
        products = list(itertools.accumulate(self.sizes, operator.mul))
        balance = [max(product, products[-1] // product) for product in products[:-1]]
        self._split = 1 + balance.index(min(balance)) if balance else 0

    @cached_property
    def left(self) -> Tensor:
        """Rows of the first modes' products, ``(B, product of sizes)``."""
        return _rows(self.vectors[: self._split], self.vectors[0])

    @cached_property
    def right(self) -> Tensor:
        """Rows of the other modes' products."""
        return _rows(self.vectors[self._split :], self.vectors[0])

    def __len__(self) -> int:
        return len(self.vectors[0])

    @property
    def flops(self) -> int:
        """Operations of the map and its adjoint together."""
        return 4 * len(self) * math.prod(self.sizes)

    def of(self, tensor: Tensor) -> Tensor:
        """The measurements, ``(B,)``.

        Example:
            >>> Measurements([torch.ones(1, 3)]).of(torch.tensor([1.0, 2.0, 3.0]))
            tensor([6.])
        """
        return (self.left @ tensor.reshape(self.left.shape[1], -1)).mul_(self.right).sum(1)

    def adjoint(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """The sum of the rank-one tensors, each times its value, in ``out`` if it is given.

        Example:
            >>> Measurements([torch.ones(1, 3)]).adjoint(torch.tensor([2.0]))
            tensor([2., 2., 2.])
        """
        tensor = values.new_empty(self.sizes) if out is None else out
        torch.mm((self.left * values.unsqueeze(1)).T, self.right, out=tensor.view(self.left.shape[1], -1))
        return tensor

    def chosen(self, rows: Tensor) -> Measurements:
        """Some of the observations, as for a batch.

        Example:
            >>> len(Measurements([torch.ones(4, 3)]).chosen(torch.tensor([1, 2])))
            2
        """
        return Measurements([vector[rows] for vector in self.vectors])

    def to(self, like: Tensor) -> Measurements:
        """The same with a tensor's dtype and on its device.

        Example:
            >>> Measurements([torch.ones(4, 3)]).to(torch.ones(1, dtype=torch.float64)).left.dtype
            torch.float64
        """
        return Measurements([vector.to(like) for vector in self.vectors])


Observations = Entries | Measurements


def _rows(vectors: Sequence[Tensor], like: Tensor) -> Tensor:
    """Khatri-Rao product of the samples' vectors, the last mode fastest."""
    return reduce(lambda left, right: (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1), vectors, like.new_ones(len(like), 1))
