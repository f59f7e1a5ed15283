"""The whole store port over an ordered key-value store.

Subclass `OrderedStore` and give it transactions with five methods (`dalsegno.backends.keyvalue`): LMDB and memory are
written so, and share this layout down to the last byte, so that what the simulator exercises is what users run on.

Every method is one transaction, except `purge` and `check`, which take several short ones, so that neither a run with
a million events nor a store with a million runs holds the writer up or pins old pages.

Damage stays where it is. A method that is asked for a damaged record raises `StoreDamaged`; one that lists many leaves
it out, as if the run were gone, and `check` names it. A transition or message for a damaged run is refused by itself
(`Refusal.GONE`, and `Sent.NOT_FOUND` with the run's number), so that others in the same flush are not held up.
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from zlib import crc32

import msgspec

from dalsegno.backends import layout, purging, records
from dalsegno.backends.checking import check_store
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.layout import RUN, run_bytes
from dalsegno.backends.queue_calls import QueueCalls
from dalsegno.backends.records import GOOD, intact, seal, unseal
from dalsegno.backends.transitions import Batch
from dalsegno.core.errors import StoreDamaged, StoreUnusable
from dalsegno.core.store import (
    Created,
    DueTimer,
    Message,
    NewRun,
    Problem,
    RunRecord,
    Sent,
    Status,
    StoredMessage,
    Transition,
    Verdict,
)
from dalsegno.core.text import check_workflow_id


class OrderedStore(QueueCalls):
    """A store on an ordered key-value store.

    A subclass gives `begin`, `sizes`, `changes`, and `open`, `close` and `hold` of the port; it calls `prepare` once
    when it has opened, and `end_others` once it is held. Where commits are numbered, it also gives `serial` and sets
    `heads`. One that several engines can work on at a time is a `dalsegno.backends.shareable.ShareableStore`.
    """

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """`events_bytes` and `file_bytes`, and whatever else is known at no cost."""

    def prepare(self, made_with: str, may_write: bool = True) -> None:
        """Write the format number into a new store, or see that this release can read the one that is there.

        Raises `StoreUnusable` for a newer format and for what is no store of ours.
        """
        with self.begin(False) as txn:
            found = txn.get(layout.FORMAT_KEY)
            first = next(iter(txn.scan(b"\0", b"\xff" * 8)), None)
        if found is None and first is not None:
            raise StoreUnusable("holds records, but not a store's format number: another program's data, or damaged")
        if found is None and not may_write:
            raise StoreUnusable("is empty and opened for reading only: there is nothing to read")
        if found is None:
            with self.begin(True) as txn:
                body = msgspec.msgpack.encode([layout.FORMAT_WITHOUT_QUEUES, made_with])
                txn.put(layout.FORMAT_KEY, seal(layout.FORMAT_KEY, body))
                txn.commit()
            return
        store_format = msgspec.msgpack.decode(unseal(layout.FORMAT_KEY, found))[0]
        if store_format > layout.FORMAT:
            raise StoreUnusable(
                f"has format {store_format}, and this release of dalsegno reads formats up to {layout.FORMAT}: "
                "it was written by a later release. Upgrade dalsegno to open it.",
                found=store_format,
                readable=layout.FORMAT,
            )

    # --- who works here ----------------------------------------------------------------------------------------

    def claim(self, runs: Sequence[int], owner: str) -> list[RunRecord]:
        with self.begin(True) as txn:
            batch = Batch(txn)
            claimed = [record for run in runs if (record := batch.claim(run, owner)) is not None]
            if claimed:
                txn.commit()
        return claimed

    def release(self, runs: Sequence[int], owner: str) -> None:
        with self.begin(True) as txn:
            batch = Batch(txn)
            for run in runs:
                batch.release(run, owner)
            txn.commit()

    def active(self, after: int = 0, limit: int = 1000) -> list[int]:
        if after >= layout.RUN_MAX:
            return []
        start = layout.status_key(records.RUNNING, True, run_bytes(max(after + 1, 0)))
        stop = layout.after(start[:3])
        with self.begin(False) as txn:
            found = (layout.number(key[3:]) for key, value in txn.scan(start, stop) if intact(key, value))
            return list(islice(found, limit))

    # --- writing ---------------------------------------------------------------------------------------------------

    def create(self, runs: Sequence[NewRun]) -> list[Created]:
        return self.write(runs, (), (), 0)[0]

    def commit(self, transitions: Sequence[Transition]) -> list[Verdict]:
        with self.begin_growing(False) as txn:
            heads = self.heads
            serial = 0 if heads is None else self.serial(txn)
            batch = Batch(txn, known=None if heads is None else heads.before(serial))
            apply = batch.apply
            verdicts = [apply(transition) for transition in transitions]
            batch.finish()
            if self.about_to_wait is not None:
                self.about_to_wait()
            txn.commit()
            if heads is not None:
                heads.kept(serial)
        return verdicts

    def send(self, messages: Sequence[Message], at_us: int) -> list[tuple[Sent, int]]:
        return self.write((), (), messages, at_us)[2]

    def write(
        self, creations: Sequence[NewRun], transitions: Sequence[Transition], messages: Sequence[Message], at_us: int
    ) -> tuple[list[Created], list[Verdict], list[tuple[Sent, int]]]:
        """All in one commit: first the creations, then the transitions, then the messages."""
        for new in creations:
            check_workflow_id(new.workflow_id)
        with self.begin_growing(bool(creations or messages)) as txn:
            heads = self.heads
            serial = 0 if heads is None else self.serial(txn)
            batch = Batch(txn, at_us, None if heads is None else heads.before(serial))
            created = [batch.create(new) for new in creations]
            verdicts = [batch.apply(transition) for transition in transitions]
            sent = [batch.send(message) for message in messages]
            batch.finish()
            if self.about_to_wait is not None:
                self.about_to_wait()
            txn.commit()
            if heads is not None:
                heads.kept(serial)
        return created, verdicts, sent

    # --- reading ---------------------------------------------------------------------------------------------------

    def history(self, run: int, start: int = 0, limit: int | None = None) -> list[bytes]:
        if not 0 < run <= layout.RUN_MAX or not 0 <= start <= layout.INDEX_MAX:
            return []
        first, stop = layout.history_range(run_bytes(run), start)
        events: list[bytes] = []
        append, key = events.append, b""
        with self.begin(False) as txn:
            for key, value in islice(txn.scan(first, stop), limit):
                if crc32(value, crc32(key)) != GOOD:
                    raise records.damaged(key)
                append(value[:-4])
        # The keys came in order and none comes twice, so that the last one tells whether one is missing.
        if events and layout.number(key[-layout.INDEX_BYTES :]) != start + len(events) - 1:
            raise records.damaged(first, f"is followed by {len(events)} events up to another number: one is missing")
        return events

    def head(self, run: int) -> int:
        if not 0 < run <= layout.RUN_MAX:
            return 0
        with self.begin(False) as txn:
            for key, _ in txn.scan(*layout.history_range(run_bytes(run)), reverse=True):
                return layout.number(key[-layout.INDEX_BYTES :]) + 1
        return 0

    def inbox(self, run: int, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        if not 0 < run <= layout.RUN_MAX or after >= layout.SEQ_MAX:
            return []
        prefix = layout.INBOX + run_bytes(run)
        start = prefix + layout.seq_bytes(max(after + 1, 0))
        with self.begin(False) as txn:
            return [
                records.unpack_message(layout.number(key[len(prefix) :]), unseal(key, value))
                for key, value in islice(txn.scan(start, layout.after(prefix)), limit)
            ]

    def find(self, workflow_id: str, generation: int | None = None) -> RunRecord | None:
        with self.begin(False) as txn:
            return Batch(txn).find(workflow_id, generation)

    def record(self, run: int) -> RunRecord | None:
        with self.begin(False) as txn:
            return Batch(txn).record(run)

    def look_up(self, runs: Sequence[int]) -> list[RunRecord]:
        with self.begin(False) as txn:
            batch = Batch(txn)
            return [found for run in runs if (found := batch.intact_record(run)) is not None]

    def published(self, run: int) -> dict[str, bytes]:
        if not 0 < run <= layout.RUN_MAX:
            return {}
        prefix = layout.PUBLISHED + run_bytes(run)
        found: dict[str, bytes] = {}
        with self.begin(False) as txn:
            for key, record in txn.scan(prefix, layout.after(prefix)):
                full, value = records.unpack_published(unseal(key, record))
                found[layout.text_of(key[len(prefix) :], full)] = value
        return found

    def runs(
        self,
        *,
        status: Iterable[Status] = (),
        workflow: str | None = None,
        tags: Mapping[str, str] | None = None,
        before: int | None = None,
        limit: int = 1000,
    ) -> list[RunRecord]:
        """Runs that fit, newest first. A run whose record is damaged is left out; `check` names it."""
        below = layout.RUN_MAX if before is None else min(before, layout.RUN_MAX)
        if below <= 0:
            return []
        wanted = set(status)
        asked = set((tags or {}).items())
        found: list[RunRecord] = []
        with self.begin(False) as txn:
            batch = Batch(txn)
            for number in self._numbers_down(txn, wanted, run_bytes(below)):
                if len(found) >= limit:
                    break
                try:
                    record = batch.record(number)
                except StoreDamaged:
                    continue
                if record is None or (wanted and record.status not in wanted):
                    continue
                if (workflow is None or record.workflow == workflow) and asked <= set(record.tags.items()):
                    found.append(record)
        return found

    def _numbers_down(self, txn: KeyValueTransaction, status: set[Status], below: bytes) -> Iterator[int]:
        """Numbers of runs, newest first; by the status index if only some statuses are wanted."""
        if not status:
            return (layout.number(key[1:]) for key, _ in txn.scan(RUN, RUN + below, reverse=True))
        ranges = [
            txn.scan(prefix, prefix + below, reverse=True)
            for one in status
            for prefix in (layout.status_key(records.CODE_OF[one], active, b"") for active in (False, True))
        ]
        numbers = [(layout.number(key[3:]) for key, _ in found) for found in ranges]
        return heapq.merge(*numbers, reverse=True)

    # --- news ------------------------------------------------------------------------------------------------------

    def due(self, now_us: int, limit: int = 1000) -> list[DueTimer]:
        stop = layout.BY_DEADLINE + layout.deadline_bytes(now_us + 1)
        found: list[DueTimer] = []
        with self.begin(False) as txn:
            for key, value in txn.scan(layout.BY_DEADLINE, stop):
                if len(found) >= limit:
                    break
                if intact(key, value):
                    text = layout.text_of(key[9 + layout.RUN_BYTES :], value[: -records.CHECKSUM_BYTES])
                    run = layout.number(key[9 : 9 + layout.RUN_BYTES])
                    found.append(DueTimer(layout.deadline_of(key[1:9]), run, text))
        return found

    def next_deadline_us(self) -> int | None:
        with self.begin(False) as txn:
            for key, value in txn.scan(layout.BY_DEADLINE, layout.after(layout.BY_DEADLINE)):
                if intact(key, value):
                    return layout.deadline_of(key[1:9])
        return None

    def news(self, after: int = 0, limit: int = 1000) -> list[tuple[int, int]]:
        if after >= layout.SEQ_MAX:
            return []
        start = layout.NEWS + layout.seq_bytes(max(after + 1, 0))
        with self.begin(False) as txn:
            found = (
                (layout.number(key[1:]), layout.number(value[: -records.CHECKSUM_BYTES]))
                for key, value in txn.scan(start, layout.after(layout.NEWS))
                if intact(key, value)
            )
            return list(islice(found, limit))

    # --- keeping house ---------------------------------------------------------------------------------------------

    def purge(self, runs: Sequence[int]) -> int:
        """Delete closed runs. They vanish in one commit; what is left of long ones goes in further, bounded commits,
        which the next `purge` takes up if this one is interrupted."""
        return purging.purge(self.begin, runs)

    def stats(self) -> dict[str, int]:
        counts = dict.fromkeys((status.value for status in Status), 0)
        with self.begin(False) as txn:
            for code, status in enumerate(records.STATUSES):
                prefix = layout.BY_STATUS + bytes((code,))
                counts[status.value] = sum(1 for _ in txn.scan(prefix, layout.after(prefix)))
            queues = self.count_queues(txn)
        return {"runs": sum(counts.values()), **counts, **queues, **self.sizes()}

    def check(self) -> list[Problem]:
        return check_store(self.begin)
