"""``tensornet verify``: the paper's lemmas, theorems and propositions, checked numerically, a line for each claim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from tensornet.cli.arguments import examples, positive, seed
from tensornet.dynamics.theory.records import Check, tightest
from tensornet.dynamics.theory.statements import STATEMENTS, verify

FAILED = 1  # exit code when a statement does not hold


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["verify", "--only", "lemma-1"]).only
        'lemma-1'
    """
    parser = commands.add_parser(
        "verify",
        help="check the paper's lemmas, theorems and propositions numerically",
        description=(
            "Checks the paper's statements on random trees and weights, and prints for every claim the measured number against its "
            "bound, of the case that comes closest to the bound. The exit code is 1 when a claim fails."
        ),
        epilog=examples("tensornet verify", "tensornet verify --only theorem-2 --cases 20 --seed 1"),
    )
    parser.add_argument("--only", choices=STATEMENTS, metavar="NAME", help=f"one statement: {', '.join(STATEMENTS)}")
    parser.add_argument("--cases", type=positive, default=5, metavar="N", help="random cases for each (default 5)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of their draw (default 0)")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``tensornet verify --help``. Returns 1 when a claim fails.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> run(parser.parse_args(["verify", "--only", "proposition-3", "--cases", "1"]), Console(quiet=True))
        0
    """
    names = [arguments.only] if arguments.only else tuple(STATEMENTS)
    failed = False
    _say(console, f"{'':6} {'statement':14} {'claim':58} {'cases':>5} {'measured':>11}    {'bound':<9}")
    for checks in verify(names, cases=arguments.cases, seed=arguments.seed):
        for line in _lines(checks):
            _say(console, line)
        failed = failed or not checks or not all(check.holds for check in checks)
    return FAILED if failed else 0


def _lines(checks: list[Check]) -> Iterator[str]:
    """One line a claim, of its tightest case; one more for the case where it fails."""
    if not checks:
        yield "FAILED nothing was checked: no case meets the statement's assumptions; give more --cases, or another --seed"
    claims: dict[str, list[Check]] = {}
    for check in checks:
        claims.setdefault(check.claim, []).append(check)
    for claim, found in claims.items():
        shown = tightest(found)
        verdict = "ok" if shown.holds else "FAILED"
        measured = f"{shown.measured:.4g}"
        yield f"{verdict:6} {shown.statement:14} {claim:58} {len(found):5} {measured:>11} {shown.relation} {shown.bound:<9.4g}"
        if not shown.holds:
            failures = sum(not check.holds for check in found)
            yield f"{'':6} {failures} of {len(found)} fail, the worst in {shown.case}"


def _say(console: Console, text: str) -> None:
    console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)
