"""The hierarchical tensor factorization as a torch module: weights, initialisation, and delegation. No loss, no optimizer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from tensornet import graphs
from tensornet.analysis import components
from tensornet.arrays import as_tensor, check_finite, check_floating
from tensornet.checks import real, short
from tensornet.contraction import execute
from tensornet.contraction.costs import CPU, CUDA
from tensornet.contraction.network import Request
from tensornet.contraction.plan import Plan, make_plan
from tensornet.evaluation import circuit
from tensornet.formats.ht import HT
from tensornet.shape import Shape, make_shape, shape_of_weights
from tensornet.tree import ModeTree, Node

Initialisation = Literal["gaussian", "balanced"]


class HTF(nn.Module):
    """A hierarchical tensor factorization (Section 3.2, Equation 3) of any mode tree.

    Its weights are one matrix a node: ``(D_n, R_parent)`` for leaf ``n``, ``(R_node, R_parent)`` for an interior node and
    ``(R_root, outputs)`` for the root. They create the end tensor, and are at the same time the weights of the equivalent
    convolutional network (Appendix A).

    With a star as tree and ``fixed_root=True`` it is a CP (tensor) factorization; with a chain of single-child nodes over one of
    two leaves, also with ``fixed_root=True``, a matrix factorization whose depth is the number of trainable matrices.

    Args:
        tree: The mode tree.
        mode_sizes: ``D_n``: one for all modes or one a mode; 2 by default.
        ranks: ``R_node``: one for all interior nodes or ``{node: R_node}``; by default large enough for every end tensor.
        outputs: Number of outputs ``K``. Above 1, the end tensor has a last axis of size ``K``.
        init_std: Standard deviation of the initial weights. The default is the small start that the paper studies, under which a tree
            of 2N nodes begins with entries of about ``init_std ** (2 * N)``: gradients too small for optimizers with an epsilon, such
            as Adam. To train by these, start near ``1 / sqrt(rank)``; see docs/training.md.
        init: ``"gaussian"`` for independent normal weights; ``"balanced"`` rescales them so that all weight vectors of a local
            component have one norm (unbalancedness zero up to rounding, the idealisation of Theorem 1).
        fixed_root: The root's weight is a constant matrix of ones and not trained.
        shared: Nodes of one height whose weights have one shape share one weight (the "1 x 1 conv" of Appendix A).
        pooling: What combines the children of a node: ``"product"`` (the paper's), or ``"max"`` or ``"mean"`` for the
            generalized factorization of Cohen and Shashua 2016.
        activation: Applied to the children before pooling: ``None`` or ``"relu"``.
        generator: Source of randomness; torch's default one where absent.
        dtype: Real or complex floating type; torch's default one where absent.
        device: Where the weights are made.

    Attributes:
        tree: The mode tree.
        shape: Tree and all sizes, as the planning functions take them.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument is out of its range, or default ranks would be enormous.

    Example:
        >>> htf = HTF(ModeTree.perfect(4), mode_sizes=3, ranks=5)
        >>> htf.contract().shape
        torch.Size([3, 3, 3, 3])
        >>> htf.weights[(0, 1)].shape
        torch.Size([5, 5])
    """

    def __init__(
        self,
        tree: ModeTree,
        mode_sizes: int | Sequence[int] | None = None,
        ranks: int | Mapping[Node, int] | None = None,
        *,
        outputs: int = 1,
        init_std: float = 0.01,
        init: Initialisation = "gaussian",
        fixed_root: bool = False,
        shared: bool = False,
        pooling: circuit.Pooling = "product",
        activation: circuit.Activation = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        dtype = torch.get_default_dtype() if dtype is None else dtype
        check_floating("dtype", dtype)
        init_std = real("init_std", init_std)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator; got {short(generator)} of type {type(generator).__name__}")
        if init not in ("gaussian", "balanced"):
            raise ValueError(f"init must be 'gaussian' or 'balanced'; got {init!r}")
        self._setup(make_shape(tree, mode_sizes, ranks, outputs), circuit.combination(pooling, activation), fixed_root)
        place = torch.device(device) if device is not None else torch.get_default_device()
        drawn_on = generator.device if generator else place
        owners = _owners(self.shape) if shared else list(range(len(tree.nodes)))
        values: list[Tensor] = []
        for node, size in enumerate(self.shape.weights):
            if owners[node] != node:
                values.append(values[owners[node]])
            elif fixed_root and node == len(tree.nodes) - 1:
                values.append(torch.ones(size, dtype=dtype, device=place))
            else:
                values.append(torch.randn(size, generator=generator, dtype=dtype, device=drawn_on).mul_(init_std).to(place))
        if init == "balanced":
            if shared:
                raise ValueError("init='balanced' cannot hold for shared weights; use init='gaussian'")
            values = components.balanced(tree, values, fixed_root=fixed_root)
        self._register(values)

    @classmethod
    def from_weights(
        cls,
        tree: ModeTree,
        weights: Mapping[Node, Any],
        *,
        fixed_root: bool = False,
        pooling: circuit.Pooling = "product",
        activation: circuit.Activation = None,
    ) -> HTF:
        """Makes a factorization of given weight matrices, whose sizes determine mode sizes, ranks and outputs.

        Arrays and tensors without gradient are copied into new parameters. Parameters, frozen or not, and tensors that require a
        gradient are used as they are, so that gradients reach what they were computed from.

        Args:
            tree: The mode tree.
            weights: ``{node: matrix (R_node, R_parent)}`` for every node, of one dtype and on one device.
            fixed_root: The given root weight is not trained.
            pooling: As in the constructor.
            activation: As in the constructor.

        Raises:
            TypeError: A weight is no dense array, or of an integer type.
            ValueError: A node is missing or unknown, sizes, dtypes or devices do not fit, or a weight is not finite.

        Example:
            >>> weights = {(0,): [[1.0], [2.0]], (1,): [[3.0], [4.0]], (0, 1): [[1.0]]}
            >>> HTF.from_weights(ModeTree.star(2), weights).contract().tolist()
            [[3.0, 4.0], [6.0, 8.0]]
        """
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights must be a mapping from nodes to matrices; got {type(weights).__name__}")
        given = {node: _as_weight(f"the weight of node {short(node)}", value) for node, value in weights.items()}
        shape = shape_of_weights(tree, {node: tuple(value.shape) for node, value in given.items()})
        values = [given[node] for node in tree.nodes]
        for name in ("dtype", "device"):
            found = {getattr(value, name) for value in values}
            if len(found) > 1:
                raise ValueError(f"all weights must have one {name}; got {sorted(map(str, found))}")
        htf = cls.__new__(cls)
        nn.Module.__init__(htf)
        htf._setup(shape, circuit.combination(pooling, activation), fixed_root)
        htf._register(values)
        return htf

    @classmethod
    def from_cp(cls, weights: Any, factors: Sequence[Any], tree: ModeTree | None = None) -> HTF:
        """The factorization whose end tensor is ``sum_r weights[r] factors[0][:, r] o ... o factors[N-1][:, r]``, exactly.

        Args:
            weights: ``(R,)``; ``None`` for ones.
            factors: ``(D_n, R)`` for every mode, on one device. All weights get the type that holds them all.
            tree: Any mode tree over these modes, whose inner weights are identities; the star by default.

        Raises:
            TypeError: A factor is no dense array of floating-point numbers.
            ValueError: Sizes do not fit.

        Example:
            >>> HTF.from_cp([1.0, 2.0], [torch.eye(2), torch.eye(2)]).contract().tolist()
            [[1.0, 0.0], [0.0, 2.0]]
        """
        columns = [as_tensor(f"factor {mode}", factor) for mode, factor in enumerate(factors)]
        top = None if weights is None else as_tensor("weights", weights)
        dtype = reduce(torch.promote_types, (part.dtype for part in [*columns, *([] if top is None else [top])]), torch.bool)
        columns = [factor.to(dtype) for factor in columns]
        if not columns or any(factor.dim() != 2 or factor.shape[1] != columns[0].shape[1] for factor in columns):
            raise ValueError(f"factors must be matrices (D_n, R) with one R; got shapes {[tuple(factor.shape) for factor in columns]}")
        chosen = ModeTree.star(len(columns)) if tree is None else tree
        if chosen.order != len(columns):
            raise ValueError(f"tree needs one mode per factor; got {chosen.order} modes for {len(columns)} factors")
        rank = columns[0].shape[1]
        top = columns[0].new_ones(rank) if top is None else top.to(columns[0])
        if top.shape != (rank,):
            raise ValueError(f"weights needs one number per column of the factors, {rank}; got the shape {tuple(top.shape)}")
        inner = torch.eye(rank, dtype=columns[0].dtype, device=columns[0].device)
        given = [*columns, *(inner for _ in chosen.interior[:-1]), top.unsqueeze(1)]
        return cls.from_weights(chosen, dict(zip(chosen.nodes, given)))

    def to_cp(self) -> tuple[Tensor, list[Tensor]]:
        """Weights ``(R,)`` and factors ``(D_n, R)`` of the CP decomposition that a factorization of a star is.

        Raises:
            ValueError: The tree is no star, or there are several outputs or another pooling than the product.

        Example:
            >>> weights, factors = HTF(ModeTree.star(3), mode_sizes=4, ranks=5).to_cp()
            >>> weights.shape, factors[0].shape
            (torch.Size([5]), torch.Size([4, 5]))
        """
        if self.tree.child_ids[-1] != tuple(range(self.tree.order)):
            raise ValueError(f"only factorizations of stars are CP decompositions; got the tree {short(self.tree.to_nested())}")
        if self.outputs > 1 or self.combination != circuit.PRODUCT:
            raise ValueError(f"a CP decomposition has one output and product pooling; got {self.outputs} and {self.combination}")
        *factors, top = self.weight_list()
        return top.squeeze(1), factors

    def to_ht(self) -> HT:
        """The end tensor in the hierarchical Tucker format, exactly; gradients flow.

        The transfer tensor of a node is its weight on the superdiagonal: ``T[r, ..., r, s] = W[r, s]``, of size ``R`` to the number
        of children, times ``R_parent``.

        Raises:
            ValueError: There are several outputs, or another pooling than the product.

        Example:
            >>> HTF(ModeTree.perfect(4), mode_sizes=3, ranks=2).to_ht().ranks
            {(0,): 2, (1,): 2, (2,): 2, (3,): 2, (0, 1): 2, (2, 3): 2}
        """
        if self.outputs > 1:
            raise ValueError(f"the hierarchical Tucker format has one output; got {self.outputs}")
        if self.combination != circuit.PRODUCT:
            raise ValueError(f"the hierarchical Tucker format needs product pooling without activation; got {self.combination}")
        tensors = []
        for weight, below in zip(self.weight_list(), self.tree.child_ids):
            if below:
                rank, columns = weight.shape
                diagonal = torch.arange(rank, device=weight.device)
                weight = weight.new_zeros((rank,) * len(below) + (columns,)).index_put((diagonal,) * len(below), weight)
            tensors.append(weight)
        return HT(self.tree, tuple(tensors))

    def _setup(self, shape: Shape, combination: circuit.Combination, fixed_root: bool) -> None:
        self.tree = shape.tree
        self.shape = shape
        self.combination = combination
        self.fixed_root = fixed_root
        self._captured: dict[Hashable, tuple[tuple[int, ...], Callable[..., Any], graphs.CapturedCall]] = {}

    def _register(self, values: Sequence[Tensor]) -> None:
        """Registers one weight a node, in the order of ``tree.nodes``; equal objects become one parameter."""
        self._names: list[str] = []
        known: dict[int, str] = {}
        for node, value in enumerate(values):
            name = known.setdefault(id(value), f"weight_{node}")
            self._names.append(name)
            if name != f"weight_{node}":
                continue
            if (self.fixed_root and node == len(values) - 1) or (value.requires_grad and not isinstance(value, nn.Parameter)):
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, value if isinstance(value, nn.Parameter) else nn.Parameter(value))

    @property
    def mode_sizes(self) -> tuple[int, ...]:
        """Mode sizes ``D_0 .. D_{N-1}``."""
        return self.shape.mode_sizes

    @property
    def ranks(self) -> dict[Node, int]:
        """``{interior node: R_node}``, the numbers of local components."""
        return dict(self.shape.ranks)

    @property
    def outputs(self) -> int:
        """Number of outputs ``K``."""
        return self.shape.outputs

    @property
    def weights(self) -> dict[Node, Tensor]:
        """``{node: weight (R_node, R_parent)}``; the module's own tensors, not copies."""
        return dict(zip(self.tree.nodes, self.weight_list()))

    def weight_list(self) -> list[Tensor]:
        """The weights in the order of ``tree.nodes``, as the functions of ``execute`` and ``circuit`` take them.

        Example:
            >>> [tuple(weight.shape) for weight in HTF(ModeTree.star(2), mode_sizes=4, ranks=3).weight_list()]
            [(4, 3), (4, 3), (3, 1)]
        """
        if list(self._parameters) == self._names:  # else weights are shared, buffers, parametrized, or in another order
            return cast(list[Tensor], list(self._parameters.values()))
        return [getattr(self, name) for name in self._names]

    # Contraction

    def contract(
        self,
        *,
        fixed: Mapping[int, int] | None = None,
        projected: Mapping[int, Tensor] | None = None,
        memory_limit: int | None = None,
        out: Tensor | None = None,
        capture: bool = False,
    ) -> Tensor:
        """The end tensor of Equation 3, shape ``mode_sizes`` (and ``outputs`` last, when above 1), modes in ascending order.

        Args:
            fixed: ``{mode: index}``: only the slice at these indices, without those modes.
            projected: ``{mode: vector (D_mode,) or matrix (D_mode, E)}``: contracted with these along their modes; a vector's mode
                vanishes, a matrix's takes size ``E``.
            memory_limit: Bytes that intermediate results and the result may take; by default what is free on the device.
            out: Contiguous tensor to write the result into; not where gradients are recorded.
            capture: Replay the end tensor's contraction as a CUDA graph, recorded at the first such call: without gradients, and
                into a result that the next such call overwrites.

        Returns:
            The tensor; where modes cross in the tree it may be a permuted view, as torch.einsum's results are.

        Raises:
            MemoryLimitError: The contraction does not fit; nothing has been allocated.
            ValueError: A mode, an index, a size or ``out`` does not fit the factorization.

        Example:
            >>> htf = HTF(ModeTree.chain(5), mode_sizes=4, ranks=3)
            >>> htf.contract().shape
            torch.Size([4, 4, 4, 4, 4])
            >>> htf.contract(fixed={0: 1, 4: 0}, projected={2: torch.ones(4)}).shape
            torch.Size([4, 4])
        """
        if capture:
            if fixed or projected or out is not None:
                raise ValueError("capture=True contracts the whole end tensor; fixed, projected and out cannot be given with it")
            return cast(Tensor, self._replay("contract", lambda: self.contract(memory_limit=memory_limit)))
        if self.combination == circuit.PRODUCT:
            return execute.contract(self.shape, self.weight_list(), fixed=fixed, projected=projected, memory_limit=memory_limit, out=out)
        if fixed or projected or out is not None:
            self._need_products("contracting in part, or into out=,")
        weights = self.weight_list()
        recording = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        needed = circuit.grid_bytes(self.shape, weights[0].dtype.itemsize, combination=self.combination, recording=recording)
        execute.need_memory(needed, weights[0].device, memory_limit)
        return circuit.grid(self.shape, weights, combination=self.combination)

    def gram(self, modes: Sequence[int], *, memory_limit: int | None = None) -> Tensor:
        """The Gram matrix ``[[W; I]] [[W; I]]^H`` of the matricization by ``modes``, without the end tensor.

        Raises:
            MemoryLimitError: The contraction does not fit.
            ValueError: A mode is out of range or repeated, or pooling is not by products.

        Example:
            >>> htf = HTF(ModeTree.perfect(64), mode_sizes=2, ranks=3, init_std=1.0)
            >>> htf.gram([0, 1, 2]).shape
            torch.Size([8, 8])
        """
        self._need_products("gram")
        return execute.gram(self.shape, self.weight_list(), modes, memory_limit=memory_limit)

    def plan(self, request: Request | None = None, *, memory_limit: int | None = None) -> Plan:
        """The plan by which :meth:`contract` contracts; ``print`` it for a table with a line a step.

        Args:
            request: What to contract; the end tensor by default.
            memory_limit: Bytes that the contraction may use; unlimited by default.

        Raises:
            MemoryLimitError: Nothing fits into ``memory_limit``.
            ValueError: The request does not fit the factorization, or pooling is not by products.

        Example:
            >>> print(HTF(ModeTree.star(3), mode_sizes=4, ranks=2).plan())  # doctest: +ELLIPSIS
            contraction of 4 tensors to 4 x 4 x 4
            ...
        """
        self._need_products("plan")
        weight = self.weight_list()[0]
        machine = CUDA if weight.device.type == "cuda" else CPU
        return make_plan(self.shape, request or Request(), itemsize=weight.dtype.itemsize, machine=machine, memory_limit=memory_limit)

    def _need_products(self, what: str) -> None:
        if self.combination != circuit.PRODUCT:
            raise ValueError(f"{what} needs product pooling without activation; this factorization has {self.combination}")

    # Evaluation without the end tensor

    def entries(self, indices: Any, *, log: bool = False, capture: bool = False) -> Any:
        """Entries of the end tensor, without forming it.

        Args:
            indices: ``(B, N)`` integers, or what :func:`tensornet.observe` made of them, which saves preparing the same indices
                again.
            log: Return ``(sign, logarithm of the magnitude)`` instead, which never under- or overflows.
            capture: Replay a CUDA graph recorded at the first such call with this :class:`tensornet.Observed`, as in
                :meth:`contract`.

        Returns:
            ``(B,)`` values, or ``(B, outputs)`` for several outputs.

        Raises:
            TypeError: The indices are no integers, or not observed ones with ``capture=True``.
            ValueError: Their shape is wrong or one is out of range.

        Example:
            >>> htf = HTF(ModeTree.perfect(1024), mode_sizes=4, ranks=8)
            >>> htf.entries(torch.zeros(5, 1024, dtype=torch.long)).shape
            torch.Size([5])
        """
        if capture:
            if not isinstance(indices, circuit.Observed):
                raise TypeError(f"capture=True needs indices prepared by tensornet.observe; got {type(indices).__name__}")
            return self._replay(("entries", id(indices), log), lambda: self.entries(indices, log=log))  # which keeps them, and their id
        return circuit.entries(self.shape, self.weight_list(), indices, combination=self.combination, log=log)

    def forward(self, inputs: Any, *, log: bool = False, capture: bool = False) -> Any:
        """The network of Appendix A: ``<x_1 o ... o x_N, W_H>`` for every sample (Proposition 3).

        Args:
            inputs: ``(B, N, D)``, or a list of ``N`` tensors ``(B, D_n)``.
            log: Return ``(sign, logarithm of the magnitude)`` instead.
            capture: Replay a CUDA graph recorded at the first such call with inputs of this shape (one tensor), as in
                :meth:`contract`.

        Returns:
            ``(B,)`` values, or ``(B, outputs)`` for several outputs.

        Raises:
            TypeError: The inputs are no tensors, or not a single one with ``capture=True``.
            ValueError: A shape, dtype or device does not fit.

        Example:
            >>> HTF(ModeTree.perfect(4), mode_sizes=3, ranks=5)(torch.ones(7, 4, 3)).shape
            torch.Size([7])
        """
        if capture:
            if not isinstance(inputs, Tensor):
                raise TypeError(f"capture=True needs the inputs as one tensor (B, N, D); got {type(inputs).__name__}")
            return self._replay(("forward", inputs.shape, inputs.dtype, log), lambda values: self.forward(values, log=log), inputs)
        return circuit.forward(self.shape, self.weight_list(), inputs, combination=self.combination, log=log)

    def _replay(self, key: Hashable, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """The result of a captured call; captured again when the weights have moved."""
        weights = self.weight_list()
        if weights[0].device.type != "cuda":
            raise ValueError(f"capture=True needs weights on a CUDA device; they are on {weights[0].device}")
        places = tuple(weight.data_ptr() for weight in weights)
        if key not in self._captured or self._captured[key][0] != places:
            with torch.no_grad():
                self._captured[key] = (places, function, graphs.capture(function, *inputs, device=weights[0].device))
        return self._captured[key][2](*inputs)

    def __getstate__(self) -> dict[str, Any]:
        """The state for copying and pickling: captured CUDA graphs belong to one process and one module."""
        return {**self.__dict__, "_captured": {}}

    # Local components

    def local_component_norms(self) -> dict[Node, Tensor]:
        """``{interior node: (R_node,)}``, the norms of the local components (Definition 2).

        Example:
            >>> HTF(ModeTree.star(3), ranks=6).local_component_norms()[(0, 1, 2)].shape
            torch.Size([6])
        """
        return components.local_component_norms(self.tree, self.weight_list())

    def unbalancedness(self) -> Tensor:
        """The unbalancedness magnitude (Definition 5); a fixed root is left out of it.

        Example:
            >>> bool(HTF(ModeTree.perfect(4), ranks=3, init="balanced", dtype=torch.float64).unbalancedness() < 1e-15)
            True
        """
        return components.unbalancedness(self.tree, self.weight_list(), fixed_root=self.fixed_root)

    def prune(self, keep: Mapping[Node, Any]) -> HTF:
        """A new factorization with only the given local components at the given nodes (Proposition 1).

        Its weights are copies. Frozen ones stay frozen, and nodes that share a weight share it still where they lose the same
        components.

        Args:
            keep: ``{interior node: kept components}``, each a number (of the largest by norm), indices, or a boolean mask.

        Raises:
            TypeError: ``keep`` is no mapping, or a choice is none of the three kinds.
            ValueError: A node is no interior one, an index is out of range or repeated, nothing would be left, or a weight is not
                finite.

        Example:
            >>> HTF(ModeTree.perfect(4), ranks=6).prune({(0, 1): 2}).ranks[(0, 1)]
            2
        """
        with torch.enable_grad():  # weights that are computed anew are as trainable as what they are computed from
            weights = self.weight_list()
        copies: dict[int, Tensor] = {}
        with torch.no_grad():
            pruned = components.prune(self.tree, weights, keep)
            for weight, new in zip(weights, pruned):
                if id(new) not in copies:
                    copies[id(new)] = nn.Parameter(new.detach().clone(), requires_grad=weight.requires_grad)
        given = {node: copies[id(new)] for node, new in zip(self.tree.nodes, pruned)}
        how = self.combination
        return HTF.from_weights(self.tree, given, fixed_root=self.fixed_root, pooling=how.pooling, activation=how.activation)

    def extra_repr(self) -> str:
        """One line for ``print(htf)``."""
        ranks = self.shape.rank_sizes
        shown = ranks[0] if len(set(ranks)) == 1 else f"{min(ranks)}..{max(ranks)}" if ranks else "none"
        sizes = self.mode_sizes
        return f"order={self.tree.order}, mode_sizes={sizes[0] if len(set(sizes)) == 1 else sizes}, ranks={shown}, outputs={self.outputs}"


def _owners(shape: Shape) -> list[int]:
    """For every node, the first node of its height whose weight has the same shape."""
    owners = [0] * len(shape.tree.nodes)
    for level in shape.tree.levels:
        first: dict[tuple[int, int], int] = {}
        for node in level:
            owners[node] = first.setdefault(shape.weights[node], node)
    return owners


def _as_weight(name: str, value: Any) -> Tensor:
    tensor = as_tensor(name, value)
    check_floating(f"the type of {name}", tensor.dtype)
    check_finite(name, tensor)
    return tensor if tensor.requires_grad or isinstance(tensor, nn.Parameter) else tensor.clone()
