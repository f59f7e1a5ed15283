"""What the tests of transactional steps share: a store with a table of the program's own beside it, and who pays."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from dalsegno import (
    Flow,
    Retry,
    step,
    step_context,
    workflow,
)
from dalsegno.core.transactions import StepAttempt
from tests.backends.test_postgresql import behind
from tests.postgresql_server import Server, schema_of

SOON = Retry(max_attempts=3, initial=0.001)


class Place:
    """A store, and a schema beside it with a table of the program's own, where its connections look first."""

    def __init__(self, server: Server) -> None:
        self.server, self.own = server, schema_of(server.schema())
        with server.connect() as connection:
            own = sql.Identifier(self.own)
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(own))
            connection.execute(sql.SQL("CREATE TABLE {}.effects (what text, at serial)").format(own))
        self.url = server.schema(options=f"-csearch_path={self.own}")

    @property
    def effects(self) -> list[str]:
        """What bodies have done, and not undone."""
        return [what for (what,) in self.ask("SELECT what FROM effects ORDER BY at")]

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """A question in the program's own schema."""
        with self.server.connect() as connection:
            connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(self.own)))
            answer = connection.execute(query.encode(), values)
            return answer.fetchall() if answer.description else []

    def recorded(self) -> list[tuple[Any, ...]]:
        """The rows of `step_outcomes`."""
        return behind(self.server, self.url, "SELECT step, name, attempt, result IS NOT NULL FROM step_outcomes")


def do(what: str) -> None:
    """The effect of a body."""
    step_context().connection.execute("INSERT INTO effects (what) VALUES (%s)", [what])


@step(transactional=True, retry=SOON)
def pay(what: str) -> str:
    """Writes one row."""
    do(what)
    return f"paid {what}"


@workflow
def paying(what: str) -> Flow[str]:
    """One transactional step."""
    return (yield from pay(what))


def attempt_of(number: int, owner: str, epoch: int, attempt: int = 1) -> StepAttempt:
    """An attempt of step 1 of a run."""
    return StepAttempt(run=number, step="1", name="pay", attempt=attempt, timeout=None, holder=lambda: (owner, epoch))
