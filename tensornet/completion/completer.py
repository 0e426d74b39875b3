"""Completion of a tensor from some of its entries by a hierarchical tensor factorization, without forming the tensor."""

from __future__ import annotations

import inspect
import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tensornet.completion.batches import Batches, Prepared, Streamed
from tensornet.completion.fitting import Progress, Settings, Training
from tensornet.completion.refinement import refined
from tensornet.completion.smoothing import estimated_lengths
from tensornet.completion.sources import Block, MemoryEntries, Source, largest
from tensornet.completion.survey import Survey, scaled, survey, trained
from tensornet.distributed import ALONE, Processes
from tensornet.files.entries import open_entries
from tensornet.formats.ht import HT
from tensornet.htf import HTF
from tensornet.shape import Shape, make_shape
from tensornet.tree import ModeTree, Nested, Node

Smooth = Literal["auto"] | float | Mapping[int, float] | None
CHUNK = 2**18  # entries predicted at a time
LOOKED_AT = 2**20  # entries on the disk that tell which modes are ordered
LARGEST_RANK = 128  # that is chosen without being asked for
USUAL_PENALTY = 0.4  # where a mode is smooth
FAR = 100.0  # standard deviations that a mean may lie from 0 to be learned with the rest; it costs two digits


class TensorCompleter:
    """Learns a tensor from some of its entries, in scikit-learn's manners.

    A hierarchical tensor factorization is fitted to the observed entries, after these are centred and scaled. Along ordered modes
    (``smooth``), the columns of a leaf's weight have correlated rows, as those of a Gaussian process with the covariance
    ``exp(-distance / length)``. The minimized objective is, for ``n`` entries and *white* weights (those before they are correlated),

    ``mean |residual|^2 + penalty / n * ||white end tensor||^2 + weight_decay / n * sum ||white weight||^2``.

    The first penalty is the Gaussian process's, with ``penalty`` as the variance of the noise; the second prefers few local components.

    Args:
        tree: A mode tree; ``"auto"`` makes a star up to order 3, above it a binary tree that splits modes into halves of alike size.
        mode_sizes: Sizes of the modes; by default the largest index of each, plus 1.
        ranks: Numbers of local components, as in :class:`HTF`; ``"auto"`` trains no more weights than entries, and 128 at most, and
            then looks for low hierarchical ranks: what was learned is truncated, fitted again without penalties, and replaced where
            that predicts as well. It does so with entries in memory, 32 or more of them held out, without batches, and in one process.
        smooth: Correlation length of the modes: ``{mode: length}``, one for all modes, or ``None``. ``"auto"`` finds out which modes
            are ordered, by comparing neighbours with distant entries.
        penalty: See above; ``None`` for .4 where a mode is smooth, and 0 elsewhere.
        weight_decay: See above. With held-out entries, which choose the best state, it falls to a hundredth along the way.
        optimizer: ``"adam"``, or ``"group_rmsprop"`` for the adaptive step of Appendix D.2.1.
        lr: Learning rate at the beginning, by default .02 and .01; it falls to 0 along half a cosine.
        steps: Steps at most.
        batch_size: Entries of a step, in a random order; ``None`` for all entries in every step.
        validation: Share of the entries that are held out, and choose the best state; 262144 entries at most.
        patience: Records without a new best state after which training stops; there are about 100 records.
        init_scale: Standard deviation of the initial end tensor's entries, relative to that of the data.
        seed: Of the initial weights and of the held-out entries.
        dtype: Of the weights; that of complex values, and otherwise torch's default one, where absent.
        device: Where the computation runs.
        warm_start: Let :meth:`fit` continue from the state of the previous one, until ``steps`` in all are done.

    Attributes:
        htf_: The factorization of the tensor, less ``offset_`` and divided by ``scale_``.
        offset_: Mean of the observed entries; 0 where low hierarchical ranks were found, since a constant would cost one, unless
            the mean is a hundred times the standard deviation or more.
        scale_: Their standard deviation.
        error_: Mean squared error on the held-out entries, or on the others without any, in units of the variance.
        hierarchical_ranks_: The low ranks that were found, ``{node except the root: rank}`` (Definition 4); ``None`` where none were.
        lengths_: Correlation length of every mode.
        history_: A dictionary per record: ``step``, ``loss``, ``held_out``.
        state_: The last state, from which ``fit(..., state=...)`` continues.
        n_iter_: Steps done.
        interrupted_: Whether Ctrl-C ended the training.

    Example:
        >>> rows, columns = np.indices((30, 20)).reshape(2, -1)
        >>> indices, values = np.stack([rows, columns], 1), np.sin(rows / 3) * np.cos(columns / 4)
        >>> known = np.random.default_rng(0).random(600) < 0.3
        >>> completer = TensorCompleter(steps=100).fit(indices[known], values[known])
        >>> completer.complete().shape
        torch.Size([30, 20])
        >>> completer.score(indices[~known], values[~known]) > 0.9
        True
    """

    def __init__(
        self,
        tree: ModeTree | Literal["auto"] = "auto",
        *,
        mode_sizes: int | Sequence[int] | None = None,
        ranks: int | Mapping[Node, int] | Literal["auto"] = "auto",
        smooth: Smooth = "auto",
        penalty: float | None = None,
        weight_decay: float = 1.0,
        optimizer: str = "adam",
        lr: float | None = None,
        steps: int = 1000,
        batch_size: int | None = None,
        validation: float = 0.05,
        patience: int = 30,
        init_scale: float = 0.1,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        warm_start: bool = False,
    ) -> None:
        self.tree = tree
        self.mode_sizes = mode_sizes
        self.ranks = ranks
        self.smooth = smooth
        self.penalty = penalty
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.lr = lr
        self.steps = steps
        self.batch_size = batch_size
        self.validation = validation
        self.patience = patience
        self.init_scale = init_scale
        self.seed = seed
        self.dtype = dtype
        self.device = device
        self.warm_start = warm_start

    # scikit-learn's manners

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, scikit-learn calls it so
        """The arguments of the constructor, by name.

        Example:
            >>> TensorCompleter(steps=10).get_params()["steps"]
            10
        """
        return {name: getattr(self, name) for name in _parameters()}

    def set_params(self, **parameters: Any) -> TensorCompleter:
        """Sets arguments of the constructor; returns the completer itself.

        Raises:
            ValueError: There is no such argument.

        Example:
            >>> TensorCompleter().set_params(steps=10, seed=3).seed
            3
        """
        for name, value in parameters.items():
            if name not in _parameters():
                raise ValueError(f"TensorCompleter has no parameter {name!r}; it has {', '.join(_parameters())}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = {name: (getattr(self, name), usual) for name, usual in _parameters().items()}
        changed = [f"{name}={value!r}" for name, (value, usual) in given.items() if value is not usual and repr(value) != repr(usual)]
        return f"TensorCompleter({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools for models, such as ``GridSearchCV``, want to know: it is a regressor.

        Example:
            >>> TensorCompleter().__sklearn_tags__().estimator_type
            'regressor'
        """
        from sklearn.utils import RegressorTags, Tags, TargetTags

        return Tags(estimator_type="regressor", target_tags=TargetTags(required=True), regressor_tags=RegressorTags())

    # Fitting

    def fit(
        self,
        indices: Any,
        values: Any = None,
        *,
        held_out: tuple[Any, Any] | None = None,
        callback: Callable[[Progress], None] | None = None,
        state: Mapping[str, Any] | None = None,
        processes: Processes = ALONE,
    ) -> TensorCompleter:
        """Fits the factorization to observed entries; returns the completer itself.

        Entries that do not fit into memory are given as the path of a Parquet table, as the paths of two ``.npy`` files, or as a
        :class:`~tensornet.completion.sources.Source`. They are read block by block, in every step those that it needs.

        Ctrl-C ends the training; the best state so far is kept. After an error, everything is as it was before.

        Args:
            indices: ``(B, N)`` integers, or a path or source, see above.
            values: ``(B,)`` finite real or complex numbers, or the path of their file.
            held_out: Indices and values that choose the best state, instead of a share of the given ones.
            callback: Called at every record, in every process.
            state: State of an earlier call with the same data and parameters, to continue from.
            processes: Processes that share the entries of every step, see :func:`tensornet.distributed.processes`. All of them call
                this with the same arguments, and hold the same result.

        Raises:
            TypeError: Indices are no integers, values no numbers, complex values are to be learned by a real ``dtype``, or a parameter
                has a wrong type.
            ValueError: A shape does not fit, an index is out of range, a value is not finite, nothing is given, a file is no such
                file or truncated, a parameter is out of its range, or ``state`` is none of a factorization of these sizes.
            OSError: A file cannot be opened.
            ProcessEndedError: Another process has ended.
            OtherProcessError: Another process has failed.

        Example:
            >>> steps = []
            >>> indices, values = [[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0]
            >>> completer = TensorCompleter(steps=3).fit(indices, values, callback=lambda progress: steps.append(progress.step))
            >>> steps
            [1, 2, 3]
        """
        training, found, source = processes.together(lambda: self._prepared(indices, values, held_out, state, processes))
        finished = training.run(callback)
        htf, offset, error, ranks = training.best_htf(), found.offset, training.best["error"], None
        if finished and self._finds_ranks(source, processes):
            try:
                htf, offset, error, ranks = _refined(training, htf, source, found)
            except KeyboardInterrupt:
                finished = False
        self.interrupted_ = not finished
        self.offset_, self.scale_, self.lengths_ = offset, found.scale, training.settings.lengths
        self.state_ = training.snapshot
        self.history_ = training.history
        self.n_iter_ = training.snapshot["step"]
        self.htf_, self.error_, self.hierarchical_ranks_ = htf, error, ranks
        return self

    def predict(self, indices: Any) -> Tensor:
        """Predicted entries, shape ``(B,)``.

        Args:
            indices: ``(B, N)`` integers.

        Raises:
            RuntimeError: :meth:`fit` has not been called.
            TypeError: Indices are no integers.
            ValueError: Their shape is wrong, or one is out of range.

        Example:
            >>> completer = TensorCompleter(steps=5).fit([[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0])
            >>> completer.predict([[1, 1]]).shape
            torch.Size([1])
        """
        htf = self._fitted()
        given = _as_tensor("indices", indices)
        with torch.no_grad():
            parts = [htf.entries(part) for part in given.split(CHUNK)] if given.ndim == 2 else [htf.entries(given)]
        return torch.cat(parts) * self.scale_ + self.offset_

    def complete(self) -> Tensor:
        """The whole tensor, shape ``mode_sizes``; the only method that forms it.

        Raises:
            RuntimeError: :meth:`fit` has not been called.
            MemoryLimitError: The tensor does not fit into memory.

        Example:
            >>> TensorCompleter(steps=5).fit([[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0]).complete().shape
            torch.Size([2, 2])
        """
        htf = self._fitted()
        with torch.no_grad():
            return htf.contract() * self.scale_ + self.offset_

    def score(self, indices: Any, values: Any) -> float:
        """Coefficient of determination of the predictions: 1 minus mean squared error over variance.

        Raises:
            RuntimeError: :meth:`fit` has not been called.
            ValueError: A shape does not fit, or a value is not finite.

        Example:
            >>> indices, values = [[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0]
            >>> TensorCompleter(steps=5).fit(indices, values).score(indices, values) <= 1
            True
        """
        entries = _checked(indices, values)
        largest(entries, 0, None)  # complains of wrong entries
        rows, wanted = map(torch.from_numpy, entries)
        error = (self.predict(rows).cpu().to(wanted.dtype) - wanted).abs().square().mean()
        variance = (wanted - wanted.mean()).abs().square().mean()
        return float(1 - error / variance) if variance > 0 else float(error == 0)

    def _fitted(self) -> HTF:
        if not hasattr(self, "htf_"):
            raise RuntimeError("a TensorCompleter predicts after fit; call fit first")
        return self.htf_

    def _finds_ranks(self, source: Source, processes: Processes) -> bool:
        """Whether low ranks are looked for: where they are not given, and memory is no concern."""
        return isinstance(self.ranks, str) and isinstance(source, MemoryEntries) and self.batch_size is None and processes.size == 1

    def _prepared(
        self, indices: Any, values: Any, held_out: Any, state: Mapping[str, Any] | None, processes: Processes
    ) -> tuple[Training, Survey, Source]:
        """A training that is about to begin or to go on; whatever is wrong with the arguments is found here."""
        self._settings(())  # complains of wrong parameters first
        found, source = self._survey(indices, values, held_out, processes)
        dtype = self._dtype(found.rest[1].dtype.kind == "c" or isinstance(found.offset, complex))
        settings = self._settings(self._lengths(source, found))
        shape = self._shape(found.sizes, found.count)
        known, rest = self._batches(shape, source, found, dtype, processes)
        training = Training(shape, settings, found.count, known, rest, dtype=dtype, device=self.device, processes=processes)
        if state is None and self.warm_start:
            state = getattr(self, "state_", None)
        if state is not None:
            training.load(state)
        return training, found, source

    def _survey(self, indices: Any, values: Any, held_out: Any, processes: Processes) -> tuple[Survey, Source]:
        """What is known of the given entries, and where they come from."""
        source = processes.together(lambda: _source(indices, values))
        if held_out is None:
            sizes = self._sizes(source.order)
            return survey(source, share=self.validation, seed=self.seed, sizes=sizes, processes=processes), source
        if not isinstance(held_out, (tuple, list)) or len(held_out) != 2:
            raise TypeError(f"held_out must be a pair of indices and values; got {type(held_out).__name__}")
        rest = _checked(*held_out)
        if rest[0].shape[1] != source.order:
            raise ValueError(f"indices of held-out entries need as many columns as the others; got {rest[0].shape[1]} for {source.order}")
        sizes = self._sizes(source.order)
        most = largest(rest, 0, sizes)
        found = survey(source, share=0.0, seed=self.seed, sizes=sizes, processes=processes)
        return replace(found, rest=rest, sizes=tuple(map(max, found.sizes, (most + 1).tolist()))), source

    def _batches(
        self, shape: Shape, source: Source, found: Survey, dtype: torch.dtype, processes: Processes
    ) -> tuple[Batches, Batches | None]:
        """The entries to train on, and those that choose the best state."""
        place: dict[str, Any] = {"dtype": dtype, "device": torch.get_default_device() if self.device is None else self.device}
        rest = None
        if count := len(found.rest[1]):
            mine = slice(processes.share(count).start, processes.share(count).stop)
            rest = Prepared(shape, (found.rest[0][mine], scaled(found.rest[1][mine], found)), count, **place)
        if self.batch_size is None and isinstance(source, MemoryEntries):
            share = processes.share(found.count)
            indices, values = _joined(source, found)
            return Prepared(shape, (indices[share.start : share.stop], values[share.start : share.stop]), found.count, **place), rest
        return Streamed(shape, source, found, self.batch_size, seed=self.seed, processes=processes, **place), rest

    def _settings(self, lengths: tuple[float, ...]) -> Settings:
        penalty = self.penalty
        if penalty is None:
            penalty = USUAL_PENALTY if any(lengths) else 0.0
        return Settings(
            lengths,
            penalty=penalty,
            weight_decay=self.weight_decay,
            optimizer=self.optimizer,
            lr=self.lr,
            steps=self.steps,
            batch_size=self.batch_size,
            patience=self.patience,
            init_scale=self.init_scale,
            seed=self.seed,
        )

    def _dtype(self, is_complex: bool) -> torch.dtype:
        if self.dtype is None:
            usual = torch.get_default_dtype()
            return usual.to_complex() if is_complex else usual
        if not isinstance(self.dtype, torch.dtype):
            raise TypeError(f"dtype must be one of torch's; got {self.dtype!r}")
        if is_complex and not self.dtype.is_complex:
            raise TypeError(f"complex values need a complex dtype; got {self.dtype}")
        return self.dtype

    def _sizes(self, order: int) -> tuple[int, ...] | None:
        return None if self.mode_sizes is None else make_shape(ModeTree.star(order), self.mode_sizes, 1).mode_sizes

    def _shape(self, sizes: tuple[int, ...], count: int) -> Shape:
        tree = _halved(sizes) if isinstance(self.tree, str) and self.tree == "auto" else self.tree
        if not isinstance(tree, ModeTree):
            raise TypeError(f"tree must be a ModeTree or 'auto'; got {tree!r}")
        if tree.order != len(sizes):
            raise ValueError(f"indices need a column per mode of the tree; got {len(sizes)} for {tree.order} modes")
        if not isinstance(self.ranks, str):
            return make_shape(tree, sizes, self.ranks)
        if self.ranks != "auto":
            raise ValueError(f"ranks must be a number, a number per interior node, or 'auto'; got {self.ranks!r}")
        rank = LARGEST_RANK
        while rank > 1 and sum(math.prod(size) for size in make_shape(tree, sizes, rank).weights) > count:
            rank -= 1
        return make_shape(tree, sizes, rank)

    def _lengths(self, source: Source, found: Survey) -> tuple[float, ...]:
        sizes = found.sizes
        if self.smooth is None:
            return (0.0,) * len(sizes)
        if isinstance(self.smooth, str):
            if self.smooth != "auto":
                raise ValueError(f"smooth must be lengths, None or 'auto'; got {self.smooth!r}")
            indices, known = _joined(source, found, None if isinstance(source, MemoryEntries) else LOOKED_AT)
            return estimated_lengths(torch.from_numpy(indices.astype(np.int64)), torch.from_numpy(known), sizes)
        given = self.smooth if isinstance(self.smooth, Mapping) else dict.fromkeys(range(len(sizes)), self.smooth)
        for mode, length in given.items():
            if mode not in range(len(sizes)):
                raise ValueError(f"smooth names modes from 0 to {len(sizes) - 1}; got {mode!r}")
            if not isinstance(length, numbers.Real):
                raise TypeError(f"a correlation length must be a number; got {length!r} for mode {mode}")
        return tuple(float(given.get(mode, 0)) for mode in range(len(sizes)))


def _parameters() -> dict[str, Any]:
    found = inspect.signature(TensorCompleter.__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in found if parameter.name != "self"}


def _source(indices: Any, values: Any) -> Source:
    """Where the given entries come from."""
    if isinstance(indices, (str, os.PathLike)):
        return open_entries(indices, values)
    if values is None and all(hasattr(indices, name) for name in ("order", "edges", "read")):
        source: Source = indices
        return source
    return MemoryEntries(*_checked(indices, values))


def _refined(training: Training, htf: HTF, source: Source, found: Survey) -> tuple[HTF, complex, float, dict[Node, int] | None]:
    """What was learned, with low hierarchical ranks where these are as good: factorization, offset, error, and the ranks."""
    shift = found.offset / found.scale
    shift = shift if abs(shift) < FAR else 0.0
    rest, error = (found.rest[0], scaled(found.rest[1], found)), training.best["error"]
    ordered = [length > 0 for length in training.settings.lengths]
    low = refined(htf, shift, _joined(source, found), rest, error, steps=training.step, ordered=ordered)
    if low is None:
        return htf, found.offset, error, None
    dtype = htf.weight_list()[0].dtype
    result = HT(htf.tree, tuple(tensor.to(dtype) for tensor in low.tensor.tensors)).to_htf()
    with torch.no_grad():
        missed = result.entries(torch.as_tensor(rest[0])).cpu() - torch.as_tensor(rest[1] + shift)
    return result, 0.0 if shift else found.offset, float(missed.abs().square().mean()), low.tensor.ranks


def _joined(source: Source, found: Survey, most: int | None = None) -> Block:
    """The entries to train on, centred and scaled: all, or those of the first blocks that hold as many as ``most``."""
    ends = np.cumsum(found.lengths)
    blocks = range(len(ends) if most is None else min(len(ends), int(np.searchsorted(ends, most)) + 1))
    indices, values = zip(*(trained(source, found, block) for block in blocks))
    return np.concatenate(indices), np.concatenate(values)


def _checked(indices: Any, values: Any) -> Block:
    """Indices as int64 and values as float64 or complex128."""
    rows, entries = _as_tensor("indices", indices), _as_tensor("values", values)
    if rows.ndim != 2 or entries.ndim != 1 or len(rows) != len(entries):
        raise ValueError(f"indices need the shape (B, N) and values (B,); got {tuple(rows.shape)} and {tuple(entries.shape)}")
    if rows.dtype.is_floating_point or rows.dtype.is_complex or rows.dtype == torch.bool:
        raise TypeError(f"indices must be integers; got {rows.dtype}")
    if not rows.numel():
        raise ValueError(f"at least one observed entry is needed; got indices of the shape {tuple(rows.shape)}")
    rows, entries = (given.detach().cpu().resolve_conj().resolve_neg() for given in (rows, entries))
    return rows.to(torch.int64).numpy(), entries.to(torch.complex128 if entries.is_complex() else torch.float64).numpy()


def _as_tensor(name: str, given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given
    try:
        array = np.asarray(given)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))  # torch knows no other arrays
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be an array of numbers; got {type(given).__name__} that is none") from None


def _halved(sizes: Sequence[int]) -> ModeTree:
    """A star up to order 3; above, every node is cut where its two sides have the most even numbers of entries."""
    logs = [math.log(max(size, 1)) + 1e-9 for size in sizes]
    sums = [0.0]
    for log in logs:
        sums.append(sums[-1] + log)

    def cut(start: int, stop: int) -> Nested:
        if stop - start == 1:
            return start
        middle = min(range(start + 1, stop), key=lambda place: abs(sums[place] - (sums[start] + sums[stop]) / 2))
        return cut(start, middle), cut(middle, stop)

    nested = tuple(range(len(sizes))) if len(sizes) <= 3 else cut(0, len(sizes))
    return ModeTree.from_nested(nested)
