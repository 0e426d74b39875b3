"""``cnn-reg data``: makes the files of the data sets."""

from __future__ import annotations

from typing import Any


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["data"])
        Namespace()
    """
    commands.add_parser("data", help="make the files of the data sets")
