"""Where grids come from: the paper's, by name, and those of users, in TOML files."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnn_reg.config import parse_field
from cnn_reg.sweeps import paper
from cnn_reg.sweeps.grid import Grid, Range, Search, Variant
from tensornet.checks import choice, line, short


def named_grid(name: str, scale: str = "full") -> Grid:
    """A sweep of the paper.

    Args:
        name: ``fig6-``, ``fig11-``, ``fig12-`` or ``fig13-``, and ``same-class`` or ``pathfinder``.
        scale: ``full``, ``medium`` (one GPU) or ``small`` (two cores).

    Raises:
        ValueError: There is no such sweep or scale.

    Example:
        >>> len(named_grid("fig6-same-class").configs()) + len(named_grid("fig6-pathfinder").configs())
        135
        >>> named_grid("fig6-pathfindr")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: unknown sweep 'fig6-pathfindr' (did you mean fig6-pathfinder?); choose from fig6-same-class, ...
    """
    choice("sweep", name, paper.NAMES, " or a file that ends in .toml")
    return parse_grid({**paper.description(name, choice("scale", scale, paper.SCALES)), "scale": scale})


def read_grid(path: str | os.PathLike[str]) -> Grid:
    r"""The sweep that a TOML file describes.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: It is no TOML file, a word is unknown, or a value is wrong.
        OSError: The file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "lengths.toml")
        >>> characters = path.write_text('preset = "quick"\n[axes]\nseed = [0, 1]\npath_length = [5, 7, 9]\n')
        >>> grid = read_grid(path)
        >>> grid.name, len(grid.configs())
        ('lengths', 6)
    """
    name = os.fspath(path)
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is no TOML file ({line(error)})") from None
    if "scale" in found:
        raise ValueError(f"{name}: a file describes one sweep; scale is for named ones")
    try:
        return parse_grid({"name": Path(path).stem, **found})
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from None


_WORDS = ("name", "scale", "preset", "base", "axes", "variants", "search", "note")


def parse_grid(data: Mapping[str, Any]) -> Grid:
    """The grid that nested data describe, as a TOML file holds them.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A word or a field is unknown, or a value is wrong.

    Example:
        >>> parse_grid({"name": "seeds", "axes": {"seed": [0, 1]}}).configs()[1].seed
        1
    """
    for word in data:
        choice("word", word, _WORDS)
    for word, kind in (("name", str), ("scale", str), ("preset", str), ("note", str), ("base", dict), ("axes", dict), ("variants", list)):
        if not isinstance(data.get(word, kind()), kind):
            raise TypeError(f"{word} must be a {_KINDS[kind]}; got {short(data[word])}")
    axes = {name: tuple(values) if isinstance(values, list) else values for name, values in data.get("axes", {}).items()}
    variants = tuple(_variant(found) for found in data.get("variants", [])) or (Variant(),)
    search = _search(data["search"]) if "search" in data else None
    plain = {word: data[word] for word in ("scale", "preset", "base", "note") if word in data}
    return Grid(data["name"], axes=axes, variants=variants, search=search, **plain)


_KINDS = {str: "text", dict: "table", list: "list"}


def _variant(data: Any) -> Variant:
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise ValueError(f"a variant is a table with a name; got {short(data)}")
    fields = {name: value for name, value in data.items() if name != "name" and not isinstance(value, dict)}
    return Variant(data["name"], fields, {name: _part(name, Range, value) for name, value in data.items() if isinstance(value, dict)})


def _search(data: Any) -> Search:
    found: Search = _part("search", Search, data if isinstance(data, dict) else {})
    return found


def _part(name: str, kind: type, data: Mapping[str, Any]) -> Any:
    try:
        return kind(**data)
    except TypeError as error:
        words = ", ".join(kind.__dataclass_fields__)  # type: ignore[attr-defined]
        raise ValueError(f"{name} takes {words}; got {', '.join(data) or 'none of them'} ({line(error)})") from None


def parse_changes(texts: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """What ``--set`` changes: the values of fields that are written as ``name=value`` or ``name=value,value``.

    Raises:
        ValueError: A field is unknown or changed twice, or a value is of another type.

    Example:
        >>> parse_changes(["seed=0,1", "width=0.5"])
        {'seed': (0, 1), 'width': (0.5,)}
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        pairs = [parse_field(f"{name}{equals}{value}") for value in values.split(",")]
        if pairs[0][0] in found:
            raise ValueError(f"{pairs[0][0]} is set twice; several values are written as {pairs[0][0]}=1,2")
        found[pairs[0][0]] = tuple(value for _, value in pairs)
    return found
