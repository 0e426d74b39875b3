"""The search before a sweep: chooses values of the fields that a grid leaves open, through Optuna.

It keeps no records of its own. Its trials are runs as any others, and Optuna, started anew with the same seed and told the same results
in the same order, asks for the same trials. So a search that is repeated finds its runs done, and one that was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from cnn_reg.config import Config, as_dict, preset
from cnn_reg.sweeps.grid import Grid, Variant

BATCH = 4  # trials that are asked for before their results are known, whoever does them, so that the search is always the same
RANDOM = 5  # first trials, which are spread at random after the starting value

Score = Callable[[Sequence[tuple[str, Config]]], Sequence[float | None]]
Values = dict[str, float]


def tune(grid: Grid, score: Score) -> dict[str, Values]:
    """The values that score best, by variant and field.

    Args:
        grid: Whose variants have ranges.
        score: Scores configurations, named by variant, in their order; ``None`` for one that cannot be scored.

    Raises:
        ValueError: None of a variant's trials has a score.
        ModuleNotFoundError: Optuna is not installed.

    Example:
        >>> from cnn_reg.sweeps.grid import Range, Search
        >>> ranges = {"dropout": Range(0.0, 0.8, start=0.3, log=False)}
        >>> grid = Grid("near .5", variants=(Variant("dropout", ranges=ranges),), search=Search(20, {}))
        >>> found = tune(grid, lambda trials: [-abs(config.dropout - 0.5) for _, config in trials])
        >>> abs(found["dropout"]["dropout"] - 0.5) < 0.1
        True
    """
    import optuna

    if grid.search is None:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies: dict[str, optuna.Study] = {}
    for variant in _open(grid):
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=RANDOM)
        studies[variant.name] = optuna.create_study(direction="maximize", sampler=sampler)
        studies[variant.name].enqueue_trial({name: known.start for name, known in variant.ranges.items()})
    for begin in range(0, grid.search.trials, BATCH):
        asked = [
            (variant, trial, _suggest(trial, variant))
            for variant in _open(grid)
            for trial in (studies[variant.name].ask() for _ in range(min(BATCH, grid.search.trials - begin)))
        ]
        scores = score([(variant.name, trial_config(grid, variant, values)) for variant, _, values in asked])
        for (variant, trial, values), value in zip(asked, scores, strict=True):
            trial.set_user_attr("values", values)
            state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
            studies[variant.name].tell(trial, value, state)
    return {name: _best(name, study) for name, study in studies.items()}


def _open(grid: Grid) -> list[Variant]:
    return [variant for variant in grid.variants if variant.ranges]


def _suggest(trial: Any, variant: Variant) -> Values:
    """Values of three digits, which can be told and read."""
    return {name: float(f"{trial.suggest_float(name, known.low, known.high, log=known.log):.3g}") for name, known in variant.ranges.items()}


def _best(name: str, study: Any) -> Values:
    scored = [trial for trial in study.trials if trial.value is not None]
    if not scored:
        raise ValueError(f"no trial of the search for {name!r} came to an end, so that nothing can be chosen")
    best: Values = max(scored, key=lambda trial: trial.value).user_attrs["values"]  # the first of several
    return best


def identity(grid: Grid) -> dict[str, Any]:
    """What a search depends on, as plain data; searches for which it is equal choose the same. Nothing for a grid without one.

    Example:
        >>> from cnn_reg.sweeps.grids import named_grid
        >>> grid = named_grid("fig12-pathfinder")
        >>> identity(grid) == identity(grid.override({"seed": (0,)})), identity(grid) == identity(grid.override({"epochs": (9,)}))
        (True, False)
    """
    if grid.search is None:
        return {}
    return {
        "trials": grid.search.trials,
        "variants": {
            variant.name: {
                "ranges": {name: dataclasses.asdict(known) for name, known in variant.ranges.items()},
                "run": as_dict(trial_config(grid, variant, variant.values())),
            }
            for variant in _open(grid)
        },
    }


def trial_config(grid: Grid, variant: Variant, values: Values) -> Config:
    """The run of a trial: at the place of the search, and at the first values of other axes.

    Raises:
        ValueError: The grid has no search.

    Example:
        >>> from cnn_reg.sweeps.grids import named_grid
        >>> grid = named_grid("fig12-pathfinder")
        >>> config = trial_config(grid, grid.variants[0], {"weight_decay": 0.01})
        >>> config.path_length, config.seed, config.data_seed, config.weight_decay
        (9, 0, 1, 0.01)
    """
    if grid.search is None:
        raise ValueError(f"{grid.name} has no search")
    first = {name: known[0] for name, known in grid.axes.items()}
    return preset(grid.preset, **{**grid.base, **first, **variant.fields, **values, **grid.search.at})
