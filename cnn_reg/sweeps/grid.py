"""A sweep as data: which configurations are trained, and which of their fields are tuned before."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cnn_reg.config import FIELDS, Config, as_dict, from_dict, preset
from tensornet.checks import choice, integer, short


@dataclass(frozen=True)
class Range:
    """The values among which a field is tuned.

    Args:
        low: The smallest.
        high: The largest.
        start: What is tried first, and taken where nothing is tuned.
        log: Whether equal ratios are equally likely, and not equal differences.

    Raises:
        ValueError: ``start`` is not between the others, or ``log`` is asked for with 0.

    Example:
        >>> Range(1e-5, 1e-1, start=1e-3).log
        True
    """

    low: float
    high: float
    start: float
    log: bool = True

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high or self.low == self.high:
            raise ValueError(f"a range needs low <= start <= high and low < high; got low {self.low}, start {self.start}, high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low above 0; got {self.low}")


@dataclass(frozen=True)
class Variant:
    """One of several recipes that a sweep compares: a curve of its figure.

    Args:
        name: Of the curve.
        fields: What the recipe sets.
        ranges: What is tuned for it.

    Raises:
        ValueError: A field is unknown, or tuned and set at once; or what is tuned is no real number.

    Example:
        >>> Variant("weight decay", {"coefficient": 0.0}, {"weight_decay": Range(1e-5, 1e-1, 1e-3)}).values()
        {'coefficient': 0.0, 'weight_decay': 0.001}
    """

    name: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.fields, *self.ranges):
            choice("field", name, FIELDS)
        for name in self.ranges:
            if name in self.fields:
                raise ValueError(f"{name} is either set or tuned; got both in the variant {self.name!r}")
            if FIELDS[name] != "float":
                raise ValueError(f"only real numbers are tuned; {name} is none, in the variant {self.name!r}")

    def values(self) -> dict[str, Any]:
        """What the recipe sets, with the first values of what is tuned.

        Example:
            >>> Variant("plain", {"coefficient": 0.0}).values()
            {'coefficient': 0.0}
        """
        return {**self.fields, **{name: known.start for name, known in self.ranges.items()}}


@dataclass(frozen=True)
class Search:
    """How variants are tuned.

    Args:
        trials: Runs for each variant that has ranges.
        at: Fields of these runs. Axes that are not among them have their first values.

    Raises:
        TypeError: ``trials`` is no integer.
        ValueError: ``trials`` is below 1, or a field is unknown.

    Example:
        >>> Search(trials=20, at={"path_length": 9}).trials
        20
    """

    trials: int
    at: Mapping[str, Any]

    def __post_init__(self) -> None:
        integer("trials", self.trials, least=1)
        for name in self.at:
            choice("field", name, FIELDS)


@dataclass(frozen=True)
class Grid:
    """All combinations of the values of some fields, for each of several variants.

    Args:
        name: Of the sweep, and of its figure.
        scale: Which size of a named sweep this is; ``own`` for others.
        preset: The configuration that the other fields change.
        base: Fields that all runs have.
        axes: The values of fields that differ from run to run. The first axis changes slowest.
        variants: Recipes that are compared.
        search: How variants with ranges are tuned.
        note: What every title and table has to say.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A field is unknown or given twice, a value is wrong or may be in the search, two variants have one name, or there is
            nothing to run.

    Example:
        >>> grid = Grid("lengths", preset="quick", axes={"seed": (0, 1), "path_length": (3, 5, 7)})
        >>> [(config.seed, config.path_length) for config in grid.configs()]
        [(0, 3), (0, 5), (0, 7), (1, 3), (1, 5), (1, 7)]
    """

    name: str
    scale: str = "own"
    preset: str = "paper"
    base: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    variants: tuple[Variant, ...] = (Variant(),)
    search: Search | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for name, values in self.axes.items():
            if not isinstance(values, tuple) or not values:
                raise ValueError(f"the axis {name} needs a list of values; got {short(values)}")
        names = [variant.name for variant in self.variants]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"variants need names of their own; got {short(names)}")
        for variant in self.variants:
            twice = [name for name in variant.values() if name in self.base or name in self.axes]
            twice += [name for name in self.axes if name in self.base]
            if twice:
                raise ValueError(f"a field is in one of base, axes and variants; got {twice[0]} in several")
        self._check_search(self.configs()[0])

    def _check_search(self, config: Config) -> None:
        """Whatever a search may ask for is a valid run."""
        ranges = [(name, known) for variant in self.variants for name, known in variant.ranges.items()]
        if ranges and self.search is None:
            raise ValueError("variants with ranges need a search; got none")
        at = {} if self.search is None else dict(self.search.at)
        for name, known in ranges:
            if name in at:
                raise ValueError(f"{name} is tuned, and cannot be set for the search; got {at[name]}")
            for bound in (known.low, known.high):
                replace(config, **{**at, name: bound})
        replace(config, **at)

    @property
    def remark(self) -> str:
        """The note, and which data stand in for CIFAR10, if any do."""
        found = {config.source: None for config in self.configs() if config.dataset == "same-class" and config.source != "cifar10"}
        return "; ".join(text for text in (self.note, *(f"{source}, not CIFAR10" for source in found)) if text)

    def labelled(self) -> list[tuple[str, Config]]:
        """All configurations, each with the name of its variant; of those with equal :func:`cnn_reg.config.as_dict`, one.

        Example:
            >>> Grid("one").labelled()[0][0]
            ''
        """
        found: dict[Config, str] = {}
        for values in itertools.product(*self.axes.values()):
            for variant in self.variants:
                fields = {**self.base, **dict(zip(self.axes, values)), **variant.values()}
                found.setdefault(from_dict(as_dict(preset(self.preset, **fields))), variant.name)
        return [(name, config) for config, name in found.items()]

    def configs(self) -> list[Config]:
        """All configurations.

        Example:
            >>> len(Grid("seeds", axes={"seed": (0, 1, 2)}).configs())
            3
        """
        return [config for _, config in self.labelled()]

    def override(self, changes: Mapping[str, tuple[Any, ...]]) -> Grid:
        """The grid with other values of some fields: one value for all runs, or several as an axis.

        A search at the largest value of an axis stays there.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A field is unknown or set by the variants, a value is wrong, or the search would see the images of the runs.

        Example:
            >>> grid = Grid("lengths", axes={"seed": (0, 1), "path_length": (3, 5, 7)})
            >>> len(grid.override({"epochs": (10,), "path_length": (5, 7)}).configs())
            4
        """
        base, axes, search = dict(self.base), dict(self.axes), self.search
        at = dict(search.at) if search else {}
        for name, values in changes.items():
            choice("field", name, FIELDS)
            if any(name in variant.values() for variant in self.variants):
                raise ValueError(f"{name} differs between the variants of {self.name} and cannot be set for all of them")
            if name == "data_seed" and at.get(name) in values:
                raise ValueError(f"the search is made on images of data_seed {at[name]}; runs on the same images would not be a test of it")
            if name in at and at[name] == max(axes.get(name, ()), default=None):
                at[name] = max(values)
            base.pop(name, None)
            if name in axes or len(values) > 1:
                axes[name] = values
            else:
                base[name] = values[0]
        return replace(self, base=base, axes=axes, search=replace(search, at=at) if search else None)

    def tuned(self, values: Mapping[str, Mapping[str, float]]) -> Grid:
        """The grid with the chosen values, by the names of variants, in place of ranges.

        Example:
            >>> variant = Variant("dropout", ranges={"dropout": Range(0.05, 0.7, 0.3, log=False)})
            >>> grid = Grid("tuned", variants=(variant,), search=Search(5, {}))
            >>> grid.tuned({"dropout": {"dropout": 0.45}}).configs()[0].dropout
            0.45
        """
        done = (replace(known, fields={**known.fields, **values.get(known.name, {})}, ranges={}) for known in self.variants)
        return replace(self, variants=tuple(done), search=None)
