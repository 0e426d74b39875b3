"""What several processes run in a test: sums, an error in one of them, the end of one of them."""

from __future__ import annotations

import os
import sys

import torch

from tensornet.distributed import OtherProcessError, ProcessEndedError, processes


def bad_part() -> None:
    """Fails."""
    raise ValueError("a bad part")


def main(what: str) -> None:
    """Prints what was found."""
    with processes("cpu") as (joined, _):
        if what == "sum":
            numbers, more = torch.tensor([0.5, 1.0]), torch.tensor(2 + joined.rank * 1j)
            joined.sum_together([numbers])
            joined.sum_together([more])
            third = torch.full((1000,), 1 / 3) * (joined.rank + 1)
            print(numbers.tolist(), more.item(), [joined.gather(joined.rank)], joined.sum(third).double().sum().item())
        elif what == "fail":
            try:
                joined.together(lambda: joined.together(bad_part if joined.rank else (lambda: None)))  # one within another
            except (ValueError, OtherProcessError) as error:
                print(type(error).__name__, error)
        else:
            if joined.rank == 1:
                os._exit(7)
            try:
                for _ in range(3):
                    joined.sum(torch.ones(1000))
            except ProcessEndedError as error:
                print(type(error).__name__, error)


if __name__ == "__main__":
    main(sys.argv[1])
