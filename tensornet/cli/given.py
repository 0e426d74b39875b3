"""What ``tensornet complete`` is given: entries that are read or stay on the disk, checked before any work is done."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tensornet.contraction.execute import available_memory
from tensornet.files import partial, tables
from tensornet.files.entries import open_entries
from tensornet.files.partial import Partial
from tensornet.files.pictures import photograph

Entries = tuple[NDArray[Any], NDArray[Any]]  # indices (B, N) and values (B,)
SHARE = 0.3  # of the photograph's pixels that are known
STATE_BYTES = 32  # for every weight: itself, its gradient, and copies in the optimizer and in the states that are kept
LEARNED = ".safetensors"  # ends the names of files that hold what was learned


@dataclass(frozen=True)
class Given:
    """What the command learns from.

    Attributes:
        given: Indices and values, or a source of them, as ``TensorCompleter.fit`` takes them.
        text: What they are.
        digest: Computes what identifies them.
        held_out: Entries that choose the best state, where they are not chosen at random.
        known: What the file holds, where it was read.
        hidden: Entries that are hidden from the learner.
    """

    given: tuple[Any, ...]
    text: str
    digest: Callable[[], Any]
    held_out: Entries | None = None
    known: Partial | None = None
    hidden: Entries = (np.zeros((0, 0)), np.zeros(0))


def read_given(arguments: Any, held_out_share: float) -> Given:
    """Reads the entries, and checks all that can be checked before any work is done.

    Args:
        arguments: Those of the command.
        held_out_share: Share of a picture's known pixels that chooses the best state.

    Raises:
        ValueError: A file holds something else, or arguments do not fit together.
        OSError: A file cannot be read.

    Example:
        >>> import argparse, tempfile
        >>> path = Path(tempfile.mkdtemp(), "grid.npy")
        >>> np.save(path, np.array([[1.0, np.nan], [3.0, 4.0]]))
        >>> arguments = argparse.Namespace(file=path, out=path.with_name("out.npy"), fraction=None, mask=None, seed=0)
        >>> arguments.ranks = arguments.tree = arguments.smooth = None
        >>> read_given(arguments, 0.02).text
        '2 x 2, 3 of 4 entries known'
    """
    fraction = arguments.fraction or (None if arguments.file else SHARE)
    known, hidden = _hide(_read(arguments), fraction, arguments.seed)
    _check_sizes(known, arguments.ranks or 1)
    _check_modes(arguments, len(known.sizes))
    if arguments.out:
        _check_other(arguments.out, arguments.file)
        _check_output(arguments.out, known)
    given, held_out = (known.indices, known.values), None
    if known.kind == "picture" and held_out_share:  # channel by channel, they would be too easy to predict from the other channels
        chosen = known.chosen(held_out_share, arguments.seed + 1)
        if not chosen.all():
            given, held_out = ((known.indices[where], known.values[where]) for where in (~chosen, chosen))
    text = f"{' x '.join(map(str, known.sizes))}, {len(known.values)} of {math.prod(known.sizes)} entries known"

    def digest() -> str:
        return hashlib.sha256(np.ascontiguousarray(known.indices).tobytes() + known.values.tobytes()).hexdigest()

    return Given(given, text, digest, held_out, known, hidden)


def open_given(arguments: Any) -> Given:
    """Opens the entries that stay on the disk.

    Args:
        arguments: Those of the command.

    Raises:
        ValueError: A file holds something else, or arguments do not fit together.
        OSError: A file cannot be read.

    Example:
        >>> import argparse, tempfile
        >>> path = Path(tempfile.mkdtemp(), "indices.npy")
        >>> np.save(path, np.array([[0, 1], [1, 0]]))
        >>> np.save(path.with_name("values.npy"), np.array([1.0, 2.0]))
        >>> arguments = argparse.Namespace(file=path, values=path.with_name("values.npy"), out=path.with_name("out.safetensors"))
        >>> arguments.mask = arguments.fraction = arguments.tree = arguments.smooth = None
        >>> open_given(arguments).text
        '2 entries of 2 modes, left on the disk'
    """
    if arguments.mask or arguments.fraction:
        raise ValueError("--mask and --fraction need entries in memory; leave them out, or --stream and --values")
    if not arguments.file or not arguments.out:
        raise ValueError("--stream and --values need a file to complete, and --out")
    if arguments.out.suffix.lower() != LEARNED:
        raise ValueError(f"what is learned from entries on the disk is written as {LEARNED}; got --out {arguments.out}")
    source = open_entries(arguments.file, arguments.values)
    partial.check_place(arguments.out)
    _check_modes(arguments, source.order)
    files = [path for path in (arguments.file, arguments.values) if path]

    def digest() -> list[str]:
        found = []
        for path in files:
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
        return found

    return Given((source,), f"{source.edges[-1]} entries of {source.order} modes, left on the disk", digest)


def _read(arguments: Any) -> Partial:
    if arguments.file is None:
        if arguments.mask:
            raise ValueError("--mask needs a file to complete")
        return Partial.of_array(photograph(), kind="picture")
    if not arguments.out:
        raise ValueError("--out is needed with a file to complete")
    given = partial.read(arguments.file, arguments.mask)
    if not arguments.fraction and given.wanted is None and len(np.unique(given.indices, axis=0)) == math.prod(given.sizes):
        raise ValueError(f"{arguments.file}: no entry is missing, so there is nothing to complete; --mask or --fraction can hide some")
    return given


def _hide(given: Partial, fraction: float | None, number: int) -> tuple[Partial, Entries]:
    """What to learn from, and the entries that are hidden from the learner."""
    keep = given.chosen(fraction, number) if fraction else np.ones(len(given.values), dtype=bool)
    return replace(given, indices=given.indices[keep], values=given.values[keep]), (given.indices[~keep], given.values[~keep])


def _check_modes(arguments: Any, order: int) -> None:
    if arguments.tree and arguments.tree.order != order:
        raise ValueError(f"--tree needs the {order} modes of the entries; got {arguments.tree.order}")
    if isinstance(arguments.smooth, dict) and len(arguments.smooth) != order:
        raise ValueError(f"--smooth needs one length or {order}, one a mode; got {len(arguments.smooth)}")


def _check_other(out: Path, file: Path | None) -> None:
    if file and out.exists() and out.samefile(file):
        raise ValueError(f"--out must be another file than the one to complete; got {out} for both")


def _check_output(path: Path, known: Partial) -> None:
    if partial.known_suffix(path, (*partial.SUFFIXES, LEARNED)) == LEARNED:
        partial.check_place(path)
        return
    partial.check_output(path, known.sizes)
    if path.suffix.lower() in tables.SUFFIXES:
        known.missing()
    elif 32 * math.prod(known.sizes) > available_memory(torch.device("cpu")):
        raise ValueError(f"an array of {' x '.join(map(str, known.sizes))} does not fit into memory; a table of the wanted entries may")


def _check_sizes(known: Partial, ranks: int) -> None:
    needed = STATE_BYTES * ranks * sum(known.sizes)
    if needed > available_memory(torch.device("cpu")):
        names = " x ".join(map(str, known.sizes))
        raise ValueError(f"the weights for {names} entries do not fit into memory; indices without gaps, or fewer --ranks, need less")
