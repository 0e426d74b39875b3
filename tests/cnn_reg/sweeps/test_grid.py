from __future__ import annotations

import re
from dataclasses import replace

import pytest

from cnn_reg.sweeps.grid import Grid, Range, Search, Variant

DECAY = {"weight_decay": Range(1e-5, 1e-1, 1e-3)}


def test_all_combinations_in_order_of_the_axes_with_variants_innermost():
    variants = (Variant("plain", {"coefficient": 0.0}), Variant("penalty", {"coefficient": 2.0}))
    grid = Grid("g", base={"epochs": 3}, axes={"seed": (0, 1), "path_length": (5, 7)}, variants=variants)
    found = [(config.seed, config.path_length, name, config.coefficient) for name, config in grid.labelled()]
    assert found[:3] == [(0, 5, "plain", 0.0), (0, 5, "penalty", 2.0), (0, 7, "plain", 0.0)]
    assert len(found) == len(set(found)) == 8
    assert {config.epochs for config in grid.configs()} == {3}


def test_a_configuration_that_occurs_twice_is_run_once():
    assert len(Grid("g", axes={"seed": (0, 0, 1)}).configs()) == 2


def test_fields_that_do_not_matter_make_no_other_run():
    grid = Grid("g", axes={"dataset": ("same-class", "pathfinder"), "path_length": (3, 5)})
    assert [(config.dataset, config.path_length) for config in grid.configs()] == [("same-class", 7), ("pathfinder", 3), ("pathfinder", 5)]


