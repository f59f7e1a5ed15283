"""Retention: which closed runs may go, in which order, and a pass over a store that lets them go.

A run may go when all of this holds; what holds for the runs it depends on is asked of them in the same way.

* It has closed, as long ago as the policy says for the way it ended.
* No run above it is open: not its parent, and none of those above. A parent that continued as new has closed.
* Everything it started may go, too, or is gone. So a run whose child still works stays, and what went before a crash is
  always a part at the bottom of a tree.
* Runs of one id go oldest first, so that the newest one is always the one that is found by the id.
* Runs that continued as new go together with the rest of their chain, unless the policy has a time for them.

A history that cannot be read may have started something, so its run stays. In doubt a run stays.

`Judge` decides, from records and what histories say of children. `Sweep` is a pass over a store: it reads candidates a
page at a time, hands each history to the archive, and then deletes the run. It remembers nothing outside the store, so
that a pass may end anywhere, by a crash or because it is told to, and the next one takes up what is left. An archive
takes the same run twice, if the crash came between the two.

Where to begin costs a few looks: runs are numbered as they are created, and none that was created later than the policy
looks back can be old enough. With `thorough`, everything is looked at, which finds runs that were created by a clock
that was wrong.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from dalsegno.core.errors import DataError, DecodeError, StoreDamaged
from dalsegno.core.events import ChildStarted
from dalsegno.core.history import decode_history
from dalsegno.core.policies import Retention
from dalsegno.core.store import Backend, RunRecord, Status
from dalsegno.core.transfer import Exported, take

PAGE = 200
"""Runs per page of candidates, and looked at between two pauses: some milliseconds."""

EVENTS_PAGE = 1000
RUNS_A_BATCH = 100
EVENTS_A_BATCH = 20_000
"""So many runs, or runs with so many events, are deleted at once: their commits hold up others for milliseconds."""

VERDICTS_MAX = 100_000
"""Decisions a pass remembers, at about 100 bytes each; beyond, some are taken twice."""

log = logging.getLogger("dalsegno.engine.retention")

Place = tuple[str, int]
"""Workflow id and generation."""


class Stays(enum.Enum):
    """Why a run stays."""

    OPEN = "it has not ended"
    YOUNG = "it closed too short a time ago"
    FOREVER = "the policy keeps its like for ever"
    ABOVE = "a run above it is open"
    BELOW = "a run that it started is open, or stays"
    CHAIN = "it continued as new, and its chain goes on or stays"
    EARLIER = "an earlier run of its id stays"
    UNREADABLE = "its history, or one it depends on, cannot be read"


class Kin(Protocol):
    """What is asked about the runs that are related to one."""

    def find(self, workflow_id: str, generation: int) -> RunRecord | None:
        """That run, if it is there."""

    def children(self, record: RunRecord) -> Iterator[RunRecord | None]:
        """The runs it started that are there; None now and then, where looking takes long. Raises `DecodeError`."""


class StoredKin:
    """Kin as a store knows them."""

    def __init__(self, store: Backend) -> None:
        self._store = store

    def find(self, workflow_id: str, generation: int) -> RunRecord | None:
        return self._store.find(workflow_id, generation)

    def children(self, record: RunRecord) -> Iterator[RunRecord | None]:
        start = 0
        while page := self._store.history(record.number, start, EVENTS_PAGE):
            for event in decode_history(page):
                if isinstance(event, ChildStarted):
                    yield from self._generations(event.workflow_id, (record.workflow_id, record.generation))
            start += len(page)
            yield None

    def _generations(self, workflow_id: str, parent: Place) -> Iterator[RunRecord]:
        """The runs of an id that this parent started; the id may have been used before and since."""
        found = self._store.find(workflow_id)
        while found is not None:
            if found.parent[:2] == parent:
                yield found
            found = self._store.find(workflow_id, found.generation - 1) if found.generation > 1 else None


def keep_s(policy: Retention, status: Status) -> float | None:
    """How long runs that closed so are kept, in seconds; None for ever."""
    if status is Status.CONTINUED and policy.continued is not None:
        return policy.continued
    return policy.completed if status in (Status.COMPLETED, Status.CONTINUED) else policy.failed


class Judge:
    """Decides which runs may go, for one policy at one moment. Remembers what it has decided."""

    def __init__(self, policy: Retention, now_us: int, kin: Kin) -> None:
        self._now_us, self._kin, self._policy = now_us, kin, policy
        self._chains_are_whole = policy.continued is None
        self._keep_us = {
            status: None if (kept := keep_s(policy, status)) is None else round(kept * 1e6) for status in Status
        }
        self._verdicts: dict[int, Stays | None] = {}
        self._deciding: set[int] = set()
        self._above: dict[Place, bool] = {}

    def why(self, record: RunRecord) -> Stays | None:
        """Why a run that was decided on stays; None if it may go."""
        return self._verdicts[record.number]

    def forget(self, most: int = VERDICTS_MAX) -> None:
        """Forget everything, if it has become more than that."""
        if len(self._verdicts) > most:
            self._verdicts.clear()
            self._above.clear()

    def decide(self, record: RunRecord) -> Iterator[tuple[RunRecord, ...]]:
        """Decide on a run, and on all that depends on it. Answers what may go, in the order in which it may, a few runs
        at a time; nothing, now and then, where it takes long.

        Each line of runs of one id waits on the stack until the lines of its children are decided.
        """
        stack: list[_Line] = []
        if record.number not in self._verdicts:
            self._begin(record, stack)
        while stack:
            line = stack[-1]
            line.settle(self._verdicts)
            try:
                question = next(line.questions, _NO_MORE)
            except (DecodeError, StoreDamaged):
                line.keep_from(line.at, Stays.UNREADABLE)
                continue
            if isinstance(question, RunRecord):
                line.asked = question.number
                if question.number in self._deciding:  # in a circle, which no tree has: nobody goes
                    line.keep_from(line.at, Stays.BELOW)
                elif question.number not in self._verdicts:
                    self._begin(question, stack)
            elif question is _NO_MORE:
                stack.pop()
                yield self._conclude(line)
            else:
                yield ()

    def _begin(self, record: RunRecord, stack: list[_Line]) -> None:
        """Put a run's line on the stack, as far as it is not decided at a glance."""
        why = self._alone(record)
        if why is not None and record.generation == 1:
            self._verdicts[record.number] = why
            return
        try:
            records = self._line_of(record)
        except StoreDamaged:
            self._verdicts[record.number] = Stays.UNREADABLE
            return
        line = _Line(records, self._kin, chains_are_whole=self._chains_are_whole)
        for at, each in enumerate(records):
            if (why := self._alone(each)) is not None:
                line.keep_from(at, why)
                break
        self._deciding.update(each.number for each in records)
        stack.append(line)

    def _conclude(self, line: _Line) -> tuple[RunRecord, ...]:
        for at, each in enumerate(line.records):
            self._deciding.discard(each.number)
            self._verdicts[each.number] = None if at < line.going else (self._alone(each) or line.why_stays(at))
        return tuple(line.records[: line.going])

    def _line_of(self, record: RunRecord) -> list[RunRecord]:
        """The unbroken row of runs of one id that a run stands in, oldest first."""
        earlier, later = list[RunRecord](), [record]
        while (at := (earlier or [record])[-1].generation) > 1:
            if (found := self._kin.find(record.workflow_id, at - 1)) is None:
                break
            earlier.append(found)
        while (found := self._kin.find(record.workflow_id, later[-1].generation + 1)) is not None:
            later.append(found)
        return earlier[::-1] + later

    def _alone(self, record: RunRecord) -> Stays | None:
        """Why a run stays, whatever else of its id and below it may go."""
        if record.status.open:
            return Stays.OPEN
        keep_us = self._keep_us[record.status]
        if keep_us is None or record.closed_at_us is None:
            return Stays.FOREVER
        if record.closed_at_us + keep_us > self._now_us:
            return Stays.YOUNG
        return Stays.ABOVE if self._is_below_open(record) else None

    def _is_below_open(self, record: RunRecord) -> bool:
        """Whether its parent is open, or one above that."""
        passed: dict[Place, None] = {}
        answer, parent = False, record.parent
        while parent:
            place = (parent[0], parent[1])
            if place in self._above:
                answer = self._above[place]
                break
            if place in passed:
                break
            passed[place] = None
            try:
                found = self._kin.find(*place)
            except StoreDamaged:
                answer = True  # nobody can tell
                break
            if found is None or found.status.open:
                answer = found is not None
                break
            parent = found.parent
        self._above.update(dict.fromkeys(passed, answer))
        return answer


