"""A third store, complete, on nothing but the standard library: a file of SQLite. `docs/stores.md` leads here.

    Engine("sqlite:./orders.db")

`OrderedStore` knows how runs, timers and messages lie under keys; what is here is how SQLite keeps keys and values.

* One table holds them. SQLite compares BLOBs as unsigned bytes, a short one before those it begins, as the layout
  needs.
* The journal is a write-ahead log: readers see one state and wait for nobody. `synchronous=FULL` flushes every commit.
* A connection is lent to one transaction at a time and kept for the next one; so as many are open as threads have
  been at it at once. Writers of this process queue at a lock of ours, which is fair, and those of other processes at
  SQLite's, which polls.
* `changes` is SQLite's `data_version`, which counts the commits of all connections but the one that asks. That one
  never writes, so it counts the commits of everybody.
* `hold` is a write transaction on a second file, begun and never ended. The system takes it back from a process that
  is gone, however it went, and a forked child does not inherit it. Who holds it stands in a table, for people.

SQLite's locks belong to a process and are dropped when any code in it closes the file; so nothing else may open the
file of a store that is in use, and like LMDB it belongs on a local disk.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.ordered import OrderedStore
from dalsegno.core.errors import (
    BadOption,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreUnusable,
    UnknownOutcome,
)

RECORDS, ENGINE = "dalsegno", "dalsegno_engine"
PATIENCE_S = 60.0  # how long a writer waits for one of another process; any transaction of ours takes far less
ATTEMPTS = 100  # to switch a new file to its write-ahead log, while others are at the same

_GET = f"SELECT value FROM {RECORDS} WHERE key = ?"
_PUT = f"INSERT OR REPLACE INTO {RECORDS} VALUES (?, ?)"
_DELETE = f"DELETE FROM {RECORDS} WHERE key = ?"
_FORWARD = f"SELECT key, value FROM {RECORDS} WHERE key >= ? AND key < ? ORDER BY key"
_BACKWARD = f"{_FORWARD} DESC"


class SqliteTransaction:
    """The five methods. `SqliteStore.begin` begins it, and ends it when the block is left."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._execute = connection.execute
        self._walking: set[sqlite3.Cursor] = set()

    def get(self, key: bytes, /) -> bytes | None:
        row: tuple[bytes] | None = self._execute(_GET, (key,)).fetchone()
        return None if row is None else row[0]

    def put(self, key: bytes, value: bytes, /) -> None:
        self._execute(_PUT, (key, value))

    def delete(self, key: bytes, /) -> None:
        self._execute(_DELETE, (key,))

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        rows = self._execute(_BACKWARD if reverse else _FORWARD, (start, stop))
        self._walking.add(rows)
        try:
            yield from rows
        finally:
            self._walking.discard(rows)
            rows.close()

    def commit(self) -> None:
        try:
            self._execute("COMMIT")
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_FULL:
                raise
            # The log may hold the whole commit although the flush after it failed, and then a restart would find it.
            raise UnknownOutcome(
                f"{self._path}: the commit failed ({error}), and may or may not have been applied"
            ) from error

    def end(self) -> None:
        """Undo what was not committed, and let go of the state that was seen, which a walk left half-way would keep."""
        for rows in list(self._walking):
            rows.close()
        if self._connection.in_transaction:
            self._execute("ROLLBACK")


