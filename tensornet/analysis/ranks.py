"""Matricization, hierarchical tensor rank, effective rank and separation rank (Definitions 3, 4 and 6).

Functions of arrays take torch tensors and NumPy arrays and return the same kind. Ranks and singular values come from singular value
decompositions of the matricizations themselves: through Gram matrices, singular values below ``sqrt(eps)`` would be noise.
Matricization is TensorLy's, on the backend of the given tensor in this thread alone; its process-wide backend is never set.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, SupportsIndex, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from tensornet.arrays import as_tensor, check_finite
from tensornet.checks import integer, real, short
from tensornet.formats.ht import HT
from tensornet.tree import ModeTree, Node, check_tree

Array = TypeVar("Array", Tensor, np.ndarray[Any, Any])


def matricize(tensor: Array, modes: Iterable[int]) -> Array:
    """The matricization ``[[W; I]]`` (Definition 3): modes ``I`` as rows, the others as columns.

    Rows and columns enumerate their modes in ascending order with the first mode fastest (footnote 7): of modes ``i_1 < i_2 < ...``,
    the entry ``W[d_0, d_1, ...]`` is in row ``d_{i_1} + d_{i_2} D_{i_1} + ...``, whichever order ``modes`` are given in.

    Args:
        tensor: Tensor of any order, of which this may be a view.
        modes: The modes ``I``; none, or all, give a single row or column.

    Returns:
        Matrix with the product of the sizes of ``I`` as rows.

    Raises:
        TypeError: ``tensor`` is no tensor or array, or a mode no integer.
        ValueError: A mode is out of range or repeated.

    Example:
        >>> matricize(torch.arange(8).reshape(2, 2, 2), [0, 2])
        tensor([[0, 2],
                [4, 6],
                [1, 3],
                [5, 7]])
    """
    if not isinstance(tensor, (Tensor, np.ndarray)):
        raise TypeError(f"tensor must be a torch tensor or a NumPy array; got {type(tensor).__name__}")
    chosen = _modes(modes, tensor.ndim)
    kept = [mode for mode, size in enumerate(tensor.shape) if size != 1]  # axes of size 1 count in torch's limit of 64
    if not kept:
        return tensor.reshape(1, 1)
    rows = [place for place, mode in enumerate(kept) if mode in chosen]
    columns = [place for place, mode in enumerate(kept) if mode not in chosen]
    with _tensorly_backend("pytorch" if isinstance(tensor, Tensor) else "numpy") as tensorly:
        return cast(Array, tensorly.base.matricize(tensor.squeeze(), rows[::-1], columns[::-1]))  # TensorLy's last mode is fastest


@contextmanager
def _tensorly_backend(name: str) -> Iterator[ModuleType]:
    """TensorLy with the given backend in this thread; its own context manager would set the process-wide backend when it ends."""
    import tensorly

    before = tensorly.get_backend()
    tensorly.set_backend(name, local_threadsafe=True)
    try:
        yield tensorly
    finally:
        tensorly.set_backend(before, local_threadsafe=True)


def hierarchical_singular_values(tensor: Array | HT, tree: ModeTree) -> dict[Node, Array]:
    """Singular values of the matricizations by all nodes but the root, descending: ``{node: (min(rows, columns),)}``.

    Differentiable where singular values are distinct. Integers are taken as float64, and half precision is computed in float32. Of a
    tensor in the hierarchical Tucker format of this tree, which is not formed, there are at most as many as its ranks.

    Raises:
        TypeError: ``tensor`` is no tensor or array, or ``tree`` no mode tree.
        ValueError: The order of ``tensor`` is not that of ``tree``, an entry is not finite, or the format's tree is another.

    Example:
        >>> values = hierarchical_singular_values(torch.ones(2, 2, 2), ModeTree.chain(3))
        >>> {node: [round(value, 3) for value in found.tolist()] for node, found in values.items()}
        {(0,): [2.828, 0.0], (1,): [2.828, 0.0], (2,): [2.828, 0.0], (0, 1): [2.828, 0.0]}
    """
    check_tree(tree)
    if isinstance(tensor, HT):
        if tensor.tree != tree:
            raise ValueError(f"tensor must be in the format of the same tree; got {short(tensor.tree.to_nested())}")
        return tensor.singular_values()  # type: ignore[return-value] # tensors, whatever the kind of arrays
    given = _as_torch("tensor", tensor)
    if given.dim() != tree.order:
        raise ValueError(f"tensor needs one axis per mode of the tree; got {given.dim()} axes for {tree.order} modes")
    check_finite("tensor", given)
    everything = frozenset(range(tree.order))
    known: dict[frozenset[int], Tensor] = {}  # a set of modes and its complement have transposed matricizations
    found = {}
    for node in tree.nodes[:-1]:
        modes = frozenset(node)
        if modes not in known:
            known[modes] = known[everything - modes] = torch.linalg.svdvals(matricize(given, node))
        found[node] = _like(known[modes], tensor)
    return found


def hierarchical_rank(tensor: Array, tree: ModeTree, *, rtol: float | None = None) -> dict[Node, int]:
    """The hierarchical tensor rank (Definition 4): numerical ranks of the matricizations by all nodes but the root.

    Args:
        tensor: Tensor with one axis per mode.
        tree: The mode tree.
        rtol: Singular values above ``rtol`` times the largest count; ``max(rows, columns) * eps`` by default.

    Raises:
        TypeError: ``tensor`` is no tensor or array, or ``tree`` no mode tree.
        ValueError: The order of ``tensor`` is not that of ``tree``, an entry is not finite, or ``rtol`` is negative.

    Example:
        >>> hierarchical_rank(torch.eye(4).reshape(2, 2, 2, 2), ModeTree.perfect(4))
        {(0,): 2, (1,): 2, (2,): 2, (3,): 2, (0, 1): 4, (2, 3): 4}
        >>> hierarchical_rank(torch.ones(2, 3, 2), ModeTree.chain(3))
        {(0,): 1, (1,): 1, (2,): 1, (0, 1): 1}
    """
    tolerance = _tolerance(rtol)
    given = _as_torch("tensor", tensor)
    values = hierarchical_singular_values(given, tree)
    return {node: _rank(found, _longest_side(given.shape, node), tolerance) for node, found in values.items()}


def effective_rank(singular_values: Tensor | np.ndarray[Any, Any]) -> Any:
    """The effective rank, a scalar: ``exp`` of the entropy (natural logarithm) of ``sigma / sum(sigma)`` (Roy and Vetterli 2007).

    It is from 1 to the number of non-zero values, ``k`` for ``k`` equal values, the same for multiples, and 0 for zeros alone.

    Args:
        singular_values: Vector of values of at least 0, in any order.

    Raises:
        TypeError: ``singular_values`` is no tensor or array of real numbers.
        ValueError: It is no vector, or a value is negative or not finite.

    Example:
        >>> effective_rank(torch.tensor([2.0, 2.0, 0.0]))
        tensor(2.)
    """
    values = _as_torch("singular_values", singular_values)
    if values.is_complex():
        raise TypeError(f"singular_values must be real; got {values.dtype}")
    if values.dim() != 1:
        raise ValueError(f"singular_values must be a vector; got the shape {tuple(values.shape)}")
    check_finite("singular_values", values)
    if (values < 0).any():
        raise ValueError(f"singular_values must be at least 0; got {values.min().item()}")
    if not values.any():
        return _like(values.sum(), singular_values)
    scaled = values / values.detach().amax()
    shares = scaled / scaled.sum()
    present = torch.where(shares > 0, shares, 1)  # 1 log 1 = 0, and no infinite gradient
    return _like(torch.exp(-(present * present.log()).sum()), singular_values)


def separation_rank(
    function: Callable[[list[Tensor]], Any],
    templates: Sequence[int | Tensor | np.ndarray[Any, Any]],
    subset: Iterable[int],
    *,
    rtol: float | None = None,
    batch_size: int = 4096,
    max_points: int = 10**7,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> int:
    """The separation rank of a function of ``N`` vectors with respect to a subset ``I`` of them (Definition 6), on a grid.

    Every input runs through its templates, and the result is the numerical rank of the values' matricization by ``I``. For a function
    that is linear in every input, such as a factorization's ``forward``, it is the separation rank where the templates of every
    input span the space, as the default ones do (Proposition 4). For all others it is a lower bound (Appendix E.10), which can only
    grow with further templates.

    Args:
        function: Takes a list of ``N`` tensors ``(B, D_n)`` and returns ``B`` numbers, as :meth:`tensornet.HTF.forward` does.
        templates: For every input either its size ``D_n``, for the standard basis vectors, or its templates ``(M_n, D_n)``.
        subset: The inputs ``I``.
        rtol: Singular values above ``rtol`` times the largest count, as in :func:`hierarchical_rank`.
        batch_size: Largest number ``B`` of points that are evaluated at once.
        max_points: Largest number of points of the grid, whose values are all held in memory.
        dtype: Type of basis vectors; torch's default one where absent.
        device: Where basis vectors are made; torch's default one where absent.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: Templates are no matrix, the grid has more than ``max_points`` points, a member of ``subset`` is out of range or
            repeated, or the function returns something else than one finite number a point.

    Example:
        >>> separation_rank(lambda x: x[0][:, 0] * x[1][:, 1] + x[0][:, 1] * x[1][:, 0], [2, 2], [0])
        2
        >>> line = torch.linspace(0, 1, 7, dtype=torch.float64).unsqueeze(1)
        >>> separation_rank(lambda x: (x[0] + x[1])[:, 0] ** 2, [line, line], [0])  # x^2 1 + 2 x y + 1 y^2
        3
    """
    tolerance = _tolerance(rtol)
    batch_size = integer("batch_size", batch_size, 1)
    max_points = integer("max_points", max_points, 1)
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a type of torch; got {short(dtype)}")
    if not isinstance(templates, Iterable):
        raise TypeError(f"templates needs one entry per input; got {short(templates)} of type {type(templates).__name__}")
    points = [_templates(place, given, dtype, device) for place, given in enumerate(templates)]
    rows = _modes(subset, len(points))
    sizes = [len(given) for given in points]
    count = math.prod(sizes)
    if not 1 <= count <= max_points:
        raise ValueError(f"the grid must have 1 to {max_points} points; got {sizes}")
    values = []
    for start in range(0, count, batch_size):
        numbers = torch.arange(start, min(start + batch_size, count), device="cpu")
        places = torch.unravel_index(numbers, sizes) if sizes else ()
        with torch.no_grad():
            result = function([given[place.to(given.device)] for given, place in zip(points, places)])
        batch = _as_torch("the function's result", result)
        if batch.shape != numbers.shape:
            raise ValueError(f"the function must return one number a point; got the shape {tuple(batch.shape)} for {len(numbers)} points")
        values.append(batch)
    grid = torch.cat(values).reshape(sizes)
    check_finite("the function's result", grid)
    return _rank(torch.linalg.svdvals(matricize(grid, rows)), _longest_side(grid.shape, rows), tolerance)


def _templates(place: int, given: object, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    if isinstance(given, (Tensor, np.ndarray)):
        points = _as_torch(f"templates[{place}]", given)
        if points.dim() != 2:
            raise ValueError(f"templates must be a matrix (M, D); got the shape {tuple(points.shape)} for input {place}")
        return points
    if isinstance(given, bool) or not isinstance(given, SupportsIndex):
        raise TypeError(f"templates must be matrices or input sizes; got {type(given).__name__} for input {place}")
    return torch.eye(integer(f"templates[{place}]", given, 1), dtype=dtype, device=device)


def _modes(modes: Iterable[int], order: int) -> list[int]:
    """The modes in ascending order, checked."""
    try:
        found = sorted(operator.index(mode) for mode in modes)
    except TypeError:
        raise TypeError(f"modes must be integers; got {modes!r}") from None
    if found and not 0 <= found[0] <= found[-1] < order:
        raise ValueError(f"modes must be from 0 to {order - 1}; got {found}")
    if len(set(found)) != len(found):
        raise ValueError(f"every mode is named once; got {found}")
    return found


def _as_torch(name: str, given: object) -> Tensor:
    """A tensor of a type that decompositions know."""
    if not isinstance(given, (Tensor, np.ndarray)):
        raise TypeError(f"{name} must be a torch tensor or a NumPy array; got {type(given).__name__}")
    tensor = as_tensor(name, given)
    if tensor.dtype.itemsize < 2 or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor.to(torch.float64)
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _like(result: Tensor, given: object) -> Any:
    """The result as the kind of array that was given; a scalar as NumPy's scalar."""
    return result.numpy()[()] if isinstance(given, np.ndarray) else result


def _tolerance(rtol: float | None) -> float | None:
    return None if rtol is None else real("rtol", rtol)


def _longest_side(sizes: Sequence[int], modes: Iterable[int]) -> int:
    rows = math.prod(sizes[mode] for mode in modes)
    return max(rows, math.prod(sizes) // max(rows, 1))


def _rank(values: Tensor, longest_side: int, rtol: float | None) -> int:
    """Number of singular values above the tolerance; by default numpy.linalg.matrix_rank's."""
    if not len(values):
        return 0
    tolerance = longest_side * torch.finfo(values.dtype).eps if rtol is None else rtol
    return int((values > tolerance * values[0]).sum())
