"""Deciding what a group of writes does, in memory, on rows that are locked.

A `Plan` is given what the store holds of all that the writes name (`Known`). It is told the writes in their order, each
sees what those before it did, and says what became of each; what has to be changed in the tables gathers in it as
lists, one for each kind of row, for a few statements to write at once. Nothing here talks to a server.
"""

from __future__ import annotations

import attrs

from dalsegno.backends.postgresql import wire
from dalsegno.backends.postgresql.queue_planning import Queues
from dalsegno.backends.postgresql.rows import Row, event_crc
from dalsegno.core.store import (
    APPLIED,
    Applied,
    Created,
    Message,
    NewRun,
    Refusal,
    Refused,
    Sent,
    StoredMessage,
    Transition,
    Verdict,
)
from dalsegno.core.text import workflow_id_problem

FIRST_GENERATION = 1

_GONE = Refused(Refusal.GONE)
_CLOSED = Refused(Refusal.CLOSED)
_EPOCH = Refused(Refusal.EPOCH)
_HEAD = Refused(Refusal.HEAD)
_UNSEEN = Refused(Refusal.UNSEEN)

DedupKey = tuple[bytes, bytes]


def dedup_key(message: Message) -> DedupKey:
    """What a deduplication key is found by: digests of the workflow id and of itself."""
    return wire.digest(message.workflow_id), wire.digest(message.dedup or "")


@attrs.define(slots=True)
class Known:
    """What the store holds of what a plan is about, all of it locked against others.

    `newest` leads from a workflow id to its newest run, `named` from an id and a generation. `unseen` are the messages
    newer than what a closing transition has seen, `accepted` which run accepted a deduplication key. `numbers` are
    fresh ones for runs, `last_message` the number that the newest message of all has. `queues` are tasks and places.
    """

    runs: dict[int, Row] = attrs.field(factory=dict)
    newest: dict[str, Row] = attrs.field(factory=dict)
    named: dict[tuple[str, int], Row] = attrs.field(factory=dict)
    unseen: dict[int, list[int]] = attrs.field(factory=dict)
    accepted: dict[DedupKey, int] = attrs.field(factory=dict)
    numbers: list[int] = attrs.field(factory=list)
    last_message: int = 0
    queues: Queues = attrs.field(factory=Queues)


@attrs.define(slots=True)
class Effects:
    """What a plan changes. Of a timer, True sets it and False clears it.

    `announced`: a message came for a run that another engine than the sender's may hold, or there is something to be
    taken from a queue, which is worth a NOTIFY.
    Within one engine the answer to the commit says the same, and costs no lock over all that announce.
    """

    made: list[Row] = attrs.field(factory=list)
    changed: dict[int, Row] = attrs.field(factory=dict)
    events: list[tuple[int, int, int, bytes]] = attrs.field(factory=list)
    sent: dict[tuple[int, int], StoredMessage] = attrs.field(factory=dict)
    taken: list[tuple[int, int]] = attrs.field(factory=list)
    cleared: list[int] = attrs.field(factory=list)
    timers: dict[tuple[int, int, str], bool] = attrs.field(factory=dict)
    published: dict[tuple[int, str], bytes] = attrs.field(factory=dict)
    accepted: list[tuple[DedupKey, int, str]] = attrs.field(factory=list)
    last_message: int | None = None
    announced: bool = False
    queues: Queues = attrs.field(factory=Queues)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.made or self.changed or self.sent or self.queues.steps)


