"""Prints the commands of the study on a CPU, one a run: 3 seeds, path lengths 5 and 7, with and without the penalty."""

from __future__ import annotations

import argparse
import itertools
import shlex


def main() -> None:
    """Prints a command a line; each can be repeated until its run is complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/study", help="folder of the runs")
    folder = parser.parse_args().out
    for length, seed, coefficient in itertools.product((5, 7), range(3), (0, 3)):
        out = shlex.quote(f"{folder}/length-{length}-coefficient-{coefficient}-seed-{seed}")
        options = f"--preset study --path-length {length} --coefficient {coefficient} --seed {seed}"
        print(f"python -m cnn_reg train {options} --resume --out {out}")


if __name__ == "__main__":
    main()
