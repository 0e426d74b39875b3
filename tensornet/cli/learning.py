"""The training of a command: a progress bar, checkpoints in the folder of a run, and continuing from them; by one process or several."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from tensornet.completion.completer import TensorCompleter
from tensornet.completion.fitting import Progress as Seen
from tensornet.distributed import Processes
from tensornet.files.runs import Run

SECONDS = 2.0  # at least, between checkpoints
LINES = 20.0  # seconds between lines of progress where there is no terminal for a bar


def learn(
    completer: TensorCompleter,
    given: tuple[Any, ...],
    held_out: tuple[Any, Any] | None,
    digest: Callable[[], Any],
    folder: Path | None,
    joined: Processes,
    console: Console,
) -> None:
    """Fits a completer. The first process keeps the records and the checkpoints, of which all continue.

    Args:
        completer: Is fitted.
        given: Entries, as its ``fit`` takes them.
        held_out: Entries that choose the best state, if they are given.
        digest: Computes what identifies the entries.
        folder: Of the run, if it is to be kept.
        joined: Who takes part.
        console: Where progress is shown.

    Raises:
        ValueError: The folder holds another run, or something about the entries is wrong.

    Example:
        >>> completer, entries = TensorCompleter(steps=5), ([[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0])
        >>> learn(completer, entries, None, lambda: "digest", None, Processes(), Console(quiet=True))
        >>> completer.n_iter_
        5
    """
    first = folder is not None and joined.rank == 0
    store = joined.together(lambda: Run(str(folder), _configuration(completer, digest()), resume=True) if first else None)
    state = joined.gather(joined.together(lambda: store.restore() if store else None))[0]
    if state:
        console.print(f"Continuing at step {state['step']}.", highlight=False)
    columns = ("[progress.description]{task.description}", BarColumn(), "{task.completed}/{task.total}", "{task.fields[errors]}")
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("learning", total=completer.steps, errors="", completed=state["step"] if state else 0)
        saved = said = time.perf_counter()

        def show(seen: Seen) -> None:
            nonlocal saved, said
            held_out = "" if seen.held_out is None else f", held out {seen.held_out:.4f}"
            bar.update(task, completed=seen.step, errors=f"loss {seen.loss:.4f}{held_out}")
            if not console.is_terminal and time.perf_counter() - said > LINES:
                console.print(f"step {seen.step} of {seen.steps}: loss {seen.loss:.4f}{held_out}", highlight=False)
                said = time.perf_counter()
            if store:
                store.record(step=seen.step, loss=seen.loss, held_out=seen.held_out)
                if seen.step == seen.steps or time.perf_counter() - saved > SECONDS:
                    store.checkpoint(seen.state)
                    saved = time.perf_counter()

        completer.fit(*given, held_out=held_out, callback=show, state=state, processes=joined)
    if store:
        store.checkpoint(completer.state_)
        if not completer.interrupted_:
            store.finish(steps=completer.n_iter_, best=completer.state_["best"]["step"], error=completer.state_["best"]["error"])


def _configuration(completer: TensorCompleter, digest: Any) -> dict[str, Any]:
    """What determines a run: the parameters, and what identifies the entries."""
    parameters = {name: value for name, value in completer.get_params().items() if name not in ("device", "warm_start")}
    return {
        "entries": digest,
        **{name: value if isinstance(value, str | int | float | None) else str(value) for name, value in parameters.items()},
    }
