"""``tensornet demo``: a tree, its plan, its contraction beside other libraries, and local components that appear one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tensornet import storage
from tensornet.circuit import observe
from tensornet.cli import peers
from tensornet.cli.arguments import examples, positive, seed
from tensornet.htf import HTF
from tensornet.optim import GroupRMSprop
from tensornet.tree import ModeTree

SIZE, TRUE_RANK, RANK, SHARE = 8, 3, 32, 0.3  # of the tensor that is learned: mode size, ranks of the truth and of the model
INIT_STD, LEARNING_RATE = 0.1, 0.01
SHOWN = 6  # largest local components that are shown
_BARS = " ▁▂▃▄▅▆▇█"

History = list[dict[str, Any]]


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["demo"]).steps
        4000
    """
    parser = commands.add_parser(
        "demo",
        help="show what this library does, in less than a minute",
        description="Draws a mode tree, prints its plan, contracts it beside other libraries, and learns a small tensor from 30 %% of its "
        "entries, while its local components appear one at a time. Saves a figure.",
        epilog=examples("tensornet demo", "tensornet demo --seed 1 --out results"),
    )
    parser.add_argument("--out", type=Path, default=Path("tensornet-demo"), metavar="DIR", help="folder of the figure (tensornet-demo)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the random tensor and weights (default 0)")
    parser.add_argument("--steps", type=positive, default=4000, metavar="N", help="training steps (default 4000)")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``tensornet demo --help``.

    Raises:
        OSError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> chosen = parser.parse_args(["demo", "--steps", "2", "--out", tempfile.mkdtemp()])
        >>> run(chosen, Console(quiet=True))
        0
    """
    arguments.out.mkdir(parents=True, exist_ok=True)
    tree = ModeTree.perfect(8)
    console.print(f"A mode tree over 8 modes of size 6, with 48 local components at every interior node:\n\n{tree}\n", highlight=False)
    htf = HTF(tree, mode_sizes=6, ranks=48, init_std=0.3, generator=torch.Generator().manual_seed(arguments.seed))
    console.print(f"{htf.plan()}\n", markup=False, highlight=False, soft_wrap=True)
    console.print(_contraction_times(htf))
    console.print(
        f"\nLearning an order 4 tensor of hierarchical rank {TRUE_RANK} from {SHARE:.0%} of its entries, with {RANK} local components "
        "a node:\n"
    )
    history = _learn(arguments.seed, arguments.steps, console)
    path = arguments.out / "demo.png"
    _draw(history, path)
    last = history[-1]
    large = sum(norm > last["norms"][0] / 20 for norm in last["norms"])
    console.print(
        f"\nAfter {last['step']} steps the tensor is known up to a relative error of {last['error']:.3f}. At the root {large} of {RANK} "
        f"local components have grown to over a 20th of the largest.\nThe figure is {path}. Next: tensornet complete --help",
        highlight=False,
    )
    return 0


def _contraction_times(htf: HTF) -> Table:
    times = peers.interleaved_medians(peers.contractions(htf), seconds=2.0)
    table = Table(title="Contraction to the end tensor, medians of interleaved calls")
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("against ours", justify="right")
    for name, median in times.items():
        table.add_row(name, f"{1000 * median:.2f} ms", f"{median / times['tensornet']:.2f}")
    return table


def _learn(number: int, steps: int, console: Console) -> History:
    tree = ModeTree.perfect(4)
    generator = torch.Generator().manual_seed(number)
    truth = HTF(tree, SIZE, TRUE_RANK, init_std=1.0, generator=generator).contract().detach()
    truth *= truth.numel() ** 0.5 / truth.norm()
    chosen = torch.randperm(truth.numel(), generator=generator)[: int(SHARE * truth.numel())]
    htf = HTF(tree, SIZE, RANK, init_std=INIT_STD, generator=generator)
    observed = observe(htf.shape, torch.stack(torch.unravel_index(chosen, truth.shape), 1))
    values = truth.flatten()[chosen]
    optimizer = GroupRMSprop(htf.parameters(), lr=LEARNING_RATE)
    history: History = []
    with Live(_progress(history, steps), console=console, refresh_per_second=8) as live:
        for step in range(steps + 1):
            loss = (htf.entries(observed) - values).square().mean()
            if step % max(1, steps // 200) == 0 or step == steps:
                with torch.no_grad():
                    norms = htf.local_component_norms()[tree.root].sort(descending=True).values
                    error = float((htf.contract() - truth).norm() / truth.norm())
                history.append({"step": step, "loss": float(loss.detach()), "error": error, "norms": norms.tolist()})
                live.update(_progress(history, steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return history


def _progress(history: History, steps: int) -> Table:
    table = Table(title="Largest local components at the root, over the training")
    table.add_column("component")
    table.add_column("norm", justify="right")
    table.add_column("from the first step to now")
    if not history:
        return table
    largest = max(record["norms"][0] for record in history)
    chosen = history[:: max(1, len(history) // 60)]
    for place in range(min(SHOWN, len(history[-1]["norms"]))):
        line = "".join(_BARS[round(8 * record["norms"][place] / largest)] for record in chosen)
        table.add_row(str(place + 1), f"{history[-1]['norms'][place]:.3f}", line)
    last = history[-1]
    table.caption = f"step {last['step']} of {steps}   loss {last['loss']:.2e}   reconstruction error {last['error']:.3f}"
    return table


def _draw(history: History, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = [record["step"] for record in history]
    for place in range(10):
        left.plot(steps, [record["norms"][place] for record in history], linewidth=1.4)
    left.set(title=f"10 largest of {RANK} local components at the root", xlabel="step", ylabel="norm")
    right.semilogy(steps, [record["loss"] for record in history], label="loss on the observed entries")
    right.semilogy(steps, [record["error"] for record in history], label="relative error of the whole tensor")
    right.set(title=f"Order 4, mode size {SIZE}, {SHARE:.0%} of the entries observed", xlabel="step")
    right.legend()
    with storage.replacing(path) as new:
        figure.savefig(new, format="png", dpi=120)
