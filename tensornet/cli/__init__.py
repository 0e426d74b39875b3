"""The ``tensornet`` command: arguments -> calls -> printed tables and files. No mathematics."""

from __future__ import annotations

from collections.abc import Sequence

from tensornet.cli import commands, complete, demo, dynamics, figure, plan, verify
from tensornet.cli.arguments import examples

PROGRAM = "tensornet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with the given arguments (those of the process by default) and returns its exit code.

    The code is 0 after success, 2 after an error, which is one line on the standard error stream, and 130 after Ctrl-C.

    Raises:
        SystemExit: After ``--help`` and ``--version`` with code 0, and for arguments that it does not know with code 2.

    Example:
        >>> main(["plan", "--tree", "(0, 1)", "--mode-sizes", "4", "--ranks", "3"])  # doctest: +ELLIPSIS
        (0, 1)
        ...
        0
    """
    epilog = examples(
        f"{PROGRAM} demo",
        f"{PROGRAM} complete --out photograph.png",
        f"{PROGRAM} plan --tree '((0,1),(2,3))' --mode-sizes 8 --ranks 64",
        f"{PROGRAM} dynamics quick-hierarchical --out run",
        f"{PROGRAM} verify",
        f"{PROGRAM} complete --help",
    )
    modules = (demo, complete, plan, dynamics, figure, verify)
    parser = commands.command(PROGRAM, "Hierarchical tensor factorizations of any mode tree.", epilog, modules)
    return commands.run(parser, arguments)
