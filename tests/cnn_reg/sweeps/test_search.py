from __future__ import annotations

import pytest

from cnn_reg.sweeps.grid import Grid, Range, Search, Variant
from cnn_reg.sweeps.grids import named_grid
from cnn_reg.sweeps.search import BATCH, trial_config, tune

DECAY, DROPOUT = Range(1e-5, 1e-1, 1e-3), Range(0.05, 0.7, 0.3, log=False)
GRID = Grid(
    "g",
    base={"dropout": 0.0},
    axes={"seed": (3, 4), "path_length": (5, 7)},
    variants=(
        Variant("plain", {"coefficient": 0.0}),
        Variant("both", ranges={"weight_decay": DECAY, "coefficient": Range(1.0, 10.0, 9.0)}),
    ),
    search=Search(18, {"path_length": 7, "data_seed": 1}),
)


def peak(config):
    """Largest at weight_decay .02 and coefficient 2."""
    return -abs(config.weight_decay / 0.02 - 1) - abs(config.coefficient / 2 - 1)


def test_the_best_of_the_trials_is_chosen_and_the_starting_values_are_tried_first():
    seen = []

    def score(trials):
        seen.append(trials)
        return [peak(config) for _, config in trials]

    found = tune(GRID, score)
    configs = [config for trials in seen for _, config in trials]
    assert [len(trials) for trials in seen] == [BATCH] * 4 + [2]
    assert {name for trials in seen for name, _ in trials} == {"both"}  # nothing to tune in the other
    assert (configs[0].weight_decay, configs[0].coefficient) == (1e-3, 9.0)
    best = max(configs, key=peak)
    assert found == {"both": {"weight_decay": best.weight_decay, "coefficient": best.coefficient}}
    assert peak(best) > peak(configs[0])
    assert {(config.seed, config.path_length, config.data_seed) for config in configs} == {(3, 7, 1)}
    assert all(1e-5 <= config.weight_decay <= 1e-1 for config in configs)


def test_a_search_that_is_repeated_asks_for_the_same_trials():
    asked = []
    for _ in range(2):
        trials = []
        tune(GRID, lambda found, trials=trials: trials.extend(found) or [peak(config) for _, config in found])
        asked.append(trials)
    assert asked[0] == asked[1]
    assert len({config for _, config in asked[0]}) > 15


def test_trials_without_a_score_are_left_out():
    def score(trials):
        return [None if config.weight_decay < 0.001 else peak(config) for _, config in trials]

    assert tune(GRID, score)["both"]["weight_decay"] >= 0.001
    with pytest.raises(ValueError, match="no trial of the search for 'both' came to an end"):
        tune(GRID, lambda trials: [None] * len(trials))


def test_a_grid_that_leaves_nothing_open_needs_no_search():
    assert tune(Grid("g"), lambda trials: pytest.fail("nothing is to be scored")) == {}
    with pytest.raises(ValueError, match="g has no search"):
        trial_config(Grid("g"), Variant(), {})


def test_what_is_found_fits_the_grid():
    grid = named_grid("fig12-pathfinder", "small")
    chosen = tune(grid, lambda trials: [config.dropout + config.weight_decay for _, config in trials])
    tuned = grid.tuned(chosen)
    assert len(tuned.configs()) == len(grid.configs())
    assert {label: {config.dropout for name, config in tuned.labelled() if name == label} for label in chosen} == {
        label: {values.get("dropout", 0.0)} for label, values in chosen.items()
    }
