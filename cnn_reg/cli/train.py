"""``cnn-reg train``: trains a network of Section 6, with or without the penalty."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cnn_reg.cli.options import add_data
from cnn_reg.config import PRESETS, Config, as_dict, parse_field, preset, run_id
from cnn_reg.training import trackers
from cnn_reg.training.loop import InterruptedTrainingError
from cnn_reg.training.running import Watch, folder_name, run_config
from cnn_reg.training.trainer import Trainer
from tensornet import __version__
from tensornet.cli.arguments import device, examples
from tensornet.distributed import processes
from tensornet.interrupts import signals

RUNS = Path("runs")  # where runs lie by default
REFRESH = 0.5  # seconds between looks at the sums on the device
_OPTIONS = {  # of fields that have an option of their own: what it says in the help
    "dataset": "pathfinder or same-class",
    "path_length": "of Pathfinder, in paddles",
    "distance": "of Is Same Class, in pixels between the images",
    "source": "of Is Same Class: cifar10, or a stand-in by name",
    "model": "resnet18, resnet34, or package:function",
    "coefficient": "of the penalty",
    "seed": "of the weights, the order of the images and the regions",
    "epochs": "at most",
    "batch_size": "images of a step",
}


def add_command(commands: Any) -> None:
    """Adds the command to a parser's subcommands.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> parser.parse_args(["train", "--path-length", "9"]).path_length
        '9'
    """
    parser = commands.add_parser(
        "train",
        help="train a network, with or without the penalty",
        description=(
            "Trains a network on Pathfinder or Is Same Class, with the penalty on gradients whose direction does not change\n"
            "(Section 6 of the paper). Options that are not given are those of the preset:\n"
            "  paper   the published recipe; the default as soon as any option is given\n"
            "  quick   two minutes on two cores; the default without options\n"
            "  study   a smaller network on smaller images, where the effect shows on a CPU in hours\n"
            "The folder of a run holds config.json, metrics.jsonl, summary.json, a checkpoint of every epoch, and the curves. SIGTERM and\n"
            "Ctrl-C finish the step and write a checkpoint; --resume continues to the same bits as without the interruption.\n"
            "torchrun starts several processes that share every batch."
        ),
        epilog=examples(
            "cnn-reg train",
            "cnn-reg train --path-length 9 --coefficient 9 --device cuda --out runs/pathfinder-9",
            "cnn-reg train --dataset same-class --distance 160 --model resnet34 --device cuda --set precision=bfloat16",
            "cnn-reg train --preset study --path-length 5 --coefficient 3 --seed 1 --resume",
            "torchrun --nproc-per-node 2 -m cnn_reg train --path-length 9 --device cuda",
        ),
    )
    parser.add_argument("--preset", metavar="NAME", help=f"{', '.join(PRESETS)}")
    for field, text in _OPTIONS.items():
        parser.add_argument(f"--{field.replace('_', '-')}", metavar=field.rpartition("_")[2].upper(), help=text)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="any field of the configuration; may be repeated")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/ and a name of the configuration)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder, if there is one")
    parser.add_argument("--device", type=device, default="cpu", metavar="D", help="where to compute: cpu, cuda, ... (default cpu)")
    add_data(parser)
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's events into the run's folder")
    parser.add_argument("--wandb", metavar="PROJECT", help="also send the records to Weights & Biases")
    parser.set_defaults(run=run)


def configuration(arguments: Any) -> Config:
    """The configuration that the arguments ask for.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A preset or field is unknown, or a value is wrong.

    Example:
        >>> from tensornet.cli.arguments import Parser
        >>> parser = Parser(prog="tool")
        >>> add_command(parser.add_subparsers())
        >>> configuration(parser.parse_args(["train", "--path-length", "9", "--set", "momentum=0.5"])).momentum
        0.5
    """
    texts = [f"{field}={getattr(arguments, field)}" for field in _OPTIONS if getattr(arguments, field) is not None]
    changes = dict(parse_field(text) for text in [*texts, *arguments.set])
    return preset(arguments.preset or ("paper" if changes else "quick"), **changes)


def run(arguments: Any, console: Console) -> int:
    """Runs the command; see ``cnn-reg train --help``.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: Arguments do not fit together, or the folder holds another run.
        OSError: A file cannot be read or written.
        DivergedError: The loss is no longer finite.

    Example:
        >>> import tempfile
        >>> from cnn_reg.cli import main
        >>> fields = ["train_images=8", "test_images=4", "image_size=32", "width=0.1", "batch_size=4"]
        >>> options = [part for field in fields for part in ("--set", field)]
        >>> main(["train", *options, "--epochs", "1", "--out", tempfile.mkdtemp() + "/run"])  # doctest: +ELLIPSIS
        Pathfinder, path length 7: ...
        0
    """
    config = configuration(arguments)
    folder = arguments.out or RUNS / folder_name(config)
    with processes(arguments.device) as (joined, place), signals() as arrived:
        first = joined.rank == 0
        shown = console if first else Console(quiet=True)
        with _watch(arguments, config, folder, shown, first) as watch:
            try:
                summary = run_config(
                    config,
                    folder,
                    device=place,
                    joined=joined,
                    data=arguments.data,
                    resume=arguments.resume,
                    watch=watch,
                    stopping=lambda: bool(arrived()),
                )
            except InterruptedTrainingError as interrupt:
                shown.print(f"{interrupt}; the checkpoint is in {folder}. The same command with --resume continues.", soft_wrap=True)
                return 128 + (arrived() or signal.SIGTERM)
        if first:
            _tell(console, summary, folder)
    return 0


@contextlib.contextmanager
def _watch(arguments: Any, config: Config, folder: Path, console: Console, first: bool) -> Iterator[Watch]:
    """What is told after steps and epochs: the progress bar and the trackers, all of them in the first process alone."""
    with contextlib.ExitStack() as stack:
        sinks: list[trackers.Tracker] = []
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[now]}"),
            TimeRemainingColumn(),
        )
        bar = stack.enter_context(Progress(*columns, console=console, transient=True, disable=not first))
        whole = bar.add_task("", total=None, now="", visible=False)
        looked = [0.0]

        def on_start(trainer: Trainer) -> None:
            if first and arguments.tensorboard:
                sinks.append(stack.enter_context(trackers.tensorboard(folder / "tensorboard")))
            if first and arguments.wandb:
                sinks.append(stack.enter_context(trackers.wandb(folder, arguments.wandb, run_id(config, __version__), as_dict(config))))
            bar.reset(whole, total=config.epochs * trainer.steps, completed=_done(trainer), visible=True)

        def on_step(now: Trainer) -> None:
            if time.perf_counter() - looked[0] > REFRESH:
                looked[0] = time.perf_counter()
                bar.update(whole, completed=_done(now), description=f"epoch {now.epoch + 1} of {config.epochs}", now=_now(now))

        def on_epoch(record: dict[str, Any]) -> None:
            console.print(_row(record), soft_wrap=True)
            for sink in sinks:
                sink(record)

        yield Watch(lambda text: console.print(text, soft_wrap=True), on_start, on_step, on_epoch)


def _done(trainer: Trainer) -> int:
    return trainer.epoch * trainer.steps + trainer.step


def _now(trainer: Trainer) -> str:
    means = trainer.tally.means()
    speed = trainer.step * trainer.config.batch_size / trainer.seconds
    cosine = "" if means["cosine"] is None else f", |cos| {means['cosine']:.3f}"
    return f"{speed:.0f} images/s, loss {means['loss']:.4f}{cosine}"


def _row(record: dict[str, Any]) -> str:
    cosine = "" if record["cosine"] is None else f", |cos| {record['cosine']:.3f}"
    validation = f", validation {record['validation_accuracy']:.4f}" if "validation_accuracy" in record else ""
    return (
        f"epoch {record['epoch']}: loss {record['train_loss']:.4f}, accuracy {record['train_accuracy']:.4f}{validation}, "
        f"test {record['test_accuracy']:.4f}{cosine}, {record['images_per_second']:.0f} images/s"
    )


def _tell(console: Console, summary: dict[str, Any], folder: Path) -> None:
    lines = [
        f"Trained {summary['model']} on {summary['task']} with coefficient {summary['coefficient']:g}, until {summary['ended']}, "
        f"in {summary['training_seconds']:.0f} s of steps.",
        f"Test accuracy {summary['test_accuracy']:.4f} after the last epoch, training accuracy {summary['train_accuracy']:.4f}.",
    ]
    if "best_validation" in summary:
        best = summary["best_validation"]
        lines.append(f"Test accuracy {best['test_accuracy']:.4f} at epoch {best['epoch']}, the best on the validation images.")
    if summary["distance_only_accuracy"] is not None:
        lines.append(f"The distance between the circles alone predicts {summary['distance_only_accuracy']:.4f} of the test labels.")
    lines += [f"Records, checkpoint and curves are in {folder}.", f"The full run: {summary['full_run']}"]
    for text in lines:
        console.print(text, soft_wrap=True, highlight=False)
