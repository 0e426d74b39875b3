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
    returned: str = ""  # modules further down whose objects its methods return, imported inside these methods alone


# A module may import only what stands above it. Names are those within its subpackage, else within its package, else within tensornet.
TABLE = {
    # arguments
    "tensornet.checks": Row(),
    "tensornet.arrays": Row("checks", "numpy torch"),
    # machine code
    "tensornet.compiled": Row(packages="torch", lazy="numba"),
    # processes
    "tensornet.distributed": Row("checks", "torch"),
    "tensornet.interrupts": Row(),
    # trees and sizes
    "tensornet.drawing": Row(lazy="matplotlib"),
    "tensornet.tree": Row("checks drawing"),
    "tensornet.shape": Row("checks tree"),
    # shape -> plan -> execution
    "tensornet.contraction": Row(),
    "tensornet.contraction.network": Row("shape tree"),
    "tensornet.contraction.paths": Row("network tree"),
    "tensornet.contraction.lowering": Row("network paths shape tree"),
    "tensornet.contraction.costs": Row("network paths"),
    "tensornet.contraction.plan": Row("costs lowering network paths shape tree", "opt_einsum"),
    "tensornet.contraction.adjoint": Row("lowering"),
    "tensornet.contraction.kernels": Row("lowering", "torch"),
    "tensornet.contraction.programs": Row("adjoint kernels lowering plan", "torch"),
    "tensornet.contraction.batching": Row("lowering"),
    "tensornet.contraction.execute": Row("costs network plan programs shape", "psutil torch"),
    "tensornet.contraction.nests": Row("compiled lowering", "torch"),
    "tensornet.contraction.repeated": Row("adjoint batching checks execute kernels lowering nests network plan shape", "torch"),
    # evaluation without the end tensor: shares nothing with what is above
    "tensornet.evaluation": Row(),
    "tensornet.evaluation.folding": Row("shape", "numpy torch"),
    "tensornet.evaluation.observed": Row("arrays checks folding shape", "numpy torch"),
    "tensornet.evaluation.sweep": Row("folding", "torch"),
    "tensornet.evaluation.reverse": Row("folding sweep", "torch"),
    "tensornet.evaluation.circuit": Row("arrays folding observed reverse shape sweep", "torch"),
    # the factorization, what is read off it, and other formats
    "tensornet.formats": Row(),
    "tensornet.formats.ht": Row("arrays checks tree", "torch", returned="htf"),
    "tensornet.analysis": Row(),
    "tensornet.analysis.components": Row("checks shape tree", "torch"),
    "tensornet.graphs": Row(packages="torch"),
    "tensornet.htf": Row(
        "arrays checks evaluation.circuit analysis.components contraction.costs contraction.execute formats.ht graphs "
        "contraction.network contraction.plan shape tree",
        "torch",
    ),
    "tensornet.analysis.ranks": Row("arrays checks formats.ht tree", "numpy torch", lazy="tensorly"),
    # hierarchical Tucker
    "tensornet.formats.hsvd": Row("arrays ht tree", "torch"),
    # layers of networks
    "tensornet.layers": Row(),
    "tensornet.layers.features": Row("arrays checks", "torch"),
    "tensornet.layers.initial": Row("arrays htf", "torch"),
    "tensornet.layers.classifier": Row("arrays checks evaluation.circuit features htf initial tree", "torch"),
    "tensornet.layers.factorized": Row("arrays checks htf initial tree", "torch"),
    # files
    "tensornet.files": Row(),
    "tensornet.files.storage": Row("checks", "safetensors torch"),
    "tensornet.files.runs": Row("storage"),
    "tensornet.files.pictures": Row(packages="numpy", lazy="PIL sklearn"),
    "tensornet.files.tables": Row(packages="numpy", lazy="pyarrow"),
    "tensornet.files.partial": Row("pictures storage tables", "numpy"),
    "tensornet.files.entries": Row("checks", "numpy", lazy="pyarrow"),
    # learning
    "tensornet.optim": Row("checks", "torch"),
    "tensornet.completion": Row(),
    "tensornet.completion.smoothing": Row(packages="torch"),
    "tensornet.completion.sources": Row("files.entries", "numpy"),
    "tensornet.completion.survey": Row("distributed sources", "numpy"),
    "tensornet.completion.order": Row(packages="numpy"),
    "tensornet.completion.batches": Row("distributed evaluation.observed order shape sources survey", "numpy torch"),
    "tensornet.completion.fitting": Row("batches distributed evaluation.circuit htf interrupts optim shape smoothing", "torch"),
    "tensornet.completion.refinement": Row(
        "arrays evaluation.circuit evaluation.observed formats.ht htf shape sources", "numpy torch", lazy="scipy"
    ),
    "tensornet.completion.completer": Row(
        "batches distributed files.entries fitting formats.ht htf refinement shape smoothing sources survey tree",
        "numpy torch",
        lazy="sklearn",
    ),
    "tensornet.files.objects": Row("checks completion.completer evaluation.circuit formats.ht htf storage tree", "numpy torch"),
    "tensornet": Row(
        "completion.completer layers.classifier layers.factorized layers.features graphs htf contraction.network contraction.plan "
        "evaluation.observed files.objects formats.hsvd formats.ht optim analysis.ranks shape tree"
    ),
    "tensornet.dynamics": Row(),
    "tensornet.dynamics.flow": Row("checks", "numpy torch", lazy="scipy"),
    "tensornet.dynamics.flow_steps": Row("arrays checks flow", "numpy torch", lazy="scipy"),
    "tensornet.dynamics.theory": Row(),
    "tensornet.dynamics.theory.records": Row(packages="numpy torch"),
    "tensornet.dynamics.theory.cases": Row("contraction.execute shape tree", "numpy torch"),
    "tensornet.dynamics.theory.motion": Row("analysis.components dynamics.flow cases tree", "torch"),
    "tensornet.dynamics.theory.ranks": Row("analysis.components cases records contraction.execute analysis.ranks shape tree", "torch"),
    "tensornet.dynamics.theory.network": Row("evaluation.circuit cases ranks records analysis.ranks", "numpy torch"),
    "tensornet.dynamics.theory.minimal_ranks": Row("cases ranks records analysis.ranks tree", "torch"),
    "tensornet.dynamics.theory.evolution": Row("dynamics.flow analysis.components cases motion records", "numpy torch"),
    "tensornet.dynamics.theory.statements": Row("checks cases evolution minimal_ranks network ranks records"),
    "tensornet.dynamics.losses": Row(packages="torch"),
    "tensornet.dynamics.observations": Row(packages="torch"),
    "tensornet.dynamics.masked": Row("compiled losses observations", "torch"),
    "tensornet.dynamics.problems": Row("arrays checks observations htf tree", "torch"),
    "tensornet.dynamics.objective": Row(
        "arrays evaluation.circuit contraction.costs losses masked observations problems contraction.execute htf contraction.network "
        "evaluation.observed contraction.plan contraction.repeated",
        "torch",
    ),
    "tensornet.dynamics.measures": Row("htf analysis.ranks tree", "torch"),
    "tensornet.dynamics.experiments": Row("checks flow_steps losses optim tree", "torch"),
    "tensornet.dynamics.blocks": Row("graphs", "torch"),
    "tensornet.dynamics.training": Row(
        "blocks experiments losses measures objective problems files.partial htf analysis.ranks tree", "torch"
    ),
    "tensornet.dynamics.report": Row(),
    "tensornet.dynamics.running": Row("experiments report training files.runs interrupts", "torch"),
    "tensornet.dynamics.plotting": Row("checks experiments files.runs files.storage", lazy="matplotlib"),
    # the commands
    "tensornet.cli.arguments": Row("checks tree", "torch"),
    "tensornet.cli.plan": Row("arguments contraction.costs contraction.execute contraction.network contraction.plan shape", "rich torch"),
    "tensornet.cli.peers": Row("htf tree", "numpy torch", lazy="opt_einsum tensorly"),
    "tensornet.cli.sparklines": Row(),
    "tensornet.cli.demo": Row(
        "arguments peers sparklines htf evaluation.observed optim files.storage tree",
        "rich torch",
        lazy="matplotlib",
    ),
    "tensornet.cli.learning": Row("completion.completer completion.fitting distributed files.runs", "rich"),
    "tensornet.cli.given": Row("contraction.execute files files.entries files.partial files.pictures files.tables", "numpy torch"),
    "tensornet.cli.complete": Row(
        "checks arguments given learning peers completion.completer completion.fitting completion.survey distributed files "
        "files.objects files.partial files.tables interrupts",
        "numpy rich torch",
    ),
    "tensornet.cli.verify": Row("arguments dynamics.theory.records dynamics.theory.statements", "rich"),
    "tensornet.cli.dynamics": Row(
        "arguments sparklines dynamics.experiments dynamics.plotting dynamics.report dynamics.running dynamics.training "
        "files.runs files.storage",
        "rich torch",
    ),
    "tensornet.cli.figure": Row("arguments dynamics.plotting", "rich"),
    "tensornet.cli.commands": Row("tensornet arguments distributed", "rich"),
    "tensornet.cli": Row("arguments commands complete demo dynamics figure plan verify"),
    "tensornet.__main__": Row("cli"),
    "cnn_reg.regions": Row("checks", "torch"),
    "cnn_reg.cosines": Row(packages="torch"),
    "cnn_reg.passes": Row(packages="torch"),
    "cnn_reg.window": Row(packages="torch"),
    "cnn_reg.penalty": Row("cosines passes regions window", "torch"),
    "cnn_reg.schedule": Row("checks"),
    "cnn_reg.models": Row("checks", "torch torchvision"),
    "cnn_reg.derivatives": Row(packages="torch"),
    "cnn_reg.batchnorm": Row("derivatives", "torch"),
    "cnn_reg.convolution": Row("derivatives window", "torch"),
    "cnn_reg.twice": Row("batchnorm convolution models", "torch"),
    "cnn_reg.data.image_set": Row("checks", "numpy torch"),
    "cnn_reg.data.sources": Row("checks image_set", "torch", lazy="mlxtend sklearn torchvision"),
    "cnn_reg.data.same_class": Row("checks image_set sources", "numpy torch"),
    "cnn_reg.data.pair_file": Row("checks files.storage same_class sources", "torch"),
    "cnn_reg.data.counter": Row(packages="numba numpy"),
    "cnn_reg.data.paddles": Row(packages="numpy", lazy="PIL scipy"),
    "cnn_reg.data.snakes": Row("counter paddles", "numba numpy"),
    "cnn_reg.data.scenes": Row("counter paddles snakes", "numpy"),
    "cnn_reg.data.pathfinder": Row("checks paddles scenes", "numpy"),
    "cnn_reg.data.baseline": Row(packages="numpy"),
    "cnn_reg.data.pathfinder_file": Row("checks files.runs files.storage pathfinder", "numpy torch"),
    "cnn_reg.data.splits": Row("checks baseline image_set pathfinder pathfinder_file", "numpy torch"),
    "cnn_reg.data.split_cache": Row("tensornet files.storage image_set splits", "filelock"),
    "cnn_reg.data": Row("pathfinder sources splits image_set same_class"),
    "cnn_reg": Row("data models penalty regions schedule twice"),
    "cnn_reg.locality": Row("tensornet checks penalty regions", "torch"),
    "cnn_reg.config": Row("checks"),
    "cnn_reg.networks": Row("checks models", "torch"),
    "cnn_reg.tasks": Row("config data data.sources data.split_cache data.splits regions", "torch"),
    "cnn_reg.checkpoint": Row(packages="numpy torch"),
    "cnn_reg.training": Row(),
    "cnn_reg.training.arithmetic": Row("checkpoint config", "torch"),
    "cnn_reg.training.metrics": Row("tensornet.distributed", "torch"),
    "cnn_reg.training.objective": Row("config penalty regions arithmetic metrics", "torch"),
    "cnn_reg.training.trainer": Row("checks checkpoint config data distributed schedule tasks metrics objective", "torch"),
    "cnn_reg.training.loop": Row("files.runs trainer"),
    "cnn_reg.training.trackers": Row(lazy="torch wandb"),
    "cnn_reg.figures": Row("files.storage", lazy="matplotlib"),
    "cnn_reg.training.running": Row(
        "tensornet files.runs files.storage config figures networks tasks twice arithmetic distributed loop trainer", "torch"
    ),
    "cnn_reg.sweeps": Row(),
    "cnn_reg.sweeps.grid": Row("checks config"),
    "cnn_reg.sweeps.paper": Row(),
    "cnn_reg.sweeps.grids": Row("checks config grid paper"),
    "cnn_reg.sweeps.costs": Row("config networks tasks files.runs files.storage", "torch"),
    "cnn_reg.sweeps.jobs": Row("checks config files.runs files.storage training.loop training.running", "filelock torch"),
    "cnn_reg.sweeps.executors": Row("jobs"),
    "cnn_reg.sweeps.pool": Row("executors interrupts jobs"),
    "cnn_reg.sweeps.cluster": Row("checks executors jobs", lazy="ray"),
    "cnn_reg.sweeps.search": Row("config grid", lazy="optuna"),
    "cnn_reg.sweeps.sweep": Row("tensornet config executors grid jobs search files.runs files.storage", "filelock"),
    "cnn_reg.trained": Row("checks files.runs files.storage config networks tasks", "torch"),
    "cnn_reg.locality_profile": Row("cnn_reg.locality regions", "torch"),
    "cnn_reg.results": Row(),
    "cnn_reg.results.wording": Row("checks config data.image_set"),
    "cnn_reg.results.records": Row("tensornet files.runs files.storage config wording sweeps.jobs trained"),
    "cnn_reg.results.listings": Row("checks files.storage config sweeps.jobs"),
    "cnn_reg.results.published": Row("config"),
    "cnn_reg.results.notes": Row("tensornet config published records wording"),
    "cnn_reg.results.charts": Row("config notes published records wording"),
    "cnn_reg.results.named": Row("checks config charts listings records sweeps.grids sweeps.paper"),
    "cnn_reg.results.plots": Row("charts dynamics.plotting files.storage", lazy="matplotlib"),
    "cnn_reg.results.tables": Row("checks files.storage"),
    "cnn_reg.results.rows": Row("tensornet config charts records tables wording"),
    "cnn_reg.results.samples": Row("data data.pathfinder data.sources dynamics.plotting files.storage", "numpy torch", lazy="matplotlib"),
    "cnn_reg.results.predictions": Row("checks data", "numpy torch"),
    "cnn_reg.results.pages": Row("tensornet figures tables", "numpy", lazy="jinja2 matplotlib"),
    "cnn_reg.results.run_page": Row(
        "config figures locality_profile pages predictions records tables wording sweeps.jobs tasks trained", "torch"
    ),
    "cnn_reg.results.sweep_page": Row("charts pages plots records rows tables wording"),
    "cnn_reg.cli.options": Row(),
    "cnn_reg.cli.data": Row("cli.arguments data.baseline data.pair_file data.pathfinder_file data.sources", "rich"),
    "cnn_reg.cli.locality": Row(
        "cli.arguments options files.storage config figures locality_profile networks results.wording tasks trained", "rich torch"
    ),
    "cnn_reg.cli.train": Row(
        "tensornet cli.arguments options config distributed interrupts training.loop training.running training.trackers training.trainer",
        "rich",
    ),
    "cnn_reg.cli.sweep_tables": Row(
        "tensornet config results.wording sweeps.costs sweeps.grid sweeps.jobs sweeps.paper sweeps.search sweeps.sweep files.runs "
        "files.storage",
        "rich",
    ),
    "cnn_reg.cli.sweep": Row(
        "cli.arguments options files.runs files.storage sweep_tables config sweeps.cluster sweeps.costs sweeps.executors sweeps.grid "
        "sweeps.grids sweeps.jobs sweeps.paper sweeps.pool sweeps.search sweeps.sweep interrupts",
        "rich torch",
    ),
    "cnn_reg.cli.runs": Row("cli.arguments results.listings results.records results.rows results.tables", "rich"),
    "cnn_reg.cli.figure": Row(
        "cli.arguments dynamics.plotting results.charts results.named results.plots results.records results.rows results.samples "
        "results.tables",
        "rich",
    ),
    "cnn_reg.cli.report": Row(
        "cli.arguments options files.runs results.named results.records results.run_page results.sweep_page results.tables", "rich"
    ),
    "cnn_reg.cli": Row("cli.arguments cli.commands data figure locality report runs sweep train"),
    "cnn_reg.__main__": Row("cli"),
}
# Never loaded by `import tensornet`.
SLOW = ("matplotlib", "tensorly", "sklearn", "PIL", "pyarrow", "rich", "pandas", "torchvision", "numba")


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