def test_presets_know_the_recipes_of_data_and_networks():
    grid = Grid("g", base={"dataset": "same-class", "model": "resnet34"})
    config = grid.configs()[0]
    assert (config.train_images, config.image_size, config.accumulate) == (5000, 224, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {"epoch": 3}}, "unknown field 'epoch' (did you mean epochs?)"),
        ({"axes": {"pathlength": (3,)}}, "unknown field 'pathlength' (did you mean path_length?)"),
        ({"axes": {"seed": ()}}, "the axis seed needs a list of values; got ()"),
        ({"axes": {"seed": 3}}, "the axis seed needs a list of values; got 3"),
        ({"axes": {"seed": (0,)}, "base": {"seed": 1}}, "a field is in one of base, axes and variants; got seed in several"),
        (
            {"base": {"coefficient": 1.0}, "variants": (Variant("a", {"coefficient": 0.0}),)},
            "a field is in one of base, axes and variants; got coefficient in several",
        ),
        ({"variants": (Variant("a"), Variant("a"))}, "variants need names of their own; got ['a', 'a']"),
        ({"variants": ()}, "variants need names of their own; got []"),
        ({"variants": (Variant("a", ranges=DECAY),)}, "variants with ranges need a search; got none"),
        (
            {"variants": (Variant("a", ranges=DECAY),), "search": Search(3, {"weight_decay": 0.1})},
            "weight_decay is tuned, and cannot be set for the search; got 0.1",
        ),
        (
            {"variants": (Variant("a", ranges={"dropout": Range(0.1, 1.5, 0.3)}),), "search": Search(3, {})},
            "dropout must be at least 0 and below 1.0; got 1.5",
        ),
        ({"search": Search(3, {"path_length": 2})}, "path_length must be from 3 to 20; got 2"),
        ({"preset": "papr"}, "unknown preset 'papr' (did you mean paper?)"),
        ({"base": {"path_length": 2}}, "path_length must be from 3 to 20; got 2"),
    ],
)
def test_wrong_grids(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Grid("g", **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Variant("a", {"sed": 1}), "unknown field 'sed' (did you mean seed?)"),
        (lambda: Variant("a", {"weight_decay": 0.1}, DECAY), "weight_decay is either set or tuned; got both in the variant 'a'"),
        (lambda: Variant("a", ranges={"seed": Range(1, 2, 1)}), "only real numbers are tuned; seed is none, in the variant 'a'"),
        (lambda: Range(0.5, 0.1, 0.2), "a range needs low <= start <= high and low < high; got low 0.5, start 0.2, high 0.1"),
        (lambda: Range(0.1, 0.5, 0.7), "a range needs low <= start <= high and low < high; got low 0.1, start 0.7, high 0.5"),
        (lambda: Range(0.0, 0.5, 0.2), "a logarithmic range needs low above 0; got 0.0"),
        (lambda: Search(0, {}), "trials must be at least 1; got 0"),
        (lambda: Search(3, {"distanc": 160}), "unknown field 'distanc' (did you mean distance?)"),
    ],
)
def test_wrong_parts(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_overrides_replace_values_and_axes():
    grid = Grid("g", base={"epochs": 3}, axes={"seed": (0, 1), "path_length": (5, 7)})
    changed = grid.override({"seed": (4,), "epochs": (9,), "dropout": (0.0, 0.5)})
    assert [(config.seed, config.path_length, config.dropout) for config in changed.configs()] == [
        (4, 5, 0.0),
        (4, 5, 0.5),
        (4, 7, 0.0),
        (4, 7, 0.5),
    ]
    assert {config.epochs for config in changed.configs()} == {9}
    assert len(grid.configs()) == 4  # as it was


@pytest.mark.parametrize(("changes", "place"), [({"path_length": (3, 5)}, 5), ({"path_length": (11, 9)}, 11), ({"seed": (4,)}, 7)])
def test_a_search_at_the_largest_stays_there(changes, place):
    grid = Grid(
        "g", axes={"seed": (0, 1), "path_length": (5, 7)}, variants=(Variant("a", ranges=DECAY),), search=Search(3, {"path_length": 7})
    )
    assert grid.override(changes).search == Search(3, {"path_length": place})
    elsewhere = replace(grid, search=Search(3, {"path_length": 5}))
    assert elsewhere.override(changes).search == elsewhere.search


def test_runs_are_not_made_on_the_images_of_the_search():
    grid = Grid("g", variants=(Variant("a", ranges=DECAY),), search=Search(3, {"data_seed": 1}))
    with pytest.raises(ValueError, match="the search is made on images of data_seed 1; runs on the same images would not be a test of it"):
        grid.override({"data_seed": (0, 1)})
    assert grid.override({"data_seed": (2,)}).configs()[0].data_seed == 2


def test_what_variants_set_cannot_be_overridden():
    grid = Grid("g", variants=(Variant("a", ranges=DECAY),), search=Search(3, {}))
    with pytest.raises(ValueError, match="weight_decay differs between the variants of g and cannot be set for all of them"):
        grid.override({"weight_decay": (0.1,)})
    with pytest.raises(ValueError, match=r"unknown field 'epoch' \(did you mean epochs\?\)"):
        grid.override({"epoch": (1,)})


def test_tuned_values_take_the_place_of_ranges():
    grid = Grid("g", variants=(Variant("a", {"coefficient": 0.0}, DECAY), Variant("b", {"coefficient": 3.0})), search=Search(3, {}))
    assert [config.weight_decay for config in grid.configs()] == [1e-3, 0.0]
    tuned = grid.tuned({"a": {"weight_decay": 0.02}})
    assert [(name, config.weight_decay, config.coefficient) for name, config in tuned.labelled()] == [("a", 0.02, 0.0), ("b", 0.0, 3.0)]
    assert tuned.search is None


def test_a_stand_in_is_named_whoever_asks_for_it():
    grid = Grid("g", base={"dataset": "same-class"}, note="a try")
    assert grid.remark == "a try"
    assert grid.override({"source": ("digits",)}).remark == "a try; digits, not CIFAR10"
    assert grid.override({"source": ("digits",)}).override({"source": ("cifar10",)}).remark == "a try"
    assert Grid("g", base={"source": "digits"}).remark == ""  # of Pathfinder, which has no source
