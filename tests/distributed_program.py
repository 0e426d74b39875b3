"""What several processes run in a test: a training, whose weights and records the first writes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from training_cases import make_config, make_model, make_task

from cnn_reg.training.arithmetic import arithmetic
from cnn_reg.training.loop import InterruptedTrainingError, train
from cnn_reg.training.trainer import Trainer
from tensornet.distributed import processes
from tensornet.files.runs import Run


def main(folder: str, accumulate: int, dropout: float, stop: int) -> None:
    """Trains, and stops after a number of steps if that is positive."""
    torch.set_num_threads(1)
    config = make_config(accumulate=accumulate, train_images=23)
    with processes("cpu") as (joined, device), arithmetic(config, device, seed=0):
        trainer = Trainer(config, make_task(23, 15), make_model(dropout), device=device, processes=joined)
        torch.manual_seed(joined.rank)
        run = Run(Path(folder), {}, resume=True) if joined.rank == 0 else None
        state = joined.gather(run.restore() if run else None)[0]
        if state is not None:
            trainer.set(state)
        left = [stop]

        def stopping() -> bool:
            left[0] -= 1
            return left[0] == 0 and joined.rank == joined.size - 1  # one process alone is asked

        try:
            train(trainer, run, stopping=stopping)
        except InterruptedTrainingError:
            return
        if run:
            run.finish(done=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