class SqliteStore(OrderedStore):
    """A store in a file of SQLite."""

    survives_reopen: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._process = os.getpid()
        self._writing = threading.Lock()
        self._lock = threading.Lock()  # over all below
        self._closed = False
        self._idle: list[sqlite3.Connection] = []
        self._watching: sqlite3.Connection | None = None
        self._engine: sqlite3.Connection | None = None
        self._owner = ""

    @classmethod
    def open(cls, location: str, **options: Any) -> Self:
        """Open or create the store in a file; with `read_only`, open what is there, and write nothing."""
        path, _, query = location.partition("?")
        read_only = bool(options.pop("read_only", False))
        if options or query:
            raise BadOption(f"a SQLite store has no option but read_only, and was given {query or ', '.join(options)}")
        if not path or "\0" in path or path == ":memory:":
            raise BadOption(f"{location!r} names no file: write 'sqlite:PATH' (or 'memory:', for a store in memory)")
        store = cls(Path(path).expanduser().absolute(), read_only)
        try:
            store._make()
            store.prepare(f"SQLite {sqlite3.sqlite_version}", may_write=not read_only)
        except StoreError as error:
            store.close()
            if isinstance(error, StoreUnusable) and not str(error).startswith(str(store.path)):
                error.args = (f"{store.path} {error}",)
            raise
        return store

    def _make(self) -> None:
        """See that the file is ours or new, and make of a new one a store. An old one is not written to."""
        if self._read_only and not self.path.is_file():
            raise StoreUnusable(f"{self.path} is not there, so there is nothing to read")
        with self._lent() as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and RECORDS not in tables:
                raise StoreUnusable(f"{self.path} is another program's database: it has a table {min(tables)!r}")
            if self._read_only and not tables:
                raise StoreUnusable(f"{self.path} is empty, so there is nothing to read")
            if self._read_only:
                return
            self._keep_a_log(connection)
            if not tables:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {RECORDS} (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
                )
                connection.execute(f"CREATE TABLE IF NOT EXISTS {ENGINE} (one INTEGER PRIMARY KEY, who TEXT NOT NULL)")
                connection.execute("COMMIT")

    def _keep_a_log(self, connection: sqlite3.Connection) -> None:
        """Switch a new file to its write-ahead log, which it then keeps to. Of several at it one is let through, and
        the others are told at once, without waiting: they wait by beginning to write."""
        for _ in range(ATTEMPTS):
            if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY:
                    raise
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        raise StoreUnusable(f"{self.path} cannot have a write-ahead log: its file system shares no memory")

    def close(self) -> None:
        if self._process != os.getpid():
            return  # in a forked child: these connections are the parent's
        with self._lock:
            self._closed = True
            mine = [*self._idle, self._watching, self._engine]
            self._idle, self._watching, self._engine = [], None, None
        for connection in mine:
            if connection is not None:
                connection.close()

    # --- transactions ----------------------------------------------------------------------------------------------

    @contextmanager
    def begin(self, write: bool) -> Iterator[KeyValueTransaction]:
        self._refuse_if_forked()  # before its locks are touched: a thread that is not here may have held them
        if write:
            self._refuse_if_read_only()
        with self._writing if write else nullcontext(), self._lent() as connection:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            transaction = SqliteTransaction(self.path, connection)
            try:
                yield transaction
            finally:
                transaction.end()

    @contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile. What SQLite raises comes out as a `StoreError`."""
        with self._guarded():
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = _connect(self.path, PATIENCE_S, self._read_only)
            yield connection
        except sqlite3.Error as error:
            raise self._failed(error) from error
        finally:
            if connection is not None:
                with self._lock:
                    kept = not self._closed and not connection.in_transaction
                    if kept:
                        self._idle.append(connection)
                if not kept:
                    connection.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """The lock, on a store that can be used."""
        self._refuse_if_forked()
        with self._lock:
            if self._closed:
                raise StoreUnusable("this store was closed")
            yield

    def _refuse_if_forked(self) -> None:
        if self._process != os.getpid():
            raise StoreUnusable("this store was opened before the process was forked; open it again in the child")

    def _refuse_if_read_only(self) -> None:
        if self._read_only:
            raise StoreUnusable(f"{self.path} was opened for reading only")

    def _failed(self, error: sqlite3.Error) -> StoreError:
        """What to raise for an error of SQLite that came before or outside a commit: nothing was applied."""
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(f"{self.path} has no more room ({error}). Nothing was written.")
        if code == sqlite3.SQLITE_CORRUPT:
            return StoreDamaged(f"{self.path}: {error}", key="", run=None, event=None)
        if code == sqlite3.SQLITE_BUSY:
            return StoreUnusable(f"{self.path}: another process has been writing to it for {PATIENCE_S:.0f} seconds")
        return StoreUnusable(f"{self.path}: {error}")

    # --- the rest of the port --------------------------------------------------------------------------------------

    def hold(self, owner: str) -> None:
        self._refuse_if_read_only()
        if not self._lock_engine(owner):
            raise self._in_use()
        who = json.dumps({"owner": owner, "pid": os.getpid(), "host": socket.gethostname()})
        try:
            with self._writing, self._lent() as connection:
                connection.execute(f"INSERT OR REPLACE INTO {ENGINE} VALUES (1, ?)", (who,))
        except StoreFull:
            pass  # the lock is what counts, and a full store can be held as well
        self.end_others(owner)

    def _lock_engine(self, owner: str) -> bool:
        """Become the engine, unless somebody is."""
        with self._guarded():
            if self._engine is not None:
                if owner != self._owner:
                    raise BadOption(f"this handle is held by {self._owner!r} already; {owner!r} needs its own")
                return True
            try:
                engine = _connect(Path(f"{self.path}-engine"), 0.0)
                try:
                    engine.execute("BEGIN IMMEDIATE")
                except BaseException:
                    engine.close()
                    raise
            except sqlite3.Error as error:
                if _code(error) == sqlite3.SQLITE_BUSY:
                    return False
                raise self._failed(error) from error
            self._engine, self._owner = engine, owner
            return True

    def _in_use(self) -> StoreInUse:
        with self._lent() as connection:
            row = connection.execute(f"SELECT who FROM {ENGINE}").fetchone()
        holder = json.loads(row[0]) if row else {"owner": "", "pid": None, "host": ""}
        return StoreInUse(
            f"{self.path} has an engine already: process {holder['pid']} on {holder['host']} ({holder['owner']}). "
            "One store has one engine: stop that one, or give this one a store of its own.",
            **holder,
        )

    def changes(self) -> object:
        with self._guarded():
            try:
                if self._watching is None:
                    self._watching = _connect(self.path, PATIENCE_S, self._read_only)
                return self._watching.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def sizes(self) -> dict[str, int]:
        with self._lent() as connection:
            pages, free, page_bytes = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        files = (self.path, Path(f"{self.path}-wal"))
        return {
            "events_bytes": (pages - free) * page_bytes,
            "file_bytes": sum(file.stat().st_size for file in files if file.exists()),
        }


def _connect(path: Path, patience_s: float, read_only: bool = False) -> sqlite3.Connection:
    """A connection that leaves transactions to us and goes from thread to thread, to one at a time. To read the log
    beside the file it needs leave to write, so what keeps a reader from writing is a pragma."""
    where = f"{path.as_uri()}?mode={'rw' if read_only else 'rwc'}"  # the first makes no file
    connection = sqlite3.connect(where, timeout=patience_s, isolation_level=None, check_same_thread=False, uri=True)
    try:
        connection.execute("PRAGMA query_only = ON" if read_only else "PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _code(error: sqlite3.Error) -> int:
    """SQLite's code for an error, without what makes it more precise. Errors of the module itself have none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
