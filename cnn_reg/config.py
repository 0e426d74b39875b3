"""What determines a training run: a frozen dataclass that validates itself, and named presets; the only place with defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tensornet.checks import choice, integer, real, short

DATASETS = ("pathfinder", "same-class")
MODELS = ("resnet18", "resnet34")
COSINES = ("absolute", "squared", "signed")
STOP_GRADIENTS = ("none", "first", "second")
PERMUTATIONS = ("cyclic", "random")
BATCH_NORMS = ("update", "frozen", "eval")
PRECISIONS = ("float32", "bfloat16")
DISTANCES = range(161)  # of Is Same Class, in pixels
PATH_LENGTHS = range(3, 21)  # of Pathfinder, in paddles


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, whose defaults are the paper's recipe for Pathfinder (Appendix D.2.2).

    Where and how fast a run is done is no part of it: devices, processes, folders and displays are arguments of the training.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is out of its range, or values do not fit together.

    Example:
        >>> config = Config(path_length=9, coefficient=3)
        >>> config.batch_size, config.epochs, config.patience
        (64, 150, 20)
        >>> Config(dataset="pathfnder")
        Traceback (most recent call last):
            ...
        ValueError: unknown dataset 'pathfnder' (did you mean pathfinder?); choose from pathfinder, same-class
    """

    # data
    dataset: str = "pathfinder"
    path_length: int = 7  # of Pathfinder, in paddles
    matched: bool = False  # Pathfinder whose circles have the same distances in both classes
    distance: int = 160  # of Is Same Class, in pixels between the images
    source: str = "cifar10"  # of Is Same Class
    train_images: int = 10000
    validation_images: int = 0  # further images like those of the training, which choose the best epoch
    test_images: int = 10000
    image_size: int = 150  # side of the images, which are made at 300 for Pathfinder and at 224 for Is Same Class
    data_seed: int = 0
    # network
    model: str = "resnet18"  # or package:function
    width: float = 1.0  # share of the channels of the network
    dropout: float = 0.0
    # penalty
    coefficient: float = 9.0
    warmup: int = 0  # first epochs, over which the coefficient grows from 0
    penalty_every: int = 1  # steps
    patch_size: int = 2  # side of Pathfinder's regions
    pairs: int = 1  # of regions a step
    cosine: str = "absolute"  # this and the next: see gradient_direction_penalty
    stop_gradient: str = "none"
    permutation: str = "cyclic"
    batch_norm: str = "update"
    same_dropout: bool = False
    observe_every: int = 50  # steps between measurements of |cos| in an epoch without penalty
    # recipe
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 64
    accumulate: int = 1  # parts in which a batch passes the network, one after the other
    epochs: int = 150
    patience: int = 20  # epochs of perfect training accuracy after which the training ends; 0 for never
    seed: int = 0
    # arithmetic
    precision: str = "float32"  # of the network; the cosine is always computed in float32
    channels_last: bool = False
    tf32: bool = False
    deterministic: bool = False  # operations that give the same bits every time also on CUDA, or an error
    compile: bool = False  # the network, where nothing is differentiated twice

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field.name, str(field.type), getattr(self, field.name)))
        choice("dataset", self.dataset, DATASETS)
        if ":" not in self.model:
            choice("model", self.model, MODELS, " or package:function")
        choice("cosine", self.cosine, COSINES)
        choice("stop_gradient", self.stop_gradient, STOP_GRADIENTS)
        choice("permutation", self.permutation, PERMUTATIONS)
        choice("batch_norm", self.batch_norm, BATCH_NORMS)
        choice("precision", self.precision, PRECISIONS)
        self._check_data()
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate cannot exceed batch_size; got {self.accumulate} parts of {self.batch_size} images")
        if self.batch_size < 2 * self.accumulate and self.coefficient:
            raise ValueError(
                f"the penalty needs at least 2 images in a part of a batch; got batch_size {self.batch_size} in {self.accumulate}"
            )
        if self.compile and self.coefficient:
            raise ValueError("compile needs coefficient 0: compiled networks cannot be differentiated twice")

    def _check_data(self) -> None:
        if self.dataset == "pathfinder":
            if self.path_length not in PATH_LENGTHS:
                raise ValueError(f"path_length must be from {PATH_LENGTHS[0]} to {PATH_LENGTHS[-1]}; got {self.path_length}")
            if 2 * self.patch_size > self.image_size:
                raise ValueError(f"patch_size must be at most half of image_size; got {self.patch_size} for {self.image_size}")
        elif self.distance not in DISTANCES:
            raise ValueError(f"distance must be from 0 to {DISTANCES[-1]}; got {self.distance}")
        elif self.matched:
            raise ValueError("matched is for pathfinder; got it for same-class")


_LEAST = {  # of integers; 0 for those that are not listed
    "train_images": 2,
    "test_images": 1,
    "image_size": 8,
    "penalty_every": 1,
    "patch_size": 1,
    "pairs": 1,
    "observe_every": 1,
    "batch_size": 1,
    "accumulate": 1,
    "epochs": 1,
}
_BELOW = {"dropout": 1.0, "momentum": 1.0}  # of real numbers


