"""``python -m bench``: times tensornet beside its peers, prints the table and keeps the rows."""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from bench.contestants import Absent, Contestant, prepare_all
from bench.floor import make_floor
from bench.hardware import Limits, describe
from bench.ours import OURS
from bench.peers import PEERS
from bench.report import Outcome, absences, append_rows, markdown, means, tables
from bench.timing import race
from bench.workloads import Workload, make_case, workloads

RESULTS = Path(__file__).parent / "results"
QUICK = 5  # rounds of --quick
ROUNDS = 15
WIDTH = 200  # of the printed table, which also goes into files


@dataclass(frozen=True)
class Run:
    """How a run times."""

    device: torch.device
    dtype: torch.dtype
    rounds: int
    limits: Limits


def measure(workload: Workload, run: Run, progress: Progress) -> Outcome:
    """Prepares, compares and times one workload."""
    task = progress.add_task(f"{workload.name}: preparing", total=run.rounds)
    case = make_case(workload, run.device, run.dtype)
    made = prepare_all(OURS[workload.task], case, run.limits)
    wanted = next(one for one in made if isinstance(one, Contestant)).results()
    for name, maker in PEERS[workload.task].items():
        progress.update(task, description=f"{workload.name}: preparing {name}")
        made += prepare_all({name: maker}, case, run.limits, wanted)
    contestants = [one for one in made if isinstance(one, Contestant)]
    floor = make_floor(case, [contestant.flops for contestant in contestants if contestant.flops is not None])
    progress.update(task, description=workload.name)
    timings = race([*contestants, *floor.probes], run.rounds, run.device, report=lambda: progress.advance(task))
    progress.remove_task(task)
    return Outcome(
        workload,
        tuple(OURS[workload.task]),
        {contestant.name: timing for contestant, timing in zip(contestants, timings)},
        {contestant.name: contestant.note for contestant in contestants},
        {one.name: one.reason for one in made if isinstance(one, Absent)},
        floor,
        tuple(timings[len(contestants) :]),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    chosen = [workload for workload in workloads() if fnmatch(workload.name, options.only)]
    if not chosen:
        return _complain(f"no workload matches {options.only!r}; the names are: {', '.join(workload.name for workload in workloads())}")
    if options.device == "cuda" and not torch.cuda.is_available():
        return _complain("there is no CUDA device")
    if any(number is not None and number < 1 for number in (options.rounds, options.threads)):
        return _complain("--rounds and --threads must be at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    run = Run(device, getattr(torch, options.dtype), options.rounds or (QUICK if options.quick else ROUNDS), Limits.of(device))
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    common = {"date": date, "device": device.type, "dtype": options.dtype, **describe(device)}
    out = options.out or RESULTS / f"{date}-{device.type}.jsonl"
    for path in (out, options.markdown):
        if path and path.is_dir():
            return _complain(f"{path} is a folder; give the name of a file")
    outcomes = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        everything = progress.add_task("all workloads", total=len(chosen))
        for workload in chosen:
            outcomes.append(measure(workload, run, progress))
            append_rows(out, outcomes[-1], common)
            progress.advance(everything)
    _show(outcomes)
    if options.markdown:
        command = shlex.join(["python", "-m", "bench", *(sys.argv[1:] if arguments is None else arguments)])
        options.markdown.write_text(markdown(outcomes, common, command), encoding="utf-8")
    return 0


def _show(outcomes: Sequence[Outcome]) -> None:
    wide = Console(width=WIDTH)
    for table in tables(outcomes):
        wide.print(table, crop=False, no_wrap=True)
    print("* the fastest peer; - not timed, see below; ratios are medians over the rounds")
    for line in (*means(outcomes), *absences(outcomes)):
        print(line)


def _complain(message: str) -> int:
    print(f"bench: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Times tensornet beside its peers and the machine's floor.")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="workloads whose names match, such as 'end/*' or '*+grad'")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rounds instead of {ROUNDS}")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of timing")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: CUDA where there is one")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch on the CPU")
    parser.add_argument("--out", type=Path, metavar="FILE", help="rows are appended here; default: bench/results/DATE-DEVICE.jsonl")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as a page of the documentation")
    return parser


if __name__ == "__main__":
    sys.exit(main())
