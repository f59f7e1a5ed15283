"""What a write transaction begins with, whatever it does: counters, looking runs up, writing a run's record and putting
messages into inboxes, tasks and places.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dalsegno.backends import layout, records
from dalsegno.backends.heads import Known
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.layout import INBOX, NEWS, RUN, run_bytes, seq_bytes
from dalsegno.backends.places import Places
from dalsegno.backends.queueing import Lane
from dalsegno.backends.records import seal, unseal
from dalsegno.backends.tasks import Tasks
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import RunRecord
from dalsegno.core.text import workflow_id_problem


class Changes:
    """The changes of one write transaction. Call `finish` before the transaction's `commit`.

    `at_us` is the time that messages carry.
    """

    __slots__ = ("_at_us", "_counters", "_get", "_known", "_places", "_put", "_tasks", "_txn")

    def __init__(self, txn: KeyValueTransaction, at_us: int = 0, known: Known | None = None) -> None:
        self._txn = txn
        self._at_us = at_us
        self._get = txn.get
        self._put = txn.put
        self._counters: dict[bytes, int] = {}
        self._known: Known = {} if known is None else known
        self._tasks: Tasks | None = None
        self._places: Places | None = None

    @property
    def tasks(self) -> Tasks:
        """The tasks of this transaction."""
        if self._tasks is None:
            self._tasks = Tasks(self._txn, self._next)
        return self._tasks

    @property
    def places(self) -> Places:
        """The places of runs of this transaction."""
        if self._places is None:
            self._places = Places(self._txn, self._may_begin)
        return self._places

    def _may_begin(self, run: int) -> bool:
        record = self.intact_record(run)
        return record is not None and record.queued

    def finish(self) -> None:
        """Write the counters that moved, and how queues stand."""
        if self._tasks is not None:
            self._finish_lanes(self._tasks.lanes())
        if self._places is not None:
            self._finish_lanes(self._places.lanes())
        for key, value in self._counters.items():
            self._put(key, seal(key, value.to_bytes(8, "big")))

    def _finish_lanes(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            lane.finish()
            if lane.new:
                self.use_queues()

    def use_queues(self) -> None:
        """Something of queues is written: releases that know nothing of them have to leave this store alone."""
        key = layout.FORMAT_KEY
        found = self._get(key)
        number, made_with = msgspec.msgpack.decode(unseal(key, found)) if found is not None else (0, "")
        if number < layout.FORMAT:
            self._put(key, seal(key, msgspec.msgpack.encode([layout.FORMAT, made_with])))

    def _next(self, key: bytes) -> int:
        """The next number of a counter. Numbers are never given twice, also not after their holder is deleted."""
        value = self._counters.get(key)
        if value is None:
            record = self._get(key)
            value = 0 if record is None else layout.number(unseal(key, record))
        self._counters[key] = value + 1
        return value + 1

    def _raise(self, key: bytes, least: int) -> None:
        """Have a counter go on from `least`, if it is not beyond that."""
        self._counters[key] = max(least, self._next(key) - 1)

    # --- looking ---------------------------------------------------------------------------------------------------

    def record(self, run: int) -> RunRecord | None:
        """The record of a run. Raises `StoreDamaged`."""
        if not 0 < run <= layout.RUN_MAX:
            return None
        key = RUN + run_bytes(run)
        value = self._get(key)
        return None if value is None else records.unpack_run_record(run, unseal(key, value))

    def intact_record(self, run: int) -> RunRecord | None:
        """The same, or None where it is damaged."""
        try:
            return self.record(run)
        except StoreDamaged:
            return None

    def find(self, workflow_id: str, generation: int | None = None) -> RunRecord | None:
        """The newest run of an id, or that generation of it. Raises `StoreDamaged`."""
        run = self.find_number(workflow_id, generation)
        if run is None:
            return None
        found = self.record(run)
        if found is None:
            raise records.damaged(layout.id_prefix(workflow_id), f"names run {run}, which has no record")
        return found

    def find_number(self, workflow_id: str, generation: int | None = None) -> int | None:
        """The number of a run by its id. Raises `StoreDamaged` if the index is."""
        if workflow_id_problem(workflow_id):
            return None
        prefix = layout.id_prefix(workflow_id)
        if generation is None:
            for key, value in self._txn.scan(prefix, layout.after(prefix), reverse=True):
                return layout.number(unseal(key, value))
            return None
        if not 0 <= generation <= layout.INDEX_MAX:
            return None
        key = prefix + layout.index_bytes(generation)
        found = self._get(key)
        return None if found is None else layout.number(unseal(key, found))

    # --- writing ---------------------------------------------------------------------------------------------------

    def _wake(self, run: bytes, at_us: int) -> None:
        self._deliver(run, records.pack_message("wake", "", b"", False, at_us))

    def _put_record(self, record: RunRecord, run: bytes) -> None:
        key = RUN + run
        self._put(key, seal(key, records.pack_run_record(record)))

    def _deliver(self, run: bytes, body: bytes) -> None:
        seq = seq_bytes(self._next(layout.NEXT_SEQ_KEY))
        key = INBOX + run + seq
        self._put(key, seal(key, body))
        key = NEWS + seq
        self._put(key, seal(key, run))
