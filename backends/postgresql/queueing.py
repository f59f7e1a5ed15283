"""Queues as the port has them: taking tasks, letting runs begin, limits, notes.

What puts tasks and what ends them are transitions and messages, which `writing` writes.

**A take whose outcome is unknown** has perhaps given its owner tasks that he does not know of. Each take has a number
of its own, which the tasks carry. After such a break the next `take` or `beat` of the owner puts back in line what that
call has taken: nobody has seen it. It is asked for again during `DOUBT_S`, because the server may still have been at
it. If the process dies before, the end of its lease puts it back like all that it had.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping, Sequence

from psycopg.pq.abc import PGresult

from dalsegno.backends.postgresql import queue_statements as qs
from dalsegno.backends.postgresql import reading, wire
from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql.connections import Connections
from dalsegno.backends.postgresql.failures import Again, Lost
from dalsegno.backends.postgresql.planning import Effects
from dalsegno.backends.postgresql.rows import damaged, note_crc, task_crc
from dalsegno.backends.postgresql.session import Session
from dalsegno.backends.postgresql.writing import calls_of, undo
from dalsegno.core.errors import StoreError, UnknownOutcome
from dalsegno.core.queues import LOOK_THROUGH, Kind, Queue, QueueState, Rate, Task
from dalsegno.core.store import StoredMessage

DOUBT_S = 120.0
NONE = b""


class Queueing:
    """The queues of one store."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._doubts: dict[str, list[tuple[int, float]]] = {}

    # --- tasks -----------------------------------------------------------------------------------------------------

    def take(
        self, queues: Sequence[str], owner: str, limit: int, now_us: int, steps: Collection[str] | None
    ) -> list[Task]:
        """Give tasks to an owner. Those whose row is damaged are left out, and stay his."""
        if not queues or limit <= 0 or (steps is not None and not steps):
            return []
        self._put_doubtful_back(owner)
        taking = random.getrandbits(62) + 1

        def work(session: Session) -> list[Task]:
            answer = session.run(
                qs.TAKE_TASKS,
                wire.texts(dict.fromkeys(queues)),
                wire.text(owner),
                wire.int8(min(limit, wire.INT4_MAX)),
                wire.int8(wire.in_range(now_us)),
                None if steps is None else wire.texts(sorted(steps)),
                wire.int4(LOOK_THROUGH),
                wire.int8(taking),
                session.slot,
            )
            found = [_task(answer, at) for at in range(answer.ntuples)]
            return [task for task in found if task is not None]

        try:
            return self._connections.write(work)
        except UnknownOutcome:
            self._doubts.setdefault(owner, []).append((taking, time.monotonic()))
            raise

    def _put_doubtful_back(self, owner: str) -> None:
        doubts = self._doubts.get(owner)
        if doubts:
            self._return([], owner, [taking for taking, _ in doubts])
            doubts[:] = [one for one in doubts if one[1] > time.monotonic() - DOUBT_S]

    def give_back(self, tasks: Sequence[tuple[int, int]], owner: str) -> None:
        """Put tasks of an owner back where they were."""
        if tasks:
            self._return(tasks, owner, [])

    def _return(self, tasks: Sequence[tuple[int, int]], owner: str, takings: Sequence[int]) -> None:
        fit = sorted(
            {(number, claim) for number, claim in tasks if 0 < number <= wire.INT8_MAX and 0 <= claim <= wire.INT4_MAX}
        )
        numbers, claims = wire.int8s([number for number, _ in fit]), wire.int4s([claim for _, claim in fit])
        whose, called = wire.text(owner), wire.int8s(takings)
        self._connections.write(
            lambda session: session.run(qs.GIVE_BACK, whose, numbers, claims, called, session.channel, session.slot)
        )

    def beat(self, owner: str, details: Mapping[int, bytes]) -> list[int]:
        """Note what tasks have told; the numbers of those that an owner has and that are wanted."""
        self._put_doubtful_back(owner)
        told = sorted((number, one) for number, one in details.items() if 0 < number <= wire.INT8_MAX)
        if told:
            arrays = (
                wire.int8s([number for number, _ in told]),
                wire.int4s([note_crc(one) for _, one in told]),
                wire.byteas([one for _, one in told]),
            )
            self._connections.write(lambda session: session.run(qs.NOTE_TASKS, wire.text(owner), *arrays, session.slot))
        return self._connections.read(lambda session: reading.numbers(session.run(qs.OWNED, wire.text(owner))))

    def tasks_of(self, run: int) -> list[Task]:
        """The tasks of a run that are wanted. Raises `StoreDamaged`."""
        if not 0 < run <= wire.INT8_MAX:
            return []
        answer = self._connections.read(lambda session: session.run(qs.TASKS_OF, wire.int8(run)))
        tasks = []
        for at in range(answer.ntuples):
            task = _task(answer, at)
            if task is None:
                raise damaged(f"task {wire.read_int8(answer.get_value(at, 0) or NONE)} of run {run}", run)
            tasks.append(task)
        return tasks

    # --- notes -----------------------------------------------------------------------------------------------------

    def note(self, run: int, epoch: int, notes: Mapping[str, bytes]) -> bool:
        """Keep something for steps of an open run."""
        if not 0 < run <= wire.INT8_MAX or not 0 <= epoch <= wire.INT4_MAX:
            return False
        whose = wire.int8(run), wire.int4(epoch), wire.texts(notes)
        what = wire.int4s([note_crc(one) for one in notes.values()]), wire.byteas(list(notes.values()))
        return self._connections.write(
            lambda session: session.run(qs.NOTE_RUN, *whose, *what, session.slot).get_value(0, 0) == b"\x01"
        )

    def notes(self, run: int) -> dict[str, bytes]:
        """What is kept for the steps of a run. Raises `StoreDamaged`."""
        if not 0 < run <= wire.INT8_MAX:
            return {}
        answer = self._connections.read(lambda session: session.run(qs.NOTES, wire.int8(run)))
        found: dict[str, bytes] = {}
        for at in range(answer.ntuples):
            crc, step, details = (answer.get_value(at, column) or NONE for column in range(3))
            if note_crc(details) != wire.read_int4(crc):
                raise damaged(f"note for step {wire.read_text(step)} of run {run}", run)
            found[wire.read_text(step)] = details
        return found

    # --- places ----------------------------------------------------------------------------------------------------

    def admit(self, queues: Sequence[str], limit: int, now_us: int) -> list[int]:
        """Let runs begin, in one transaction of two round trips, since each gets a message with a checksum."""
        if not queues or limit <= 0:
            return []
        names, now = wire.texts(dict.fromkeys(queues)), wire.int8(wire.in_range(now_us))
        many = wire.int8(min(limit, wire.INT4_MAX))

        def work(session: Session) -> list[int]:
            if session.run(qs.WORTH_A_LOOK, names, now).get_value(0, 0) != b"\x01":
                return []
            try:
                calls = [(st.BEGIN, ()), (st.LOCK_COUNTER, ()), (qs.ADMIT, (names, many, now, wire.int4(LOOK_THROUGH)))]
                _, counter, admitted = session.together(calls)
            except Lost as error:
                raise Lost(str(error), nothing_applied=True) from error
            except (Again, StoreError):
                undo(session)
                raise
            runs = reading.numbers(admitted)
            wakes = Effects(last_message=wire.read_int8(counter.get_value(0, 0) or NONE))
            for run in runs:
                wakes.last_message = seq = (wakes.last_message or 0) + 1
                wakes.sent[run, seq] = StoredMessage(seq, "wake", "", b"", False, now_us)
            end = [*calls_of(wakes, session.channel), (st.TICK, (session.slot,)), (st.ANNOUNCE, (session.channel,))]
            try:
                session.together([*(end if runs else []), (st.COMMIT, ())])
            except (Again, StoreError):
                undo(session)
                raise
            return runs

        return self._connections.write(work)

    # --- limits ----------------------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Queue]) -> None:
        """Have limits hold for queues of both kinds."""
        known = {state.name: state.limits for state, declared in self._states(False) if declared}
        new: list[Queue] = []
        for queue in queues:
            if known.get(queue.name) != queue:
                known[queue.name] = queue
                new.append(queue)
        if not new:
            return
        rates = [queue.rate for queue in new]
        arrays = (
            wire.texts(queue.name for queue in new),
            wire.optional_int8s(_limit(queue.concurrency) for queue in new),
            wire.optional_int8s(_limit(queue.per_key) for queue in new),
            wire.optional_int8s(None if rate is None else _limit(rate.count) for rate in rates),
            wire.optional_texts(None if rate is None else repr(float(rate.per)) for rate in rates),
        )
        self._connections.write(lambda session: session.run(qs.DECLARE, *arrays, session.slot, session.channel))

    def queues(self, ages: bool) -> list[QueueState]:
        """All queues that were declared or hold something."""
        return sorted((state for state, _ in self._states(ages)), key=lambda state: (state.name, state.kind))

    def _states(self, ages: bool) -> list[tuple[QueueState, bool]]:
        answer = self._connections.read(lambda session: session.run(qs.QUEUES, b"\x01" if ages else b"\0"))
        return [_state(answer, at) for at in range(answer.ntuples)]


