"""A run's folder read again: its configuration and its network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from cnn_reg.config import Config, from_dict
from cnn_reg.networks import build_network
from cnn_reg.tasks import image_shape
from tensornet.checks import short
from tensornet.files.runs import CHECKPOINT, CONFIG
from tensornet.files.storage import read_json, read_nested


class Begun(NamedTuple):
    """What a run was begun with.

    Attributes:
        config: What was asked for.
        version: The version of this package that it was asked of.
    """

    config: Config
    version: str


def read_config(folder: str | os.PathLike[str]) -> Begun:
    """What the run in a folder was begun with.

    Raises:
        ValueError: The folder's ``config.json`` is damaged, of another program, or of a version with other fields.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> from cnn_reg.config import as_dict
        >>> from tensornet.files.runs import Run
        >>> folder = Run(tempfile.mkdtemp(), {**as_dict(Config(seed=3)), "version": "0.1.0"}).folder
        >>> read_config(folder).config.seed
        3
    """
    path = Path(folder) / CONFIG
    fields: Any = read_json(path)
    if not isinstance(fields, dict) or not isinstance(fields.get("version"), str):
        raise ValueError(f"{path} is no configuration of a training by cnn-reg")
    version = fields.pop("version")
    try:
        return Begun(from_dict(fields), version)
    except ValueError as error:
        raise ValueError(f"{path} is {error} (version {short(version)})") from None


class Trained(NamedTuple):
    """A network and the configuration of its run.

    Attributes:
        config: What determined the training.
        network: In the state of the checkpoint, on the CPU, in training mode as it was built.
    """

    config: Config
    network: nn.Module


def load_network(checkpoint: str | os.PathLike[str]) -> Trained:
    """The network in a checkpoint of ``cnn-reg train``, whether the run is finished or not.

    A configuration may name a function of some package that makes the network. It is imported and called: load runs that you trust.

    Args:
        checkpoint: A run's folder, or the checkpoint in it, beside which its ``config.json`` lies.

    Raises:
        ValueError: A file is damaged, of another program, or the weights are not of the configuration's network.
        OSError: A file cannot be read.

    Example:
        >>> import tempfile
        >>> from cnn_reg.config import as_dict
        >>> from tensornet.files.runs import Run
        >>> config = Config(width=0.125, image_size=32)
        >>> run = Run(tempfile.mkdtemp(), {**as_dict(config), "version": "0.1.0"})
        >>> run.checkpoint({"model": build_network("resnet18", 1, (32, 32), width=0.125).state_dict()})
        >>> load_network(run.folder).config == config
        True
    """
    path = Path(checkpoint)
    folder, path = (path, path / CHECKPOINT) if path.is_dir() else (path.parent, path)
    config = read_config(folder).config
    channels, *size = image_shape(config)
    network = build_network(config.model, channels, (size[0], size[1]), dropout=config.dropout, width=config.width)
    try:
        network.load_state_dict(read_nested(path, kind="checkpoint")["state"]["model"])
    except (AttributeError, KeyError, RuntimeError, TypeError):
        raise ValueError(f"{path} is not of the network {config.model} of its configuration") from None
    return Trained(config, network)
