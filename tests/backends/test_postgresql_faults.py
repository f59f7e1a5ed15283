"""The store on PostgreSQL when things go wrong: servers that restart or fail over, full disks, forks, old tables."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dalsegno.backends.postgresql import migrations
from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql.failures import Lost
from dalsegno.backends.postgresql.session import Session
from dalsegno.core.errors import BadOption, StoreError, StoreFull, StoreInUse, StoreUnusable, UnknownOutcome
from dalsegno.core.transactions import StepAttempt
from dalsegno.testing.run_promises import apply, begin, end, new_run, signal, step
from tests.backends.test_postgresql import behind, opened
from tests.postgresql_server import OwnServer, Server, schema_of


@pytest.fixture
def url(postgresql: Server) -> str:
    """Where a store may be made."""
    return postgresql.schema()


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    """A server that nobody else uses, and that flushes nothing."""
    with tempfile.TemporaryDirectory(prefix="dalsegno-pg-") as name:
        Path(name).chmod(0o755)
        server = OwnServer(Path(name, "first"))
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()


class Breaking:
    """Ends the session of a store just before, or just after, the server has done a statement."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: Server, statement: st.Statement, after: bool) -> None:
        self.left = 1
        run, together = Session.run, Session.together

        def around(session: Session, statements: list[st.Statement], do: Callable[[], Any]) -> Any:
            hit = self.left and statement in statements
            if hit:
                self.left -= 1
            answer = do() if not hit or after else None
            if hit:
                with server.connect() as connection:
                    connection.execute("SELECT pg_terminate_backend(%s, 5000)", [session.connection.info.backend_pid])
                answer = do() if not after else answer
                if after:
                    raise Lost("the connection broke")
            return answer

        monkeypatch.setattr(
            Session, "run", lambda session, one, *values: around(session, [one], lambda: run(session, one, *values))
        )
        monkeypatch.setattr(
            Session,
            "together",
            lambda session, calls: around(session, [one for one, _ in calls], lambda: together(session, calls)),
        )


# --- connections that break ----------------------------------------------------------------------------------------


def test_a_connection_that_broke_in_a_calm_is_replaced(own_server: OwnServer):
    """When the server was restarted meanwhile, reading and writing go on as if nothing had been, and the place of the
    engine is taken again."""
    url = own_server.with_options(schema="orders")
    with opened(url) as store, opened(url) as other:
        store.hold("one")
        run = begin(store)
        own_server.stop("fast")
        own_server.start()
        apply(store, step(run, 1, b"e"))
        assert store.history(run.number) == [b"started", b"e"]
        with pytest.raises(StoreInUse) as caught:
            other.hold("two")
        assert caught.value.owner == "one"


def test_the_place_of_the_engine_can_be_lost_with_the_connection(postgresql: Server, url: str):
    """If somebody else has become the engine while the connection was broken, this handle writes no more."""
    with opened(url) as store, opened(url) as other:
        store.hold("one")
        run = begin(store)
        (pid,) = behind(postgresql, url, "SELECT backend FROM writers ORDER BY slot LIMIT 1")[0]
        with postgresql.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        other.hold("two")
        with pytest.raises(StoreInUse) as caught:
            store.commit([step(run, 1, b"e")])
        assert caught.value.owner == "two"
        assert store.head(run.number) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("statement", [st.APPEND_ONE, st.COMMIT, st.CLAIM], ids=lambda one: one.name.decode())
def test_a_commit_whose_answer_is_lost_may_have_been_applied(
    postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch, statement: st.Statement, after: bool
):
    """The connection that breaks in a commit is `UnknownOutcome`; reading tells, and the next commit goes through."""
    with opened(url) as store:
        run = begin(store)
        known = begin(store, "known")  # its statements are prepared: one that cannot be is certain to do nothing
        apply(store, step(known, 1, b"e"))
        apply(store, step(known, 2, b"e", active=False))
        store.claim([known.number], "me")
        work: dict[st.Statement, Callable[[], object]] = {
            st.APPEND_ONE: lambda: store.commit([step(run, 1, b"e")]),
            st.COMMIT: lambda: store.commit([step(run, 1, b"e", active=False)]),
            st.CLAIM: lambda: store.claim([run.number], "me"),
        }
        Breaking(monkeypatch, postgresql, statement, after)
        with pytest.raises(UnknownOutcome, match="may or may not"):
            work[statement]()
        found = store.record(run.number)
        assert found is not None
        applied = found.epoch == run.epoch + 1 if statement is st.CLAIM else store.head(run.number) == 2
        assert applied is after
        begin(store, "next")
        assert store.check() == []


