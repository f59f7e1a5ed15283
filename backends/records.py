"""What stands under the keys: records with a checksum, and the record of a run.

Every record ends with the CRC-32 of its key and body. The sum stands last and little-endian because then the sum over
the whole is one known number (`GOOD`), so that a check takes one call and copies nothing. Including the key finds a
record that was moved as well as one that was changed.

A run's record begins with a fixed header that holds what a transition looks at (epoch, status, whether it is active),
so that committing a step decodes nothing else; what seldom changes follows as msgpack.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

from dalsegno.backends.layout import describe
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import Lease, MessageKind, NewRun, RunRecord, Status, StoredMessage

CHECKSUM_BYTES = 4
GOOD = crc32(struct.pack("<I", crc32(b"any bytes")), crc32(b"any bytes"))

# --- checksums -----------------------------------------------------------------------------------------------------


def seal(key: bytes, body: bytes) -> bytes:
    """The record that stands under `key` for `body`."""
    return body + crc32(body, crc32(key)).to_bytes(CHECKSUM_BYTES, "little")


def intact(key: bytes, record: bytes) -> bool:
    """Whether a record is the one that was written under this key."""
    return crc32(record, crc32(key)) == GOOD


def unseal(key: bytes, record: bytes) -> bytes:
    """The body of a record. Raises `StoreDamaged`."""
    if crc32(record, crc32(key)) != GOOD:
        raise damaged(key)
    return record[:-CHECKSUM_BYTES]


def damaged(key: bytes, why: str = "does not carry the checksum it was written with") -> StoreDamaged:
    """The error for the record under a key, with its facts."""
    words, run, event = describe(key)
    return StoreDamaged(f"damaged: {words} {why}. See: replay check", key=words, run=run, event=event)


# --- the record of a run -------------------------------------------------------------------------------------------

STATUSES = tuple(Status)
CODE_OF = {status: code for code, status in enumerate(STATUSES)}
"""The byte of a status: its place in `Status`, which therefore only grows at its end."""

RUNNING = CODE_OF[Status.RUNNING]
CLOSED_FROM = CODE_OF[Status.COMPLETED]  # the open ones stand first

HEADER = struct.Struct(">BBBHIIqq")
"""status, active, flags, deaths, epoch, generation, created_at_us, closed_at_us"""

RESTORE, PLACED, QUEUED = 1, 2, 4
"""The flags. Where a run has a place in a queue (`PLACED`), the queue's name stands last in what follows the header."""

unpack_header: Callable[[bytes], tuple[Any, ...]] = HEADER.unpack_from

STILL_OPEN = -(2**63)
"""Stands for `closed_at_us=None`."""

DEATHS_MAX = 2**16 - 1

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, bytes, str, str, dict[str, str], list[Any]]).decode
_decode_placed = msgspec.msgpack.Decoder(tuple[str, str, bytes, str, str, dict[str, str], list[Any], str]).decode
_GONE_TEXT = str.maketrans({code: "�" for code in range(0xD800, 0xE000)})


def text_for_msgpack(text: str) -> str:
    """Reasons and owners may quote anything; what is no character is shown as such."""
    return text if text.isascii() else text.translate(_GONE_TEXT)


def pack_tail(record: RunRecord) -> bytes:
    """The part of a run's record that seldom changes."""
    facts = (
        record.workflow_id,
        record.workflow,
        record.digest,
        record.owner,
        text_for_msgpack(record.reason),
        dict(record.tags),
        record.parent,
    )
    return _encode((*facts, record.queue) if record.queue else facts)


def tail_with_reason(tail: bytes, reason: str) -> bytes:
    """The same part with another reason."""
    *identity, owner, _, tags, parent = _decode(tail)
    return _encode((*identity, owner, text_for_msgpack(reason), tags, parent))


def pack_run_record(record: RunRecord) -> bytes:
    """The body of a run's record."""
    closed = STILL_OPEN if record.closed_at_us is None else record.closed_at_us
    return HEADER.pack(
        CODE_OF[record.status],
        record.active,
        record.restore * RESTORE | bool(record.queue) * PLACED | record.queued * QUEUED,
        min(record.deaths, DEATHS_MAX),
        record.epoch,
        record.generation,
        record.created_at_us,
        closed,
    ) + pack_tail(record)


