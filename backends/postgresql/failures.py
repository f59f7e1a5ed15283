"""What PostgreSQL's errors mean to the engine.

Each has a code of five characters, listed in the appendix "PostgreSQL Error Codes" of its manual. What counts is
whether anything can have been applied. An error that the server reports undid the whole transaction, so that nothing
was. A connection that breaks says nothing: if it breaks after the commit was sent, the outcome is unknown.
"""

from __future__ import annotations

import re

from psycopg.pq import DiagnosticField
from psycopg.pq.abc import PGresult

from dalsegno.core.errors import StoreDamaged, StoreError, StoreFull, StoreUnusable

REFUSED = "DS001"
"""Raised by functions of ours: a transition does not fit, look again and say why."""

AGAIN = {
    "40001",  # serialization failure
    "40P01",  # deadlock detected
    "23505",  # unique violation: two connections have created the same id
    "55006",  # object in use
    "0A000",  # "cached plan must not change result type": a migration went by
}
"""After these the same thing is done once more, from the beginning."""

READ_ONLY = "25006"
"""What a server answers that was the primary and has become a standby."""

PASSING = re.compile(f"40001|40P01|55P03|57014|57P0[1-5]|53300|08...|25P03|{READ_ONLY}")
"""What undid the transaction of a step and may not come again: it lost against another one, waited for a lock or a
statement too long, stood still too long, or the server or the connection went."""

_SHUTDOWN = re.compile("57P0[1-5]")


class Lost(Exception):
    """The connection is gone, or leads to a server that is of no use any more.

    `nothing_applied` is true where that is certain; else whoever has sent a commit does not know.
    """

    def __init__(self, message: str, nothing_applied: bool = False) -> None:
        super().__init__(message)
        self.nothing_applied = nothing_applied


class Again(Exception):
    """The transaction was undone because of another one; it is to be done again."""


class Rejected(Exception):
    """A function of ours found that a transition does not fit; the transaction was undone."""


def error_of(result: PGresult, place: str) -> Exception:
    """What to raise for an answer that is an error."""
    code = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
    message = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode(errors="replace")
    if code == REFUSED:
        return Rejected()
    if code in AGAIN:
        return Again(message)
    if _SHUTDOWN.fullmatch(code) or code.startswith("08"):
        return Lost(message)
    if code in (READ_ONLY, "26000"):
        # A primary that has become a standby is read-only from one moment to the next; and a pooler that gives each
        # transaction another session knows no prepared statements. A new connection is a new chance.
        return Lost(message, nothing_applied=True)
    return store_error(code, message, place)


def store_error(code: str, message: str, place: str) -> StoreError:
    """The error of the port for an error after which the connection can be used on."""
    if code == "53100":
        return StoreFull(f"{place} has no more room ({message}). Nothing was written.")
    if code in ("XX001", "XX002"):
        return StoreDamaged(f"{place}: {message}", key="", run=None, event=None)
    advice = {
        "57014": "; nothing was applied. The option statement_timeout says how long is too long",
        "42501": "; see docs/postgresql.md for what the role needs",
        "42P01": "; was the schema dropped, or restored in part?",
        "3F000": "; was the schema dropped, or restored in part?",
    }.get(code, "")
    return StoreUnusable(f"{place}: {message}{advice}", sqlstate=code)
