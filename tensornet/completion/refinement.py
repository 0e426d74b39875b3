"""Low hierarchical ranks of what was learned: it is truncated, fitted again without penalties, and judged by held-out entries.

A training with penalties and more local components than needed finds its way from any start, but leaves a part of every component
behind and a little of the noise in all others. Its hierarchical singular values (Definition 4) tell which ranks matter. With these, few
enough for the entries to determine, least squares need neither penalties nor luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from tensornet.completion.sources import Block
from tensornet.evaluation import circuit
from tensornet.evaluation.observed import observe
from tensornet.formats.ht import HT, htf_weights
from tensornet.htf import HTF
from tensornet.shape import Shape, make_shape

TOLERANCES = tuple(8 * 0.5**power for power in range(9))  # of truncations, in units of the error
FAILURES = 2  # higher ranks in a row that are no better, after which still higher ones are not tried
BETTER = 0.98  # expected mean square, relative to that of the ranks so far, that higher ranks have to reach; lower ones, its inverse
NOTHING = 1e-12  # mean square that leaves nothing to gain
JUDGES = 16  # held-out entries at least
STEPS = 500  # of one fit at most
FEWEST = 20  # of one fit at least, and between looks at whether it gets anywhere
HOPELESS = 2.0  # mean square, relative to the error so far, of a fit that is given up once it falls by less than a tenth between looks
STILL = 1e-4  # by which the mean square of others has to fall between looks
SHARE = 0.25  # of the work of the training, for all fits together
FREE = 2**29  # numbers that are read in all cases, if need be, which takes a second or two
LARGEST = 2**25  # numbers of the transfer tensors of what was learned
WIDEST = 2**27  # numbers of a node's table with a row an entry
MOST = 2**22  # weights of a result


@dataclass(frozen=True)
class Refined:
    """A tensor of low hierarchical ranks.

    Attributes:
        tensor: The tensor, in double precision.
        error: Mean squared error on the held-out entries.
        expected: That on all entries that are not known, as far as all that are known tell.
        numbers: Dimension of the tensors of these ranks.
    """

    tensor: HT
    error: float
    expected: float
    numbers: int

    def is_better_than(self, other: Refined) -> bool:
        """Whether less is to be expected, for which more numbers have to give more than about as many.

        Example:
            >>> from tensornet.tree import ModeTree
            >>> one = HT(ModeTree.star(1), (torch.ones(2, 1), torch.ones(1, 1)))
            >>> Refined(one, 0.1, 0.1, 3).is_better_than(Refined(one, 0.1, 0.101, 2))
            False
        """
        return self.expected < other.expected * (BETTER if self.numbers >= other.numbers else 1 / BETTER)


def refined(htf: HTF, offset: complex, known: Block, rest: Block, error: float, steps: float) -> Refined | None:
    """The tensor of low hierarchical ranks that predicts held-out entries best; ``None`` where none is better than what was learned.

    Args:
        htf: What was learned.
        offset: A number to be added to its entries and to all values: a constant costs a rank where it was taken from the values.
        known: Indices and values of the entries to fit to.
        rest: Those of the held-out entries.
        error: Mean squared error of what was learned on these.
        steps: Work of the training, in steps over all known entries; the fits take a quarter of it at most.

    Example:
        >>> ones = HTF.from_cp(None, [torch.ones(4, 1, dtype=torch.float64)] * 3)
        >>> indices, chosen = np.indices((4, 4, 4)).reshape(3, -1).T, np.arange(64) % 3 == 0
        >>> found = refined(ones, 0.1, (indices[~chosen], np.full(42, 2.0)), (indices[chosen], np.full(22, 2.0)), 0.9, 1000)
        >>> set(found.tensor.ranks.values()), found.error < 1e-12  # entries are 2.1
        ({1}, True)
    """
    sizes = htf.mode_sizes
    if len(rest[1]) < JUDGES or not 0 < error < 1 or math.prod(sizes) > 1e200 or _transfers(htf) > LARGEST:
        return None
    known, rest = ((indices, values + offset) for indices, values in (known, rest))
    learned = _with_constant(htf, offset)
    as_good = error * (1 + 1 / math.sqrt(len(rest[1])))  # as what was learned, as far as so many entries can tell
    left = max(SHARE * steps * _work(htf.shape), FREE / len(known[1]))
    best: Refined | None = None
    final: set[Shape] = set()
    unit, is_better = error, True
    while is_better and unit > NOTHING:
        tried, failures, is_better = set(final), 0, False
        for tolerance in TOLERANCES:
            start = learned.truncate(atol=tolerance * math.sqrt(unit * math.prod(sizes)))
            shape = _shape(start)
            affordable = min(STEPS, int(left / _work(shape)))
            if affordable < FEWEST or len(known[1]) * max(shape.rank_sizes) > WIDEST or sum(map(math.prod, shape.weights)) > MOST:
                break  # higher ranks need still more
            if shape in tried:
                continue
            tried.add(shape)
            fit = _fitted(start, shape, known, unit, affordable)
            left -= fit.steps * _work(shape)
            final |= {shape} if fit.is_final else set()
            found = _judged(fit, shape, len(known[1]), rest)
            failures += best is not None
            if found.error < as_good and (best is None or found.is_better_than(best)):
                best, failures, is_better = found, 0, True
            if found.expected < NOTHING or failures == FAILURES:
                break
        learned, unit = (learned, unit) if best is None else (best.tensor, best.expected)
    return best


def _judged(fit: _Fit, shape: Shape, count: int, rest: Block) -> Refined:
    """What is to be expected of a fit to so many entries: from these, Akaike's final prediction error, and from others their error."""
    numbers = sum(tensor.numel() for tensor in fit.tensor.tensors) - sum(rank**2 for rank in fit.tensor.ranks.values())
    predicted = fit.error * (count + numbers) / (count - numbers) if numbers < count else math.inf
    with torch.no_grad():
        values = _entries(fit.tensor, shape, fit.tensor.tensors, torch.as_tensor(rest[0]))
        error = float((values - torch.as_tensor(rest[1]).to(values)).abs().square().mean())
    others = len(rest[1])
    return Refined(fit.tensor, error, (predicted * count + error * others) / (count + others), numbers)


