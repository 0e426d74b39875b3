"""The regularized objective of one batch and its gradient, in parts that are accumulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnn_reg.config import Config
from cnn_reg.penalty import gradient_direction_penalty
from cnn_reg.regions import Region
from cnn_reg.training.arithmetic import autocast
from cnn_reg.training.metrics import Tally


@dataclass(frozen=True)
class StepPlan:
    """What one step computes besides the cross entropy.

    Args:
        coefficient: Of the penalty; with 0 nothing is differentiated twice.
        pairs: Disjoint regions (I, J), all of which every sample of the batch sees.
        cosines: Whether to measure |cos| in a step without penalty; the training goes on as if it had not been measured.

    Example:
        >>> StepPlan(0.0, [(Region(0, 0, 2, 2), Region(4, 4, 2, 2))], cosines=True).penalized
        True
    """

    coefficient: float
    pairs: Sequence[tuple[Region, Region]]
    cosines: bool = False

    @property
    def penalized(self) -> bool:
        """Whether gradients with respect to the images are needed."""
        return bool(self.coefficient) or self.cosines


def accumulate_gradients(
    model: nn.Module,
    parts: Iterable[tuple[Tensor, Tensor]],
    samples: int,
    *,
    plan: StepPlan,
    config: Config,
    tally: Tally,
    plain: Callable[[Tensor], Tensor],
) -> None:
    """Adds the gradient of the objective, a mean over a whole batch, to the gradients of the parameters.

    The objective is the mean binary cross entropy plus the coefficient times the mean penalty (Section 6.1). Every part counts by its
    share of the batch, so that the sum over all parts is the gradient of the batch, however it is cut. What sees one part alone stays
    apart: batch normalisation uses each part's statistics, and samples take their neighbours' patches within a part.

    Args:
        model: A network of one logit, in training mode.
        parts: Images (b, C, H, W) and labels (b,) of each part.
        samples: How many the whole batch has, those of other processes included.
        plan: Coefficient and regions of this step.
        config: The kind of penalty, and the precision.
        tally: Gets the sums.
        plain: What runs instead of the model where nothing is differentiated with respect to images, such as its compiled form.

    Example:
        >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), torch.randn(4, 1, 4, 4)
        >>> plan, tally = StepPlan(1.0, [(Region(0, 0, 2, 2), Region(2, 2, 2, 2))]), Tally("cpu")
        >>> accumulate_gradients(model, [(images, torch.ones(4))], 4, plan=plan, config=Config(), tally=tally, plain=model)
        >>> round(tally.means()["penalty"], 5)  # the gradient of a linear function does not depend on the image
        1.0
    """
    for images, labels in parts:
        with autocast(config, images.device):
            if plan.penalized and len(labels) > 1:
                penalty, outputs = _penalty(model, images, plan, config, tally)
            else:
                penalty, outputs = None, plain(images)
        logits = outputs.reshape(len(labels)).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        tally.add_outputs(logits, labels)
        if penalty is not None and plan.coefficient:
            loss = loss + plan.coefficient * penalty
        (len(labels) / samples * loss).backward()


def _penalty(model: nn.Module, images: Tensor, plan: StepPlan, config: Config, tally: Tally) -> tuple[Tensor, Tensor]:
    """The penalty and the outputs on the unchanged images; measured alone, it leaves no trace in statistics and random numbers."""
    kind: dict[str, Any] = {"stop_gradient": "both", "batch_norm": "frozen", "same_dropout": True}
    if plan.coefficient:
        names = ("cosine", "stop_gradient", "permutation", "batch_norm", "same_dropout")
        kind = {name: getattr(config, name) for name in names}
    regions_i, regions_j = zip(*plan.pairs)
    penalty, info = gradient_direction_penalty(model, images, list(regions_i), list(regions_j), **kind)
    there = ~(info.zero | info.nonfinite)
    tally.add_cosines(info.cosines, there)
    if plan.coefficient:
        tally.add_penalty(penalty, len(images))
    return penalty, info.outputs


@torch.no_grad()
def evaluate(model: nn.Module, parts: Iterable[tuple[Tensor, Tensor]], *, config: Config, tally: Tally) -> None:
    """Adds the loss and the accuracy of a network in evaluation mode, in which it is left.

    Example:
        >>> model, tally = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), Tally("cpu")
        >>> evaluate(model, [(torch.randn(4, 1, 4, 4), torch.ones(4))], config=Config(), tally=tally)
        >>> 0 <= tally.means()["accuracy"] <= 1
        True
    """
    model.eval()
    for images, labels in parts:
        with autocast(config, images.device):
            outputs = model(images)
        tally.add_outputs(outputs.reshape(len(labels)), labels)
