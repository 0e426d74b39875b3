"""Problems: a ground truth and what is observed of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tensornet.arrays import as_tensor, check_finite
from tensornet.checks import integer
from tensornet.dynamics.observations import Entries, Measurements, Observations
from tensornet.htf import HTF
from tensornet.tree import ModeTree


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be learned.

    Attributes:
        truth: The ground truth ``W*``.
        observations: What is observed of a tensor.
        values: What was observed of the ground truth, ``(B,)``.

    Example:
        >>> truth = torch.arange(6.0).reshape(2, 3)
        >>> problem = completion(truth, 4, torch.Generator().manual_seed(0))
        >>> bool((problem.observations.of(truth) == problem.values).all())
        True
    """

    truth: Tensor
    observations: Observations
    values: Tensor

    def to(self, like: Tensor) -> Problem:
        """The same problem with a tensor's dtype and on its device.

        Example:
            >>> problem = completion(torch.ones(2, 3), 4, torch.Generator())
            >>> problem.to(torch.ones(1, dtype=torch.float64)).values.dtype
            torch.float64
        """
        return Problem(self.truth.to(like), self.observations.to(like), self.values.to(like))


def low_rank_truth(tree: ModeTree, mode_sizes: Sequence[int], rank: int, generator: torch.Generator, *, fixed_root: bool) -> Tensor:
    """A random tensor of (hierarchical) tensor rank ``rank``, normalised to the square root of its number of entries (Appendix D.2.1).

    All weights are independent standard normal numbers, in double precision. With ``fixed_root`` and a star it has CP rank, with a tree
    of two leaves matrix rank ``rank``; otherwise hierarchical tensor rank ``(rank, ..., rank)``, as far as the sizes allow.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument is out of its range.

    Example:
        >>> truth = low_rank_truth(ModeTree.star(2), [6, 8], 3, torch.Generator().manual_seed(0), fixed_root=True)
        >>> torch.linalg.matrix_rank(truth).item(), round(truth.norm().item() ** 2)
        (3, 48)
    """
    htf = HTF(tree, mode_sizes, rank, init_std=1.0, fixed_root=fixed_root, generator=generator, dtype=torch.float64)
    return normalised(htf.contract().detach().contiguous())


def normalised(tensor: Any) -> Tensor:
    """A real array as a ground truth in double precision, of the norm that generated ones have.

    Raises:
        TypeError: It is no real array.
        ValueError: An entry is not finite, or all are zero.

    Example:
        >>> normalised([3.0, 4.0]).norm().item() ** 2
        2.0000000000000004
    """
    given = as_tensor("truth", tensor)
    if given.is_complex():
        raise TypeError(f"truth must be real; got {given.dtype}")
    values = given.to(torch.float64)
    check_finite("truth", values)
    norm = values.norm().item()
    if not norm > 0:
        raise ValueError("truth must have an entry that is not zero; got zeros")
    return values.mul(math.sqrt(values.numel()) / norm)


def completion(truth: Tensor, samples: int, generator: torch.Generator) -> Problem:
    """Learning a tensor from entries that are chosen uniformly, without repetition.

    Raises:
        TypeError: ``samples`` is no integer.
        ValueError: There are fewer entries.

    Example:
        >>> problem = completion(torch.ones(4, 4), 5, torch.Generator().manual_seed(0))
        >>> problem.values
        tensor([1., 1., 1., 1., 1.])
    """
    if integer("samples", samples, 1) > truth.numel():
        raise ValueError(f"samples must be at most the number of entries, {truth.numel()}; got {samples}")
    places = torch.randperm(truth.numel(), generator=generator)[:samples].sort().values
    entries = Entries(tuple(truth.shape), places)
    return Problem(truth, entries, entries.of(truth))


def sensing(truth: Tensor, samples: int, generator: torch.Generator) -> Problem:
    """Learning a tensor from inner products with Gaussian rank-one tensors of expected squared norm 1 (Figure 9).

    Raises:
        TypeError: ``samples`` is no integer.
        ValueError: It is below 1.

    Example:
        >>> problem = sensing(torch.ones(4, 4), 1000, torch.Generator().manual_seed(0))
        >>> bool(0.9 < problem.observations.left.square().sum(1).mean() * 4 / 4 < 1.1)
        True
    """
    integer("samples", samples, 1)
    deviation = truth.numel() ** (-0.5 / truth.dim())
    vectors = [torch.randn(samples, size, generator=generator, dtype=truth.dtype) * deviation for size in truth.shape]
    measurements = Measurements(vectors)
    return Problem(truth, measurements, measurements.of(truth))
