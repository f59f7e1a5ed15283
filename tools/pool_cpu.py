"""The processor time of an engine's threads, by pool, from Linux's /proc; elsewhere nothing is known.

Python's own `time.thread_time` tells a thread about itself only. `/proc/self/task/ID/stat` tells of all (proc(5): user
and system time are fields 14 and 15, in clock ticks, of which there are 100 a second as a rule). The memory of threads
is one: it can be told of processes only. Pools that are to be seen apart have to be workers of their own.
"""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from pathlib import Path

TASKS = Path("/proc/self/task")


class PoolCpu:
    """Adds up what each pool's threads have used since they were first seen; threads that ended count on."""

    def __init__(self) -> None:
        self._totals: defaultdict[str, float] = defaultdict(float)
        self._seen: dict[int, float] = {}  # by thread, at the last look
        self._looking = threading.Lock()

    def seconds(self) -> dict[str, float]:
        """Seconds of processor time by pool: "step", "durable", "async", "clockwork"."""
        with self._looking:
            now: dict[int, float] = {}
            for thread in threading.enumerate():
                pool, id = pool_of(thread.name), thread.native_id
                used = None if pool is None or id is None else used_by(id)
                if pool is None or id is None or used is None:
                    continue
                before = self._seen.get(id, 0.0)
                self._totals[pool] += used - before if used >= before else used  # the id is another thread's now
                now[id] = used
            self._seen = now
            return dict(self._totals)


def pool_of(name: str) -> str | None:
    """The pool that a thread of this name belongs to.

    >>> pool_of("dalsegno-step-12"), pool_of("dalsegno-clockwork"), pool_of("MainThread")
    ('step', 'clockwork', None)
    """
    found = re.fullmatch(r"dalsegno-([a-z]+)(-\d+)?", name)
    return found[1] if found else None


def used_by(id: int) -> float | None:
    """The processor time of a thread of this process, in seconds; None where it cannot be told."""
    try:
        fields = (TASKS / str(id) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None  # it has just ended, or this is no Linux
