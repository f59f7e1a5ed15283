"""Whether what is about to be sent fits what a run waits for, found out by its code before anything is sent.

A signal is durable once it is sent, and its history holds it for ever: JSON that the `Receive` cannot make its type of
blocks the run, and nobody can take it back. Where the code is at hand (`--app`) the history is replayed, without
running a step, and the JSON is held against what waits there. What the code does not know yet is not judged: a signal
may come before its `Receive`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dalsegno.core.errors import DalsegnoError, DecodeError
from dalsegno.core.events import Event
from dalsegno.core.interpreter import Interpreter, Waiting
from dalsegno.core.store import Backend, RunRecord
from dalsegno.tools.app import App
from dalsegno.tools.stores import read_run
from dalsegno.tools.text import clean

RECEIVE, CALLBACK = "receive", "callback"


def check_signal(store: Backend, record: RunRecord | None, name: str, payload: Any, app: App) -> str:
    """Hold the JSON of a signal against the `Receive` that waits for it. Raises `DecodeError` when it does not fit.

    Answers what a person may want to know: that nothing waits for a signal of this name now, but for others.
    """
    with waiting_in(store, record, app) as waits:
        asking = [waiting for waiting in waits if waiting.kind == RECEIVE]
        mine = [waiting for waiting in asking if waiting.name == name]
        if record is None or not asking:
            return ""
        if not mine:
            others = ", ".join(sorted({f"'{clean(waiting.name, 60)}'" for waiting in asking}))
            return (
                f"nothing in '{clean(record.workflow_id, 60)}' waits for this signal now, only for {others}; it is kept"
            )
        if not any(message.name == name for message in store.inbox(record.number)):
            for waiting in mine:
                _fit(app, payload, waiting, f"{record.workflow_id!r} waits for the signal {name!r}")
        return ""


def check_answer(store: Backend, record: RunRecord | None, id: str, value: Any, app: App) -> None:
    """Hold the JSON for a callback against its type, where its workflow waits for it. Raises `DecodeError`."""
    with waiting_in(store, record, app) as waits:
        for waiting in waits:
            if waiting.kind == CALLBACK and waiting.id == id and record is not None:
                _fit(app, value, waiting, f"{record.workflow_id!r} waits for the callback {id!r}")


@contextmanager
def waiting_in(store: Backend, record: RunRecord | None, app: App) -> Iterator[list[Waiting]]:
    """What an open run waits for by its code, while the code stands there; nothing where that cannot be told."""
    if record is None or not record.status.open or record.workflow not in app.workflows:
        yield []
        return
    kept = read_run(store, record)
    if kept.unreadable is not None:
        yield []
        return
    interpreter = Interpreter(app.workflows[record.workflow], app.codec)
    try:
        yield _waiting(interpreter, kept.events)
    finally:
        interpreter.evict()


def _waiting(interpreter: Interpreter, events: tuple[Event, ...]) -> list[Waiting]:
    try:
        interpreter.replay(list(events))
    except DalsegnoError:
        return []  # today's code goes another way: `replay why` tells that
    return list(interpreter.waiting.values())


def _fit(app: App, payload: Any, waiting: Waiting, where: str) -> None:
    command: Any = waiting.command
    try:
        app.codec.structure(payload, command.type)
    except DecodeError as error:
        file, line = waiting.owner.place()
        error.add_note(f"({where} at {os.path.basename(file)}:{line}; nothing was sent)")
        raise