class _NoMore:
    """Nothing is left to be asked."""


_NO_MORE = _NoMore()


class _Line:
    """Runs of one id, oldest first, while it is decided how many of them may go: `going`, from the oldest."""

    __slots__ = ("_chains_are_whole", "_stop", "_why", "asked", "at", "going", "questions", "records")

    def __init__(self, records: list[RunRecord], kin: Kin, *, chains_are_whole: bool) -> None:
        self.records = records
        self.going = len(records)
        self.at = 0
        self.asked: int | None = None
        self.questions = self._questions(kin)
        self._chains_are_whole = chains_are_whole
        self._stop, self._why = len(records), Stays.EARLIER

    def _questions(self, kin: Kin) -> Iterator[RunRecord | None]:
        """Every child of those that may go, as far as is known by then."""
        for at, record in enumerate(self.records):
            self.at = at
            for child in kin.children(record) if at < self.going else ():
                yield child
                if at >= self.going:
                    break

    def settle(self, verdicts: dict[int, Stays | None]) -> None:
        """Take in what came of the child that was asked about last."""
        if self.asked is not None:
            if verdicts.get(self.asked, Stays.OPEN) is not None:
                self.keep_from(self.at, Stays.BELOW)
            self.asked = None

    def keep_from(self, at: int, why: Stays) -> None:
        """This one stays, and so do those after it, and those before it that continued as new into it."""
        if at >= self.going:
            return
        self.going = self._stop = at
        self._why = why
        while self._chains_are_whole and self.going and self.records[self.going - 1].status is Status.CONTINUED:
            self.going -= 1

    def why_stays(self, at: int) -> Stays:
        """Why the run at that place stays, if not for a reason of its own."""
        if at < self._stop:
            return Stays.CHAIN
        return self._why if at == self._stop else Stays.EARLIER


