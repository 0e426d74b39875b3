"""Every public name is documented, annotated and shown by a running example; the names that users rely on are there."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import cnn_reg
import tensornet


class Item(NamedTuple):
    """A public function, class, method or property."""

    kind: str
    name: str
    value: Any


def modules() -> list[ModuleType]:
    """Both packages and all their modules, those whose name starts with an underscore left out."""
    found = []
    for package in (tensornet, cnn_reg):
        names = [info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
        found += [package, *(importlib.import_module(name) for name in names if not name.rpartition(".")[2].startswith("_"))]
    return found


def items(module: ModuleType) -> Iterator[Item]:
    """What a module itself defines in public, with the members of its classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            yield Item("class", f"{module.__name__}.{name}", value)
            yield from members(f"{module.__name__}.{name}", value)
        elif inspect.isroutine(inspect.unwrap(value)):
            yield Item("function", f"{module.__name__}.{name}", inspect.unwrap(value))


def members(prefix: str, owner: type) -> Iterator[Item]:
    """The constructor, public methods and properties that the class itself defines."""
    for name, value in vars(owner).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
        written = code is not None and code.co_filename == inspect.getsourcefile(owner)  # not made by @dataclass
        if name == "__init__" and written:
            yield Item("constructor", f"{prefix}.__init__", function)
        elif name.startswith("_"):
            continue
        elif isinstance(value, property):
            yield Item("property", f"{prefix}.{name}", value.fget)
        elif hasattr(value, "func") and hasattr(value, "attrname"):  # cached_property
            yield Item("property", f"{prefix}.{name}", value.func)
        elif written:
            inherited = any(hasattr(base, name) for base in owner.__mro__[1:] if not base.__module__.startswith(("tensornet", "cnn_reg")))
            yield Item("override" if inherited else "method", f"{prefix}.{name}", inspect.unwrap(function))


ITEMS = [item for module in modules() for item in items(module)]
DOCUMENTED = [item for item in ITEMS if item.kind != "constructor"]  # a class's docstring describes its constructor
CALLED = [item for item in ITEMS if item.kind != "class"]
SHOWN = [item for item in ITEMS if item.kind in ("function", "method")]  # the example of an overridden method stands at its class


def named(chosen: list[Item]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("item", [pytest.param(item, id=item.name) for item in chosen])


def test_the_walk_finds_what_there_is():
    names = {item.name for item in ITEMS}
    assert {"tensornet.tree.ModeTree", "tensornet.tree.ModeTree.star", "tensornet.tree.ModeTree.root"} <= names
    assert {"tensornet.shape.make_shape", "tensornet.shape.Shape.weights", "cnn_reg.cli.main"} <= names


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_modules_are_documented(module):
    assert (module.__doc__ or "").strip(), f"{module.__name__} has no docstring"


@named(DOCUMENTED)
def test_is_documented(item):
    text = (item.value.__doc__ or "").strip()
    assert text, f"{item.name} has no docstring"
    assert not text.startswith(f"{item.name.rpartition('.')[2]}("), f"{item.name} has no docstring of its own, but what @dataclass makes"


@named(CALLED)
def test_is_annotated(item):
    signature = inspect.signature(item.value)
    missing = [name for name, given in signature.parameters.items() if given.annotation is given.empty and name not in ("self", "cls")]
    if signature.return_annotation is signature.empty:
        missing.append("return")
    assert not missing, f"{item.name} does not annotate {', '.join(missing)}"


@named(SHOWN)
def test_has_an_example(item):
    assert ">>> " in item.value.__doc__, f"{item.name} has no example"


@pytest.mark.parametrize("package", [tensornet, cnn_reg], ids=lambda package: package.__name__)
def test_all_is_what_is_re_exported(package):
    tree = ast.parse(inspect.getsource(package))
    exported = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    given = getattr(package, "__all__", [])
    assert sorted(exported) == sorted(given)
    assert len(set(given)) == len(given)
    assert all(getattr(package, name) is not None for name in given)


def test_version():
    assert all(part.isdigit() for part in tensornet.__version__.split("."))


# Names and parameters that users and checks rely on; a function may take more.
PROMISED = {
    "ModeTree.star": "order",
    "ModeTree.perfect": "order arity",
    "ModeTree.balanced": "order arity",
    "ModeTree.chain": "order",
    "ModeTree.from_nested": "nested",
    "ModeTree.grid": "shape window",
    "ModeTree.random": "order max_arity seed",
    "ModeTree.children": "node",
    "ModeTree.parent": "node",
    "ModeTree.to_nested": "",
    "ModeTree.draw": "",
    "HTF": "tree mode_sizes ranks outputs init_std generator dtype device",
    "HTF.from_weights": "tree weights",
    "HTF.contract": "memory_limit",
    "HTF.plan": "",
    "HTF.entries": "indices log",
    "HTF.forward": "inputs log",
    "HTF.local_component_norms": "",
    "HTF.unbalancedness": "",
    "HTF.prune": "",
    "matricize": "tensor modes",
    "hierarchical_rank": "tensor tree rtol",
    "hierarchical_singular_values": "tree",
    "effective_rank": "singular_values",
    "TensorCompleter": "tree",
    "TensorCompleter.fit": "indices values",
    "TensorCompleter.predict": "indices",
    "TensorCompleter.complete": "",
    "GroupRMSprop": "params lr beta eps",
    "save": "path obj",
    "load": "path",
}


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_promised_names_exist(name):
    value: Any = tensornet
    for part in name.split("."):
        assert hasattr(value, part), f"tensornet.{name} is missing"
        value = getattr(value, part)
    given = inspect.signature(value).parameters
    assert list(PROMISED[name].split()) == [parameter for parameter in given if parameter in PROMISED[name].split()]
