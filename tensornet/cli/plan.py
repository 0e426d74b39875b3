"""``tensornet plan``: what contracting a factorization would cost, without doing it."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console

from tensornet.cli.arguments import examples, memory, sizes, tree
from tensornet.contraction.costs import CPU, CUDA
from tensornet.contraction.execute import available_memory
from tensornet.contraction.network import Request
from tensornet.contraction.plan import make_plan
from tensornet.shape import make_shape

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["plan", "--tree", "(0,1)"]).mode_sizes
        2
    """
    parser = commands.add_parser(
        "plan",
        help="print the plan by which a factorization is contracted, with its costs",
        description="Prints a mode tree, and the plan by which a factorization with this tree is contracted to its end tensor.",
        epilog=examples(
            "tensornet plan --tree '((0,1),(2,3))' --mode-sizes 8 --ranks 64",
            "tensornet plan --tree '((0,2),(1,3,4))' --mode-sizes 64,64,32,8,8 --ranks 16 --memory-limit 2GB",
        ),
    )
    parser.add_argument("--tree", type=tree, required=True, metavar="TREE", help="nested modes, such as ((0,1),(2,3))")
    parser.add_argument("--mode-sizes", type=sizes, default=2, metavar="D", help="size of the modes, or one each: 8 or 8,6,4 (default 2)")
    parser.add_argument("--ranks", type=sizes, metavar="R", help="local components of the interior nodes, or of each, children first")
    parser.add_argument("--dtype", choices=_BYTES, default="float32", help="kind of numbers (default float32)")
    parser.add_argument("--machine", choices=("cpu", "cuda"), default="cpu", help="whose rates choose the plan (default cpu)")
    parser.add_argument("--memory-limit", type=memory, metavar="BYTES", help="memory that the contraction may use, such as 2GB")
    parser.set_defaults(run=run)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``tensornet plan --help``.

    Raises:
        ValueError: The sizes do not fit the tree.
        MemoryLimitError: Nothing fits into the memory limit.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> run(parser.parse_args(["plan", "--tree", "(0,1)"]), Console(quiet=True))
        0
    """
    nodes, ranks = arguments.tree.interior, arguments.ranks
    if isinstance(ranks, tuple):
        if len(ranks) != len(nodes):
            raise ValueError(f"--ranks needs one number, or one per interior node; got {len(ranks)} for {len(nodes)} nodes {nodes}")
        ranks = dict(zip(nodes, ranks))
    shape = make_shape(arguments.tree, arguments.mode_sizes, ranks)
    machine = CUDA if arguments.machine == "cuda" else CPU
    plan = make_plan(shape, Request(), itemsize=_BYTES[arguments.dtype], machine=machine, memory_limit=arguments.memory_limit)
    console.print(f"{arguments.tree}\n\n{plan}", markup=False, highlight=False, soft_wrap=True)
    if arguments.machine == "cpu" and plan.peak_bytes > (free := available_memory(torch.device("cpu"))):
        text = f"This is more than the {free / 2**30:.1f} GiB that are free here: contract() refuses it, entries() needs far less."
        console.print(text, highlight=False, soft_wrap=True)
    return 0
