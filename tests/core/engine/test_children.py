"""Children: runs that belong to runs."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest

from dalsegno import (
    All,
    BadOption,
    Cancelled,
    Codec,
    ContinueAsNew,
    First,
    Flow,
    Publish,
    Receive,
    Run,
    RunConflict,
    Sleep,
    Spawn,
    Status,
    Terminated,
    TimedOut,
    step,
    workflow,
)
from dalsegno.core.commands import StartChild
from dalsegno.core.events import CancelRequested, ChildCompleted, Event, RunPaused, RunResumed, SignalReceived
from dalsegno.testing import assert_replays, assert_sound
from dalsegno.testing.simulation import Simulation

tidied: list[str] = []


class Refused(Exception):
    """An error with a fact."""

    def __init__(self, code: int) -> None:
        super().__init__("refused")
        self.code = code


@step
def tidy(what: str) -> None:
    """A step of a clean-up."""
    tidied.append(what)


@workflow
def child(what: str) -> Flow[str]:
    """Wait for an hour, or a word, and clean up."""
    try:
        won = yield First(word=Receive("word", str), late=Sleep(3600))
        return f"{what}: {won.value}"
    finally:
        yield tidy(what)


def say_x(simulation: Simulation) -> None:
    """Give every open child its word."""
    for run in simulation.runs(workflow=child, status=Status.RUNNING):
        run.signal("word", "x")


@pytest.fixture(autouse=True)
def nothing_tidied():
    """Begin with nothing tidied."""
    tidied.clear()


def test_a_child_is_a_run_of_its_own():
    """It has an id under its parent's, a history, the parent's tags, can be signalled, and its value comes back."""

    @workflow
    def parent() -> Flow[str]:
        return (yield from child("c"))

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent, id="p", tags={"k": "v"})
        simulation.run(timeout=1)
        (found,) = simulation.runs(workflow=child)
        assert (found.id, found.tags, found.record.parent) == ("p/1", {"k": "v"}, ("p", 1, "1"))
        found.signal("word", "hello")
        assert run.result() == "c: hello"
        assert found.result() == "c: hello"


def test_a_failed_child_raises_its_own_error_in_the_parent():
    """Type and attributes of the child's error are there where the parent waits; so is the way it ended otherwise."""

    @workflow
    def failing() -> Flow[None]:
        yield Sleep(1)
        raise Refused(7)

    @workflow(timeout=10)
    def endless() -> Flow[None]:
        yield Sleep(1000)

    @workflow
    def parent() -> Flow[list[Any]]:
        seen: list[Any] = []
        for made in (failing(), endless(), child("c")):
            try:
                yield made
            except Refused as error:
                seen.append(error.code)
            except (TimedOut, Terminated) as error:
                seen.append(type(error).__name__)
        return seen

    with Simulation([parent, failing, endless, child]) as simulation:
        run = simulation.start(parent)
        simulation.at(100, lambda: simulation.runs(workflow=child)[0].terminate())
        assert run.result() == [7, "TimedOut", "Terminated"]


@pytest.mark.parametrize(
    ("policy", "status", "waits"),
    [("cancel", Status.CANCELLED, True), ("terminate", Status.TERMINATED, False), ("abandon", Status.COMPLETED, True)],
)
def test_what_becomes_of_a_child_whose_parent_ends_first(policy: Any, status: Status, waits: bool):
    """A parent that is terminated has its child cancelled with clean-up, terminated without, or left alone."""

    @workflow
    def parent() -> Flow[str]:
        return (yield from child.options(on_parent_close=policy)("c"))

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent)
        simulation.at(10, run.terminate)
        simulation.run()
        (found,) = simulation.runs(workflow=child)
        assert found.status is status
        assert bool(tidied) is waits


@pytest.mark.parametrize("policy", ["cancel", "terminate", "abandon"])
def test_what_becomes_of_a_child_whose_parent_continues_as_new(policy: Any):
    """Continuing as new ends a run: its open children hear of it, and its next generation starts its own."""

    @workflow
    def parent(round: int = 0) -> Flow[str]:
        won = yield First(c=child.options(on_parent_close=policy)(f"c{round}"), t=Sleep(10))
        if round == 0 and won.key == "t":
            yield ContinueAsNew(1)
        return "done"

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent, id="p")
        simulation.at(12, lambda: say_x(simulation))
        assert run.result() == "done"
        simulation.run()
        assert [r.id for r in simulation.runs(workflow=child)] == ["p~2/1.1", "p/1.1"]


def test_a_parent_waits_for_the_clean_up_of_the_child_it_cancels():
    """A cancelled parent ends only after the child it waited for has cleaned up."""

    @step
    def slow_tidy() -> None:
        tidied.append("slowly")

    @workflow
    def slow_child() -> Flow[None]:
        try:
            yield Sleep(1000)
        finally:
            yield slow_tidy()

    @workflow
    def parent() -> Flow[None]:
        yield slow_child()

    with Simulation([parent, slow_child]) as simulation:
        simulation.takes(slow_tidy, 50)
        run = simulation.start(parent)
        simulation.at(10, run.cancel)
        with pytest.raises(Cancelled):
            run.result()
        assert (simulation.elapsed, tidied) == (60, ["slowly"])


def test_a_child_with_an_id_that_is_taken_is_a_conflict_in_the_parent():
    """The parent gets `RunConflict` at its yield, and the other run is not touched."""

    @workflow
    def parent() -> Flow[str]:
        try:
            return (yield from child.options(id="taken")("mine"))
        except RunConflict as error:
            return str(error)

    with Simulation([parent, child]) as simulation:
        other: Run[str] = simulation.start(child, "theirs", id="taken")
        assert "asked for the id 'taken', which another run has" in simulation.start(parent).result()
        other.signal("word", "fine")
        assert other.result() == "theirs: fine"


