"""Parsing of command-line arguments: errors in one line with the nearest valid name, trees, sizes and amounts of memory."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from tensornet.checks import meant
from tensornet.tree import ModeTree

INTERRUPTED = 130  # exit code after Ctrl-C, as of shells
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class Parser(argparse.ArgumentParser):
    """A parser that reports an error as one line, and names the option or command that may have been meant.

    Example:
        >>> parser = Parser(prog="tool")
        >>> option = parser.add_argument("--fraction", type=float)
        >>> parser.parse_args(["--fraction", "0.5"]).fraction
        0.5
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **settings})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """The parsed arguments.

        Raises:
            SystemExit: An argument is wrong, with code 2.

        Example:
            >>> Parser(prog="tool").parse_args([])
            Namespace()
        """
        chosen, unknown = self.parse_known_args(args, namespace)
        if unknown:
            given = unknown[0].partition("=")[0]
            others = [name for name in self._all_options() if name != given]  # another command may have it
            self.error(f"unknown argument {unknown[0]}{meant(given, others)}")
        return chosen

    def error(self, message: str) -> NoReturn:
        """Prints the message as one line and exits with code 2.

        Raises:
            SystemExit: Always.

        Example:
            >>> Parser(prog="tool").error("no such file")
            Traceback (most recent call last):
                ...
            SystemExit: 2
        """
        choice = re.match(r"argument (\S+): invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            name, given, valid = choice.groups()
            names = re.findall(r"[\w-]+", valid)
            what = "command" if name == "COMMAND" else f"value of {name}:"
            message = f"unknown {what} {given}{meant(given, names)}; choose from {', '.join(names)}"
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")

    def _all_options(self) -> list[str]:
        found = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    found += parser._all_options()
        return found


def examples(*lines: str) -> str:
    """The end of a help text.

    Example:
        >>> print(examples("tool --help"))
        examples:
          tool --help
    """
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def tree(text: str) -> ModeTree:
    """A mode tree, of nested parentheses such as ``((0,1),(2,3))``.

    Raises:
        argparse.ArgumentTypeError: The text is no tree.

    Example:
        >>> tree("((0, 2), 1)").interior
        ((0, 2), (0, 1, 2))
    """
    try:
        return ModeTree.from_text(text)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def sizes(text: str) -> int | tuple[int, ...]:
    """One positive integer, or several with commas between.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> sizes("8"), sizes("8,6,4")
        (8, (8, 6, 4))
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"an integer is needed, or several with commas between; got {text!r}") from None
    return found[0] if len(found) == 1 else found


def share(text: str) -> float:
    """A number above 0 and below 1.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> share("0.3")
        0.3
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < 1:
        raise argparse.ArgumentTypeError(f"a share above 0 and below 1 is needed; got {text!r}")
    return found


def positive(text: str) -> int:
    """A positive integer.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> positive("12")
        12
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a positive integer is needed; got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """An integer from 0 to below ``2**32``.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> seed("0")
        0
    """
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"an integer from 0 to below 2**32 is needed; got {text!r}")
    return int(text)


def memory(text: str) -> int:
    """A number of bytes, with or without a unit: ``2GB``, ``512MiB``.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> memory("2GB"), memory("1.5 KiB"), memory("100")
        (2000000000, 1536, 100)
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([KMGT]I?|)B?", text.strip().upper())
    if not found:
        raise argparse.ArgumentTypeError(f"an amount of memory such as 2GB or 512MiB is needed; got {text!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def device(text: str) -> torch.device:
    """A device that is there.

    Raises:
        argparse.ArgumentTypeError: There is no such device.

    Example:
        >>> device("cpu")
        device(type='cpu')
    """
    try:
        found = torch.device(text)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else "no such device"
        raise argparse.ArgumentTypeError(f"the device {text!r} cannot be used ({reason})") from None
    return found


def assignment(text: str) -> tuple[str, str]:
    """A field and its value.

    Raises:
        argparse.ArgumentTypeError: The text is something else.

    Example:
        >>> assignment("ranks=128")
        ('ranks', '128')
    """
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise argparse.ArgumentTypeError(f"a field is set as KEY=VALUE, such as ranks=128; got {text!r}")
    return key.strip(), value.strip()