def test_a_connection_that_breaks_before_the_commit_costs_nothing(
    postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch
):
    """While the store only looks, nothing can have been applied, and it is done again on a new connection."""
    with opened(url) as store:
        run = begin(store)
        Breaking(monkeypatch, postgresql, st.LOCK_RUNS, False)
        apply(store, step(run, 1, b"e", active=False))
        Breaking(monkeypatch, postgresql, st.HISTORY, False)
        assert store.history(run.number) == [b"started", b"e"]


def test_what_is_down_is_said_and_comes_back(own_server: OwnServer):
    """While the server is down, all calls are `StoreUnusable` after a bounded time; then the same handle goes on."""
    with opened(own_server.with_options(schema="orders", reconnect=0.2)) as store:
        run = begin(store)
        own_server.stop()
        for call in (lambda: store.record(run.number), lambda: store.send([signal()], 1), store.changes):
            with pytest.raises(StoreError) as caught:
                call()
            assert isinstance(caught.value, StoreUnusable | UnknownOutcome)
        own_server.start()
        apply(store, step(run, 1, b"e"))
        assert store.head(run.number) == 2


def test_a_call_waits_for_a_server_that_restarts(own_server: OwnServer):
    """Within `reconnect` seconds a call waits for the server instead of failing."""
    with opened(own_server.with_options(schema="orders", reconnect=60)) as store:
        run = begin(store)
        own_server.stop()
        restart = threading.Thread(target=own_server.start)
        restart.start()
        assert store.history(run.number) == [b"started"]
        restart.join()


def test_a_body_waits_for_a_server_that_is_gone(own_server: OwnServer, monkeypatch: pytest.MonkeyPatch):
    """Before it has begun, it costs no attempt that the store cannot be reached: it begins when the server is back."""
    with opened(own_server.with_options(schema="orders", reconnect=0.05)) as store:
        run = begin(store)
        (record,) = store.claim([run.number], "me")
        waited, found = threading.Event(), list[bytes]()
        monkeypatch.setattr(store._connections, "pause", lambda seconds: waited.set())
        number, epoch = record.number, record.epoch
        attempt = StepAttempt(run=number, step="1", name="pay", attempt=1, timeout=None, holder=lambda: ("me", epoch))
        store.transact(attempt, lambda connection: b"before")
        own_server.stop()
        going = threading.Thread(target=lambda: found.append(store.transact(attempt, lambda connection: b"after")))
        going.start()
        assert waited.wait(30)
        own_server.start()
        going.join(30)
    assert found == [b"before"]


def test_a_promoted_standby_is_found(own_server: OwnServer):
    """With both hosts in the URL the store goes on at the standby that was promoted, with all that was there."""
    standby = own_server.copy(Path(own_server.cluster.folder).with_name("second"))
    standby.start()
    try:
        hosts = f"{own_server.cluster.sockets},{standby.cluster.sockets}"
        url = f"postgresql:///postgres?host={hosts}&user=postgres&schema=orders&reconnect=20"
        with opened(url) as store:
            run = begin(store)
            store.send([signal()], 1)
            with own_server.connect() as connection:
                ((until,),) = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()
            with standby.connect() as connection:
                wait = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
                while connection.execute(wait, [until]).fetchall() != [(True,)]:
                    connection.execute("SELECT pg_sleep(0.01)")
            with opened(standby.with_options(schema="orders", read_only=True)) as reader:
                assert reader.find("order-1") == run
                reader.changes()
            own_server.stop()
            standby.promote()
            assert store.history(run.number) == [b"started"]
            (message,) = store.inbox(run.number)
            apply(store, step(run, 1, b"e", consumed=(message.seq,)))
            assert begin(store, "next").number > run.number
            store.send([signal("next")], 1)
            assert store.news()[-1][0] > message.seq
    finally:
        standby.stop()


def test_a_server_that_became_read_only_is_left(postgresql: Server, url: str):
    """A write that is refused because the server only reads now is done on a new connection; nothing of it was."""
    with opened(url) as store:
        run = begin(store)
        store._connections.write(lambda session: session.connection.execute("SET default_transaction_read_only = on"))
        apply(store, step(run, 1, b"e"))
        assert store.head(run.number) == 2


