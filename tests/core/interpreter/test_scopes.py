"""`Scope`: once it has ended only its outcome is replayed, and nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno.core.commands import All, First, Flow, Now, Receive, Scope, Sleep, Spawn
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import Cancelled, EncodeError
from dalsegno.core.events import ScopeCompleted, StepCompleted
from tests.core.interpreter.drive import Drive


@step
def work(n: int = 0) -> int:
    return n


RUNS: list[str] = []


def part(name: str) -> Flow[list[Any]]:
    RUNS.append(name)
    first = yield from work(1)
    heard = yield from Receive("news")
    return [name, first, heard]


@workflow
def parts() -> Flow[Any]:
    RUNS.clear()
    a = yield from Scope(part("a"))
    b = yield from Scope(part("b"))
    return [*a, *b, (yield from Receive("news")), (yield from Now()) is not None]


def test_a_finished_scope_is_passed_over():
    """A replay does not run the inside, and its signals are gone from the buffer all the same."""
    run = Drive(parts)
    run.signal("news", 1).signal("news", 2).signal("news", 3)
    assert run.result() == ["a", 1, 1, "b", 1, 2, 3, True]
    assert [event.consumed for event in run.events if isinstance(event, ScopeCompleted)] == [(101,), (102,)]
    run.replay()
    assert RUNS == []


def test_early_signals_stay_with_the_scope_that_received_them():
    """Signals that all came before the first scope asked go where they went live."""

    @workflow
    def late() -> Flow[Any]:
        yield from work(0)
        a = yield from Scope(part("a"))
        return [*a, (yield from Receive("news"))]

    run = Drive(late, by_hand=["work"]).signal("news", 1).signal("news", 2).complete("1").complete("2.1.1", 1)
    assert run.result() == ["a", 1, 1, 2]


def test_a_receive_beside_a_scope_does_not_take_its_signals():
    """Inside waited first, so the first signal is the inside's, passed over or not."""

    def outside() -> Flow[Any]:
        yield from work(2)
        return (yield from Receive("news"))

    @workflow
    def beside() -> Flow[Any]:
        return (yield from All(Scope(part("a")), outside()))

    assert Drive(beside).signal("news", 1).signal("news", 2).result() == (["a", 1, 1], 2)


def test_the_inside_can_be_pruned():
    """Without the events inside, the replay leads to the same place."""
    run = Drive(parts).signal("news", 1).signal("news", 2)
    kept = [event for event in run.events if not (isinstance(event, StepCompleted) and "." in event.id)]
    assert len(kept) < len(run.events)
    again = run.fresh(run.definition)
    again.replay(kept)
    assert list(again.waiting) == list(run.interpreter.waiting) == ["3"]


def test_a_failed_scope_raises_its_error_again():
    """The recorded error is raised, live and on replay."""

    def fails() -> Flow[None]:
        yield from work()
        raise LookupError("inside")

    @workflow
    def outer() -> Flow[Any]:
        try:
            yield from Scope(fails())
        except LookupError as error:
            yield from Sleep(1)
            return str(error)

    assert Drive(outer).pass_time().result() == "inside"


def test_scopes_nest():
    """What an inner scope received belongs to the outer one, too."""

    def outer() -> Flow[Any]:
        return [(yield from Scope(part("in"))), (yield from Receive("news"))]

    @workflow
    def nested() -> Flow[Any]:
        return [(yield from Scope(outer())), (yield from Receive("news"))]

    run = Drive(nested).signal("news", 1).signal("news", 2).signal("news", 3)
    assert run.result() == [[["in", 1, 1], 2], 3]
    assert [event.consumed for event in run.events if isinstance(event, ScopeCompleted)] == [(101,), (101, 102)]


def test_tasks_spawned_inside_end_inside():
    """A scope is over when its tasks are, so that nothing inside comes after its end."""

    def spawns() -> Flow[str]:
        yield from Spawn(work(1))
        return "spawned"

    @workflow
    def outer() -> Flow[Any]:
        return (yield from Scope(spawns()))

    run = Drive(outer, by_hand=["work"])
    assert run.ids == ["1.1.1.1"]
    assert run.complete("1.1.1.1").result() == "spawned"


def test_a_cancelled_scope_is_not_recorded():
    """It cleans up inside, and a replay runs it again."""

    def inside() -> Flow[None]:
        try:
            yield from Receive("never")
        finally:
            yield from work(1)

    @workflow
    def outer() -> Flow[Any]:
        won = yield from First(Scope(inside()), Sleep(5))
        return won.key

    run = Drive(outer, by_hand=["work"]).pass_time().complete("1.1.1.2")
    assert run.result() == 1
    assert not any(isinstance(event, ScopeCompleted) for event in run.events)


def test_cancelling_a_run_reaches_into_a_scope():
    """`Cancelled` is raised inside, then at the scope."""

    @workflow
    def outer() -> Flow[Any]:
        yield from Scope(part("a"))

    with pytest.raises(Cancelled):
        Drive(outer).cancel().result()


def test_a_scope_of_a_command():
    """A branch may be a plain command."""

    @workflow
    def outer() -> Flow[Any]:
        return (yield from Scope(work(4)))

    assert Drive(outer).result() == 4


def test_a_value_that_cannot_be_stored_fails_at_the_scope():
    """The scope's outcome is then that error."""

    def inside() -> Flow[Any]:
        yield from work(1)
        return object()

    @workflow
    def outer() -> Flow[Any]:
        yield from Scope(inside())

    with pytest.raises(EncodeError, match="the value of Scope 1"):
        Drive(outer).result()
