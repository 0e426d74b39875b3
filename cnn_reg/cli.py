"""The ``cnn-reg`` command: arguments -> printed text. No mathematics."""

from __future__ import annotations

from collections.abc import Sequence

from tensornet import __version__
from tensornet.cli.arguments import Parser

_ABOUT = """\
Regularization of convolutional networks against locality (Section 6 of Razin, Maman and Cohen 2022).

The commands that make the data sets, train the networks and draw the figures are not part of this version (%(version)s):
this command prints this text and its version, and nothing else. The engine's command is `tensornet`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with the given arguments (those of the process by default) and returns its exit code.

    Raises:
        SystemExit: After ``--help`` and ``--version`` with code 0, and for arguments that it does not know with code 2.

    Example:
        >>> main([])  # doctest: +ELLIPSIS
        usage: cnn-reg [-h] [--version]
        ...
        0
    """
    parser = Parser(prog="cnn-reg", description=_ABOUT % {"version": __version__})
    parser.add_argument("--version", action="version", version=f"tensornet-htf {__version__}")
    parser.parse_args(arguments)
    parser.print_help()
    return 0
