"""The store port on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import psycopg

from dalsegno.backends.postgresql import keeping, reading, wire
from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql.connections import Connections
from dalsegno.backends.postgresql.failures import Rejected
from dalsegno.backends.postgresql.options import Options
from dalsegno.backends.postgresql.queueing import Queueing
from dalsegno.backends.postgresql.rows import Row, leases_of, rows_of
from dalsegno.backends.postgresql.session import Session
from dalsegno.backends.postgresql.transactional import Transactions
from dalsegno.backends.postgresql.writing import Answers, append_one, only_appends, write
from dalsegno.core.queues import Queue, QueueState, Task
from dalsegno.core.store import (
    APPLIED,
    Backend,
    Created,
    DueTimer,
    Lease,
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
from dalsegno.core.text import check_workflow_id, workflow_id_problem
from dalsegno.core.transactions import StepAttempt


class PostgresqlBackend(Backend):
    """A store in a schema of a PostgreSQL database.

    Handles on one schema may be opened as often as you like, on as many machines as you like. Any number of them can
    `join`, that is, be engines of it, or one can `hold` it for itself. docs/postgresql.md has options, tables, roles.
    """

    survives_reopen: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    several: ClassVar[bool] = True
    transactional: ClassVar[bool] = True
    has_queues: ClassVar[bool] = True

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._transactions = Transactions(connections)
        self._queueing = Queueing(connections)

    @classmethod
    def open(cls, location: str, **options: Any) -> Self:
        """Open the store at what stands after `postgresql:`, and make its tables where there are none.

        Options, here or in the URL: `schema` ("dalsegno"); `durability` "full" or "relaxed"; `read_only`;
        `statement_timeout`, `reconnect` in seconds; `readers` and `transactions`, how many connections at most read or
        run transactional steps. All others in the URL are libpq's. Raises `BadOption`, `StoreUnusable`.
        """
        connections = Connections(Options.of(location, options))
        connections.open(f"dalsegno, psycopg {psycopg.__version__}")
        return cls(connections)

    @property
    def place(self) -> str:
        """Where the store is, for people."""
        return self._connections.place

    def close(self) -> None:
        self._transactions.close()
        self._connections.close()

    # --- who works here ----------------------------------------------------------------------------------------

    def hold(self, owner: str) -> None:
        self._connections.hold(owner)

    def join(self, owner: str, length_us: int, now_us: int) -> None:
        self._connections.join(owner, length_us, now_us)

    def renew(self, owner: str, now_us: int) -> bool:
        now = wire.int8(wire.in_range(now_us))
        return self._connections.write(lambda session: session.run(st.RENEW, wire.text(owner), now).ntuples > 0)

    def leave(self, owner: str) -> bool:
        return self._connections.leave(owner)

    def leases(self) -> list[Lease]:
        return self._connections.read(lambda session: leases_of(session.run(st.LEASES)))

    def expire(self, lease: Lease) -> bool:
        seen = wire.text(lease.owner), wire.int8(lease.number)
        return self._connections.write(
            lambda session: session.run(st.END_LEASE, *seen, session.channel, session.slot).ntuples > 0
        )

    def claim(self, runs: Sequence[int], owner: str) -> list[RunRecord]:
        asked = _numbers(runs)
        if not asked:
            return []

        def work(session: Session) -> dict[int, Row]:
            answer = session.run(st.CLAIM, wire.int8s(sorted(asked)), wire.text(owner), session.slot)
            return {row.number: row for row in rows_of(answer)}

        claimed = self._connections.write(work)
        return [claimed[number].record for number in asked if number in claimed]

    def release(self, runs: Sequence[int], owner: str) -> None:
        asked = _numbers(runs)
        if asked:
            numbers = wire.int8s(sorted(asked))
            self._connections.write(lambda session: session.run(st.RELEASE, numbers, wire.text(owner), session.slot))

    def active(self, after: int = 0, limit: int = 1000) -> list[int]:
        return self._connections.read(
            lambda session: reading.numbers(session.run(st.ACTIVE, _after(after), wire.int8(limit)))
        )

    # --- writing ---------------------------------------------------------------------------------------------------

    def create(self, runs: Sequence[NewRun]) -> list[Created]:
        return self.write(runs, (), (), 0)[0]

    def commit(self, transitions: Sequence[Transition]) -> list[Verdict]:
        if len(transitions) == 1:  # a run alone: what counts is how long its step takes, to a few microseconds
            (t,) = transitions
            if len(t.events) == 1 and only_appends(t):
                if self.about_to_wait is not None:
                    self.about_to_wait()
                try:
                    self._connections.write(lambda session: append_one(session, t))
                    return [APPLIED]
                except Rejected:
                    pass  # looked at again below, to say why
        return self.write((), transitions, (), 0)[1]

    def send(self, messages: Sequence[Message], at_us: int) -> list[tuple[Sent, int]]:
        return self.write((), (), messages, at_us)[2]

    def write(
        self, creations: Sequence[NewRun], transitions: Sequence[Transition], messages: Sequence[Message], at_us: int
    ) -> Answers:
        """All in one commit: first the creations, then the transitions, then the messages."""
        for new in creations:
            check_workflow_id(new.workflow_id)

        def work(session: Session) -> Answers:
            if self.about_to_wait is not None:
                self.about_to_wait()
            return write(session, creations, transitions, messages, at_us)

        return self._connections.write(work)

    def transact(self, attempt: StepAttempt, body: Callable[[Any], bytes]) -> bytes:
        return self._transactions.run(attempt, body)

    # --- reading ---------------------------------------------------------------------------------------------------

    def history(self, run: int, start: int = 0, limit: int | None = None) -> list[bytes]:
        if not 0 < run <= wire.INT8_MAX or not 0 <= start <= wire.INT4_MAX:
            return []
        # A long one takes longer to look at than to get: the connection is free for others meanwhile.
        return reading.events_of(self._connections.read(lambda s: reading.history(s, run, start, limit)), run, start)

    def head(self, run: int) -> int:
        if not 0 < run <= wire.INT8_MAX:
            return 0
        answer = self._connections.read(lambda session: session.run(st.HEAD, wire.int8(run)))
        return wire.read_int4(answer.get_value(0, 0) or b"") if answer.ntuples else 0

    def inbox(self, run: int, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        if not 0 < run <= wire.INT8_MAX or after >= wire.INT8_MAX:
            return []
        return self._connections.read(lambda session: reading.inbox(session, run, max(after, -1), limit))

    def find(self, workflow_id: str, generation: int | None = None) -> RunRecord | None:
        if workflow_id_problem(workflow_id):
            return None
        key = wire.digest(workflow_id)
        if generation is None:
            return self._record(st.FIND_NEWEST, key)
        if not 0 <= generation <= wire.INT4_MAX:
            return None
        return self._record(st.FIND, key, wire.int4(generation))

    def record(self, run: int) -> RunRecord | None:
        return self._record(st.RECORD, wire.int8(run)) if 0 < run <= wire.INT8_MAX else None

    def look_up(self, runs: Sequence[int]) -> list[RunRecord]:
        asked = [run for run in runs if 0 < run <= wire.INT8_MAX]
        answer = self._connections.read(lambda session: session.run(st.LOOK_UP, wire.int8s(sorted(set(asked)))))
        found = {row.number: row for row in rows_of(answer)}
        return [found[number].record for number in asked if number in found]

    def _record(self, statement: st.Statement, *parameters: bytes) -> RunRecord | None:
        answer = self._connections.read(lambda session: session.run(statement, *parameters))
        return Row.read(answer, 0).record if answer.ntuples else None

    def published(self, run: int) -> dict[str, bytes]:
        if not 0 < run <= wire.INT8_MAX:
            return {}
        return self._connections.read(lambda session: reading.published(session, run))

    def runs(
        self,
        *,
        status: Iterable[Status] = (),
        workflow: str | None = None,
        tags: Mapping[str, str] | None = None,
        before: int | None = None,
        limit: int = 1000,
    ) -> list[RunRecord]:
        statuses = sorted({one.value for one in status})
        parameters = (
            wire.int8(wire.INT8_MAX if before is None else wire.in_range(before)),
            None if workflow is None else wire.text(workflow),
            wire.jsonb(tags or {}),
            wire.int8(limit),
        )

        def work(session: Session) -> list[RunRecord]:
            if statuses:
                answer = session.run(st.RUNS_BY_STATUS, *parameters, wire.texts(statuses))
            else:
                answer = session.run(st.RUNS, *parameters)
            return [row.record for row in rows_of(answer)]

        return self._connections.read(work)

    # --- news ------------------------------------------------------------------------------------------------------

    def due(self, now_us: int, limit: int = 1000) -> list[DueTimer]:
        now = wire.int8(wire.in_range(now_us))
        return self._connections.read(lambda session: reading.due_timers(session.run(st.DUE, now, wire.int8(limit))))

    def next_deadline_us(self) -> int | None:
        found = self._connections.read(lambda session: reading.numbers(session.run(st.NEXT_DEADLINE)))
        return found[0] if found else None

    def news(self, after: int = 0, limit: int = 1000) -> list[tuple[int, int]]:
        return self._connections.read(
            lambda session: reading.pairs(session.run(st.NEWS, _after(after), wire.int8(limit)))
        )

    def changes(self) -> object:
        """How many commits all writers of this store have made."""
        return self._connections.read(lambda session: session.run(st.CHANGES).get_value(0, 0))

    def listen(self, told: Callable[[], object]) -> Callable[[], object]:
        """Have `told` called, on a thread of the store's, soon after a message came that another engine may wait for.

        A hint, which spares a poller half its pause: announcements are lost with a connection, and `told` is then
        called once more than needed. What there is to know is in `changes` and `news`.
        """
        return self._connections.listen(told)

    # --- queues ----------------------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Queue]) -> None:
        self._queueing.declare(queues)

    def queues(self, *, ages: bool = True) -> list[QueueState]:
        return self._queueing.queues(ages)

    def take(
        self, queues: Sequence[str], owner: str, limit: int, now_us: int, steps: Collection[str] | None = None
    ) -> list[Task]:
        return self._queueing.take(queues, owner, limit, now_us, steps)

    def give_back(self, tasks: Sequence[tuple[int, int]], owner: str) -> None:
        self._queueing.give_back(tasks, owner)

    def beat(self, owner: str, details: Mapping[int, bytes]) -> list[int]:
        return self._queueing.beat(owner, details)

    def tasks_of(self, run: int) -> list[Task]:
        return self._queueing.tasks_of(run)

    def admit(self, queues: Sequence[str], limit: int, now_us: int) -> list[int]:
        return self._queueing.admit(queues, limit, now_us)

    def note(self, run: int, epoch: int, notes: Mapping[str, bytes]) -> bool:
        return self._queueing.note(run, epoch, notes)

    def notes(self, run: int) -> dict[str, bytes]:
        return self._queueing.notes(run)

    # --- keeping house ---------------------------------------------------------------------------------------------

    def purge(self, runs: Sequence[int]) -> int:
        return keeping.purge(self._connections, runs)

    def stats(self) -> dict[str, int]:
        return self._connections.read(keeping.stats)

    def check(self) -> list[Problem]:
        return keeping.check(self._connections)


def _numbers(runs: Sequence[int]) -> list[int]:
    return [run for run in dict.fromkeys(runs) if 0 < run <= wire.INT8_MAX]


def _after(after: int) -> bytes:
    return wire.int8(min(max(after, -1), wire.INT8_MAX))
