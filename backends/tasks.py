"""Tasks of steps and what is noted of them, within one transaction.

A task is one record under its number. The one that is wanted of a run's step is found through the run, those at work
through their owner; a cancelled one only through its owner, because its run has no more use for it.

Where a task's record is damaged, it is as if it were gone, for all but `check`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from dalsegno.backends import layout
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.queue_records import (
    OWNER_BYTES,
    STEPS,
    WORK,
    TaskRow,
    body_of,
    data,
    decode_task,
    encode,
    note_key,
    number_bytes,
    owned_prefix,
    step_key,
    task_key,
    text,
)
from dalsegno.backends.queueing import Lane, Waiting
from dalsegno.backends.records import CHECKSUM_BYTES, intact, pack_published, seal, unpack_published
from dalsegno.core.queues import NewTask, Task
from dalsegno.core.store import RunRecord

_WANTED, _CANCELLED = b"", b"c"


class Tasks:
    """All tasks, as one transaction sees and changes them."""

    __slots__ = ("_lanes", "_next", "_txn")

    def __init__(self, txn: KeyValueTransaction, next_number: Callable[[bytes], int]) -> None:
        self._txn = txn
        self._next = next_number
        self._lanes: dict[str, Lane] = {}

    def lane(self, queue: str) -> Lane:
        """The queue of steps of this name."""
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = Lane(self._txn, self, STEPS, queue)
        return lane

    def lanes(self) -> Iterable[Lane]:
        """Those that were looked at."""
        return self._lanes.values()

    # --- as a shelf ------------------------------------------------------------------------------------------------

    def fetch(self, number: int) -> TaskRow | None:
        if not 0 < number <= layout.SEQ_MAX:
            return None
        key = task_key(number)
        body = body_of(key, self._txn.get(key))
        return None if body is None else decode_task(body)

    def store(self, number: int, entry: Waiting) -> None:
        key = task_key(number)
        self._txn.put(key, seal(key, encode(entry)))

    # --- putting and dropping --------------------------------------------------------------------------------------

    def sound(self, tasks: Iterable[NewTask]) -> bool:
        """Whether these can be put: the queues they are for are not damaged."""
        return all(self.lane(task.queue).sound(data(task.key)) for task in tasks)

    def waits(self, run: int, step: str) -> bool:
        """Whether a run's step has a task that waits to be taken."""
        found = self._of_step(run, step)
        return found is not None and found[1].state != WORK

    def _of_step(self, run: int, step: str) -> tuple[int, TaskRow] | None:
        key = step_key(run, step)
        body = body_of(key, self._txn.get(key))
        if body is None:
            return None
        number = layout.number(body)
        row = self.fetch(number)
        return None if row is None else (number, row)

    def put(self, run: RunRecord, task: NewTask) -> None:
        """Put a task on its queue, unless the step has one."""
        key = step_key(run.number, task.step)
        if self._txn.get(key) is not None:
            return
        number = self._next(layout.NEXT_TASK_KEY)
        row = TaskRow(
            queue=task.queue,
            key=data(task.key),
            priority=task.priority,
            not_before_us=task.not_before_us,
            at_us=task.at_us,
            state=WORK,
            turn=0,
            run=run.number,
            workflow_id=run.workflow_id,
            generation=run.generation,
            step=data(task.step),
            name=data(task.name),
            attempt=task.attempt,
            payload=task.payload,
            timeout_us=task.timeout_us,
            once=task.once,
        )
        self._txn.put(key, seal(key, number_bytes(number)))
        self.lane(task.queue).put(number, row)

    def drop(self, run: int, steps: Iterable[str]) -> None:
        """The tasks of these steps are wanted no more; then others move up."""
        for step in dict.fromkeys(steps):
            found = self._of_step(run, step)
            if found is not None:
                self._drop(*found)
        self._move_up()

    def drop_all(self, run: int) -> None:
        """A run has closed: none of its tasks is wanted, nor what was noted."""
        prefix = layout.TASK_OF + layout.run_bytes(run)
        for number, row in [(number, row) for number, row in self._of_run(prefix) if row is not None]:
            self._drop(number, row)
        prefix = layout.NOTES + layout.run_bytes(run)
        for key in [key for key, _ in self._txn.scan(prefix, layout.after(prefix))]:
            self._txn.delete(key)
        self._move_up()

    def _of_run(self, prefix: bytes) -> Iterator[tuple[int, TaskRow | None]]:
        for key, value in self._txn.scan(prefix, layout.after(prefix)):
            if intact(key, value):
                number = layout.number(value[:-CHECKSUM_BYTES])
                yield number, self.fetch(number)

    def _drop(self, number: int, row: TaskRow) -> None:
        if row.state != WORK:
            self._remove(number, row)
            return
        row.cancelled = True
        self.store(number, row)
        self._txn.delete(step_key(row.run, text(row.step)))
        key = owned_prefix(text(row.owner)) + number_bytes(number)
        self._txn.put(key, seal(key, _CANCELLED))

    def _remove(self, number: int, row: TaskRow) -> None:
        """A task goes, wherever it stands."""
        self.lane(row.queue).remove(number, row)
        self._txn.delete(task_key(number))
        if not row.cancelled:
            self._txn.delete(step_key(row.run, text(row.step)))
        if row.state == WORK:
            self._txn.delete(owned_prefix(text(row.owner)) + number_bytes(number))

    def _move_up(self) -> None:
        for lane in list(self._lanes.values()):
            lane.move_up()

    # --- at work ---------------------------------------------------------------------------------------------------

    def take(
        self, queues: Iterable[str], owner: str, limit: int, now_us: int, names: Collection[bytes] | None
    ) -> list[Task]:
        """Give tasks to an owner."""
        prefix, taken = owned_prefix(owner), list[Task]()
        for queue in dict.fromkeys(queues):
            if len(taken) >= limit:
                break
            for number, row in self.lane(queue).take(limit - len(taken), now_us, names):
                assert isinstance(row, TaskRow)
                row.owner = data(owner)
                row.claim += 1
                self.store(number, row)
                key = prefix + number_bytes(number)
                self._txn.put(key, seal(key, _WANTED))
                taken.append(self._told(number, row))
        return taken

    def _told(self, number: int, row: TaskRow) -> Task:
        key, _ = note_key(row.run, text(row.step))
        body = None if row.cancelled else body_of(key, self._txn.get(key))
        return row.task(number, b"" if body is None else unpack_published(body)[1])

    def wanted(self, number: int, claim: int) -> TaskRow | None:
        """The task that an outcome of this claim ends, if it is there; it may be cancelled."""
        row = self.fetch(number)
        return row if row is not None and row.claim == claim and claim > 0 else None

    def end(self, number: int, row: TaskRow) -> None:
        """A task has its outcome; then another moves up."""
        self._remove(number, row)
        self.lane(row.queue).move_up()

    def give_back(self, tasks: Iterable[tuple[int, int]], owner: str) -> None:
        """Put tasks back where they were."""
        for number, claim in dict.fromkeys(tasks):
            row = self.fetch(number)
            if row is not None and row.state == WORK and row.owner == data(owner) and claim in (0, row.claim):
                self._put_back(number, row)
        self._move_up()

    def end_owner(self, owner: str) -> None:
        """An owner is gone: others may take what he had."""
        self._end_all(owned_prefix(owner), b"")

    def end_others(self, owner: str) -> None:
        """All owners but this one are gone."""
        self._end_all(layout.OWNED, owned_prefix(owner))

    def end_leaseless(self, owner: str) -> None:
        """All who have no lease are gone, but for this owner."""
        self._end(key for key, _ in self._had(layout.OWNED, owned_prefix(owner)) if not self._has_lease(key))

    def may_take(self, owner: str) -> bool:
        """Whether an owner has a lease, or nobody has one."""
        prefix = layout.LEASE
        return self._has_lease(owned_prefix(owner)) or not any(
            True for _ in self._txn.scan(prefix, layout.after(prefix))
        )

    def _has_lease(self, owned_key: bytes) -> bool:
        return self._txn.get(layout.LEASE + owned_key[1 : 1 + OWNER_BYTES]) is not None

    def others_have_some(self, owner: str) -> bool:
        """Whether anybody but this owner has a task at work."""
        return any(True for _ in self._had(layout.OWNED, owned_prefix(owner)))

    def _had(self, prefix: bytes, without: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._txn.scan(prefix, layout.after(prefix)):
            if not without or not key.startswith(without):
                yield key, value

    def _end_all(self, prefix: bytes, without: bytes) -> None:
        self._end(key for key, _ in self._had(prefix, without))

    def _end(self, keys: Iterable[bytes]) -> None:
        for key in list(keys):
            number = layout.number(key[-layout.SEQ_BYTES :])
            row = self.fetch(number)
            if row is not None and row.state == WORK:
                row.deaths += 1
                self._put_back(number, row)
        self._move_up()

    def _put_back(self, number: int, row: TaskRow) -> None:
        if row.cancelled:
            self._remove(number, row)
            return
        self._txn.delete(owned_prefix(text(row.owner)) + number_bytes(number))
        row.owner = b""
        self.lane(row.queue).back(number, row)

    # --- looking and noting ----------------------------------------------------------------------------------------

    def owned(self, owner: str) -> list[int]:
        """The tasks of an owner that are wanted."""
        prefix = owned_prefix(owner)
        return [
            layout.number(key[len(prefix) :])
            for key, value in self._txn.scan(prefix, layout.after(prefix))
            if intact(key, value) and value[:-CHECKSUM_BYTES] == _WANTED
        ]

    def tasks_of(self, run: int) -> list[Task]:
        """The tasks of a run that are wanted, by number."""
        if not 0 < run <= layout.RUN_MAX:
            return []
        found = self._of_run(layout.TASK_OF + layout.run_bytes(run))
        return [self._told(number, row) for number, row in sorted((n, row) for n, row in found if row is not None)]

    def beat(self, owner: str, details: Mapping[int, bytes]) -> None:
        """Note what tasks of an owner have told."""
        for number in self.owned(owner):
            row = self.fetch(number) if number in details else None
            if row is not None:
                self.note(row.run, {text(row.step): details[number]})

    def note(self, run: int, notes: Mapping[str, bytes]) -> None:
        """Keep something for steps of a run."""
        for step, note in notes.items():
            key, full = note_key(run, step)
            if note:
                self._txn.put(key, seal(key, pack_published(full, note)))
            else:
                self._txn.delete(key)

    def notes(self, run: int) -> dict[str, bytes]:
        """What is kept for the steps of a run; what is damaged is left out."""
        if not 0 < run <= layout.RUN_MAX:
            return {}
        prefix = layout.NOTES + layout.run_bytes(run)
        found: dict[str, bytes] = {}
        for key, value in self._txn.scan(prefix, layout.after(prefix)):
            body = body_of(key, value)
            if body is not None:
                full, note = unpack_published(body)
                found[layout.text_of(key[len(prefix) :], full)] = note
        return found
