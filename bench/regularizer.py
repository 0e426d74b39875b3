"""``python -m bench.regularizer``: a training step of ResNet18 with the penalty, beside the plain step and the published way.

Times are processor time of one thread by default, which other programs on the machine disturb less than they do the clock's.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import psutil
import torch
from torch.nn import functional

from bench.hardware import describe, version
from cnn_reg import Region, gradient_direction_penalty, resnet18, twice_differentiable

RESULTS = Path(__file__).parent / "results"
LEFT, RIGHT = Region(96, 20, 32, 32), Region(96, 172, 32, 32)
NAMES = [f"{way}{layout}" for way in ("plain", "published", "ours") for layout in ("", ", channels_last")]


def published(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The regularized loss as the paper's program computes it, with torch alone."""
    first = x.clone().requires_grad_()
    outputs = model(first).flatten()
    changed = x.clone()
    changed[:, :, 96:128, 172:204] = x[:, :, 96:128, 172:204].roll(-1, 0)
    changed.requires_grad_()
    gradients = [
        torch.autograd.grad(values.sum(), inputs, create_graph=True)[0][:, :, 96:128, 20:52].flatten(1)
        for values, inputs in ((outputs, first), (model(changed).flatten(), changed))
    ]
    return functional.binary_cross_entropy_with_logits(outputs, y) + functional.cosine_similarity(*gradients).abs().mean()


def ours(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same loss by this library."""
    penalty, info = gradient_direction_penalty(model, x, LEFT, RIGHT)
    return functional.binary_cross_entropy_with_logits(info.outputs.flatten(), y) + penalty


def plain(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The loss without the penalty."""
    return functional.binary_cross_entropy_with_logits(model(x).flatten(), y)


def make(name: str, batch: int, size: int) -> Callable[[], torch.nn.Module]:
    """A step of forward and backward passes, which returns the model with its gradients."""
    torch.manual_seed(0)
    way, _, layout = name.partition(", ")
    model, x = resnet18(), torch.randn(batch, 3, size, size)
    if way == "ours":
        twice_differentiable(model)
    if layout:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    y = torch.arange(batch).remainder(2).float()
    loss = {"plain": plain, "published": published, "ours": ours}[way]

    def step() -> torch.nn.Module:
        model.zero_grad()
        loss(model, x, y).backward()
        return model

    return step


def peak(name: str, batch: int, size: int, answer: multiprocessing.Queue[int]) -> None:
    """Answers by how many bytes the process grows at most in a step after it is set up."""
    step = make(name, batch, size)
    before = psutil.Process().memory_info().rss
    step()
    answer.put(_high_water() - before)


def _high_water() -> int:
    """Most bytes this process ever held. Not that of getrusage, which starts from the parent process's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit("peak memory is read from Linux's /proc/self/status, which does not tell it here")
    return int(found[1]) * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.regularizer", description=__doc__)
    parser.add_argument("--only", default="*", metavar="PATTERN", help=f"contestants whose names match; there are {'; '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="rows are appended here; default: bench/results/DATE-regularizer-cpu.jsonl")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    names = [name for name in NAMES if fnmatch(name, options.only)]
    if not {name.partition(",")[0] for name in names} >= {"plain", "published"}:
        parser.error("ratios need a plain step, and comparisons the published way; --only leaves one of them out")
    steps = {name: make(name, options.batch, options.size) for name in names}
    _compare(steps)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            samples[name].append(time.process_time() - start)
    memory = {name: _peak_of(name, options.batch, options.size) for name in names}
    medians = {name: statistics.median(times) for name, times in samples.items()}
    floor = min(medians[name] for name in names if name.startswith("plain"))
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    common = {"date": date, "workload": f"resnet18 {options.size} x {options.size}, batch {options.batch}", **describe(torch.device("cpu"))}
    common["versions"]["torchvision"] = version("torchvision")
    path = options.out or RESULTS / f"{date}-regularizer-cpu.jsonl"
    with path.open("a", encoding="utf-8") as file:
        for name in names:
            row = {"contestant": name, "median": medians[name], "best": min(samples[name]), "worst": max(samples[name])}
            row |= {"n": options.rounds, "ratio": medians[name] / floor, "peak_bytes": memory[name]}
            file.write(json.dumps(row | common) + "\n")
            print(
                f"{name:26} median {row['median']:7.3f} s of the processor ({row['best']:.3f} to {row['worst']:.3f}), "
                f"{row['ratio']:5.2f} of the fastest plain step, {memory[name] / 2**20:6.0f} MiB"
            )
    return 0


def _peak_of(name: str, batch: int, size: int) -> int:
    """Peak memory of a contestant, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=peak, args=(name, batch, size, answer))
    process.start()
    found = answer.get(timeout=300)
    process.join()
    return found


def _compare(steps: dict[str, Callable[[], torch.nn.Module]]) -> None:
    """Warms up, and makes sure that the regularized steps have the same gradients before they are timed.

    In single precision those of the two layouts differ by a percent, since a rounding turns some rectifier on or off.
    """
    gradients = {name: torch.cat([weight.grad.flatten() for weight in step().parameters()]) for name, step in steps.items()}
    for name, found in gradients.items():
        way, comma, layout = name.partition(",")
        expected = gradients[f"published{comma}{layout}"]
        error = float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))
        if way == "ours" and not error < 1e-3:
            raise SystemExit(f"the gradients of {name} differ from the published way's by {error:.1e}")


if __name__ == "__main__":
    sys.exit(main())
