"""Checks of single arguments, whose errors say in one line what was given; the standard library alone."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat, SupportsIndex


def integer(name: str, value: Any, least: int | None = None) -> int:
    """The integer that ``value`` is.

    Raises:
        TypeError: It is none; a truth value is none either.
        ValueError: It is below ``least``, or does not fit into 64 bits.

    Example:
        >>> integer("ranks", 3, least=1)
        3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer; got {short(value)} of type {type(value).__name__}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}; got {number}")
    if number.bit_length() > 63:
        raise ValueError(f"{name} must fit into 64 bits; got {short(number)}")
    return number


def real(name: str, value: Any, below: float = math.inf) -> float:
    """The number from 0 to below ``below`` that ``value`` is.

    Raises:
        TypeError: It is no real number.
        ValueError: It is out of this range, or not finite.

    Example:
        >>> real("init_std", 0.5)
        0.5
    """
    try:
        number = float(value) if isinstance(value, (SupportsFloat, SupportsIndex)) else None
    except (TypeError, ValueError, RuntimeError, OverflowError):  # several numbers, or one that is too large
        number = None
    if number is None:
        raise TypeError(f"{name} must be a number; got {short(value)} of type {type(value).__name__}")
    if not 0 <= number < below:
        raise ValueError(f"{name} must be at least 0 and {'finite' if below == math.inf else f'below {below}'}; got {value}")
    return number


def finite(name: str, value: Any) -> float:
    """The finite number that ``value`` is.

    Raises:
        TypeError: It is no real number.
        ValueError: It is NaN or infinite.

    Example:
        >>> finite("center", -1)
        -1.0
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {short(value)} of type {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite; got {value}")
    return float(value)


def integers(name: str, values: Any, least: int = 1) -> tuple[int, ...]:
    """One or several integers of at least ``least``.

    Raises:
        TypeError: One is no integer.
        ValueError: One is too small, or there is none.

    Example:
        >>> integers("size", 3), integers("size", [28, 28])
        ((3,), (28, 28))
    """
    given = values if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
    if not given:
        raise ValueError(f"{name} needs at least one size; got ()")
    return tuple(integer(name, value, least) for value in given)


def choice(what: str, given: str, valid: Iterable[str], more: str = "") -> str:
    """The valid name that was given.

    Raises:
        ValueError: It is none; the error names the nearest.

    Example:
        >>> choice("preset", "papr", ["paper", "quick"])
        Traceback (most recent call last):
            ...
        ValueError: unknown preset 'papr' (did you mean paper?); choose from paper, quick
    """
    names = list(valid)
    if given not in names:
        raise ValueError(f"unknown {what} {given!r}{meant(given, names)}; choose from {', '.join(names)}{more}")
    return given


def meant(given: str, names: Iterable[str]) -> str:
    """The name that is nearest to one that is none of them, as the end of an error; empty where none is near.

    Example:
        >>> meant("papr", ["paper", "quick"]), meant("x", ["paper"])
        (' (did you mean paper?)', '')
    """
    near = difflib.get_close_matches(str(given), list(names), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def short(value: object) -> str:
    """How Python writes ``value``, in one line of at most 80 characters.

    Example:
        >>> len(short(list(range(100))))
        80
    """
    try:
        shown = line(repr(value))
    except RecursionError:
        return "a deeply nested node"
    return shown if len(shown) <= 80 else shown[:77] + "..."


def line(text: object) -> str:
    """A text, or an error's, in one line.

    Example:
        >>> line(ValueError("no    number"))
        'no number'
    """
    return " ".join(str(text).split())