def test_a_child_that_was_started_before_a_crash_is_not_started_again():
    """A restart at any moment leaves one child per call."""

    @workflow
    def parent() -> Flow[list[str]]:
        return (yield from All([child("a"), child("b")]))

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent)
        for at in (0, 1, 2, 3):
            simulation.at(at, simulation.restart)
        simulation.at(5, lambda: say_x(simulation))
        assert run.result() == ["a: x", "b: x"]
        assert len(simulation.runs()) == 3


def test_a_child_that_continues_as_new_answers_with_its_last_generation():
    """The parent waits for the whole chain."""

    @workflow
    def chain(round: int = 0) -> Flow[int]:
        yield Sleep(10)
        if round < 3:
            yield ContinueAsNew(round + 1)
        return round

    @workflow
    def parent() -> Flow[int]:
        return (yield from chain())

    with Simulation([parent, chain]) as simulation:
        assert simulation.start(parent).result() == 3
        assert simulation.elapsed == 40


def test_children_of_children_end_with_the_tree():
    """Cancelling the root cancels every run below it."""

    @workflow
    def nest(depth: int) -> Flow[None]:
        if depth:
            yield nest(depth - 1)
        else:
            yield Sleep(1000)

    with Simulation([nest]) as simulation:
        run = simulation.start(nest, 5)
        simulation.at(1, run.cancel)
        with pytest.raises(Cancelled):
            run.result()
        assert [r.status for r in simulation.runs()] == [Status.CANCELLED] * 6


def test_a_child_whose_id_would_be_too_long_is_named():
    """The error in the parent says which child it is, how long its id would be, and what to write."""
    said: list[str] = []

    @workflow
    def parent() -> Flow[str]:
        try:
            yield from child("a")
        except BadOption as error:
            said.append(str(error))
        return (yield from child.options(id="short")("b"))

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent, id="p" * 999)
        assert run.result() == "b: None"
        assert [each.id for each in simulation.runs(workflow=child)] == ["short"]
    assert re.match(
        r"child 1, a child, would be called 'ppp.*1001 characters, and an id has 1000 at most.*child.options\(id=",
        said[0],
    )


def abandoned(what: str) -> StartChild[str]:
    """A child that outlives its parent."""
    return child.options(on_parent_close="abandon")(what)


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("rest", [0, 60])
def test_a_parent_that_returns_does_not_wait_for_children_it_abandons(cold: bool, rest: float):
    """It ends at once, though nobody awaited them, and they go on; a repeated replay agrees."""

    @workflow
    def parent() -> Flow[str]:
        yield from Spawn(abandoned("a"))
        yield from Spawn(abandoned("b"))
        if rest:
            yield from Sleep(rest)
        return "gone"

    with Simulation([parent, child], cold=cold) as simulation:
        run = simulation.start(parent)
        assert run.result() == "gone"
        assert simulation.elapsed == rest
        assert [each.status for each in simulation.runs(workflow=child)] == [Status.RUNNING] * 2
        assert_sound(simulation.backend)
        simulation.run()
        assert [each.status for each in simulation.runs(workflow=child)] == [Status.COMPLETED] * 2
        assert assert_replays(run.history(), [parent, child]) == 1


def test_as_long_as_others_are_open_an_abandoned_child_may_be_asked_for():
    """A parent that returned waits for its other tasks, and those may wait for the child."""

    @workflow
    def parent() -> Flow[str]:
        left = yield from Spawn(abandoned("a"))

        def later() -> Flow[None]:
            yield from Sleep(60)
            yield from Publish("child said", (yield from left))

        yield from Spawn(later())
        return "gone"

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent)
        simulation.at(100, lambda: say_x(simulation))
        assert run.result() == "gone"
        assert (run.state, simulation.elapsed) == ({"child said": "a: x"}, 100)


@pytest.mark.parametrize("policy", ["cancel", "terminate"])
def test_a_parent_that_returns_waits_for_children_it_does_not_abandon(policy: Literal["cancel", "terminate"]):
    """What nobody awaited is awaited at the end."""

    @workflow
    def parent() -> Flow[str]:
        yield from Spawn(child.options(on_parent_close=policy)("a"))
        return "gone"

    with Simulation([parent, child]) as simulation:
        assert simulation.start(parent).result() == "gone"
        assert simulation.elapsed == 3600


@workflow
def leaves() -> Flow[str]:
    """Return while an abandoned child is at work."""
    yield from Spawn(abandoned("a"))
    return "gone"


@pytest.mark.parametrize("between", [[], ["child"], ["signal", "child"], ["pause", "resume", "child"], ["cancel"]])
def test_histories_of_parents_that_waited_still_replay(between: list[str]):
    """A parent once waited for a child it was to abandon; what came in meanwhile stands in its history."""
    with Simulation([leaves, child]) as simulation:
        run = simulation.start(leaves)
        run.result()
        started, child_started, completed = run.history()
    meanwhile: dict[str, Event] = {
        "child": ChildCompleted(5, 3, "1.1", Codec().encode("a: x")),
        "signal": SignalReceived(5, 2, "word", Codec().encode("x")),
        "pause": RunPaused(5, "lunch"),
        "resume": RunResumed(5),
        "cancel": CancelRequested(5, ""),
    }
    history = [started, child_started, *(meanwhile[each] for each in between), completed]
    assert assert_replays(history, [leaves, child]) == 1
