"""A clock that only moves when told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dalsegno.core.policies import seconds

EPOCH_US = 1_767_225_600_000_000
"""Where virtual time begins: 2026-01-01T00:00:00Z, so that histories of a simulation look like histories."""


class VirtualClock:
    """Time as an argument. `advance` lets it pass; `jump` sets the wall clock off, as an operator or NTP may.

    >>> clock = VirtualClock()
    >>> clock.advance(90)
    >>> clock.now.isoformat()
    '2026-01-01T00:01:30+00:00'
    """

    def __init__(self, start_us: int = EPOCH_US) -> None:
        self._wall_us = start_us
        self._steady_us = 0

    def now_us(self) -> int:
        return self._wall_us

    def steady_us(self) -> int:
        return self._steady_us

    @property
    def now(self) -> datetime:
        """The wall clock's time."""
        return datetime.fromtimestamp(self._wall_us / 1e6, UTC)

    def advance(self, duration: float | timedelta) -> None:
        """Let so many seconds pass, on both clocks."""
        self.advance_us(round(seconds(duration) * 1e6))

    def advance_us(self, us: int) -> None:
        """Let so many microseconds pass."""
        self._wall_us += us
        self._steady_us += us

    def jump(self, duration: float | timedelta) -> None:
        """Set the wall clock forwards or backwards; no time passes."""
        self._wall_us += round(seconds(duration) * 1e6)
