"""The part of the store port that is about queues, over an ordered key-value store.

Every method is one transaction. What nobody can take is found out in one that only reads, so that workers who ask in
vain do not stand in the way of those who write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import ClassVar

from dalsegno.backends import layout
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.queue_records import KIND_OF, STEPS, QueueRow, data, decode_queue
from dalsegno.backends.records import CHECKSUM_BYTES, intact
from dalsegno.backends.transactional import Transactional
from dalsegno.backends.transitions import Batch
from dalsegno.core.queues import Queue, QueueState, Task


class QueueCalls(Transactional):
    """A store on ordered keys that keeps tasks and places."""

    has_queues: ClassVar[bool] = True

    def end_others(self, owner: str) -> None:
        """Whoever else had tasks is gone, because `owner` has the store for himself. For `hold` to call."""
        with self.begin(False) as txn:
            some = Batch(txn).tasks.others_have_some(owner)
        if some:
            with self.begin(True) as txn:
                batch = Batch(txn)
                batch.tasks.end_others(owner)
                self._commit(txn, batch)

    def declare(self, queues: Sequence[Queue]) -> None:
        with self.begin(False) as txn:
            known = {row.name: row.limits for kind, row in _rows(txn) if kind == STEPS and row.declared}
        if all(known.get(queue.name) == queue for queue in queues):
            return
        with self.begin_growing(False) as txn:
            batch = Batch(txn)
            for queue in queues:
                batch.declare(queue)
            self._commit(txn, batch)

    def take(
        self, queues: Sequence[str], owner: str, limit: int, now_us: int, steps: Collection[str] | None = None
    ) -> list[Task]:
        names = None if steps is None else frozenset(map(data, steps))
        with self.begin(False) as txn:
            tasks = Batch(txn).tasks
            hopeful = limit > 0 and any(tasks.lane(queue).may_go(now_us, names) for queue in queues)
        if not hopeful:
            return []
        with self.begin(True) as txn:
            batch = Batch(txn)
            taken = batch.tasks.take(queues, owner, limit, now_us, names) if batch.tasks.may_take(owner) else []
            if taken:
                self._commit(txn, batch)
        return taken

    def give_back(self, tasks: Sequence[tuple[int, int]], owner: str) -> None:
        if tasks:
            with self.begin(True) as txn:
                batch = Batch(txn)
                batch.tasks.give_back(tasks, owner)
                self._commit(txn, batch)

    def beat(self, owner: str, details: Mapping[int, bytes]) -> list[int]:
        with self.begin(False) as txn:
            owned = Batch(txn).tasks.owned(owner)
        if not details.keys() & set(owned):
            return owned
        with self.begin_growing(False) as txn:
            batch = Batch(txn)
            batch.tasks.beat(owner, details)
            owned = batch.tasks.owned(owner)
            self._commit(txn, batch)
        return owned

    def tasks_of(self, run: int) -> list[Task]:
        with self.begin(False) as txn:
            return Batch(txn).tasks.tasks_of(run)

    def admit(self, queues: Sequence[str], limit: int, now_us: int) -> list[int]:
        with self.begin(False) as txn:
            places = Batch(txn).places
            hopeful = limit > 0 and any(places.lane(queue).may_go(now_us, None) for queue in queues)
        if not hopeful:
            return []
        with self.begin(True) as txn:
            batch = Batch(txn)
            admitted = batch.admit(queues, limit, now_us)
            if admitted:
                self._commit(txn, batch)
        return admitted

    def note(self, run: int, epoch: int, notes: Mapping[str, bytes]) -> bool:
        with self.begin_growing(False) as txn:
            batch = Batch(txn)
            record = batch.intact_record(run)
            if record is None or not record.status.open or record.epoch != epoch:
                return False
            if notes:
                batch.tasks.note(run, notes)
                batch.use_queues()
                self._commit(txn, batch)
        return True

    def notes(self, run: int) -> dict[str, bytes]:
        with self.begin(False) as txn:
            return Batch(txn).tasks.notes(run)

    def queues(self, *, ages: bool = True) -> list[QueueState]:
        with self.begin(False) as txn:
            batch = Batch(txn)
            states = [
                QueueState(
                    kind=KIND_OF[kind],
                    limits=row.limits,
                    waiting=row.waiting,
                    at_work=row.at_work,
                    oldest_us=lane.oldest_us() if ages else None,
                    next_us=lane.next_us(),
                )
                for kind, row in _rows(txn)
                if row.declared or row.waiting or row.at_work
                for lane in ((batch.tasks if kind == STEPS else batch.places).lane(row.name),)
            ]
        return sorted(states, key=attrgetter("name", "kind"))

    def count_queues(self, txn: KeyValueTransaction) -> dict[str, int]:
        """`tasks` and `queues`, for `stats`."""
        rows = [(kind, row) for kind, row in _rows(txn) if row.declared or row.waiting or row.at_work]
        return {"queues": len(rows), "tasks": sum(row.waiting + row.at_work for kind, row in rows if kind == STEPS)}

    def _commit(self, txn: KeyValueTransaction, batch: Batch) -> None:
        """Commit what changes no run that anybody has at work, so that what is known of those stays known."""
        heads = self.heads
        serial = 0 if heads is None else self.serial(txn)
        if heads is not None:
            heads.before(serial)
        batch.finish()
        txn.commit()
        if heads is not None:
            heads.kept(serial)


def _rows(txn: KeyValueTransaction) -> Iterator[tuple[bytes, QueueRow]]:
    """All queues that were ever written to, with their kinds, without those that are damaged."""
    for key, value in txn.scan(layout.QUEUE, layout.after(layout.QUEUE)):
        if intact(key, value):
            yield key[1:2], decode_queue(value[:-CHECKSUM_BYTES])
