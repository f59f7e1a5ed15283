"""The connections of one store: one that writes, and as many as are needed that read.

One writing connection is enough, because the engine's committer puts all that is to be written into one transaction
at a time; more of them would only wait for each other's locks. Readers are lent to one call at a time and kept for the
next; the last one given back is lent first, so that few stay in use. psycopg_pool would do the same with threads of
its own, which neither a fork nor the end of the interpreter is kind to.

A connection takes the server several milliseconds, and more where it is busy. So the one that opened the store goes to
whoever comes first, be it to write; and an engine, which will read as soon as it has joined, has its first reader come
about while it joins. Who finds all readers lent waits for one of them about as long as a new one would take, before he
connects another.

A broken connection is replaced when it is next needed, for as long as `reconnect` seconds with growing pauses; what
was not yet sent, or only read, is then done on the new one. libpq tries the hosts of the URL in their order and takes
the one that is read-write, so that a promoted standby is found.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql import wire
from dalsegno.backends.postgresql.failures import Again, Lost
from dalsegno.backends.postgresql.listening import Listener
from dalsegno.backends.postgresql.migrations import migrate
from dalsegno.backends.postgresql.options import Options
from dalsegno.backends.postgresql.rows import leases_of
from dalsegno.backends.postgresql.session import Session
from dalsegno.core.errors import BadOption, StoreError, StoreInUse, StoreUnusable, UnknownOutcome

ENGINE_LOCK_CLASS = 0x64616C73  # "dals"
ATTEMPTS = 20  # of a transaction that others keep undoing; two in a row are rare
PAUSE_S, PAUSE_MAX_S = 0.05, 1.0
CONNECTING_S = 0.005  # what a connection takes, a little less or more; so long one that is lent is waited for
FRESH_S = 0.01  # a connection that was used so shortly before is not looked at first: that is a call of the system
HOLD_PATIENCE_S = 0.3  # a server needs a moment to notice that a process has died, and to give back its lock

T = TypeVar("T")


class Connections:
    """All connections of one store. Raises the errors of the port only."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.place = options.place
        self._process = os.getpid()
        self._closed = threading.Event()
        self._writing = threading.Lock()
        self._writer: Session | None = None
        self._writer_used = 0.0
        self._owner = ""
        self._joined: set[str] = set()
        self._lock = threading.Lock()  # over the readers: those that are idle, and how many are asked for
        self._idle: list[Session] = []
        self._given_back = threading.Condition(self._lock)
        self._readers = 0  # who has one, or asks for one
        self._room = threading.BoundedSemaphore(options.readers)
        self._coming: threading.Thread | None = None  # connects a reader
        self._schema_oid = 0
        self._listeners = list[Listener]()

    def open(self, made_with: str) -> None:
        """Connect for the first time, and see to the tables."""
        session = self._connect()
        try:
            may_write = not self.options.read_only
            self._schema_oid = migrate(session.connection, self.options.schema, self.place, may_write, made_with)
        except psycopg.Error as error:
            session.close()
            raise StoreUnusable(f"{self.place}: {error}") from error
        except BaseException:
            session.close()
            raise
        self._idle.append(session)

    def close(self) -> None:
        """Close all of them. Whoever still uses one closes it when he is done."""
        if self._process != os.getpid() or self._closed.is_set():
            return  # in a forked child these are the parent's, and saying goodbye on them would end his sessions
        self._closed.set()
        for listener in self._listeners:
            listener.stop()
        with self._writing:
            writer, self._writer = self._writer, None
            if writer is not None:
                try:
                    writer.run(st.UNLOCK_ALL)  # at once, and not when the server notices that nobody is there
                except (Lost, Again, StoreError):
                    pass
                writer.close()
        if self._coming is not None:
            self._coming.join()
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    # --- using them ------------------------------------------------------------------------------------------------

    def read(self, work: Callable[[Session], T]) -> T:
        """Do something that only reads, on a connection of its own; again on another one if that breaks."""
        deadline = time.monotonic() + self.options.reconnect
        while True:
            with self._lent(deadline) as session:
                try:
                    return work(session)
                except (Lost, Again) as error:
                    session.close()
                    if time.monotonic() > deadline:
                        raise StoreUnusable(f"{self.place}: {error}") from error

    def write(self, work: Callable[[Session], T]) -> T:
        """Do something that writes, in a transaction which is begun and committed in `work`, or one statement.

        It is done again where it was certainly undone: another transaction was in the way, or the connection broke
        before anything was sent. Raises `UnknownOutcome` where the connection broke later.
        """
        if self._process != os.getpid():
            self.refuse_if_unusable(True)  # before the lock, which in a forked child may never be given back
        with self._writing:
            now = time.monotonic()
            session = self._writer
            if session is None or now - self._writer_used > FRESH_S or self._closed.is_set():
                session = self._ready_writer(now)
            try:
                answer = work(session)
            except (Again, Lost) as error:
                return self._again(work, error, now)
            except BaseException:
                self._tidy_up(session)
                raise
            self._writer_used = now
            return answer

    def _again(self, work: Callable[[Session], T], error: Again | Lost, now: float) -> T:
        """Do it once more, and again, as long as it was certainly undone."""
        for attempt in range(ATTEMPTS):
            if isinstance(error, Lost):
                self._drop_writer()
                if not error.nothing_applied:
                    raise UnknownOutcome(
                        f"{self.place}: the connection broke ({error}) and the commit may or may not be there"
                    ) from error
                if time.monotonic() > now + self.options.reconnect:
                    break
            elif self._writer is not None:
                self._tidy_up(self._writer)
                self._closed.wait(random.uniform(0, 0.002) * attempt)
            session = self._ready_writer(now)
            try:
                return work(session)
            except (Again, Lost) as another:
                error = another
            except BaseException:
                self._tidy_up(session)
                raise
        raise StoreUnusable(f"{self.place}: this was undone again and again, at last because: {error}") from error

    def _tidy_up(self, session: Session) -> None:
        """A transaction that was left in the middle ends with its connection."""
        if session.in_transaction:
            self._drop_writer()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the store is closed."""
        self._closed.wait(seconds)

    def refuse_if_unusable(self, write: bool) -> None:
        """Raise `StoreUnusable` after `close`, in a forked child, and for writing what is open for reading only."""
        if self._process != os.getpid():
            raise StoreUnusable("this store was opened before the process was forked; open it again in the child")
        if self._closed.is_set():
            raise StoreUnusable("this store was closed")
        if write and self.options.read_only:
            raise StoreUnusable(f"{self.place} was opened for reading only")

    @contextmanager
    def _lent(self, deadline: float) -> Iterator[Session]:
        self.refuse_if_unusable(False)
        with self._room:
            session = self._reader(deadline)
            try:
                yield session
            finally:
                self._take_back(session)

    def _reader(self, deadline: float) -> Session:
        with self._lock:
            self._readers += 1
        try:
            return self._idle_reader() or self._come() or self._awaited() or self._connected(deadline)
        except BaseException:
            with self._lock:
                self._readers -= 1
            raise

    def _take_back(self, session: Session) -> None:
        with self._lock:
            self._readers -= 1
            kept = not self._closed.is_set() and not session.in_transaction and session.is_alive()
            if kept:
                self._idle.append(session)
                self._given_back.notify()
        if not kept:
            session.close()

    def _idle_reader(self) -> Session | None:
        while True:
            with self._lock:
                session = self._idle.pop() if self._idle else None
            if session is None or session.is_alive():
                return session
            session.close()

    def _expect_reader(self) -> None:
        """Have a reader connected by another thread, if there is none and nobody works on that."""
        with self._lock:
            if self._idle or self._coming is not None or not self._room.acquire(blocking=False):
                return
            coming = threading.Thread(target=self._bring_reader, name="dalsegno-reader", daemon=True)
            coming.start()
            self._coming = coming

    def _bring_reader(self) -> None:
        try:
            session = self._connect()
        except StoreError:
            return  # whoever reads next tries himself, for as long as he may, and says why not
        finally:
            self._room.release()
        with self._lock:
            self._idle.append(session)  # closing waits for this thread

    def _come(self) -> Session | None:
        """The reader that another thread connects, when it is there."""
        coming = self._coming
        if coming is None:
            return None
        coming.join()
        self._coming = None
        return self._idle_reader()

    def _awaited(self) -> Session | None:
        """A reader that is given back before another one would be there."""
        with self._given_back:
            if self._readers < 2 or not self._given_back.wait_for(lambda: self._idle, CONNECTING_S):
                return None
        return self._idle_reader()

    # --- connecting ------------------------------------------------------------------------------------------------

    def _connect(self) -> Session:
        return self.reached(lambda: Session(self.options))

    def reached(self, connect: Callable[[], T]) -> T:
        """What connecting answers. Raises `StoreUnusable`."""
        try:
            return connect()
        except psycopg.Error as error:
            raise StoreUnusable(f"{self.place}: {' '.join(str(error).split())}") from error
        except UnicodeError as error:  # a host that is no name, which is found out before the server is asked
            raise StoreUnusable(f"{self.place[:200]}: there can be no host of this name ({error})") from error

    def _connected(self, deadline: float) -> Session:
        return self.connected(self._connect, deadline)

    def connected(self, connect: Callable[[], T], deadline: float) -> T:
        """A new connection, tried for until the deadline, with pauses that grow and differ from others'."""
        pause = PAUSE_S
        while True:
            try:
                return connect()
            except StoreUnusable:
                left = deadline - time.monotonic()
                if left <= 0 or self._closed.wait(min(left, random.uniform(pause / 2, pause))):
                    raise
                pause = min(pause * 2, PAUSE_MAX_S)

    def _ready_writer(self, now: float) -> Session:
        self.refuse_if_unusable(True)
        writer = self._writer
        if writer is not None and writer.is_alive():
            return writer
        self._drop_writer()
        deadline = now + self.options.reconnect
        while True:
            first = self._idle_reader() if not self._writer_used else None
            session = first or self._connected(deadline)
            try:
                session.slot, session.channel = self._slot(session), self.channel.encode()
                if self._owner:
                    self._take_hold(session, self._owner)
                for owner in self._joined:
                    self._enter(session, owner)
                self._writer = session
                return session
            except (Lost, Again) as error:
                session.close()
                if time.monotonic() > deadline:
                    raise StoreUnusable(f"{self.place}: {error}") from error
            except BaseException:
                session.close()
                raise

    def _slot(self, session: Session) -> bytes:
        """A row among the writers of this store that is this connection's alone."""
        who = f"{socket.gethostname()} {os.getpid()}".encode()
        answer = session.run(st.TAKE_SLOT, wire.int8(self._schema_oid << 20), who).get_value(0, 0)
        assert answer is not None
        return answer

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def listen(self, told: Callable[[], object]) -> Callable[[], object]:
        """Have a function called when somebody announces news, until the answer is called. Announcements are hints:
        they may be missed."""
        self.refuse_if_unusable(False)
        listener = Listener(self.channel, self._connect, told)
        self._listeners.append(listener)
        return listener.stop

    @property
    def channel(self) -> str:
        """Where news of this store are announced."""
        return f"dalsegno_{self._schema_oid}"

    # --- being the engine ------------------------------------------------------------------------------------------

    def hold(self, owner: str) -> None:
        """Become the engine of the store. The lock belongs to the writing connection; a new one takes it again."""

        def take(session: Session) -> None:
            if self._owner and owner != self._owner:
                raise BadOption(f"this handle is held by {self._owner!r} already; {owner!r} needs its own")
            if not self._owner:
                self._expect_reader()
                try:
                    self._take_hold(session, owner)
                except Lost as error:  # with the connection the lock is gone as well
                    raise Lost(str(error), nothing_applied=True) from error
                self._owner = owner

        self.write(take)

    def join(self, owner: str, length_us: int, now_us: int) -> None:
        """Become one of the engines. Locks of the writing connection say so, and a new one takes them again."""

        def work(session: Session) -> None:
            self._expect_reader()
            if owner not in self._joined:
                self._enter(session, owner)
                self._joined.add(owner)
            lease = (wire.int8(length_us), wire.int8(wire.in_range(now_us)), wire.int8(self._owner_lock(owner)))
            session.run(st.JOIN, wire.text(owner), *lease, session.channel, session.slot)

        self.write(work)

    def leave(self, owner: str) -> bool:
        """End the lease of an owner, and give back the locks that he took on this connection."""

        def work(session: Session) -> bool:
            answer = session.run(st.END_LEASE, wire.text(owner), None, session.channel, session.slot)
            if owner in self._joined:
                self._joined.discard(owner)
                session.run(st.UNLOCK_OWNER, wire.int8(self._owner_lock(owner)))
                session.run(st.UNLOCK_SHARED, *self._engine_lock)
            return answer.ntuples > 0

        return self.write(work)

    @property
    def _engine_lock(self) -> tuple[bytes, bytes]:
        """Held by whoever is the only engine, shared by those who have joined."""
        oid = self._schema_oid
        return wire.int4(ENGINE_LOCK_CLASS), wire.int4(oid - 2**32 if oid >= 2**31 else oid)

    def _owner_lock(self, owner: str) -> int:
        """The lock that shows that an owner's connection is there."""
        return wire.read_int8(wire.digest(f"{self._schema_oid} {owner}")[:8])

    def _enter(self, session: Session, owner: str) -> None:
        self._take(session, st.TRY_ENTER, *self._engine_lock, wire.int8(self._owner_lock(owner)))

    def _take_hold(self, session: Session, owner: str) -> None:
        self._take(session, st.TRY_LOCK, *self._engine_lock)
        session.run(st.SET_ENGINE, wire.text(owner), wire.int4(os.getpid()), wire.text(socket.gethostname()))

    def _take(self, session: Session, lock: st.Statement, *which: bytes) -> None:
        deadline = time.monotonic() + HOLD_PATIENCE_S
        while session.run(lock, *which).get_value(0, 0) != b"\x01":
            if time.monotonic() > deadline:
                raise self._in_use(session)
            self._closed.wait(0.02)

    def _in_use(self, session: Session) -> StoreInUse:
        living = [lease for lease in leases_of(session.run(st.LEASES)) if not lease.ended]
        if living:
            owner = living[0].owner
            return StoreInUse(
                f"{self.place} has engines at work: {owner} and perhaps others. Stop them first, "
                "or open this one beside them.",
                owner=owner,
            )
        answer = session.run(st.GET_ENGINE)
        cells = [answer.get_value(0, at) or b"" for at in range(3)] if answer.ntuples else [b"", wire.int4(0), b""]
        owner, pid, host = wire.read_text(cells[0]), wire.read_int4(cells[1]), wire.read_text(cells[2])
        return StoreInUse(
            f"{self.place} has an engine already: process {pid} on {host} ({owner}). "
            "Stop that one, or give this one a schema of its own.",
            owner=owner,
            pid=pid,
            host=host,
        )
