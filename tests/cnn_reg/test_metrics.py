from __future__ import annotations

import numpy as np
import pytest
import torch

from cnn_reg.training.metrics import QUANTILES, Tally


def test_means_are_those_of_all_samples_whatever_the_batches():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, generator=generator), torch.randint(2, (50,), generator=generator).float()
    tally = Tally("cpu")
    for cut in torch.arange(50).split([20, 20, 10]):
        tally.add_outputs(logits[cut], labels[cut])
    means = tally.means()
    assert means["loss"] == pytest.approx(float(np.mean(np.logaddexp(0, -(2 * labels.numpy() - 1) * logits.numpy()))), rel=1e-5)
    assert means["accuracy"] == float(((logits.numpy() > 0) == (labels.numpy() == 1)).mean())


def test_quantiles_are_those_of_the_samples_that_are_there():
    cosines = torch.rand(2, 2000, generator=torch.Generator().manual_seed(1)) * 2 - 1
    there = torch.rand(2, 2000, generator=torch.Generator().manual_seed(2)) < 0.9
    tally = Tally("cpu")
    tally.add_cosines(cosines, there)
    means, known = tally.means(), cosines[there].abs().numpy()
    assert means["cosine"] == pytest.approx(known.mean(), rel=1e-6)
    assert means["left_out"] == int((~there).sum())
    np.testing.assert_allclose(means["cosine_quantiles"], np.quantile(known, QUANTILES), atol=2e-3)


def test_without_samples_there_are_no_means():
    means = Tally("cpu").means()
    assert [means[name] for name in ("loss", "accuracy", "penalty", "cosine", "cosine_quantiles")] == [None] * 5
