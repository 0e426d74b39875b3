"""A command made of subcommands, for both packages: runs the chosen one, and reports errors and warnings as one line each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from types import ModuleType

from rich.console import Console

from tensornet import __version__
from tensornet.cli.arguments import INTERRUPTED, Parser
from tensornet.distributed import OtherProcessError

EXTRAS = {"mlxtend": "cnn", "ray": "cluster", "optuna": "cluster", "tensorboard": "track", "wandb": "track"}  # of packages; others: data


def command(program: str, description: str, epilog: str, modules: Iterable[ModuleType]) -> Parser:
    """The parser of a command, with the subcommands that the modules' ``add_command`` add.

    Example:
        >>> command("tool", "A tool.", "", []).parse_args([]).run is None
        True
    """
    parser = Parser(prog=program, description=description, epilog=epilog)
    parser.add_argument("--version", action="version", version=f"tensornet-htf {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for module in modules:
        module.add_command(commands)
    return parser


def run(parser: Parser, arguments: Sequence[str] | None) -> int:
    """Runs the subcommand that the arguments choose, and returns the exit code.

    The code is 0 after success, 2 after an error, which is one line on the standard error stream, and 130 after Ctrl-C. Where a
    package is missing, the line names the project's extra that holds it.

    Raises:
        SystemExit: After ``--help`` and ``--version`` with code 0, and for arguments that the parser does not know with code 2.

    Example:
        >>> run(command("tool", "A tool.", "", []), [])  # doctest: +ELLIPSIS
        usage: tool [-h] [--version] COMMAND ...
        ...
        0
    """
    chosen = parser.parse_args(arguments)
    if chosen.run is None:
        parser.print_help()
        return 0

    def say(text: object) -> None:
        sys.stderr.write(f"{parser.prog}: {' '.join(str(text).split())}\n")

    def show_warning(message: Warning | str, *_: object) -> None:
        say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show_warning  # type: ignore[assignment]
        try:
            code: int = chosen.run(chosen, Console())
            return code
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        except ModuleNotFoundError as error:
            extra = EXTRAS.get(error.name or "", "data")
            say(f"error: the package {error.name} is needed for this; pip install '.[{extra}]' in the project's folder installs it")
        except OSError as error:
            say(f"error: {error.filename}: {error.strerror}" if error.filename and error.strerror else f"error: {error}")
        except OtherProcessError:  # that process says what is wrong
            return 2
        except (ValueError, TypeError, MemoryError, RuntimeError) as error:
            say(f"error: {error}")
    return 2
