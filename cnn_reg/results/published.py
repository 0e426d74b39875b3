"""The accuracies of the paper's Figure 6, read off its plots to half a percent."""

from __future__ import annotations

from cnn_reg.config import Config

# data set -> coefficient -> path length or distance -> test accuracy in percent, means of five seeds
FIGURE_6 = {
    "same-class": {
        0.0: {0: 61.3, 40: 60.0, 80: 55.8, 120: 50.0, 160: 50.5},
        0.1: {0: 61.3, 40: 60.4, 80: 58.3, 120: 52.4, 160: 49.9},
        1.0: {0: 61.3, 40: 61.3, 80: 60.5, 120: 58.8, 160: 58.5},
    },
    "pathfinder": {
        0.0: {3: 98.3, 5: 96.0, 7: 68.7, 9: 50.3},
        3.0: {3: 98.3, 5: 96.7, 7: 89.8, 9: 63.5},
        9.0: {3: 98.5, 5: 96.7, 7: 91.7, 9: 85.5},
    },
}


def published_accuracy(config: Config) -> float | None:
    """The paper's accuracy, from 0 to 1, for a configuration's data set, network and regularization; ``None`` where none is known.

    None is for pictures that stand in for CIFAR10's. What else a configuration holds, such as the number of images, may be another than
    the paper's.

    Example:
        >>> published_accuracy(Config(path_length=7, coefficient=9))
        0.917
        >>> published_accuracy(Config(path_length=7, coefficient=9, dropout=0.5)) is None
        True
    """
    stand_in = config.dataset == "same-class" and config.source != "cifar10"
    if config.model != "resnet18" or config.weight_decay or config.dropout or config.matched or stand_in:
        return None
    place = config.path_length if config.dataset == "pathfinder" else config.distance
    percent = FIGURE_6[config.dataset].get(config.coefficient, {}).get(place)
    return None if percent is None else round(percent / 100, 4)
