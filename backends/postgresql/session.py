"""One connection, as this store uses it.

psycopg connects; after that statements go through `psycopg.pq`, its thin wrapper of libpq: prepared once, parameters
and answers as bytes. psycopg's cursors ask each value for its type, which for a statement as small as a step's record
takes longer than the server does.
"""

from __future__ import annotations

import select
from collections.abc import Sequence

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGresult

from dalsegno.backends.postgresql.failures import Lost, error_of
from dalsegno.backends.postgresql.options import Options
from dalsegno.backends.postgresql.statements import Statement
from dalsegno.core.errors import StoreUnusable

IDLE_IN_TRANSACTION_S = 10
"""How long a transaction of ours may stand still, which it never does unless its process is stopped: whoever was
stopped in it holds locks that everybody else waits for."""

_GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
_FORMATS = [[1] * count for count in range(30)]

Call = tuple[Statement, Sequence[bytes | None]]


class Session:
    """A connection with its prepared statements. One thread uses it at a time."""

    __slots__ = ("_connection", "_pg", "_place", "_poll", "_prepared", "_wait", "channel", "slot")

    def __init__(self, options: Options) -> None:
        """Connect. Raises `psycopg.OperationalError`; what it says may name the host and the user, not a password."""
        kind = "any" if options.read_only else "read-write"
        said = conninfo_to_dict(options.conninfo)
        self._connection = psycopg.connect(
            options.conninfo, autocommit=True, target_session_attrs=str(said.get("target_session_attrs") or kind)
        )
        self._pg = self._connection.pgconn
        self._place = options.place
        self._prepared: set[bytes] = set()
        self._poll = select.poll()
        self._poll.register(self._pg.socket, select.POLLIN)
        self._wait = select.poll()
        self._wait.register(self._pg.socket, select.POLLIN)
        self._pg.nonblocking = 1
        self.slot = b""
        self.channel = b""
        try:
            self._set_up(options)
        except BaseException:
            self.close()
            raise

    def _set_up(self, options: Options) -> None:
        encoding = self._pg.parameter_status(b"server_encoding")
        if encoding != b"UTF8":
            raise StoreUnusable(f"{self._place}: its encoding is {(encoding or b'?').decode()}, and a store needs UTF8")
        settings = {
            "client_encoding": "UTF8",
            "statement_timeout": f"{round(options.statement_timeout * 1000)}ms",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
            "default_transaction_isolation": "read committed",
            "default_transaction_read_only": "on" if options.read_only else "off",
            # The server's end of noticing that the other one is gone: it holds locks of ours until then.
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "2",
            # Every statement goes by an index, and stays with that while a table grows from nothing to millions of
            # rows: a plan made for an empty table, and kept, would read the whole of it each time.
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
            "enable_bitmapscan": "off",
            "jit": "off",
            "bytea_output": "hex",
        }
        if options.durability == "relaxed":
            settings["synchronous_commit"] = "off"
        commands = [f"SET {name} = {sql.Literal(value).as_string()}" for name, value in settings.items()]
        commands.append(f"SET search_path = {sql.Identifier(options.schema).as_string()}, pg_temp")
        if options.durability == "full":
            # `on` and the levels above it wait for the disk of a standby, too; only what promises less is raised.
            commands.append(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
            )
        self._connection.execute("; ".join(commands).encode())

    @property
    def connection(self) -> psycopg.Connection[tuple[object, ...]]:
        """psycopg's connection, for what is not done often."""
        return self._connection

    @property
    def in_transaction(self) -> bool:
        return self._pg.transaction_status != pq.TransactionStatus.IDLE

    def close(self) -> None:
        self._connection.close()

    def is_alive(self) -> bool:
        """Whether the connection is there, as far as can be told without asking: the server says when it closes it."""
        pg = self._pg
        for _ in range(2):
            if pg.status != pq.ConnStatus.OK:
                return False
            if not self._poll.poll(0):
                return True
            try:
                pg.consume_input()
                pg.is_busy()  # has libpq look at what came
            except psycopg.OperationalError:
                return False
        return bool(pg.status == pq.ConnStatus.OK)

    # --- statements ------------------------------------------------------------------------------------------------

    def run(self, statement: Statement, *parameters: bytes | None) -> PGresult:
        """Run a statement, by itself a transaction where none was begun.

        Raises `Lost`, `Again`, `Rejected`, and the errors of the port.
        """
        if statement.name not in self._prepared:
            return self.together([(statement, parameters)])[0]
        try:  # None is a null; the stub of psycopg knows that of `send_query_prepared` only
            result = self._pg.exec_prepared(statement.name, parameters, _FORMATS[len(parameters)], 1)  # type: ignore[arg-type]
        except psycopg.OperationalError as error:
            raise Lost(str(error)) from error
        if result.status in _GOOD:
            return result
        raise self._failure(result)

    def together(self, calls: Sequence[Call]) -> list[PGresult]:
        """Run statements one after another in one round trip. None is run after one that failed, which is raised.

        Those that are used for the first time are prepared in the same round trip, each just before it runs: a new
        connection, that is, one after an opening or a failure, waits for the server half as often.
        """
        pg, sent, answers = self._pg, list[tuple[Statement, bool]](), list[PGresult]()
        try:
            pg.enter_pipeline_mode()
            new = set[bytes]()
            for statement, parameters in calls:
                name = statement.name
                if name not in self._prepared and name not in new:
                    pg.send_prepare(name, statement.sql)
                    new.add(name)
                    sent.append((statement, True))
                pg.send_query_prepared(name, parameters, _FORMATS[len(parameters)], 1)
                sent.append((statement, False))
            pg.pipeline_sync()
            for _ in sent:
                answers.append(self._next_result())
            if self._answer() is None:  # what answers the sync
                raise Lost("the server's answer ends early")
            pg.exit_pipeline_mode()
        except psycopg.OperationalError as error:
            self._sorted_out(sent, answers)  # the server may have said why before it went
            raise Lost(str(error)) from error
        return self._sorted_out(sent, answers)

    def _sorted_out(self, sent: Sequence[tuple[Statement, bool]], answers: Sequence[PGresult]) -> list[PGresult]:
        """The answers of what was run, without those to what was only prepared, which are noted. Raises the first
        error."""
        results = list[PGresult]()
        for (statement, prepared), result in zip(sent, answers, strict=False):
            if result.status not in _GOOD:
                failure = self._failure(result)
                if prepared and isinstance(failure, Lost) and result.error_field(pq.DiagnosticField.SQLSTATE):
                    failure.nothing_applied = True  # the server said so itself, and passes the rest over
                raise failure
            if prepared:
                self._prepared.add(statement.name)
            else:
                results.append(result)
        return results

    def _next_result(self) -> PGresult:
        result = self._answer()
        if result is None:
            raise Lost("the server's answer ends early")
        while self._answer() is not None:  # each statement's answers end with None
            pass
        return result

    def _answer(self) -> PGresult | None:
        """The next answer. Waits without holding the interpreter, which `get_result` does not let go of: whoever holds
        the locks that the server waits for may be a thread of this process.

        Reads while it cannot write, so that neither side waits for the other however much is sent.
        """
        pg = self._pg
        while pg.flush() or pg.is_busy():
            self._wait.modify(pg.socket, select.POLLIN | (select.POLLOUT if pg.flush() else 0))
            for _, what in self._wait.poll():
                if what & ~select.POLLOUT:
                    pg.consume_input()
        return pg.get_result()

    def _failure(self, result: PGresult) -> Exception:
        if self._pg.status != pq.ConnStatus.OK:
            said = result.error_message.decode(errors="replace").strip() or "the connection broke"
            return Lost(said)
        return error_of(result, self._place)
