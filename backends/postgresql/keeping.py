"""Keeping house: deleting closed runs, counting, and checking everything.

**Deleting.** First the rows of the runs and their deduplication keys go, many runs a commit, and a mark is left for
each: from there on the run is not there for anybody. What lies under it is deleted in further commits of bounded size,
and the mark last. A purge that was interrupted leaves marks, and the next one finishes it; two at once take different
marks (`SKIP LOCKED`).

**Checking** reads the store in pages of short statements. What concerns two tables is asked in one statement, so that
it is never a difference between two moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from psycopg.pq.abc import PGresult

from dalsegno.backends.postgresql import queue_statements as qs
from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql import wire
from dalsegno.backends.postgresql.connections import Connections
from dalsegno.backends.postgresql.reading import message_of
from dalsegno.backends.postgresql.rows import event_crc, message_crc, note_crc, outcome_crc, published_crc, task_crc
from dalsegno.backends.postgresql.session import Session
from dalsegno.core.store import Problem, Status

RUNS_A_COMMIT = 500
ROWS_A_COMMIT = 20_000  # some fifty milliseconds
ROWS_A_PAGE = 5_000
BYTES_A_PAGE = 50  # rows of a page of payloads, which may be of megabytes each

CHECKSUM = "does not carry the checksum it was written with"


# --- deleting ------------------------------------------------------------------------------------------------------


def purge(connections: Connections, runs: Sequence[int]) -> int:
    """Delete those of `runs` that are closed; answers how many were."""
    numbers = sorted({run for run in runs if 0 < run <= wire.INT8_MAX})
    purged = 0
    for start in range(0, len(numbers), RUNS_A_COMMIT):
        page = wire.int8s(numbers[start : start + RUNS_A_COMMIT])
        purged += connections.write(lambda session, page=page: _hide(session, page))  # type: ignore[misc]
    while connections.write(_sweep):
        pass
    return purged


def _hide(session: Session, numbers: bytes) -> int:
    answer = session.run(st.HIDE_RUNS, numbers, session.slot)
    return wire.read_int8(answer.get_value(0, 0) or b"")


def _sweep(session: Session) -> bool:
    """Delete a bounded number of rows of runs that are gone; answers whether there were any."""
    answer = session.run(st.SWEEP, wire.int4(ROWS_A_COMMIT))
    return answer.get_value(0, 0) == b"\x01"


# --- counting ------------------------------------------------------------------------------------------------------


def stats(session: Session) -> dict[str, int]:
    """Counts by status, those of queues, and sizes. `events_bytes` is the table of histories with its index;
    `file_bytes` is all."""
    counts = dict.fromkeys((status.value for status in Status), 0)
    answer = session.run(st.COUNTS)
    for at in range(answer.ntuples):
        counts[wire.read_text(answer.get_value(at, 0) or b"")] = wire.read_int8(answer.get_value(at, 1) or b"")
    sizes, tasks = session.run(st.SIZES), session.run(qs.TASK_COUNTS)
    return {
        "runs": sum(counts.values()),
        **counts,
        "tasks": wire.read_int8(tasks.get_value(0, 0) or b""),
        "queues": wire.read_int8(tasks.get_value(0, 1) or b""),
        "events_bytes": wire.read_int8(sizes.get_value(0, 0) or b""),
        "file_bytes": wire.read_int8(sizes.get_value(0, 1) or b""),
    }


# --- checking ------------------------------------------------------------------------------------------------------


def check(connections: Connections) -> list[Problem]:
    """Everything that is wrong with the rows of a store."""
    found = [*_events(connections), *_messages(connections), *_published(connections), *_outcomes(connections)]
    found += [*_tasks(connections), *_notes(connections), *_counts(connections)]
    for statement, what in (
        (st.WRONG_HEADS, "has another number of events than its record says, or one is missing in between"),
        (st.LOST_EVENTS, "has a history, and no record"),
        (st.LOST_MESSAGES, "has a message waiting, and no open record"),
        (st.LOST_TIMERS, "has a timer, and no open record"),
        (st.LOST_OUTCOMES, "has an outcome of a transactional step, and no open record"),
        (st.LOST_PUBLISHED, "has published values, and no record"),
        (st.LOST_KEYS, "has accepted a deduplication key, and no record"),
        (st.WRONG_COUNTER, "is numbered beyond the counter of messages"),
        (qs.LOST_TASKS, "has a task or a place in a queue, and no open record"),
        (qs.LOST_NOTES, "has notes of its steps, and no open record"),
        (qs.WRONG_PLACES, "has another place in a queue than its record says"),
    ):
        answer = connections.read(lambda session, statement=statement: session.run(statement))  # type: ignore[misc]
        for at in range(answer.ntuples):
            run = wire.read_int8(answer.get_value(at, 0) or b"")
            found.append(Problem(f"run {run}", _named(connections, run), None, what))
    return found


def _named(connections: Connections, run: int) -> str:
    """A run as people call it, or its number where it is not there."""
    answer = connections.read(lambda session: session.run(st.RECORD, wire.int8(run)))
    if not answer.ntuples:
        return str(run)
    return f"{wire.read_text(answer.get_value(0, 1) or b'')}#{wire.read_int4(answer.get_value(0, 2) or b'')}"


def _pages(
    connections: Connections, read: Callable[[Session, tuple[int, int]], PGresult], rows: int
) -> Iterator[PGresult]:
    """Pages of a table in the order of two numbers, which are the first columns; each begins beyond the last."""
    after = (-1, -1)
    while True:
        page = connections.read(lambda session, after=after: read(session, after))  # type: ignore[misc]
        yield page
        if page.ntuples < rows:
            return
        last = page.ntuples - 1
        after = (wire.read_int8(page.get_value(last, 0) or b""), wire.read_int8(page.get_value(last, 1) or b""))


def _events(connections: Connections) -> Iterator[Problem]:
    def read(session: Session, after: tuple[int, int]) -> PGresult:
        return session.run(st.EVENT_PAGE, wire.int8(after[0]), wire.int8(after[1]), wire.int8(ROWS_A_PAGE))

    for page in _pages(connections, read, ROWS_A_PAGE):
        for at in range(page.ntuples):
            run, seq = wire.read_int8(page.get_value(at, 0) or b""), wire.read_int8(page.get_value(at, 1) or b"")
            crc = wire.read_int4(page.get_value(at, 2) or b"")
            if event_crc(run, seq, page.get_value(at, 3) or b"") != crc:
                yield Problem(f"history of run {run}, event {seq}", _named(connections, run), seq, CHECKSUM)


def _messages(connections: Connections) -> Iterator[Problem]:
    def read(session: Session, after: tuple[int, int]) -> PGresult:
        return session.run(st.MESSAGE_PAGE, wire.int8(after[1]), wire.int8(BYTES_A_PAGE))

    for page in _pages(connections, read, BYTES_A_PAGE):
        for at in range(page.ntuples):
            run = wire.read_int8(page.get_value(at, 0) or b"")
            message = message_of(page, at, 1)
            if message_crc(run, message) != wire.read_int4(page.get_value(at, 3) or b""):
                yield Problem(f"message {message.seq} for run {run}", _named(connections, run), None, CHECKSUM)


def _published(connections: Connections) -> Iterator[Problem]:
    def read(session: Session, after: tuple[int, int]) -> PGresult:
        return session.run(st.PUBLISHED_PAGE, wire.int8(after[0]), wire.int8(after[1]), wire.int8(BYTES_A_PAGE))

    for page in _pages(connections, read, BYTES_A_PAGE):
        for at in range(page.ntuples):
            run, key = wire.read_int8(page.get_value(at, 0) or b""), wire.read_text(page.get_value(at, 3) or b"")
            crc = wire.read_int4(page.get_value(at, 2) or b"")
            if published_crc(run, key, page.get_value(at, 4) or b"") != crc:
                yield Problem(f"published value {key!r} of run {run}", _named(connections, run), None, CHECKSUM)


def _outcomes(connections: Connections) -> Iterator[Problem]:
    run, step = -1, ""
    while True:
        after = wire.int8(run), wire.text(step), wire.int8(BYTES_A_PAGE)
        page = connections.read(lambda session, after=after: session.run(st.OUTCOME_PAGE, *after))  # type: ignore[misc]
        for at in range(page.ntuples):
            cells = [page.get_value(at, column) or b"" for column in range(5)]
            run, step = wire.read_int8(cells[0]), wire.read_text(cells[2])
            if outcome_crc(run, step, wire.read_text(cells[3]), cells[4]) != wire.read_int4(cells[1]):
                yield Problem(f"outcome of step {step} of run {run}", _named(connections, run), None, CHECKSUM)
        if page.ntuples < BYTES_A_PAGE:
            return


def _tasks(connections: Connections) -> Iterator[Problem]:
    after = -1
    while True:
        limits = wire.int8(after), wire.int8(BYTES_A_PAGE)
        page = connections.read(lambda session, limits=limits: session.run(qs.TASK_PAGE, *limits))  # type: ignore[misc]
        for at in range(page.ntuples):
            cells = [page.get_value(at, column) or b"" for column in range(6)]
            after, run = wire.read_int8(cells[0]), wire.read_int8(cells[1])
            if task_crc(run, wire.read_text(cells[3]), wire.read_text(cells[4]), cells[5]) != wire.read_int4(cells[2]):
                yield Problem(f"task {after} of run {run}", _named(connections, run), None, CHECKSUM)
        if page.ntuples < BYTES_A_PAGE:
            return


def _notes(connections: Connections) -> Iterator[Problem]:
    run, step = -1, ""
    while True:
        after = wire.int8(run), wire.text(step), wire.int8(BYTES_A_PAGE)
        page = connections.read(lambda session, after=after: session.run(qs.NOTE_PAGE, *after))  # type: ignore[misc]
        for at in range(page.ntuples):
            cells = [page.get_value(at, column) or b"" for column in range(4)]
            run, step = wire.read_int8(cells[0]), wire.read_text(cells[2])
            if note_crc(cells[3]) != wire.read_int4(cells[1]):
                yield Problem(f"note for step {step} of run {run}", _named(connections, run), None, CHECKSUM)
        if page.ntuples < BYTES_A_PAGE:
            return


def _counts(connections: Connections) -> Iterator[Problem]:
    answer = connections.read(lambda session: session.run(qs.WRONG_COUNTS))
    for at in range(answer.ntuples):
        queue, kind, key = (wire.read_text(answer.get_value(at, column) or b"") for column in range(3))
        of_key = f", key {key!r}" if key else ""
        yield Problem(f"queue {queue!r} of {kind}s{of_key}", "", None, "counts other tasks than are there")
