"""The penalty's coefficient over the steps."""

from __future__ import annotations

import pytest

from cnn_reg.schedule import PenaltySchedule


def test_milestones_are_joined_by_straight_lines():
    schedule = PenaltySchedule([(10, 1.0), (20, 3.0), (40, 0.0)])
    assert [schedule.at(step) for step in (0, 10, 15, 20, 30, 40, 1000)] == [1, 1, 2, 3, 1.5, 0, 0]


def test_only_every_kth_step_counts():
    assert [PenaltySchedule(3, every=3).at(step) for step in range(7)] == [3, 0, 0, 3, 0, 0, 3]


@pytest.mark.parametrize(
    ("coefficient", "every", "error", "message"),
    [
        (-1, 1, ValueError, "a coefficient must be at least 0 and finite; got -1"),
        (float("nan"), 1, ValueError, "a coefficient must be at least 0 and finite; got nan"),
        ([9, 3], 1, ValueError, r"milestones of a step and a number each; got \[9, 3\]"),
        ("9", 1, ValueError, "milestones of a step and a number each; got '9'"),
        ([], 1, ValueError, r"needs milestones of a step and a number each; got \[\]"),
        ([(0, 1), (0, 2)], 1, ValueError, r"the steps of milestones must increase; got \[0, 0\]"),
        ([(1.5, 1)], 1, TypeError, "a milestone's step must be an integer; got 1.5"),
        (1, 0, ValueError, "every must be at least 1; got 0"),
    ],
)
def test_impossible_schedules_are_refused(coefficient, every, error, message):
    with pytest.raises(error, match=message):
        PenaltySchedule(coefficient, every)
