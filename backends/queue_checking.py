"""Looking whether what stands under the keys of queues fits together: every index both ways, and the counts.

What cannot be told because a record is damaged is left alone here; the record is named under its own key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs

from dalsegno.backends import layout
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.layout import (
    ASIDE,
    BEHIND,
    LINE,
    NOTES,
    OWNED,
    PLACE,
    PLACE_DEDUP,
    QUEUE,
    QUEUE_KEY,
    RUN_BYTES,
    SEQ_BYTES,
    TASK,
    TASK_OF,
)
from dalsegno.backends.queue_records import ASIDE as STANDS_ASIDE
from dalsegno.backends.queue_records import BEHIND as STANDS_BEHIND
from dalsegno.backends.queue_records import (
    LANE_BYTES,
    RUNS,
    STEPS,
    WORK,
    Entry,
    KeyRow,
    PlaceRow,
    QueueRow,
    TaskRow,
    body_of,
    decode_key,
    decode_place,
    decode_queue,
    decode_task,
    digest,
    lane_bytes,
    number_bytes,
    owned_prefix,
    place_key,
    step_key,
    taken_key,
    task_key,
    text,
    waiting_key,
)
from dalsegno.backends.queue_records import LINE as STANDS_IN_LINE
from dalsegno.backends.transitions import Batch
from dalsegno.core.store import RunRecord

KINDS = (QUEUE, QUEUE_KEY, LINE, BEHIND, ASIDE, TASK, TASK_OF, OWNED, NOTES, PLACE, PLACE_DEDUP)
"""The kinds of keys that are looked at here."""

_COUNTS = {STANDS_IN_LINE: "line", STANDS_BEHIND: "behind", STANDS_ASIDE: "aside", WORK: "at_work"}


@attrs.define
class _Tally:
    """What is there, counted anew: for each queue and each of its keys."""

    lanes: dict[bytes, QueueRow] = attrs.field(factory=dict)
    keys: dict[bytes, KeyRow] = attrs.field(factory=dict)
    whole: bool = True

    def add(self, kind: bytes, entry: Entry) -> None:
        at = lane_bytes(kind, entry.queue)
        row = self.lanes.setdefault(at, QueueRow(entry.queue))
        setattr(row, _COUNTS[entry.state], getattr(row, _COUNTS[entry.state]) + 1)
        key = self.keys.setdefault(at + digest(entry.key), KeyRow())
        key.standing += entry.state in (STANDS_IN_LINE, WORK)
        key.behind += entry.state == STANDS_BEHIND
        key.aside += entry.state == STANDS_ASIDE


class QueueChecker:
    """Looks at the records of queues within one transaction. Each answer is what is wrong with the record of a key
    that carries its checksum, in words that follow its name."""

    def __init__(self, txn: KeyValueTransaction, batch: Batch) -> None:
        self._txn = txn
        self._batch = batch
        self._tally: _Tally | None = None

    def check(self, key: bytes, body: bytes) -> Iterator[str]:
        kind = key[:1]
        if kind == QUEUE:
            yield from self._check_queue(key, decode_queue(body))
        elif kind == QUEUE_KEY:
            yield from self._check_key(key, decode_key(body))
        elif kind in (LINE, BEHIND, ASIDE):
            yield from self._check_waiting(key)
        elif kind == TASK:
            yield from self._check_task(layout.number(key[1:]), decode_task(body))
        elif kind == PLACE:
            yield from self._check_place(layout.number(key[1:]), decode_place(body))
        elif kind == NOTES:
            if not self._open(layout.number(key[1 : 1 + RUN_BYTES])):
                yield "belongs to no run that is open"
        else:
            yield from self._check_index(key, body)

    # --- counts ----------------------------------------------------------------------------------------------------

    @property
    def tally(self) -> _Tally:
        if self._tally is None:
            self._tally = tally = _Tally()
            for prefix, kind in ((TASK, STEPS), (PLACE, RUNS)):
                for key, record in self._txn.scan(prefix, layout.after(prefix)):
                    body = body_of(key, record)
                    if body is None:
                        tally.whole = False
                    else:
                        tally.add(kind, decode_task(body) if kind == STEPS else decode_place(body))
        return self._tally

    def _check_queue(self, key: bytes, row: QueueRow) -> Iterator[str]:
        if key[1:] != lane_bytes(key[1:2], row.name):
            yield f"is that of another queue, {row.name!r}"
        there = self.tally.lanes.get(key[1:], QueueRow(row.name))
        for count in _COUNTS.values() if self.tally.whole else ():
            if getattr(row, count) != getattr(there, count):
                yield f"counts {getattr(row, count)} {count.replace('_', ' ')}, and {getattr(there, count)} are there"

    def _check_key(self, key: bytes, row: KeyRow) -> Iterator[str]:
        there = self.tally.keys.get(key[1:], KeyRow())
        mine, theirs = (row.standing, row.behind, row.aside), (there.standing, there.behind, there.aside)
        if self.tally.whole and mine != theirs:
            yield f"counts {mine} in line or at work, behind and aside, and {theirs} are there"
        if self.tally.whole and theirs == (0, 0, 0):
            yield "is that of a key of which nothing is there"

    # --- what waits, and where -------------------------------------------------------------------------------------

    def _entry(self, kind: bytes, number: int) -> Entry | Literal[False] | None:
        """The task or place of a number; False where it is damaged."""
        key = task_key(number) if kind == STEPS else place_key(number)
        record = self._txn.get(key)
        body = body_of(key, record)
        if body is None:
            return None if record is None else False
        return decode_task(body) if kind == STEPS else decode_place(body)

    def _check_waiting(self, key: bytes) -> Iterator[str]:
        lane, number = key[1 : 1 + LANE_BYTES], layout.number(key[-SEQ_BYTES:])
        entry = self._entry(lane[:1], number)
        if entry is False:
            return
        if entry is None or entry.state == WORK or waiting_key(lane_bytes(lane[:1], entry.queue), entry, number) != key:
            yield "leads to something that is not there or waits elsewhere"

    def _check_stands(self, kind: bytes, number: int, entry: Entry) -> Iterator[str]:
        """That an entry is found where it waits, and that its queue and key are known."""
        lane = lane_bytes(kind, entry.queue)
        if entry.state != WORK and self._txn.get(waiting_key(lane, entry, number)) is None:
            yield "is missing where it should wait"
        if self._txn.get(QUEUE + lane) is None:
            yield "waits in a queue that is not there"
        if self._txn.get(QUEUE_KEY + lane + digest(entry.key)) is None:
            yield "is of a key of its queue that is not there"

    def _check_task(self, number: int, row: TaskRow) -> Iterator[str]:
        yield from self._check_stands(STEPS, number, row)
        if row.state == WORK and self._txn.get(owned_prefix(text(row.owner)) + number_bytes(number)) is None:
            yield "is missing among the tasks of its owner"
        if row.cancelled:
            if row.state != WORK:
                yield "is cancelled and waits"
            return
        key = step_key(row.run, text(row.step))
        record = self._txn.get(key)
        if record is None or body_of(key, record) not in (None, number_bytes(number)):
            yield "is not found by its run and step"
        if not self._open(row.run):
            yield "belongs to no run that is open"

    def _check_place(self, run: int, row: PlaceRow) -> Iterator[str]:
        yield from self._check_stands(RUNS, run, row)
        record = self._record(run)
        if record is not None and (record.queue, record.queued) != (row.queue, row.state != WORK):
            yield "is not what the run's record says of it"
        if not self._open(run):
            yield "belongs to no run that is open"
        if row.dedup is not None and self._txn.get(taken_key(row.queue, row.dedup)) is None:
            yield "is not found by its deduplication key"

    def check_run(self, record: RunRecord) -> Iterator[str]:
        """What is wrong with the record of a run, as far as it tells of queues."""
        if record.queue and self._txn.get(place_key(record.number)) is None:
            yield f"has no place in the queue {record.queue!r}"

    def _check_index(self, key: bytes, body: bytes) -> Iterator[str]:
        kind = key[:1]
        if kind == PLACE_DEDUP:
            place = self._entry(RUNS, layout.number(body))
            dedup = place.dedup if isinstance(place, PlaceRow) else None
            queue = place.queue if isinstance(place, PlaceRow) else ""
            if place is not False and (dedup is None or key != taken_key(queue, dedup)):
                yield "leads to a run that has no such place"
            return
        number = layout.number(body if kind == TASK_OF else key[-SEQ_BYTES:])
        task = self._entry(STEPS, number)
        if task is False:
            return
        if kind == TASK_OF:
            if not isinstance(task, TaskRow) or task.cancelled or step_key(task.run, text(task.step)) != key:
                yield "leads to a task that is not there or is another"
        elif (
            not isinstance(task, TaskRow)
            or task.state != WORK
            or key != owned_prefix(text(task.owner)) + number_bytes(number)
            or bool(body) is not task.cancelled
        ):
            yield "leads to a task that is not there or somebody else's"

    def _record(self, run: int) -> RunRecord | None:
        return self._batch.intact_record(run)

    def _open(self, run: int) -> bool:
        """Whether a run is there and open, or cannot be read."""
        record = self._record(run)
        return self._txn.get(layout.RUN + layout.run_bytes(run)) is not None if record is None else record.status.open
