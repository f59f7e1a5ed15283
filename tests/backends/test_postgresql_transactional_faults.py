"""Transactional steps on PostgreSQL when things go wrong: whatever breaks, what a body did is there once or undone."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dalsegno import (
    All,
    Client,
    Engine,
    Flow,
    Receive,
    Retry,
    RunBlocked,
    StepOutcomeUnknown,
    TimedOut,
    step,
    step_context,
    workflow,
)
from dalsegno.backends.postgresql import PostgresqlBackend, transactional
from dalsegno.backends.postgresql.rows import outcome_crc
from dalsegno.core.errors import StoreError
from dalsegno.core.store import Backend
from dalsegno.core.transactions import StepAttempt, Undone
from dalsegno.testing import explore_crashes
from dalsegno.testing.run_promises import begin
from tests.backends.test_postgresql import behind, opened
from tests.backends.transactional import SOON, Place, attempt_of, do, pay, paying
from tests.postgresql_server import Server, schema_of


@pytest.fixture
def place(postgresql: Server) -> Place:
    """Where this test's store and tables are."""
    return Place(postgresql)


# --- processes that die --------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from dalsegno import Engine, Flow, step, step_context, workflow
from dalsegno.backends.postgresql import PostgresqlBackend

url, ledger, where = sys.argv[1:]

def die(at):
    if where == at:
        os.kill(os.getpid(), signal.SIGKILL)

@step(transactional=True)
def pay(number):
    with open(ledger, "a") as file:
        file.write(f"{number}\\n")
    step_context().connection.execute("INSERT INTO effects (what) VALUES (%s)", [str(number)])
    die(f"in {number}")
    return number

@workflow
def many(count):
    total = 0
    for number in range(count):
        total += yield from pay(number)
    return total

class Mortal(PostgresqlBackend):
    def transact(self, attempt, body):
        result = super().transact(attempt, body)
        die(f"after {int(attempt.step) - 1}")
        return result

with Mortal.open(url.partition(":")[2]) as store, Engine(store, workflows=[many]) as engine:
    print(engine.start(many, 8, id="many").result(timeout=60))
"""


@pytest.mark.parametrize(("where", "again"), [("in 3", 2), ("after 3", 1)])
def test_a_killed_process_has_done_it_once(place: Place, tmp_path: Path, where: str, again: int):
    """Killed in the body, what it wrote is gone and the body runs again; killed between the commit and the entry in the
    history, the body does not run again. Either way its effect is there once."""
    ledger = tmp_path / "ledger"
    for at, status in ((where, -signal.SIGKILL), ("nowhere", 0)):
        command = [sys.executable, "-c", KILLED, place.url, str(ledger), at]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done.stderr
    assert done.stdout.split() == [str(sum(range(8)))]
    assert place.effects == [str(number) for number in range(8)]
    assert ledger.read_text().split().count("3") == again
    assert len(ledger.read_text().split()) == 7 + again


def test_every_crash_and_error_of_the_store_leaves_one_effect(place: Place):
    """Wherever the process dies or the store fails, the run ends as the undisturbed one did, with each effect once."""

    @step(transactional=True, retry=SOON)
    def number_of(what: str) -> int:
        do(what)
        count = "SELECT count(*) FROM effects WHERE what = %s"
        return int(step_context().connection.execute(count, [what]).fetchall()[0][0])

    @workflow
    def counted() -> Flow[list[int]]:
        both = yield from All(number_of("a"), number_of("b"))
        return [*both, (yield from number_of("c"))]

    def store() -> Backend:
        place.ask("TRUNCATE effects")
        return opened(place.server.schema(options=f"-csearch_path={place.own}"))

    report = explore_crashes(counted, store=store, compare=("outcome",), pairs=0, budget=6, progress=False)
    assert report.tried


# --- leases, time-outs and other attempts --------------------------------------------------------------------------


class Held:
    """A body that has written, and waits to be let go."""

    def __init__(self) -> None:
        self.written, self.released, self.left = threading.Event(), threading.Event(), threading.Event()
        self.bodies = 0

    def __call__(self) -> int:
        self.bodies += 1
        do(f"body {self.bodies}")
        number = self.bodies
        if number == 1:
            self.written.set()
            assert self.released.wait(30)
        return number

    def watch(self, store: PostgresqlBackend) -> PostgresqlBackend:
        """Note when the first body's transaction has ended."""
        transact = store.transact

        def noted(attempt: StepAttempt, body: Callable[[Any], bytes]) -> bytes:
            try:
                return transact(attempt, body)
            finally:
                self.left.set()

        store.transact = noted  # type: ignore[method-assign]
        return store


