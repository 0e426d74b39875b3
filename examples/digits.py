"""Trains factorizations of several mode trees to tell apart the handwritten digits that scikit-learn ships (1797 images of 8 x 8).

An image has 64 modes, one a pixel. The tree of 2 x 2 pooling windows makes the factorization a deep convolutional network, the chain
a tensor train, the star a CP factorization (a shallow network). A quarter of the images is held out. Examples:

    python examples/digits.py
    python examples/digits.py --tree windows chain star --seeds 3
    python examples/digits.py --pooling max --features patches
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from tensornet import HTFClassifier, PatchFeatures, TrigonometricFeatures
from tensornet.tree import ModeTree

SIZE = (8, 8)


class Recipe(NamedTuple):
    """What is good for one kind of tree: the deeper it is, the smaller the steps; a chain's sweep is long, a star's rank must be large."""

    tree: ModeTree
    ranks: int
    learning_rate: float


RECIPES = {
    "windows": Recipe(ModeTree.grid(SIZE, window=2), ranks=32, learning_rate=0.02),
    "chain": Recipe(ModeTree.chain(64), ranks=32, learning_rate=0.002),
    "star": Recipe(ModeTree.star(64), ranks=128, learning_rate=0.01),
}


class Result(NamedTuple):
    """Accuracy on the held-out and on the training images, and seconds of training."""

    held_out: float
    training: float
    wall: float
    cpu: float


def digits(seed: int) -> list[Tensor]:
    """Images from 0 to 1 and labels: training images, held-out images, training labels, held-out labels."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images.reshape(-1, *SIZE) / 16, labels, test_size=0.25, random_state=seed, stratify=labels)
    return [torch.tensor(part, dtype=torch.long if part.ndim == 1 else torch.float32) for part in parts]


def build(recipe: Recipe, features: str, pooling: str, generator: torch.Generator) -> HTFClassifier:
    """The classifier before training; max and mean pooling with ReLU before them."""
    maps = {"affine": lambda: None, "trigonometric": TrigonometricFeatures, "patches": lambda: PatchFeatures(SIZE, generator=generator)}
    activation = None if pooling == "product" else "relu"
    return HTFClassifier(
        SIZE,
        10,
        tree=recipe.tree,
        ranks=recipe.ranks,
        features=maps[features](),
        pooling=pooling,
        activation=activation,
        generator=generator,
    )


def fit(
    model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, learning_rate: float, noise: float, generator: torch.Generator
) -> None:
    """Adam with one cycle of the learning rate; the pixels get Gaussian noise of standard deviation ``noise``."""
    batch = 64
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * math.ceil(len(images) / batch))
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(batch):
            noisy = images[chosen] + noise * torch.randn(images[chosen].shape, generator=generator)
            loss = nn.functional.cross_entropy(model(noisy), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose largest logit is at their label."""
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def run(recipe: Recipe, seed: int, *, epochs: int, features: str = "affine", pooling: str = "product", noise: float = 0.1) -> Result:
    """Splits, builds, trains and measures; the seed determines all of it."""
    generator = torch.Generator().manual_seed(seed)
    images, held_out, labels, held_out_labels = digits(seed)
    model = build(recipe, features, pooling, generator)
    wall, cpu = time.perf_counter(), time.process_time()
    fit(model, images, labels, epochs=epochs, learning_rate=recipe.learning_rate, noise=noise, generator=generator)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Result(accuracy(model, held_out, held_out_labels), accuracy(model, images, labels), wall, cpu)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, trains, prints one line a tree."""
    parser = argparse.ArgumentParser(description="Hierarchical tensor factorizations on scikit-learn's digits.")
    parser.add_argument("--tree", nargs="+", choices=RECIPES, default=["windows"], help="mode trees to train (default: windows)")
    parser.add_argument("--seeds", type=int, default=1, help="number of splits and initialisations (default: 1)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--ranks", type=int, help="channels in the network (default: 32, of the star 128)")
    parser.add_argument("--learning-rate", type=float, help="largest step (default: depends on the tree)")
    parser.add_argument("--threads", type=int, default=1, help="more than one seldom pays for matrices this small (default: 1)")
    parser.add_argument("--features", choices=("affine", "trigonometric", "patches"), default="affine")
    parser.add_argument("--pooling", choices=("product", "max", "mean"), default="product")
    given = parser.parse_args(arguments)
    if min(given.seeds, given.epochs, given.threads) < 1:
        parser.error("--seeds, --epochs and --threads must be at least 1")
    torch.set_num_threads(given.threads)
    print(f"{'tree':8} {'ranks':>5} {'held-out accuracy':>18} {'worst':>6} {'training':>8} {'wall s':>7} {'CPU s':>6}")
    for name in given.tree:
        recipe = RECIPES[name]
        recipe = recipe._replace(ranks=given.ranks or recipe.ranks, learning_rate=given.learning_rate or recipe.learning_rate)
        results = [run(recipe, seed, epochs=given.epochs, features=given.features, pooling=given.pooling) for seed in range(given.seeds)]
        held_out, training, wall, cpu = (list(column) for column in zip(*results))
        spread = f" +- {statistics.stdev(held_out):.2%}" if len(results) > 1 else ""
        print(
            f"{name:8} {recipe.ranks:5d} {f'{statistics.mean(held_out):.2%}{spread}':>18} {min(held_out):6.1%} "
            f"{statistics.mean(training):8.1%} {statistics.mean(wall):7.1f} {statistics.mean(cpu):6.1f}"
        )


if __name__ == "__main__":
    main()
