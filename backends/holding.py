"""Who has what: runs and their owners, leases, and which runs a queue lets begin."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from dalsegno.backends import layout, records
from dalsegno.backends.changes import Changes
from dalsegno.backends.layout import run_bytes
from dalsegno.backends.records import CODE_OF, seal, unseal
from dalsegno.core.queues import Queue
from dalsegno.core.store import Lease, RunRecord


class Holding(Changes):
    """The part of a write transaction that gives runs to engines, and takes them back."""

    __slots__ = ()

    # --- holding ---------------------------------------------------------------------------------------------------

    def claim(self, number: int, owner: str) -> RunRecord | None:
        """Give an open run to `owner`, unless another one has it whose lease is there. A run whose record is damaged is
        left where it is, like one that is gone."""
        record = self.intact_record(number)
        if record is None or not record.status.open or record.queued:
            return None
        another = record.owner not in ("", owner)
        if another and self._get(layout.lease_key(record.owner)) is not None:
            return None
        died = record.active and another
        claimed = attrs.evolve(record, epoch=record.epoch + 1, owner=owner, deaths=record.deaths + died)
        self._put_record(claimed, run_bytes(number))
        return claimed

    def release(self, number: int, owner: str) -> None:
        """Take a run from `owner`, if it is theirs."""
        record = self.intact_record(number)
        if record is not None and record.owner == owner and record.status.open:
            self._put_record(attrs.evolve(record, owner=""), run_bytes(number))

    # --- leases ----------------------------------------------------------------------------------------------------

    def lease(self, owner: str) -> Lease | None:
        """The lease of an owner. Raises `StoreDamaged`."""
        key = layout.lease_key(owner)
        value = self._get(key)
        return None if value is None else records.unpack_lease(unseal(key, value))

    def lend(self, owner: str, length_us: int, now_us: int) -> None:
        """Give an owner a lease, or his lease its next number."""
        key, number = layout.lease_key(owner), self._next(layout.NEXT_LEASE_KEY)
        lease = Lease(owner=owner, length_us=length_us, number=number, renewed_us=now_us)
        self._put(key, seal(key, records.pack_lease(lease)))

    def end_lease(self, owner: str) -> None:
        """Take an owner's lease from him, and the tasks he has."""
        self._txn.delete(layout.lease_key(owner))
        self.tasks.end_owner(owner)

    # --- queues ----------------------------------------------------------------------------------------------------

    def admit(self, queues: Sequence[str], limit: int, now_us: int) -> list[int]:
        """Let runs begin; answers their numbers."""
        admitted = self.places.admit(queues, limit, now_us)
        for number in admitted:
            run, record = run_bytes(number), self.record(number)
            assert record is not None  # the places asked for it
            self._put_record(attrs.evolve(record, queued=False, active=True), run)
            self._txn.delete(layout.status_key(CODE_OF[record.status], False, run))
            status_key = layout.status_key(CODE_OF[record.status], True, run)
            self._put(status_key, seal(status_key, b""))
            self._wake(run, now_us)
        return admitted

    def declare(self, queue: Queue) -> None:
        """Have limits hold for both queues of a name. Raises `StoreDamaged`."""
        for kept in (self.places, self.tasks):
            lane = kept.lane(queue.name)
            if not lane.intact:
                raise records.damaged(lane.key)
            lane.declare(queue)
