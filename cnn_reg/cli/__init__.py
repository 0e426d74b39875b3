"""The ``cnn-reg`` command: arguments -> calls -> printed tables and files. No mathematics."""

from __future__ import annotations

from collections.abc import Sequence

from cnn_reg.cli import data, figure, locality, report, runs, sweep, train
from tensornet.cli import commands
from tensornet.cli.arguments import examples

PROGRAM = "cnn-reg"
SUBCOMMANDS = (train, sweep, runs, figure, report, locality, data)  # one module each, with an add_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with the given arguments (those of the process by default) and returns its exit code.

    The code is 0 after success, 2 after an error, which is one line on the standard error stream, and 130 after Ctrl-C.

    Raises:
        SystemExit: After ``--help`` and ``--version`` with code 0, and for arguments that it does not know with code 2.

    Example:
        >>> main([])  # doctest: +ELLIPSIS
        usage: cnn-reg [-h] [--version] COMMAND ...
        ...
        0
    """
    parser = commands.command(
        PROGRAM,
        "Regularization of convolutional networks against locality (Section 6 of Razin, Maman and Cohen 2022).",
        examples(
            f"{PROGRAM} train", f"{PROGRAM} data pathfinder --path-length 7 --num-images 20000 --seed 0 --out pathfinder-7.safetensors"
        ),
        SUBCOMMANDS,
    )
    return commands.run(parser, arguments)
