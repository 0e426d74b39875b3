"""``python -m bench.dynamics``: whole training steps of the paper's figures, beside the formulations that were published with it.

A step is the loss, its gradient and the adaptive step of Appendix D.2.1, here with a learning rate of zero, so that weights, and with
them the work, stay the same. The peer of (hierarchical) tensor factorizations passes over all observations, entries as one-hot
vectors, node by node as dense matrix products; that of matrix factorizations multiplies the matrices and gathers. Both leave gradients
to torch's automatic differentiation and take the norm parameter by parameter.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from bench.contestants import Contestant, relative_error
from bench.hardware import describe
from bench.timing import race
from tensornet.dynamics.experiments import experiment
from tensornet.dynamics.observations import Entries
from tensornet.dynamics.training import Training

NAMES = ("fig1-matrix", "fig1-tensor", "fig1-hierarchical", "fig9", "fig10")
ROUNDS = 15
RESULTS = Path(__file__).parent / "results"


def ours(training: Training) -> Callable[[], Sequence[Tensor]]:
    """The library's own step."""

    def run() -> Sequence[Tensor]:
        loss = training.objective.backward()
        training.optimizer.step()
        return (torch.tensor(loss), *(weight.grad for weight in training.parameters if weight.grad is not None))

    return run


def published(training: Training) -> Callable[[], Sequence[Tensor]]:
    """The same step as it was published."""
    weights = [weight.detach().clone().requires_grad_(weight.requires_grad) for weight in training.htf.weight_list()]
    trained = [weight for weight in weights if weight.requires_grad]
    predict = _matrix_product(training, weights) if training.experiment.kind == "matrix" else _pass(training, weights)
    values = training.problem.values
    average = {"gamma": 0.0, "count": 0}

    def run() -> Sequence[Tensor]:
        for weight in trained:
            weight.grad = None
        loss = torch.nn.functional.mse_loss(predict(), values)
        loss.backward()
        gradients = [weight.grad for weight in trained if weight.grad is not None]
        squares = sum(gradient.norm().item() ** 2 for gradient in gradients)
        average["count"] += 1
        average["gamma"] = 0.99 * average["gamma"] + 0.01 * squares
        rate = 0.0 / ((average["gamma"] / (1 - 0.99 ** average["count"])) ** 0.5 + 1e-6)
        with torch.no_grad():
            for weight, gradient in zip(trained, gradients):
                weight.sub_(rate * gradient)
        return (torch.tensor(loss.item()), *gradients)

    return run


def _pass(training: Training, weights: Sequence[Tensor]) -> Callable[[], Tensor]:
    """All observations, from the leaves to the root, without anything shared between them."""
    observations, tree = training.problem.observations, training.htf.tree
    if isinstance(observations, Entries):
        columns = observations.indices.unbind(1)
        sizes = observations.sizes
        vectors = [torch.nn.functional.one_hot(column, size).to(weights[0].dtype) for column, size in zip(columns, sizes)]
    else:
        vectors = observations.vectors

    def predict() -> Tensor:
        values = [vector @ weight for vector, weight in zip(vectors, weights)]
        for node in range(tree.order, len(tree.nodes)):
            values.append(reduce(torch.mul, (values[child] for child in tree.child_ids[node])) @ weights[node])
        return values[-1][:, 0]

    return predict


def _matrix_product(training: Training, weights: Sequence[Tensor]) -> Callable[[], Tensor]:
    """The product of the matrices, which the tree holds transposed behind the first, and its observed entries."""
    first, last, *between = weights[:-1]  # the root's weight is ones
    rows, columns = training.problem.observations.indices.unbind(1)  # type: ignore[union-attr]
    return lambda: torch.linalg.multi_dot([first, *(weight.T for weight in reversed(between)), last.T])[rows, columns]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.dynamics", description="Training steps of the paper's figures.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"rounds of timing (default {ROUNDS})")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch")
    parser.add_argument("--init-std", default="0.1", metavar="S", help="of the weights; small ones make products that are no longer normal")
    parser.add_argument("--out", type=Path, metavar="FILE", help="rows are appended here; default: bench/results/dynamics.jsonl")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    cpu = torch.device("cpu")
    common = {"date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), **describe(cpu)}
    print("| experiment | tensornet, ms | published formulation, ms | published / tensornet |")
    print("| --- | ---: | ---: | ---: |")
    for name in NAMES:
        training = Training(experiment(name, {"lr": "0", "init_std": options.init_std}))
        runs = {"tensornet": ours(training), "published": published(training)}
        error = relative_error([tensor.clone() for tensor in runs["tensornet"]()], list(runs["published"]()))
        if not error < 1e-3:
            print(f"bench: {name}: the two steps differ by {error:.1e}", file=sys.stderr)
            return 1
        contestants = [Contestant(label, run, lambda gradients: gradients) for label, run in runs.items()]
        mine, theirs = race(contestants, options.rounds, cpu)
        ratio = theirs.ratio(mine)
        print(f"| {name} | {mine.median * 1e3:.3g} | {theirs.median * 1e3:.3g} | {ratio:.1f} |", flush=True)
        row = {"workload": f"dynamics/{name}", "ours": mine.samples, "published": theirs.samples, "ratio": ratio, **common}
        with (options.out or RESULTS / "dynamics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
