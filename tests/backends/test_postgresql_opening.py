"""What opening a store on PostgreSQL costs: connections, and statements that are prepared where they are first used."""

from __future__ import annotations

import threading

import pytest
from psycopg import sql

from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql import wire
from dalsegno.backends.postgresql.session import Session
from dalsegno.core.errors import StoreUnusable
from dalsegno.testing.run_promises import begin
from tests.backends.test_postgresql import behind, opened
from tests.postgresql_server import Server, schema_of


@pytest.fixture
def url(postgresql: Server) -> str:
    """Where a store may be made."""
    return postgresql.schema()


def test_who_only_looks_and_writes_needs_one_connection(postgresql: Server, url: str):
    """The connection that opened a store is whose who comes first; an engine has a second one, to read on."""
    backends = sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE application_name = {}").format(schema_of(url))
    with opened(f"{url}&application_name={schema_of(url)}") as store, postgresql.connect() as connection:
        assert store.runs() == []
        begin(store)
        assert connection.execute(backends).fetchall() == [(1,)]
        store.join("one", 60_000_000, 1)
        assert [lease.owner for lease in store.leases()] == ["one"]
        assert connection.execute(backends).fetchall() == [(2,)]


def test_a_reader_that_did_not_come_is_connected_by_who_reads(url: str, monkeypatch: pytest.MonkeyPatch):
    """If the connection fails that an engine has made while it joins, the first read makes its own."""
    with opened(url) as store:
        connections = store._connections
        connect, threads = connections._connect, list[str]()

        def failing() -> Session:
            threads.append(threading.current_thread().name)
            if threads[-1] == "dalsegno-reader":
                raise StoreUnusable("not now")
            return connect()

        monkeypatch.setattr(connections, "_connect", failing)
        store.join("one", 60_000_000, 1)
        assert [lease.owner for lease in store.leases()] == ["one"]
        assert threads == ["dalsegno-reader", threading.current_thread().name]


def test_a_statement_that_cannot_be_prepared_costs_no_other(postgresql: Server, url: str):
    """What fails in the round trip of its first use is said, and the connection goes on with what was prepared before
    and with what comes after."""
    with opened(url) as store:
        run = begin(store)
        behind(postgresql, url, "ALTER TABLE published RENAME TO hidden")
        pid = store._connections.read(lambda session: session.connection.info.backend_pid)
        with pytest.raises(StoreUnusable, match="was the schema dropped, or restored in part"):
            store.published(run.number)
        with pytest.raises(StoreUnusable, match="was the schema dropped, or restored in part"):
            store._connections.read(
                lambda session: session.together([(st.HEAD, (wire.int8(run.number),)), (st.LOST_PUBLISHED, ())])
            )
        behind(postgresql, url, "ALTER TABLE hidden RENAME TO published")
        assert store.published(run.number) == {}
        assert store.head(run.number) == 1
        assert store.check() == []
        assert store._connections.read(lambda session: session.connection.info.backend_pid) == pid


@pytest.mark.parametrize("patience_s", [60.0, 0.0], ids=["given-back", "kept"])
def test_who_finds_all_readers_lent_waits_a_moment_before_he_connects(
    url: str, monkeypatch: pytest.MonkeyPatch, patience_s: float
):
    """One that is given back in time is used again; else another one is connected, and nobody waits for ever."""
    monkeypatch.setattr("dalsegno.backends.postgresql.connections.CONNECTING_S", patience_s)
    with opened(url) as store:
        lent, asking, pids = threading.Event(), threading.Event(), list[int]()

        def hold(session: Session) -> None:
            pids.append(session.connection.info.backend_pid)
            lent.set()
            assert asking.wait(60)

        holder = threading.Thread(target=lambda: store._connections.read(hold))
        holder.start()
        assert lent.wait(60)
        if patience_s:
            asking.set()  # and gives it back before the other asks, or soon after
        pids.append(store._connections.read(lambda session: session.connection.info.backend_pid))
        asking.set()
        holder.join()
    assert len(set(pids)) == (1 if patience_s else 2)
