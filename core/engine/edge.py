"""What the engine takes from the world outside: time and entropy. Both are arguments, so a test can own them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

from dalsegno.core.options import function, having

Entropy = Callable[[int], bytes]
"""Gives so many unguessable bytes; `os.urandom` in production, a seeded generator in a simulation."""

system_entropy: Entropy = os.urandom


class Clock(Protocol):
    """Tells the time in whole microseconds."""

    def now_us(self) -> int:
        """Microseconds since 1970, UTC. May jump either way: whoever needs more keeps a high-water mark."""

    def steady_us(self) -> int:
        """Microseconds since some moment; never goes back. For measuring and for time-outs inside one process."""


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def steady_us(self) -> int:
        return time.monotonic_ns() // 1000


def clock_or_own(given: Clock | None) -> Clock:
    """The clock that was given, or the machine's. Raises `BadOption` for what is none."""
    if given is None:
        return SystemClock()
    return having("clock", given, ("now_us", "steady_us"), "a clock, with now_us() and steady_us()")


def entropy_or_own(given: Entropy | None) -> Entropy:
    """The source of chance that was given, or the machine's. Raises `BadOption` for what is none."""
    if given is None:
        return system_entropy
    return function("entropy", given, "a function that takes a number and gives so many bytes, like os.urandom")
