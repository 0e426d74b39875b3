from __future__ import annotations

import subprocess
import sys

import pytest

from cnn_reg.cli import main
from tensornet import __version__


def test_without_arguments_it_says_what_there_is(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: cnn-reg")
    assert "make the files of the data sets" in shown


def test_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"tensornet-htf {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dta"], "unknown command dta (did you mean data?); choose from train, "),
        (["--sed"], "unknown argument --sed"),
        (["--vers"], "unknown argument --vers (did you mean --version?)"),
    ],
)
def test_unknown_arguments_give_one_line_and_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"cnn-reg: error: {message}")
    assert shown.err.count("\n") == 1


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "cnn_reg", "dta"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cnn-reg: error: unknown command dta (did you mean data?)")
