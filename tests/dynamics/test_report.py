"""What a report says of curves that were made up."""

from __future__ import annotations

import pytest

from tensornet.dynamics.report import learned, lines, summarise

CURVES = {0: [0.0, 0.0, 0.0], 10: [5.0, 0.0, 0.0], 20: [1.0, 0.15, 0.0], 30: [9.0, 0.0, 0.0], 40: [10.0, 4.0, 0.1]}
RECORDS = [
    {"step": step, "loss": 1 / (step + 1), "error": 0.5, "norms": {"0,1": values}, "singular": {"0": values[:2]}}
    for step, values in CURVES.items()
]


def test_a_component_appears_when_it_stays_above_the_threshold():
    found = learned(RECORDS, "norms", "0,1")
    assert found.appeared == (10, 40)
    assert found.values == (10.0, 4.0)
    assert found.next == 0.1
    assert learned(RECORDS, "norms", "0,1", threshold=0.5).values == (10.0,)
    assert learned(RECORDS, "singular", "0").next is None


def test_reports():
    summary = summarise(RECORDS)
    assert (summary["components"], summary["ranks"]) == ({"0,1": 2}, {"0": 2})
    assert summarise([]) == {}
    config = {"name": "x", "truth": "", "true_rank": 3, "ranks": 3, "mode_sizes": [3, 4]}
    found = lines(config, RECORDS, {"ended": "converged", "true_ranks": {"0": 2}})
    assert found[0] == "x: step 40, loss 2.44e-02, reconstruction error 0.5000, converged"
    assert found[1] == "local components at 0,1: 2 learned (true 3); appeared at step 10, 40; norms 10, 4; next 0.1"
    assert "at least 2 learned (true 2)" in found[2]
    assert "true" not in lines({**config, "truth": "file.npy"}, RECORDS, {})[1]
    assert ": 2 learned" in lines({**config, "mode_sizes": [3, 2]}, RECORDS, {})[2]  # all that there are, are recorded


def test_what_did_not_grow_was_not_learned():
    records = [
        {"step": step, "loss": 1.0, "error": 1.0, "norms": {"0,1": [3.0 + step, 2.0, 0.1 * step]}, "singular": {}} for step in (0, 4)
    ]
    found = learned(records, "norms", "0,1")
    assert (found.values, found.appeared, found.next, found.recorded) == ((7.0, 0.4), (0, 4), 2.0, 3)
    config = {"name": "x", "truth": "", "true_rank": 3, "ranks": 3}
    assert lines(config, records[:1], {})[1] == "local components at 0,1: none learned (true 3); next 3"
    assert summarise(records)["appeared"] == {"components": {"0,1": [0, 4]}, "ranks": {}}


def test_missing_records():
    with pytest.raises(ValueError, match="there are no records of norms at 0,2"):
        learned(RECORDS, "norms", "0,2")
    with pytest.raises(ValueError, match="there are no records of norms at 0,1"):
        learned([], "norms", "0,1")