def _transfers(htf: HTF) -> float:
    """Numbers of the transfer tensors that hold the weights on their diagonals."""
    rows = zip(htf.weight_list(), htf.tree.child_ids)
    return sum(float(weight.shape[0]) ** len(below) * weight.shape[1] for weight, below in rows if below)


def _with_constant(htf: HTF, constant: complex) -> HT:
    """The sum of a factorization and a constant, in double precision."""
    with torch.no_grad():
        tensors = htf.to_ht().tensors
        dtype = torch.complex128 if tensors[0].is_complex() else torch.float64
        ones = [torch.ones((1,) * tensor.dim(), dtype=dtype, device=tensor.device) for tensor in tensors]
        ones[: htf.tree.order] = [one.expand(size, 1) for one, size in zip(ones, htf.mode_sizes)]
        return HT(htf.tree, tuple(tensor.to(dtype) for tensor in tensors)) + HT(htf.tree, tuple(ones)) * constant


def _shape(tensor: HT) -> Shape:
    """Tree and sizes of the factorization that is this tensor."""
    below = zip(tensor.tree.nodes, tensor.tensors, tensor.tree.child_ids)
    ranks = {node: math.prod(given.shape[:-1]) for node, given, children in below if children}
    return make_shape(tensor.tree, tensor.mode_sizes, ranks)


def _work(shape: Shape) -> float:
    """Numbers that an evaluation reads for one entry: of weights, and of children's tables."""
    nodes = zip(shape.weights, shape.tree.child_ids)
    return sum(float(rows) * (columns + len(below)) for (rows, columns), below in nodes if below)


class _Fit(NamedTuple):
    tensor: HT
    error: float  # mean square on the entries
    steps: int
    is_final: bool  # whether more steps would not help


def _fitted(start: HT, shape: Shape, known: Block, unit: float, steps: int) -> _Fit:
    """Least squares on the entries from a start, by a quasi-Newton method."""
    from scipy.optimize import minimize

    tensors = [tensor.clone().requires_grad_() for tensor in _even(start)]
    observed = observe(shape, known[0], tensors[0].device)
    values = torch.as_tensor(known[1]).to(tensors[0])
    losses: list[float] = []

    def objective(vector: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        _put(vector, tensors)
        loss = (_entries(start, shape, tensors, observed) - values).abs().square().mean() / unit
        return loss.item(), _vector(torch.autograd.grad(loss, tensors))

    def look(intermediate_result: Any) -> None:  # SciPy asks for this name
        losses.append(intermediate_result.fun)
        if len(losses) % FEWEST == 0 and losses[-1] > (0.9 if losses[-1] > HOPELESS else 1 - STILL) * losses[-FEWEST]:
            raise StopIteration

    options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 20, "ftol": 1e-14, "gtol": 0.0}
    first = _vector(tensors)
    found = minimize(objective, first, jac=True, method="L-BFGS-B", callback=look, options=options)
    _put(found.x if np.isfinite(found.x).all() else first, tensors)
    return _Fit(HT(start.tree, tuple(tensor.detach() for tensor in tensors)), unit * found.fun, found.nit, found.nit < steps)


def _even(tensor: HT) -> list[Tensor]:
    """The tensors where columns of the leaves, whose frames are orthonormal, have entries of about 1, and all others fit to that."""
    order, sizes = tensor.tree.order, tensor.mode_sizes
    leaves = [leaf * math.sqrt(size) for leaf, size in zip(tensor.tensors, sizes)]
    return [*leaves, *tensor.tensors[order:-1], tensor.tensors[-1] / math.sqrt(math.prod(sizes))]


def _entries(tensor: HT, shape: Shape, tensors: Sequence[Tensor], indices: Any) -> Tensor:
    return cast(Tensor, circuit.entries(shape, htf_weights(tensor.tree, tensors), indices))


def _vector(tensors: Sequence[Tensor]) -> np.ndarray[Any, Any]:
    """All numbers of tensors, those of complex ones as pairs."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    found: np.ndarray[Any, Any] = (torch.view_as_real(flat).flatten() if flat.is_complex() else flat).cpu().numpy()
    return found


def _put(vector: np.ndarray[Any, Any], tensors: Sequence[Tensor]) -> None:
    """Writes what :func:`_vector` gave into tensors."""
    flat = torch.from_numpy(vector)
    flat = torch.view_as_complex(flat.view(-1, 2)) if tensors[0].is_complex() else flat
    with torch.no_grad():
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(part.view_as(tensor))
