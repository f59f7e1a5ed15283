"""Writing a group of creations, transitions and messages in one transaction.

Two ways, and what they do is the same:

* **One round trip**, for transitions that only append events to active runs, which are nearly all: a function of the
  store compares epoch and head, appends, and is undone as a whole where one of them does not fit. Nothing of it is
  applied then, and the other way is gone.
* **Two round trips** for everything else. The first begins a transaction, locks the rows of all runs that are named
  and reads what is to be known of them; the decisions are made here, in memory (`planning`); the second writes what
  follows, a statement for each kind of row with its values as arrays, and commits.

**Numbers of messages.** `news(after)` must never miss a message, so one with a lower number must not become visible
later than one with a higher. A sequence does not give that: it counts when it is asked, and transactions commit in
another order. So messages are numbered from a row, `counters`, which is locked until the commit: whoever sends waits
for whoever sent before. Reading only below `pg_snapshot_xmin` would let them go side by side, but any long transaction
in the whole cluster would then hold back everybody's messages, and a restored dump would begin with wrong ones.

**Order of locks**: the counter first, then runs by their numbers, then what belongs to queues, in the second round
trip (`migrations/003_queues.sql` tells their order). Transactions without messages leave the counter alone, unless they
create runs that wait: whoever lets such runs begin holds it, and comes to their rows after those of the queue. What is
not known before (a run that came about between two statements) may be locked out of order; PostgreSQL then undoes one
of two transactions, which is done again.

**Who is the newest run of an id** can change until its row is locked. A run made after an older one needs the lock of
that older one, so that a row which is open when the lock is given is the newest for certain; one that is closed is
looked up once more, after the lock.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.pq.abc import PGresult

from dalsegno.backends.postgresql import queue_planning, wire
from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql.failures import Again, Lost, Rejected
from dalsegno.backends.postgresql.planning import DedupKey, Effects, Known, Plan, dedup_key
from dalsegno.backends.postgresql.rows import Row, event_crc, message_crc, published_crc, rows_of
from dalsegno.backends.postgresql.session import Call, Session
from dalsegno.core.errors import StoreError
from dalsegno.core.store import APPLIED, Created, Message, NewRun, Sent, Transition, Verdict

Answers = tuple[list[Created], list[Verdict], list[tuple[Sent, int]]]

LOOKS = 5  # at runs that others make while we look; two are the most that was ever seen


def write(
    session: Session,
    creations: Sequence[NewRun],
    transitions: Sequence[Transition],
    messages: Sequence[Message],
    at_us: int,
) -> Answers:
    """Write all of it in one commit. Raises what `Session.run` does."""
    if not creations and not messages and all(map(only_appends, transitions)):
        try:
            if len({t.run for t in transitions}) == len(transitions):
                _append_many(session, transitions)
                return [], [APPLIED] * len(transitions), []
        except Rejected:
            pass
    return _in_two_trips(session, creations, transitions, messages, at_us)


# --- one round trip ------------------------------------------------------------------------------------------------


def only_appends(t: Transition) -> bool:
    """Whether a transition does nothing but append events to an active run."""
    return (
        t.active
        and t.status is None
        and t.reason is None
        and 0 <= t.head < 2**30
        and not (t.consumed or t.timers_set or t.timers_cleared or t.messages or t.children or t.published)
        and not (t.restored or t.tasks or t.tasks_dropped or t.tasks_withdrawn)
        and t.continued is None
    )


def append_one(session: Session, t: Transition) -> None:
    """Append the one event of a transition which does nothing else. Raises `Rejected` if it does not fit."""
    run, head, (event,) = t.run, t.head, t.events
    session.run(
        st.APPEND_ONE,
        wire.int8(run),
        wire.int4(t.epoch),
        wire.int4(head),
        wire.int4(event_crc(run, head, event)),
        event,
        session.slot,
    )


def _append_many(session: Session, transitions: Sequence[Transition]) -> None:
    ordered = sorted(transitions, key=_run_of)  # as everybody locks rows
    events = [(t.run, seq, event) for t in ordered for seq, event in enumerate(t.events, t.head)]
    session.run(
        st.APPEND_MANY,
        wire.int8s([t.run for t in ordered]),
        wire.int4s([t.epoch for t in ordered]),
        wire.int4s([t.head for t in ordered]),
        wire.int4s([len(t.events) for t in ordered]),
        wire.int8s([run for run, _, _ in events]),
        wire.int4s([seq for _, seq, _ in events]),
        wire.int4s([event_crc(run, seq, event) for run, seq, event in events]),
        wire.byteas([event for _, _, event in events]),
        session.slot,
    )


def _run_of(t: Transition) -> int:
    return t.run


# --- two round trips -----------------------------------------------------------------------------------------------


def _in_two_trips(
    session: Session,
    creations: Sequence[NewRun],
    transitions: Sequence[Transition],
    messages: Sequence[Message],
    at_us: int,
) -> Answers:
    asked = _Asked(creations, transitions, messages)
    try:
        plan = Plan(_look(session, asked), at_us)
    except Lost as error:
        raise Lost(str(error), nothing_applied=True) from error
    except (Again, StoreError):
        undo(session)
        raise
    created = [plan.create(new) for new in creations]
    verdicts = [plan.apply(transition) for transition in transitions]
    sent = [plan.send(message) for message in messages]
    calls = [] if plan.effects.empty else [*calls_of(plan.effects, session.channel), (st.TICK, (session.slot,))]
    if plan.effects.announced:
        calls.append((st.ANNOUNCE, (session.channel,)))
    try:
        session.together([*calls, (st.COMMIT, ())])
    except (Again, StoreError):
        undo(session)
        raise
    return created, verdicts, sent


def undo(session: Session) -> None:
    """End a transaction that came to nothing."""
    if session.in_transaction:
        session.run(st.ROLLBACK)


class _Asked:
    """What a group of writes names, and so must be locked and known."""

    def __init__(
        self, creations: Sequence[NewRun], transitions: Sequence[Transition], messages: Sequence[Message]
    ) -> None:
        children = [child for t in transitions for child in t.children]
        continued = [t.continued for t in transitions if t.continued is not None]
        self.sent = [*messages, *(message for t in transitions for message in t.messages)]
        made = [*creations, *children, *continued]
        self.numbers = sorted({t.run for t in transitions if 0 < t.run <= wire.INT8_MAX})
        ids = {new.workflow_id for new in (*creations, *children)}
        ids |= {message.workflow_id for message in self.sent if message.generation is None}
        self.ids = sorted(ids)
        named = {(m.workflow_id, m.generation) for m in self.sent if m.generation is not None}
        self.named = sorted((one, number) for one, number in named if 0 < number <= wire.INT4_MAX)
        self.keys = sorted({dedup_key(message) for message in self.sent if message.dedup is not None})
        self.closing: dict[int, int] = {}
        for t in transitions:
            if t.status is not None and not t.status.open:
                self.closing[t.run] = min(t.seen, self.closing.get(t.run, t.seen))
        self.queues = queue_planning.Asked(creations, transitions, self.sent, list(self.closing))
        self.fresh = len(made)
        self.numbers_messages = bool(self.sent) or any(
            not new.owner or new.messages_above or new.place is not None for new in made
        )


def _look(session: Session, asked: _Asked) -> Known:
    """Begin a transaction, lock what is named, and read what is to be known of it."""
    digests = {wire.digest(one): one for one in asked.ids}
    keys = list(digests)
    calls: list[Call] = [(st.BEGIN, ())]
    if asked.numbers_messages:
        calls.append((st.LOCK_COUNTER, ()))
    lock: Call = (
        st.LOCK_RUNS,
        (
            wire.int8s(asked.numbers),
            wire.uuids(keys),
            wire.uuids([wire.digest(one) for one, _ in asked.named]),
            wire.int4s([generation for _, generation in asked.named]),
        ),
    )
    newest: Call = (st.NEWEST, (wire.uuids(keys),))
    calls.append(lock)
    if keys:
        calls.append(newest)
    if asked.keys:
        calls.append(
            (st.ACCEPTED, (wire.uuids([one for one, _ in asked.keys]), wire.uuids([k for _, k in asked.keys])))
        )
    if asked.closing:
        seen = [max(-1, min(one, wire.INT8_MAX)) for one in asked.closing.values()]
        calls.append((st.UNSEEN, (wire.int8s(list(asked.closing)), wire.int8s(seen))))
    calls += asked.queues.calls()
    if asked.fresh:
        calls.append((st.NUMBERS, (wire.int4(asked.fresh),)))
    answers = {call[0].name: result for call, result in zip(calls, session.together(calls), strict=True)}
    known = _known(answers, asked)
    by_place = list(digests.values())
    for _ in range(LOOKS):
        if not keys or _name_newest(known, answers[st.NEWEST.name], by_place):
            known.named = {(row.workflow_id, row.generation): row for row in known.runs.values()}
            return known
        # Somebody made a newer run of an id before we had the lock of the older one.
        again = session.together([lock, newest])
        answers[st.NEWEST.name] = again[1]
        known.runs = {row.number: row for row in rows_of(again[0])}
    raise Again("runs of the same ids come and go")


def _known(answers: dict[bytes, PGresult], asked: _Asked) -> Known:
    known = Known({row.number: row for row in rows_of(answers[st.LOCK_RUNS.name])})
    int8 = wire.read_int8
    if counter := answers.get(st.LOCK_COUNTER.name):
        known.last_message = int8(_cell(counter, 0, 0))
    if accepted := answers.get(st.ACCEPTED.name):
        for at in range(accepted.ntuples):
            key: DedupKey = (_cell(accepted, at, 0), _cell(accepted, at, 1))
            known.accepted[key] = int8(_cell(accepted, at, 2))
    if unseen := answers.get(st.UNSEEN.name):
        for at in range(unseen.ntuples):
            known.unseen.setdefault(int8(_cell(unseen, at, 0)), []).append(int8(_cell(unseen, at, 1)))
    known.queues = asked.queues.known(answers)
    if numbers := answers.get(st.NUMBERS.name):
        known.numbers = [int8(_cell(numbers, at, 0)) for at in range(numbers.ntuples)]
    return known


def _name_newest(known: Known, newest: PGresult, by_place: Sequence[str]) -> bool:
    """Note which run is the newest of each id; false if one of them is not among those that are locked."""
    known.newest = {}
    for at in range(newest.ntuples):
        number = wire.read_int8(_cell(newest, at, 1))
        row = known.runs.get(number)
        if row is None:
            return False
        known.newest[by_place[wire.read_int8(_cell(newest, at, 0)) - 1]] = row
    return True


def _cell(result: PGresult, row: int, column: int) -> bytes:
    value = result.get_value(row, column)
    assert value is not None
    return value


# --- what a plan changes -------------------------------------------------------------------------------------------


def calls_of(effects: Effects, channel: bytes) -> list[Call]:
    """The statements that write what a plan has gathered; queues come last, as their locks do."""
    calls: list[Call] = []
    made = {row.number for row in effects.made}
    changed = sorted((row for number, row in effects.changed.items() if number not in made), key=_number_of)
    if effects.made:
        calls.append((st.INSERT_RUNS, _new_runs(effects.made)))
    if changed:
        calls.append((st.UPDATE_RUNS, _changed_runs(changed)))
    if effects.events:
        runs, seqs, crcs, events = zip(*effects.events, strict=True)
        calls.append((st.INSERT_EVENTS, (wire.int8s(runs), wire.int4s(seqs), wire.int4s(crcs), wire.byteas(events))))
    if effects.taken:
        calls.append((st.TAKE_MESSAGES, _where(effects.taken)))
    if effects.cleared:
        cleared = wire.int8s(effects.cleared)
        calls += [(st.CLEAR_MESSAGES, (cleared,)), (st.CLEAR_TIMERS, (cleared,)), (st.CLEAR_OUTCOMES, (cleared,))]
    if effects.sent:
        calls.append((st.INSERT_MESSAGES, _messages(effects)))
    calls += _timers(effects)
    if effects.published:
        calls += _published(effects)
    if effects.accepted:
        keys = [key for key, _, _ in effects.accepted]
        of_runs = wire.int8s([run for _, run, _ in effects.accepted])
        texts = wire.texts(text for _, _, text in effects.accepted)
        calls.append(
            (
                st.INSERT_DEDUPLICATIONS,
                (wire.uuids([one for one, _ in keys]), wire.uuids([key for _, key in keys]), of_runs, texts),
            )
        )
    if effects.last_message is not None:
        calls.append((st.RAISE_COUNTER, (wire.int8(effects.last_message),)))
    calls += effects.queues.calls(channel)
    if noted := [run for run in effects.cleared if run in effects.queues.noted]:
        calls.append((st.CLEAR_NOTES, (wire.int8s(noted),)))  # after the tasks, for which whoever notes is waited for
    return calls


def _number_of(row: Row) -> int:
    return row.number


def _new_runs(rows: Sequence[Row]) -> tuple[bytes, ...]:
    return (
        wire.int8s([row.number for row in rows]),
        wire.uuids([wire.digest(row.workflow_id) for row in rows]),
        wire.texts(row.workflow_id for row in rows),
        wire.int4s([row.generation for row in rows]),
        wire.texts(row.workflow for row in rows),
        wire.texts(row.status.value for row in rows),
        wire.bools(row.active for row in rows),
        wire.int8s([wire.in_range(row.created_at_us) for row in rows]),
        wire.byteas([row.digest for row in rows]),
        wire.optional_int8s(row.closed_at_us for row in rows),
        wire.jsonbs(row.tags for row in rows),
        wire.optional_texts(row.parent[0] if row.parent else None for row in rows),
        wire.optional_int4s(row.parent[1] if row.parent else None for row in rows),
        wire.optional_texts(row.parent[2] if row.parent else None for row in rows),
        wire.int4s([row.epoch for row in rows]),
        wire.texts(row.owner for row in rows),
        wire.int4s([row.deaths for row in rows]),
        wire.texts(row.reason for row in rows),
        wire.bools(row.restore for row in rows),
        wire.int4s([row.head for row in rows]),
        wire.int8s([row.last_message for row in rows]),
    )


def _changed_runs(rows: Sequence[Row]) -> tuple[bytes, ...]:
    return (
        wire.int8s([row.number for row in rows]),
        wire.texts(row.status.value for row in rows),
        wire.bools(row.active for row in rows),
        wire.optional_int8s(row.closed_at_us for row in rows),
        wire.int4s([row.deaths for row in rows]),
        wire.texts(row.reason for row in rows),
        wire.bools(row.restore for row in rows),
        wire.int4s([row.head for row in rows]),
        wire.int8s([row.last_message for row in rows]),
    )


def _where(pairs: Sequence[tuple[int, int]]) -> tuple[bytes, bytes]:
    fit = [(run, seq) for run, seq in pairs if 0 < seq <= wire.INT8_MAX]
    return wire.int8s([run for run, _ in fit]), wire.int8s([seq for _, seq in fit])


def _messages(effects: Effects) -> tuple[bytes, ...]:
    sent = [(run, message) for (run, _), message in effects.sent.items()]
    return (
        wire.int8s([message.seq for _, message in sent]),
        wire.int8s([run for run, _ in sent]),
        wire.int8s([message.at_us for _, message in sent]),
        wire.int4s([message_crc(run, message) for run, message in sent]),
        wire.bools(message.failed for _, message in sent),
        wire.texts(message.kind for _, message in sent),
        wire.texts(message.name for _, message in sent),
        wire.byteas([message.payload for _, message in sent]),
    )


def _timers(effects: Effects) -> list[Call]:
    calls: list[Call] = []
    for statement, wanted in ((st.DELETE_TIMERS, False), (st.INSERT_TIMERS, True)):
        timers = [where for where, is_set in effects.timers.items() if is_set is wanted]
        if timers:
            runs, deadlines, keys = zip(*timers, strict=True)
            calls.append((statement, (wire.int8s(runs), wire.int8s(deadlines), wire.texts(keys))))
    return calls


def _published(effects: Effects) -> list[Call]:
    values = [(run, key, value) for (run, key), value in effects.published.items()]
    runs, keys = wire.int8s([run for run, _, _ in values]), wire.texts(key for _, key, _ in values)
    crcs = wire.int4s([published_crc(run, key, value) for run, key, value in values])
    return [
        (st.DELETE_PUBLISHED, (runs, keys)),
        (st.INSERT_PUBLISHED, (runs, crcs, keys, wire.byteas([value for _, _, value in values]))),
    ]
