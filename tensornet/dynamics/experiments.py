"""Experiments: everything that determines a run, as a frozen configuration; those of the paper by name."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch

from tensornet.checks import choice, integer, real
from tensornet.dynamics.flow_steps import GradientFlow
from tensornet.dynamics.losses import Loss
from tensornet.optim import GroupRMSprop
from tensornet.tree import ModeTree

Task = Literal["completion", "sensing"]
Kind = Literal["matrix", "tensor", "hierarchical"]
OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "group_rmsprop": GroupRMSprop,
    "gd": torch.optim.SGD,
    "momentum": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
    "adam": lambda params, lr: torch.optim.Adam(params, lr=lr, capturable=params[0].is_cuda),
    "flow": lambda params, **_: GradientFlow(params),
}


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a run.

    Attributes:
        name: Its name.
        task: ``"completion"`` or ``"sensing"``.
        kind: The factorization: ``"matrix"``, ``"tensor"`` (CP) or ``"hierarchical"``.
        tree: Mode tree of a hierarchical factorization, as nested parentheses.
        depth: Number of matrices of a matrix factorization.
        mode_sizes: ``D_1 .. D_N``.
        ranks: Local components at every interior node; hidden dimensions of a matrix factorization.
        true_rank: Rank of the generated ground truth, at every interior node.
        truth: A file with a real array to be learned instead.
        samples: Number of observed entries, or of measurements.
        init_std: Standard deviation of the initial weights.
        init: ``"gaussian"`` or ``"balanced"``, as of :class:`tensornet.HTF`.
        seed: Of ground truth, observations, initial weights, batches and noise.
        loss: ``"l2"``, ``"l1"`` or ``"huber"``.
        delta: Of Huber's loss.
        mean: Whether the loss is the mean over the samples, or their sum.
        optimizer: ``"group_rmsprop"`` (the paper's), ``"gd"``, ``"momentum"``, ``"adam"`` or ``"flow"``: gradient flow itself, whose
            steps are those of an adaptive solver.
        lr: Learning rate; gradient flow has none.
        batch: Observations drawn for a step, with repetition; 0 takes all.
        noise: Standard deviation of Gaussian noise added to the gradients.
        stop_loss: The run ends when the loss stays below this ...
        stop_count: ... for so many steps in a row.
        max_steps: Steps at most.
        record_every: Steps between records.
        top: Largest norms and singular values that are recorded.
        matricizations: Sets of modes whose singular values are recorded, inside or outside the tree.
        dtype: ``"float32"`` or ``"float64"``.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value is of a wrong type.

    Example:
        >>> experiment("fig1-tensor").mode_sizes, experiment("fig1-tensor").ranks
        ((16, 16, 16), 256)
    """

    name: str
    task: Task = "completion"
    kind: Kind = "hierarchical"
    tree: str = "((0,1),(2,3))"
    depth: int = 3
    mode_sizes: tuple[int, ...] = (8, 8, 8, 8)
    ranks: int = 512
    true_rank: int = 5
    truth: str = ""
    samples: int = 2048
    init_std: float = 0.01
    init: Literal["gaussian", "balanced"] = "gaussian"
    seed: int = 0
    loss: str = "l2"
    delta: float = 1.0
    mean: bool = True
    optimizer: str = "group_rmsprop"
    lr: float = 0.01
    batch: int = 0
    noise: float = 0.0
    stop_loss: float = 5e-5
    stop_count: int = 100
    max_steps: int = 300000
    record_every: int = 200
    top: int = 10
    matricizations: tuple[tuple[int, ...], ...] = ((0, 1), (0, 2))
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        for name in ("depth", "ranks", "true_rank", "samples", "stop_count", "record_every", "top"):
            integer(name, getattr(self, name), 2 if name == "depth" else 1)
        for name in ("seed", "batch", "max_steps"):
            integer(name, getattr(self, name), 0)
        for name in ("init_std", "noise", "stop_loss", "lr"):
            real(name, getattr(self, name))
        choices = {"task": get_args(Task), "kind": get_args(Kind), "optimizer": tuple(OPTIMIZERS)}
        choices |= {"init": ("gaussian", "balanced"), "dtype": ("float32", "float64")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        if self.optimizer == "flow" and (self.dtype != "float64" or self.batch or self.noise):
            raise ValueError(f"gradient flow needs dtype float64, batch 0 and noise 0; got {self.dtype}, {self.batch} and {self.noise:g}")
        order = self.mode_tree.order
        if len(self.mode_sizes) != order:
            raise ValueError(f"mode_sizes needs one size per mode; got {len(self.mode_sizes)} for {order} modes")
        if self.kind == "matrix" and not self.matricizations:
            raise ValueError("of a matrix factorization only singular values are recorded; matricizations must not be empty")
        for modes in self.matricizations:
            if not isinstance(modes, tuple) or not all(isinstance(mode, int) for mode in modes):
                raise TypeError(f"matricizations are lists of modes, such as ((0,1),(0,2)); got {self.matricizations}")
            if not modes or not set(modes) < set(range(order)) or len(set(modes)) < len(modes):
                raise ValueError(f"a matricization needs some, not all, of the modes 0 to {order - 1}, each once; got {modes}")
        Loss(self.loss, self.mean, self.delta)

    @property
    def mode_tree(self) -> ModeTree:
        """The mode tree, over which matrix factorizations are chains above one of two leaves."""
        if self.kind == "matrix":
            nested: Any = 1
            for _ in range(self.depth - 2):
                nested = (nested,)
            return ModeTree.from_nested((0, nested))
        if self.kind == "tensor":
            return ModeTree.star(len(self.mode_sizes))
        return ModeTree.from_text(self.tree)

    @property
    def fixed_root(self) -> bool:
        """Whether the root's weight is a constant: it is none of a matrix or tensor factorization's weights."""
        return self.kind != "hierarchical"


_MATRIX = Experiment("fig1-matrix", kind="matrix", mode_sizes=(64, 64), ranks=64, init_std=0.001, record_every=50, matricizations=((0,),))
_TENSOR = Experiment(
    "fig1-tensor", kind="tensor", mode_sizes=(16, 16, 16), ranks=256, init_std=0.001, record_every=50, matricizations=((0,), (1,), (2,))
)
_BINARY = Experiment("fig1-hierarchical")
_TERNARY = Experiment(
    "fig10",
    tree="((0,1,2),(3,4,5),(6,7,8))",
    mode_sizes=(3,) * 9,
    ranks=100,
    true_rank=2,
    samples=9840,
    init_std=0.1,
    max_steps=60000,
    record_every=200,
    matricizations=((0, 1, 2), (0, 3, 6)),
)
EXPERIMENTS: Mapping[str, Experiment] = {
    one.name: one
    for one in (
        _MATRIX,
        _TENSOR,
        _BINARY,
        replace(_BINARY, name="fig8"),
        replace(_BINARY, name="fig9", task="sensing"),
        _TERNARY,
        replace(_MATRIX, name="quick-matrix", mode_sizes=(32, 32), ranks=32, true_rank=3, samples=700),
        replace(_TENSOR, name="quick-tensor", mode_sizes=(10, 10, 10), ranks=64, true_rank=3, samples=600),
        replace(_BINARY, name="quick-hierarchical", ranks=32, true_rank=3, samples=1600, init_std=0.03, record_every=50),
        replace(_BINARY, name="quick-sensing", task="sensing", ranks=32, true_rank=3, samples=1600, init_std=0.03, record_every=50),
        replace(_TERNARY, name="quick-ternary", ranks=32, samples=6000),
    )
}


def experiment(name: str, settings: Mapping[str, str] | None = None) -> Experiment:
    """An experiment by its name, with fields overridden.

    Args:
        name: One of ``EXPERIMENTS``.
        settings: Fields and their values as text, as the command line gives them.

    Raises:
        ValueError: A name is unknown, or a value does not fit.
        TypeError: A value is of a wrong type.

    Example:
        >>> experiment("quick-tensor", {"ranks": "8", "mode_sizes": "6,6,6", "samples": "60"}).mode_sizes
        (6, 6, 6)
    """
    base = EXPERIMENTS[choice("experiment", name, EXPERIMENTS)]
    known = [field.name for field in fields(base) if field.name != "name"]
    for key in settings or {}:
        choice("field", key, known)
    return replace(base, **{key: _value(key, getattr(base, key), text) for key, text in (settings or {}).items()})


def _value(key: str, present: Any, text: str) -> Any:
    """A text as a value of the present one's type."""
    if isinstance(present, str):
        return text
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        found = text
    if isinstance(present, tuple) and isinstance(found, int):
        found = (found,)
    if isinstance(present, float) and isinstance(found, int) and not isinstance(found, bool):
        found = float(found)
    if key == "matricizations" and found and isinstance(found[0], int):
        found = (found,)
    if type(found) is not type(present):
        raise ValueError(f"{key} must be like {present!r}; got {text!r}")
    return found


def from_config(config: Mapping[str, Any]) -> Experiment:
    """The experiment that a run's configuration describes; lists become tuples.

    Raises:
        ValueError: It describes none.

    Example:
        >>> from dataclasses import asdict
        >>> from_config(asdict(experiment("fig10"))) == experiment("fig10")
        True
    """
    try:
        values = dict(config)
        values["mode_sizes"] = tuple(values["mode_sizes"])
        values["matricizations"] = tuple(tuple(modes) for modes in values["matricizations"])
        return Experiment(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the configuration is none of an experiment ({error})") from None
