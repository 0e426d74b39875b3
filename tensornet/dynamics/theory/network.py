"""Propositions 3 and 4: what the network computes, and that its separation ranks are matrix ranks."""

from __future__ import annotations

import itertools
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from tensornet.analysis.ranks import matricize, separation_rank
from tensornet.dynamics.theory.cases import Case
from tensornet.dynamics.theory.ranks import RTOL
from tensornet.dynamics.theory.records import Check, deviation, largest
from tensornet.evaluation.circuit import forward

TOLERANCE = 1e-10  # relative; sums of thousands of rounded products in float64
SAMPLES = 50


def proposition_3(case: Case) -> list[Check]:
    """Proposition 3: the network's output is the inner product of the outer product of its inputs with the end tensor.

    The network is evaluated node by node, without the end tensor, by code that shares nothing with the contraction.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> [check.holds for check in proposition_3(draw_case(seed=0, number=0))]
        [True]
    """
    random = case.generator()
    inputs = _inputs(case, random, SAMPLES)
    rows = [reduce(torch.kron, vectors) for vectors in zip(*inputs)]
    inner = torch.stack(rows) @ case.end_tensor(case.weights).reshape(-1)
    found = deviation(_network(case, inputs), inner)
    return [Check("proposition-3", "deviation of outputs from inner products", str(case), found, "<=", TOLERANCE)]


def proposition_4(case: Case) -> list[Check]:
    """Proposition 4: for every subset ``I`` of the inputs, the separation rank of the network is the rank of ``[[W; I]]``.

    At least: the network's values on a random grid have this rank (Appendix E.10, Lemma 16). At most: so many products of a function
    of the inputs in ``I`` and one of the others, read off a singular value decomposition, sum up to the network's outputs.

    Example:
        >>> from tensornet.dynamics.theory.cases import draw_case
        >>> [check.holds for check in proposition_4(draw_case(seed=0, number=0))]
        [True, True]
    """
    tensor = case.end_tensor(case.weights)
    random = case.generator()
    inputs = _inputs(case, random, SAMPLES)
    outputs = _network(case, inputs)
    templates = _inputs(case, random, 3)
    pairs, sums = [], []
    for modes in _subsets(case.tree.order):
        left, values, right = torch.linalg.svd(matricize(tensor, modes), full_matrices=False)
        rank = int((values > RTOL * values[0]).sum())
        grid = separation_rank(lambda points: _network(case, points), templates, modes, rtol=RTOL)
        others = [mode for mode in range(case.tree.order) if mode not in modes]
        separated = (_factors(inputs, modes) @ left[:, :rank]) * values[:rank] * (_factors(inputs, others) @ right[:rank].T)
        pairs.append(Check("proposition-4", "separation rank on a grid", f"{case}, I = {modes}", grid, "==", rank))
        sums.append(deviation(separated.sum(1), outputs))
    claim = "deviation of outputs from so many separated terms"
    return [min(pairs, key=lambda check: check.slack), Check("proposition-4", claim, str(case), largest(sums), "<=", TOLERANCE)]


def _inputs(case: Case, random: np.random.Generator, count: int) -> list[Tensor]:
    return [torch.from_numpy(random.standard_normal((count, size))) for size in case.shape.mode_sizes]


def _network(case: Case, inputs: list[Tensor]) -> Tensor:
    outputs = forward(case.shape, case.weights, inputs)
    assert isinstance(outputs, Tensor)  # no logarithms were asked for
    return outputs


def _subsets(order: int) -> list[tuple[int, ...]]:
    """The subsets of the modes, without the empty one and all modes."""
    return [subset for size in range(1, order) for subset in itertools.combinations(range(order), size)]


def _factors(inputs: list[Tensor], modes: tuple[int, ...] | list[int]) -> Tensor:
    """The outer product of every sample's inputs at some modes, in the order of a matricization's rows: the first mode fastest."""
    return torch.stack([reduce(torch.kron, vectors[::-1]) for vectors in zip(*(inputs[mode] for mode in modes))])
