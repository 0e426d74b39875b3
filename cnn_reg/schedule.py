"""When the penalty counts in a training, and how much."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tensornet.checks import integer, real


@dataclass(frozen=True)
class PenaltySchedule:
    """The penalty's coefficient in each training step: straight lines between milestones, and 0 but for every so many steps.

    Args:
        coefficient: A constant, or milestones (step, coefficient) in order of the steps. Before the first and after the last the
            coefficient stays what it is there.
        every: The penalty counts in steps 0, ``every``, 2 ``every``, ..., with the coefficient as given, not multiplied by ``every``.

    Raises:
        TypeError: A number is of the wrong kind.
        ValueError: A number is negative or not finite, the steps do not increase, or there are no milestones.

    Example:
        >>> schedule = PenaltySchedule([(0, 0.0), (100, 9.0)], every=5)
        >>> [schedule.at(step) for step in (0, 50, 51, 200)]
        [0.0, 4.5, 0.0, 9.0]
        >>> PenaltySchedule(9).at(1234)
        9.0
    """

    coefficient: float | Sequence[tuple[int, float]]
    every: int = 1

    def __post_init__(self) -> None:
        given = self.coefficient
        milestones = given if isinstance(given, Sequence) else [(0, given)]
        if not milestones or any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in milestones):
            raise ValueError(f"a coefficient needs milestones of a step and a number each; got {given!r}")
        checked = tuple((integer("a milestone's step", step, 0), real("a coefficient", value)) for step, value in milestones)
        steps = [step for step, _ in checked]
        if steps != sorted(set(steps)):
            raise ValueError(f"the steps of milestones must increase; got {steps}")
        object.__setattr__(self, "coefficient", checked if isinstance(given, Sequence) else checked[0][1])
        object.__setattr__(self, "every", integer("every", self.every, 1))

    def at(self, step: int) -> float:
        """The coefficient in a step, counted from 0.

        Example:
            >>> PenaltySchedule(3, every=2).at(1)
            0.0
        """
        if step % self.every:
            return 0.0
        if not isinstance(self.coefficient, Sequence):
            return self.coefficient
        after = bisect_right(self.coefficient, step, key=lambda milestone: milestone[0])
        if after in (0, len(self.coefficient)):
            return self.coefficient[max(0, after - 1)][1]
        (begin, low), (end, high) = self.coefficient[after - 1 : after + 1]
        return low + (high - low) * (step - begin) / (end - begin)
