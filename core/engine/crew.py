"""A crew: threads that take jobs from one queue, and know when it pays to wake another of them.

On CPython a thread that wakes up only to find the interpreter lock taken costs more than a short job (a hop between
threads is about 66 µs, a trivial step 10). So whoever puts jobs says how long they are expected to take, and the crew
has one thread at hand per millisecond of work, and one for every job of unknown length. At hand is who is awake, unless
at a job that is not `brief`, or at the queue of writes. `nudge`, called regularly, mends the estimate when a job that
was thought brief blocks: nobody waits for longer than the engine's tick.

Threads are started when first needed and are daemons: a body that never returns cannot keep the process alive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

J = TypeVar("J")
J_contra = TypeVar("J_contra", contravariant=True)

UNKNOWN_US = 1_000_000
SHARE_US = 1_000
"""So much expected work is worth waking one more thread."""

PAUSE_S = 0.05
"""How long a thread stays away from a queue of writes that it has just failed at."""

log = logging.getLogger("dalsegno.engine")


class Hands(Protocol[J_contra]):
    """Where the loop puts jobs: a `Crew` of threads, or a simulator's queue."""

    def put(self, jobs: Iterable[J_contra], expected_us: int) -> None:
        """Queue jobs that take about `expected_us` in all."""

    def nudge(self) -> None:
        """See to it that somebody looks at the queue."""

    @property
    def waiting(self) -> float:
        """How many jobs wait; infinitely many where threads are not to flush between two jobs."""

    def replace(self, thread: threading.Thread) -> None:
        """Count out a thread that is stuck in a body."""


class Crew(Generic[J]):
    """Up to `size` threads that call `work(job)` for every job put; `idle(waited)` is called by a thread that finds
    none, and answers how many seconds it may park (None: until woken, 0: look again at once)."""

    def __init__(
        self,
        name: str,
        size: int,
        work: Callable[[J], None],
        idle: Callable[[bool], float | None],
        brief: Callable[[J], bool],
    ) -> None:
        self._name, self._size, self._work, self._idle, self._brief = name, size, work, idle, brief
        self._jobs: deque[J] = deque()
        self._lock = threading.Lock()
        self._parked: list[Any] = []  # one held lock per sleeping thread, the latest to fall asleep last
        self._threads: set[threading.Thread] = set()
        self._away: set[threading.Thread] = set()  # awake, but not soon back for more
        self._replaced: set[threading.Thread] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, jobs: Iterable[J], expected_us: int) -> None:
        self._jobs.extend(jobs)
        wanted, me = min(len(self._jobs), expected_us // SHARE_US + 1), threading.current_thread()
        if wanted == 1 and me in self._threads:
            return  # the caller takes it itself: the common case of a run alone
        away = self._away - {me}
        with self._lock:  # so that nobody parks between being counted and the decision
            wanted -= len(self._threads) - len(self._parked) - len(away)
        if wanted > 0:
            self._wake(wanted)

    def nudge(self) -> None:
        """Wake somebody if jobs wait; called by the engine's tick."""
        if self._jobs:
            self._wake(1)

    @property
    def waiting(self) -> float:
        return len(self._jobs)

    def leave(self) -> None:
        """The calling thread will be away for a moment: somebody is woken for the jobs that wait, unless somebody else
        is at hand already, be it only on the way."""
        if self._jobs:
            gone = self._away | {threading.current_thread()}
            with self._lock:
                at_hand = len(self._threads - gone) - len(self._parked)
            if at_hand < 1:
                self._wake(1)

    def replace(self, thread: threading.Thread) -> None:
        """Count a thread out that is stuck in a job: another may be started in its place."""
        with self._lock:
            if thread in self._threads and not self._stopping:
                self._threads.discard(thread)
                self._away.discard(thread)
                self._replaced.add(thread)
        self.nudge()

    def stop(self) -> None:
        """Let every thread end after the job it is in; jobs still queued are not begun."""
        self._stopping = True
        with self._lock:
            parked, self._parked = self._parked, []
        for sleeper in parked:
            sleeper.release()

    @property
    def busy(self) -> bool:
        """Whether a job waits or is being worked on."""
        with self._lock:
            return bool(self._jobs) or len(self._parked) < len(self._threads)

    @property
    def use(self) -> tuple[int, int, int]:
        """How many threads there may be, how many there are, and how many of them are awake."""
        with self._lock:
            return self._size, len(self._threads), len(self._threads) - len(self._parked)

    def join_all(self, timeout: float) -> bool:
        """Wait until all threads have ended, `timeout` seconds at most; false if some are still in a job."""
        deadline = time.monotonic() + timeout
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(t.is_alive() for t in self._threads)

    def _wake(self, count: int) -> None:
        while count > 0 and not self._stopping:
            with self._lock:
                if self._parked:
                    self._parked.pop().release()
                elif len(self._threads) < self._size:
                    name = f"dalsegno-{self._name}-{len(self._threads) + 1}"
                    thread = threading.Thread(target=self._run, name=name, daemon=True)
                    self._threads.add(thread)
                    thread.start()
                else:
                    return
            count -= 1

    def _run(self) -> None:
        sleeper = threading.Lock()
        sleeper.acquire()
        jobs, work, brief, away, me = self._jobs, self._work, self._brief, self._away, threading.current_thread()
        pop = jobs.popleft
        waited = False
        while not self._stopping and me not in self._replaced:
            if not jobs:
                waited = self._rest(sleeper, waited)
                continue
            try:
                job = pop()
            except IndexError:
                continue  # another thread was quicker
            waited = False
            if not brief(job):
                away.add(me)
                self.nudge()  # the jobs that counted on this thread
            try:
                work(job)
            except BaseException:  # whatever it is, the thread is needed for others
                log.exception("a job of the %s crew failed in a way that it should not", self._name)
            away.discard(me)
            del job  # nothing of the run is kept alive by a sleeping thread
        self._replaced.discard(me)

    def _rest(self, sleeper: Any, waited: bool) -> bool:
        """Sleep until woken, or for as long as `idle` allows; answers whether the time ran out."""
        me = threading.current_thread()
        self._away.add(me)  # it may be about to flush
        try:
            seconds = self._idle(waited)
        except Exception:
            log.exception(
                "a thread of the %s crew failed at the queue of writes in a way that it should not", self._name
            )
            seconds = PAUSE_S
        self._away.discard(me)
        if seconds == 0:
            return False
        with self._lock:
            if self._jobs or self._stopping:
                return False
            self._parked.append(sleeper)
        if seconds is None:
            sleeper.acquire()
            return False
        if sleeper.acquire(timeout=seconds):
            return False
        with self._lock:
            if sleeper in self._parked:
                self._parked.remove(sleeper)
                return True
        sleeper.acquire()  # woken in the very moment the time ran out: the release is there
        return False
