"""The command `tensornet verify`: a line a claim, exit code 1 when one fails, and one-line errors."""

from __future__ import annotations

import pytest

from tensornet.cli import main
from tensornet.dynamics.theory import statements
from tensornet.dynamics.theory.records import Check


def call(*arguments):
    """The command's exit code."""
    try:
        return main(["verify", *arguments])
    except SystemExit as stop:
        return stop.code


def test_one_statement(capsys):
    assert call("--only", "proposition-2", "--cases", "2", "--seed", "7") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["statement", "claim", "cases", "measured", "bound"]
    assert len(lines) == 4
    assert all(line.startswith("ok     proposition-2") for line in lines)


def test_cases_and_seed_count(capsys):
    def shown(*arguments):
        assert call("--only", "proposition-1", *arguments) == 0
        return capsys.readouterr().out

    assert shown("--cases", "2") == shown("--cases", "2")
    assert shown("--cases", "2") != shown("--cases", "2", "--seed", "1")
    assert "    3 " in shown("--cases", "3")


def test_a_failure_is_named_with_its_case_and_code_1(capsys, monkeypatch):
    def wrong(case):
        return [Check("lemma-1", "rank", str(case), 2 + case.number, "<=", 2)]

    monkeypatch.setitem(statements.STATEMENTS, "lemma-1", wrong)
    assert call("--only", "lemma-1", "--cases", "3") == 1
    shown = capsys.readouterr().out
    assert "FAILED lemma-1" in shown
    assert "2 of 3 fail, the worst in seed 0, case 2: tree (" in shown


def test_a_later_statement_does_not_hide_a_failure(monkeypatch):
    monkeypatch.setattr(statements, "STATEMENTS", statements.STATEMENTS)
    for name in statements.STATEMENTS:
        measured = 3 if name == "lemma-1" else 1
        monkeypatch.setitem(
            statements.STATEMENTS, name, lambda case, name=name, measured=measured: [Check(name, "", "", measured, "<=", 2)]
        )
    assert call("--cases", "1") == 1
    monkeypatch.setitem(statements.STATEMENTS, "lemma-1", lambda case: [Check("lemma-1", "", "", 1, "<=", 2)])
    assert call("--cases", "1") == 0


def test_nothing_checked_is_a_failure(capsys, monkeypatch):
    monkeypatch.setitem(statements.STATEMENTS, "equation-7", lambda case: [])
    assert call("--only", "equation-7", "--cases", "1") == 1
    assert "FAILED nothing was checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "lema-1"), "unknown value of --only: lema-1 (did you mean lemma-1?)"),
        (("--cases", "0"), "a positive integer is needed; got '0'"),
        (("--seed", "x"), "an integer from 0 to below 2**32 is needed; got 'x'"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_whole_command(capsys):
    assert call("--cases", "1", "--seed", "2") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert {line.split()[1] for line in lines} == set(statements.STATEMENTS)
