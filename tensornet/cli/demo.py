"""``tensornet demo``: a tree, its plan, its contraction beside other libraries, and a small tensor learned from 30 % of its entries."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from torch import Tensor

from tensornet.cli import peers
from tensornet.cli.arguments import examples, seed
from tensornet.cli.sparklines import WIDTH, sparkline
from tensornet.evaluation.observed import observe
from tensornet.files.storage import replacing
from tensornet.htf import HTF
from tensornet.optim import GroupRMSprop
from tensornet.tree import ModeTree, Node

CONTRACTED = {"order": 8, "size": 8, "rank": 64}  # of the tree that is contracted beside other libraries
SECONDS = 6.0  # that this takes
ORDER, SIZE, TRUE_RANK, RANK, SHARE, INIT_STD = 4, 8, 3, 32, 0.3, 0.03
STEPS, LEARNED, CALM = 12000, 1e-4, 100  # at most; a loss that counts as learned when it stays for that many steps
EVERY, SHOWN = 50, 5  # steps between records; components shown a node
AROUND = 46  # characters of the columns beside a line of bars


@dataclass
class Record:
    """What was seen while learning.

    Attributes:
        steps: Steps at which the rest was recorded.
        losses: Mean squared error on the observed entries.
        errors: Distance of the end tensor from the truth, relative to the truth.
        norms: For every interior node and record, the largest local component norms.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    norms: dict[Node, list[list[float]]] = field(default_factory=dict)


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["demo"]).seed
        0
    """
    parser = commands.add_parser(
        "demo",
        help="contract a tree, and watch a small tensor being learned one local component at a time",
        description="Draws a mode tree, prints its plan, and contracts it beside other libraries. Then learns a small tensor from 30 % of\n"
        "its entries by gradient descent with the paper's adaptive step: local components appear one at a time (Section 4).",
        epilog=examples("tensornet demo", "tensornet demo --out results --seed 2"),
    )
    parser.add_argument(
        "--out", type=Path, default=Path("tensornet-demo"), metavar="DIR", help="folder for the figure (default tensornet-demo)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the tensor and of the initial weights (default 0)")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``tensornet demo --help``. Its example is the whole command, which takes too long for one here.

    Raises:
        OSError: The folder cannot be made or written to.
        ValueError: It is a file.

    Example:
        >>> run.__module__
        'tensornet.cli.demo'
    """
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out must be a folder; {arguments.out} is a file")
    arguments.out.mkdir(parents=True, exist_ok=True)
    compare_contractions(console, **CONTRACTED, seconds=SECONDS)
    console.print()
    record = learn(console, arguments.seed)
    path = arguments.out / "demo.png"
    draw(record, path)
    console.print(f"The figure is in {path}.", highlight=False, soft_wrap=True)
    return 0


def compare_contractions(console: Console, *, order: int, size: int, rank: int, seconds: float) -> None:
    """Prints a tree, the plan of its contraction, and a table of contraction times.

    Example:
        >>> compare_contractions(Console(quiet=True), order=4, size=3, rank=2, seconds=0.0)
    """
    htf = HTF(ModeTree.balanced(order), mode_sizes=size, ranks=rank, init_std=1.0)
    console.print(f"A mode tree\n{htf.tree}\n\nIts {htf.plan()}\n", markup=False, highlight=False, soft_wrap=True)
    times = peers.interleaved_medians(peers.contractions(htf), seconds)
    best = times["tensornet"]
    table = Table("contraction", "median", "ratio", title=f"Contracting it on {torch.get_num_threads()} thread(s)", title_justify="left")
    for name, taken in times.items():
        table.add_row(name, f"{taken * 1e3:.3g} ms", f"{taken / best:.2f}")
    console.print(table)


