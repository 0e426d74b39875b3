"""The table of allowed imports: which module may know which others, and which third-party packages. Data flows down the table."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


class Row(NamedTuple):
    """What one module may import; words separated by blanks. The standard library is free to all."""

    own: str = ""  # modules of this project
    packages: str = ""  # third-party packages at the module's top
    lazy: str = ""  # third-party packages inside functions alone: slow to import, or not always installed


# A module may import only what stands above it.
TABLE = {
    # arguments
    "tensornet.checks": Row(),
    "tensornet.arrays": Row("checks", "numpy torch"),
    # trees and sizes
    "tensornet.drawing": Row(lazy="matplotlib"),
    "tensornet.tree": Row("checks drawing"),
    "tensornet.shape": Row("checks tree"),
    # shape -> plan -> execution
    "tensornet.network": Row("shape tree"),
    "tensornet.paths": Row("network tree"),
    "tensornet.lowering": Row("network paths shape tree"),
    "tensornet.costs": Row("network paths"),
    "tensornet.plan": Row("costs lowering network paths shape tree", "opt_einsum"),
    "tensornet.adjoint": Row("lowering"),
    "tensornet.kernels": Row("lowering", "torch"),
    "tensornet.programs": Row("adjoint kernels lowering plan", "torch"),
    "tensornet.execute": Row("costs network plan programs shape", "psutil torch"),
    # evaluation without the end tensor: shares nothing with what is above
    "tensornet.folding": Row("shape", "numpy torch"),
    "tensornet.observed": Row("arrays checks folding shape", "numpy torch"),
    "tensornet.sweep": Row("folding", "torch"),
    "tensornet.reverse": Row("folding sweep", "torch"),
    "tensornet.circuit": Row("arrays folding observed reverse shape sweep", "torch"),
    # the factorization and what is read off it
    "tensornet.components": Row("checks shape tree", "torch"),
    "tensornet.graphs": Row(packages="torch"),
    "tensornet.htf": Row("arrays checks circuit components costs execute graphs network plan shape tree", "torch"),
    "tensornet.ranks": Row("arrays checks tree", "numpy torch", lazy="tensorly"),
    "tensornet.features": Row("arrays checks", "torch"),
    "tensornet.layers": Row("arrays checks circuit features htf shape tree", "torch"),
    # learning, and files
    "tensornet.optim": Row(packages="torch"),
    "tensornet.storage": Row("checks circuit htf tree", "safetensors torch"),
    "tensornet.runs": Row("storage"),
    "tensornet.pictures": Row(packages="numpy", lazy="PIL sklearn"),
    "tensornet.tables": Row(packages="numpy", lazy="pyarrow"),
    "tensornet.files": Row("pictures storage tables", "numpy"),
    "tensornet.smoothing": Row(packages="torch"),
    "tensornet.fitting": Row("circuit htf observed optim shape smoothing", "torch"),
    "tensornet.completion": Row("fitting htf shape smoothing tree", "numpy torch"),
    # other formats
    "tensornet.formats": Row(),
    "tensornet.formats.ht": Row("arrays checks tree", "torch"),
    "tensornet.formats.hsvd": Row("arrays formats.ht tree", "torch"),
    "tensornet.formats.convert": Row("formats.ht htf", "torch"),
    # the paper's dynamics
    "tensornet.dynamics": Row(),
    "tensornet.dynamics.flow": Row("checks", "numpy torch", lazy="scipy"),
    "tensornet.dynamics.theory": Row(),
    "tensornet.dynamics.theory.records": Row(packages="numpy torch"),
    "tensornet.dynamics.theory.cases": Row("execute shape tree", "numpy torch"),
    "tensornet.dynamics.theory.motion": Row("components dynamics.flow dynamics.theory.cases tree", "torch"),
    "tensornet.dynamics.theory.ranks": Row("components dynamics.theory.cases dynamics.theory.records execute ranks shape tree", "torch"),
    "tensornet.dynamics.theory.network": Row(
        "circuit dynamics.theory.cases dynamics.theory.ranks dynamics.theory.records ranks", "numpy torch"
    ),
    "tensornet.dynamics.theory.minimal_ranks": Row(
        "dynamics.theory.cases dynamics.theory.ranks dynamics.theory.records ranks tree", "torch"
    ),
    "tensornet.dynamics.theory.evolution": Row(
        "components dynamics.theory.cases dynamics.theory.motion dynamics.theory.records", "numpy torch"
    ),
    "tensornet.dynamics.theory.statements": Row(
        "checks dynamics.theory.cases dynamics.theory.evolution dynamics.theory.minimal_ranks dynamics.theory.network "
        "dynamics.theory.ranks dynamics.theory.records"
    ),
    "tensornet": Row("completion features graphs htf layers network observed optim plan ranks shape storage tree"),
    # the commands
    "tensornet.cli.arguments": Row("tree", "torch"),
    "tensornet.cli.plan": Row("cli.arguments costs network plan shape", "rich"),
    "tensornet.cli.peers": Row("htf tree", "numpy torch", lazy="opt_einsum tensorly"),
    "tensornet.cli.demo": Row("cli.arguments cli.peers htf observed optim storage tree", "rich torch", lazy="matplotlib"),
    "tensornet.cli.complete": Row(
        "cli.arguments cli.peers completion execute files fitting pictures runs storage tables tree", "numpy rich torch", lazy="matplotlib"
    ),
    "tensornet.cli.verify": Row("cli.arguments dynamics.theory.records dynamics.theory.statements", "rich"),
    "tensornet.cli": Row("tensornet cli.arguments cli.complete cli.demo cli.plan cli.verify", "rich"),
    "tensornet.__main__": Row("cli"),
    "cnn_reg": Row(),
    "cnn_reg.cli": Row("tensornet cli.arguments"),
    "cnn_reg.__main__": Row("cnn_reg.cli"),
}
SLOW = ("matplotlib", "tensorly", "sklearn", "PIL", "pyarrow", "rich", "pandas", "torchvision")  # never loaded by `import tensornet`


class Import(NamedTuple):
    """One import of a module."""

    line: int
    target: str  # dotted name of a module of this project, or a third-party package
    own: bool
    lazy: bool
    types_only: bool


def modules() -> dict[str, Path]:
    """Every module of both packages, by its dotted name."""
    found = {}
    for package in ("tensornet", "cnn_reg"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(tree: ast.AST, lazy: bool = False, types_only: bool = False) -> Iterator[Import]:
    """All imports below a syntax tree, those inside functions and under TYPE_CHECKING included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for inner in node.body:
                yield from imports(ast.Module([inner], []), lazy, True)
            yield from imports(ast.Module(node.orelse, []), lazy, types_only)
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            base = node.module or ""
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
        for name in dict.fromkeys(names):
            top = name.partition(".")[0]
            if top in ("tensornet", "cnn_reg"):
                yield Import(node.lineno, name, True, lazy, types_only)
            elif top not in sys.stdlib_module_names:
                yield Import(node.lineno, top, False, lazy, types_only)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, inside, types_only)


