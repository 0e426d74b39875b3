"""The machine: what it is, its versions, and what it is not asked to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "opt_einsum", "cotengra", "tensap")


@dataclass(frozen=True)
class Limits:
    """What a peer may need at most; one that needs more is reported, not run."""

    memory: int
    flops: float

    @classmethod
    def of(cls, device: torch.device, seconds: float = 20.0) -> Limits:
        """A quarter of the memory that is free, and the operations that a large matrix product does in ``seconds``."""
        square = torch.ones(1024, 1024, device=device)
        rates = []
        for _ in range(5):
            start = time.perf_counter()
            float((square @ square)[0, 0])
            rates.append(2 * 1024**3 / (time.perf_counter() - start))
        return cls(_free_memory(device) // 4, seconds * max(rates))


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware, versions and threads, as they stand in every row of the results."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), "tensornet": _tensornet(), **{name: version(name) for name in PACKAGES}}
        | ({"cuda": torch.version.cuda} if device.type == "cuda" else {}),
    }


def version(package: str) -> str | None:
    """The installed version of a package; ``None`` where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def size(count: float) -> str:
    """A number of bytes for reading."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _tensornet() -> str:
    import tensornet

    return tensornet.__version__


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    listing = Path("/proc/meminfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
