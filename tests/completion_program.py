"""What several processes run in a test: a completion, whose result every process writes."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tensornet import ModeTree, TensorCompleter
from tensornet.completion.fitting import Progress
from tensornet.distributed import Processes, processes
from tensornet.files import entries
from tensornet.files.storage import read_nested, write_nested


def main(folder: Path, options: dict[str, Any]) -> None:
    """Fits to the entries in a folder, as the options say."""
    torch.set_num_threads(1)
    entries.BLOCK = 32  # so that every process has several
    names = [str(folder / "indices.npy"), str(folder / "values.npy")]
    given = names if options["streamed"] else [np.load(name) for name in names]
    if options.get("table"):
        given = [entries.open_entries(folder / "entries.parquet")]
    if options.get("phase"):
        given[1] = given[1] * np.exp(1j * given[0][:, 0])
    dtype = torch.complex128 if options.get("phase") else torch.float64
    completer = TensorCompleter(ModeTree.balanced(3), ranks=4, smooth=2.0, validation=0.1, dtype=dtype, **options["parameters"])
    with processes("cpu") as (joined, _):
        state = read_nested(folder / "state", kind="state") if options.get("resume") else None
        completer.fit(*given, processes=joined, state=state, callback=lambda progress: stop(progress, joined, options))
        result = {
            "weights": completer.htf_.weight_list(),
            "offset": [completer.offset_.real, completer.offset_.imag],
            "scale": completer.scale_,
            "history": completer.history_,
            "interrupted": completer.interrupted_,
        }
        write_nested(folder / f"result-{joined.rank}", result, kind="result")
        if joined.rank == 0:
            write_nested(folder / "state", completer.state_, kind="state")


def stop(progress: Progress, joined: Processes, options: dict[str, Any]) -> None:
    """Lets the last process be interrupted, or end, at a step."""
    if joined.rank == joined.size - 1 and progress.step == options.get("step"):
        if options["how"] == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        elif options["how"] == "callback":
            raise KeyboardInterrupt
        else:
            os._exit(7)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