def _checked(name: str, kind: str, value: Any) -> Any:
    if kind == "int":
        return integer(name, value, _LEAST.get(name, 0))
    if kind == "float":
        number = real(name, value, *([_BELOW[name]] if name in _BELOW else []))
        if name in ("width", "learning_rate") and number == 0:
            raise ValueError(f"{name} must be above 0; got {value}")
        return number
    if not isinstance(value, bool if kind == "bool" else str):
        raise TypeError(
            f"{name} must be {'true or false' if kind == 'bool' else 'a text'}; got {short(value)} of type {type(value).__name__}"
        )
    return value


# Presets

_SAME_CLASS = {"train_images": 5000, "image_size": 224, "coefficient": 1.0}  # where the paper's recipe differs from Pathfinder's
_RESNET34 = {"accumulate": 2}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "quick": {
        "path_length": 3,
        "test_images": 1000,
        "image_size": 64,
        "width": 0.25,
        "coefficient": 1.0,
        "penalty_every": 8,
        "learning_rate": 0.02,
        "epochs": 8,
        "channels_last": True,
    },
    "study": {
        "path_length": 5,
        "train_images": 4000,
        "test_images": 1000,
        "image_size": 100,
        "width": 0.25,
        "coefficient": 3.0,
        "epochs": 24,
        "channels_last": True,
    },
}


def preset(name: str, **changes: Any) -> Config:
    """A named configuration with some fields changed.

    ``paper`` is the published recipe of the chosen data set and network, ``quick`` takes about two minutes on two cores, and ``study``
    is a regime where the effect of the penalty shows on a CPU.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: The preset or a field is unknown, or a value is wrong.

    Example:
        >>> preset("paper", dataset="same-class", model="resnet34").accumulate
        2
        >>> preset("papr")
        Traceback (most recent call last):
            ...
        ValueError: unknown preset 'papr' (did you mean paper?); choose from paper, quick, study
    """
    fields = dict(PRESETS[choice("preset", name, PRESETS)])
    for field in changes:
        choice("field", field, FIELDS)
    if changes.get("dataset") == "same-class":
        fields = {**_SAME_CLASS, **fields}
    if changes.get("model") == "resnet34":
        fields = {**_RESNET34, **fields}
    return Config(**{**fields, **changes})


FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Config)}  # name -> int, float, bool or str


def parse_field(text: str) -> tuple[str, Any]:
    """The name and value of a field that is written as ``name=value``.

    Raises:
        ValueError: The field is unknown, or the value is of another type.

    Example:
        >>> parse_field("learning_rate=0.1"), parse_field("matched=true")
        (('learning_rate', 0.1), ('matched', True))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"a field is set as name=value; got {text!r}")
    kind = FIELDS[choice("field", name.strip().replace("-", "_"), FIELDS)]
    name, value = name.strip().replace("-", "_"), value.strip()
    try:
        if kind == "bool":
            return name, {"true": True, "false": False}[value.lower()]
        return name, {"int": int, "float": float, "str": str}[kind](value)
    except (KeyError, ValueError):
        needed = {"bool": "true or false", "int": "an integer", "float": "a number"}[kind]
        raise ValueError(f"{name} must be {needed}; got {value!r}") from None


def as_dict(config: Config) -> dict[str, Any]:
    """The fields that matter for a configuration's data set, by name: what a run's folder keeps.

    Example:
        >>> "distance" in as_dict(Config()), as_dict(Config())["path_length"]
        (False, 7)
    """
    other = ("distance", "source") if config.dataset == "pathfinder" else ("path_length", "matched", "patch_size")
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in other}


def from_dict(fields: Any) -> Config:
    """The configuration that :func:`as_dict` gave, with the defaults of the fields that it leaves out.

    Raises:
        ValueError: It is none: no dictionary, a field is unknown, or a value is wrong.

    Example:
        >>> from_dict(as_dict(Config(path_length=9))) == Config(path_length=9)
        True
        >>> from_dict({"seed": 0, "colour": "red"})
        Traceback (most recent call last):
            ...
        ValueError: no configuration of a training: unknown field 'colour'
    """
    if not isinstance(fields, dict):
        raise ValueError(f"no configuration of a training: {short(fields)}")
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise ValueError(f"no configuration of a training: unknown field {', '.join(map(repr, unknown))}")
    try:
        return Config(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"no configuration of a training: {error}") from None


def run_id(config: Config, version: str) -> str:
    """A short name of a configuration and a version, the same in every process: what a run is known by.

    Example:
        >>> run_id(Config(), "0.1.0") == run_id(Config(distance=0), "0.1.0")  # Pathfinder has no distance
        True
        >>> run_id(Config(), "0.1.0") == run_id(Config(seed=1), "0.1.0")
        False
    """
    text = json.dumps([as_dict(config), version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