def test_a_worker_that_lost_the_run_undoes_what_it_did(place: Place):
    """Somebody else claimed the run while the body ran: nothing of it is committed, and the step is done once, by
    whoever has the run then."""
    held = Held()

    @step(transactional=True)
    def slow() -> int:
        return held()

    @workflow
    def slowly() -> Flow[int]:
        return (yield from slow())

    with opened(place.url) as other:
        with held.watch(opened(place.url)) as store, Engine(store, workflows=[slowly]) as engine:
            engine.start(slowly, id="s")
            assert held.written.wait(30)
            (lease,) = other.leases()
            number = other.find("s").number  # type: ignore[union-attr]
            assert other.expire(lease)
            assert other.claim([number], "other")
            held.released.set()
            assert held.left.wait(30)
            assert place.effects == []
            assert place.recorded() == []
        other.release([number], "other")
        with Engine(place.url, workflows=[slowly]) as engine:
            assert engine.get("s").result(timeout=30) == 2
    assert place.effects == ["body 2"]


def test_a_body_that_timed_out_does_not_commit_later(place: Place):
    """Its time was up and the workflow was told so: what it wrote is undone when it returns at last."""
    held, told = Held(), threading.Event()

    @step(transactional=True, timeout=0.05, retry=Retry(max_attempts=1))
    def slow() -> int:
        return held()

    @step
    def tell() -> None:
        told.set()

    @workflow
    def slowly() -> Flow[str]:
        with pytest.raises(TimedOut):
            yield from slow()
        yield from tell()
        return (yield from Receive("word", str))

    with held.watch(opened(place.url)) as store, Engine(store, workflows=[slowly]) as engine:
        run = engine.start(slowly, id="s")
        assert told.wait(30)
        held.released.set()
        assert held.left.wait(30)
        assert place.effects == []
        run.signal("word", "over")
        assert run.result(timeout=30) == "over"


def test_a_time_out_does_not_strike_while_it_is_committed(place: Place, monkeypatch: pytest.MonkeyPatch):
    """Once the commit has begun, its outcome is what counts, however long it takes: never both the effect and a
    time-out."""
    record = transactional._record_and_commit

    def slowly_committed(connection: Any, *rest: Any) -> None:
        connection.execute("SELECT pg_sleep(0.3)")
        record(connection, *rest)

    monkeypatch.setattr(transactional, "_record_and_commit", slowly_committed)

    @step(transactional=True, timeout=0.1, retry=Retry(max_attempts=1))
    def quick() -> str:
        step_context().connection.execute("SET LOCAL statement_timeout = 0")
        do("quick")
        return "done"

    @workflow
    def quickly() -> Flow[str]:
        return (yield from quick())

    with Engine(place.url, workflows=[quickly]) as engine:
        assert engine.start(quickly, id="q").result(timeout=30) == "done"
    assert place.effects == ["quick"]


def test_a_time_out_does_not_strike_while_it_is_looked_up(place: Place, monkeypatch: pytest.MonkeyPatch):
    """However long it takes to find that the step was committed before a crash: its time begins with its body."""
    left_behind(place, "pay")
    begin_ = transactional._begin

    def slowly_begun(connection: Any, *rest: Any) -> Any:
        connection.execute("SELECT pg_sleep(0.4)")
        return begin_(connection, *rest)

    monkeypatch.setattr(transactional, "_begin", slowly_begun)

    @workflow(name="paying")
    def impatient(what: str) -> Flow[str]:
        return (yield from pay.options(timeout=0.05, retry=Retry(max_attempts=1))(what))

    with Engine(place.url, workflows=[impatient]) as engine:
        assert engine.get("p").result(timeout=30) == "hello"


