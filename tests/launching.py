"""Starts a program of the tests in several processes that join over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(program: str, arguments: Sequence[object], size: int) -> list[subprocess.Popen[str]]:
    """The processes, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, str(ROOT / "tests" / program), *map(str, arguments)]
    return [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]


def finish(started: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit codes, and what was written to the output and error streams."""
    try:
        written = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(started, written)]


def launch(program: str, arguments: Sequence[object], size: int) -> None:
    """Runs the processes to their end; all must succeed."""
    ended = finish(start(program, arguments, size))
    assert [code for code, *_ in ended] == [0] * size, ended