def own_names(name: str) -> set[str]:
    """Full names of the project's modules that a module may import."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]

    def full(word: str) -> str:
        candidates = (f"{package}.{word}", f"{name.partition('.')[0]}.{word}", f"tensornet.{word}", word)
        return next((candidate for candidate in candidates if candidate in MODULES), word)

    return {full(word) for word in TABLE[name].own.split()}


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"), str(MODULES[name]))


def test_every_module_has_a_row_and_every_row_a_module():
    assert set(TABLE) == set(MODULES), "the table of allowed imports must list the modules there are"


def test_the_document_lists_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([\w/]+\.py)`", text.partition("## The rest")[0]))
    there = {path.relative_to(ROOT).as_posix().partition("/")[2] for path in MODULES.values()}
    docstrings = {place for place in there if place.count("/") and place.endswith("__init__.py")}  # of subpackages, named by headings
    assert there - docstrings <= listed - {"tests/test_architecture.py"} <= there


def test_the_table_has_no_cycles():
    above: set[str] = set()
    for name in TABLE:
        assert own_names(name) <= above, f"{name} may import only what stands above it in the table"
        above.add(name)


def test_the_circuit_shares_no_code_with_the_contraction():
    def known(name: str) -> set[str]:
        return {name}.union(*(known(below) for below in own_names(name)))

    contraction = known("tensornet.contraction.execute") - known("tensornet.shape")
    assert "tensornet.contraction.plan" in contraction
    assert not known("tensornet.evaluation.circuit") & contraction


def test_the_engine_never_imports_the_regularizer():
    assert not [name for name, row in TABLE.items() if name.startswith("tensornet") and "cnn_reg" in row.own]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_are_allowed(name):
    row = TABLE[name]
    own, packages, lazy = own_names(name), set(row.packages.split()), set(row.lazy.split())
    for found in imports(parse(name)):
        if found.types_only:
            continue  # types are checked, not run: they make no cycle and load nothing
        returned = {f"tensornet.{word}" for word in row.returned.split()} if found.lazy else set()
        allowed = own | returned if found.own else packages | lazy if found.lazy else packages
        where = "inside a function" if found.lazy else "at its top"
        assert found.target in allowed, f"{name}, line {found.line}: imports {found.target} {where}; allowed are {sorted(allowed)}"


CALL_USERS = {"cnn_reg.networks", "cnn_reg.sweeps.jobs"}  # what the programs of users raise is not known


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_print_and_no_blanket_except(name):
    command = "cli" in name.split(".")
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not command:
            assert node.func.id != "print", f"{name}, line {node.lineno}: only the commands print"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            allowed = caught == "Exception" and name in CALL_USERS
            assert allowed or caught not in ("everything", "Exception", "BaseException"), f"{name}, line {node.lineno}: catches {caught}"


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
