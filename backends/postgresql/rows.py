"""The row of a run, as it is read, changed in memory, and written.

The checksum of an event, a message or a published value covers where it stands as well as what it is: one that was
moved is found as well as one that was changed. PostgreSQL's own checksums, where they are on, cover its pages.
"""

from __future__ import annotations

import struct
from zlib import crc32

import attrs
from psycopg.pq.abc import PGresult

from dalsegno.backends.postgresql import wire
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import Lease, NewRun, RunRecord, Status, StoredMessage

COLUMNS = (
    "number, workflow_id, generation, workflow, status, active, created_at_us, digest, closed_at_us, tags, parent_id, "
    "parent_generation, parent_command, epoch, owner, deaths, reason, restore, head, last_message, queue, queued"
)

STATUS_OF = {status.value.encode(): status for status in Status}

_TWO = struct.Struct(">qq").pack


@attrs.define(slots=True, eq=False)
class Row:
    """A run as its row has it. `key` is the digest of its workflow id."""

    number: int
    workflow_id: str
    generation: int
    workflow: str
    status: Status
    active: bool
    created_at_us: int
    digest: bytes
    closed_at_us: int | None
    tags: dict[str, str]
    parent: tuple[str, int, str] | tuple[()]
    epoch: int
    owner: str
    deaths: int
    reason: str
    restore: bool
    head: int
    last_message: int
    queue: str = ""
    queued: bool = False

    @classmethod
    def read(cls, result: PGresult, at: int) -> Row:
        """The row at a place of an answer whose columns are `COLUMNS`."""
        cell, int4, int8, text = result.get_value, wire.read_int4, wire.read_int8, wire.read_text
        values = [cell(at, column) or b"" for column in range(22)]
        closed = cell(at, 8)
        parent_id = cell(at, 10)
        return cls(
            number=int8(values[0]),
            workflow_id=text(values[1]),
            generation=int4(values[2]),
            workflow=text(values[3]),
            status=STATUS_OF[values[4]],
            active=values[5] == b"\x01",
            created_at_us=int8(values[6]),
            digest=values[7],
            closed_at_us=None if closed is None else int8(closed),
            tags=wire.read_jsonb(values[9]),
            parent=() if parent_id is None else (text(parent_id), int4(values[11]), text(values[12])),
            epoch=int4(values[13]),
            owner=text(values[14]),
            deaths=int4(values[15]),
            reason=text(values[16]),
            restore=values[17] == b"\x01",
            head=int4(values[18]),
            last_message=int8(values[19]),
            queue=text(values[20]),
            queued=values[21] == b"\x01",
        )

    @classmethod
    def first(cls, new: NewRun, number: int, generation: int) -> Row:
        """The row a new run begins with. An owner's creating it counts as its first claim."""
        return cls(
            number=number,
            workflow_id=new.workflow_id,
            generation=generation,
            workflow=new.workflow,
            status=new.status,
            active=new.status.open,
            created_at_us=new.created_at_us,
            digest=new.digest,
            closed_at_us=new.closed_at_us,
            tags=dict(new.tags),
            parent=new.parent,
            epoch=1 if new.owner else 0,
            owner=new.owner,
            deaths=0,
            reason="",
            restore=new.restore,
            head=len(new.events),
            last_message=0,
        )

    @property
    def record(self) -> RunRecord:
        """What the port knows of it."""
        return RunRecord(
            number=self.number,
            workflow_id=self.workflow_id,
            generation=self.generation,
            workflow=self.workflow,
            status=self.status,
            active=self.active,
            created_at_us=self.created_at_us,
            digest=self.digest,
            closed_at_us=self.closed_at_us,
            tags=self.tags,
            parent=self.parent,
            epoch=self.epoch,
            owner=self.owner,
            deaths=self.deaths,
            reason=self.reason,
            restore=self.restore,
            queue=self.queue,
            queued=self.queued,
        )


def rows_of(result: PGresult) -> list[Row]:
    """All rows of an answer."""
    return [Row.read(result, at) for at in range(result.ntuples)]


def leases_of(result: PGresult) -> list[Lease]:
    """The leases of an answer. Whose lock is gone has ended, unless all locks are gone because the server restarted."""
    cell, int8 = result.get_value, wire.read_int8
    return [
        Lease(
            owner=wire.read_text(cell(at, 0) or b""),
            length_us=int8(cell(at, 1) or b""),
            number=int8(cell(at, 2) or b""),
            renewed_us=int8(cell(at, 3) or b""),
            ended=cell(at, 4) == b"\x01",
        )
        for at in range(result.ntuples)
    ]


# --- checksums -----------------------------------------------------------------------------------------------------


def event_crc(run: int, seq: int, event: bytes) -> int:
    """The checksum of an event, as the signed number that PostgreSQL's integer is."""
    crc = crc32(event, crc32(_TWO(run, seq)))
    return crc - 2**32 if crc >= 2**31 else crc


def message_crc(run: int, message: StoredMessage) -> int:
    """The checksum of a message in the inbox of a run."""
    where = f"{message.kind} {message.failed} {message.at_us} {message.name}".encode("utf-8", "surrogatepass")
    return event_crc(run, message.seq, where + b"\0" + message.payload)


def published_crc(run: int, key: str, value: bytes) -> int:
    """The checksum of a published value."""
    return event_crc(run, 0, key.encode("utf-8", "surrogatepass") + b"\0" + value)


def task_crc(run: int, step: str, name: str, payload: bytes) -> int:
    """The checksum of a task, which has no number yet when it is written."""
    return event_crc(run, 0, f"{step}\0{name}\0".encode("utf-8", "surrogatepass") + payload)


def note_crc(details: bytes) -> int:
    """The checksum of what is noted of a step. Tasks are noted of by their numbers, so that it covers no more."""
    return event_crc(0, 0, details)


def outcome_crc(run: int, step: str, name: str, result: bytes) -> int:
    """The checksum of what a transactional step has answered."""
    return event_crc(run, 0, f"{step}\0{name}\0".encode("utf-8", "surrogatepass") + result)


def damaged(
    what: str, run: int, event: int | None = None, why: str = "does not carry the checksum it was written with"
) -> StoreDamaged:
    """The error for a damaged row, with its facts."""
    return StoreDamaged(f"damaged: {what} {why}. See: replay check", key=what, run=run, event=event)
