from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from training_cases import SIZE, draw, make_config, make_model

from cnn_reg import gradient_direction_penalty
from cnn_reg.training.metrics import Tally
from cnn_reg.training.objective import StepPlan, accumulate_gradients, evaluate
from tensornet.distributed import Processes


def batch(count):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(count, 1, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return images, torch.randint(2, (count,), generator=generator).double()


def accumulated(model, images, labels, pairs, coefficient, accumulate):
    """Gradient of the objective in parts."""
    model = copy.deepcopy(model)
    parts = [(images[part], labels[part]) for part in Processes().parts(torch.arange(len(labels)), accumulate)]
    tally = Tally("cpu")
    plan = StepPlan(coefficient, pairs)
    accumulate_gradients(model, parts, len(labels), plan=plan, config=make_config(), tally=tally, plain=model)
    return [parameter.grad for parameter in model.parameters()], tally.means()


def blockwise(count, accumulate):
    """The permutation of a whole batch in which the samples of each part go round."""
    return torch.cat([part.roll(-1) for part in torch.arange(count).tensor_split(accumulate)])


@pytest.mark.parametrize(("count", "accumulate"), [(12, 1), (12, 3), (11, 3), (8, 4)])
@pytest.mark.parametrize("coefficient", [0.0, 2.0])
def test_parts_give_the_gradient_of_the_whole_batch(count, accumulate, coefficient):
    model = make_model(dropout=0.0, batch_norm=False).double()
    images, labels = batch(count)
    pairs = [draw(torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    found, means = accumulated(model, images, labels, pairs, coefficient, accumulate)
    regions_i, regions_j = map(list, zip(*pairs))
    penalty, info = gradient_direction_penalty(model, images, regions_i, regions_j, permutation=blockwise(count, accumulate))
    loss = binary_cross_entropy_with_logits(info.outputs.flatten().float(), labels)
    wanted = torch.autograd.grad(loss + coefficient * penalty, list(model.parameters()))
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)  # the loss is computed in float32
    assert means["loss"] == pytest.approx(loss.item(), rel=1e-6)
    if coefficient:
        assert means["penalty"] == pytest.approx(penalty.item(), rel=1e-6)
        assert means["cosine"] == pytest.approx(info.mean_abs_cosine, rel=1e-6)


def test_a_part_of_one_image_has_no_penalty():
    model = make_model(dropout=0.0, batch_norm=False).double()
    images, labels = batch(1)
    _, means = accumulated(model, images, labels, [draw(torch.Generator())], 2.0, 1)
    assert (means["penalty"], means["cosine"]) == (None, None)
    assert means["loss"] > 0


def test_evaluation_uses_running_statistics_and_leaves_them():
    model = make_model(dropout=0.5)
    before = copy.deepcopy(model.state_dict())
    images, labels = batch(6)
    found = []
    for cut in (6, 2):
        tally = Tally("cpu")
        evaluate(model, zip(images.float().split(cut), labels.float().split(cut)), config=make_config(), tally=tally)
        found.append(tally.means())
    assert found[0]["loss"] == pytest.approx(found[1]["loss"])
    assert found[0]["accuracy"] == found[1]["accuracy"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