def _limit(value: int | None) -> int | None:
    return None if value is None else min(value, wire.INT8_MAX)


def _state(answer: PGresult, at: int) -> tuple[QueueState, bool]:
    cells = [answer.get_value(at, column) for column in range(11)]
    concurrency, per_key, count, waiting, at_work, oldest, next_us = (
        None if cell is None else wire.read_int8(cell) for cell in (*cells[3:6], *cells[7:])
    )
    rate = None if count is None else Rate(count=count, per=float((cells[6] or NONE).decode()))
    limits = Queue(wire.read_text(cells[0] or NONE), concurrency=concurrency, per_key=per_key, rate=rate)
    kind: Kind = "step" if cells[1] == b"step" else "run"
    state = QueueState(
        kind=kind, limits=limits, waiting=waiting or 0, at_work=at_work or 0, oldest_us=oldest, next_us=next_us
    )
    return state, cells[2] == b"\x01"


def _task(answer: PGresult, at: int) -> Task | None:
    """The task in a row, or None where it does not carry its checksum."""
    cells = [answer.get_value(at, column) for column in range(21)]
    int4, int8 = wire.read_int4, wire.read_int8
    run, generation, attempt, priority, claim, deaths = (
        int8(cells[1] or NONE),
        *(int4(cell or NONE) for cell in cells[2:7]),
    )
    queue, workflow_id, step, name, key, owner = (wire.read_text(cell or NONE) for cell in cells[12:18])
    payload, details = cells[18] or NONE, cells[20] or NONE
    if task_crc(run, step, name, payload) != int4(cells[11] or NONE):
        return None
    if cells[19] is not None and note_crc(details) != int4(cells[19]):
        return None
    return Task(
        number=int8(cells[0] or NONE),
        queue=queue,
        run=run,
        workflow_id=workflow_id,
        generation=generation,
        step=step,
        name=name,
        attempt=attempt,
        payload=payload,
        key=key,
        priority=priority,
        timeout_us=None if cells[7] is None else int8(cells[7]),
        once=cells[9] == b"\x01",
        at_us=int8(cells[8] or NONE),
        owner=owner,
        claim=claim,
        deaths=deaths,
        cancelled=cells[10] == b"\x01",
        details=details,
    )
