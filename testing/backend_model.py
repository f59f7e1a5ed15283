"""The store port on plain dicts: what `BackendMachine` holds a store against.

It is the port's text once more, with one dict of runs and one of deduplication keys, without keys, indexes, bytes or
transactions: short enough to be compared with `dalsegno.core.store` by reading. Where a store and this differ, one of
them is wrong.

A store chooses its own numbers, and may leave gaps. So a model is told the numbers that a call gave out (`given`)
before it does the same; a message gets its number when it is first seen in the news.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from dalsegno.core.queues import Task
from dalsegno.core.store import (
    Applied,
    Message,
    NewRun,
    Refusal,
    Refused,
    RunRecord,
    Sent,
    StoredMessage,
    Transition,
    Verdict,
)
from dalsegno.testing.queue_model import Queues

UNSEEN = 2**62  # stands for the number of a message that was not read yet: it is newer than all that were


@attrs.define
class Waiting:
    """A message in an inbox. `at_us` None: the port does not say what time it carries. Its number is beyond `above`."""

    message: Message
    at_us: int | None
    above: int
    seq: int = UNSEEN

    def fits(self, stored: StoredMessage) -> bool:
        """Whether a message of the store is this one."""
        mine, times = self.message, (stored.at_us, None)
        facts = (stored.seq, stored.kind, stored.name, stored.payload, stored.failed)
        return facts == (self.seq, mine.kind, mine.name, mine.payload, mine.failed) and self.at_us in times


@attrs.define
class Run:
    """A run, with all that is its own."""

    record: RunRecord
    events: list[bytes]
    timers: set[tuple[int, str]]
    published: dict[str, bytes]
    inbox: list[Waiting] = attrs.field(factory=list)

    @property
    def open(self) -> bool:
        return self.record.status.open

    def change(self, **changes: object) -> None:
        self.record = attrs.evolve(self.record, **changes)  # type: ignore[arg-type]

    def parent_is(self, child: NewRun) -> bool:
        return bool(child.parent) and self.record.parent == child.parent


class Model:
    """The port. Its methods do what those of the same name in `Backend` do, one thing at a time."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.made: list[int] = []
        self.used: dict[tuple[str, str], int] = {}
        self.arrived: list[tuple[int, Waiting]] = []
        self.leases: set[str] = set()
        self.queues = Queues()
        self.last_seq = self.above = 0
        self._given: list[int] = []

    def given(self, numbers: Iterable[int]) -> None:
        """Be told the numbers in a store's answer; those never seen before belong to runs it has just made."""
        last = self.made[-1] if self.made else 0
        self._given = sorted({number for number in numbers if number > last})

    def news(self) -> list[tuple[int, Waiting]]:
        """Which run has which message waiting, in the order accepted."""
        self.arrived = [
            (number, waiting)
            for number, waiting in self.arrived
            if number in self.runs and any(waiting is one for one in self.runs[number].inbox)
        ]
        return self.arrived

    def find(self, workflow_id: str, generation: int | None = None) -> int | None:
        fit = [n for n, run in self.runs.items() if run.record.workflow_id == workflow_id]
        return max((n for n in fit if generation in (None, self.runs[n].record.generation)), default=None)

    # --- creating --------------------------------------------------------------------------------------------------

    def create(self, new: NewRun, child: bool = False) -> tuple[int, bool]:
        found = self.find(new.workflow_id)
        if found is not None and (self.runs[found].open or new.on_conflict != "restart_closed"):
            return found, False
        if not child and new.place is not None and new.status.open:
            same = self.queues.placed(new.place)
            if same is not None:
                return same, False
        generation = (new.generation or 1) if found is None else self.runs[found].record.generation + 1
        return self._add(new, generation, dedup=not child), True

    def _add(self, new: NewRun, generation: int, inherited: str = "", dedup: bool = False) -> int:
        number = self._given.pop(0) if self._given else max(self.made, default=0) + 1
        self.made.append(number)
        queued = new.place is not None and new.status.open and not inherited
        owner = "" if queued else new.owner
        record = RunRecord(
            number=number,
            workflow_id=new.workflow_id,
            generation=generation,
            workflow=new.workflow,
            status=new.status,
            active=new.status.open and not queued,
            created_at_us=new.created_at_us,
            digest=new.digest,
            closed_at_us=new.closed_at_us,
            tags=dict(new.tags),
            parent=new.parent,
            epoch=1 if owner else 0,
            owner=owner,
            restore=new.restore,
            queue=inherited or (new.place.queue if new.place is not None and queued else ""),
            queued=queued,
        )
        self.runs[number] = Run(record, list(new.events), set(new.timers), dict(new.published))
        self.above = max(self.above, new.messages_above)
        if new.place is not None and queued:
            self.queues.put_run(number, new.place, new.created_at_us, dedup)
        elif not new.owner and new.status.open:
            self._deliver(number, Message(workflow_id=new.workflow_id, kind="wake"), None)
        return number

    # --- messages --------------------------------------------------------------------------------------------------

    def send(self, message: Message, at_us: int | None) -> tuple[Sent, int]:
        key = (message.workflow_id, message.dedup or "")
        if message.dedup is not None and key in self.used:
            return Sent.DUPLICATE, self.used[key]
        number = self.find(message.workflow_id, message.generation)
        if message.task is not None and not self.queues.answer(*message.task, number):
            return Sent.CLOSED, number or 0
        if number is None:
            return Sent.NOT_FOUND, 0
        if not self.runs[number].open:
            return Sent.CLOSED, number
        if self.runs[number].record.queued and message.kind in ("cancel", "terminate"):
            self.queues.leave(number)
            self.runs[number].change(queue="", queued=False)
        self._deliver(number, message, at_us)
        if message.dedup is not None:
            self.used[key] = number
        return Sent.ACCEPTED, number

    def _deliver(self, number: int, message: Message, at_us: int | None) -> None:
        waiting = Waiting(message, at_us, self.above)
        self.runs[number].inbox.append(waiting)
        self.arrived.append((number, waiting))

    # --- transitions -----------------------------------------------------------------------------------------------

    def commit(self, t: Transition) -> tuple[Refused | None, list[int], list[int]]:
        """Why the transition is refused, or the numbers of its children and continuation, and of its targets."""
        refused = self._refusal(t)
        if refused is not None:
            return refused, [], []
        run = self.runs[t.run]
        run.events += t.events
        run.inbox = [waiting for waiting in run.inbox if waiting.seq not in t.consumed]
        run.timers = (run.timers - set(t.timers_cleared)) | set(t.timers_set)
        run.published.update(t.published)
        run.change(
            status=t.status or run.record.status,
            active=t.active,
            deaths=0,
            reason=run.record.reason if t.reason is None else t.reason,
            restore=run.record.restore and not t.restored,
        )
        queue = run.record.queue
        self.queues.drop(t.run, (*t.tasks_withdrawn, *t.tasks_dropped))
        if not run.open:
            run.inbox, run.timers = [], set()
            run.change(active=False, closed_at_us=t.closed_at_us, queue="")
            self.queues.close(t.run, continues=t.continued is not None)
        else:
            for task in t.tasks:
                self.queues.put_task(run.record, task)
        created = dict.fromkeys(self._adopt(child) for child in t.children)
        if t.continued is not None:
            following = self._add(t.continued, run.record.generation + 1, queue)
            self.queues.hand_over(t.run, following)
            created[following] = None
        sent = dict.fromkeys(
            number for what, number in (self.send(m, None) for m in t.messages) if what is Sent.ACCEPTED
        )
        return None, list(created), list(sent)

    def _adopt(self, child: NewRun) -> int:
        found = self.find(child.workflow_id)
        return found if found is not None and self.runs[found].parent_is(child) else self.create(child, True)[0]

    def _refusal(self, t: Transition) -> Refused | None:
        run = self.runs.get(t.run)
        if run is None:
            return Refused(Refusal.GONE)
        if not run.open:
            return Refused(Refusal.CLOSED)
        if run.record.epoch != t.epoch:
            return Refused(Refusal.EPOCH)
        if len(run.events) != t.head:
            return Refused(Refusal.HEAD)
        closes = t.status is not None and not t.status.open
        unseen = [one for one in run.inbox if one.seq > t.seen and one.message.kind != "wake"]
        if closes and any(one.seq not in t.consumed for one in unseen):
            return Refused(Refusal.UNSEEN)
        children: dict[str, NewRun] = {}
        for child in t.children:
            if not self._child_fits(child, children):
                return Refused(Refusal.CHILD, child.workflow_id)
        for message in t.messages:
            if message.kind == "signal" and not self._arrives(message, t, run.record, closes, children):
                return Refused(Refusal.TARGET, message.workflow_id)
        for step in t.tasks_withdrawn:
            if not self.queues.waits(t.run, step):
                return Refused(Refusal.TASK, step)
        return None

    def _child_fits(self, child: NewRun, children: dict[str, NewRun]) -> bool:
        """Whether a child can be adopted or created; notes it if it is to be created."""
        found = self.find(child.workflow_id)
        if found is not None and self.runs[found].parent_is(child):
            return True
        if found is not None and (self.runs[found].open or child.on_conflict != "restart_closed"):
            return False
        children[child.workflow_id] = child
        return True

    def _arrives(
        self, message: Message, t: Transition, own: RunRecord, closes: bool, children: dict[str, NewRun]
    ) -> bool:
        """Whether a signal finds an open run, seen from after the transition, or was accepted before."""
        if message.dedup is not None and (message.workflow_id, message.dedup) in self.used:
            return True
        generation = message.generation
        if message.workflow_id == own.workflow_id and generation in (None, own.generation, own.generation + 1):
            if t.continued is not None:
                return generation != own.generation
            return generation != own.generation + 1 and not closes
        if message.workflow_id in children and generation is None:
            return True
        found = self.find(message.workflow_id, generation)
        return found is not None and self.runs[found].open

    # --- holding and deleting --------------------------------------------------------------------------------------

    def claim(self, number: int, owner: str) -> RunRecord | None:
        run = self.runs.get(number)
        if run is None or not run.open or run.record.queued:
            return None
        another = run.record.owner not in ("", owner)
        if another and run.record.owner in self.leases:
            return None
        died = run.record.active and another
        run.change(epoch=run.record.epoch + 1, owner=owner, deaths=run.record.deaths + died)
        return run.record

    def release(self, number: int, owner: str) -> None:
        run = self.runs.get(number)
        if run is not None and run.open and run.record.owner == owner:
            run.change(owner="")

    def begin_lease(self, owner: str) -> None:
        self.leases.add(owner)
        self.queues.end_owners(lambda other: other not in self.leases)

    def end_lease(self, owner: str) -> None:
        self.leases.discard(owner)
        self.queues.end_owners(lambda other: other == owner)

    # --- queues ----------------------------------------------------------------------------------------------------

    def take(
        self, queues: Sequence[str], owner: str, limit: int, now_us: int, steps: Collection[str] | None
    ) -> list[Task]:
        if self.leases and owner not in self.leases:
            return []
        return self.queues.take(queues, owner, limit, now_us, steps)

    def admit(self, queues: Sequence[str], limit: int, now_us: int) -> list[int]:
        admitted = self.queues.admit(queues, limit, now_us)
        for number in admitted:
            self.runs[number].change(queued=False, active=True)
            self._deliver(number, Message(workflow_id="", kind="wake"), None)
        return admitted

    def note(self, number: int, epoch: int, notes: Mapping[str, bytes]) -> bool:
        run = self.runs.get(number)
        if run is None or not run.open or run.record.epoch != epoch:
            return False
        self.queues.note(number, notes)
        return True

    def purge(self, number: int) -> bool:
        if number not in self.runs or self.runs[number].open:
            return False
        del self.runs[number]
        self.used = {key: run for key, run in self.used.items() if run != number}
        return True


def agrees(verdict: Verdict, refused: Refused | None, created: list[int], sent: list[int]) -> bool:
    """Whether a store's verdict is the model's. The detail of a refusal is for people, but for child and target."""
    if refused is None or isinstance(verdict, Applied):
        found = ([one.number for one in verdict.created], list(verdict.sent)) if isinstance(verdict, Applied) else None
        return refused is None and found == (created, sent)
    return verdict.why is refused.why and (not refused.detail or verdict.detail == refused.detail)
