"""``python -m bench.low_rank``: recovery of tensors of low rank from some of their entries, beside TensorLy's masked CP and a bound.

A tensor is a sum of few products of standard normal vectors; its entries are observed at random places, which may repeat, with noise.
TensorLy is given the true rank, which this library has to find, and several random starts, of which the one nearest to the observed
entries counts. The bound is the error of least squares that knows the ranks and starts at the truth, to first order in the noise.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.hardware import describe
from tensornet import TensorCompleter

Array = NDArray[Any]
RESULTS = Path(__file__).parent / "results" / "low-rank.jsonl"
ITERATIONS = 500  # of alternating least squares at most


@dataclass(frozen=True)
class Case:
    """Tensors to recover.

    Attributes:
        sizes: Mode sizes.
        rank: Number of products.
        count: Observed entries.
        noise: Standard deviation of their noise, relative to that of the tensor's entries.
    """

    sizes: tuple[int, ...]
    rank: int
    count: int
    noise: float

    def make(self, seed: int) -> tuple[Array, Array, Array]:
        """The tensor, and indices and values of the observed entries."""
        rng = np.random.default_rng(seed)
        truth = np.ones((1, self.rank))
        for size in self.sizes:
            truth = truth[..., None, :] * rng.standard_normal((size, self.rank))
        truth = truth.sum(-1)[0]
        indices = np.stack([rng.integers(0, size, self.count) for size in self.sizes], 1)
        values = truth[tuple(indices.T)]
        return truth, indices, values + self.noise * truth.std() * rng.standard_normal(self.count)

    @property
    def bound(self) -> float:
        """Relative error of least squares: noise times the root of parameters over entries."""
        free = self.rank * (sum(self.sizes) - len(self.sizes) + 1)
        return self.noise * math.sqrt(free / self.count)


CASES = [
    Case((6,) * 4, 2, 900, 0.0),
    Case((6,) * 4, 2, 900, 0.1),
    Case((6,) * 4, 2, 900, 0.5),
    Case((20,) * 3, 3, 2000, 0.0),
    Case((20,) * 3, 3, 2000, 0.3),
    Case((60, 60), 3, 1500, 0.1),
    Case((10,) * 5, 3, 10000, 0.05),
]


def ours(indices: Array, values: Array, sizes: Sequence[int]) -> tuple[Array, int]:
    """What the completer makes of the entries with its usual settings, and the largest hierarchical rank that it finds, 0 for none."""
    completer = TensorCompleter(mode_sizes=sizes).fit(indices, values)
    found: Array = completer.complete().numpy()
    return found, max((completer.hierarchical_ranks_ or {(): 0}).values())


def masked_cp(indices: Array, values: Array, sizes: Sequence[int], rank: int, starts: int) -> Array:
    """The best of TensorLy's masked CP decompositions of the true rank."""
    from tensorly import cp_to_tensor
    from tensorly.decomposition import parafac

    known, times = np.zeros(sizes), np.zeros(sizes)
    np.add.at(known, tuple(indices.T), values)
    np.add.at(times, tuple(indices.T), 1.0)
    known, mask = known / np.maximum(times, 1), np.minimum(times, 1)  # the mean of what is observed of an entry
    found = [np.zeros(sizes)]  # where all starts fail
    for start in range(starts):
        try:
            parts = parafac(known, rank, n_iter_max=ITERATIONS, init="random", random_state=start, mask=mask, tol=1e-9)
        except np.linalg.LinAlgError:  # where columns become dependent
            continue
        found.append(np.asarray(cp_to_tensor(parts)))
    return min(found, key=lambda tensor: float(np.square(tensor[tuple(indices.T)] - values).mean()))


def measure(case: Case, seeds: int, starts: int) -> dict[str, Any]:
    """Errors relative to the norm, and seconds, of both libraries, a number a seed."""
    row: dict[str, Any] = {"ours": [], "ranks": [], "ours_seconds": [], "tensorly": [], "tensorly_seconds": []}
    for seed in range(seeds):
        truth, indices, values = case.make(seed)
        begin = time.perf_counter()
        found, rank = ours(indices, values, case.sizes)
        middle = time.perf_counter()
        other = masked_cp(indices, values, case.sizes, case.rank, starts)
        end = time.perf_counter()
        for name, tensor in (("ours", found), ("tensorly", other)):
            row[name].append(float(np.linalg.norm(tensor - truth) / np.linalg.norm(truth)))
        row["ranks"].append(rank)
        row["ours_seconds"].append(middle - begin)
        row["tensorly_seconds"].append(end - middle)
    return row


def main() -> None:
    """Runs all cases and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--starts", type=int, default=5, help="of TensorLy (default 5)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="rows are appended here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    common = {"date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), **describe(torch.device("cpu"))}
    print("| sizes | rank | entries | noise | tensornet: median, worst | true rank found | s | TensorLy: median, worst | s | bound |")
    print("| --- | ---: | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |")
    for case in CASES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorLy's of degenerate columns
            row = measure(case, options.seeds, options.starts)
        errors = [f"{np.median(row[name]):.1e}, {max(row[name]):.1e}" for name in ("ours", "tensorly")]
        seconds = [f"{np.median(row[name]):.2g}" for name in ("ours_seconds", "tensorly_seconds")]
        right = f"{row['ranks'].count(case.rank)} of {options.seeds}"
        shape = " x ".join(map(str, case.sizes))
        cells = [shape, case.rank, case.count, case.noise, errors[0], right, seconds[0], errors[1], seconds[1], f"{case.bound:.1e}"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        with options.out.open("a", encoding="utf-8") as file:
            workload = f"low-rank/{'x'.join(map(str, case.sizes))}-rank{case.rank}-{case.count}-noise{case.noise:g}"
            file.write(json.dumps({"workload": workload, **row, "bound": case.bound, "starts": options.starts, **common}) + "\n")


if __name__ == "__main__":
    main()
