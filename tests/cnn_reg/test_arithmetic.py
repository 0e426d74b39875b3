from __future__ import annotations

import random

import numpy as np
import torch

from cnn_reg.config import Config
from cnn_reg.training.arithmetic import arithmetic


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.benchmark,
    )


def drawn():
    return torch.rand(()).item(), random.random(), np.random.random()  # noqa: NPY002


def test_settings_and_random_numbers_are_those_of_before_afterwards():
    before = settings()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    wanted = drawn()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    with arithmetic(Config(deterministic=True, tf32=True), "cpu", seed=1):
        assert settings()[:3] == (True, True, True)
        inside = drawn()
    assert settings() == before
    assert drawn() == wanted
    with arithmetic(Config(), "cpu", seed=1):
        assert drawn() == inside
