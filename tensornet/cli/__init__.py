"""The ``tensornet`` command: arguments -> calls -> printed tables and files. No mathematics."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from rich.console import Console

from tensornet import __version__
from tensornet.cli import complete, demo, dynamics, figure, plan, verify
from tensornet.cli.arguments import INTERRUPTED, Parser, examples

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
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.run is None:
        parser.print_help()
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            code: int = chosen.run(chosen, Console())
            return code
        except KeyboardInterrupt:
            _say("interrupted")
            return INTERRUPTED
        except ModuleNotFoundError as error:
            _say(f"error: the package {error.name} is needed for this; install it with pip install 'tensornet-htf[data]'")
        except OSError as error:
            _say(f"error: {error.filename}: {error.strerror}" if error.filename and error.strerror else f"error: {error}")
        except (ValueError, TypeError, MemoryError, RuntimeError) as error:
            _say(f"error: {error}")
    return 2


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Hierarchical tensor factorizations of any mode tree.",
        epilog=examples(
            f"{PROGRAM} demo",
            f"{PROGRAM} complete --out photograph.png",
            f"{PROGRAM} plan --tree '((0,1),(2,3))' --mode-sizes 8 --ranks 64",
            f"{PROGRAM} dynamics quick-hierarchical --out run",
            f"{PROGRAM} verify",
            f"{PROGRAM} complete --help",
        ),
    )
    parser.add_argument("--version", action="version", version=f"tensornet-htf {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for module in (demo, complete, plan, dynamics, figure, verify):
        module.add_command(commands)
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"{PROGRAM}: {' '.join(text.split())}\n")


def _show_warning(message: Warning | str, *_: object) -> None:
    _say(f"warning: {message}")
