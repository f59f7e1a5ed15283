"""Retention at work in an engine: passes over its store, in portions of some milliseconds, between which it rests.

The clockwork's tick asks whether a pass is due, which compares two numbers. A pass begins a minute after the engine has
opened, then every hour (or more often, where the policy's times are short), and at once when the store is full: then it
may make the room that everybody waits for. Once a day it looks at everything, and at what the archive holds too long.

Threads: an engine's pass has a thread of its own, since an archive may be far away and slow, and timers must not wait
for it. It works in bouts of some milliseconds, for where the engine is busy, getting the interpreter lock again after a
rest takes as long. It rests four times as long as it has used a processor, and no less than a bout has lasted: so while
there is much to do it takes a fifth of a processor, and the disk for half of the time at most. A simulation's pass goes
on by one portion with each tick, so that it happens in virtual time, and a crash can be put before and after each call
that it makes.

Nothing is remembered between passes but when the next is due. Whatever fails ends the pass, is logged, and is taken up
by the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from dalsegno.core.archive import Archive, sink_for
from dalsegno.core.engine.edge import Clock
from dalsegno.core.errors import StoreError
from dalsegno.core.folders import ArchiveFailed, open_folder
from dalsegno.core.policies import Retention
from dalsegno.core.retention import Sweep
from dalsegno.core.store import Backend
from dalsegno.core.transfer import Exported

FIRST_AFTER_S: Final = 60.0
"""An engine that has just opened has better things to do."""

EVERY_S: Final = (60.0, 3600.0)
"""From the beginning of a pass to that of the next one, unless it takes longer: a 24th of the shortest time in the
policy, within these bounds."""

FULL_AGAIN_S: Final = 1.0
"""Between two passes over a store that stays full, at least; and as long as it rests otherwise."""

THOROUGH_EVERY_S: Final = 86400.0
REST: Final = 4
BOUT_S: Final = 0.01
"""Of a thread's work between two rests, as time passes."""

STOP_S: Final = 5.0

log = logging.getLogger("dalsegno.engine.retention")


class Sweeper:
    """Passes over one store, a portion with each tick. Raises `BadOption` for an archive that cannot be used here."""

    def __init__(self, store: Backend, clock: Clock, policy: Retention) -> None:
        self._store, self._clock, self._policy = store, clock, policy
        self._put: Callable[[Exported], object] | None = sink_for(policy.archive, clock.now_us)
        self._look_at_archive()
        self._pass: Iterator[None] | None = None
        kept = [kept_s for kept_s in (policy.completed, policy.failed, policy.continued) if kept_s is not None]
        self._every_us = round(min(max(min(kept, default=0.0) / 24, EVERY_S[0]), EVERY_S[1]) * 1e6)
        now_us = self._begun_us = clock.steady_us()
        self._next_us = now_us + round(FIRST_AFTER_S * 1e6)
        self._next_when_full_us = self._next_thorough_us = now_us

    @property
    def sweeping(self) -> bool:
        """Whether a pass is under way."""
        return self._pass is not None

    def tick(self, full: bool) -> None:
        """What the clockwork calls. `full`: the store has just refused something for want of room."""
        if self.sweeping or self._is_due(full):
            self._portion()

    def stop(self) -> None:
        """Leave a pass where it is."""

    def _look_at_archive(self) -> None:
        """Say at once what would be said in a week. A place that is far away is not asked: an engine has to open."""
        place = self._policy.archive
        if isinstance(place, str) and "://" not in place:
            try:
                open_folder(place).ready()
            except ArchiveFailed as error:
                log.warning("nothing will be deleted until this is mended: %s", error)

    def _is_due(self, full: bool) -> bool:
        now_us = self._clock.steady_us()
        return now_us >= self._next_us or (full and now_us >= self._next_when_full_us)

    def _portion(self) -> None:
        """Begin a pass or go on with it, by one portion."""
        if self._pass is None:
            self._begun_us = self._clock.steady_us()
            self._pass = self._one_pass()
        try:
            next(self._pass)
            return
        except StopIteration:
            pass
        except StoreError as error:
            log.warning("retention stops here, and will be tried again: %s", error)
        except Exception:
            log.exception("retention met a bug in dalsegno; it will be tried again")
        self._pass = None
        self._next_us = max(self._begun_us + self._every_us, self._clock.steady_us())

    def _one_pass(self) -> Iterator[None]:
        begun_us = self._clock.steady_us()
        thorough = begun_us >= self._next_thorough_us
        sweep = Sweep(self._store, self._policy, self._clock.now_us(), put=self._put, thorough=thorough)
        try:
            yield from sweep.portions()
            if thorough:
                yield from self._expire()
                self._next_thorough_us = begun_us + round(THOROUGH_EVERY_S * 1e6)
        finally:
            ended_us = self._clock.steady_us()
            self._next_when_full_us = ended_us + max(round(FULL_AGAIN_S * 1e6), REST * (ended_us - begun_us))
            if sweep.removed:
                log.info("retention: %d closed runs deleted, %d of them archived", sweep.removed, sweep.archived)

    def _expire(self) -> Iterator[None]:
        """Delete from the archive what it has held long enough."""
        policy = self._policy
        if policy.archive_for is None or not isinstance(policy.archive, str):
            return
        archive = Archive.open(policy.archive, self._clock.now_us)
        for _ in archive.expire(self._clock.now_us() - round(policy.archive_for * 1e6)):
            yield


class BackgroundSweeper(Sweeper):
    """Passes on a thread of their own, which is there while one is under way."""

    def __init__(self, store: Backend, clock: Clock, policy: Retention) -> None:
        super().__init__(store, clock, policy)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._hurries = False

    def tick(self, full: bool) -> None:
        """Begin a pass if one is due."""
        self._hurries = full
        if (self._thread is None or not self._thread.is_alive()) and self._is_due(full):
            self._thread = threading.Thread(target=self._work, name="dalsegno-retention", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Leave a pass where it is, and wait for the portion under way; not for ever, an archive may not answer."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _work(self) -> None:
        while not self._stopping.is_set():
            used_s, lasted_s = self._bout()
            if not self.sweeping:
                return
            if not self._hurries:
                self._stopping.wait(max(REST * used_s, lasted_s))

    def _bout(self) -> tuple[float, float]:
        """Portions for some milliseconds, or to the end of the pass. Answers seconds: of processor, and in all."""
        clock, begun_us, begun_s = self._clock, self._clock.steady_us(), time.thread_time()
        while True:
            self._portion()
            used_s, lasted_s = time.thread_time() - begun_s, (clock.steady_us() - begun_us) / 1e6
            if not self.sweeping or max(used_s, lasted_s) >= BOUT_S or self._stopping.is_set():
                return used_s, lasted_s
