"""What the engine takes from the world outside: time and entropy. Both are arguments, so a test can own them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

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
