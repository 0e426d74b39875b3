"""Hierarchical tensor factorizations of any mode tree, on PyTorch."""

from tensornet.analysis.ranks import effective_rank, hierarchical_rank, hierarchical_singular_values, matricize, separation_rank
from tensornet.completion.completer import TensorCompleter
from tensornet.contraction.network import Request
from tensornet.contraction.plan import MemoryLimitError, Plan, make_plan
from tensornet.evaluation.observed import Observed, observe
from tensornet.files.objects import load, save
from tensornet.formats.hsvd import hsvd
from tensornet.formats.ht import HT, DependentColumnsWarning, ToleranceWarning
from tensornet.graphs import capture
from tensornet.htf import HTF
from tensornet.layers.classifier import HTFClassifier
from tensornet.layers.factorized import HTFConv2d, HTFLinear
from tensornet.layers.features import AffineFeatures, PatchFeatures, TrigonometricFeatures
from tensornet.optim import GroupRMSprop
from tensornet.shape import Shape, make_shape
from tensornet.tree import ModeTree, RepeatedNode

__version__ = "0.1.0"

__all__ = [
    "HT",
    "HTF",
    "AffineFeatures",
    "DependentColumnsWarning",
    "GroupRMSprop",
    "HTFClassifier",
    "HTFConv2d",
    "HTFLinear",
    "MemoryLimitError",
    "ModeTree",
    "Observed",
    "PatchFeatures",
    "Plan",
    "RepeatedNode",
    "Request",
    "Shape",
    "TensorCompleter",
    "ToleranceWarning",
    "TrigonometricFeatures",
    "capture",
    "effective_rank",
    "hierarchical_rank",
    "hierarchical_singular_values",
    "hsvd",
    "load",
    "make_plan",
    "make_shape",
    "matricize",
    "observe",
    "save",
    "separation_rank",
]