def test_a_statement_does_not_take_longer_than_the_step_may(place: Place):
    """Where it waits for a lock of somebody's, the server gives it up with the step's time-out."""
    place.ask("INSERT INTO effects VALUES ('one')")
    waiting = threading.Event()

    @step(transactional=True, retry=Retry(max_attempts=1))
    def update() -> int:
        return step_context().connection.execute("UPDATE effects SET what = 'two'").rowcount

    @step
    def let_go() -> None:
        waiting.set()

    @workflow
    def updating() -> Flow[list[object]]:
        try:
            yield from update.options(timeout=0.2)()
        except (TimedOut, psycopg.errors.QueryCanceled):
            yield from let_go()
        return [(yield from update.options(timeout=30)())]

    with place.server.connect() as connection, Engine(place.url, workflows=[updating]) as engine:
        with connection.transaction():
            connection.execute(f"SELECT * FROM {place.own}.effects FOR UPDATE".encode())
            run = engine.start(updating, id="u")
            assert waiting.wait(30)
        assert run.result(timeout=30) == [1]
    assert place.effects == ["two"]


# --- commits whose outcome is unknown ------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_commit_that_was_not_answered_is_looked_up(place: Place, monkeypatch: pytest.MonkeyPatch, after: bool):
    """The connection is cut just before the server commits, or just after: only the former is a failed attempt."""
    record, cut, bodies = transactional._record_and_commit, list[int](), list[int]()

    def cut_off(connection: Any, *rest: Any) -> None:
        if cut:
            return record(connection, *rest)
        cut.append(connection.info.backend_pid)
        if after:
            record(connection, *rest)
        place.ask("SELECT pg_terminate_backend(%s, 5000)", cut[0])
        connection.execute("SELECT 1")
        raise AssertionError("unreachable: the connection is cut")

    monkeypatch.setattr(transactional, "_record_and_commit", cut_off)

    @step(transactional=True, retry=Retry(max_attempts=1) if after else SOON)
    def once() -> int:
        bodies.append(1)
        do("once")
        return len(bodies)

    @workflow
    def doing() -> Flow[int]:
        return (yield from once())

    with Engine(place.url, workflows=[doing]) as engine:
        assert engine.start(doing, id="d").result(timeout=30) == (1 if after else 2)
    assert cut
    assert place.effects == ["once"]


@pytest.fixture
def begun(place: Place) -> Iterator[tuple[PostgresqlBackend, int, int]]:
    """A store, and a run in it with its epoch, owned by "me"."""
    with opened(place.url) as store:
        run = begin(store)
        (record,) = store.claim([run.number], "me")
        yield store, record.number, record.epoch


def test_a_commit_that_was_given_up_cannot_come_later(place: Place, begun: tuple[PostgresqlBackend, int, int]):
    """When the outcome of a commit was looked for and was not there, the late one is refused, and another attempt goes
    through; also after the lease was claimed anew."""
    store, number, epoch = begun
    attempts = store._transactions

    def given_up(connection: Any) -> bytes:
        connection.execute("INSERT INTO effects (what) VALUES ('late')")
        assert attempts._settled(attempt_of(number, "me", epoch), epoch) is None
        return b"late"

    def done(connection: Any) -> bytes:
        connection.execute("INSERT INTO effects (what) VALUES ('done')")
        return b"done"

    with pytest.raises(Undone):
        store.transact(attempt_of(number, "me", epoch), given_up)
    with pytest.raises(Undone):
        store.transact(attempt_of(number, "me", epoch), done)
    assert place.effects == []
    assert store.transact(attempt_of(number, "me", epoch, attempt=2), done) == b"done"
    assert store.transact(attempt_of(number, "me", epoch, attempt=3), given_up) == b"done"
    assert place.effects == ["done"]


def test_looking_waits_for_a_commit_that_is_on_its_way(place: Place, begun: tuple[PostgresqlBackend, int, int]):
    """A commit the server is just working on is not taken for none."""
    store, number, epoch = begun
    attempt, found = attempt_of(number, "me", epoch), list[Any]()
    with psycopg.connect(place.url.partition("?")[0] + "?" + _only_libpq(place.url)) as slow:
        slow.execute("SET LOCAL dalsegno.step = " + f"'{number}/1'")
        slow.execute(f"SET LOCAL search_path = {schema_of(place.url)}".encode())
        crc = outcome_crc(number, "1", "pay", b"slow")
        slow.execute("SELECT record_step(%s, '1', 'pay', 1, 'me', %s, %s, %b)", [number, epoch, crc, b"slow"])
        looking = threading.Thread(target=lambda: found.append(store._transactions._settled(attempt, epoch)))
        looking.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%settle_step%%'"
        while place.ask(waits) == [(0,)]:
            place.ask("SELECT pg_sleep(0.01)")
        slow.commit()
    looking.join(30)
    assert found == [(crc, "pay", b"slow")]