# --- limits --------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_nothing_is_written(postgresql: Server, url: str):
    """What the server answers when its disk is full is `StoreFull`; reading and purging go on, and writing when there
    is room again."""
    with opened(url) as store:
        run, closed = begin(store), begin(store, "closed")
        apply(store, end(closed))
        behind(
            postgresql,
            url,
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
            CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION full_disk()""",
        )
        changes = store.changes()
        for write in (
            lambda: store.create([new_run("large")]),
            lambda: store.commit([step(run, 1, b"e")]),
            lambda: store.commit([step(run, 1, b"e", active=False)]),
        ):
            with pytest.raises(StoreFull, match="no more room"):
                write()
        assert store.changes() == changes
        assert store.history(run.number) == [b"started"]
        assert store.purge([closed.number]) == 1
        behind(postgresql, url, "DROP TRIGGER full_disk ON events")
        apply(store, step(run, 1, b"e"))
        assert store.check() == []


def test_a_lock_of_somebody_else_is_not_waited_for_for_ever(postgresql: Server, url: str):
    """A person who holds a row in psql holds a write up for `statement_timeout`; then it is said, and undone."""
    with opened(url + "&statement_timeout=0.2") as store:
        run = begin(store)
        with postgresql.connect() as connection, connection.transaction():
            connection.execute(f"SELECT * FROM {schema_of(url)}.runs FOR UPDATE".encode())
            for changes in ({}, {"active": False}):
                with pytest.raises(StoreUnusable, match="statement_timeout"):
                    store.commit([step(run, 1, b"e", **changes)])
        apply(store, step(run, 1, b"e"))


def test_reading_only_writes_nothing(postgresql: Server, url: str):
    """With `read_only` everything can be read and nothing written; a store that is not there is not made."""
    with pytest.raises(StoreUnusable, match="no store"):
        opened(url, read_only=True)
    assert behind(postgresql, url, "SELECT FROM pg_namespace WHERE nspname = %s", schema_of(url)) == []
    with opened(url) as store:
        run = begin(store)
    with opened(url, read_only=True) as store:
        assert store.find("order-1") == run
        assert store.check() == []
        for write in (lambda: begin(store, "x"), lambda: store.hold("me"), lambda: store.claim([run.number], "me")):
            with pytest.raises(StoreUnusable, match="reading only"):
                write()


def test_a_handle_has_one_owner(url: str):
    """Holding again as the same is fine; as another it is a mistake."""
    with opened(url) as store:
        store.hold("one")
        store.hold("one")
        with pytest.raises(BadOption, match="held by 'one'"):
            store.hold("two")


def test_a_fork_has_to_open_it_again(url: str):
    """In a child an inherited store says so, its end does not end the parent's sessions, and opening anew works."""

    def in_child(queue: multiprocessing.Queue[list[str]]) -> None:
        said = []
        for use in (lambda: store.record(1), store.changes, lambda: store.hold("child"), lambda: begin(store)):
            try:
                use()
            except StoreUnusable as error:
                said.append(str(error).split(";")[0])
        store.close()
        with opened(url) as mine:
            said.append(mine.runs()[0].workflow_id)
        queue.put(said)

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with opened(url) as store:
        run = begin(store)
        process = context.Process(target=in_child, args=(queue,))
        process.start()
        said = queue.get(timeout=60)
        process.join()
        apply(store, step(run, 1, b"e"))
        assert len(store.runs()) == 1
    assert said == ["this store was opened before the process was forked"] * 4 + ["order-1"]


# --- migrations ----------------------------------------------------------------------------------------------------


def test_many_make_the_same_new_store(url: str):
    """Opened for the first time by many at once, the tables are made once, and each of them can use them."""
    together, problems = threading.Barrier(6, timeout=20), list[Exception]()

    def make(number: int) -> None:
        together.wait()
        try:
            with opened(url) as store:
                begin(store, f"run-{number}")
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with opened(url) as store:
        assert len(store.runs()) == 6


def test_older_tables_are_brought_up_to_date(postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch):
    """A store of an earlier release gets what is new, once, also when two open it; for reading only it is refused."""
    with opened(url) as store:
        begin(store)
    latest = max(migrations.scripts())
    later = {**migrations.scripts(), latest + 1: "CREATE TABLE novelty (one integer)"}
    monkeypatch.setattr(migrations, "scripts", lambda: later)
    with pytest.raises(StoreUnusable, match=f"has version {latest} of the tables; it was opened for reading only"):
        opened(url, read_only=True)
    with opened(url) as store, opened(url):
        assert len(store.runs()) == 1
    versions = behind(postgresql, url, "SELECT version FROM migrations ORDER BY 1")
    assert versions == [(version,) for version in sorted(later)]


def test_a_migration_that_fails_leaves_the_store_as_it_was(
    postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch
):
    """All new versions come in one transaction, or none."""
    with opened(url) as store:
        begin(store)
    latest = max(migrations.scripts())
    spoilt = {latest + 1: "CREATE TABLE half (one integer)", latest + 2: "SELECT * FROM nowhere"}
    with monkeypatch.context() as later:
        later.setattr(migrations, "scripts", lambda: {latest: "", **spoilt})
        with pytest.raises(StoreUnusable, match="nowhere"):
            opened(url)
    with opened(url) as store:
        assert len(store.runs()) == 1
    assert behind(postgresql, url, "SELECT count(*) FROM pg_class WHERE relname = 'half'") == [(0,)]


def test_later_tables_are_refused(postgresql: Server, url: str):
    """What a later release has made is not touched, and the way out is told."""
    opened(url).close()
    behind(postgresql, url, "INSERT INTO migrations VALUES (99, now(), 'the future')")
    with pytest.raises(StoreUnusable, match=r"has version 99 .* Upgrade dalsegno") as caught:
        opened(url)
    assert caught.value.found == 99


def test_tables_of_somebody_else_are_left_alone(postgresql: Server, url: str):
    """A schema with a table of the same name is refused, and the table is as it was."""
    name = schema_of(url)
    with postgresql.connect() as connection:
        connection.execute(f"CREATE SCHEMA {name}; CREATE TABLE {name}.runs (song text)".encode())
        with pytest.raises(StoreUnusable, match="another program"):
            opened(url)
        assert connection.execute(f"SELECT count(*) FROM {name}.runs".encode()).fetchall() == [(0,)]


def test_a_role_without_rights_is_told(postgresql: Server, url: str):
    """A role that may not make schemas is told where to read on; one that may only read, can."""
    name = schema_of(url)
    with postgresql.connect() as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        try:
            mine = url.replace("user=postgres", f"user={name}") if "user=" in url else url
            with pytest.raises(StoreUnusable, match=r"docs/postgresql\.md"):
                opened(mine)
            with opened(url) as store:
                run = begin(store)
            connection.execute(f"GRANT USAGE ON SCHEMA {name} TO {name}".encode())
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {name}".encode())
            with opened(mine, read_only=True) as store:
                assert store.find("order-1") == run
            with opened(mine) as store, pytest.raises(StoreUnusable, match=r"docs/postgresql\.md"):
                begin(store, "x")
        finally:
            connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_another_encoding_is_refused(postgresql: Server):
    """A database in another encoding cannot hold every text, and is refused with that reason."""
    name = schema_of(postgresql.schema())
    with postgresql.connect() as connection:
        made = f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        connection.execute(made.encode())
        try:
            with pytest.raises(StoreUnusable, match="LATIN1, and a store needs UTF8"):
                opened(postgresql.with_options(dbname=name))
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_closed_store_leaves_no_session_behind(postgresql: Server, url: str):
    """After `close` the server has none of its sessions."""
    with opened(url) as store:
        begin(store)
        slots = behind(postgresql, url, "SELECT backend FROM writers")
    gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
    with postgresql.connect() as connection:
        pids = [pid for (pid,) in slots]
        while connection.execute(gone, [pids]).fetchall() != [(0,)]:
            connection.execute("SELECT pg_sleep(0.01)")


# --- several engines -----------------------------------------------------------------------------------------------


def test_whose_connection_is_gone_has_ended_unless_the_server_was(own_server: OwnServer):
    """An engine whose process died is seen to have ended at once; after the server restarted, when nobody has a
    connection any more, nobody is taken for dead, and whoever lives is there again with his next renewal."""
    url = own_server.with_options(schema="orders")
    with opened(url) as one, opened(url) as two, opened(url) as looker:
        one.join("one", 5_000_000, 1)
        two.join("two", 5_000_000, 1)
        one.close()
        assert [(lease.owner, lease.ended) for lease in looker.leases()] == [("one", True), ("two", False)]
        own_server.stop("fast")
        own_server.start()
        assert [lease.ended for lease in looker.leases()] == [False, False]
        assert two.renew("two", 2)
        assert [lease.ended for lease in looker.leases()] == [False, False]
        two.close()
        assert [(lease.owner, lease.ended) for lease in looker.leases()] == [("one", False), ("two", True)]


def test_a_claim_that_waited_looks_at_the_leases_anew(postgresql: Server, url: str):
    """Who waits for the row of a run that another one is just claiming does not take it from him, although his lease
    began later than the waiting."""
    with opened(url) as one, opened(url) as two:
        run = begin(two, owner="")
        two.join("two", 5_000_000, 1)
        claimed = list[int]()
        with postgresql.connect() as connection:
            connection.execute(f"SET search_path = {schema_of(url)}".encode())
            with connection.transaction():
                connection.execute("SELECT FROM runs FOR UPDATE")
                waiter = threading.Thread(
                    target=lambda: claimed.extend(record.number for record in two.claim([run.number], "two"))
                )
                waiter.start()
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
                while connection.execute(waits).fetchall() == [(0,)]:
                    connection.execute("SELECT pg_sleep(0.01)")
                one.join("one", 5_000_000, 1)
                connection.execute("UPDATE runs SET owner = 'one', epoch = epoch + 1")
            waiter.join()
        assert claimed == []
        found = one.record(run.number)
        assert found is not None
        assert found.owner == "one"