def own_names(words: str) -> set[str]:
    """Full names of the modules in a row: those of tensornet are written without its name."""
    return {word if word.partition(".")[0] in ("tensornet", "cnn_reg") else f"tensornet.{word}" for word in words.split()}


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"), str(MODULES[name]))


def test_every_module_has_a_row_and_every_row_a_module():
    assert set(TABLE) == set(MODULES), "the table of allowed imports must list the modules there are"


def test_the_document_lists_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([\w/]+\.py)`", text.partition("## The rest")[0]))
    there = {path.relative_to(ROOT).as_posix().partition("/")[2] for path in MODULES.values()}
    assert listed - {"tests/test_architecture.py"} == there


def test_the_table_has_no_cycles():
    above: set[str] = set()
    for name, row in TABLE.items():
        assert own_names(row.own) <= above, f"{name} may import only what stands above it in the table"
        above.add(name)


def test_the_circuit_shares_no_code_with_the_contraction():
    def known(name: str) -> set[str]:
        return {name}.union(*(known(below) for below in own_names(TABLE[name].own)))

    contraction = known("tensornet.execute") - known("tensornet.shape")
    assert "tensornet.plan" in contraction
    assert not known("tensornet.circuit") & contraction


def test_the_engine_never_imports_the_regularizer():
    assert not [name for name, row in TABLE.items() if name.startswith("tensornet") and "cnn_reg" in row.own]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_are_allowed(name):
    row = TABLE[name]
    own, packages, lazy = own_names(row.own), set(row.packages.split()), set(row.lazy.split())
    for found in imports(parse(name)):
        if found.types_only:
            continue  # types are checked, not run: they make no cycle and load nothing
        allowed = own if found.own else packages | lazy if found.lazy else packages
        where = "inside a function" if found.lazy else "at its top"
        assert found.target in allowed, f"{name}, line {found.line}: imports {found.target} {where}; allowed are {sorted(allowed)}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_print_and_no_blanket_except(name):
    command = "cli" in name.split(".")
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not command:
            assert node.func.id != "print", f"{name}, line {node.lineno}: only the commands print"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught not in ("everything", "Exception", "BaseException"), f"{name}, line {node.lineno}: catches {caught}"


@pytest.mark.parametrize("package", ["tensornet", "cnn_reg"])
def test_the_front_page_of_a_package_only_re_exports(package):
    for place, node in enumerate(parse(package).body):
        docstring = place == 0 and isinstance(node, ast.Expr)
        names = [target.id for target in node.targets if isinstance(target, ast.Name)] if isinstance(node, ast.Assign) else []
        assert docstring or isinstance(node, ast.ImportFrom) or names in (["__all__"], ["__version__"]), f"line {node.lineno}: logic"


_PROBE = """
import json, random, sys, warnings
import numpy, torch
def state():
    return [
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.initial_seed(), torch.get_rng_state().tolist(),
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision(),
        torch.get_default_device(), torch.are_deterministic_algorithms_enabled(),
        numpy.random.get_state()[1].tolist(), random.getstate(), warnings.filters[:], sys.getrecursionlimit(),
    ]
before, loaded = state(), set(sys.modules)
import tensornet
changed = [str(now)[:200] for now, then in zip(state(), before) if now != then]
print(json.dumps([changed, sorted({name.partition(".")[0] for name in set(sys.modules) - loaded})]))
"""


def test_import_has_no_side_effects():
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    changed, loaded = json.loads(done.stdout)
    assert changed == [], "import tensornet changed settings of the process"
    assert "tensornet" in loaded
    assert not set(SLOW) & set(loaded), "import tensornet loads packages that only some functions need"
