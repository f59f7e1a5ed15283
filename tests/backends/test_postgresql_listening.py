"""Engines on PostgreSQL hear of messages at once, and not when they would have looked by themselves."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from dalsegno import Engine, Flow, Receive, workflow
from dalsegno.core.engine import clockwork
from tests.backends.test_postgresql import opened
from tests.postgresql_server import Server

LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query = %s"

STARTER = """
import sys
from dalsegno import Client
with Client(sys.argv[1]) as client:
    client.start("nothing", id="n")
"""

SENDER = """
import sys
from dalsegno import Client
with Client(sys.argv[1]) as client:
    client.get("w").signal("word", sys.argv[2])
"""


@workflow
def words(count: int) -> Flow[list[str]]:
    """Waits for so many words."""
    said = []
    for _ in range(count):
        said.append((yield from Receive("word", str)))
    return said


@workflow
def nothing() -> Flow[str]:
    """Has ended before it has begun."""
    yield from ()
    return "nothing"


@pytest.fixture
def _rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine looks by itself once in an hour."""
    monkeypatch.setattr(clockwork, "TICK_S", 3600.0)


def send(url: str, word: str) -> None:
    """Send a signal from a process of its own."""
    subprocess.run([sys.executable, "-c", SENDER, url, word], check=True, timeout=60)


def listener(server: Server, schema_oid: int, but: int = 0) -> int:
    """The session that listens to the news of a store, once there is one and it is not `but`."""
    with server.connect() as connection:
        while True:
            found = connection.execute(LISTENERS, [f'LISTEN "dalsegno_{schema_oid}"']).fetchall()
            if found and found[0][0] != but:
                return int(found[0][0])
            connection.execute("SELECT pg_sleep(0.01)")


@pytest.mark.usefixtures("_rarely")
def test_an_engine_hears_of_a_signal_from_another_process(postgresql: Server):
    """Long before it would have looked; also after its ear was cut off, when it has grown another one."""
    url = postgresql.schema()
    with opened(url) as store, Engine(store, workflows=[words], lease=600) as engine:
        oid = store._connections._schema_oid
        run = engine.start(words, 2, id="w")
        ear = listener(postgresql, oid)
        send(url, "one")
        with postgresql.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [ear])
        listener(postgresql, oid, but=ear)
        send(url, "two")
        assert run.result(timeout=60) == ["one", "two"]


@pytest.mark.usefixtures("_rarely")
def test_an_engine_hears_of_a_run_that_a_client_created(postgresql: Server):
    """Whoever creates a run that nobody has begun is heard as well."""
    url = postgresql.schema()
    with opened(url) as store, Engine(store, workflows=[nothing], lease=600):
        listener(postgresql, store._connections._schema_oid)
        subprocess.run([sys.executable, "-c", STARTER, url], check=True, timeout=60)
        with postgresql.connect() as connection:
            while not (found := store.find("n")) or found.status.open:
                connection.execute("SELECT pg_sleep(0.01)")


def test_an_engine_that_stops_listens_no_more(postgresql: Server):
    """Two engines on one handle listen each for itself; what one of them leaves, the other keeps."""
    url = postgresql.schema()
    with opened(url) as store:
        before = threading.active_count()
        heard = threading.Event()
        stop = store.listen(heard.set)
        with Engine(store, workflows=[nothing]):
            assert heard.wait(30)
        assert threading.active_count() == before + 1
        heard.clear()
        with opened(url) as other, Engine(other, workflows=[words]) as engine:
            engine.start(words, 1, id="w")
            send(url, "one")
            assert heard.wait(30)
        stop()
        stop()
        assert threading.active_count() == before
