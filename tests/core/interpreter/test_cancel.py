"""Cancelling a run: where `Cancelled` is raised, what clean-up may do, what a shield keeps out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dalsegno.core.commands import All, First, Flow, Map, NewCallback, Now, Publish, Receive, Shield, Sleep, Spawn
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import Cancelled
from dalsegno.core.interpreter import CancelledOut, Finished
from tests.core.interpreter.drive import Drive


@step
def work(n: int = 0) -> int:
    return n


@workflow
def child(n: int = 0) -> Flow[int]:
    yield from Sleep(1)
    return n


def awaits_callback() -> Flow[Any]:
    callback = yield from NewCallback(str)
    yield from callback


def awaits_task() -> Flow[Any]:
    task = yield from Spawn(Receive("never"))
    yield from task


WAITS: dict[str, Callable[[], Any]] = {
    "step": lambda: work(1),
    "sleep": lambda: Sleep(5),
    "receive": lambda: Receive("x"),
    "receive with time-out": lambda: Receive("x", timeout=5),
    "callback": awaits_callback,
    "task": awaits_task,
    "all": lambda: All(work(1), Receive("x")),
    "map": lambda: Map(work, [1, 2, 3], concurrency=2),
    "first": lambda: First(work(1), Receive("x", timeout=3)),
    "nested": lambda: All(First(work(1), All(work(2))), Sleep(5)),
}


@pytest.mark.parametrize("what", WAITS)
def test_cancelled_is_raised_where_the_run_waits(what: str):
    """Whatever it waits for is withdrawn at once, and the run ends as cancelled."""

    @workflow
    def waits() -> Flow[Any]:
        yield from WAITS[what]()

    run = Drive(waits, by_hand=["work"]).cancel("enough of it")
    assert isinstance(run.interpreter.outcome, CancelledOut)
    assert not run.ids
    with pytest.raises(Cancelled, match="enough of it"):
        run.result()


def test_cancelling_during_a_retry_back_off():
    """A step that waits for its next attempt is cancelled like one that runs."""

    @workflow
    def waits() -> Flow[Any]:
        yield from work(1)

    run = Drive(waits, by_hand=["work"]).fail_attempt("1", OSError()).cancel()
    assert run.withdrawn == ["1"]
    with pytest.raises(Cancelled):
        run.result()


@workflow
def tidy() -> Flow[Any]:
    try:
        yield from Receive("never")
    except Cancelled:
        yield from work(1)
        yield from Sleep(5)
        raise
    finally:
        yield from work(2)


def test_clean_up_runs_to_its_end():
    """`except` and `finally` yield commands, and a second request changes nothing."""
    run = Drive(tidy, by_hand=["work"]).cancel().cancel("again")
    assert run.ids == ["2"]
    run.complete("2").cancel("and again").pass_time().complete("4")
    with pytest.raises(Cancelled, match="enough"):
        run.result()


def test_a_run_may_return_all_the_same():
    """Catching `Cancelled` and returning makes the run complete."""

    @workflow
    def calm() -> Flow[Any]:
        try:
            yield from Receive("never")
        except Cancelled:
            return "calm"

    assert Drive(calm).cancel().result() == "calm"


def test_branches_clean_up_before_the_node_is_done():
    """`Cancelled` reaches every branch, and the root only when all are done."""
    log: list[str] = []

    def branch(name: str) -> Flow[None]:
        try:
            yield from Receive("never")
        finally:
            yield from work()
            log.append(name)

    @workflow
    def many() -> Flow[Any]:
        log.clear()
        try:
            yield from All(branch("a"), First(branch("b"), Sleep(9)))
        except Cancelled:
            return list(log)

    run = Drive(many, by_hand=["work"]).cancel()
    assert run.ids == ["1.1.2", "1.2.1.2"]
    assert run.complete("1.2.1.2").complete("1.1.2").result() == ["b", "a"]


def test_a_shield_is_not_reached():
    """Its value is delivered, and `Cancelled` is raised at the next command."""
    seen: list[Any] = []

    @workflow
    def shielded() -> Flow[Any]:
        seen.clear()
        seen.append((yield from Shield(work(1))))
        try:
            yield from Now()
        except Cancelled:
            return [*seen, "cancelled"]

    run = Drive(shielded, by_hand=["work"]).cancel()
    assert run.ids == ["1.1"]
    assert run.complete("1.1", "safe").result() == ["safe", "cancelled"]


def test_a_shield_within_a_node_is_waited_for():
    """The branch beside it is cancelled, the shielded one ends by itself."""

    @workflow
    def shielded() -> Flow[Any]:
        yield from All(Shield(work(1)), Receive("never"))

    run = Drive(shielded, by_hand=["work"]).cancel()
    assert run.ids == ["1.1.1"]
    run.complete("1.1.1")
    assert isinstance(run.interpreter.outcome, CancelledOut)
    run.check()


def test_a_shield_as_the_last_thing_lets_the_run_return():
    """Nothing is yielded after it, so nothing is cancelled."""

    @workflow
    def shielded() -> Flow[Any]:
        return (yield from Shield(work(1)))

    run = Drive(shielded, by_hand=["work"]).cancel().complete("1.1", 5)
    assert run.result() == 5
    assert isinstance(run.interpreter.outcome, Finished)


def test_a_cancelled_child_is_waited_for():
    """The child is withdrawn, and `Cancelled` is raised when it has ended, however it did."""

    @workflow
    def parent() -> Flow[Any]:
        try:
            yield from child(1)
        except Cancelled:
            return "both"

    run = Drive(parent).cancel()
    assert run.ids == ["1"]
    assert run.withdrawn == ["1"]
    assert run.open("1").withdrawn
    assert run.child_returns("1", 5).result() == "both"


def test_an_abandoned_child_is_not_waited_for():
    """Its end, whenever it comes, is taken note of by nobody."""

    @workflow
    def parent() -> Flow[Any]:
        try:
            yield from child.options(on_parent_close="abandon")(1)
        except Cancelled:
            yield from work(1)
            return "alone"

    run = Drive(parent, by_hand=["work"]).cancel()
    assert run.ids == ["2"]
    assert run.child_fails("1", ValueError()).complete("2").result() == "alone"


def test_tasks_end_with_a_cancelled_root():
    """Spawned tasks are cancelled when the cancelled root has ended, and so are those it left behind."""

    @workflow
    def spawns() -> Flow[Any]:
        yield from Spawn(Receive("never"))
        yield from Receive("never")

    with pytest.raises(Cancelled):
        Drive(spawns).cancel().result()

    @workflow
    def leaves() -> Flow[Any]:
        yield from Spawn(Receive("never"))
        return "left"

    assert Drive(leaves).cancel().result() == "left"


def test_a_branch_that_has_not_begun_never_runs():
    """A generator whose sibling failed before its first line is put away unstarted."""
    begun: list[int] = []

    def fails() -> Flow[None]:
        raise ValueError("at once")
        yield  # type: ignore[unreachable]

    def begins() -> Flow[None]:
        begun.append(1)
        yield from work()

    @workflow
    def both() -> Flow[Any]:
        yield from All(fails(), begins())

    with pytest.raises(ValueError, match="at once"):
        Drive(both).result()
    assert not begun


def test_cancelled_without_a_request_is_a_failure():
    """A workflow that raises `Cancelled` by itself has failed."""

    @workflow
    def odd() -> Flow[Any]:
        yield from work()
        raise Cancelled("by myself")

    run = Drive(odd)
    assert not isinstance(run.interpreter.outcome, CancelledOut)
    run.check()


def test_a_value_that_is_on_its_way_is_delivered_first():
    """A branch that was answered by the same event gets its answer, and `Cancelled` at its next yield."""
    seen: list[Any] = []

    def receives(callback: Any) -> Flow[Any]:
        seen.append((yield from callback))
        try:
            yield from work()
        except Cancelled:
            seen.append("cancelled")

    def fails(callback: Any) -> Flow[Any]:
        yield from callback
        raise ValueError("x")

    @workflow
    def both() -> Flow[Any]:
        seen.clear()
        callback = yield from NewCallback()
        yield from Publish("token", callback.token)
        try:
            yield from All(fails(callback), receives(callback))
        except ValueError:
            return list(seen)

    run = Drive(both, by_hand=["work"])
    assert run.complete_callback(run.state["token"], "value").result() == ["value", "cancelled"]
