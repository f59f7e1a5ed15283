"""What one write transaction does: creating runs, applying transitions, sending messages.

A `Batch` lives as long as its transaction. Everything in it is decided by reading first and written afterwards, so that
a refused transition leaves nothing behind although others of the same transaction are applied; later ones see what
earlier ones wrote.

The common transition appends the events of one step to an active run. For it the batch reads the run's header, looks
that the history ends where the transition says, and puts the events: three reads and one write, nothing decoded; and no
read at all where the commit before was this handle's and appended to the run (`heads`). All else takes the longer way
below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import attrs

from dalsegno.backends import layout, records
from dalsegno.backends.holding import Holding
from dalsegno.backends.layout import HISTORY, INBOX, NEWS, PUBLISHED, RUN, run_bytes, seq_bytes
from dalsegno.backends.records import (
    CLOSED_FROM,
    CODE_OF,
    GOOD,
    HEADER,
    PLACED,
    QUEUED,
    RESTORE,
    STILL_OPEN,
    WAKE,
    seal,
    unpack_header,
)
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import (
    APPLIED,
    Applied,
    Created,
    Message,
    NewRun,
    Refusal,
    Refused,
    RunRecord,
    Sent,
    Transition,
    Verdict,
)
from dalsegno.core.text import workflow_id_problem

_GONE = Refused(Refusal.GONE)
_DAMAGED = Refused(Refusal.GONE, "its record is damaged; see: replay check")
_CLOSED = Refused(Refusal.CLOSED)
_EPOCH = Refused(Refusal.EPOCH)
_HEAD = Refused(Refusal.HEAD)
_UNSEEN = Refused(Refusal.UNSEEN)
_DAMAGED_QUEUE = Refused(Refusal.GONE, "the queue of a task is damaged; see: replay check")


def is_news(t: Transition, seq: int, message: bytes) -> bool:
    """Whether a waiting message is one that a closing run has not seen. A wake is no news to a run that is awake."""
    return message[0] != WAKE and seq > t.seen and seq not in t.consumed


class Batch(Holding):
    """Creating, applying, sending. Call `finish` before the transaction's `commit`."""

    __slots__ = ()

    # --- creating --------------------------------------------------------------------------------------------------

    def create(self, new: NewRun, child: bool = False) -> Created:
        """Create a run, or answer the one that has its id, or, unless it is a child, the one that has its place."""
        found = self.find(new.workflow_id)
        if found is not None and (found.status.open or new.on_conflict != "restart_closed"):
            return Created(found, False)
        if not child and new.place is not None and new.status.open:
            there = self.places.taken(new.place)
            same = None if there is None else self.record(there)
            if same is not None:
                return Created(same, False)
            if not self.places.sound(new.place):
                raise records.damaged(self.places.lane(new.place.queue).key)
        generation = (new.generation or layout.FIRST_GENERATION) if found is None else found.generation + 1
        return Created(self._create(new, generation, dedup=not child), True)

    def _create(self, new: NewRun, generation: int, inherited: str = "", dedup: bool = False) -> RunRecord:
        put = self._put
        number = self._next(layout.NEXT_RUN_KEY)
        run = run_bytes(number)
        record = records.first_record(new, number, generation, inherited)
        self._put_record(record, run)
        status_key = layout.status_key(CODE_OF[record.status], record.active, run)
        put(status_key, seal(status_key, b""))
        id_key = layout.id_key(new.workflow_id, generation)
        put(id_key, seal(id_key, run))
        self._append(run, 0, new.events)
        if new.messages_above:
            self._raise(layout.NEXT_SEQ_KEY, new.messages_above)
        for deadline_us, key in new.timers:
            self._set_timer(run, deadline_us, key)
        for name, value in new.published.items():
            self._publish(run, name, value)
        if record.queued and new.place is not None:
            self.places.put(number, new.place, new.created_at_us, dedup)
        elif not new.owner and record.status.open:
            self._wake(run, new.created_at_us)
        return record

    def _append(self, run: bytes, head: int, events: Sequence[bytes]) -> None:
        put, prefix = self._put, HISTORY + run
        for index, event in enumerate(events, head):
            key = prefix + index.to_bytes(4, "big")
            put(key, event + crc32(event, crc32(key)).to_bytes(4, "little"))

    def _set_timer(self, run: bytes, deadline_us: int, key: str) -> None:
        by_deadline, of_run, full = layout.timer_keys(run, deadline_us, key)
        self._put(by_deadline, seal(by_deadline, full))
        self._put(of_run, seal(of_run, full))

    def _clear_timer(self, run: bytes, deadline_us: int, key: str) -> None:
        by_deadline, of_run, _ = layout.timer_keys(run, deadline_us, key)
        self._txn.delete(by_deadline)
        self._txn.delete(of_run)

    def _publish(self, run: bytes, name: str, value: bytes) -> None:
        text, full = layout.text_bytes(name)
        key = PUBLISHED + run + text
        self._put(key, seal(key, records.pack_published(full, value)))

    # --- applying --------------------------------------------------------------------------------------------------

    def apply(self, t: Transition) -> Verdict:
        """Apply a transition, or say why not."""
        try:
            run = t.run.to_bytes(5, "big")
            head = t.head
            index = head.to_bytes(4, "big")
        except OverflowError:
            return _GONE
        prefix = HISTORY + run
        event_key = prefix + index
        known = self._known
        plain = not (t.status or t.reason is not None or t.consumed or t.published) and not (
            t.timers_set or t.timers_cleared or t.messages or t.children or t.restored
        )
        plain = plain and not (t.tasks or t.tasks_dropped or t.tasks_withdrawn)
        if plain and known.get(t.run) == (t.epoch, head, t.active):
            self._put_events(t, event_key, prefix)
            return APPLIED
        get = self._get
        key = RUN + run
        value = get(key)
        if value is None:
            return _GONE
        if crc32(value, crc32(key)) != GOOD:
            return _DAMAGED
        status, active, _restore, deaths, epoch, *_ = unpack_header(value)
        if status >= CLOSED_FROM:
            return _CLOSED
        if epoch != t.epoch:
            return _EPOCH
        if get(event_key) is not None or (head and get(prefix + (head - 1).to_bytes(4, "big")) is None):
            return _HEAD
        if plain and t.active == active and not deaths:
            self._put_events(t, event_key, prefix)
            return APPLIED
        known.pop(t.run, None)
        return self._apply_rich(t, run, value)

    def _put_events(self, t: Transition, event_key: bytes, prefix: bytes) -> None:
        put, head = self._put, t.head
        for event in t.events:
            put(event_key, event + crc32(event, crc32(event_key)).to_bytes(4, "little"))
            head += 1
            event_key = prefix + head.to_bytes(4, "big")
        self._known[t.run] = (t.epoch, head, t.active)

    def _apply_rich(self, t: Transition, run: bytes, value: bytes) -> Verdict:
        """Apply a transition that does more than append. `value` is the run's record, found good."""
        flags = value[2]
        if flags & QUEUED:
            return _EPOCH  # nobody holds it yet
        closes = t.status is not None and not t.status.open
        waiting = self._inbox(run) if closes else []
        if waiting and any(is_news(t, seq, value) for seq, value in waiting):
            return _UNSEEN
        own = None
        if t.messages or t.continued or t.tasks:
            own = records.unpack_run_record(t.run, value[: -records.CHECKSUM_BYTES])
        planned: dict[str, RunRecord | NewRun] = {}
        for child in t.children:
            if not self._plan_child(child, planned):
                return Refused(Refusal.CHILD, child.workflow_id)
        for message in t.messages:
            if message.kind == "signal" and own is not None and not self._reachable(message, own, t, planned):
                return Refused(Refusal.TARGET, message.workflow_id)
        for step in t.tasks_withdrawn:
            if not self.tasks.waits(t.run, step):
                return Refused(Refusal.TASK, step)
        if t.tasks and not self.tasks.sound(t.tasks):
            return _DAMAGED_QUEUE

        self._append(run, t.head, t.events)
        for seq in t.consumed:
            self._take(run, seq)
        for deadline_us, key in t.timers_cleared:
            self._clear_timer(run, deadline_us, key)
        for deadline_us, key in t.timers_set:
            self._set_timer(run, deadline_us, key)
        for name, published in t.published.items():
            self._publish(run, name, published)
        self._update(t, run, value, closes)
        if t.tasks_withdrawn or t.tasks_dropped:
            self.tasks.drop(t.run, (*t.tasks_withdrawn, *t.tasks_dropped))
        if closes:
            self._clear(run, waiting)
            self.tasks.drop_all(t.run)
            if flags & PLACED and t.continued is None:
                self.places.leave(t.run)
        elif own is not None:
            for task in t.tasks:
                self.tasks.put(own, task)
        created = [
            found if isinstance(found, RunRecord) else self.create(found, child=True).record
            for found in planned.values()
        ]
        if t.continued is not None and own is not None:
            following = self._create(t.continued, own.generation + 1, own.queue)
            if own.queue:
                self.places.hand_over(t.run, following.number)
            created.append(following)
        sent = [number for number in map(self._forward, t.messages) if number]
        return Applied(tuple(created), tuple(dict.fromkeys(sent))) if created or sent else APPLIED

    def _update(self, t: Transition, run: bytes, value: bytes, closes: bool) -> None:
        """Rewrite the run's record if something in it changes, and its place in the status index."""
        key = RUN + run
        code, active, flags, _deaths, epoch, generation, created_at_us, closed_at_us = unpack_header(value)
        new_code = code if t.status is None else CODE_OF[t.status]
        new_active = 0 if closes else int(t.active)
        if closes:
            closed_at_us = STILL_OPEN if t.closed_at_us is None else t.closed_at_us
        tail = value[HEADER.size : -records.CHECKSUM_BYTES]
        if flags & PLACED and (closes or t.reason is not None):
            tail = self._tail_of_placed(t, value, closes)
            flags &= ~PLACED if closes else ~0
        elif t.reason is not None:
            tail = records.tail_with_reason(tail, t.reason)
        if t.restored:
            flags &= ~RESTORE
        head = HEADER.pack(new_code, new_active, flags, 0, epoch, generation, created_at_us, closed_at_us)
        body = head + tail
        if body != value[: -records.CHECKSUM_BYTES]:
            self._put(key, seal(key, body))
        if (new_code, new_active) != (code, active):
            self._txn.delete(layout.status_key(code, active, run))
            status_key = layout.status_key(new_code, bool(new_active), run)
            self._put(status_key, seal(status_key, b""))

    def _tail_of_placed(self, t: Transition, value: bytes, closes: bool) -> bytes:
        """The part behind the header of a run that has a place, which it loses when it closes."""
        record = records.unpack_run_record(t.run, value[: -records.CHECKSUM_BYTES])
        reason = record.reason if t.reason is None else t.reason
        return records.pack_tail(attrs.evolve(record, reason=reason, queue="" if closes else record.queue))

    def _inbox(self, run: bytes) -> list[tuple[int, bytes]]:
        """The messages that wait for a run, with their numbers."""
        prefix = INBOX + run
        return [
            (layout.number(key[len(prefix) :]), value) for key, value in self._txn.scan(prefix, layout.after(prefix))
        ]

    def _plan_child(self, child: NewRun, planned: dict[str, RunRecord | NewRun]) -> bool:
        """Note what is to be done for a child: adopt the run that is there, or create one."""
        if workflow_id_problem(child.workflow_id):
            return False
        try:
            found = planned.get(child.workflow_id) or self.find(child.workflow_id)
        except StoreDamaged:
            return False
        if found is not None and (not child.parent or found.parent != child.parent):
            restart = isinstance(found, RunRecord) and not found.status.open and child.on_conflict == "restart_closed"
            if not restart:
                return False
            found = None
        if found is None and child.place is not None and not self.places.sound(child.place):
            return False
        planned[child.workflow_id] = child if found is None else found
        return True

    def _reachable(
        self, message: Message, own: RunRecord, t: Transition, planned: dict[str, RunRecord | NewRun]
    ) -> bool:
        """Whether a signal would arrive, seen from after the transition, which may create its target or close it."""
        if message.dedup is not None and self._accepted(message) is not None:
            return True
        generation = message.generation
        if message.workflow_id == own.workflow_id and generation in (None, own.generation, own.generation + 1):
            if t.continued is not None:
                return generation != own.generation
            return generation != own.generation + 1 and (t.status is None or t.status.open)
        target = planned.get(message.workflow_id)
        if isinstance(target, NewRun) and generation is None:
            return True
        try:
            found = self.find(message.workflow_id, generation)
        except StoreDamaged:
            return False
        return found is not None and found.status.open

    # --- messages --------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> tuple[Sent, int]:
        """Put a message into an inbox, and say what became of it."""
        if message.dedup is not None:
            accepted_by = self._accepted(message)
            if accepted_by is not None:
                return Sent.DUPLICATE, accepted_by
        number: int | None = None
        try:
            number = self.find_number(message.workflow_id, message.generation)
            record = None if number is None else self.record(number)
        except StoreDamaged:
            record = None  # the sender cannot mend it and must not hold up the others of this transaction
        if message.task is not None and not self._ends(message.task, number, record):
            return Sent.CLOSED, number or 0
        if number is None or record is None:
            return Sent.NOT_FOUND, number or 0
        if not record.status.open:
            return Sent.CLOSED, number
        if record.queued and message.kind in ("cancel", "terminate"):
            self.places.leave(number)
            self._put_record(attrs.evolve(record, queue="", queued=False), run_bytes(number))
        run = run_bytes(number)
        body = records.pack_message(message.kind, message.name, message.payload, message.failed, self._at_us)
        self._deliver(run, body)
        if message.dedup is not None:
            key = layout.dedup_key(message.workflow_id, message.dedup)
            self._put(key, seal(key, run))
        return Sent.ACCEPTED, number

    def _ends(self, task: tuple[int, int], number: int | None, record: RunRecord | None) -> bool:
        """Whether the run waits for the outcome of this claim of a task, which ends it. So does the outcome of one that
        is cancelled. For a run whose record is damaged it stays."""
        row = self.tasks.wanted(*task)
        if row is None or not (row.cancelled or row.run == number):
            return False
        if row.cancelled or record is not None:
            self.tasks.end(task[0], row)
        return not row.cancelled

    def _forward(self, message: Message) -> int:
        """Send a message of a transition; the number of the run it went to, or 0."""
        sent, number = self.send(message)
        return number if sent is Sent.ACCEPTED else 0

    def _accepted(self, message: Message) -> int | None:
        """The run that accepted this very message before."""
        key = layout.dedup_key(message.workflow_id, message.dedup or "")
        value = self._get(key)
        return None if value is None else layout.number(value[: -records.CHECKSUM_BYTES])

    def _take(self, run: bytes, seq: int) -> None:
        """Remove a message. One that is not in this run's inbox is left alone: its news are another's."""
        if not 0 < seq <= layout.SEQ_MAX:
            return
        key = INBOX + run + seq_bytes(seq)
        if self._get(key) is not None:
            self._txn.delete(key)
            self._txn.delete(NEWS + seq_bytes(seq))

    def _clear(self, run: bytes, waited: list[tuple[int, bytes]]) -> None:
        """Remove what a closed run has no more use for: messages it has seen and timers nobody will wait for."""
        for seq, _ in waited:
            self._take(run, seq)
        prefix = layout.TIMERS_OF + run
        for key, _ in list(self._txn.scan(prefix, layout.after(prefix))):
            self._txn.delete(key)
            deadline, text = key[len(prefix) : len(prefix) + 8], key[len(prefix) + 8 :]
            self._txn.delete(layout.BY_DEADLINE + deadline + run + text)
