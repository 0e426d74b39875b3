"""Pictures of trees: the text line by line, the SVG as XML, the figure by its artists; large and deep trees stay small."""

from __future__ import annotations

import io
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from tensornet import drawing
from tensornet.tree import ModeTree

SVG = "{http://www.w3.org/2000/svg}"
TREES = {
    "perfect": ModeTree.perfect(8),
    "crossed": ModeTree.random(12, seed=3, unary=0.2),
    "one mode": ModeTree.from_nested([[0]]),
    "star": ModeTree.star(64),
}
LARGE = {"chain": ModeTree.chain(4000), "wide": ModeTree.star(5000), "balanced": ModeTree.balanced(3000, 3)}


def test_text_by_hand():
    tree = ModeTree.from_nested(([[0]], (3, 1), 2))
    assert str(tree).splitlines() == [
        "(0, 1, 2, 3)",
        "├── (0,)",
        "│   └── (0,)",
        "│       └── 0",
        "├── (1, 3)",
        "│   ├── 3",
        "│   └── 1",
        "└── 2",
    ]


def test_long_labels_are_shortened():
    assert str(ModeTree.star(30)).splitlines()[0] == "0…29"
    assert str(ModeTree.from_nested((1, [*range(2, 40, 2)], [0, *range(3, 40, 2)]))).splitlines()[2] == "├── (2, 4, …: 19 modes)"
    assert str(ModeTree.from_nested((0, [*range(1001, 1012)], [*range(1, 1001)]))).splitlines()[2] == "├── 1001…1011"


@pytest.mark.parametrize("tree", [*TREES.values(), *LARGE.values()], ids=[*TREES, *LARGE])
def test_text_has_a_line_a_node_up_to_a_limit(tree):
    lines = str(tree).splitlines()
    assert len(lines) == min(len(tree.nodes), 201)
    assert (lines[-1] == f"... and {len(tree.nodes) - 200} more nodes") == (len(tree.nodes) > 200)


@pytest.mark.parametrize("tree", [*TREES.values(), *LARGE.values()], ids=[*TREES, *LARGE])
def test_svg_shows_every_node_and_edge(tree):
    root = ElementTree.fromstring(tree._repr_svg_())
    assert root.tag == SVG + "svg"
    _, _, width, height = map(float, root.get("viewBox").split())
    assert height < 3000
    edges, inner, leaves = (path.get("d") for path in root.iter(SVG + "path"))
    assert edges.count("M") == edges.count("L") == len(tree.nodes) - 1
    assert inner.count("M") == len(tree.interior)
    points = np.array([[float(number) for number in found] for found in re.findall(r"M([\d.]+) ([\d.]+)", edges + inner + leaves)])
    assert (points >= 0).all()
    assert (points <= [width, height]).all()
    texts = [text.text for text in root.iter(SVG + "text")]
    assert len(texts) == (len(tree.nodes) if tree.order <= 64 else 0)
    assert texts[: tree.order] == [str(mode) for mode in range(tree.order)][: len(texts)]


@pytest.mark.parametrize("tree", [*TREES.values(), *LARGE.values()], ids=[*TREES, *LARGE])
def test_figure_shows_every_node_and_edge(tree):
    figure = tree.draw()
    (axes,) = figure.axes
    (edges,) = axes.lines
    assert np.isnan(edges.get_xdata()).sum() == len(tree.nodes) - 1
    inner, leaves = axes.collections
    assert len(inner.get_offsets()) == len(tree.interior)
    assert len(leaves.get_offsets()) == tree.order
    assert len(axes.texts) == (len(tree.nodes) if tree.order <= 64 else 0)
    assert max(figure.get_size_inches()) <= 16
    figure.savefig(io.BytesIO(), dpi=40)


def test_nodes_of_a_figure_do_not_meet_and_children_are_below():
    for tree in TREES.values():
        places = drawing._layout(tree)
        assert len(set(places)) == len(places)
        for place, parent in enumerate(tree.parent_ids):
            assert parent < 0 or places[place][1] == places[parent][1] + 1
        for place, below in enumerate(tree.child_ids):
            across = [places[child][0] for child in below]
            assert across == sorted(across)
            assert not below or across[0] <= places[place][0] <= across[-1]


def test_labels_do_not_meet():
    for tree in (ModeTree.perfect(64, arity=4), ModeTree.perfect(32), ModeTree.chain(20), ModeTree.random(30, seed=1, unary=0.2)):
        figure = tree.draw()
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
        for place, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:place]), f"the label of {tree.nodes[place]} covers another one"


def test_drawing_leaves_pyplot_alone():
    before = "matplotlib.pyplot" in sys.modules
    ModeTree.perfect(4).draw()
    assert ("matplotlib.pyplot" in sys.modules) == before