class Plan:
    """The writes of one transaction. `at_us` is the time that messages carry."""

    __slots__ = ("_at_us", "_known", "effects")

    def __init__(self, known: Known, at_us: int) -> None:
        self._known = known
        self._at_us = at_us
        self.effects = Effects(queues=known.queues)

    # --- creating --------------------------------------------------------------------------------------------------

    def create(self, new: NewRun) -> Created:
        """Create a run, or answer the one that has its id."""
        row, is_new = self._create(new)
        return Created(row.record, is_new)

    def _create(self, new: NewRun, child: bool = False) -> tuple[Row, bool]:
        found = self._known.newest.get(new.workflow_id)
        if found is not None and (found.status.open or new.on_conflict != "restart_closed"):
            return found, False
        if not child and new.place is not None and new.place.dedup is not None and new.status.open:
            same = self._known.queues.places.get((new.place.queue, new.place.dedup))
            if same is not None:
                return self._known.runs.get(same.number, same), False
        row = self._add(new, (new.generation or FIRST_GENERATION) if found is None else found.generation + 1)
        if new.place is not None and row.status.open:
            self._known.queues.enter(row, new.place, new.created_at_us, dedup=not child)
            self.effects.announced = True
        elif not new.owner and row.status.open:
            self._wake(row, new)
        return row, True

    def _wake(self, row: Row, new: NewRun) -> None:
        self._deliver(row, "wake", "", b"", False, new.created_at_us)
        self.effects.announced = True

    def _add(self, new: NewRun, generation: int) -> Row:
        known, effects = self._known, self.effects
        row = Row.first(new, known.numbers.pop(0), generation)
        number = row.number
        effects.made.append(row)
        known.runs[number] = known.newest[new.workflow_id] = known.named[new.workflow_id, generation] = row
        for seq, event in enumerate(new.events):
            effects.events.append((number, seq, event_crc(number, seq, event), event))
        if new.messages_above > known.last_message:
            effects.last_message = known.last_message = new.messages_above
        for deadline_us, key in new.timers:
            effects.timers[number, wire.in_range(deadline_us), key] = True
        for name, value in new.published.items():
            effects.published[number, name] = value
        return row

    # --- applying --------------------------------------------------------------------------------------------------

    def apply(self, t: Transition) -> Verdict:
        """Apply a transition, or say why not."""
        row = self._known.runs.get(t.run)
        if row is None:
            return _GONE
        if not row.status.open:
            return _CLOSED
        if row.epoch != t.epoch or row.queued:
            return _EPOCH
        if row.head != t.head:
            return _HEAD
        closes = t.status is not None and not t.status.open
        if closes and any(seq > t.seen and seq not in t.consumed for seq in self._known.unseen.get(t.run, ())):
            return _UNSEEN
        planned: dict[str, Row | NewRun] = {}
        for child in t.children:
            if not self._plan_child(child, planned):
                return Refused(Refusal.CHILD, child.workflow_id)
        for message in t.messages:
            if message.kind == "signal" and not self._reachable(message, row, t, planned):
                return Refused(Refusal.TARGET, message.workflow_id)
        if t.tasks_withdrawn and (unready := self._known.queues.unready(t)) is not None:
            return Refused(Refusal.TASK, unready)
        queue = row.queue
        self._advance(t, row, closes)
        if not (t.children or t.messages or t.continued):
            return APPLIED
        created = [one if isinstance(one, Row) else self._create(one, child=True)[0] for one in planned.values()]
        if t.continued is not None:
            created.append(self._continue(t.continued, row, queue))
        answers = [self.send(message, row.owner) for message in t.messages]
        sent = [number for what, number in answers if what is Sent.ACCEPTED]
        return Applied(tuple(one.record for one in created), tuple(dict.fromkeys(sent))) if created or sent else APPLIED

    def _continue(self, new: NewRun, before: Row, queue: str) -> Row:
        """The run that another one goes on as, whose place it has."""
        row = self._add(new, before.generation + 1)
        if queue:
            self._known.queues.inherit(before, queue, row)
        if not new.owner and row.status.open:
            self._wake(row, new)
        return row

    def _advance(self, t: Transition, row: Row, closes: bool) -> None:
        """What a transition does to its own run."""
        effects, number, head = self.effects, row.number, row.head
        effects.changed[number] = row
        for seq, event in enumerate(t.events, head):
            effects.events.append((number, seq, event_crc(number, seq, event), event))
        row.head = head + len(t.events)
        row.deaths = 0
        row.active = t.active and not closes
        row.status = t.status or row.status
        row.restore = row.restore and not t.restored
        if t.reason is not None:
            row.reason = t.reason
        for name, value in t.published.items():
            effects.published[number, name] = value
        if closes:
            row.closed_at_us = t.closed_at_us
            self._clear(number)
            self._known.queues.close(t, row)
            return
        if t.tasks or t.tasks_dropped or t.tasks_withdrawn:
            self._known.queues.change(t)
            effects.announced |= bool(t.tasks)
        waiting = self._known.unseen.get(number)
        if waiting:
            waiting[:] = [seq for seq in waiting if seq not in t.consumed]
        for seq in t.consumed:
            if effects.sent.pop((number, seq), None) is None:
                effects.taken.append((number, seq))
        for deadline_us, key in t.timers_cleared:
            effects.timers[number, wire.in_range(deadline_us), key] = False
        for deadline_us, key in t.timers_set:
            effects.timers[number, wire.in_range(deadline_us), key] = True

    def _clear(self, number: int) -> None:
        """Drop what a closed run has no more use for: messages it has seen and timers nobody will wait for."""
        effects = self.effects
        effects.cleared.append(number)
        effects.sent = {where: one for where, one in effects.sent.items() if where[0] != number}
        effects.timers = {where: one for where, one in effects.timers.items() if where[0] != number}

    def _plan_child(self, child: NewRun, planned: dict[str, Row | NewRun]) -> bool:
        """Note what is to be done for a child: adopt the run that is there, or create one."""
        if workflow_id_problem(child.workflow_id):
            return False
        found = planned.get(child.workflow_id) or self._known.newest.get(child.workflow_id)
        if found is not None and (not child.parent or found.parent != child.parent):
            restart = isinstance(found, Row) and not found.status.open and child.on_conflict == "restart_closed"
            if not restart:
                return False
            found = None
        planned[child.workflow_id] = child if found is None else found
        return True

    def _reachable(self, message: Message, own: Row, t: Transition, planned: dict[str, Row | NewRun]) -> bool:
        """Whether a signal would arrive, seen from after the transition, which may create its target or close it."""
        if message.dedup is not None and dedup_key(message) in self._known.accepted:
            return True
        generation = message.generation
        if message.workflow_id == own.workflow_id and generation in (None, own.generation, own.generation + 1):
            if t.continued is not None:
                return generation != own.generation
            return generation != own.generation + 1 and (t.status is None or t.status.open)
        target = planned.get(message.workflow_id)
        if isinstance(target, NewRun) and generation is None:
            return True
        found = self._target(message)
        return found is not None and found.status.open

    # --- messages --------------------------------------------------------------------------------------------------

    def send(self, message: Message, sender: str = "") -> tuple[Sent, int]:
        """Put a message into an inbox, and say what became of it. `sender` is the engine it comes from, if any."""
        key = None if message.dedup is None else dedup_key(message)
        if key is not None and key in self._known.accepted:
            return Sent.DUPLICATE, self._known.accepted[key]
        row = self._target(message)
        if message.task is not None and not self._known.queues.answer(message.task, 0 if row is None else row.number):
            return Sent.CLOSED, 0 if row is None else row.number
        if row is None:
            return Sent.NOT_FOUND, 0
        if not row.status.open:
            return Sent.CLOSED, row.number
        if row.queued and message.kind in ("cancel", "terminate"):
            self._known.queues.leave(row)
        self._deliver(row, message.kind, message.name, message.payload, message.failed, self._at_us)
        self.effects.announced |= not sender or sender != row.owner
        if key is not None:
            self._known.accepted[key] = row.number
            self.effects.accepted.append((key, row.number, message.dedup or ""))
        return Sent.ACCEPTED, row.number

    def _target(self, message: Message) -> Row | None:
        if message.generation is None:
            return self._known.newest.get(message.workflow_id)
        return self._known.named.get((message.workflow_id, message.generation))

    def _deliver(self, row: Row, kind: str, name: str, payload: bytes, failed: bool, at_us: int) -> None:
        known, effects, number = self._known, self.effects, row.number
        seq = effects.last_message = known.last_message = known.last_message + 1
        effects.sent[number, seq] = StoredMessage(seq, kind, name, payload, failed, at_us)  # type: ignore[arg-type]
        if kind != "wake":
            row.last_message = seq
            known.unseen.setdefault(number, []).append(seq)
            effects.changed[number] = row
