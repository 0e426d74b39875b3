"""End tensors."""

from __future__ import annotations

from collections.abc import Callable

from bench.workloads import Task, Workload

TASKS: tuple[Task, ...] = ("end",)


def test_contraction(time_contestant: Callable[[Workload, str], None], workload: Workload, name: str) -> None:
    """One contestant on one workload."""
    time_contestant(workload, name)
