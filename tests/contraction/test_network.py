"""Requests and the labelled networks that they become."""

from __future__ import annotations

import pytest

from tensornet.contraction.network import Request, make_network
from tensornet.shape import make_shape
from tensornet.tree import ModeTree


def test_end_tensor_of_a_star() -> None:
    network = make_network(make_shape(ModeTree.star(3), [2, 3, 4], 5), Request())
    assert network.operands == ((0, 3), (1, 3), (2, 3), (3,))
    assert network.output == (0, 1, 2)
    assert network.output_sizes == (2, 3, 4)
    assert network.size((3, 1)) == 15


def test_several_outputs_are_a_last_axis() -> None:
    network = make_network(make_shape(ModeTree.star(2), 3, 5, outputs=4), Request())
    assert network.output_sizes == (3, 3, 4)
    assert network.scalar_roots == ()


def test_fixed_modes_vanish_and_projected_ones_change() -> None:
    network = make_network(make_shape(ModeTree.star(4), 3, 5), Request.make(fixed=[3], projected={0: 0, 2: 7}))
    assert network.output_sizes == (3, 7)
    assert network.names == ("W(0)", "W(1)", "W(2)", "W(3)[i]", "W(0,1,2,3)", "vector on mode 0", "matrix on mode 2")
    assert network.first == (0, 2)


def test_gram_networks_share_the_columns_alone() -> None:
    network = make_network(make_shape(ModeTree.star(3), 3, 5), Request.make(gram=[0, 2]))
    original, conjugate = set(sum(network.operands[:4], ())), set(sum(network.operands[4:], ()))
    assert original & conjugate == {1}
    assert network.output[:2] == (2, 0)
    assert network.output_sizes == (3, 3, 3, 3)
    assert network.scalar_roots == (3, 7)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(fixed=(4,)), "modes must be from 0 to 3; got 4 in fixed"),
        (Request(projected=((-1, 0),)), "got -1 in projected"),
        (Request(fixed=(1,), gram=(1, 2)), "got mode 1 twice"),
        (Request(fixed=(1,), projected=((1, 0),)), "got mode 1 twice"),
    ],
)
def test_bad_requests(request_: Request, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_network(make_shape(ModeTree.perfect(4)), request_)