def unpack_run_record(run: int, body: bytes) -> RunRecord:
    """The record of run number `run`. The checksum was good, so what is here was written by this or another release."""
    status, active, flags, deaths, epoch, generation, created, closed = unpack_header(body)
    tail, queue = body[HEADER.size :], ""
    if flags & PLACED:
        workflow_id, workflow, digest, owner, reason, tags, parent, queue = _decode_placed(tail)
    else:
        workflow_id, workflow, digest, owner, reason, tags, parent = _decode(tail)
    return RunRecord(
        number=run,
        workflow_id=workflow_id,
        generation=generation,
        workflow=workflow,
        status=STATUSES[status],
        active=bool(active),
        created_at_us=created,
        digest=digest,
        closed_at_us=None if closed == STILL_OPEN else closed,
        tags=tags,
        parent=(parent[0], parent[1], parent[2]) if parent else (),
        epoch=epoch,
        owner=owner,
        deaths=deaths,
        reason=reason,
        restore=bool(flags & RESTORE),
        queue=queue,
        queued=bool(flags & QUEUED),
    )


def first_record(new: NewRun, run: int, generation: int, inherited: str = "") -> RunRecord:
    """The record a new run begins with. An owner's creating it counts as its first claim, unless it has to wait in a
    queue; `inherited` is the queue in which it has a place from the run before."""
    queue = "" if new.place is None or not new.status.open else new.place.queue
    queued = bool(queue and not inherited)
    owner = "" if queued else new.owner
    return RunRecord(
        number=run,
        workflow_id=new.workflow_id,
        generation=generation,
        workflow=new.workflow,
        status=new.status,
        active=new.status.open and not queued,
        created_at_us=new.created_at_us,
        digest=new.digest,
        closed_at_us=new.closed_at_us,
        tags=new.tags,
        parent=new.parent,
        epoch=1 if owner else 0,
        owner=owner,
        restore=new.restore,
        queue=inherited or queue,
        queued=queued,
    )


# --- messages ------------------------------------------------------------------------------------------------------

KINDS: tuple[MessageKind, ...] = (
    "signal",
    "cancel",
    "terminate",
    "pause",
    "resume",
    "child",
    "callback",
    "wake",
    "step",
)
"""Their places are their bytes, so this only grows at its end."""

KIND_CODE = {kind: code for code, kind in enumerate(KINDS)}
WAKE = KIND_CODE["wake"]

_MESSAGE = struct.Struct(">BBqI")


def pack_message(kind: MessageKind, name: str, payload: bytes, failed: bool, at_us: int) -> bytes:
    """The body of a message in an inbox; its first byte is its kind."""
    text = name.encode("utf-8", "surrogatepass")
    return _MESSAGE.pack(KIND_CODE[kind], failed, at_us, len(text)) + text + payload


def unpack_message(seq: int, body: bytes) -> StoredMessage:
    kind, failed, at_us, size = _MESSAGE.unpack_from(body)
    end = _MESSAGE.size + size
    name = body[_MESSAGE.size : end].decode("utf-8", "surrogatepass")
    return StoredMessage(seq, KINDS[kind], name, body[end:], bool(failed), at_us)


# --- published values ----------------------------------------------------------------------------------------------


def pack_published(full_key: bytes, value: bytes) -> bytes:
    """The body of a published value: the key it has if that was too long for a key of the store, then the value."""
    return len(full_key).to_bytes(4, "big") + full_key + value


def unpack_published(body: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(body[:4], "big")
    return body[4:end], body[end:]


# --- leases --------------------------------------------------------------------------------------------------------

_decode_lease = msgspec.msgpack.Decoder(tuple[str, int, int, int]).decode


def pack_lease(lease: Lease) -> bytes:
    """The body of a lease's record."""
    return _encode((text_for_msgpack(lease.owner), lease.length_us, lease.number, lease.renewed_us))


def unpack_lease(body: bytes) -> Lease:
    """The lease in a record."""
    owner, length_us, number, renewed_us = _decode_lease(body)
    return Lease(owner=owner, length_us=length_us, number=number, renewed_us=renewed_us)
