"""Regularization of convolutional networks against locality (Section 6)."""

from cnn_reg.data import SameClassPairs
from cnn_reg.models import resnet18, resnet34
from cnn_reg.penalty import PenaltyInfo, gradient_direction_penalty
from cnn_reg.regions import Region, sample_disjoint_regions
from cnn_reg.schedule import PenaltySchedule
from cnn_reg.twice import twice_differentiable

__all__ = [
    "PenaltyInfo",
    "PenaltySchedule",
    "Region",
    "SameClassPairs",
    "gradient_direction_penalty",
    "resnet18",
    "resnet34",
    "sample_disjoint_regions",
    "twice_differentiable",
]
