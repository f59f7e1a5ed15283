"""The table of answers: every event against every kind of command."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from dalsegno.core.commands import (
    Checkpoint,
    First,
    Flow,
    NewCallback,
    Receive,
    Scope,
    Send,
    SideEffect,
    Sleep,
    SleepUntil,
)
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import HistoryMismatch
from dalsegno.core.events import EVENTS, Event
from dalsegno.core.interpreter import ANSWERS, Waiting
from dalsegno.core.interpreter.answers import AT_ANY_TIME
from dalsegno.core.interpreter.fold import HANDLERS
from tests.core.interpreter.drive import CODEC, fresh, started


@step
def work(n: int = 0) -> int:
    return n


@workflow
def child(n: int = 0) -> Flow[int]:
    return (yield from work(n))


def awaits_callback() -> Flow[Any]:
    return (yield from (yield from NewCallback(int)))


KINDS: dict[str, Callable[[], Any]] = {
    "step": work,
    "child": child,
    "side effect": lambda: SideEffect(lambda: 1),
    "sleep": lambda: Sleep(5),
    "sleep until": lambda: SleepUntil(datetime(2030, 1, 1, tzinfo=UTC)),
    "receive": lambda: Receive("x", timeout=5),
    "send": lambda: Send("a", "x"),
    "checkpoint": Checkpoint,
    "race": lambda: First(awaits_nothing()),
    "scope": lambda: Scope(awaits_nothing()),
    "callback": awaits_callback,
}
ABOUT_IDS = [event for event in ANSWERS if any(a.name == "id" for a in attrs.fields(event))]  # type: ignore[arg-type]


def awaits_nothing() -> Flow[int]:
    return 1
    yield  # type: ignore[unreachable]


@workflow
def waits(kind: str) -> Flow[Any]:
    return (yield from KINDS[kind]())


def event_for(cls: type[Any], waiting: Waiting) -> Event:
    """An event of this class that carries all of the fingerprint it can."""
    known: dict[str, Any] = {
        "at_us": 1,
        "id": waiting.id,
        "name": waiting.name,
        "digest": waiting.digest,
        "kind": waiting.kind,
        "line": 1,
        "result": getattr(waiting, "result", CODEC.encode(1)),
        "error": CODEC.encode_error(ValueError("x")) if "Failed" in cls.__name__ or "Not" in cls.__name__ else b"",
        "workflow_id": "other",
        "consumed": (),
        "winner": 0,
    }
    made: Event = cls(**{a.name: known.get(a.name, 1) for a in attrs.fields(cls)})
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", ABOUT_IDS, ids=lambda event: event.__name__)
def test_every_cell_of_the_table(event: type[Event], kind: str):
    """An event that may not answer what waits under its id is refused; one that may, with everything equal, is not."""
    interpreter = fresh(waits)
    interpreter.replay([started(waits, kind)])
    (waiting,) = interpreter.waiting.values()
    assert waiting.kind == kind
    waiting.deadline_us = 1  # as if a timer had been set
    answer = ANSWERS[event]
    if kind not in answer.kinds and event not in AT_ANY_TIME:
        with pytest.raises(HistoryMismatch):
            interpreter.apply(event_for(event, waiting))
        return
    interpreter.apply(event_for(event, waiting))
    assert (not interpreter.waiting) is (answer.ends and kind in answer.kinds)


def test_every_event_has_a_handler():
    """The table of handlers is complete, and the table of answers speaks of all that is no affair of the run itself."""
    assert set(HANDLERS) == set(EVENTS)
    silent = {event.__name__ for event in EVENTS if event not in ANSWERS}
    assert all(name.startswith("Run") or name in ("CancelRequested", "TimerCancelled") for name in silent)
