"""Other libraries doing the same jobs, for the tables that the commands print."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tensornet.htf import HTF

RANKS = (8, 12, 20)
ITERATIONS = 50  # of TensorLy's alternating least squares; 200 add .07 dB to its CP, nothing to its Tucker, on the photograph


def contractions(htf: HTF) -> dict[str, Callable[[], Any]]:
    """The contraction to the end tensor, by this library, torch.einsum and opt_einsum's compiled expression.

    Example:
        >>> from tensornet.tree import ModeTree
        >>> ways = contractions(HTF(ModeTree.perfect(4), mode_sizes=3, ranks=2))
        >>> [tuple(way().shape) for way in ways.values()]
        [(3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)]
    """
    import opt_einsum

    tree, last = htf.tree, len(htf.tree.nodes) - 1
    tensors = [weight.detach() for weight in htf.weight_list()]
    labels = [[node, parent] for node, parent in enumerate(tree.parent_ids)]
    tensors[last], labels[last] = tensors[last][:, 0], [last]
    output = list(range(tree.order))
    pairs = [part for pair in zip(tensors, labels) for part in pair]
    words = ["".join(map(opt_einsum.get_symbol, label)) for label in [*labels, output]]
    expression = opt_einsum.contract_expression(f"{','.join(words[:-1])}->{words[-1]}", *(tuple(tensor.shape) for tensor in tensors))

    def ours() -> Tensor:
        with torch.no_grad():
            return htf.contract()

    return {
        "tensornet": ours,
        "torch.einsum": lambda: torch.einsum(*pairs, output),
        "opt_einsum, compiled": lambda: expression(*tensors, backend="torch"),
    }


def interleaved_medians(ways: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of every way, run in turn until the time is over, and at least 3 times after one that is not counted.

    Example:
        >>> sorted(interleaved_medians({"a": lambda: None, "b": lambda: None}, 0.0))
        ['a', 'b']
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    start = time.perf_counter()
    while len(next(iter(taken.values()))) < 4 or time.perf_counter() - start < seconds:
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - begun)
    return {name: median(times[1:]) for name, times in taken.items()}


def completions(
    sizes: Sequence[int], indices: NDArray[Any], values: NDArray[Any], seed: int
) -> dict[str, list[tuple[str, Callable[[], NDArray[Any]]]]]:
    """TensorLy's masked CP and Tucker decompositions of the centred entries: for either, settings and what completes with them.

    Example:
        >>> indices, values = np.array([[0, 0], [0, 1], [1, 0]]), np.array([1.0, 2.0, 2.0])
        >>> {name: [setting for setting, _ in found] for name, found in completions((2, 2), indices, values, 0).items()}
        {'TensorLy, masked CP': ['rank 8', 'rank 12', 'rank 20'], 'TensorLy, masked Tucker': ['ranks 2 2']}
    """
    import tensorly
    from tensorly.decomposition import parafac, tucker

    mask = np.zeros(sizes)
    mask[tuple(indices.T)] = 1
    offset = values.mean()
    known = np.zeros(sizes)
    known[tuple(indices.T)] = values - offset

    def run(decompose: Callable[..., Any], restore: Callable[[Any], Any], rank: Any) -> Callable[[], NDArray[Any]]:
        def complete() -> NDArray[Any]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = decompose(known, rank, n_iter_max=ITERATIONS, init="svd", random_state=seed, mask=mask)
                completed: NDArray[Any] = np.asarray(restore(found)) + offset
                return completed

        return complete

    tuckers = dict.fromkeys(tuple(min(rank, size) for size in sizes) for rank in RANKS)
    return {
        "TensorLy, masked CP": [(f"rank {rank}", run(parafac, tensorly.cp_to_tensor, rank)) for rank in RANKS],
        "TensorLy, masked Tucker": [
            ("ranks " + " ".join(map(str, ranks)), run(tucker, tensorly.tucker_to_tensor, list(ranks))) for ranks in tuckers
        ],
    }