def learn(console: Console, number: int, *, size: int = SIZE, rank: int = RANK, steps: int = STEPS) -> Record:
    """Learns a tensor of low hierarchical rank from some of its entries, and shows live how local components appear.

    Args:
        console: Where to show it.
        number: Seed.
        size: Size of the modes.
        rank: Local components at every node.
        steps: Steps at most.

    Example:
        >>> record = learn(Console(quiet=True), 0, size=3, rank=4, steps=60)
        >>> record.steps
        [0, 50, 60]
    """
    tree = ModeTree.perfect(ORDER)
    generator = torch.Generator().manual_seed(number)
    truth = HTF(tree, size, TRUE_RANK, init_std=1.0, generator=generator).contract().detach()
    truth = truth / truth.square().mean().sqrt()
    seen = torch.randperm(truth.numel(), generator=generator)[: int(SHARE * truth.numel())]
    htf = HTF(tree, size, rank, init_std=INIT_STD, generator=generator)
    observed = observe(htf.shape, torch.stack(torch.unravel_index(seen, truth.shape), 1))
    values = truth.flatten()[seen]
    optimizer = GroupRMSprop(htf.parameters())
    console.print(
        f"Learning an order-{ORDER} tensor of {truth.numel()} entries and hierarchical rank {TRUE_RANK} from {len(seen)} of them, "
        f"with {rank} local components a node",
        highlight=False,
    )
    record, calm, start = Record(), 0, time.perf_counter()
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        for step in range(steps + 1):
            loss = (htf.entries(observed) - values).square().mean()
            calm = calm + 1 if loss.item() < LEARNED else 0
            last = step == steps or calm == CALM
            if last or step % EVERY == 0:
                _look(htf, truth, step, loss.item(), record)
                live.update(_view(record, time.perf_counter() - start, max(1, min(WIDTH, console.width - AROUND))))
            if last:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if not console.is_terminal:
        console.print()  # the last line has not ended
    return record


def _look(htf: HTF, truth: Tensor, step: int, loss: float, record: Record) -> None:
    with torch.no_grad():
        error = ((htf.contract() - truth).norm() / truth.norm()).item()
        norms = htf.local_component_norms()
    record.steps.append(step)
    record.losses.append(loss)
    record.errors.append(error)
    for node, found in norms.items():
        record.norms.setdefault(node, []).append(found.sort(descending=True).values[:SHOWN].tolist())


def _view(record: Record, seconds: float, width: int) -> RenderableType:
    table = Table("local components at", "", "over the iterations", "norm", title_justify="left", show_edge=False)
    for node, rows in record.norms.items():
        top = max(max(row) for row in rows)
        for place in range(len(rows[0])):
            name = ", ".join(map(str, node)) if not place else ""
            history = [row[place] for row in rows]
            table.add_row(name, str(place + 1), Text(sparkline(history, top, width), style="cyan"), f"{history[-1]:.2f}")
        table.add_section()
    top = max(record.errors)
    table.add_row("reconstruction error", "", Text(sparkline(record.errors, top, width), style="magenta"), f"{record.errors[-1]:.4f}")
    line = f"iteration {record.steps[-1]}, loss {record.losses[-1]:.2e}, reconstruction error {record.errors[-1]:.4f}, {seconds:.0f} s"
    return Group(table, Text(line))


def draw(record: Record, path: Path) -> None:
    """Writes a figure of the local component norms, the loss and the reconstruction error over the iterations.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "demo.png")
        >>> draw(learn(Console(quiet=True), 0, size=3, rank=4, steps=60), path)
        >>> path.exists()
        True
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(record.norms) + 4, 3.4), layout="constrained")
    panels = figure.subplots(1, len(record.norms) + 1)
    for axes, (node, rows) in zip(panels, record.norms.items()):
        axes.plot(record.steps, rows)
        axes.set_title(f"local components at {node}")
        axes.set_ylabel("norm")
    panels[-1].semilogy(record.steps, record.losses, label="loss on observed entries")
    panels[-1].semilogy(record.steps, record.errors, label="reconstruction error")
    panels[-1].set_title("loss and error")
    panels[-1].legend()
    for axes in panels:
        axes.set_xlabel("iterations")
    with replacing(path) as new:
        figure.savefig(new, dpi=120)
