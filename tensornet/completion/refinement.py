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

from tensornet.arrays import as_vector, fill_from_vector
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
SURE = 0.01  # expected mean square, relative to that of what was learned, that cannot be chance
APART = 2.0  # mean square of the difference from what was learned, relative to the error, that two good predictions do not have
PLACES = 2**14  # random entries that tell this difference
JUDGES = 32  # held-out entries at least
STEPS = 500  # of one fit at most
FEWEST = 20  # of one fit at least, and between looks at whether it gets anywhere
HOPELESS = 2.0  # mean square, relative to the error so far, of a fit that is given up once it falls by less than a tenth between looks
STILL = 1e-4  # by which the mean square of others has to fall between looks

# Work is counted in numbers that are read.
SHARE = 0.25  # of the work of the training, for all fits together
FREE = 2**29  # what is done in all cases, if need be, in a second or two
CALLS = 2**18  # what the calls of an evaluation take the time of
MEMORY = 40  # steps that the solver remembers, each as two vectors of all unknowns: read twice a step
LARGEST = 2**25  # numbers of the transfer tensors of what was learned, and a constant
WIDEST = 2**24  # numbers of a node's table with a row an entry
MOST = 2**22  # weights of a result


@dataclass(frozen=True)
class Refined:
    """A tensor of low hierarchical ranks.

    Attributes:
        tensor: The tensor, in double precision.
        error: Mean squared error on the held-out entries.
        expected: That on further entries, as far as all that are known tell.
        numbers: Dimension of the tensors of these ranks, restricted to indices that occur.
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


def refined(htf: HTF, offset: complex, known: Block, rest: Block, error: float, *, steps: float, ordered: Sequence[bool]) -> Refined | None:
    """The tensor of low hierarchical ranks that predicts best; ``None`` where none predicts as well as what was learned.

    Held-out entries have to be predicted as well, as far as so many can tell, and the two predictions must not lie further apart
    elsewhere than good ones do: where ranks are too high for the entries, those of others have no bound. Among the ranks that are tried,
    the expected error decides.

    Args:
        htf: What was learned.
        offset: A number to be added to its entries and to all values: a constant costs a rank where it was taken from the values.
        known: Indices and values of the entries to fit to.
        rest: Those of the held-out entries.
        error: Mean squared error of what was learned on these.
        steps: Work of the training, in steps over all known entries; the fits take a quarter of it at most, or a second or two.
        ordered: Of which modes neighbours are alike. There, only what was learned can tell of an index without entries; of other modes,
            such an index gets the average.

    Example:
        >>> ones = HTF.from_cp(None, [torch.ones(6, 1, dtype=torch.float64)] * 3)
        >>> indices, chosen = np.indices((6, 6, 6)).reshape(3, -1).T, np.arange(216) % 5 == 0
        >>> known, rest = ((indices[where], np.full(where.sum(), 2.0)) for where in (~chosen, chosen))
        >>> found = refined(ones, 0.1, known, rest, 0.9, steps=1000, ordered=[False] * 3)
        >>> set(found.tensor.ranks.values()), found.error < 1e-12  # entries are 2.1
        ({1}, True)
    """
    if len(rest[1]) < JUDGES or not 0 < error < 1 or math.prod(htf.mode_sizes) > 1e200 or not _is_small(htf):
        return None
    known, rest = ((indices, values + offset) for indices, values in (known, rest))
    search = _Search(htf, offset, known, rest, error)
    if any(is_ordered and len(seen) < size for is_ordered, seen, size in zip(ordered, search.seen, htf.mode_sizes)):
        return None
    return search.run(max(SHARE * steps * search.cost(htf.shape), FREE))


class _Search:
    """The search of one call of :func:`refined`."""

    def __init__(self, htf: HTF, offset: complex, known: Block, rest: Block, error: float) -> None:
        self.known, self.rest, self.error = known, rest, error
        self.learned = _with_constant(htf, offset)
        self.seen = [np.unique(column) for column in known[0].T]
        self.doubt = 1 / math.sqrt(len(rest[1]))  # about what is doubtful of a mean square of so many
        generator = torch.Generator().manual_seed(0)
        self.places = torch.stack([torch.randint(size, (PLACES,), generator=generator) for size in htf.mode_sizes], 1)
        with torch.no_grad():
            self.there = htf.entries(self.places).to(self.learned.tensors[0].dtype) + offset

    def run(self, budget: float) -> Refined | None:
        """The best within the budget of work."""
        best: Refined | None = None
        final: set[Shape] = set()
        start, unit, is_better = self.learned, self.error, True
        while is_better and unit > NOTHING:
            tried, failures, is_better = set(final), 0, False
            for tolerance in TOLERANCES:
                cut = start.truncate(atol=tolerance * math.sqrt(unit * math.prod(start.mode_sizes)))
                shape = _shape(cut)
                affordable = min(STEPS, int(budget / self.cost(shape)))
                if affordable < FEWEST or len(self.known[1]) * max(shape.rank_sizes) > WIDEST or _weights(shape) > MOST:
                    break  # higher ranks need still more
                if shape in tried:
                    continue
                tried.add(shape)
                fit = self.fit(cut, shape, unit, affordable)
                budget -= fit.evaluations * self.cost(shape)
                final |= {shape} if fit.is_final else set()
                found = self.judged(fit, shape)
                failures += best is not None
                if self.is_good(found, shape) and (best is None or found.is_better_than(best)):
                    best, failures, is_better = found, 0, True
                if found.expected < NOTHING or failures == FAILURES:
                    break
            start, unit = (start, unit) if best is None else (best.tensor, best.expected)
        return best

    def cost(self, shape: Shape) -> float:
        """Work of one evaluation of all known entries, its gradient, and a step."""
        nodes = zip(shape.weights, shape.tree.child_ids)
        entry = sum(float(rows) * (columns + len(below)) for (rows, columns), below in nodes if below)
        return len(self.known[1]) * entry + MEMORY * _weights(shape) + CALLS

    def fit(self, start: HT, shape: Shape, unit: float, steps: int) -> _Fit:
        """Least squares on the known entries from a start, by a quasi-Newton method."""
        from scipy.optimize import minimize

        tensors = [tensor.clone().requires_grad_() for tensor in _even(start)]
        observed = observe(shape, self.known[0], tensors[0].device)
        values = torch.as_tensor(self.known[1]).to(tensors[0])
        losses: list[float] = []

        def objective(vector: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
            fill_from_vector(vector, tensors)
            loss = (_entries(shape, tensors, observed) - values).abs().square().mean() / unit
            return loss.item(), as_vector(torch.autograd.grad(loss, tensors))

        def look(intermediate_result: Any) -> None:  # SciPy asks for this name
            losses.append(intermediate_result.fun)
            if len(losses) % FEWEST == 0 and losses[-1] > (0.9 if losses[-1] > HOPELESS else 1 - STILL) * losses[-FEWEST]:
                raise StopIteration

        options = {"maxiter": steps, "maxfun": steps, "maxcor": MEMORY // 2, "ftol": 1e-14, "gtol": 0.0}
        first = as_vector(tensors)
        found = minimize(objective, first, jac=True, method="L-BFGS-B", callback=look, options=options)
        fill_from_vector(found.x if np.isfinite(found.x).all() else first, tensors)
        with torch.no_grad():
            for leaf, seen in zip(tensors, self.seen):
                unseen = torch.ones(len(leaf), dtype=torch.bool, device=leaf.device)
                unseen[torch.as_tensor(seen, device=leaf.device)] = False
                leaf[unseen] = leaf[~unseen].mean(0)
        tensor = HT(start.tree, tuple(tensor.detach() for tensor in tensors))
        return _Fit(tensor, unit * found.fun, found.nfev, max(found.nit, found.nfev) < steps)

    def judged(self, fit: _Fit, shape: Shape) -> Refined:
        """What is to be expected: from the entries of a fit, Akaike's final prediction error, and from the held-out ones their error."""
        count, others = len(self.known[1]), len(self.rest[1])
        leaves = sum(len(seen) * leaf.shape[1] for seen, leaf in zip(self.seen, fit.tensor.tensors))
        above = sum(tensor.numel() for tensor in fit.tensor.tensors[fit.tensor.tree.order :])
        numbers = leaves + above - sum(rank**2 for rank in fit.tensor.ranks.values())
        predicted = fit.error * (count + numbers) / (count - numbers) if numbers < count else math.inf
        with torch.no_grad():
            values = _entries(shape, fit.tensor.tensors, torch.as_tensor(self.rest[0]))
            error = float((values - torch.as_tensor(self.rest[1]).to(values)).abs().square().mean())
        return Refined(fit.tensor, error, (predicted * count + error * others) / (count + others), numbers)

    def is_good(self, found: Refined, shape: Shape) -> bool:
        """Whether it predicts as well as what was learned; of one that is unbounded elsewhere, the known entries tell nothing."""
        if found.error > (1 + self.doubt) * self.error:
            return False
        with torch.no_grad():
            apart = (_entries(shape, found.tensor.tensors, self.places) - self.there).abs().square().mean()
        return found.expected < SURE * self.error or float(apart) < APART * self.error


