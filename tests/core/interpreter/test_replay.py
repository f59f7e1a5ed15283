"""Replaying: prefixes, a debugger's view, contexts, layers, long histories, and the table of answers."""

from __future__ import annotations

import contextvars
import gc
import itertools
import weakref
from typing import Any

import pytest

from dalsegno.core.commands import All, First, Flow, Map, Receive, Sleep, Spawn
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import DecodeError, HistoryMismatch, UseError
from dalsegno.core.events import Event, StepCompleted
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.values.codec import Codec
from tests.core.interpreter.drive import ALIVE, CODEC, START_US, Drive, note, started


@step
def work(n: int = 0) -> dict[str, Any]:
    return {"i": n, "ok": True, "name": "step"}


def branch(n: int) -> Flow[Any]:
    first = yield from work(n)
    yield from Sleep(n)
    return first["i"]


@workflow
def busy() -> Flow[Any]:
    task = yield from Spawn(branch(7))
    some = yield from Map(branch, [3, 1, 2], concurrency=2)
    won = yield from First(a=branch(9), heard=Receive("go"))
    rest = yield from All(branch(4), work(5))
    return [some, won.key, rest, (yield from task)]


def a_busy_run() -> Drive:
    run = Drive(busy)
    for _ in range(4):
        run.pass_time()
    run.signal("go").pass_time(20)
    return run


def test_every_prefix_leads_to_where_the_run_was():
    """Replayed at once or event by event, with or without scopes passed over."""
    run = a_busy_run()
    assert run.result()[1] == "heard"
    assert len(run.notes) == len(run.events) > 20
    for cut in range(1, len(run.events)):
        again = run.fresh(busy)
        again.replay(run.events[:cut])
        for event in run.events[cut:]:
            again.apply(event)
        assert note(again) == run.notes[-1]


def test_a_replay_issues_all_that_waits():
    """`take` gives each waiting command once, in the order they were issued."""
    run = a_busy_run()
    again = run.fresh(busy)
    again.replay(run.events[:9])
    assert again.take().issued == list(again.waiting.values())
    assert again.take().issued == []


def test_a_history_is_replayed_once():
    """A second replay is a misuse."""
    run = a_busy_run()
    with pytest.raises(UseError):
        run.interpreter.replay(run.events)


def test_a_debugger_stops_anywhere():
    """`upto` folds a prefix, and `fibers` shows where everything stands, local variables included."""
    run = a_busy_run()
    again = run.fresh(busy)
    again.replay(run.events, upto=2)
    assert again.count == 2
    view = again.fibers()
    assert (view.path, view.function, view.waits_for) == ("", "busy", "Map (id 2)")
    assert [(each.path, each.function, each.waits_for) for each in view.beneath] == [
        ("2.1", "branch", "step 'work' (id 2.1.1)"),
        ("2.2", "branch", "step 'work' (id 2.2.1)"),
        ("1.1", "branch", "sleep (id 1.1.2)"),
    ]
    assert view.beneath[0].frames[0].f_locals == {"n": 3}
    assert view.beneath[0].line == branch.__code__.co_firstlineno + 1


VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=0)


def test_a_run_has_a_context_of_its_own():
    """Context variables set by a workflow stay in its run."""

    @workflow
    def sets() -> Flow[Any]:
        VARIABLE.set(VARIABLE.get() + 1)
        yield from Sleep(1)
        return VARIABLE.get()

    runs = [Drive(sets), Drive(sets)]
    assert [run.pass_time().result() for run in runs] == [1, 1]
    assert VARIABLE.get() == 0


class Salted:
    """A layer that writes the same payload differently each time, as encryption does."""

    def __init__(self) -> None:
        self.salt = itertools.count()

    def encode(self, data: bytes, /) -> bytes:
        return next(self.salt).to_bytes(8, "big") + data

    def decode(self, data: bytes, /) -> bytes:
        return data[8:]


def test_encrypted_payloads_have_steady_fingerprints():
    """Digests are taken of what is inside the layers, and results are compared by value."""

    @workflow
    def sums(n: int) -> Flow[Any]:
        total = 0
        for i in range(n):
            total += (yield from work(i))["i"]
        return total

    codec = Codec(layers=[Salted()])
    run = Drive(sums, 3, codec=codec)
    assert run.events[-1].closes
    assert run.replay().closed


@workflow
def chain(n: int) -> Flow[int]:
    total = 0
    for i in range(n):
        total += (yield from work(i))["i"]
    return total


def chain_history(n: int) -> list[Event]:
    events: list[Event] = [started(chain, n)]
    for i in range(n):
        digest = CODEC.digest(CODEC.encode_call((i,), {}))
        events.append(StepCompleted(START_US + i, str(i + 1), "work", digest, 1, 1, 1, CODEC.encode(work.fn(i))))
    return events


def test_long_histories_do_not_recurse():
    """Ten thousand steps, replayed and applied, end with the same value."""
    events = chain_history(10_000)
    replayed, applied = Interpreter(chain, CODEC), Interpreter(chain, CODEC)
    replayed.replay(events)
    for event in events:
        applied.apply(event)
    assert replayed.outcome == applied.outcome is not None
    assert replayed.count == applied.count == 10_001


def test_a_result_that_cannot_be_read_names_its_step():
    """`DecodeError` blocks the run and says which event it was."""
    events = chain_history(3)
    broken = StepCompleted(START_US, "2", "work", events[2].digest, 1, 1, 1, b"\xc1")  # type: ignore[attr-defined]
    with pytest.raises(DecodeError) as caught:
        Interpreter(chain, CODEC).replay([*events[:2], broken])
    assert any("'work' (id 2), event 2" in text for text in caught.value.__notes__)


def test_a_mismatch_in_a_long_run_names_its_event():
    """The quick way of folding gives the same errors as the general one."""
    events = chain_history(20)
    del events[11]
    with pytest.raises(HistoryMismatch) as caught:
        Interpreter(chain, CODEC).replay(events)
    assert caught.value.event_index == 11


def test_a_run_that_has_ended_leaves_no_cycle():
    """Nothing has to wait for the garbage collector when a closed run is forgotten."""
    run = a_busy_run()
    machine = weakref.ref(run.interpreter._machine)
    ALIVE.clear()
    gc.disable()
    try:
        del run
        assert machine() is None
    finally:
        gc.enable()
