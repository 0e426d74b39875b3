"""Entries and network evaluation."""

from __future__ import annotations

from collections.abc import Callable

from bench.workloads import Task, Workload

TASKS: tuple[Task, ...] = ("entries", "network")


def test_entries(time_contestant: Callable[[Workload, str], None], workload: Workload, name: str) -> None:
    """One contestant on one workload."""
    time_contestant(workload, name)
