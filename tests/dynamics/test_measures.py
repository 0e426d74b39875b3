"""Recorded measures against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tensornet.dynamics.measures import label, measure
from tensornet.htf import HTF
from tensornet.tree import ModeTree, RepeatedNode


def test_measures_are_those_of_the_end_tensor():
    htf = HTF(ModeTree.perfect(4), 3, 5, init_std=1.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.ones(3, 3, 3, 3, dtype=torch.float64)
    found = measure(htf, truth, [(0, 1), (0, 2)], top=4)
    end = htf.contract().detach().numpy()
    assert found["error"] == pytest.approx(np.linalg.norm(end - 1) / 9, rel=1e-4)
    inside = np.linalg.svd(end.reshape(9, 9), compute_uv=False)
    outside = np.linalg.svd(end.transpose(0, 2, 1, 3).reshape(9, 9), compute_uv=False)
    assert found["singular"]["0,1"] == pytest.approx(inside[:4], rel=1e-4)
    assert found["singular"]["0,2"] == pytest.approx(outside[:4], rel=1e-4)
    shares = outside / outside.sum()
    assert found["effective"]["0,2"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    norms = htf.local_component_norms()[(2, 3)].detach().numpy()
    assert found["norms"]["2,3"] == pytest.approx(np.sort(norms)[::-1][:4], rel=1e-4)
    assert found["unbalancedness"] == pytest.approx(htf.unbalancedness().item(), rel=1e-4)


def test_norms_may_be_left_out():
    assert measure(HTF(ModeTree.star(2)), torch.ones(2, 2), [], top=2, norms=False)["norms"] == {}


def test_labels_tell_nodes_with_the_same_modes_apart():
    tree = ModeTree.from_nested((0, ((1,),)))
    assert [label(node) for node in tree.nodes] == ["0", "1", "1'", "1''", "0,1"]
    assert label(RepeatedNode((3,), 1)) == "3'"
