"""A device that is pretended: its tensors hold ordinary ones, and refuse what tensors on a GPU refuse.

It goes by the name of torch's ``meta`` device, the only one without hardware that automatic differentiation goes through. Code that asks
whether a device is called ``cuda`` is told that this one is not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
CROSSING = ("_to_copy", "copy_", "_foreach_copy_")  # go from one device to another
JOINING = ("cat", "stack")  # which take no numbers from the CPU
INDEXING = ("index", "index_put_")  # of tensors on the device, with indices from anywhere
_GENERATORS = SimpleNamespace(get_rng_state=lambda _: torch.get_rng_state(), set_rng_state=lambda state, _: torch.set_rng_state(state))


class There(Tensor):
    """A tensor on the pretended device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, held: Tensor) -> There:
        """The tensor on the device that holds this one."""
        made: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    @property
    def data(self) -> Tensor:
        """The tensor without its history; to set it moves the tensor to the other one's memory."""
        return self.detach()

    @data.setter
    def data(self, other: There) -> None:
        self.held = other.held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Does an operation on tensors that are there."""
        return _call(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """While it lasts, tensors can be on this device.

    Example:
        >>> with pretended_device() as device:
        ...     (torch.ones(2, device=device) + 1).tolist()
        [2.0, 2.0]
    """
    ways_around = {  # those of torch that a device cannot see
        "autocast": _Autocast,
        "is_autocast_enabled": lambda kind="cpu", ask=torch.is_autocast_enabled: ask(_hardware(kind)),
        "get_autocast_dtype": lambda kind, ask=torch.get_autocast_dtype: ask(_hardware(kind)),
        "get_device_module": lambda device=None, ask=torch.get_device_module: _GENERATORS if device == DEVICE else ask(device),
        "tensor": _created_by(torch.tensor),
        "as_tensor": _created_by(torch.as_tensor),
    }
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")  # a no-op on the true meta device
        for name, way in ways_around.items():
            stack.enter_context(patch.object(torch, name, way))
        stack.enter_context(patch.object(Tensor, "tolist", lambda tensor, read=Tensor.tolist: read(_held(tensor.detach()))))
        stack.enter_context(patch.object(Tensor, "numpy", _numpy(Tensor.numpy)))
        stack.enter_context(_Factories())
        yield DEVICE


def _hardware(kind: str) -> str:
    return "cpu" if kind == DEVICE.type else kind


class _Autocast(torch.autocast):
    def __init__(self, kind: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(_hardware(kind), *args, **kwargs)


def _created_by(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda data, *, device=None, **kwargs: create(data, **kwargs).to(device) if device is not None else create(data, **kwargs)


def _numpy(read: Callable[..., Any]) -> Callable[..., Any]:
    def numpy(tensor: Tensor, **kwargs: Any) -> Any:
        assert tensor.device != DEVICE, "an array of a tensor on the device"
        return read(tensor, **kwargs)

    return numpy


def _held(value: Any) -> Any:
    return value.held if isinstance(value, There) else value


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Does an operation with what tensors on the device hold, if a GPU would do it."""
    name = func.overloadpacket.__name__
    there = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, There)]
    onto = _result_is_there(name, args, kwargs, there)
    together = (args[:1], args[2:]) if name in INDEXING and isinstance(args[0], There) else (args, kwargs)
    tensors = [leaf for leaf in tree_leaves(together) if isinstance(leaf, Tensor)]
    places = {leaf.device for leaf in tensors if isinstance(leaf, There) or leaf.ndim or name in JOINING}  # numbers come from the CPU
    assert len(places) <= 1 or name in CROSSING, f"{func} of tensors on the CPU and on the device"
    assert not (onto and kwargs.get("generator")), f"{func} on the device with a generator of the CPU"
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    known = {id(tensor.held): tensor for tensor in there}  # operations in place return what they were given

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else There(value) if onto else value

    made = tree_map(placed, found)
    return return_and_correct_aliasing(func, args, kwargs, made) if onto and there else made


def _result_is_there(name: str, args: Any, kwargs: dict[str, Any], there: list[There]) -> bool:
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]) == DEVICE
    if name == "copy_":
        return isinstance(args[0], There)
    return bool(there) and name != "_local_scalar_dense"
