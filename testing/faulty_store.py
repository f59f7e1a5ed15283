"""A store that fails on demand: `FaultyStore(backend, FaultPlan(7))` wraps any store.

It forwards every call, and asks its `Mischief` first what is to become of it: an error before (nothing was applied), an
error after (all of it was, and the caller is not told), a crash before or after, a delay. Answers may come late or
twice, transitions may be refused, where the port allows it. What it never does is lie: an accepted transition was
applied, a refused one was not.

A crash is the exception `Crash`, and from then on this wrapper raises it at every call, as if the process that held it
were gone. `Simulation` catches it, and opens a fresh wrapper on the same store. With an engine that has threads, leave
the sites that crash out of the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import attrs

from dalsegno.core.errors import StoreError, StoreFull, UnknownOutcome
from dalsegno.core.queues import Queue, QueueState, Task
from dalsegno.core.store import (
    Applied,
    Backend,
    Created,
    DueTimer,
    Lease,
    Message,
    NewRun,
    Problem,
    Refusal,
    Refused,
    RunRecord,
    Sent,
    Status,
    StoredMessage,
    Transition,
    Verdict,
    open_store,
)
from dalsegno.core.transactions import StepAttempt
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.faults import Call, Crash, FaultPlan, Faults, Mischief

A = TypeVar("A")

SLOW_S = 10.0
STUCK_S = 600.0

Committed = Callable[[Transition], object]


class FaultyStore(Backend):
    """Any store, with faults. `clock`, if given, is what slow and stuck calls move. `committed` is told of every
    transition that was applied, also when the caller is not. `held_as`: the one name under which the store is held,
    whichever owner asks, where one handle outlives several engines.

    >>> from dalsegno.backends.memory import MemoryBackend
    >>> from dalsegno.testing import FaultPlan
    >>> faults = FaultPlan(7, only=("store.error",), on=1, chances={"store.error": 1})
    >>> FaultyStore(MemoryBackend(), faults).find("order-42")
    Traceback (most recent call last):
    ...
    dalsegno.core.errors.StoreError: injected: store.find failed
    """

    survives_reopen: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    several: ClassVar[bool] = True  # as far as the store inside is
    has_queues: ClassVar[bool] = True  # as far as the store inside has
    transactional: ClassVar[bool] = True  # as well; where it has none, a step that is not a fake fails

    def __init__(
        self,
        backend: Backend,
        faults: FaultPlan | Mischief | None = None,
        *,
        clock: VirtualClock | None = None,
        committed: Committed | None = None,
        held_as: str | None = None,
    ) -> None:
        self.inner = backend
        self.faults = Faults(faults) if isinstance(faults, FaultPlan) else faults or Mischief()
        self.dead = False
        self._clock, self._committed, self._held_as = clock, committed, held_as
        self._changes: object = None
        self.late = False
        self._due: list[DueTimer] = []
        self._mailed: dict[int, None] = {}

    @classmethod
    def open(cls, location: str, **options: Any) -> Self:
        """`FaultyStore.open("lmdb:./orders", faults=FaultPlan(7))`"""
        faults, clock = options.pop("faults", None), options.pop("clock", None)
        return cls(open_store(location, **options), faults, clock=clock)

    def close(self) -> None:
        self.inner.close()

    # --- the one place where calls go wrong ------------------------------------------------------------------------

    def _call(self, method: str, writes: bool, act: Callable[[], A]) -> A:
        if self.dead:
            raise Crash(f"store.{method} is called by a process that has died")
        way = self.faults.call(method, writes)
        if way is None:
            return act()
        self._before(way, method)
        answer = act()
        if way == "crash-after":
            self.die(f"just after store.{method}")
        if way == "unknown-after" or (way == "stuck" and writes):
            raise UnknownOutcome(f"injected: store.{method} was done, and is reported failed")
        if way == "stuck":
            raise StoreError(f"injected: store.{method} did not answer")
        return answer

    def _before(self, way: Call, method: str) -> None:
        if way == "crash-before":
            self.die(f"just before store.{method}")
        if way == "full":
            raise StoreFull(f"injected: no room for store.{method}")
        if way in ("error", "error-before"):
            raise StoreError(f"injected: store.{method} failed")
        if way == "unknown-before":
            raise UnknownOutcome(f"injected: store.{method} was not done, and may have been")
        if way in ("slow", "stuck"):
            self._pass(STUCK_S if way == "stuck" else SLOW_S * self.faults.amount("store.slow"))

    def die(self, where: str) -> None:
        """The process that holds this store dies: this call and all later ones raise `Crash`."""
        self.dead = True
        raise Crash(f"injected: the process dies {where}")

    def _pass(self, seconds: float) -> None:
        if self._clock is not None:
            self._clock.advance(seconds)

    # --- who works here ----------------------------------------------------------------------------------------

    def hold(self, owner: str) -> None:
        self._call("hold", False, lambda: self.inner.hold(self._held_as or owner))

    def join(self, owner: str, length_us: int, now_us: int) -> None:
        name = owner if self.inner.several else self._held_as or owner
        self._call("join", True, lambda: self.inner.join(name, length_us, now_us))

    def renew(self, owner: str, now_us: int) -> bool:
        return self._call("renew", True, lambda: self.inner.renew(owner, now_us))

    def leave(self, owner: str) -> bool:
        return self._call("leave", True, lambda: self.inner.leave(owner))

    def leases(self) -> list[Lease]:
        return self._call("leases", False, self.inner.leases)

    def expire(self, lease: Lease) -> bool:
        return self._call("expire", True, lambda: self.inner.expire(lease))

    def claim(self, runs: Sequence[int], owner: str) -> list[RunRecord]:
        return self._call("claim", True, lambda: self.inner.claim(runs, owner))

    def release(self, runs: Sequence[int], owner: str) -> None:
        self._call("release", True, lambda: self.inner.release(runs, owner))

    def active(self, after: int = 0, limit: int = 1000) -> list[int]:
        return self._call("active", False, lambda: self.inner.active(after, limit))

    # --- writing ---------------------------------------------------------------------------------------------------

    def create(self, runs: Sequence[NewRun]) -> list[Created]:
        return self._call("create", True, lambda: self.inner.create(runs))

    def commit(self, transitions: Sequence[Transition]) -> list[Verdict]:
        return self._call("commit", True, lambda: self._commit(transitions))

    def send(self, messages: Sequence[Message], at_us: int) -> list[tuple[Sent, int]]:
        return self._call("send", True, lambda: self._send(messages, at_us))

    def write(
        self, creations: Sequence[NewRun], transitions: Sequence[Transition], messages: Sequence[Message], at_us: int
    ) -> tuple[list[Created], list[Verdict], list[tuple[Sent, int]]]:
        return self._call("write", True, lambda: self._write(creations, transitions, messages, at_us))

    def _write(
        self, creations: Sequence[NewRun], transitions: Sequence[Transition], messages: Sequence[Message], at_us: int
    ) -> tuple[list[Created], list[Verdict], list[tuple[Sent, int]]]:
        refused = self._conflicts(transitions)
        going = [t for at, t in enumerate(transitions) if at not in refused]
        created, verdicts, sent = self.inner.write(creations, going, messages, at_us)
        self._send_again(messages, at_us)
        return created, self._verdicts(transitions, refused, verdicts), sent

    def _commit(self, transitions: Sequence[Transition]) -> list[Verdict]:
        refused = self._conflicts(transitions)
        going = [t for at, t in enumerate(transitions) if at not in refused]
        return self._verdicts(transitions, refused, self.inner.commit(going) if going else [])

    def _conflicts(self, transitions: Sequence[Transition]) -> dict[int, Verdict]:
        """The places of transitions that are to be refused, whatever the store would say."""
        fires = self.faults.fires
        return {at: Refused(Refusal.HEAD) for at in range(len(transitions)) if fires("store.conflict")}

    def _verdicts(
        self, transitions: Sequence[Transition], refused: Mapping[int, Verdict], given: Iterable[Verdict]
    ) -> list[Verdict]:
        answers, verdicts = iter(given), list[Verdict]()
        for at, transition in enumerate(transitions):
            verdict = refused.get(at) or next(answers)
            if isinstance(verdict, Applied):
                if self._committed is not None:
                    self._committed(transition)
                self._mailed.update(dict.fromkeys(verdict.sent))
                if verdict.sent and self.faults.fires("news.lost"):
                    verdict = attrs.evolve(verdict, sent=())
            verdicts.append(verdict)
        return verdicts

    def _send(self, messages: Sequence[Message], at_us: int) -> list[tuple[Sent, int]]:
        sent = self.inner.send(messages, at_us)
        self._send_again(messages, at_us)
        return sent

    def _send_again(self, messages: Sequence[Message], at_us: int) -> None:
        again = [m for m in messages if m.dedup is not None and self.faults.fires("sends.twice")]
        if again:
            self.inner.send(again, at_us)

    def transact(self, attempt: StepAttempt, body: Callable[[Any], bytes]) -> bytes:
        if self.dead:
            raise Crash("store.transact is called by a process that has died")
        return self.inner.transact(attempt, body)  # without faults: what became of it, the store has to find out

    # --- queues ----------------------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Queue]) -> None:
        self._call("declare", True, lambda: self.inner.declare(queues))

    def queues(self, *, ages: bool = True) -> list[QueueState]:
        return self._call("queues", False, lambda: self.inner.queues(ages=ages))

    def take(
        self, queues: Sequence[str], owner: str, limit: int, now_us: int, steps: Collection[str] | None = None
    ) -> list[Task]:
        return self._call("take", True, lambda: self.inner.take(queues, owner, limit, now_us, steps))

    def give_back(self, tasks: Sequence[tuple[int, int]], owner: str) -> None:
        self._call("give_back", True, lambda: self.inner.give_back(tasks, owner))

    def beat(self, owner: str, details: Mapping[int, bytes]) -> list[int]:
        return self._call("beat", True, lambda: self.inner.beat(owner, details))

    def tasks_of(self, run: int) -> list[Task]:
        return self._call("tasks_of", False, lambda: self.inner.tasks_of(run))

    def admit(self, queues: Sequence[str], limit: int, now_us: int) -> list[int]:
        return self._call("admit", True, lambda: self.inner.admit(queues, limit, now_us))

    def note(self, run: int, epoch: int, notes: Mapping[str, bytes]) -> bool:
        return self._call("note", True, lambda: self.inner.note(run, epoch, notes))

    def notes(self, run: int) -> dict[str, bytes]:
        return self._call("notes", False, lambda: self.inner.notes(run))

    # --- reading ---------------------------------------------------------------------------------------------------

    def history(self, run: int, start: int = 0, limit: int | None = None) -> list[bytes]:
        return self._call("history", False, lambda: self.inner.history(run, start, limit))

    def head(self, run: int) -> int:
        return self._call("head", False, lambda: self.inner.head(run))

    def inbox(self, run: int, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        return self._call("inbox", False, lambda: self.inner.inbox(run, after, limit))

    def find(self, workflow_id: str, generation: int | None = None) -> RunRecord | None:
        return self._call("find", False, lambda: self.inner.find(workflow_id, generation))

    def record(self, run: int) -> RunRecord | None:
        return self._call("record", False, lambda: self.inner.record(run))

    def look_up(self, runs: Sequence[int]) -> list[RunRecord]:
        return self._call("look_up", False, lambda: self.inner.look_up(runs))

    def published(self, run: int) -> dict[str, bytes]:
        return self._call("published", False, lambda: self.inner.published(run))

    def runs(
        self,
        *,
        status: Iterable[Status] = (),
        workflow: str | None = None,
        tags: Mapping[str, str] | None = None,
        before: int | None = None,
        limit: int = 1000,
    ) -> list[RunRecord]:
        def act() -> list[RunRecord]:
            return self.inner.runs(status=status, workflow=workflow, tags=tags, before=before, limit=limit)

        return self._call("runs", False, act)

    # --- news ------------------------------------------------------------------------------------------------------

    def due(self, now_us: int, limit: int = 1000) -> list[DueTimer]:
        found = self._call("due", False, lambda: self.inner.due(now_us, limit))
        if found and self.faults.fires("timers.late"):
            return []
        if self.faults.fires("timers.twice"):
            found = [*found, *found, *self._due]
        self._due = found[:limit]
        return found

    def next_deadline_us(self) -> int | None:
        return self._call("next_deadline_us", False, self.inner.next_deadline_us)

    def news(self, after: int = 0, limit: int = 1000) -> list[tuple[int, int]]:
        found = self._call("news", False, lambda: self.inner.news(after, limit))
        self._mailed.update(dict.fromkeys(run for _, run in found))
        if self._mailed and self.faults.fires("mail.twice"):
            return [*((after, run) for run in self._mailed), *found]
        return found

    def changes(self) -> object:
        if self.dead:
            raise Crash("store.changes is called by a process that has died")
        changes = self.inner.changes()  # asked at every tick and almost never answered with news: not worth a fault
        self.late = changes != self._changes and self.faults.fires("news.late")
        if not self.late:
            self._changes = changes
        return self._changes

    # --- keeping house ---------------------------------------------------------------------------------------------

    def purge(self, runs: Sequence[int]) -> int:
        return self._call("purge", True, lambda: self.inner.purge(runs))

    def stats(self) -> dict[str, int]:
        return self._call("stats", False, self.inner.stats)

    def check(self) -> list[Problem]:
        return self._call("check", False, self.inner.check)
