"""Completion of a tensor from some of its entries by a hierarchical tensor factorization, without forming the tensor."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tensornet.completion.fitting import Entries, Progress, Settings, Training
from tensornet.completion.smoothing import estimated_lengths
from tensornet.htf import HTF
from tensornet.shape import Shape, make_shape
from tensornet.tree import ModeTree, Nested, Node

Smooth = Literal["auto"] | float | Mapping[int, float] | None
CHUNK = 2**18  # entries predicted at a time
LARGEST_RANK = 128  # that is chosen without being asked for
USUAL_PENALTY = 0.4  # where a mode is smooth


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
        ranks: Numbers of local components, as in :class:`HTF`; ``"auto"`` takes no more weights than entries, and 128 at most.
        smooth: Correlation length of the modes: ``{mode: length}``, one for all modes, or ``None``. ``"auto"`` finds out which modes
            are ordered, by comparing neighbours with distant entries.
        penalty: See above; ``None`` for .4 where a mode is smooth, and 0 elsewhere.
        weight_decay: See above. With held-out entries, which choose the best state, it falls to a hundredth along the way.
        optimizer: ``"adam"``, or ``"group_rmsprop"`` for the adaptive step of Appendix D.2.1.
        lr: Learning rate at the beginning, by default .02 and .01; it falls to 0 along half a cosine.
        steps: Steps at most.
        validation: Share of the entries that are held out, and choose the best state.
        patience: Records without a new best state after which training stops; there are about 100 records.
        init_scale: Standard deviation of the initial end tensor's entries, relative to that of the data.
        seed: Of the initial weights and of the held-out entries.
        dtype: Of the weights; that of complex values, and otherwise torch's default one, where absent.
        device: Where the computation runs.
        warm_start: Let :meth:`fit` continue from the state of the previous one, until ``steps`` in all are done.

    Attributes:
        htf_: The factorization, of the centred and scaled tensor.
        offset_: Mean of the observed entries.
        scale_: Their standard deviation.
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
        changed = [f"{name}={getattr(self, name)!r}" for name, usual in _parameters().items() if getattr(self, name) != usual]
        return f"TensorCompleter({', '.join(changed)})"

    # Fitting

    def fit(
        self,
        indices: Any,
        values: Any,
        *,
        held_out: tuple[Any, Any] | None = None,
        callback: Callable[[Progress], None] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> TensorCompleter:
        """Fits the factorization to observed entries; returns the completer itself.

        Ctrl-C ends the training; the best state so far is kept. After an error, everything is as it was before.

        Args:
            indices: ``(B, N)`` integers.
            values: ``(B,)`` finite real or complex numbers.
            held_out: Indices and values that choose the best state, instead of a share of the given ones.
            callback: Called at every record.
            state: State of an earlier call with the same data and parameters, to continue from.

        Raises:
            TypeError: Indices are no integers, values no numbers, complex values are to be learned by a real ``dtype``, or a parameter
                has a wrong type.
            ValueError: A shape does not fit, an index is out of range, a value is not finite, nothing is given, a parameter is out of
                its range, or ``state`` is none of a factorization of these sizes.

        Example:
            >>> steps = []
            >>> indices, values = [[0, 0], [0, 1], [1, 0]], [1.0, 2.0, 2.0]
            >>> completer = TensorCompleter(steps=3).fit(indices, values, callback=lambda progress: steps.append(progress.step))
            >>> steps
            [1, 2, 3]
        """
        self._settings(())  # complains of wrong parameters first
        known = _checked(indices, values)
        if held_out is None:
            known, rest = _split(known, self.validation, self.seed)
        elif isinstance(held_out, (tuple, list)) and len(held_out) == 2:
            rest = _checked(*held_out)
        else:
            raise TypeError(f"held_out must be a pair of indices and values; got {type(held_out).__name__}")
        sizes = self._sizes(known[0], rest[0])
        offset = known[1].mean().item()
        scale = (known[1] - offset).abs().square().mean().sqrt().item() or 1.0
        dtype = self._dtype(known[1].is_complex() or rest[1].is_complex())
        known, rest = ((rows, (entries - offset) / scale) for rows, entries in (known, rest))
        settings = self._settings(self._lengths(known, sizes))
        training = Training(self._shape(sizes, len(known[1])), settings, known, rest, dtype=dtype, device=self.device)
        if state is None and self.warm_start:
            state = getattr(self, "state_", None)
        if state is not None:
            training.load(state)
        finished = training.run(callback)
        self.interrupted_ = not finished
        self.offset_, self.scale_, self.lengths_ = offset, scale, settings.lengths
        self.state_ = training.snapshot
        self.history_ = training.history
        self.n_iter_ = training.snapshot["step"]
        self.htf_ = training.best_htf()
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
        rows, wanted = _checked(indices, values)
        error = (self.predict(rows).cpu().to(wanted.dtype) - wanted).abs().square().mean()
        variance = (wanted - wanted.mean()).abs().square().mean()
        return float(1 - error / variance) if variance > 0 else float(error == 0)

    def _fitted(self) -> HTF:
        if not hasattr(self, "htf_"):
            raise RuntimeError("a TensorCompleter predicts after fit; call fit first")
        return self.htf_

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
            patience=self.patience,
            init_scale=self.init_scale,
            seed=self.seed,
        )

    def _dtype(self, is_complex: bool) -> torch.dtype | None:
        if self.dtype is None:
            return torch.get_default_dtype().to_complex() if is_complex else None
        if not isinstance(self.dtype, torch.dtype):
            raise TypeError(f"dtype must be one of torch's; got {self.dtype!r}")
        if is_complex and not self.dtype.is_complex:
            raise TypeError(f"complex values need a complex dtype; got {self.dtype}")
        return self.dtype

    def _sizes(self, known: Tensor, rest: Tensor) -> tuple[int, ...]:
        if rest.shape[1] != known.shape[1]:
            raise ValueError(f"indices of held-out entries need as many columns as the others; got {rest.shape[1]} for {known.shape[1]}")
        largest = torch.cat([known, rest]).amax(0)
        if self.mode_sizes is None:
            return tuple((largest + 1).tolist())
        sizes = make_shape(ModeTree.star(known.shape[1]), self.mode_sizes, 1).mode_sizes
        for mode, (size, index) in enumerate(zip(sizes, largest.tolist())):
            if index >= size:
                raise ValueError(f"indices must be from 0 to below the mode's size; got {index} for mode {mode} of size {size}")
        return sizes

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

    def _lengths(self, known: Entries, sizes: tuple[int, ...]) -> tuple[float, ...]:
        if self.smooth is None:
            return (0.0,) * len(sizes)
        if isinstance(self.smooth, str):
            if self.smooth != "auto":
                raise ValueError(f"smooth must be lengths, None or 'auto'; got {self.smooth!r}")
            return estimated_lengths(*known, sizes)
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


def _checked(indices: Any, values: Any) -> Entries:
    """Indices as int64 and values as float64 or complex128, both on the CPU."""
    rows, entries = _as_tensor("indices", indices), _as_tensor("values", values)
    if rows.ndim != 2 or entries.ndim != 1 or len(rows) != len(entries):
        raise ValueError(f"indices need the shape (B, N) and values (B,); got {tuple(rows.shape)} and {tuple(entries.shape)}")
    if rows.dtype.is_floating_point or rows.dtype.is_complex or rows.dtype == torch.bool:
        raise TypeError(f"indices must be integers; got {rows.dtype}")
    if not rows.numel():
        raise ValueError(f"at least one observed entry is needed; got indices of the shape {tuple(rows.shape)}")
    rows, entries = (given.detach().cpu() for given in (rows, entries))
    rows, entries = rows.to(torch.int64), entries.to(torch.complex128 if entries.is_complex() else torch.float64)
    if not torch.isfinite(entries).all():
        raise ValueError(f"values must be finite, and missing entries left out; got {entries[~torch.isfinite(entries)][0].item()}")
    if rows.min() < 0:
        raise ValueError(f"indices must be from 0 to below the mode's size; got {int(rows.min())}")
    return rows, entries


def _as_tensor(name: str, given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given
    try:
        array = np.asarray(given)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))  # torch knows no other arrays
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be an array of numbers; got {type(given).__name__} that is none") from None


def _split(entries: Entries, share: float, seed: int) -> tuple[Entries, Entries]:
    """The entries to train on and those held out."""
    if not isinstance(share, numbers.Real):
        raise TypeError(f"validation must be a number; got {share!r}")
    if not 0 <= share < 1:
        raise ValueError(f"validation must be a share from 0 to below 1; got {share}")
    count = len(entries[1])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first = min(int(count * share), count - 1)
    return (entries[0][order[first:]], entries[1][order[first:]]), (entries[0][order[:first]], entries[1][order[:first]])


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
