"""Deleting closed runs, in bounded and resumable commits.

First the run's record and its entries in the indexes go, all in one commit, and a mark is left: from there on the run
is not there for anybody. Then its history and the rest are deleted in key order, so many keys a commit, and the mark
last. A purge that was interrupted leaves marks, and the next one sweeps them up.

Key order matters on a store that is nearly full: deleting needs fresh pages too, one for each page it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import islice

from dalsegno.backends import layout
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.layout import PURGING, RUN, run_bytes
from dalsegno.backends.records import CODE_OF, seal
from dalsegno.backends.transitions import Batch
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import RunRecord

Begin = Callable[[bool], AbstractContextManager[KeyValueTransaction]]

RUNS_A_COMMIT = 500
KEYS_A_COMMIT = 20_000  # about a tenth of a second on a slow disk, and far below LMDB's limit of dirty pages


def purge(begin: Begin, runs: Sequence[int]) -> int:
    """Delete those of `runs` that are closed; answers how many were."""
    purged = 0
    for start in range(0, len(runs), RUNS_A_COMMIT):
        with begin(True) as txn:
            purged += _hide(txn, sorted(set(runs[start : start + RUNS_A_COMMIT])))
            _sweep(txn, KEYS_A_COMMIT)
            txn.commit()
    while _marked(begin):
        with begin(True) as txn:
            _sweep(txn, KEYS_A_COMMIT)
            txn.commit()
    return purged


def _marked(begin: Begin) -> bool:
    with begin(False) as txn:
        return any(True for _ in txn.scan(PURGING, layout.after(PURGING)))


def _hide(txn: KeyValueTransaction, runs: Iterable[int]) -> int:
    """Take runs out of everything they can be found by, and leave a mark for each."""
    batch = Batch(txn)
    keys: list[bytes] = []
    marks: list[bytes] = []
    for number in runs:
        try:
            record = batch.record(number)
        except StoreDamaged:
            continue  # whether it is closed can no longer be read, so that it is kept for whoever mends it
        if record is not None and not record.status.open:
            keys += _entries(txn, record)
            marks.append(PURGING + run_bytes(number))
    for key in sorted(keys):
        txn.delete(key)
    for key in marks:
        txn.put(key, seal(key, b""))
    return len(marks)


def _entries(txn: KeyValueTransaction, record: RunRecord) -> list[bytes]:
    """The record and index entries of a run, and the deduplication keys it accepted."""
    run = run_bytes(record.number)
    prefix = layout.dedup_prefix(record.workflow_id)
    dedup = [key for key, value in txn.scan(prefix, layout.after(prefix)) if value[: layout.RUN_BYTES] == run]
    status = layout.status_key(CODE_OF[record.status], record.active, run)
    place = layout.PLACE + run  # a closed run has none left; a damaged store may
    return [RUN + run, layout.id_key(record.workflow_id, record.generation), status, place, *dedup]


def _sweep(txn: KeyValueTransaction, budget: int) -> None:
    """Delete up to `budget` keys of marked runs, and the marks of those that have none left."""
    marks = [key for key, _ in islice(txn.scan(PURGING, layout.after(PURGING)), RUNS_A_COMMIT)]
    for prefix in layout.RANGES_OF_RUN:
        for mark in marks:
            start = prefix + mark[1:]
            keys = [key for key, _ in islice(txn.scan(start, layout.after(start)), budget)]
            for key in keys:
                txn.delete(key)
                _delete_twin(txn, prefix, key)
            budget -= len(keys)
            if budget <= 0:
                return
    for mark in marks:
        txn.delete(mark)


def _delete_twin(txn: KeyValueTransaction, prefix: bytes, key: bytes) -> None:
    """Messages and timers stand under two keys. A closed run has none left; a damaged store may."""
    end = 1 + layout.RUN_BYTES
    if prefix == layout.INBOX:
        txn.delete(layout.NEWS + key[end:])
    elif prefix == layout.TIMERS_OF:
        txn.delete(layout.BY_DEADLINE + key[end : end + 8] + key[1:end] + key[end + 8 :])
