"""Steps that write their own tables in the very transaction that records them.

The body gets a connection of psycopg's to the store's own database, in an open transaction, and with the settings and
the search path of whoever connects, not the store's. When it has returned, its encoded result goes into `step_outcomes`
as the transaction's last statement, and the commit with it in one round trip:

* **Fenced.** The statement locks the run's row against claims and looks whether the run is still this engine's. A
  worker that lost its lease, and a body that nobody waits for any more, undo what they did.
* **Once.** A row is there as soon as the effects are, whoever dies then. The next attempt looks for it first; where
  two attempts of a step go on at once, the primary key lets one of them commit.
* **Known.** A connection that breaks in the commit leaves its outcome open. It is then settled: either the row is
  there, or one is put there that a late commit would run into. Only then is anything told, however long that takes.

No lock of ours is held while the body runs, and the lock on the run's row is asked for last, with constraints that are
checked late checked before. So whoever holds it waits for nobody, and there is no circle through users' locks.

psycopg's own `connection.transaction()` would send its COMMIT by itself, a round trip after the lock was taken. What
it forbids (ending the transaction), `StepConnection` forbids; and what nobody can forbid, `COMMIT` as plain SQL, is
noticed by a setting of the transaction that is then gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql import wire
from dalsegno.backends.postgresql.connections import Connections
from dalsegno.backends.postgresql.failures import PASSING, READ_ONLY, REFUSED
from dalsegno.backends.postgresql.options import Options
from dalsegno.backends.postgresql.rows import outcome_crc
from dalsegno.core.errors import StepOutcomeUnknown, StoreError, StoreUnusable, UseError
from dalsegno.core.transactions import StepAttempt, Strayed, Undone

IDLE_IN_TRANSACTION_S = 60
"""How long the transaction of a body may stand still between two statements: if its process was stopped there, the
locks it holds are free again then. A body that means to takes longer with `SET LOCAL`."""

ENDED, SETTLED = "DS002", "DS003"
"""What `record_step` raises besides `REFUSED`; the migration that makes it explains them."""

PAUSE_S, SHORT_PAUSE_S = 0.5, 0.01

log = logging.getLogger("dalsegno.engine")


class StepConnection(psycopg.Connection[tuple[Any, ...]]):
    """The connection that a body is given. All of psycopg's, but for ending the transaction or the connection."""

    def commit(self) -> NoReturn:
        self._refuse("commit()")

    def rollback(self) -> NoReturn:
        self._refuse("rollback()")

    def close(self) -> NoReturn:
        self._refuse("close()")

    def __enter__(self) -> NoReturn:
        self._refuse("`with connection:`")

    def _refuse(self, what: str) -> NoReturn:
        raise UseError(
            f"{what} in a transactional step: it is committed, together with its result, when the body returns, and "
            "undone when it raises. `with connection.transaction():` in the body makes a savepoint."
        )

    def leave(self) -> None:
        """Close it."""
        super().close()


