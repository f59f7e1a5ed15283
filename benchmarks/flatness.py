"""Is a figure flat? Readings over time, and a verdict with its criterion beside it.

The criterion. What is read while the work warms up (the first part of the time) does not count. Through the rest goes a
line, by Theil and Sen: its slope is the median of the slopes between all pairs of readings, which a few outliers do not
move (P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, 1968). What that line climbs from the
first counted reading to the last is the growth. A figure is flat when it has grown by no more than a share of its
median, or by no more than an amount so small that it is noise for this kind of figure, whichever is more. Falling is no
fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import median

from attrs import field, frozen

SHARE = 0.05
"""Of its median, that a figure may have grown by in the time looked at."""

FEWEST = 8
"""Readings, after the warm-up, below which nothing can be said."""


@frozen
class Kind:
    """A figure that is read again and again: its name, its unit and what one unit is, and the growth that is noise."""

    name: str
    unit: str
    noise: float
    scale: float = 1.0

    def shown(self, value: float) -> str:
        """A value in its unit."""
        scaled = value / self.scale
        return f"{scaled:,.{1 if self.scale != 1 else 0}f} {self.unit}".rstrip()


@frozen
class Course:
    """What one figure did over time."""

    kind: Kind
    at_s: Sequence[float]
    values: Sequence[float]
    warm_up: float = field(default=0.3)

    @property
    def counted(self) -> list[tuple[float, float]]:
        """The readings after the warm-up, with their times."""
        begins = self.at_s[0] + self.warm_up * (self.at_s[-1] - self.at_s[0])
        return [(at, value) for at, value in zip(self.at_s, self.values, strict=True) if at >= begins]

    @property
    def slope(self) -> float:
        """Growth a second."""
        pairs = combinations(self.counted, 2)
        return median((later - value) / (then - at) for (at, value), (then, later) in pairs if then > at)

    @property
    def growth(self) -> float:
        """From the first counted reading to the last, along the line."""
        counted = self.counted
        return self.slope * (counted[-1][0] - counted[0][0])

    @property
    def allowed(self) -> float:
        """How much of that is no growth."""
        return max(self.kind.noise, SHARE * median(value for _, value in self.counted))

    @property
    def flat(self) -> bool:
        """The verdict. False too where there are too few readings to give one."""
        return len(self.counted) >= FEWEST and self.growth <= self.allowed
