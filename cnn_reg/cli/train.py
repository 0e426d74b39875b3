"""``cnn-reg train``: trains a network of Section 6, with or without the penalty."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cnn_reg.config import PRESETS, Config, as_dict, parse_field, preset, run_id
from cnn_reg.figures import draw_curves
from cnn_reg.networks import build_network
from cnn_reg.tasks import Task, make_task
from cnn_reg.training import trackers
from cnn_reg.training.arithmetic import arithmetic
from cnn_reg.training.loop import InterruptedTrainingError, summarize, train
from cnn_reg.training.trainer import Trainer
from cnn_reg.twice import twice_differentiable
from tensornet import __version__
from tensornet.cli.arguments import device, examples
from tensornet.distributed import Processes, processes
from tensornet.files.runs import SUMMARY, Run
from tensornet.files.storage import read_json
from tensornet.interrupts import signals

RUNS = Path("runs")  # where runs lie by default
CURVES = "curves.png"
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
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder where CIFAR10 lies or is downloaded to; Pathfinder is made anew")
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
    folder = arguments.out or RUNS / f"{_name(config)}-{run_id(config, __version__)}"
    with processes(arguments.device) as (joined, place), arithmetic(config, place, config.seed):
        first = joined.rank == 0
        shown = console if first else Console(quiet=True)
        record = Run(folder, {**as_dict(config), "version": __version__}, resume=arguments.resume) if first else None
        if arguments.resume and (folder / SUMMARY).exists():
            shown.print(f"{folder} is complete.")
            _tell(shown, read_json(folder / SUMMARY), folder)
            return 0
        task, trainer = _prepare(config, arguments.data, place, joined, record, shown)
        with signals() as arrived:
            try:
                with _followers(arguments, config, folder, trainer, shown, first) as (on_step, on_epoch):
                    ended = train(trainer, record, on_step=on_step, on_epoch=on_epoch, stopping=lambda: bool(arrived()))
            except InterruptedTrainingError as interrupt:
                shown.print(f"{interrupt}; the checkpoint is in {folder}. The same command with --resume continues.", soft_wrap=True)
                return 128 + (arrived() or signal.SIGTERM)
        if record is not None:
            _finish(record, config, task, ended, place, joined, shown)
    return 0


def _name(config: Config) -> str:
    task = f"pathfinder-{config.path_length}" if config.dataset == "pathfinder" else f"same-class-{config.source}-{config.distance}"
    return f"{task}-{config.model.replace(':', '.')}-coefficient-{config.coefficient:g}-seed-{config.seed}"


def _prepare(
    config: Config, data: Path | None, place: torch.device, joined: Processes, record: Run | None, console: Console
) -> tuple[Task, Trainer]:
    start = time.perf_counter()
    task = make_task(config, data, place)
    console.print(f"{task.title}: made or loaded in {time.perf_counter() - start:.1f} s", soft_wrap=True)
    model = build_network(config.model, task.train.channels, task.train.image_size, dropout=config.dropout, width=config.width)
    if config.coefficient:
        model = twice_differentiable(model)
    trainer = Trainer(config, task, model, device=place, processes=joined)
    if joined.rank:
        torch.manual_seed(config.seed + joined.rank)  # the same weights, but other units dropped
    state = joined.gather(None if record is None else record.restore())[0]
    if state is not None:
        trainer.set(state)
        console.print(f"continued after epoch {trainer.epoch}, step {trainer.step} of {trainer.steps}")
    return task, trainer


Followers = tuple[Callable[[Trainer], None], Callable[[dict[str, Any]], None]]


@contextlib.contextmanager
def _followers(arguments: Any, config: Config, folder: Path, trainer: Trainer, console: Console, first: bool) -> Iterator[Followers]:
    """What is called after steps and epochs: the progress bar and the trackers, all of them in the first process alone."""
    with contextlib.ExitStack() as stack:
        sinks: list[trackers.Tracker] = []
        if first and arguments.tensorboard:
            sinks.append(stack.enter_context(trackers.tensorboard(folder / "tensorboard")))
        if first and arguments.wandb:
            sinks.append(stack.enter_context(trackers.wandb(folder, arguments.wandb, run_id(config, __version__), as_dict(config))))
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[now]}"),
            TimeRemainingColumn(),
        )
        bar = stack.enter_context(Progress(*columns, console=console, transient=True, disable=not first))
        whole = bar.add_task("", total=config.epochs * trainer.steps, completed=trainer.epoch * trainer.steps + trainer.step, now="")
        looked = [0.0]

        def on_step(now: Trainer) -> None:
            if time.perf_counter() - looked[0] > REFRESH:
                looked[0] = time.perf_counter()
                done = now.epoch * now.steps + now.step
                bar.update(whole, completed=done, description=f"epoch {now.epoch + 1} of {config.epochs}", now=_now(now))

        def on_epoch(record: dict[str, Any]) -> None:
            console.print(_row(record), soft_wrap=True)
            for sink in sinks:
                sink(record)

        yield on_step, on_epoch


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


def _finish(record: Run, config: Config, task: Task, ended: str, place: torch.device, joined: Processes, console: Console) -> None:
    records = record.records()
    summary = {
        "task": task.title,
        "model": config.model,
        "coefficient": config.coefficient,
        "seed": config.seed,
        "ended": ended,
        **summarize(records),
        "distance_only_accuracy": task.baseline,
        "run_id": run_id(config, __version__),
        "version": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else f"{place.type}, {torch.get_num_threads()} threads",
        "processes": joined.size,
        "full_run": full_run(config),
    }
    title = f"{task.title}, {config.model}, coefficient {config.coefficient:g}, seed {config.seed}"
    draw_curves(record.folder / CURVES, records, title=title, baseline=task.baseline)
    record.finish(**summary)
    _tell(console, summary, record.folder)


def full_run(config: Config) -> str:
    """The command of the paper's recipe for a configuration's data and network.

    Example:
        >>> full_run(preset("quick"))
        'cnn-reg train --preset paper --dataset pathfinder --path-length 3 --model resnet18 --device cuda'
    """
    options = {"pathfinder": ("path_length",), "same-class": ("distance", "source")}[config.dataset]
    chosen = [f"--{name.replace('_', '-')} {getattr(config, name)}" for name in ("dataset", *options, "model")]
    return f"cnn-reg train --preset paper {' '.join(chosen)} --device cuda"


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