# --- a pass over a store -------------------------------------------------------------------------------------------


def newest_created_by(store: Backend, at_us: int) -> int:
    """The number below which runs were created by then, found by halving: a dozen looks at one record each.

    Clocks are set and runs are imported, so a few on either side may be on the wrong one.
    """
    newest = store.runs(limit=1)
    low, high = 0, newest[0].number + 2 if newest else 1
    while high - low > 1:
        middle = (low + high) // 2
        found = store.runs(before=middle, limit=1)
        if not found or found[0].created_at_us <= at_us:
            low = middle
        else:
            high = found[0].number + 1
    return low


class Sweep:
    """One pass over a store. Go through `portions()`: each is some milliseconds of work (or the archiving of one run),
    and between any two the pass may be left.

    `put` archives a run; when it returns, the run may be deleted. `dry` only counts. `limit`: how many runs may go at
    most. What was done stands in the attributes, also on the way.
    """

    def __init__(
        self,
        store: Backend,
        policy: Retention,
        now_us: int,
        *,
        put: Callable[[Exported], object] | None = None,
        thorough: bool = True,
        dry: bool = False,
        limit: int | None = None,
    ) -> None:
        self.examined = self.archived = self.removed = 0
        self.stays: Counter[Stays] = Counter()
        self.went: Counter[tuple[str, Status]] = Counter()
        """What went, by workflow and status."""
        self.more = False
        """Whether `limit` cut it short."""
        self._store, self._policy, self._now_us, self._put = store, policy, now_us, put
        self._thorough, self._dry, self._limit = thorough, dry, limit
        self._judge = Judge(policy, now_us, StoredKin(store))
        self._batch: list[RunRecord] = []
        self._events = 0
        self._spoilt: set[str] = set()

    def portions(self) -> Iterator[None]:
        """The pass, piece by piece. Raises what store and archive raise; nothing is lost by it."""
        for page in self._pages():
            for record in page:
                for going in self._judge.decide(record):
                    for each in going:
                        if self._limit is not None and self.removed + len(self._batch) >= self._limit:
                            self.more = True
                            yield from self._remove()
                            return
                        yield from self._let_go(each)
                    if not going:
                        yield
                self.examined += 1
                if (why := self._judge.why(record)) is not None:
                    self.stays[why] += 1
            yield from self._remove()
            if not self._dry:
                self._judge.forget()
            yield
        yield from self._remove()

    def _pages(self) -> Iterator[list[RunRecord]]:
        """The closed runs that may be old enough, newest first, for each time that the policy names."""
        by_time: dict[float, list[Status]] = {}
        for status in Status:
            kept = None if status.open else keep_s(self._policy, status)
            if kept is not None:
                by_time.setdefault(kept, []).append(status)
        for kept, statuses in by_time.items():
            before = None if self._thorough else newest_created_by(self._store, self._now_us - round(kept * 1e6))
            while page := self._store.runs(status=statuses, before=before, limit=PAGE):
                yield page
                before = page[-1].number

    def _let_go(self, record: RunRecord) -> Iterator[None]:
        """Archive a run, and delete it together with others."""
        if record.workflow_id in self._spoilt:
            self.stays[Stays.EARLIER] += 1
            return
        if self._put is not None and not self._dry:
            if not self._archive(record):
                return
            yield
        self._batch.append(record)
        self._events += 0 if self._dry else self._store.head(record.number)
        if len(self._batch) >= RUNS_A_BATCH or self._events >= EVENTS_A_BATCH:
            yield from self._remove()

    def _archive(self, record: RunRecord) -> bool:
        """Hand a run to the archive; false if it is not to be deleted."""
        assert self._put is not None
        try:
            exported = take(self._store, record)
            if self._store.record(record.number) is None:
                return False  # somebody else has deleted it meanwhile, perhaps while it was being read
            self._put(exported)
        except (DataError, StoreDamaged) as error:
            log.warning("run %s stays, for it cannot be archived: %s", record.run_id, error)
            self.stays[Stays.UNREADABLE] += 1
            self._spoilt.add(record.workflow_id)  # the later ones of its id must not go before it
            return False
        self.archived += 1
        return True

    def _remove(self) -> Iterator[None]:
        batch, self._batch, self._events = self._batch, [], 0
        if not batch:
            return
        self.removed += len(batch) if self._dry else self._store.purge([record.number for record in batch])
        self.went.update((record.workflow, record.status) for record in batch)
        yield
