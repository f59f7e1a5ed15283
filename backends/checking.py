"""Reading a whole store, to find what does not carry its checksum and what does not fit together.

The store is read in pages of short transactions, since somebody may be writing to it all the while; whatever concerns
two records is looked at within one transaction, so that it is never a difference between two moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice

from dalsegno.backends import layout, records
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.layout import (
    BY_DEADLINE,
    BY_ID,
    BY_STATUS,
    DEDUP,
    HISTORY,
    INBOX,
    LEASE,
    META,
    NEWS,
    PUBLISHED,
    PURGING,
    RUN,
    RUN_BYTES,
    TIMERS_OF,
)
from dalsegno.backends.queue_checking import KINDS as QUEUE_KINDS
from dalsegno.backends.queue_checking import QueueChecker
from dalsegno.backends.transitions import Batch
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import Problem, RunRecord

Begin = Callable[[bool], AbstractContextManager[KeyValueTransaction]]

KEYS_A_PAGE = 5_000  # some ten milliseconds: short enough not to pin pages that a writer wants to use again
_BEYOND_ALL = b"\xff" * 8


def check_store(begin: Begin) -> list[Problem]:
    """Everything that is wrong with the records of a store."""
    problems: list[Problem] = []
    start = b"\0"
    while True:
        with begin(False) as txn:
            page = list(islice(txn.scan(start, _BEYOND_ALL), KEYS_A_PAGE))
            checker = _Checker(txn)
            for key, value in page:
                problems.extend(checker.check(key, value))
        if len(page) < KEYS_A_PAGE:
            return problems
        start = page[-1][0] + b"\0"


class _Checker:
    """Looks at records within one transaction."""

    def __init__(self, txn: KeyValueTransaction) -> None:
        self._txn = txn
        self._batch = Batch(txn)
        self._queues = QueueChecker(txn, self._batch)
        self._known: dict[bytes, bytes | None] = {}

    def check(self, key: bytes, value: bytes) -> Iterator[Problem]:
        if not records.intact(key, value):
            yield self._problem(key, "does not carry the checksum it was written with")
            return
        body = value[: -records.CHECKSUM_BYTES]
        kind = key[:1]
        if kind == RUN:
            yield from self._check_run(key, body)
        elif kind == HISTORY:
            yield from self._check_event(key)
        elif kind in (INBOX, PUBLISHED, TIMERS_OF):
            yield from self._check_part(key)
        elif kind in (BY_ID, BY_STATUS, BY_DEADLINE, NEWS):
            yield from self._check_index(key, body)
        elif kind in QUEUE_KINDS:
            for what in self._queues.check(key, body):
                yield self._problem(key, what)
        elif kind not in (META, DEDUP, PURGING, LEASE):
            yield self._problem(key, "is of no kind that this release writes")

    def _check_run(self, key: bytes, body: bytes) -> Iterator[Problem]:
        run = key[1:]
        record = records.unpack_run_record(layout.number(run), body)
        index = self._txn.get(layout.id_key(record.workflow_id, record.generation))
        if index is None or index[:RUN_BYTES] != run:
            yield self._problem(key, "is not found by its workflow id", record)
        status_key = layout.status_key(records.CODE_OF[record.status], record.active, run)
        if self._txn.get(status_key) is None:
            yield self._problem(key, "is missing among the runs of its status", record)
        if self._txn.get(HISTORY + run + layout.index_bytes(0)) is None:
            yield self._problem(key, "has no first event", record)
        for what in self._queues.check_run(record):
            yield self._problem(key, what, record)

    def _check_event(self, key: bytes) -> Iterator[Problem]:
        run, index = key[1 : 1 + RUN_BYTES], layout.number(key[1 + RUN_BYTES :])
        owner = self._owner(run)
        if owner is None:
            yield self._problem(key, "belongs to no run")
        elif owner == RUN and index and self._txn.get(HISTORY + run + layout.index_bytes(index - 1)) is None:
            yield self._problem(key, f"follows a gap: event {index - 1} is missing")

    def _check_part(self, key: bytes) -> Iterator[Problem]:
        run, rest = key[1 : 1 + RUN_BYTES], key[1 + RUN_BYTES :]
        if self._owner(run) is None:
            yield self._problem(key, "belongs to no run")
        elif key[:1] == INBOX and self._txn.get(NEWS + rest) is None:
            yield self._problem(key, "is not announced among the news")
        elif key[:1] == TIMERS_OF and self._txn.get(BY_DEADLINE + rest[:8] + run + rest[8:]) is None:
            yield self._problem(key, "is missing among the deadlines")

    def _check_index(self, key: bytes, body: bytes) -> Iterator[Problem]:
        kind = key[:1]
        if kind == NEWS and self._txn.get(INBOX + body + key[1:]) is None:
            yield self._problem(key, "announces a message that is not there")
        elif kind == BY_DEADLINE:
            deadline, run, text = key[1:9], key[9 : 9 + RUN_BYTES], key[9 + RUN_BYTES :]
            if self._txn.get(TIMERS_OF + run + deadline + text) is None:
                yield self._problem(key, "is the deadline of a timer that is not there")
        elif kind in (BY_ID, BY_STATUS):
            run = body if kind == BY_ID else key[3:]
            record = self._record(run)
            fits = record is None or (
                key == layout.id_key(record.workflow_id, record.generation)
                if kind == BY_ID
                else key == layout.status_key(records.CODE_OF[record.status], record.active, run)
            )
            if not fits or self._txn.get(RUN + run) is None:
                yield self._problem(key, "leads to a run that is not there or is another")

    def _owner(self, run: bytes) -> bytes | None:
        """`RUN` if a run is there, `PURGING` if it is about to go, else None."""
        if run not in self._known:
            kinds = (kind for kind in (RUN, PURGING) if self._txn.get(kind + run) is not None)
            self._known[run] = next(kinds, None)
        return self._known[run]

    def _record(self, run: bytes) -> RunRecord | None:
        try:
            return self._batch.record(layout.number(run))
        except StoreDamaged:
            return None  # reported under its own key

    def _problem(self, key: bytes, what: str, record: RunRecord | None = None) -> Problem:
        words, number, event = layout.describe(key)
        if record is None and number is not None:
            record = self._record(layout.run_bytes(number))
        name = record.run_id if record is not None else "" if number is None else str(number)
        return Problem(key=words, run=name, event=event, what=what)
