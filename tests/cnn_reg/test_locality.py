"""How local networks are: functions whose answers are known, and the command on runs."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from cnn_reg.cli import main
from cnn_reg.config import Config, as_dict
from cnn_reg.locality import cosines_by_distance, effective_receptive_field, estimated_separation
from cnn_reg.networks import build_network
from cnn_reg.regions import Region
from tensornet.files.runs import Run


def images(count=6, size=16):
    return torch.rand(count, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Squared(nn.Module):
    """The square of the sum of all pixels: every gradient has one direction, but of a product of sums of halves it has not."""

    def forward(self, batch):
        return batch.sum((1, 2, 3)).square()


class Products(nn.Module):
    """Every pixel times the one 8 columns further."""

    def forward(self, batch):
        return (batch[..., :-8] * batch[..., 8:] * torch.arange(1, batch.shape[-1] - 7)).sum((1, 2, 3))


class TestCosines:
    def test_is_one_where_nothing_depends(self):
        for row in cosines_by_distance(Squared(), images(), [2, 5, 9], pairs=3):
            assert row.mean == pytest.approx(1, abs=1e-12)
            assert row.quantiles == pytest.approx([1] * 5)
            assert row.samples == 18

    def test_is_below_one_at_the_distance_that_interacts(self):
        generator = torch.Generator().manual_seed(0)
        horizontal = Products()
        found = cosines_by_distance(horizontal, images(8, 24), [3, 8], pairs=60, generator=generator)
        assert found[0].mean > 1 - 1e-12
        assert found[1].quantiles[0] < 1 - 1e-6 or found[1].mean < 1 - 1e-6

    def test_zero_gradients_are_counted(self):
        (row,) = cosines_by_distance(
            nn.Sequential(nn.Flatten(), nn.Threshold(2.0, 0.0), nn.Linear(256, 1)).double(), images(), [4], pairs=2
        )
        assert row.zero == row.samples == 12
        assert row.mean != row.mean

    def test_impossible_distances(self):
        with pytest.raises(ValueError, match="two disjoint 2 x 2 patches at distance 40 do not fit into an image of 16 x 16"):
            cosines_by_distance(Squared(), images(), [40])
        with pytest.raises(ValueError, match="at least two images"):
            cosines_by_distance(Squared(), images(1), [4])

    def test_the_model_stays_as_it_was(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1)).double()
        model[4].weight.requires_grad_(False)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        cosines_by_distance(model, images(), [4])
        effective_receptive_field(model, images())
        estimated_separation(model, images(), [0], [9])
        assert model.training
        assert model[1].training
        assert [parameter.requires_grad for parameter in model.parameters()] == [True] * 4 + [False, True]
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class TestReceptiveField:
    @pytest.mark.parametrize(("layers", "side"), [(1, 3), (3, 7)])
    def test_reaches_as_far_as_the_convolutions(self, layers, side):
        model = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(layers)])
        field = effective_receptive_field(model.double(), images())
        rows = (field.energy.sum(1) > 0).nonzero().flatten()
        assert len(rows) == side
        assert rows.double().mean().item() == 8
        assert field.energy.sum().item() == pytest.approx(1)

    def test_radius_of_a_ring(self):
        kernel = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
        kernel[0, 0, 0, 2] = kernel[0, 0, 4, 2] = kernel[0, 0, 2, 0] = kernel[0, 0, 2, 4] = 1.0
        model = nn.Conv2d(1, 1, 5, padding=2, bias=False).double()
        model.weight.data = kernel
        assert effective_receptive_field(model, images()).radius == pytest.approx(2)

    def test_errors(self):
        with pytest.raises(ValueError, match="no Conv2d"):
            effective_receptive_field(nn.Flatten(), images())
        unused = nn.Conv2d(1, 1, 1).double()
        with pytest.raises(ValueError, match="must be reached"):
            effective_receptive_field(nn.Sequential(nn.Conv2d(1, 1, 1).double()), images(), unused)


class TestSeparation:
    def test_rank_of_polynomials(self):
        left, right = Region(0, 0, 16, 4), Region(0, 12, 16, 4)

        def power(exponent):
            return lambda batch: (batch[..., :4].mean((1, 2, 3)) + batch[..., 12:].mean((1, 2, 3))) ** exponent

        for exponent in (1, 2, 3):  # (x + y)^p has p + 1 terms
            assert estimated_separation(power(exponent), images(8), left, right, rtol=1e-12).rank == exponent + 1

    def test_values_are_those_of_the_grid(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        batch = images(4)
        found = estimated_separation(model, batch, Region(0, 0, 8, 8), Region(8, 8, 8, 8), batch_size=3)
        grid = torch.empty(4, 4, dtype=torch.float64)
        for row in range(4):
            for column in range(4):
                image = batch[:1].clone()
                image[..., :8, :8] = batch[row, ..., :8, :8]
                image[..., 8:, 8:] = batch[column, ..., 8:, 8:]
                grid[row, column] = model(image).detach()[0, 0]
        values = torch.linalg.svdvals(grid)
        torch.testing.assert_close(found.singular_values, values / values.square().sum().sqrt())

    def test_several_outputs_need_a_choice(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 3)).double()
        with pytest.raises(ValueError, match="one number a sample"):
            estimated_separation(model, images(3), [0], [1])
        assert estimated_separation(model, images(3), [0], [1], output=lambda found: found[:, 2]).rank == 2  # a + b


def make_run(folder, coefficient, **changes):
    config = Config(train_images=4, test_images=6, image_size=40, width=0.125, coefficient=coefficient, **changes)
    run = Run(folder, {**as_dict(config), "version": "0"})
    torch.manual_seed(int(coefficient))
    channels = 1 if config.dataset == "pathfinder" else 3
    run.checkpoint({"model": build_network("resnet18", channels, (40, 40), width=0.125).state_dict()})
    return folder


class TestCommand:
    def test_compares_runs(self, tmp_path, capsys):
        first, second = make_run(tmp_path / "a", 0.0), make_run(tmp_path / "b", 9.0)
        out = tmp_path / "picture.png"
        assert (
            main(["locality", str(first), str(second / "checkpoint.safetensors"), "--untrained", "--images", "4", "--out", str(out)]) == 0
        )
        assert out.read_bytes()[1:4] == b"PNG"
        numbers = json.loads(out.with_suffix(".json").read_text())
        assert [row["title"] for row in numbers] == ["before training", "coefficient 0, seed 0", "coefficient 9, seed 0"]
        means = [[point["mean"] for point in row["cosines"]] for row in numbers]
        assert means[0] == pytest.approx(means[1], abs=1e-4)  # the first run's network has the weights of its seed
        assert means[0] != pytest.approx(means[2], abs=1e-4)
        assert "Pathfinder, path length 7" in capsys.readouterr().out

    def test_runs_of_other_tasks_are_told_apart(self, tmp_path, capsys):
        first, second = make_run(tmp_path / "a", 0.0), make_run(tmp_path / "b", 0.0, path_length=3, weight_decay=0.1)
        assert main(["locality", str(first), str(second), "--images", "4", "--out", str(tmp_path / "a.png")]) == 0
        titles = [row["title"] for row in json.loads((tmp_path / "a.json").read_text())]
        assert titles == [f"path length {length}, coefficient 0, weight decay {decay:g}, seed 0" for length, decay in ((7, 0), (3, 0.1))]
        capsys.readouterr()
        third = make_run(tmp_path / "c", 0.0, dataset="same-class", source="random")
        assert main(["locality", str(first), str(third)]) == 2
        assert "images of one data set and size; got pathfinder at 40, same-class at 40" in capsys.readouterr().err

    def test_errors_are_one_line(self, tmp_path, capsys):
        (tmp_path / "config.json").write_text('{"seed": 0}')
        for path in (tmp_path, tmp_path / "absent", tmp_path / "config.json"):
            assert main(["locality", str(path)]) == 2
            assert capsys.readouterr().err.count("\n") == 1


def test_a_receptive_field_before_a_layer_that_works_in_place():
    images, fields = torch.randn(4, 1, 9, 9), []
    for inplace in (False, True):
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 3, 3)
        model = nn.Sequential(convolution, nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(3 * 49, 1))
        fields.append(effective_receptive_field(model, images, convolution).energy)
    torch.testing.assert_close(*fields)


def test_regions_that_share_places_and_outputs_that_are_not_finite_have_no_separation():
    images = torch.rand(3, 1, 4, 4)
    with pytest.raises(ValueError, match="region_i and region_j must be disjoint"):
        estimated_separation(lambda x: x.flatten(1).sum(1), images, Region(0, 0, 2, 2), Region(1, 1, 2, 2))
    with pytest.raises(ValueError, match="the output must be finite"):
        estimated_separation(lambda x: x.flatten(1).sum(1) / 0, images, Region(0, 0, 1, 1), Region(2, 2, 1, 1))
