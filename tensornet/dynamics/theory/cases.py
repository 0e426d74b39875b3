"""Random cases: a factorization of any tree, and a tensor completion problem for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tensornet.contraction.execute import contract
from tensornet.shape import Shape, make_shape
from tensornet.tree import ModeTree

Loss = Literal["l2", "huber"]


@dataclass(frozen=True, eq=False)
class Case:
    """A factorization and a completion problem.

    Attributes:
        number: Which of the cases of a seed it is.
        seed: The seed of the draw.
        shape: Tree and sizes.
        weights: One weight a node, in the order of ``tree.nodes``, float64.
        indices: ``(M, N)`` observed entries.
        values: ``(M,)`` their values.
        kind: ``l2`` for the mean of squared differences, ``huber`` for the mean of their Huber loss.

    Example:
        >>> case = draw_case(seed=0, number=1)
        >>> case.loss(case.end_tensor(case.weights)).shape
        torch.Size([])
    """

    seed: int
    number: int
    shape: Shape
    weights: tuple[Tensor, ...]
    indices: Tensor
    values: Tensor
    kind: Loss

    @property
    def tree(self) -> ModeTree:
        """The mode tree."""
        return self.shape.tree

    def end_tensor(self, weights: Sequence[Tensor]) -> Tensor:
        """The end tensor of these weights (Equation 3).

        Example:
            >>> case = draw_case(seed=0, number=0)
            >>> case.end_tensor(case.weights).shape == case.shape.mode_sizes
            True
        """
        return contract(self.shape, weights)

    def loss(self, tensor: Tensor) -> Tensor:
        """The loss of a tensor, the mean over observed entries.

        Example:
            >>> case = draw_case(seed=0, number=0)  # l2
            >>> bool(torch.isclose(case.loss(torch.zeros(case.shape.mode_sizes)), case.values.square().mean()))
            True
        """
        difference = tensor[tuple(self.indices.T)] - self.values
        if self.kind == "l2":
            return difference.square().mean()
        return torch.nn.functional.huber_loss(difference, torch.zeros_like(difference), delta=1.0)

    def objective(self, weights: Sequence[Tensor]) -> Tensor:
        """The loss of the end tensor of these weights (Equation 4).

        Example:
            >>> case = draw_case(seed=0, number=0)
            >>> case.objective(case.weights).shape
            torch.Size([])
        """
        return self.loss(self.end_tensor(weights))

    def generator(self) -> np.random.Generator:
        """Randomness for what a check draws itself, the same at every call.

        Example:
            >>> case = draw_case(seed=0, number=0)
            >>> bool(case.generator().integers(1000) == case.generator().integers(1000))
            True
        """
        return np.random.default_rng([self.seed, self.number, 1])

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape.mode_sizes))
        ranks = ",".join(map(str, self.shape.rank_sizes))
        return f"seed {self.seed}, case {self.number}: tree {self.tree.to_nested()}, sizes {sizes}, ranks {ranks}, {self.kind}"


def draw_case(seed: int, number: int) -> Case:
    """A random case, the same for the same arguments.

    Trees have 3 to 5 modes in any order, nodes of 2 to 4 children and some of a single one; mode sizes are 2 or 3, ranks 2 or 3. About
    half of the entries are observed. Weights are normal, of a scale at which end tensors neither vanish nor explode.

    Example:
        >>> draw_case(seed=0, number=3).weights[0].equal(draw_case(seed=0, number=3).weights[0])
        True
    """
    random = np.random.default_rng([seed, number, 0])
    order = int(random.integers(3, 6))
    tree = ModeTree.random(order, max_arity=4, seed=int(random.integers(2**31)), unary=0.08)
    ranks = {node: int(random.integers(2, 4)) for node in tree.interior}
    shape = make_shape(tree, [int(random.integers(2, 4)) for _ in range(order)], ranks)
    weights = tuple(torch.from_numpy(0.7 * random.standard_normal(size)) for size in shape.weights)
    entries = math.prod(shape.mode_sizes)
    chosen = np.sort(random.choice(entries, size=entries // 2, replace=False))
    indices = np.stack(np.unravel_index(chosen, shape.mode_sizes), axis=1)
    values = random.standard_normal(len(chosen))
    return Case(seed, number, shape, weights, torch.from_numpy(indices), torch.from_numpy(values), "huber" if number % 2 else "l2")