class Transactions:
    """The connections on which transactional steps run, and how one of them runs."""

    def __init__(self, connections: Connections) -> None:
        self._connections, self._options = connections, connections.options
        self._room = threading.BoundedSemaphore(self._options.transactions)
        self._lock = threading.Lock()
        self._idle: list[StepConnection] = []

    def close(self) -> None:
        """Close those that nobody uses; the others when they are given back."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.leave()

    def run(self, attempt: StepAttempt, body: Callable[[Any], bytes]) -> bytes:
        """See `HasTransactions.transact`."""
        with self._room:
            connection, recorded = self._begun(attempt)
            try:
                if recorded is not None:
                    return self._read(attempt, *recorded)
                result = self._called(connection, attempt, body)
                return self._committed(connection, attempt, result)
            finally:
                self._give_back(connection)

    # --- before ----------------------------------------------------------------------------------------------------

    def _begun(self, attempt: StepAttempt) -> tuple[StepConnection, tuple[int, str, bytes] | None]:
        """A connection with an open transaction, or with the outcome that is there already.

        Nothing has happened yet, so that a server which is gone is waited for, as the engine does that has something to
        record. Raises `StoreUnusable` when the store is closed meanwhile.
        """
        connections = self._connections
        while True:
            connections.refuse_if_unusable(True)
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            try:
                if connection is None:
                    deadline = time.monotonic() + self._options.reconnect
                    connection = connections.connected(lambda: connections.reached(self._connect), deadline)
                return connection, _begin(connection, self._options, attempt)
            except (psycopg.OperationalError, StoreUnusable) as error:
                log.warning("step %r waits for the store: %s", attempt.name, error)
                if connection is not None:
                    connection.leave()
                connections.pause(PAUSE_S if connection is None else SHORT_PAUSE_S)
            except BaseException:
                if connection is not None:
                    connection.leave()
                raise

    def _connect(self) -> StepConnection:
        said = conninfo_to_dict(self._options.conninfo)
        kind = str(said.get("target_session_attrs") or "read-write")
        return StepConnection.connect(self._options.conninfo, autocommit=True, target_session_attrs=kind)

    def _give_back(self, connection: StepConnection) -> None:
        usable = not connection.closed
        if usable and connection.info.transaction_status != pq.TransactionStatus.IDLE:
            try:
                connection.execute("ROLLBACK", prepare=False)
            except psycopg.Error:
                usable = False
        if usable:
            # What a body may have set for itself; what it has told the server is reset by whoever begins next.
            connection.row_factory, connection.cursor_factory = tuple_row, psycopg.Cursor
            try:
                self._connections.refuse_if_unusable(True)
            except StoreUnusable:
                usable = False
        if usable:
            with self._lock:
                self._idle.append(connection)
        else:
            connection.leave()

    # --- the body, and after it ------------------------------------------------------------------------------------

    def _called(self, connection: StepConnection, attempt: StepAttempt, body: Callable[[Any], bytes]) -> bytes:
        try:
            result = body(connection)
        except psycopg.Error as error:
            _raise_if_passing(connection, error)
            raise
        status = connection.info.transaction_status
        if status is pq.TransactionStatus.INERROR:
            raise UseError(
                f"step {attempt.name!r} went on after a statement had failed; PostgreSQL undoes such a transaction: "
                "nothing was written. Let the error out, or do what may fail in `with connection.transaction():`"
            )
        if status is pq.TransactionStatus.IDLE:
            raise self._ended(attempt)
        return result

    @staticmethod
    def _ended(attempt: StepAttempt) -> UseError:
        return UseError(
            f"step {attempt.name!r} ended its transaction by itself (COMMIT or ROLLBACK as SQL): what it committed is "
            "not undone, and its result not recorded. Leave both out; the step is committed when the body returns"
        )

    def _committed(self, connection: StepConnection, attempt: StepAttempt, result: bytes) -> bytes:
        holder = attempt.holder()
        if holder is None:
            raise Undone(UseError(f"nobody waits for step {attempt.name!r} any more; its transaction was undone"))
        try:
            _record_and_commit(connection, self._options, attempt, holder, result)
            return result
        except psycopg.Error as error:
            state = error.sqlstate or ""
            if state == ENDED:
                raise self._ended(attempt) from None
            if state == REFUSED:
                lost = f"step {attempt.name!r} was undone: another engine has taken its run over, or it has ended"
                raise Undone(StoreError(lost)) from None
            if not connection.closed and state != SETTLED:  # the server says so: it is undone
                _raise_if_passing(connection, error)
                raise
            recorded = self._settled(attempt, holder[1])
            if recorded is None:
                raise Undone(error) from error
            return self._read(attempt, *recorded)

    def _settled(self, attempt: StepAttempt, epoch: int) -> tuple[int, str, bytes] | None:
        """Look up a commit that was not answered, and see to it that it does not come later. Raises `StoreUnusable`
        when the store is closed meanwhile; then whoever takes the run over looks it up."""
        connections, place = self._connections, (wire.int8(attempt.run), wire.text(attempt.step))
        asked = (*place, wire.text(attempt.name), wire.int4(attempt.attempt), wire.int4(epoch))
        while True:
            try:
                found = connections.read(lambda session: session.run(st.SETTLE_STEP, *asked))
            except StoreError:
                connections.refuse_if_unusable(True)
                connections.pause(PAUSE_S)
                continue
            if not found.ntuples:
                return None
            crc, name, result = (found.get_value(0, column) or b"" for column in range(3))
            return wire.read_int4(crc), wire.read_text(name), result

    @staticmethod
    def _read(attempt: StepAttempt, crc: int, name: str, result: bytes) -> bytes:
        """The result in a row. Raises `Strayed`, and for a damaged one `StepOutcomeUnknown`."""
        if outcome_crc(attempt.run, attempt.step, name, result) != crc:
            raise StepOutcomeUnknown(
                f"step {attempt.name!r} was committed, and its result does not carry the checksum it was written with. "
                "See: replay check",
                step=attempt.name,
                attempt=attempt.attempt,
            )
        if name != attempt.name:
            raise Strayed(name)
        return result


def _raise_if_passing(connection: StepConnection, error: psycopg.Error) -> None:
    """Raise `Undone` for an error that may pass. A server that only reads now is not asked again."""
    if error.sqlstate == READ_ONLY:
        connection.leave()
    if connection.closed or PASSING.fullmatch(error.sqlstate or ""):
        raise Undone(error) from error


# --- what is said to the server ------------------------------------------------------------------------------------


def _begin(connection: StepConnection, options: Options, attempt: StepAttempt) -> tuple[int, str, bytes] | None:
    """Begin a transaction on a connection made as new, and answer None; or answer the outcome that is recorded.

    The look is before the transaction, so that a body may choose its isolation level. What commits between the two is
    met by the primary key.
    """
    limits_s = [limit for limit in (options.statement_timeout, attempt.timeout) if limit]
    settings = {
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
        "statement_timeout": f"{max(1, round(min(limits_s) * 1000)) if limits_s else 0}ms",
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "off",
    }
    if options.durability == "relaxed":
        settings["synchronous_commit"] = "off"
    prelude = ["RESET SESSION AUTHORIZATION", "RESET ALL", "CLOSE ALL", "UNLISTEN *", "DISCARD TEMP"]
    prelude += [f"SET {name} = '{value}'" for name, value in settings.items()]
    prelude.append("SELECT pg_advisory_unlock_all()")
    if options.durability == "full":
        prelude.append(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
        )
    table = sql.Identifier(options.schema, "step_outcomes").as_string()
    step = sql.Literal(wire.text(attempt.step).decode()).as_string()
    prelude.append(
        f"SELECT crc, name, result FROM {table} WHERE run = {attempt.run} AND step = {step} AND result IS NOT NULL"
    )
    cursor = connection.execute("; ".join(prelude).encode(), prepare=False)
    while cursor.nextset():
        pass
    for crc, name, result in cursor.fetchall():
        return crc, wire.read_text(name.encode()), result
    mark = sql.Literal(f"{attempt.run}/{wire.text(attempt.step).decode()}").as_string()
    connection.execute(f"BEGIN; SET LOCAL dalsegno.step = {mark}".encode(), prepare=False)
    return None


END = sql.SQL(
    "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL ROLE NONE; SET LOCAL search_path = {schema}, pg_temp; "
    "SELECT record_step({run}, {step}, {name}, {attempt}, {owner}, {epoch}, {crc}, {result}); COMMIT"
)
"""The end of a transaction, in one message: if one of these fails, the server passes the rest over."""


def _record_and_commit(
    connection: StepConnection, options: Options, attempt: StepAttempt, holder: tuple[str, int], result: bytes
) -> None:
    owner, epoch = holder
    statement = END.format(
        schema=sql.Identifier(options.schema),
        run=attempt.run,
        step=wire.text(attempt.step).decode(),
        name=wire.text(attempt.name).decode(),
        attempt=attempt.attempt,
        owner=wire.text(owner).decode(),
        epoch=epoch,
        crc=outcome_crc(attempt.run, attempt.step, attempt.name, result),
        result=result,
    )
    connection.execute(statement, prepare=False)
