"""Costs of paths: the quick estimate against the steps counted one by one, and slices against the limit they were made for."""

from __future__ import annotations

from functools import partial

import generators
import pytest

from tensornet.contraction.costs import CPU, CUDA, cut, estimate, steps
from tensornet.contraction.network import Request, make_network
from tensornet.contraction.paths import along_tree, centres
from tensornet.shape import make_shape, shape_of_weights
from tensornet.tree import ModeTree


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("recorded", [False, True])
def test_estimates_are_the_sums_of_steps(seed: int, recorded: bool) -> None:
    tree, weights = generators.random_case(seed, max_order=7, outputs=1 + seed % 2)
    shape = shape_of_weights(tree, {node: weight.shape for node, weight in weights.items()})
    request = Request.make(fixed=[0] if seed % 3 == 0 else [], projected={tree.order - 1: 2} if seed % 4 == 0 and tree.order > 1 else {})
    network = make_network(shape, request)
    for centre in centres(network, tree):
        path = along_tree(network, tree, centre)
        found = estimate(network, path, "", itemsize=8, machine=CPU, recorded=recorded)
        counted = list(steps(network, path, (), itemsize=8))
        assert found.flops == sum(step.flops for step in counted)
        assert found.bytes_moved == sum(step.bytes_moved for step in counted)
        result = 8 * network.size(network.output)
        if recorded:
            entries = [8 * network.size(step.labels[2]) for step in counted]
            assert found.peak_bytes == max(sum(entries), result)
        else:
            assert found.peak_bytes == max(result, *(step.live_bytes for step in counted))
        assert found.seconds > 0


def test_slices_fit_the_limit_they_are_made_for() -> None:
    shape = make_shape(ModeTree.star(6), 4, 50)
    network = make_network(shape, Request())
    path = along_tree(network, shape.tree, len(shape.tree.nodes) - 1)
    cost = partial(estimate, network, itemsize=4, machine=CPU, recorded=False)
    whole = cost(path, "")
    seen = set()
    for share in (0.9, 0.7, 0.5):
        limit = int(share * whole.peak_bytes)
        found = cut(network, whole, limit, cost)
        assert found is not None
        assert found.peak_bytes <= limit
        assert found.flops >= whole.flops
        seen.add(found.slices)
    assert len(seen) > 1
    assert cut(network, whole, 4 * network.size(network.output) - 1, cost) is None  # the result is always needed


def test_faster_machines_take_less_time() -> None:
    shape = make_shape(ModeTree.perfect(8), 8, 64)
    network = make_network(shape, Request())
    path = along_tree(network, shape.tree, len(shape.tree.nodes) - 1)
    times = [estimate(network, path, "", itemsize=4, machine=machine, recorded=False).seconds for machine in (CUDA, CPU)]
    assert times[0] < times[1]
