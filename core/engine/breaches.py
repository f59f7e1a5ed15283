"""Breaches: what is known, and what is said, when a store raises what no store may raise.

The port lets a store answer, or raise a `StoreError`. One that somebody else wrote may do otherwise: a `TypeError` at a
value it does not expect, an error of its driver that it did not translate. Then it is not known which write of a batch
is at fault, nor whether some were applied. So each is looked for in the store, and what is not there is tried again in
halves, until those are found that the store will not take; the others go through (`Committer._after_breach`). Where
none does, the store is asked whether it takes anything.
"""

from __future__ import annotations

from typing import Any

from dalsegno.core.errors import StoreError, UnknownOutcome
from dalsegno.core.store import Backend, Created, Message, NewRun, Sent, Transition

SHOWN_MAX = 300
"""So much of an exception's text is quoted: drivers like to show the whole statement with its values."""


class StoreBroken(StoreError):
    """The store answers a write with an exception that is no `StoreError`, also when it is asked for this write alone,
    while others go through: it is a bug of the store, or of what it stands on. The write was not taken. Fact: `store`;
    the exception is its `__cause__`."""


def broken(backend: Backend, error: Exception, what: str) -> StoreBroken:
    """The error for something that the store has answered with an exception of its own."""
    store = type(backend).__qualname__
    shown = f"{type(error).__qualname__}: {error}"
    shown = f"{shown[:SHOWN_MAX]}…" if len(shown) > SHOWN_MAX + 1 else shown
    found = StoreBroken(
        f"the store {store} cannot take {what}: it raised {shown}. A store answers or raises a StoreError, so this is "
        "a bug in it, or in what it stands on; dalsegno.testing.BackendContract tests a store",
        store=store,
    )
    found.__cause__ = error
    return found


def takes_writes(backend: Backend) -> bool:
    """Whether the store answers a write that has nothing in it: for run 0, which is nobody's."""
    try:
        backend.commit([Transition(0, 0, 0)])
    except Exception:
        return False
    return True


def described(what: Any) -> str:
    """One write, for people."""
    if isinstance(what, NewRun):
        return f"the new run {what.workflow_id!r}"
    if isinstance(what, Message):
        return f"the {what.kind} {what.name!r} for {what.workflow_id!r}" if what.name else f"the {what.kind}"
    return "what this run has come to"


def answer_to(backend: Backend, what: NewRun) -> Created | None:
    """What the store would have answered if this creation was applied; None if it was not."""
    record = backend.find(what.workflow_id)
    same = record is not None and (record.digest, record.created_at_us) == (what.digest, what.created_at_us)
    return Created(record, True) if record is not None and same else None


def receipt_of(backend: Backend, message: Message, at_us: int) -> tuple[Sent, int] | None:
    """The same for a message: it waits in the inbox, since this very moment. Raises `UnknownOutcome` if nobody can
    know."""
    wanted = (message.kind, message.name, message.payload, message.failed, at_us)
    try:
        target, after = backend.find(message.workflow_id, message.generation), 0
        while target is not None and (inbox := backend.inbox(target.number, after)):
            if any((m.kind, m.name, m.payload, m.failed, m.at_us) == wanted for m in inbox):
                return Sent.ACCEPTED, target.number
            after = inbox[-1].seq
    except Exception as error:
        raise UnknownOutcome(f"whether {described(message)} was taken cannot be told: {error}") from error
    return None
