"""Pictures of a mode tree: text, SVG and matplotlib. No mathematics, and matplotlib is imported only where a figure is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tensornet.tree import ModeTree, Node

_MOST_LINES = 200  # a longer text says how much it leaves out
_COLORS = {False: "#264653", True: "#2a9d8f"}  # of interior nodes, of leaves
_MOST_LABELS = 64  # a picture with more leaves shows no labels


def text(tree: ModeTree) -> str:
    """The tree as indented lines, one a node, in the order in which children are given; long texts are cut.

    Example:
        >>> from tensornet import ModeTree
        >>> print(text(ModeTree.chain(3)))
        (0, 1, 2)
        ├── (0, 1)
        │   ├── 0
        │   └── 1
        └── 2
    """
    lines: list[str] = []
    stack = [(len(tree.nodes) - 1, "", "", "")]
    while stack and len(lines) < _MOST_LINES:
        place, indent, branch, below = stack.pop()
        lines.append(indent + branch + _label(tree.nodes[place], leaf=not tree.child_ids[place]))
        children = tree.child_ids[place]
        for rank, child in enumerate(reversed(children)):
            last = rank == 0
            stack.append((child, indent + below, "└── " if last else "├── ", "    " if last else "│   "))
    if left := len(tree.nodes) - len(lines):
        lines.append(f"... and {left} more nodes")
    return "\n".join(lines)


def svg(tree: ModeTree) -> str:
    """The tree as a self-contained SVG picture, as notebooks show it; large trees without labels.

    Example:
        >>> from tensornet import ModeTree
        >>> svg(ModeTree.chain(3)).count("<text ")
        5
    """
    places = _layout(tree)
    labelled = tree.order <= _MOST_LABELS
    step = 44.0 if labelled else max(3.0, 2816.0 / tree.order)
    depth = max(y for _, y in places)
    drop = min(56.0, 2816.0 / max(depth, 1))
    width, height = step * tree.order + 20, drop * depth + 48
    points = [(10 + step * (x + 0.5), 20 + drop * y) for x, y in places]
    edges = "".join(_line(points[place], points[parent]) for place, parent in enumerate(tree.parent_ids) if parent >= 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{min(width, 960):.0f}" '
        f'style="background:white" font-family="sans-serif" font-size="11" text-anchor="middle"><path d="{edges}" stroke="#888"/>'
    ]
    for leaf, color in _COLORS.items():
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for (x, y), below in zip(points, tree.child_ids) if (not below) == leaf)
        parts.append(f'<path d="{dots}" stroke="{color}" stroke-width="{min(10.0, step):.1f}" stroke-linecap="round"/>')
    for (x, y), node, below in zip(points, tree.nodes, tree.child_ids) if labelled else ():
        label = _label(node, not below, most=int(len(node) * step / 6))
        halo = 'stroke="white" stroke-width="3" paint-order="stroke"'
        parts.append(f'<text x="{x:.1f}" y="{y + (-9 if below else 18):.1f}" {halo}>{label}</text>')
    return "".join(parts) + "</svg>"


def figure(tree: ModeTree) -> Figure:
    """The tree as a matplotlib figure with one axes, at most 16 by 16 inches; large trees without labels.

    Example:
        >>> from tensornet import ModeTree
        >>> len(figure(ModeTree.chain(3)).axes[0].texts)
        5
    """
    from matplotlib.figure import Figure

    places = _layout(tree)
    depth = max(y for _, y in places)
    width = min(16.0, 1.5 + 0.6 * tree.order)
    result = Figure(figsize=(width, min(16.0, 1.2 + 0.9 * depth)))
    axes = result.subplots()
    ends = [(places[place], places[parent]) for place, parent in enumerate(tree.parent_ids) if parent >= 0]
    across = [x for (x1, _), (x2, _) in ends for x in (x1, x2, math.nan)]  # the gaps keep all edges in one line object
    axes.plot(across, [-y for (_, y1), (_, y2) in ends for y in (y1, y2, math.nan)], color="0.6", linewidth=1, zorder=1)
    for leaf, color in _COLORS.items():
        chosen = [xy for xy, below in zip(places, tree.child_ids) if (not below) == leaf]
        axes.scatter([x for x, _ in chosen], [-y for _, y in chosen], color=color, s=min(40.0, 2560.0 / tree.order), zorder=3)
    for (x, y), node, below in zip(places, tree.nodes, tree.child_ids) if tree.order <= _MOST_LABELS else ():
        label = _label(node, not below, most=int(len(node) * (width - 1.5) / tree.order / 0.075))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.annotate(
            label, (x, -y), xytext=(0, 7 if below else -14), textcoords="offset points", ha="center", fontsize=8, bbox=box, zorder=2
        )
    axes.set_axis_off()
    axes.margins(0.08, 0.15)
    return result


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f"M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}"


def _label(node: Node, leaf: bool, most: int = 60) -> str:
    """A leaf's mode, or the modes of a node, in about ``most`` characters."""
    if leaf:
        return str(node[0])
    if len(node) == 1:
        return f"({node[0]},)"
    shown = "(" + ", ".join(map(str, node[:20])) + ")"
    if len(node) <= 20 and len(shown) <= most:
        return shown
    if node[-1] - node[0] + 1 == len(node):
        return f"{node[0]}…{node[-1]}"
    return f"({node[0]}, {node[1]}, …: {len(node)} modes)" if most >= 40 else f"{len(node)} modes"


def _layout(tree: ModeTree) -> list[tuple[float, int]]:
    """Place of every node: leaves side by side in drawing order, a parent over the middle of its children; depth downward."""
    count = len(tree.nodes)
    across, depth = [0.0] * count, [0] * count
    stack, leaf = [count - 1], 0
    while stack:
        place = stack.pop()
        if tree.child_ids[place]:
            stack.extend(reversed(tree.child_ids[place]))
        else:
            across[place] = float(leaf)
            leaf += 1
    for place in range(tree.order, count):
        below = tree.child_ids[place]
        across[place] = (across[below[0]] + across[below[-1]]) / 2
    for place in range(count - 2, -1, -1):
        depth[place] = depth[tree.parent_ids[place]] + 1
    return list(zip(across, depth))
