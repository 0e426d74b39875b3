"""``python -m bench.dynamics``: whole training steps of the paper's figures, beside the formulations that were published with it.

A step is the loss, its gradient and the adaptive step of Appendix D.2.1, here with a learning rate of zero, so that weights, and with
them the work, stay the same. Two peers leave gradients to torch's automatic differentiation and take the norm parameter by parameter:

- The published formulation, written anew. Entries are one-hot vectors, of all samples and modes in one array. Each level of the tree is an
  einsum of the array with the level's stacked weights, and a ``prod`` over the children. For matrices, every entry is the sum of the
  end matrix times a matrix of zeros and a one.
- The same arithmetic at the rate of matrix products: node by node, one product of children and one matrix product; for matrices the
  end matrix and a gather.

On a CUDA device a second table has the step replayed as a graph, as training does it, over the time of its kernels alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from bench.contestants import Contestant, relative_error
from bench.hardware import describe
from bench.timing import race
from tensornet.dynamics.blocks import Blocks, kept_tensors
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
        loss.item()
        training.optimizer.step()
        return (loss, *(weight.grad for weight in training.parameters if weight.grad is not None))

    return run


def peer(training: Training, predictor: Callable[[Training, Sequence[Tensor]], Callable[[], Tensor]]) -> Callable[[], Sequence[Tensor]]:
    """The same step with other predictions of the observations, and automatic differentiation."""
    weights = [weight.detach().clone().requires_grad_(weight.requires_grad) for weight in training.htf.weight_list()]
    trained = [weight for weight in weights if weight.requires_grad]
    predict, values = predictor(training, weights), training.problem.values
    average = {"gamma": 0.0, "count": 0}

    def run() -> Sequence[Tensor]:
        for weight in trained:
            weight.grad = None
        loss = torch.nn.functional.mse_loss(predict(), values)
        loss.item()
        loss.backward()
        gradients = [weight.grad for weight in trained if weight.grad is not None]
        squares = sum(gradient.norm().item() ** 2 for gradient in gradients)
        average["count"] += 1
        average["gamma"] = 0.99 * average["gamma"] + 0.01 * squares
        rate = 0.0 / ((average["gamma"] / (1 - 0.99 ** average["count"])) ** 0.5 + 1e-6)
        with torch.no_grad():
            for weight, gradient in zip(trained, gradients):
                weight.sub_(rate * gradient)
        return (loss.detach(), *gradients)

    return run


def published(training: Training, weights: Sequence[Tensor]) -> Callable[[], Tensor]:
    """The predictions in the published formulation."""
    if training.experiment.kind == "matrix":
        observed = torch.zeros(len(training.problem.values), *training.experiment.mode_sizes, device=weights[0].device)
        observed[(torch.arange(len(observed)), *_columns(training))] = 1
        return lambda: (observed * _end_matrix(weights).unsqueeze(0)).sum((1, 2))
    tree, vectors = training.htf.tree, torch.stack(_vectors(training, weights[0].dtype), 1)
    levels = tree.levels

    def predict() -> Tensor:
        values = torch.einsum("bod,odr->bor", vectors, torch.stack([weights[node] for node in levels[0]]))
        for level in levels[1:]:
            windows = values.permute(0, 2, 1).reshape(len(values), values.shape[2], len(level), -1)
            values = windows.prod(-1).permute(0, 2, 1)
            values = torch.einsum("bod,odr->bor", values, torch.stack([weights[node] for node in level]))
        return values[:, 0, 0]

    return predict


def nodewise(training: Training, weights: Sequence[Tensor]) -> Callable[[], Tensor]:
    """The predictions node by node, from the leaves to the root, without anything shared between the observations."""
    if training.experiment.kind == "matrix":
        rows, columns = _columns(training)
        return lambda: _end_matrix(weights)[rows, columns]
    tree, vectors = training.htf.tree, _vectors(training, weights[0].dtype)

    def predict() -> Tensor:
        values = [vector @ weight for vector, weight in zip(vectors, weights)]
        for node in range(tree.order, len(tree.nodes)):
            values.append(reduce(torch.mul, (values[child] for child in tree.child_ids[node])) @ weights[node])
        return values[-1][:, 0]

    return predict


def _columns(training: Training) -> Sequence[Tensor]:
    return training.problem.observations.indices.unbind(1)  # type: ignore[union-attr]


def _vectors(training: Training, dtype: torch.dtype) -> Sequence[Tensor]:
    """A vector for every observation, by mode."""
    observations = training.problem.observations
    if not isinstance(observations, Entries):
        return observations.vectors
    return [torch.nn.functional.one_hot(column, size).to(dtype) for column, size in zip(_columns(training), observations.sizes)]


def _end_matrix(weights: Sequence[Tensor]) -> Tensor:
    """The product of the matrices, which the tree holds transposed behind the first."""
    first, last, *between = weights[:-1]  # the root's weight is ones
    return torch.linalg.multi_dot([first, *(weight.T for weight in reversed(between)), last.T])


def replayed(training: Training, steps: int = 200) -> tuple[float, float]:
    """Seconds of a step that a CUDA graph replays, and of its kernels alone as torch's profiler counts them."""

    def step() -> Tensor:
        loss = training.objective.backward()
        training.optimizer.step()
        return loss

    step()
    blocks = Blocks(step, [training.objective.vector, *kept_tensors(training.optimizer)], steps)
    blocks.run(steps)
    start = time.perf_counter()
    blocks.run(steps)
    seconds = time.perf_counter() - start
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        blocks.run(steps)
    kernels = sum(event.self_device_time_total for event in profile.key_averages()) * 1e-6
    return seconds / steps, kernels / steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.dynamics", description="Training steps of the paper's figures.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"rounds of timing (default {ROUNDS})")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), metavar="D", help="where to compute (default: cpu)")
    parser.add_argument("--init-std", default="0.1", metavar="S", help="of the weights; small ones make products that are no longer normal")
    parser.add_argument("--out", type=Path, metavar="FILE", help="rows are appended here; default: bench/results/dynamics.jsonl")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device
    common = {"date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), **describe(device)}
    print("| experiment | tensornet, ms | published, ms | node by node, ms | published / tensornet | node by node / tensornet |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in NAMES:
        training = Training(experiment(name, {"lr": "0", "init_std": options.init_std}), device)
        runs = {"ours": ours(training), "published": peer(training, published), "nodewise": peer(training, nodewise)}
        expected = [tensor.clone() for tensor in runs["ours"]()]
        for label in ("published", "nodewise"):
            error = relative_error(expected, list(runs[label]()))
            if not error < 1e-3:
                print(f"bench: {name}: the steps ours and {label} differ by {error:.1e}", file=sys.stderr)
                return 1
        contestants = [Contestant(label, run, lambda gradients: gradients) for label, run in runs.items()]
        timings = dict(zip(runs, race(contestants, options.rounds, device)))
        ratios = {label: timings[label].ratio(timings["ours"]) for label in ("published", "nodewise")}
        cells = [f"{timing.median * 1e3:.3g}" for timing in timings.values()] + [f"{ratio:.1f}" for ratio in ratios.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        samples = {label: timing.samples for label, timing in timings.items()}
        row = {"workload": f"dynamics/{name}", **samples, "ratios": ratios, **common}
        with (options.out or RESULTS / "dynamics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    if device.type == "cuda":
        print("\n| experiment | graph, ms | kernels, ms | graph / kernels |\n| --- | ---: | ---: | ---: |")
        for name in NAMES:
            seconds, kernels = replayed(Training(experiment(name, {"lr": "0", "init_std": options.init_std}), device))
            print(f"| {name} | {seconds * 1e3:.3g} | {kernels * 1e3:.3g} | {seconds / kernels:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
