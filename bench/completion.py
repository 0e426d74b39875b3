"""``python -m bench.completion``: completion of entries on the disk beside entries in memory: speed, memory, error.

An order-8 tensor, the sum of 15 waves along modes and pairs of modes, is observed at random places with noise of a tenth of its
standard deviation. The files are written in pieces, and deleted at the end. Every way runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from bench.hardware import describe
from tensornet import TensorCompleter

SIZES = (20, 30, 40, 50, 60, 70, 80, 100)
NOISE = 0.1
PIECE = 2**16  # entries written at a time: a row group
UNSEEN = 10**5
WAYS = ("memory", "npy", "parquet")
Entries = tuple[NDArray[Any], NDArray[Any]]


ANGLES = [2 * np.pi * np.arange(size) / size for size in SIZES]
SINGLE = [np.sin(angles).astype(np.float32) for angles in ANGLES]
PAIRS = [np.cos(np.add.outer(first, second)).astype(np.float32).reshape(-1) for first, second in zip(ANGLES, ANGLES[1:])]


def waves(indices: NDArray[Any]) -> NDArray[Any]:
    """Entries of the tensor, with mean 0 and standard deviation 1."""
    columns = indices.T.astype(np.intp)
    found = sum(table.take(column) for table, column in zip(SINGLE, columns))
    found = found + sum(table.take(first * size + second) for table, first, second, size in zip(PAIRS, columns, columns[1:], SIZES[1:]))
    return np.asarray(found / np.float32(np.sqrt(7.5)))


def drawn(generator: np.random.Generator, count: int) -> NDArray[Any]:
    """Indices of random entries."""
    return np.stack([generator.integers(0, size, count, dtype=np.uint8) for size in SIZES], 1)


def pieces(count: int) -> Iterator[Entries]:
    """The observed entries."""
    generator = np.random.default_rng(0)
    for first in range(0, count, PIECE):
        indices = drawn(generator, min(PIECE, count - first))
        yield indices, waves(indices) + NOISE * generator.standard_normal(len(indices), np.float32)


def write(way: str, folder: Path, count: int) -> list[Any]:
    """Writes the entries in pieces; what to fit to."""
    if way == "npy":
        names = [folder / "indices.npy", folder / "values.npy"]
        with names[0].open("wb") as indices_file, names[1].open("wb") as values_file:
            for file, shape, kind in ((indices_file, (count, len(SIZES)), "|u1"), (values_file, (count,), "<f4")):
                np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
            for indices, values in pieces(count):
                indices.tofile(indices_file)
                values.tofile(values_file)
        return names
    schema = pyarrow.schema([(f"mode{mode}", pyarrow.uint8()) for mode in range(len(SIZES))] + [("value", pyarrow.float32())])
    with parquet.ParquetWriter(folder / "entries.parquet", schema) as writer:
        for indices, values in pieces(count):
            writer.write_table(pyarrow.table([*indices.T, values], schema=schema))
    return [folder / "entries.parquet"]


def fit(given: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Fits, and tells times, memory and error; the clock of the steps starts at the first record."""
    marks: list[tuple[int, float, float]] = []
    completer = TensorCompleter(
        ranks=options.ranks,
        smooth={mode: 2.0 * size for mode, size in enumerate(SIZES)},
        init_scale=0.001,
        penalty=0.0,  # any penalty outweighs the small slope at the small initial weights of an order-8 factorization
        weight_decay=0.0,
        steps=options.steps or max(1, round(options.entries / options.batch)),
        batch_size=options.batch,
        patience=1000,
        device=options.device,
    )
    start, used = time.perf_counter(), time.process_time()
    completer.fit(*given, callback=lambda seen: marks.append((seen.step, time.perf_counter(), time.process_time())))
    trained = (marks[-1][0] - marks[0][0]) * options.batch
    unseen = drawn(np.random.default_rng(1), UNSEEN)
    error = np.square(completer.predict(unseen).cpu().numpy() - waves(unseen)).mean()
    return {
        "steps": completer.n_iter_,
        "weights": sum(weight.numel() for weight in completer.htf_.weight_list()),
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - used,
        "entries_per_second": trained / (marks[-1][1] - marks[0][1]),
        "entries_per_cpu_second": trained / (marks[-1][2] - marks[0][2]),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "held_out": completer.state_["best"]["error"],
        "error": float(error),
    }


def run(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process."""
    torch.set_num_threads(options.threads)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if way == "memory":
        given: list[Any] = [np.concatenate(arrays) for arrays in zip(*pieces(options.entries))]
        size = sum(array.nbytes for array in given)
    else:
        start = time.perf_counter()
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            child = [sys.executable, "-m", "bench.completion", "--write", way, "--into", str(folder), "--entries", str(options.entries)]
            given = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
            size = sum(Path(path).stat().st_size for path in given)
            print(f"{way}: written in {time.perf_counter() - start:.0f} s", file=sys.stderr)
            return {"way": way, "entries": options.entries, "mb": size / 1e6, "idle_mib": idle, **fit(given, options)}
        finally:
            shutil.rmtree(folder)
    return {"way": way, "entries": options.entries, "mb": size / 1e6, "idle_mib": idle, **fit(given, options)}


def main() -> None:
    """Runs the ways one after the other, and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=lambda text: int(float(text)), default=4_000_000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--batch", type=int, default=2**17)
    parser.add_argument("--steps", type=int, help="by default as many as there are in one pass")
    parser.add_argument("--ranks", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", help="where files are written; needs 12 bytes an entry")
    parser.add_argument("--write", choices=WAYS[1:], help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        print(json.dumps([str(path) for path in write(options.write, options.into, options.entries)]))
    elif len(options.ways) == 1:
        print(json.dumps({**run(options.ways[0], options), "batch": options.batch, "ranks": options.ranks}), flush=True)
    else:
        print(json.dumps(describe(torch.device(options.device))))
        for way in options.ways:
            subprocess.run([sys.executable, "-m", "bench.completion", *sys.argv[1:], "--ways", way], check=True)


if __name__ == "__main__":
    main()
