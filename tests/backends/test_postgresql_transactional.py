"""Transactional steps on PostgreSQL in good order, and eight workers of them: what a body may do, and may not."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from dalsegno import (
    All,
    Client,
    Engine,
    Flow,
    Retry,
    UseError,
    Worker,
    step,
    step_context,
    workflow,
)
from tests.backends.test_postgresql import opened
from tests.backends.transactional import SOON, Place, do, pay
from tests.postgresql_server import Server


@pytest.fixture
def place(postgresql: Server) -> Place:
    """Where this test's store and tables are."""
    return Place(postgresql)


# --- in good order -------------------------------------------------------------------------------------------------


def test_what_a_body_wrote_and_its_record_are_committed_together(place: Place):
    """Each body finds the program's own tables, its answer comes out of the transaction, branches go side by side; and
    when the run has ended, nothing is left behind in the store."""
    seen = list[list[tuple[Any, ...]]]()

    @step(transactional=True)
    def look() -> int:
        seen.append(place.recorded())
        return int(step_context().connection.execute("SELECT count(*) FROM effects").fetchall()[0][0])

    @workflow
    def several() -> Flow[list[object]]:
        first = yield from pay("one")
        both = yield from All(pay("two"), pay("three"))
        return [first, *both, (yield from look())]

    with Engine(place.url, workflows=[several]) as engine:
        assert engine.start(several, id="s").result(timeout=30) == ["paid one", "paid two", "paid three", 3]
    assert sorted(place.effects) == ["one", "three", "two"]
    assert sorted(seen[0]) == [("1", "pay", 1, True), ("2.1", "pay", 1, True), ("2.2", "pay", 1, True)]
    assert place.recorded() == []
    with opened(place.url) as store:
        assert store.check() == []


def test_a_body_that_raises_leaves_nothing(place: Place):
    """Its transaction is undone, whatever it raises, and the next attempt has one of its own."""

    @step(transactional=True, retry=SOON)
    def third_time_lucky() -> int:
        do("lucky")
        attempt = step_context().attempt
        if attempt == 1:
            raise ConnectionError("not mine")
        if attempt == 2:
            step_context().connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return attempt

    @step(transactional=True)
    def refused() -> None:
        do("refused")
        step_context().connection.execute("SELECT 1/0")

    @step(transactional=True)
    def not_storable() -> object:
        do("not storable")
        return threading.Lock()

    @workflow
    def trying() -> Flow[list[object]]:
        said: list[object] = [(yield from third_time_lucky())]
        for one in (refused, not_storable):
            try:
                yield from one()
            except (psycopg.errors.DivisionByZero, TypeError) as error:
                said.append(type(error).__name__)
        return said

    with Engine(place.url, workflows=[trying]) as engine:
        assert engine.start(trying, id="t").result(timeout=30) == [3, "DivisionByZero", "EncodeError"]
    assert place.effects == ["lucky"]


def test_a_server_that_only_reads_now_is_left(place: Place):
    """What fails because the primary has become a standby is done again, on another connection."""
    sessions = list[int]()

    @step(transactional=True, retry=SOON)
    def write() -> None:
        connection = step_context().connection
        sessions.append(connection.info.backend_pid)
        if len(sessions) == 1:
            connection.execute("SET TRANSACTION READ ONLY")
        do("written")

    @workflow
    def writing() -> Flow[None]:
        yield from write()

    with Engine(place.url, workflows=[writing]) as engine:
        engine.start(writing, id="w").result(timeout=30)
    assert place.effects == ["written"]
    assert len(set(sessions)) == 2


def test_savepoints_are_the_bodys_own(place: Place):
    """What a body undoes in a nested transaction is undone, and the rest is committed; it may choose the isolation."""

    @step(transactional=True)
    def careful() -> str:
        connection = step_context().connection
        connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        do("kept")
        with connection.transaction(force_rollback=True):
            do("dropped")
        return str(connection.execute("SHOW transaction_isolation").fetchall()[0][0])

    @workflow
    def being_careful() -> Flow[str]:
        return (yield from careful())

    with Engine(place.url, workflows=[being_careful]) as engine:
        assert engine.start(being_careful, id="c").result(timeout=30) == "serializable"
    assert place.effects == ["kept"]


def swallow(connection: psycopg.Connection[Any]) -> None:
    """Go on as if a statement had not failed."""
    try:
        connection.execute("SELECT 1/0")
    except psycopg.Error:
        pass


