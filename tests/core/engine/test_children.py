"""Children: runs that belong to runs."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno import (
    All,
    Cancelled,
    ContinueAsNew,
    First,
    Flow,
    Receive,
    Run,
    RunConflict,
    Sleep,
    Status,
    Terminated,
    TimedOut,
    step,
    workflow,
)
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
