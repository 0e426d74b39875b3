"""Interleaved timing: every round times all contestants, so that noise of a shared machine meets them alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.contestants import Contestant

BLOCK = 0.02  # seconds: a sample is the mean over as many calls as fill this, so that caches are as warm as in a loop
SLOW = 0.25  # seconds: what takes longer needs no second call to warm up
BUDGET = 4.0  # seconds: contestants that would take longer in all rounds together are timed in fewer


@dataclass(frozen=True)
class Timing:
    """Seconds a call in each round."""

    samples: tuple[float, ...]
    calls: int

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile."""
        if len(self.samples) < 2:
            return (self.median, self.median)
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (low, high)

    @property
    def best(self) -> float:
        """Minimum over the rounds."""
        return min(self.samples)

    def ratio(self, other: Timing) -> float:
        """Median over the rounds of this time divided by the other's in the same round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.samples, other.samples))


def seconds(run: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Seconds a call, over so many calls; on CUDA from events around the block, after all work before it is done."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1000 / calls


def calls_per_block(run: Callable[[], Any], device: torch.device) -> tuple[int, float]:
    """Calls that fill a block, and about the seconds a call takes; warms up on the way."""
    once = seconds(run, 1, device)
    if once < SLOW:
        once = seconds(run, 1, device)
    if once < BLOCK:
        once = seconds(run, 5, device)
    return max(1, min(1000, round(BLOCK / once))), once


def race(
    contestants: Sequence[Contestant], rounds: int, device: torch.device, *, seed: int = 0, report: Callable[[], None] | None = None
) -> list[Timing]:
    """Times the contestants in interleaved rounds, each round in a new random order, without garbage collection.

    Contestants that take long are timed only in the first rounds.
    """
    prepared = [calls_per_block(contestant.run, device) for contestant in contestants]
    shares = [max(1, min(rounds, int(BUDGET / max(once, BLOCK)))) for _, once in prepared]
    samples: list[list[float]] = [[] for _ in contestants]
    shuffle = random.Random(seed).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            order = [place for place, share in enumerate(shares) if turn < share]
            shuffle(order)
            for place in order:
                run = contestants[place].run
                samples[place].append(seconds(run, prepared[place][0], device))
            if report:
                report()
    finally:
        if collecting:
            gc.enable()
    return [Timing(tuple(times), calls) for times, (calls, _) in zip(samples, prepared)]


def fastest(contestants: Sequence[Contestant], device: torch.device, rounds: int = 7) -> Contestant:
    """The contestant with the smallest best time; those that are twice as slow at first sight are left out at once."""
    if len(contestants) == 1:
        return contestants[0]
    first = race(contestants, 2, device)
    limit = 2 * min(timing.best for timing in first)
    close = [contestant for contestant, timing in zip(contestants, first) if timing.best <= limit]
    timings = race(close, rounds, device)
    return min(zip(close, timings), key=lambda pair: pair[1].best)[0]
