"""Hearing of news at once: LISTEN, on a connection and a thread of its own.

A hint and nothing more. What is announced while the connection is broken is never heard, so that whoever listens polls
as well; after each new connection he is told to look.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

import psycopg
from psycopg import sql

from dalsegno.backends.postgresql.session import Session
from dalsegno.core.errors import StoreError

PAUSE_S, PAUSE_MAX_S = 0.5, 30.0

QUIET_S = 0.005
"""So long nothing is heard after something was: what a thousand senders announce in a second is told together, for each
time that it is told the store is read."""


class Listener:
    """Calls `told` when something is announced on a channel, until it is stopped."""

    def __init__(self, channel: str, connect: Callable[[], Session], told: Callable[[], object]) -> None:
        self._channel, self._connect, self._told = channel, connect, told
        self._stopped, self._stopping = threading.Event(), threading.Lock()
        self._ear, self._bell = os.pipe()
        self._thread = threading.Thread(target=self._work, name="dalsegno-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. Twice is fine."""
        with self._stopping:
            if self._stopped.is_set():
                return
            os.write(self._bell, b"x")  # before the thread may end, and with it the other end of the pipe
            self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        os.close(self._bell)

    def _work(self) -> None:
        pause = PAUSE_S
        while not self._stopped.is_set():
            try:
                session = self._connect()
            except StoreError:
                self._stopped.wait(pause)
                pause = min(pause * 2, PAUSE_MAX_S)
                continue
            try:
                pause = PAUSE_S
                self._listen(session)
            except psycopg.Error:
                self._stopped.wait(PAUSE_S)
            finally:
                session.close()
        os.close(self._ear)

    def _listen(self, session: Session) -> None:
        connection = session.connection
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        self._told()  # of what was announced while nobody listened
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        waiting.register(self._ear, select.POLLIN)
        while not self._stopped.is_set():
            waiting.poll()
            connection.pgconn.consume_input()
            heard = False
            while connection.pgconn.notifies() is not None:
                heard = True
            if heard:
                self._told()
                self._stopped.wait(QUIET_S)
