"""Results: rows for the record, a table for reading, and geometric means."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.floor import Floor
from bench.peers import RIVALS
from bench.timing import Timing
from bench.workloads import TASKS, Task, Workload

AIMS: dict[Task, str] = {  # of the project, for these means
    "end": "0.77 of the fastest of these four, none above 1, and 1.25 of the floor",
    "entries": "0.50 of the faster of these two",
    "step": "0.70 of the faster of these two for figure1-right",
}


@dataclass(frozen=True)
class Outcome:
    """All timings of one workload.

    Attributes:
        ours: Names of tensornet's contestants, the main one, which is always timed, first.
        timings: Timings of all contestants by name.
        notes: What contestants chose, by name.
        absent: Contestants that were not timed, and why.
        probed: Timings of the floor's probes.
    """

    workload: Workload
    ours: tuple[str, ...]
    timings: dict[str, Timing]
    notes: dict[str, str]
    absent: dict[str, str]
    floor: Floor
    probed: tuple[Timing, ...]

    @property
    def main(self) -> Timing:
        """tensornet's main contestant."""
        return self.timings[self.ours[0]]

    def fastest_peer(self, among: Sequence[str] | None = None) -> str | None:
        """The peer with the smallest median; ``None`` where none was timed."""
        peers = [name for name in self.timings if name not in self.ours and (among is None or name in among)]
        return min(peers, key=lambda name: self.timings[name].median, default=None)

    def ratio(self, among: Sequence[str] | None = None) -> float | None:
        """Our time divided by that of the fastest peer."""
        peer = self.fastest_peer(among)
        return None if peer is None else self.main.ratio(self.timings[peer])

    @property
    def floor_ratio(self) -> float:
        """Our time divided by the floor."""
        return self.main.ratio(self.floor.timing(self.probed))

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row a contestant, one for each that was not timed, and one for the floor; seconds."""
        fixed = {"workload": self.workload.name, "task": self.workload.task, "backward": self.workload.backward}
        for name, timing in self.timings.items():
            role = "tensornet" if name in self.ours else "peer"
            yield {
                **fixed,
                "contestant": name,
                "role": role,
                **_numbers(timing),
                "tensornet_ratio": self.main.ratio(timing),
                "note": self.notes[name],
            }
        for name, reason in self.absent.items():
            yield {**fixed, "contestant": name, "absent": reason}
        floor = self.floor
        rates = {"flops": floor.flops, "moved": floor.moved, "fresh": floor.fresh(self.probed), **floor.rates(self.probed)}
        yield {
            **fixed,
            "contestant": "floor",
            "role": "floor",
            **_numbers(floor.timing(self.probed)),
            "tensornet_ratio": self.floor_ratio,
            **rates,
        }


def append_rows(path: Path, outcome: Outcome, common: dict[str, Any]) -> None:
    """Appends a workload's rows to a JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({**row, **common}) + "\n" for row in outcome.rows())