def _only_libpq(url: str) -> str:
    """The options of a URL that libpq knows."""
    return "&".join(pair for pair in url.partition("?")[2].split("&") if pair.split("=")[0] in ("host", "user"))


def test_of_two_attempts_at_once_one_commits(place: Place, begun: tuple[PostgresqlBackend, int, int]):
    """Whoever comes second gets the answer of the first, and what he did himself is undone."""
    store, number, epoch = begun

    def inner(connection: Any) -> bytes:
        connection.execute("INSERT INTO effects (what) VALUES ('inner')")
        return b"inner"

    def outer(connection: Any) -> bytes:
        connection.execute("INSERT INTO effects (what) VALUES ('outer')")
        assert store.transact(attempt_of(number, "me", epoch, attempt=2), inner) == b"inner"
        return b"outer"

    assert store.transact(attempt_of(number, "me", epoch), outer) == b"inner"
    assert place.effects == ["inner"]


@pytest.mark.parametrize("whose", [("other", 0), ("me", 1), ("me", -1)])
def test_only_who_holds_the_run_commits(
    place: Place, begun: tuple[PostgresqlBackend, int, int], whose: tuple[str, int]
):
    """Another owner, or another epoch of the same, commits nothing."""
    store, number, epoch = begun
    with pytest.raises(Undone, match="taken its run over"):
        store.transact(attempt_of(number, whose[0], epoch + whose[1]), lambda connection: b"")
    assert place.recorded() == []


def test_a_closed_store_runs_no_body(place: Place):
    """After `close` it says so; and what is given back then is closed."""
    store = opened(place.url)
    run = begin(store)

    def closing(connection: Any) -> bytes:
        store.close()
        return b""

    with pytest.raises((StoreError, Undone)):
        store.transact(attempt_of(run.number, "nobody", run.epoch), closing)
    with pytest.raises(StoreError, match="closed"):
        store.transact(attempt_of(run.number, "me", 1), closing)


# --- what is found after a crash -----------------------------------------------------------------------------------


def left_behind(place: Place, name: str, damaged: bool = False) -> None:
    """A run whose step 1, called `name`, was committed by a worker that died before it could say so."""
    with Client(place.url) as client, opened(place.url) as store:
        client.start(paying, "one", id="p")
        number = store.find("p").number  # type: ignore[union-attr]
        (record,) = store.claim([number], "dead")
        attempt = StepAttempt(
            run=number, step="1", name=name, attempt=1, timeout=None, holder=lambda: ("dead", record.epoch)
        )
        store.transact(attempt, lambda connection: b"\xa5hello")
        if damaged:
            behind(place.server, place.url, "UPDATE step_outcomes SET result = '\\xa5' || convert_to('jello', 'UTF8')")
            (problem,) = store.check()
            assert (problem.run, problem.what) == ("p#1", "does not carry the checksum it was written with")


def test_what_was_committed_before_a_crash_is_the_outcome(place: Place):
    """The body is not called, and the workflow goes on with the answer that was committed."""
    left_behind(place, "pay")
    with Engine(place.url, workflows=[paying]) as engine:
        assert engine.get("p").result(timeout=30) == "hello"
    assert place.effects == []


def test_a_run_whose_code_changed_over_a_committed_step_is_blocked(place: Place):
    """Another step in its place would have no effect and get the other one's answer: the run waits for mended code."""
    left_behind(place, "refund")
    with Engine(place.url, workflows=[paying]) as engine, pytest.raises(RunBlocked, match="'refund' was committed"):
        engine.get("p").result(timeout=30)

    @step(name="refund", transactional=True)
    def refund(what: str) -> str:
        raise AssertionError("it is done already")

    @workflow(name="paying")
    def mended(what: str) -> Flow[str]:
        return (yield from refund(what))

    with Engine(place.url, workflows=[mended]) as engine:
        assert engine.get("p").result(timeout=30) == "hello"


def test_a_damaged_outcome_is_not_taken_for_one(place: Place):
    """The check names it, and the workflow hears that the step was committed and its answer is lost."""
    left_behind(place, "pay", damaged=True)
    with Engine(place.url, workflows=[paying]) as engine, pytest.raises(StepOutcomeUnknown, match="checksum"):
        engine.get("p").result(timeout=30)
    assert place.effects == []
