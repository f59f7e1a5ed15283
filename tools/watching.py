"""What goes on in a store, frame by frame: how many runs stand how, how fast they come and go, who waits, what fails.

    watch = Watch(store, codec)
    while True:
        frame = watch.frame(now_us)

A store tells whether anybody has written (`changes`), not what. So a frame in a calm reads nothing. Else it reads the
store's own counts, every run that is new, and every run that has work in flight, each from the event it had come to
when last looked at. What a waiting run does in less than a frame's time is met when its turn comes: some are looked at
again with every frame, one after another. How many runs stand how, started and ended is exact all the same, since it
comes from the counts; only by which workflow, and with which events, may come some frames late.

The first frames count all runs, some thousands each, unless `everything` is asked for. So what a frame costs hangs on
what has happened, on `PAGES` and on `AGAIN`, and hardly on how many runs there are. `now_us` is what a frame goes by;
`steady` only tells when it has taken long enough.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from heapq import nsmallest
from typing import Final

import attrs

from dalsegno.core.errors import DecodeError, StoreDamaged
from dalsegno.core.events import Event, StepCompleted, StepFailed
from dalsegno.core.history import decode_history
from dalsegno.core.queues import QueueState, Task
from dalsegno.core.store import Backend, RunRecord, Status
from dalsegno.core.values.codec import Codec
from dalsegno.tools.queues import queue_states
from dalsegno.tools.standing import Standing, standing
from dalsegno.tools.stores import PAGE, read_run
from dalsegno.tools.timeline import as_far_as_readable
from dalsegno.tools.troubles import Failing, Troubles

PAGES: Final = 10  # of a thousand runs, counted in a frame until all are
AGAIN: Final = 2000  # open runs that are looked at again in a frame, in turn
AGAIN_S: Final = 0.1  # or as many as this takes: over a network each of them is a question and an answer
NEW: Final = 50  # runs that are asked for first, when looking for new ones
TAIL: Final = 10  # events that are read of a run when it is first seen: an attempt that failed is mostly among them
FAILED_MAX: Final = 100  # closed runs that are asked what they failed of
ROWS: Final = 20
MINUTE_US: Final = 60_000_000


@attrs.frozen(kw_only=True)
class Rates:
    """What happened a second, on the average of so many seconds: since the frame before, or, in a first frame, in the
    last minute by the records of the runs. `steps` (their outcomes) and `events` are known between frames only."""

    over_s: float
    started: float
    closed: float
    steps: float | None = None
    events: float | None = None


@attrs.frozen(kw_only=True)
class Waiting:
    """An open run with nothing in flight here, and the time of its last event. `queue` is the one it waits in to
    begin, `tasks` are its steps that are out at queues."""

    run_id: str
    workflow: str
    since_us: int
    standing: Standing
    queue: str = ""
    tasks: tuple[Task, ...] = ()


@attrs.frozen(kw_only=True)
class Frame:
    """A store at one moment. `counted` of `runs` have been looked at, `complete` once that is done: `workflows`,
    `waiting` and `failing` tell of those, the rest of all. `rates` are None where there is nothing to compare with."""

    at_us: int
    runs: int
    counted: int
    complete: bool
    statuses: dict[str, int]
    file_bytes: int
    rates: Rates | None
    workflows: dict[str, dict[str, int]]
    waiting: tuple[Waiting, ...]
    failing: tuple[Failing, ...]
    queues: tuple[QueueState, ...] = ()


@attrs.define
class _Seen:
    """An open run as it was last seen, and how many of its events were read."""

    record: RunRecord
    head: int
    last_us: int


@attrs.frozen
class _Sums:
    """What has happened since the watch began."""

    at_us: int
    started: int
    closed: int
    steps: int
    events: int


class Watch:
    """Looks at a store again and again. It only reads and takes no hold; it keeps about a kilobyte for an open run."""

    def __init__(
        self, store: Backend, codec: Codec | None = None, steady: Callable[[], float] = time.perf_counter
    ) -> None:
        self._store, self._codec, self._troubles, self._steady = store, codec or Codec(), Troubles(), steady
        self._open: dict[int, _Seen] = {}
        self._counts: Counter[tuple[str, Status]] = Counter()
        self._turns: deque[int] = deque()  # open runs as their turn comes to be looked at again; some may have ended
        self._turns_left = 0  # until every run has been seen since the last change
        self._hot: Sequence[int] = ()
        self._token: object = self  # like nothing a store answers
        self._stats: dict[str, int] = {}
        self._queues: tuple[QueueState, ...] = ()
        self._newest = self._below = 0  # runs below this number are still to be counted
        self._open_at_first = self._started = self._steps = self._events = self._failed_read = 0
        self._minute = [0, 0]
        self._last: _Sums | None = None
        self._rows: tuple[Waiting, ...] = ()
        self._standings: dict[int, tuple[int, Standing]] = {}

    def frame(self, now_us: int, *, everything: bool = False) -> Frame:
        """Look. With `everything`, all runs are counted at once, however long it takes."""
        token = self._store.changes()
        calm = token == self._token and not self._below and not self._turns_left
        if token != self._token:
            self._token = token
            self._take_stock()
        self._count(now_us, everything)
        self._look_again()
        if not calm:
            self._rows = self._oldest()
        return self._shown(now_us)

    def _take_stock(self) -> None:
        """Read what is new, and what may have changed at once."""
        first = not self._stats
        self._stats, self._queues = self._store.stats(), tuple(queue_states(self._store))
        if first:
            newest = self._store.runs(limit=1)
            self._newest = newest[0].number if newest else 0
            self._below, self._open_at_first = self._newest + 1, self._open_now
        else:
            if not self._below and self._counts.total() > self._stats["runs"]:
                self._count_closed_anew()
            self._see_new()
        self._see_active()
        self._turns_left = len(self._turns)

    @property
    def _open_now(self) -> int:
        return sum(self._stats[status.value] for status in Status if status.open)

    # --- which runs are looked at ------------------------------------------------------------------------------------

    def _see_new(self) -> None:
        """Every run that was created since the last frame."""
        new: list[RunRecord] = []
        before, limit = None, NEW
        while page := self._store.runs(before=before, limit=limit):
            found = [record for record in page if record.number > self._newest]
            new += found
            if len(found) < len(page):
                break
            before, limit = page[-1].number, PAGE
        for record in reversed(new):
            self._newest = record.number
            self._started += 1
            self._see(record, new=True)

    def _see_active(self) -> None:
        """Runs with work in flight, and those that had some when last seen."""
        active = self._store.active(limit=PAGE)
        for number in dict.fromkeys((*active, *self._hot)):
            self._see_again(number)
        self._hot = active

    def _count(self, now_us: int, everything: bool) -> None:
        """Count runs that were there when the watch began, newest first."""
        pages = 0
        while self._below and (everything or pages < PAGES):
            page = self._store.runs(before=self._below, limit=PAGE)
            self._below = page[-1].number if len(page) == PAGE else 0
            pages += 1
            for record in page:
                ended = record.closed_at_us
                self._minute[0] += now_us - record.created_at_us <= MINUTE_US
                self._minute[1] += ended is not None and now_us - ended <= MINUTE_US
                if record.status.open or record.number in self._open:
                    self._see(record)
                else:
                    self._see_closed(record)

    def _see_closed(self, record: RunRecord) -> None:
        self._counts[record.workflow, record.status] += 1
        if record.status is Status.FAILED and self._failed_read < FAILED_MAX:
            self._failed_read += 1
            self._troubles.read(record, self._events_from(record.number, self._tail(record.number))[0])

    def _count_closed_anew(self) -> None:
        """Runs were purged, and the store does not tell which."""
        for about in [about for about in self._counts if not about[1].open]:
            del self._counts[about]
        self._below, self._failed_read = self._newest + 1, FAILED_MAX

    def _look_again(self) -> None:
        """The next ones in turn, unless nothing has changed since each of them was seen."""
        begun = self._steady()
        for _ in range(min(AGAIN, self._turns_left)):
            if self._steady() - begun > AGAIN_S:
                break
            self._turns_left -= 1
            number = self._turns.popleft()
            self._see_again(number)
            if number in self._open:
                self._turns.append(number)

    # --- looking at one ----------------------------------------------------------------------------------------------

    def _see_again(self, number: int) -> None:
        try:
            record = self._store.record(number)
        except StoreDamaged:
            return  # `check` names it
        if record is not None:
            self._see(record)
        elif (seen := self._open.pop(number, None)) is not None:
            self._counts[seen.record.workflow, seen.record.status] -= 1
            self._troubles.forget(number)

    def _see(self, record: RunRecord, new: bool = False) -> None:
        """Take in how a run stands, and what its history says beyond what was read."""
        number = record.number
        seen = self._open.get(number)
        known = new or seen is not None
        if seen is None:
            seen = _Seen(record, 0 if new else self._tail(number), record.created_at_us)
        else:
            self._counts[seen.record.workflow, seen.record.status] -= 1
            seen.record = record
        events, seen.head = self._events_from(number, seen.head)
        self._troubles.read(record, events)
        if events:
            seen.last_us = events[-1].at_us
        if known:
            self._events += len(events)
            self._steps += sum(isinstance(event, StepCompleted | StepFailed) for event in events)
        if record.status.open and number not in self._open:
            self._open[number] = seen
            self._turns.append(number)
        elif not record.status.open:
            self._open.pop(number, None)
        if record.status.open or number >= self._below:  # closed ones below are counted when it comes to them
            self._counts[record.workflow, record.status] += 1

    def _tail(self, number: int) -> int:
        try:
            return max(self._store.head(number) - TAIL, 0)
        except StoreDamaged:
            return 0

    def _events_from(self, number: int, start: int) -> tuple[list[Event], int]:
        """The events from one on, as far as they can be read, and how far they were."""
        events: list[Event] = []
        try:
            while stored := self._store.history(number, start, PAGE):
                events += _readable(stored)
                start += len(stored)
                if len(stored) < PAGE:
                    break
        except StoreDamaged:
            pass  # `check` names it, and where it is
        return events, start

    # --- what comes of it --------------------------------------------------------------------------------------------

    def _oldest(self) -> tuple[Waiting, ...]:
        """The runs that have waited longest."""
        waiting = (
            seen for seen in self._open.values() if seen.record.status is Status.RUNNING and not seen.record.active
        )
        oldest = nsmallest(ROWS, waiting, key=lambda seen: seen.last_us)
        self._standings = {seen.record.number: (seen.head, self._standing_of(seen)) for seen in oldest}
        return tuple(
            Waiting(
                run_id=seen.record.run_id,
                workflow=seen.record.workflow,
                since_us=seen.last_us,
                standing=self._standings[seen.record.number][1],
                queue=seen.record.queue if seen.record.queued else "",
                tasks=tuple(self._store.tasks_of(seen.record.number)),
            )
            for seen in oldest
        )

    def _standing_of(self, seen: _Seen) -> Standing:
        head, known = self._standings.get(seen.record.number, (-1, Standing(())))
        if head == seen.head:
            return known
        try:
            return standing(read_run(self._store, seen.record).events, None, self._codec)
        except StoreDamaged:
            return Standing(())

    def _shown(self, now_us: int) -> Frame:
        workflows: dict[str, dict[str, int]] = {}
        for (workflow, status), count in self._counts.items():
            if count:
                workflows.setdefault(workflow, {})[status.value] = count
        return Frame(
            at_us=now_us,
            runs=self._stats["runs"],
            counted=min(self._counts.total(), self._stats["runs"]),  # some may have begun since those were counted
            complete=not self._below,
            statuses={status.value: self._stats[status.value] for status in Status},
            file_bytes=self._stats["file_bytes"],
            rates=self._rates(now_us),
            workflows=dict(sorted(workflows.items())),
            waiting=self._rows,
            failing=self._troubles.rows(self._codec, ROWS),
            queues=self._queues,
        )

    def _rates(self, now_us: int) -> Rates | None:
        last, closed = self._last, self._started - (self._open_now - self._open_at_first)
        if last is not None:
            closed = max(closed, last.closed)  # counts and runs are not read at one moment
        sums = self._last = _Sums(now_us, self._started, closed, self._steps, self._events)
        if last is None:
            return None if self._below else Rates(over_s=60, started=self._minute[0] / 60, closed=self._minute[1] / 60)
        over_s = (now_us - last.at_us) / 1e6
        if over_s <= 0:  # the clock was put back
            return None
        return Rates(
            over_s=over_s,
            started=(sums.started - last.started) / over_s,
            closed=(sums.closed - last.closed) / over_s,
            steps=(sums.steps - last.steps) / over_s,
            events=(sums.events - last.events) / over_s,
        )


def _readable(stored: Sequence[bytes]) -> list[Event]:
    """Stored events, up to the first that cannot be read."""
    try:
        return decode_history(stored)
    except DecodeError:
        return as_far_as_readable(stored)[0]
