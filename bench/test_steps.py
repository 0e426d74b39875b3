"""Training steps."""

from __future__ import annotations

from collections.abc import Callable

from bench.workloads import Task, Workload

TASKS: tuple[Task, ...] = ("step",)


def test_steps(time_contestant: Callable[[Workload, str], None], workload: Workload, name: str) -> None:
    """One contestant on one workload."""
    time_contestant(workload, name)