def _is_small(htf: HTF) -> bool:
    """Whether the transfer tensors that hold the weights on their diagonals, beside a constant, fit."""
    rows = zip(htf.shape.weights, htf.tree.child_ids)
    logarithms = [len(below) * math.log(rank + 1) + math.log(columns + 1) for (rank, columns), below in rows if below]
    return max(logarithms) + math.log(len(logarithms)) < math.log(LARGEST)


def _weights(shape: Shape) -> int:
    return sum(map(math.prod, shape.weights))


class _Fit(NamedTuple):
    tensor: HT
    error: float  # mean square on the known entries
    evaluations: int
    is_final: bool  # whether more steps would not help


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


def _even(tensor: HT) -> list[Tensor]:
    """The tensors where columns of the leaves, whose frames are orthonormal, have entries of about 1, and all others fit to that."""
    order, sizes = tensor.tree.order, tensor.mode_sizes
    leaves = [leaf * math.sqrt(size) for leaf, size in zip(tensor.tensors, sizes)]
    return [*leaves, *tensor.tensors[order:-1], tensor.tensors[-1] / math.sqrt(math.prod(sizes))]


def _entries(shape: Shape, tensors: Sequence[Tensor], indices: Any) -> Tensor:
    return cast(Tensor, circuit.entries(shape, htf_weights(shape.tree, tensors), indices))
