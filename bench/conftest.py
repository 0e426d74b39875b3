"""What the pytest-benchmark files share: the contestants of a file's task, their preparation, comparison and timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.contestants import Absent, prepare_all
from bench.hardware import Limits
from bench.ours import OURS
from bench.peers import PEERS
from bench.timing import calls_per_block
from bench.workloads import Workload, make_case, workloads

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROUNDS = 7


@pytest.fixture
def time_contestant(benchmark: Any) -> Callable[[Workload, str], None]:
    """Times one contestant of a workload whose results agree with tensornet's; skips those that cannot run."""

    def run(workload: Workload, name: str) -> None:
        makers = OURS[workload.task] | PEERS[workload.task]
        reference = next(iter(makers))
        chosen = {reference: makers[reference], name: makers[name]}
        contestant = prepare_all(chosen, make_case(workload, DEVICE), Limits.of(DEVICE))[-1]
        if isinstance(contestant, Absent):
            pytest.skip(f"{name}: {contestant.reason}")

        def timed() -> None:
            contestant.run()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        calls, _ = calls_per_block(timed, DEVICE)
        benchmark.group = workload.name
        benchmark.extra_info["note"] = contestant.note
        benchmark.pedantic(timed, rounds=ROUNDS, iterations=calls)

    return run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test of ``(workload, name)`` every workload of its module's ``TASKS`` with every contestant's name."""
    if {"workload", "name"} <= set(metafunc.fixturenames):
        cases = [
            (workload, name)
            for workload in workloads()
            if workload.task in metafunc.module.TASKS
            for name in OURS[workload.task] | PEERS[workload.task]
        ]
        metafunc.parametrize(("workload", "name"), cases, ids=[f"{workload.name}-{name}" for workload, name in cases])
