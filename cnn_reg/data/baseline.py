"""What the distance of the circles says by itself, and other statistics of Pathfinder images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def band(distances: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """The interval of distances that is most often right when everything inside is called connected.

    Returns:
        Its ends, which belong to it. They lie at samples.

    Raises:
        ValueError: There is no sample, or not one label each.

    Example:
        >>> band([1, 2, 3, 4], [0, 1, 1, 0])
        (2.0, 3.0)
    """
    distance, label = _check(distances, labels)
    values, place = np.unique(distance, return_inverse=True)
    gains = np.bincount(place, np.where(label, 1.0, -1.0))  # of calling a value connected
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    lowest = np.minimum.accumulate(sums[:-1])
    end = int(np.argmax(sums[1:] - lowest))
    begin = int(np.argmin(sums[: end + 1]))
    return float(values[begin]), float(values[end])


def accuracy(distances: ArrayLike, labels: ArrayLike, interval: tuple[float, float]) -> float:
    """How often the label is right that a band of distances gives.

    Raises:
        ValueError: There is no sample, or not one label each.

    Example:
        >>> accuracy([5, 5, 9, 9], [1, 1, 0, 1], (4.0, 6.0))
        0.75
    """
    distance, label = _check(distances, labels)
    return float((((interval[0] <= distance) & (distance <= interval[1])) == label).mean())


def halves(distances: ArrayLike, labels: ArrayLike) -> float:
    """How often the distance alone predicts the label: a band chosen on every other image, measured on the rest.

    An honest report prints this beside a network's accuracy.

    Raises:
        ValueError: There are fewer than two samples, or not one label each.

    Example:
        >>> halves([5, 5, 9, 9], [1, 1, 0, 0])
        1.0
    """
    distance, label = _check(distances, labels)
    if len(label) < 2:
        raise ValueError(f"a band is chosen on one half and measured on the other, so two samples are needed; got {len(label)}")
    return accuracy(distance[1::2], label[1::2], band(distance[::2], label[::2]))


def statistics(images: NDArray[np.uint8], labels: ArrayLike, distances: ArrayLike) -> dict[str, float]:
    """Mean of the images and its deviation over images, share of bright pixels, and distances of the circles by class.

    Example:
        >>> found = statistics(np.zeros((2, 4, 4), dtype=np.uint8), [0, 1], [30.0, 20.0])
        >>> found["mean"], found["connected"], found["apart"]
        (0.0, 20.0, 30.0)
    """
    distance, label = _check(distances, labels)
    means = images.reshape(len(images), -1).mean(axis=1) / 255
    found = {"mean": float(means.mean()), "mean_std": float(means.std()), "bright": float((images > 127).mean())}
    for name, chosen in (("connected", label), ("apart", ~label)):
        there = distance[chosen]
        found[name] = float(there.mean()) if len(there) else float("nan")
        found[f"{name}_std"] = float(there.std()) if len(there) else float("nan")
    return found


def _check(distances: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    distance, label = np.asarray(distances, dtype=np.float64), np.asarray(labels).astype(bool)
    if distance.ndim != 1 or distance.shape != label.shape or not len(label):
        raise ValueError(f"one distance and one label a sample are needed; got shapes {distance.shape} and {label.shape}")
    return distance, label