ENDINGS: dict[str, Callable[[psycopg.Connection[Any]], object]] = {
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "close": lambda connection: connection.close(),
    "with": lambda connection: connection.__enter__(),
    "ROLLBACK": lambda connection: connection.execute("ROLLBACK"),
    "ROLLBACK; BEGIN": lambda connection: connection.execute("ROLLBACK; BEGIN"),
    "swallowed": swallow,
}


@pytest.mark.parametrize("way", ENDINGS)
def test_a_body_does_not_end_its_transaction(place: Place, way: str):
    """It is told so, finally, and nothing is recorded that was not committed with the record."""

    @step(transactional=True, retry=SOON)
    def ending() -> None:
        do("before")
        ENDINGS[way](step_context().connection)

    @workflow
    def ended() -> Flow[None]:
        yield from ending()

    with Engine(place.url, workflows=[ended]) as engine, pytest.raises(UseError, match="transaction"):
        engine.start(ended, id="e").result(timeout=30)
    assert place.effects == []
    assert place.recorded() == []


def test_a_connection_comes_as_new(place: Place):
    """Whatever the body before has set on it, told its server, or left lying there."""

    @step(transactional=True)
    def leave_things() -> int:
        connection = step_context().connection
        connection.row_factory = dict_row
        connection.execute("SET search_path = pg_catalog; SET statement_timeout = 900000; SELECT pg_advisory_lock(1)")
        connection.execute("CREATE TEMPORARY TABLE leftover (one integer); LISTEN something")
        return connection.info.backend_pid

    @step(transactional=True)
    def find_none() -> list[object]:
        connection = step_context().connection
        return [
            connection.info.backend_pid,
            connection.execute("SHOW search_path").fetchall()[0][0],
            connection.execute("SHOW statement_timeout").fetchall()[0][0],
            connection.execute("SELECT to_regclass('leftover') IS NULL").fetchall()[0][0],
            connection.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            ).fetchall()[0][0],
        ]

    @workflow
    def one_after_another() -> Flow[list[object]]:
        return [(yield from leave_things()), *(yield from find_none())]

    with Engine(place.url, workflows=[one_after_another]) as engine:
        first, *found = engine.start(one_after_another, id="o").result(timeout=30)
    assert found == [first, place.own, "1min", True, 0]


# --- many ----------------------------------------------------------------------------------------------------------


def test_many_workers_count_exactly(place: Place):
    """Eight workers, four hundred runs, one row that all of them read and write: nothing is lost or doubled, with locks
    or with serialization failures, which are tried again by themselves."""
    place.ask("CREATE TABLE counters (name text PRIMARY KEY, value integer); INSERT INTO counters VALUES ('a', 0)")

    @step(transactional=True)
    def add_locking() -> None:
        step_context().connection.execute("UPDATE counters SET value = value + 1")

    @step(transactional=True, retry=Retry(max_attempts=1000, initial=0.002, maximum=0.02))
    def add_reading() -> None:
        connection = step_context().connection
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ((value,),) = connection.execute("SELECT value FROM counters").fetchall()
        connection.execute("UPDATE counters SET value = %s", [value + 1])

    @workflow
    def adding(number: int) -> Flow[None]:
        yield from add_locking()
        if number % 4 == 0:
            yield from add_reading()

    workers = [Worker(place.url, workflows=[adding], step_threads=3) for _ in range(8)]
    with Client(place.url) as client:
        runs = client.start_many(adding, [(f"{number}", (number,)) for number in range(400)])
        for worker in workers:
            worker.start()
        for run in runs:
            run.result(timeout=60)
        for worker in workers:
            worker.stop()
    assert place.ask("SELECT value FROM counters") == [(500,)]
    assert place.recorded() == []


def test_what_the_guide_shows_is_so(place: Place, capsys: pytest.CaptureFixture[str]):
    """The snippet of docs/postgresql.md runs as it stands there, but for the address, and prints what is said."""
    guide = Path(__file__).resolve().parents[2].joinpath("docs/postgresql.md").read_text("utf-8")
    section = guide.partition("## Steps that write to the database")[2]
    code, printed = re.findall(r"^```(?:python|text)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[:2]
    place.ask("CREATE TABLE account (owner text, balance integer)")
    place.ask("INSERT INTO account VALUES ('the company', 500), ('Ada', 0), ('Bob', 0)")
    exec(code.replace("postgresql://orders@db.example/orders", place.url), {"__name__": "guide"})
    assert capsys.readouterr().out == printed
    assert place.ask("SELECT balance FROM account ORDER BY 1") == [(100,), (100,), (300,)]