def sections(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """For every task its title, the table's head and its lines; milliseconds."""
    for task, title in TASKS.items():
        chosen = [outcome for outcome in outcomes if outcome.workload.task == task]
        if not chosen:
            continue
        ours = _names(chosen, lambda outcome: [name for name in outcome.ours if name in outcome.timings])
        peers = _names(chosen, lambda outcome: [name for name in (*outcome.timings, *outcome.absent) if name not in outcome.ours])
        head = ["workload", *ours, *peers, "floor", "+ fresh", "tensornet / fastest peer", "tensornet / floor"]
        lines = [[_cell(outcome, column) for column in head] for outcome in chosen]
        yield f"{title}, milliseconds", head, lines


def means(outcomes: Sequence[Outcome]) -> list[str]:
    """Geometric means of the ratios, for every task and direction."""
    lines = []
    for task in TASKS:
        for backward in (False, True):
            chosen = [outcome for outcome in outcomes if outcome.workload.task == task and outcome.workload.backward == backward]
            if chosen:
                aim = f"; aimed at: {AIMS[task]}" if task in AIMS else ""
                lines.append(f"{TASKS[task]}{', with gradient' if backward else ''}: {_means(task, chosen)}{aim}")
    return lines


def absences(outcomes: Sequence[Outcome]) -> list[str]:
    """Which peers were not timed, and why, with the workloads gathered."""
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        for name, reason in outcome.absent.items():
            found.setdefault((name, reason), []).append(outcome.workload.name)
    return [f"{name}: {reason} ({', '.join(names)})" for (name, reason), names in found.items()]


def tables(outcomes: Sequence[Outcome]) -> Iterator[Table]:
    """The tables for the terminal."""
    for title, head, lines in sections(outcomes):
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in head:
            words = column.replace("(", " (").replace(" / ", "/ ").split(" ")
            table.add_column("\n".join(words), justify="left" if column == "workload" else "right", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        yield table


def markdown(outcomes: Sequence[Outcome], common: dict[str, Any], command: str) -> str:
    """The page of the documentation."""
    versions = ", ".join(f"{name} {number}" for name, number in common["versions"].items() if number)
    machine = common["accelerator"] or f"{common['processor']}, {common['cores']} cores"
    parts = [
        "# Benchmarks",
        f"`{command}` on {common['date']}: {machine}, {common['threads']} threads, {common['dtype']}; {versions}.",
        "Medians of interleaved rounds. A sample is the mean over as many calls as fill 20 ms, so that caches are as warm as in a loop; "
        "peers that have several paths or executors are timed with the one that was fastest beforehand. Every result was first compared "
        "with tensornet's. Ratios are medians over the rounds of the two "
        "times in one round; below 1 tensornet is the faster. The gradient that is pulled back has the memory layout of each program's "
        "own result. The floor is max(flops of the best plan / measured rate of its matrix products into warm memory, bytes that must "
        "be moved / measured bandwidth of a warm copy); `+ fresh` is what writing the result costs more in memory that has just been "
        "allocated. A star marks the fastest peer; a dash stands for one that could not run, and the reasons are listed below. "
        "What the numbers hide, and how they were tuned, is in the [log](log.md).",
    ]
    for title, head, lines in sections(outcomes):
        rule = ["---", *["---:"] * (len(head) - 1)]
        parts += [f"## {title}", "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))]
    parts += ["## Geometric means", "\n".join(f"- {line}" for line in means(outcomes))]
    missing = absences(outcomes)
    if missing:
        parts += ["## Not timed", "\n".join(f"- {line}" for line in missing)]
    return "\n\n".join(parts) + "\n"


def _numbers(timing: Timing) -> dict[str, Any]:
    low, high = timing.quartiles
    numbers = {"median": timing.median, "first_quartile": low, "third_quartile": high, "iqr": high - low, "best": timing.best}
    return {name: float(f"{number:.4g}") for name, number in numbers.items()} | {"n": len(timing.samples), "calls": timing.calls}


def _names(outcomes: Sequence[Outcome], of: Callable[[Outcome], Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for outcome in outcomes for name in of(outcome)))


def _cell(outcome: Outcome, column: str) -> str:
    if column == "workload":
        return outcome.workload.name.split("/", 1)[1]
    if column == "floor":
        return _milliseconds(outcome.floor.timing(outcome.probed).median)
    if column == "+ fresh":
        return _milliseconds(outcome.floor.fresh(outcome.probed))
    if column == "tensornet / floor":
        return f"{outcome.floor_ratio:.2f}"
    if column == "tensornet / fastest peer":
        ratio = outcome.ratio()
        return "-" if ratio is None else f"{ratio:.2f}"
    if column not in outcome.timings:
        return "-"
    return _milliseconds(outcome.timings[column].median) + (" *" if column == outcome.fastest_peer() else "")


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "0"


def _means(task: Task, outcomes: Sequence[Outcome]) -> str:
    found: dict[str, list[float | None]] = {
        "fastest peer": [outcome.ratio() for outcome in outcomes],
        f"fastest of {', '.join(RIVALS[task])}": [outcome.ratio(RIVALS[task]) for outcome in outcomes],
        "floor": [*(outcome.floor_ratio for outcome in outcomes)],
    }
    known = {name: [ratio for ratio in ratios if ratio is not None] for name, ratios in found.items()}
    return "; ".join(
        f"tensornet / {name} {math.exp(math.fsum(map(math.log, ratios)) / len(ratios)):.2f} (largest {max(ratios):.2f})"
        for name, ratios in known.items()
        if ratios
    )
