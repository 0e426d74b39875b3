"""Files: atomic writing, and nested data with tensors.

A file written here is data, never code: tensors in safetensors' format, and the structure around them as JSON in its metadata, with a
checksum of both.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tensornet.checks import line

FORMAT = 2  # of the files written here and of those that can be read


# Atomic files


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file beside ``path`` to write to, which takes the place of ``path`` at the end of the block.

    Until then, and when the block fails, ``path`` stays as it was. The new file has the same suffix, and reaches the disk before it
    is renamed. A symbolic link stays, and what it points to is replaced.

    Raises:
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "numbers.txt")
        >>> with replacing(path) as new:
        ...     characters = new.write_text("1 2 3")
        >>> path.read_text()
        '1 2 3'
    """
    path = Path(path)
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"a file is to be written, but {path} is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    new = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}{path.suffix}")
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield new
        _flush(new)
        new.replace(path)
    except OSError as error:
        if error.filename is not None:
            raise
        text = f"{path} cannot be written ({error.strerror or line(error)})"  # a full disk names no file
        raise (OSError(error.errno, text) if error.errno else OSError(text)) from None
    finally:
        new.unlink(missing_ok=True)
    if os.name == "posix":
        _flush(path.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Writes ``data`` as JSON, atomically.

    Raises:
        TypeError: ``data`` holds something that JSON does not know.
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "config.json")
        >>> write_json(path, {"seed": 0})
        >>> read_json(path)
        {'seed': 0}
    """
    text = json.dumps(data, indent=2) + "\n"
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The data in a JSON file.

    Raises:
        ValueError: The file is no JSON.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "config.json")
        >>> characters = path.write_text('{"seed": 0}')
        >>> read_json(path)
        {'seed': 0}
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is no JSON file ({error})") from None


# Nested data with tensors


def write_nested(path: str | os.PathLike[str], data: Any, *, kind: str) -> None:
    """Writes nested data with tensors as a safetensors file, atomically.

    Args:
        path: Where to write.
        data: Dictionaries, lists, tuples, tensors, strings, numbers, booleans and ``None``, nested in any way. A tensor that occurs
            several times is written once.
        kind: What the data are; :func:`read_nested` asks for it.

    Raises:
        TypeError: Something else is in ``data``.
        OSError: The folder is missing, or cannot be written to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "state.safetensors")
        >>> write_nested(path, {"step": 3, "moments": [torch.ones(2, dtype=torch.complex64)]}, kind="state")
        >>> read_nested(path, kind="state")
        {'step': 3, 'moments': [tensor([1.+0.j, 1.+0.j])]}
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_encode(data, tensors, {}))
    header = {"format": FORMAT, "kind": kind, "checksum": _checksum(FORMAT, kind, structure, tensors)}
    metadata = {"tensornet": json.dumps(header), "structure": structure}
    with replacing(path) as new:
        usual = new.stat().st_mode
        try:
            save_file(tensors, new, metadata)
        except SafetensorError as error:
            raise OSError(line(error)) from None
        if new.stat().st_mode != usual:  # safetensors makes files that no one else may read
            new.chmod(usual)


def read_nested(path: str | os.PathLike[str], *, kind: str, device: torch.device | str = "cpu") -> Any:
    """The data that :func:`write_nested` wrote, with its tensors on the given device.

    Raises:
        ValueError: The file is truncated or damaged, of another program, or holds data of another kind.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "state.safetensors")
        >>> write_nested(path, {0: ("a", torch.arange(3))}, kind="state")
        >>> read_nested(path, kind="state")
        {0: ('a', tensor([0, 1, 2]))}
    """
    return read_one_of(path, [kind], device=device)[1]


def read_one_of(path: str | os.PathLike[str], kinds: Sequence[str], *, device: torch.device | str = "cpu") -> tuple[str, Any]:
    """Which of several kinds of data :func:`write_nested` wrote, and the data.

    Raises:
        ValueError: The file is truncated or damaged, of another program, or holds data of none of these kinds.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "state.safetensors")
        >>> write_nested(path, 3, kind="number")
        >>> read_one_of(path, ["state", "number"])
        ('number', 3)
    """
    name = os.fspath(path)
    with Path(name).open("rb"):  # safetensors reports a missing file and a folder in words of its own
        pass
    try:
        with safe_open(name, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dictionary
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{name} is no file of tensornet, or truncated ({line(error)})") from None
    try:
        header = json.loads(metadata["tensornet"])
        structure = json.loads(metadata["structure"])
        found, version, checksum = header["kind"], int(header["format"]), header.get("checksum")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError(f"{name} is a safetensors file, but not one of tensornet's") from None
    if version != FORMAT:
        raise ValueError(f"{name} has format {version}; this version of tensornet reads format {FORMAT}")
    if found not in kinds:
        raise ValueError(f"{name} holds a {found}; a {' or '.join(kinds)} is needed")
    if checksum != _checksum(version, found, metadata["structure"], tensors):
        raise ValueError(f"{name} is damaged (its checksum is another)")
    tensors = {key: tensor.to(device) for key, tensor in tensors.items()}
    try:
        return found, _decode(structure, tensors)
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ValueError(f"{name} is damaged ({line(error)})") from None


def _checksum(version: int, kind: str, structure: str, tensors: Mapping[str, Tensor]) -> int:
    """The CRC-32 of all that a file holds."""
    found = zlib.crc32(f"{version} {kind} {structure}".encode())
    for key in sorted(tensors):
        tensor = tensors[key].cpu()
        found = zlib.crc32(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, found)
    return found


def _encode(data: Any, tensors: dict[str, Tensor], known: dict[int, str]) -> Any:
    """JSON for ``data``, with every dictionary, tuple and tensor as ``{what: ...}``; fills ``tensors``."""
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if isinstance(data, list):
        return [_encode(item, tensors, known) for item in data]
    if isinstance(data, tuple):
        return {"tuple": [_encode(item, tensors, known) for item in data]}
    if isinstance(data, Mapping):
        return {"dict": [[_encode(part, tensors, known) for part in pair] for pair in data.items()]}
    if not isinstance(data, Tensor):
        raise TypeError(f"only tensors, numbers, strings and nested collections of them can be written; got {type(data).__name__}")
    if id(data) not in known:
        known[id(data)] = str(len(known))
        value = data.detach().resolve_conj().resolve_neg()
        value = torch.view_as_real(value) if value.is_complex() else value
        tensors[known[id(data)]] = value.clone(memory_format=torch.contiguous_format)
    return {"complex" if data.is_complex() else "tensor": known[id(data)]}


def _decode(data: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(data, list):
        return [_decode(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    ((what, given),) = data.items()
    if what == "dict":
        return {_decode(key, tensors): _decode(value, tensors) for key, value in given}
    if what == "tuple":
        return tuple(_decode(item, tensors) for item in given)
    if what == "complex":
        if not tensors[given].is_complex():  # once, so that what was one tensor is one again
            tensors[given] = torch.view_as_complex(tensors[given].clone())  # safetensors' memory is not aligned for complex numbers
        return tensors[given]
    if what == "tensor":
        return tensors[given]
    raise ValueError(f"unknown entry {what!r}")
