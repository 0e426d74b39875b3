"""Configurations and numbers in words, as titles, tables and pages say them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cnn_reg.config import FIELDS, Config, as_dict
from cnn_reg.data.image_set import NOT_CIFAR10
from tensornet.checks import line

AXES = ("path_length", "distance")  # of Pathfinder and of Is Same Class
SWITCHED_OFF = ("weight_decay", "dropout")  # fields whose value 0 need not be named


def plain(text: object) -> str:
    r"""A text of any origin in one line, without what would steer a terminal or cannot be written.

    Example:
        >>> plain("two\nlines, \x1b[31mred") == "two lines, \ufffd[31mred"
        True
    """
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line(text))


def varying(configs: Sequence[Config]) -> list[str]:
    """Fields in which configurations differ, in the order of :class:`Config`; of two data sets, those that both have.

    Example:
        >>> varying([Config(seed=1, path_length=5), Config(seed=2, path_length=5)])
        ['seed']
    """
    dicts = [as_dict(config) for config in configs]
    return [name for name in FIELDS if len({fields[name] for fields in dicts if name in fields}) > 1]


def words(fields: Iterable[tuple[str, Any]]) -> str:
    """Names and values of fields in words.

    Example:
        >>> words([("weight_decay", 0.001), ("coefficient", 9.0), ("channels_last", True)])
        'weight decay 0.001, coefficient 9, channels last'
    """

    def told(name: str, value: Any) -> str:
        if isinstance(value, bool):
            return name if value else f"no {name}"
        return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"

    return plain(", ".join(told(name.replace("_", " "), value) for name, value in fields))


def task_of(config: Config) -> str:
    """The data set and the network of a configuration, without its path length or distance; stand-ins are marked.

    Example:
        >>> task_of(Config()), task_of(Config(dataset="same-class", source="digits"))
        ('Pathfinder, resnet18', 'Is Same Class, digits (not CIFAR10), resnet18')
    """
    if config.dataset == "pathfinder":
        return plain(f"Pathfinder{', distances matched' if config.matched else ''}, {config.model}")
    return plain(f"Is Same Class, {'CIFAR10' if config.source == 'cifar10' else f'{config.source} ({NOT_CIFAR10})'}, {config.model}")


def percent(share: float | None) -> str:
    """A share in percent, with one digit after the point.

    Example:
        >>> percent(0.6774), percent(None)
        ('67.7', '')
    """
    return "" if share is None else f"{100 * share:.1f}"


def duration(seconds: float | None) -> str:
    """A time in words.

    Example:
        >>> duration(42.2), duration(754), duration(7500)
        ('42 s', '12.6 min', '2.1 h')
    """
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
