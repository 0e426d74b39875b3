"""The documents tell the truth: their examples run, their links lead somewhere, and the README's two lines are what they must be."""

from __future__ import annotations

import doctest
import operator
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch

import cnn_reg
import tensornet

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of the fenced blocks of one language."""
    text = path.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(2)), found[2]) for found in FENCE.finditer(text) if found[1] == language]


def lines(path: Path, start: str) -> list[str]:
    """Lines of the shell blocks that start with the given words."""
    return [line for _, text in blocks(path, "sh") for line in text.splitlines() if line.startswith(start)]


def document(path: Path) -> pytest.param:
    return pytest.param(path, id=str(path.relative_to(ROOT)))


def test_the_documents_are_found():
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/math.md", "docs/architecture.md"} <= names


@pytest.mark.parametrize("path", [document(path) for path in DOCUMENTS if blocks(path, "python")])
def test_examples_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    torch.manual_seed(0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    parser = doctest.DocTestParser()
    names: dict[str, object] = {}
    report: list[str] = []
    for line, text in blocks(path, "python"):
        assert ">>> " in text, f"{path.name}, line {line}: an example that nothing runs"
        example = parser.get_doctest(text, names, path.name, str(path), line)
        runner.run(example, out=report.append, clear_globs=False)
        names.update(example.globs)
    assert runner.failures == 0, "".join(report)
    assert runner.tries > 0


@pytest.mark.parametrize("path", [document(path) for path in DOCUMENTS])
def test_links_lead_somewhere(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:|#", target):
            assert (path.parent / target.partition("#")[0]).exists(), f"{path.name}: {target} does not exist"


def test_the_dictionary_names_what_exists():
    rows = re.findall(r"^\|.*?\| `([\w.]+)` \|[^|]*\|$", (ROOT / "docs" / "math.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 20
    for name in rows:
        package = cnn_reg if name.startswith("cnn_reg.") else tensornet
        operator.attrgetter(name.removeprefix("cnn_reg."))(package)  # an AttributeError names what is missing


def test_every_document_is_reached_from_the_index():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "index.md" and f"]({path.name})" not in text]
    assert not missing


def test_the_two_lines_that_set_everything_up():
    main, tests = lines(ROOT / "README.md", "python3 -m venv")
    assert main.endswith("tensornet demo")
    assert shlex.split(tests.rpartition("&&")[2])[0] == ".venv/bin/pytest"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for line in (main, tests):
        for extra in re.findall(r"\.\[(.*?)\]", line):
            assert set(extra.split(",")) <= set(extras)


def test_the_changelog_tells_of_this_version():
    assert f"## {tensornet.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
