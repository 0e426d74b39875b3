"""Peers that contract the whole network: opt_einsum, cotengra, torch.einsum and the literal bottom-up walk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TypeAlias, cast

import opt_einsum
import torch
from torch import Tensor

from bench.contestants import Contestant, Function, UnavailableError, prepare, with_loss
from bench.hardware import Limits, size
from bench.paths import Einsum, PathCost, path_cost, tree_einsum
from bench.timing import fastest
from bench.workloads import Case

PATIENCE = 3.0  # seconds that a randomised search may take
Path: TypeAlias = Sequence[tuple[int, ...]]
LABELS = 52  # of torch.einsum


def opt_einsum_expression(case: Case, limits: Limits) -> Contestant:
    """A compiled ContractionExpression, with the fastest of opt_einsum's paths."""
    einsum = _einsum(case)

    def expression(path: Path) -> Function:
        return cast(Function, opt_einsum.contract_expression(einsum.equation, *einsum.shapes, optimize=path))

    made = [_contestant("opt_einsum expression", case, expression(path), cost, note) for note, path, cost in _paths(einsum, case, limits)]
    return fastest(made, case.weights[0].device)


def opt_einsum_contract(case: Case, limits: Limits) -> Contestant:
    """``opt_einsum.contract`` with the fastest of its paths given."""
    einsum = _einsum(case)

    def contract(path: Path) -> Function:
        return lambda *operands: opt_einsum.contract(einsum.equation, *operands, optimize=path)

    made = [_contestant("opt_einsum contract", case, contract(path), cost, note) for note, path, cost in _paths(einsum, case, limits)]
    return fastest(made, case.weights[0].device)


