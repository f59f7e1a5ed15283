"""Answers of the server as values of the port."""

from __future__ import annotations

from typing import cast

from psycopg.pq.abc import PGresult

from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql import wire
from dalsegno.backends.postgresql.rows import damaged, event_crc, message_crc, published_crc
from dalsegno.backends.postgresql.session import Session
from dalsegno.core.store import DueTimer, MessageKind, StoredMessage

NONE = b""


def history(session: Session, run: int, start: int, limit: int | None) -> PGresult:
    """The answer that has the events of a run from `start` on; `events_of` takes them out."""
    most = None if limit is None else wire.int8(min(limit, wire.INT8_MAX))
    return session.run(st.HISTORY, wire.int8(run), wire.int4(start), most)


def events_of(answer: PGresult, run: int, start: int) -> list[bytes]:
    """The events in such an answer. Raises `StoreDamaged` for one that is not what was written, and for a gap."""
    cell, int4 = answer.get_value, wire.read_int4
    events: list[bytes] = []
    for at in range(answer.ntuples):
        seq = start + at
        found, event = int4(cell(at, 0) or NONE), cell(at, 2) or NONE
        if found != seq:
            raise damaged(f"history of run {run}", run, seq, f"goes on with event {found}: event {seq} is missing")
        if event_crc(run, seq, event) != int4(cell(at, 1) or NONE):
            raise damaged(f"history of run {run}, event {seq}", run, seq)
        events.append(event)
    return events


def message_of(answer: PGresult, at: int, first: int = 0) -> StoredMessage:
    """The message in a row whose columns from `first` on are those of `INBOX`."""
    cells = [answer.get_value(at, first + column) or NONE for column in range(7)]
    return StoredMessage(
        wire.read_int8(cells[0]),
        cast(MessageKind, wire.read_text(cells[4])),
        wire.read_text(cells[5]),
        cells[6],
        cells[3] == b"\x01",
        wire.read_int8(cells[1]),
    )


def inbox(session: Session, run: int, after: int, limit: int) -> list[StoredMessage]:
    """Messages that wait for a run. Raises `StoreDamaged`."""
    answer = session.run(st.INBOX, wire.int8(run), wire.int8(after), wire.int8(limit))
    messages = [message_of(answer, at) for at in range(answer.ntuples)]
    for at, message in enumerate(messages):
        if message_crc(run, message) != wire.read_int4(answer.get_value(at, 2) or NONE):
            raise damaged(f"message {message.seq} for run {run}", run)
    return messages


def published(session: Session, run: int) -> dict[str, bytes]:
    """What a run has published. Raises `StoreDamaged`."""
    answer = session.run(st.PUBLISHED, wire.int8(run))
    found: dict[str, bytes] = {}
    for at in range(answer.ntuples):
        key, value = wire.read_text(answer.get_value(at, 1) or NONE), answer.get_value(at, 2) or NONE
        if published_crc(run, key, value) != wire.read_int4(answer.get_value(at, 0) or NONE):
            raise damaged(f"published value {key!r} of run {run}", run)
        found[key] = value
    return found


def numbers(answer: PGresult) -> list[int]:
    """The first column of an answer."""
    return [wire.read_int8(answer.get_value(at, 0) or NONE) for at in range(answer.ntuples)]


def pairs(answer: PGresult) -> list[tuple[int, int]]:
    """The first two columns of an answer."""
    int8, cell = wire.read_int8, answer.get_value
    return [(int8(cell(at, 0) or NONE), int8(cell(at, 1) or NONE)) for at in range(answer.ntuples)]


def due_timers(answer: PGresult) -> list[DueTimer]:
    """Timers, with their columns in the order of `DueTimer`."""
    return [
        DueTimer(deadline_us, run, wire.read_text(answer.get_value(at, 2) or NONE))
        for at, (deadline_us, run) in enumerate(pairs(answer))
    ]
