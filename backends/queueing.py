"""The order and the limits of one queue, within one transaction: who waits where, who goes next, who moves up.

A `Lane` knows nothing of tasks and runs but what all that waits has in common (`Entry`). What it changes in an entry,
its `Shelf` writes; the counts of the queue and of its keys are written when the transaction is done (`finish`).

The counts are what makes taking cheap: whether there is room is read from one record, and the line has only those that
may go. What stands there follows `dalsegno.core.queues`, which tells the order and the reasons.

Where a queue's record is damaged, nothing is put there or taken any more, and what ends leaves the record as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Protocol, TypeAlias

from dalsegno.backends import layout
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.queue_records import (
    ASIDE,
    BEHIND,
    LINE,
    WORK,
    KeyRow,
    PlaceRow,
    QueueRow,
    TaskRow,
    body_of,
    decode_key,
    decode_queue,
    digest,
    encode,
    lane_bytes,
    waiting_body,
    waiting_key,
)
from dalsegno.backends.records import CHECKSUM_BYTES, intact, seal
from dalsegno.core.queues import LOOK_THROUGH, Queue

Waiting: TypeAlias = TaskRow | PlaceRow


class Shelf(Protocol):
    """Where the entries of a lane are kept."""

    def fetch(self, number: int) -> Waiting | None:
        """An entry that may go on; None where it is gone or damaged."""

    def store(self, number: int, entry: Waiting) -> None:
        """Write an entry."""


class Lane:
    """One queue."""

    __slots__ = ("_digests", "_freed", "_keys", "_read", "_shelf", "_txn", "_written", "at", "intact", "key", "row")

    def __init__(self, txn: KeyValueTransaction, shelf: Shelf, kind: bytes, name: str) -> None:
        self._txn = txn
        self._shelf = shelf
        self.at = lane_bytes(kind, name)
        self.key = layout.QUEUE + self.at
        record = txn.get(self.key)
        self._written = body_of(self.key, record)
        self.intact = record is None or self._written is not None
        self.row = QueueRow(name) if self._written is None else decode_queue(self._written)
        self._keys: dict[bytes, KeyRow] = {}
        self._read: dict[bytes, bytes | None] = {}  # how the keys were found; b"" where one is damaged
        self._digests: dict[bytes, bytes] = {}
        self._freed: dict[bytes, None] = {}

    @property
    def new(self) -> bool:
        """Whether this queue was not known before."""
        return self._written is None

    def sound(self, key: bytes) -> bool:
        """Whether something of a key can be put here: neither the queue's record nor the key's is damaged."""
        self._key(self._digest(key))
        return self.intact and self._read[self._digest(key)] != b""

    def finish(self) -> None:
        """Write the counts that moved."""
        put = self._txn.put
        body = encode(self.row)
        if self.intact and body != self._written:
            put(self.key, seal(self.key, body))
        for key_digest, row in self._keys.items():
            found = self._read[key_digest]
            key = layout.QUEUE_KEY + self.at + key_digest
            if found == b"":
                continue
            if not (row.standing or row.behind or row.aside):
                if found is not None:
                    self._txn.delete(key)
            elif (body := encode(row)) != found:
                put(key, seal(key, body))

    def _digest(self, key: bytes) -> bytes:
        known = self._digests.get(key)
        if known is None:
            known = self._digests[key] = digest(key)
        return known

    def _key(self, key_digest: bytes) -> KeyRow:
        row = self._keys.get(key_digest)
        if row is None:
            key = layout.QUEUE_KEY + self.at + key_digest
            record = self._txn.get(key)
            body = body_of(key, record)
            self._read[key_digest] = b"" if record is not None and body is None else body
            row = self._keys[key_digest] = KeyRow() if body is None else decode_key(body)
        return row

    # --- coming ----------------------------------------------------------------------------------------------------

    def put(self, number: int, entry: Waiting) -> None:
        """Something new comes, now or at its time."""
        if entry.not_before_us > 0:
            entry.state = ASIDE
            self.row.aside += 1
            self._key(self._digest(entry.key)).aside += 1
            self._stand(number, entry)
        else:
            self._line_up(number, entry)

    def _line_up(self, number: int, entry: Waiting) -> None:
        """Enter the line with the next turn of its key, or stand behind the key."""
        row, key = self.row, self._key(self._digest(entry.key))
        if row.per_key is not None and key.standing >= row.per_key:
            entry.state = BEHIND
            row.behind += 1
            key.behind += 1
        else:
            entry.state = LINE
            entry.turn = key.turn = max(row.turn, key.turn) + 1
            row.line += 1
            key.standing += 1
        self._stand(number, entry)

    def _stand(self, number: int, entry: Waiting) -> None:
        where = waiting_key(self.at, entry, number)
        self._txn.put(where, seal(where, waiting_body(entry)))
        self._shelf.store(number, entry)

    def back(self, number: int, entry: Waiting) -> None:
        """Somebody gives it back: it stands in line where it stood."""
        self.row.at_work -= 1
        self.row.line += 1
        entry.state = LINE
        self._stand(number, entry)

    # --- going -----------------------------------------------------------------------------------------------------

    def remove(self, number: int, entry: Waiting) -> None:
        """It goes, wherever it stands. What may move up then does so by `move_up`."""
        row, key_digest = self.row, self._digest(entry.key)
        key = self._key(key_digest)
        if entry.state == WORK:
            row.at_work -= 1
        else:
            self._txn.delete(waiting_key(self.at, entry, number))
        if entry.state == BEHIND:
            row.behind -= 1
            key.behind -= 1
        elif entry.state == ASIDE:
            row.aside -= 1
            key.aside -= 1
        else:
            row.line -= entry.state == LINE
            key.standing -= 1
            self._freed[key_digest] = None
        if not (key.standing or key.behind or key.aside):
            key.turn = 0  # it is forgotten, though perhaps something of it comes in the same transaction

    def move_up(self) -> None:
        """The first of those behind their keys enter the line, as far as the limit of a key allows now."""
        freed, self._freed = self._freed, {}
        for key_digest in freed:
            key = self._key(key_digest)
            most = key.behind if self.row.per_key is None else min(key.behind, self.row.per_key - key.standing)
            if most <= 0:
                continue
            prefix = layout.BEHIND + self.at + key_digest
            found: list[tuple[bytes, int, Waiting]] = []
            for where, _ in self._txn.scan(prefix, layout.after(prefix)):
                number = layout.number(where[-layout.SEQ_BYTES :])
                entry = self._shelf.fetch(number)
                if entry is not None:
                    found.append((where, number, entry))
                    if len(found) == most:
                        break
            for where, number, entry in found:
                self._txn.delete(where)
                self.row.behind -= 1
                key.behind -= 1
                self._line_up(number, entry)

    def declare(self, limits: Queue) -> None:
        """These limits hold from now on."""
        row, rate = self.row, limits.rate
        count, per = (0, 0.0) if rate is None else (rate.count, float(rate.per))
        if (count, per) != (row.rate_count, row.rate_per):
            row.rate_count, row.rate_per, row.fill = count, per, None
        row.declared, row.concurrency = True, limits.concurrency
        if row.per_key != limits.per_key:
            row.per_key = limits.per_key
            self._freed.update(self._keys_behind())
            self.move_up()

    def _keys_behind(self) -> dict[bytes, None]:
        """All keys behind which something stands."""
        prefix = layout.BEHIND + self.at
        found: dict[bytes, None] = {}
        start, stop = prefix, layout.after(prefix)
        while True:
            first = next(iter(self._txn.scan(start, stop)), None)
            if first is None:
                return found
            key_digest = first[0][len(prefix) : len(prefix) + 16]
            found[key_digest] = None
            start = layout.after(prefix + key_digest)

    # --- taking ----------------------------------------------------------------------------------------------------

    def _now(self, now_us: int) -> int:
        return now_us if self.row.clock is None else max(now_us, self.row.clock)

    def _room(self, now_us: int, limit: int) -> int:
        """How many may go at a time, as far as the limits of the queue tell."""
        row = self.row
        if row.concurrency is not None:
            limit = min(limit, row.concurrency - row.at_work)
        if row.rate_count:
            limit = min(limit, row.filled(now_us) // row.token)
        return limit if self.intact else 0

    def _due(self, now_us: int) -> Iterable[tuple[bytes, bytes]]:
        prefix = layout.ASIDE + self.at
        found = self._txn.scan(prefix, prefix + layout.deadline_bytes(now_us + 1))
        return islice(found, LOOK_THROUGH)

    def next_us(self) -> int | None:
        """When time alone may let another one go; None where something else has to happen first."""
        row = self.row
        if not row.line + row.aside or (row.concurrency is not None and row.at_work >= row.concurrency):
            return None
        token_us = row.token_us if row.rate_count else None
        if row.line:
            return token_us
        prefix = layout.ASIDE + self.at
        first = next(iter(self._txn.scan(prefix, layout.after(prefix))), None)
        if first is None:
            return token_us
        due_us = layout.deadline_of(first[0][len(prefix) : len(prefix) + 8])
        return due_us if token_us is None else max(due_us, token_us)

    def may_go(self, now_us: int, names: Collection[bytes] | None) -> bool:
        """Whether it is worth to `take`: something waits, or has waited, that the limits let go."""
        now_us = self._now(now_us)
        if self._room(now_us, 1) <= 0:
            return False
        prefix = layout.LINE + self.at
        waiting = islice(self._txn.scan(prefix, layout.after(prefix)), LOOK_THROUGH + 1)
        return any(_named(body, names) for _, body in waiting) or any(
            _named(body, names) for _, body in self._due(now_us)
        )

    def take(self, limit: int, now_us: int, names: Collection[bytes] | None) -> list[tuple[int, Waiting]]:
        """At most `limit` that may go are at work from now on, with these names only; whoever asks writes them. Where
        none may go all stays as it was."""
        now_us = self._now(now_us)
        limit = self._room(now_us, limit)
        if limit <= 0:
            return []
        row, keys = copy.copy(self.row), {key: copy.copy(one) for key, one in self._keys.items()}
        due = self._let_in(now_us)
        chosen = self._choose(limit, names)
        if not chosen:
            for number, entry in due:
                self._txn.delete(waiting_key(self.at, entry, number))
                entry.state, entry.turn = ASIDE, 0
                self._stand(number, entry)
            self.row = row
            self._keys = keys
            return []
        row = self.row
        for number, entry in chosen:
            self._txn.delete(waiting_key(self.at, entry, number))
            entry.state, row.turn = WORK, entry.turn
        row.line -= len(chosen)
        row.at_work += len(chosen)
        if row.rate_count:
            row.fill = row.filled(now_us) - len(chosen) * row.token
        row.clock = now_us
        return chosen

    def _let_in(self, now_us: int) -> list[tuple[int, Waiting]]:
        """What stood aside and is due enters the line."""
        found = []
        for where, _ in list(self._due(now_us)):
            number = layout.number(where[-layout.SEQ_BYTES :])
            entry = self._shelf.fetch(number)
            if entry is not None:
                self._txn.delete(where)
                self.row.aside -= 1
                self._key(self._digest(entry.key)).aside -= 1
                self._line_up(number, entry)
                found.append((number, entry))
        return found

    def _choose(self, limit: int, names: Collection[bytes] | None) -> list[tuple[int, Waiting]]:
        prefix = layout.LINE + self.at
        chosen: list[tuple[int, Waiting]] = []
        passed = 0
        for where, body in self._txn.scan(prefix, layout.after(prefix)):
            if not _named(body, names):
                passed += 1
                if passed >= LOOK_THROUGH:
                    break
                continue
            number = layout.number(where[-layout.SEQ_BYTES :])
            entry = self._shelf.fetch(number) if intact(where, body) else None
            if entry is not None:
                chosen.append((number, entry))
                if len(chosen) == limit:
                    break
        return chosen

    def oldest_us(self) -> int | None:
        """When the oldest of those that wait was put there. Reads them all."""
        oldest = min(
            (
                body[:8]
                for kind in (layout.LINE, layout.BEHIND, layout.ASIDE)
                for where, body in self._txn.scan(kind + self.at, layout.after(kind + self.at))
                if intact(where, body)
            ),
            default=None,
        )
        return None if oldest is None else layout.deadline_of(oldest)


def _named(body: bytes, names: Collection[bytes] | None) -> bool:
    return names is None or body[8:-CHECKSUM_BYTES] in names