def cotengra(case: Case, limits: Limits) -> Contestant:
    """The compiled contraction of cotengra, with the fastest of its searches, orders of labels and executors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of optional packages for very large networks
        try:
            import cotengra as ctg  # type: ignore[import-untyped]
        except ImportError:
            raise UnavailableError("not installed") from None
        einsum = _einsum(case)
        if case.workload.task in ("end", "step"):
            searches = {f"optimal {target}": ctg.OptimalOptimizer(minimize=target) for target in ("flops", "combo")}
            searches["auto-hq"] = ctg.AutoHQOptimizer(parallel=False, max_time=PATIENCE)
        else:  # the exhaustive search takes hours where many operands share a label
            searches = {"auto": ctg.AutoOptimizer(parallel=False, max_time=PATIENCE)}
        trees = {name: ctg.einsum_tree(einsum.equation, *einsum.shapes, optimize=optimize) for name, optimize in searches.items()}
        made: list[Contestant] = []
        for name, _, cost in _admitted(einsum, case, limits, {name: tree.get_path() for name, tree in trees.items()}):
            for sort in (None, "flops"):
                ordered = trees[name].copy()
                if sort:
                    ordered.sort_contraction_indices(sort)
                for executor, prefer in (("autoray", False), ("cotengra", False), ("cotengra", True)):
                    function = ordered.get_contractor(implementation=executor, prefer_einsum=prefer)
                    note = f"{name}, {executor}" + (", sorted" if sort else "") + (", einsum" if prefer else "")
                    made.append(_contestant("cotengra", case, function, cost, note))
    return fastest(made, case.weights[0].device, rounds=5)


def torch_einsum(case: Case, limits: Limits) -> Contestant:
    """``torch.einsum``, which searches a path (opt_einsum's ``auto``) in every call."""
    einsum = _einsum(case)
    if len(einsum.sizes) > LABELS:
        raise UnavailableError(f"{len(einsum.sizes)} labels, at most {LABELS}")
    path, _ = opt_einsum.contract_path(einsum.equation, *einsum.shapes, shapes=True, optimize="auto")
    cost = path_cost(einsum, path)
    _admit(cost, case, limits)
    return _contestant("torch.einsum", case, lambda *operands: torch.einsum(einsum.equation, *operands), cost, "auto")


def bottom_up(case: Case, limits: Limits) -> Contestant:
    """Equation 3 as it stands: at every node the columnwise Kronecker product of all children, times the node's weight."""
    if case.workload.samples and case.workload.task != "step":
        raise UnavailableError("end tensors only")
    tree, rows = case.tree, list(case.workload.mode_sizes)
    entries = [0]
    for node in range(tree.order, len(tree.nodes)):
        rows.append(math.prod(rows[child] for child in tree.child_ids[node]))
        entries.append(rows[node] * sum(case.workload.sizes[node]))
    needed = (sum(entries) * 2 if case.workload.backward else max(entries)) * case.weights[0].element_size()
    if needed > limits.memory:
        raise UnavailableError(f"would need {size(needed)}")
    order: list[list[int]] = []
    for node, below in enumerate(tree.child_ids):
        order.append([mode for child in below for mode in order[child]] or [node])
    modes = order[-1]
    axes = [modes.index(mode) for mode in range(tree.order)]
    shape = [case.workload.mode_sizes[mode] for mode in modes]

    def contract(*weights: Tensor) -> Tensor:
        values = list(weights[: tree.order])
        for node in range(tree.order, len(tree.nodes)):
            values.append(reduce(_kronecker, (values[child] for child in tree.child_ids[node])) @ weights[node])
        return values[-1].reshape(shape).permute(axes)

    return prepare("bottom-up", case, gather(case, contract), case.weights, lambda gradients: gradients)


def _kronecker(left: Tensor, right: Tensor) -> Tensor:
    return (left.unsqueeze(1) * right.unsqueeze(0)).reshape(-1, left.shape[1])


def _einsum(case: Case) -> Einsum:
    workload = case.workload
    samples = workload.samples if workload.task in ("entries", "network") else 0
    return tree_einsum(workload.tree, workload.mode_sizes, workload.ranks, samples, gathered=workload.task == "entries")


def _paths(einsum: Einsum, case: Case, limits: Limits) -> Iterator[tuple[str, Path, PathCost]]:
    """opt_einsum's distinct paths that are within the limits."""
    searches = ("auto", "auto-hq", "dp") if case.workload.task in ("end", "step") else ("auto", "greedy")
    found = {name: opt_einsum.contract_path(einsum.equation, *einsum.shapes, shapes=True, optimize=name)[0] for name in searches}
    return _admitted(einsum, case, limits, found)


def _admitted(einsum: Einsum, case: Case, limits: Limits, paths: dict[str, Path]) -> Iterator[tuple[str, Path, PathCost]]:
    """The distinct ones of the paths, without those beyond the limits; of several with equal costs the first."""
    seen: set[PathCost] = set()
    refused: list[UnavailableError] = []
    for name, path in paths.items():
        cost = path_cost(einsum, path)
        try:
            _admit(cost, case, limits)
        except UnavailableError as reason:
            refused.append(reason)
            continue
        if cost not in seen:
            seen.add(cost)
            yield name, path, cost
    if not seen:
        raise refused[0]


def _admit(cost: PathCost, case: Case, limits: Limits) -> None:
    """Refuses a path whose results would exceed the memory, where generic searches go with labels that many operands share."""
    passes = 3 if case.workload.backward else 1
    needed = cost.total * case.weights[0].element_size() * (2 if case.workload.backward else 1)
    if needed > limits.memory:
        raise UnavailableError(f"would need {size(needed)}")
    if cost.flops * passes > limits.flops:
        raise UnavailableError(f"would need {cost.flops * passes:.1e} operations")


def _contestant(name: str, case: Case, contract: Function, cost: PathCost, note: str) -> Contestant:
    """The contestant that gives the root's weight to ``contract`` as a vector, and leaves as the task wants them."""
    parameters = [*case.weights[:-1], case.weights[-1][:, 0].contiguous()]
    order, indices, inputs = case.tree.order, case.indices, case.inputs
    function = contract
    if case.workload.task == "entries" and indices is not None:
        columns = [column.contiguous() for column in indices.unbind(1)]

        def function(*weights: Tensor) -> Tensor:
            leaves = [weight.index_select(0, column) for weight, column in zip(weights, columns)]
            return contract(*leaves, *weights[order:])

    elif inputs is not None:
        vectors = [vector.contiguous() for vector in inputs.unbind(1)]

        def function(*weights: Tensor) -> Tensor:
            return contract(*weights, *vectors)

    def unpack(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return [*gradients[:-1], gradients[-1].unsqueeze(1)]

    return prepare(name, case, gather(case, function), parameters, unpack, note, cost.flops)


def gather(case: Case, contract: Function) -> Function:
    """``contract`` itself, or for a training step the loss of the observed entries, gathered from the end tensor."""
    if case.workload.task != "step" or case.indices is None:
        return contract
    sizes = case.workload.mode_sizes
    strides = torch.tensor([math.prod(sizes[mode + 1 :]) for mode in range(len(sizes))], device=case.indices.device)
    places = (case.indices * strides).sum(1)
    return with_loss(case, lambda *weights: contract(*weights).reshape(-1).index_select(0, places))
