"""Peers that evaluate entries and networks sample by sample along the tree: batched torch programs, and tensap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contestants import Contestant, UnavailableError, prepare, with_loss
from bench.hardware import Limits, size
from bench.timing import fastest
from bench.workloads import Case
from tensornet import ModeTree


def nodewise(case: Case, limits: Limits) -> Contestant:
    """Gathered leaves, then one product of children and one matrix product a node."""
    del limits
    tree, indices, inputs = case.tree, case.indices, case.inputs
    columns = [column.contiguous() for column in (indices if indices is not None else inputs).unbind(1)]  # type: ignore[union-attr]

    def evaluate(*weights: Tensor) -> Tensor:
        if inputs is None:
            values = [weight.index_select(0, column) for weight, column in zip(weights, columns)]
        else:
            values = [column @ weight for weight, column in zip(weights, columns)]
        for node in range(tree.order, len(tree.nodes)):
            values.append(reduce(torch.mul, (values[child] for child in tree.child_ids[node])) @ weights[node])
        return values[-1][:, 0]

    name = "node-wise gather" if inputs is None else "node-wise"
    return prepare(name, case, with_loss(case, evaluate), case.weights, lambda given: given)


def levelwise_gather(case: Case, limits: Limits) -> Contestant:
    """Gathered leaves, then one product and one batched matrix product a level."""
    del limits
    indices = case.indices
    if indices is None:
        raise UnavailableError("entries only")
    levels = _perfect_levels(case.tree)
    stacks, unpack = _stacks(case, levels)
    count, rows = len(levels[0]), case.workload.mode_sizes[0]
    offsets = torch.arange(count, device=indices.device).unsqueeze(1) * rows
    places = (indices.t()[list(levels[0])] + offsets).reshape(-1)

    def selected(leaves: Tensor) -> Tensor:
        return leaves.reshape(count * rows, -1).index_select(0, places)

    def embedded(leaves: Tensor) -> Tensor:
        return torch.nn.functional.embedding(places, leaves.reshape(count * rows, -1))

    def evaluate_with(gather: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def evaluate(leaves: Tensor, *weights: Tensor) -> Tensor:
            values = gather(leaves).view(count, len(indices), -1)
            for weight in weights:
                parts = values.view(len(weight), -1, *values.shape[1:]).unbind(1)
                values = torch.bmm(reduce(torch.mul, parts), weight)
            return values[0, :, 0]

        return evaluate

    made = [
        prepare("level-wise gather", case, with_loss(case, evaluate_with(gather)), stacks, unpack, gather.__name__)
        for gather in (selected, embedded)
    ]
    return fastest(made, indices.device)


def levelwise_einsum(case: Case, limits: Limits) -> Contestant:
    """Batched einsums over one-hot vectors (the paper's program) or the inputs, one a level, and a product over children."""
    levels = _perfect_levels(case.tree)
    stacks, unpack = _stacks(case, levels)
    if case.indices is not None:
        vectors = torch.nn.functional.one_hot(case.indices, case.workload.mode_sizes[0]).to(case.weights[0].dtype)
    else:
        vectors = case.inputs  # type: ignore[assignment]
    values_size = vectors[:, 0].numel() / vectors.shape[2] * sum(len(stack) * stack.shape[2] for stack in stacks)
    needed = int(values_size * vectors.element_size() * (6 if case.workload.backward else 2))
    if needed > limits.memory:
        raise UnavailableError(f"would need {size(needed)}")
    vectors = vectors.permute(1, 0, 2)[list(levels[0])].contiguous()

    def evaluate(leaves: Tensor, *weights: Tensor) -> Tensor:
        values = torch.einsum("nbd,ndr->nbr", vectors, leaves)
        for weight in weights:
            parts = values.view(len(weight), -1, *values.shape[1:])
            values = torch.einsum("nbr,nrp->nbp", parts.prod(dim=1), weight)
        return values[0, :, 0]

    name = "level-wise one-hot" if case.indices is not None else "level-wise einsum"
    return prepare(name, case, with_loss(case, evaluate), stacks, unpack)


def tensap(case: Case, limits: Limits) -> Contestant:
    """The tree based tensor of tensap, with superdiagonal transfer tensors; NumPy, without gradients."""
    try:
        import tensap as package  # type: ignore[import-untyped]
    except ImportError:
        raise UnavailableError("not installed") from None
    if case.workload.backward:
        raise UnavailableError("no gradients")
    if case.weights[0].device.type != "cpu":
        raise UnavailableError("CPU only")
    tree = case.tree
    needed = sum(_core_size(case, node) for node in range(tree.order, len(tree.nodes))) * case.weights[0].element_size()
    if needed > limits.memory:
        raise UnavailableError(f"would need {size(needed)} for its transfer tensors")
    count = len(tree.nodes)
    adjacency = np.zeros((count, count), dtype=int)
    for node, below in enumerate(tree.child_ids):
        for child in below:
            adjacency[count - 1 - node, count - 1 - child] = 1  # its root comes first, and its children in the order of their numbers
    cores = [_core(case, node) for node in range(count)]
    tensor = package.TreeBasedTensor(cores[::-1], package.DimensionTree(np.array([count - mode for mode in range(tree.order)]), adjacency))
    if case.indices is not None:
        indices = case.indices.numpy()

        def run() -> Any:
            return tensor.eval_at_indices(indices)

    else:
        vectors = [vector.contiguous().numpy() for vector in case.inputs.unbind(1)]  # type: ignore[union-attr]

        def run() -> Any:
            return tensor.tensor_matrix_product_eval_diag(vectors).numpy()

    return Contestant("tensap", lambda: (torch.as_tensor(run()),), lambda gradients: gradients)


def _core_size(case: Case, node: int) -> int:
    rows, columns = case.workload.sizes[node]
    return int(rows ** len(case.tree.child_ids[node]) * columns)


def _core(case: Case, node: int) -> Any:
    weight = case.weights[node].numpy()
    if node < case.tree.order:
        return weight
    if node == len(case.tree.nodes) - 1:
        weight = weight[:, 0]
    core = np.zeros((len(weight),) * len(case.tree.child_ids[node]) + weight.shape[1:], weight.dtype)
    core[(np.arange(len(weight)),) * len(case.tree.child_ids[node])] = weight
    return core


def _perfect_levels(tree: ModeTree) -> list[list[int]]:
    """Node ids by level, leaves first, such that the children of a level's nodes follow each other in the level below."""
    levels = [[len(tree.nodes) - 1]]
    while tree.child_ids[levels[0][0]]:
        if len({len(tree.child_ids[node]) for node in levels[0]}) > 1:
            raise UnavailableError("perfect trees only")
        levels.insert(0, [child for node in levels[0] for child in tree.child_ids[node]])
    if any(tree.child_ids[node] for node in levels[0]):
        raise UnavailableError("perfect trees only")
    return levels


def _stacks(case: Case, levels: Sequence[Sequence[int]]) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Sequence[Tensor]]]:
    """One stacked weight a level, and the way back from gradients of the stacks to gradients of the weights."""
    for level in levels:
        if len({case.weights[node].shape for node in level}) > 1:
            raise UnavailableError("nodes of one shape on a level only")
    stacks = [torch.stack([case.weights[node] for node in level]) for level in levels]

    def unpack(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        found = {node: part for level, gradient in zip(levels, gradients) for node, part in zip(level, gradient.unbind(0))}
        return [found[node] for node in range(len(case.weights))]

    return stacks, unpack
