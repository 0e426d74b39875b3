"""Saved objects: factorizations, hierarchical Tucker formats, and completers with all that they have learned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensornet.checks import line
from tensornet.completion.completer import TensorCompleter
from tensornet.evaluation import circuit
from tensornet.files.storage import read_one_of, write_nested
from tensornet.formats.ht import HT
from tensornet.htf import HTF
from tensornet.tree import ModeTree, Nested, Node

LEARNED = (
    "offset_",
    "scale_",
    "lengths_",
    "history_",
    "state_",
    "n_iter_",
    "interrupted_",
    "error_",
    "hierarchical_ranks_",
)  # besides the factorization


def save(path: str | os.PathLike[str], obj: HTF | HT | TensorCompleter) -> None:
    """Writes a factorization, a hierarchical Tucker format or a completer to a safetensors file, atomically; :func:`load` reads it.

    Of a factorization, tree, weights, pooling, a fixed root, which nodes share a weight and which weights are frozen are kept. Of a
    completer, its parameters but the device, and everything that it has learned.

    Raises:
        TypeError: ``obj`` is none of them, its weights are of a type that :meth:`HTF.from_weights` does not take, or a parameter is no
            number, string, tree or collection of them.
        ValueError: A weight is not finite.
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
        >>> htf = HTF(ModeTree.chain(4), mode_sizes=3, ranks=2)
        >>> save(path, htf)
        >>> torch.equal(load(path).contract(), htf.contract())
        True
    """
    if isinstance(obj, TensorCompleter):
        write_nested(path, _completer_state(obj), kind="TensorCompleter")
    elif isinstance(obj, HTF):
        write_nested(path, _state(obj), kind="HTF")
    elif isinstance(obj, HT):
        state = {**_tree_state(obj.tree), "tensors": list(obj.tensors), "error_bound": obj.error_bound}
        write_nested(path, state, kind="HT")
    else:
        raise TypeError(f"save writes an HTF, an HT or a TensorCompleter; got {type(obj).__name__}")


def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Any:
    """The object that :func:`save` wrote, with its tensors on the given device.

    Raises:
        ValueError: The file is truncated, of another program, or its weights do not fit together.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "completer.safetensors")
        >>> completer = TensorCompleter(steps=5).fit([[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0])
        >>> save(path, completer)
        >>> torch.equal(load(path).predict([[1, 1]]), completer.predict([[1, 1]]))
        True
    """
    kind, state = read_one_of(path, ["HTF", "HT", "TensorCompleter"], device=device)
    try:
        if kind == "HT":
            return HT(_tree(state), tuple(state["tensors"]), float(state["error_bound"]))
        return _htf(state) if kind == "HTF" else _completer(state, device)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{os.fspath(path)} is damaged ({line(error)})") from None


# Factorizations


def _state(htf: HTF) -> dict[str, Any]:
    with torch.enable_grad():  # weights that are computed anew are as trainable as what they are computed from
        weights = htf.weight_list()
    HTF.from_weights(htf.tree, dict(zip(htf.tree.nodes, weights)))  # nothing is written that could not be loaded
    return {
        **_tree_state(htf.tree),
        "weights": weights,
        "trained": [weight.requires_grad for weight in weights],
        "fixed_root": htf.fixed_root,
        "pooling": htf.combination.pooling,
        "activation": htf.combination.activation,
    }


def _htf(state: Mapping[str, Any]) -> HTF:
    tree = _tree(state)
    fixed_root = bool(state["fixed_root"])
    trained = state.get("trained", [True] * len(tree.nodes))  # as in files that do not say
    pairs = zip(state["weights"], trained, strict=True)
    known = {id(weight): nn.Parameter(weight, requires_grad=bool(grad)) for weight, grad in pairs}
    weights: dict[Node, Tensor] = {node: known[id(weight)] for node, weight in zip(tree.nodes, state["weights"], strict=True)}
    if fixed_root:
        weights[tree.root] = state["weights"][-1]
    combination = circuit.combination(state["pooling"], state["activation"])
    return HTF.from_weights(tree, weights, fixed_root=fixed_root, pooling=combination.pooling, activation=combination.activation)


def _tree_state(tree: ModeTree) -> dict[str, Any]:
    return {"order": tree.order, "children": [list(below) for below in tree.child_ids[tree.order :]]}


def _tree(state: Mapping[str, Any]) -> ModeTree:
    nested: list[Nested] = list(range(state["order"]))
    for below in state["children"]:
        nested.append(tuple(nested[child] for child in below))
    return ModeTree.from_nested(nested[-1])


# Completers


def _completer_state(completer: TensorCompleter) -> dict[str, Any]:
    parameters = {name: _plain(value) for name, value in completer.get_params().items() if name != "device"}
    state: dict[str, Any] = {"parameters": parameters, "learned": None}
    if hasattr(completer, "htf_"):
        learned = {name: getattr(completer, name) for name in LEARNED}
        learned["offset_"] = torch.as_tensor(np.asarray(completer.offset_))  # may be complex
        state["learned"] = {**learned, "htf_": _state(completer.htf_)}
    return state


def _completer(state: Mapping[str, Any], device: torch.device | str) -> TensorCompleter:
    parameters = dict(state["parameters"])
    if isinstance(parameters["tree"], dict):
        parameters["tree"] = _tree(parameters["tree"])
    if parameters["dtype"] is not None:
        parameters["dtype"] = getattr(torch, parameters["dtype"].removeprefix("torch."))
    completer = TensorCompleter(**parameters, device=device)
    if (learned := state["learned"]) is not None:
        for name in LEARNED:
            setattr(completer, name, learned.get(name))
        completer.offset_ = learned["offset_"].item()
        completer.htf_ = _htf(learned["htf_"])
    return completer


def _plain(value: Any) -> Any:
    """A parameter as data."""
    if isinstance(value, ModeTree):
        return _tree_state(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, torch.dtype) else value
