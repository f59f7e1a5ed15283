"""What a client refuses: calls that cannot be meant, before anything is recorded. And what it lists."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dalsegno import (
    BadOption,
    Client,
    ContinueAsNew,
    DalsegnoError,
    EncodeError,
    Engine,
    Flow,
    Publish,
    Receive,
    Run,
    RunClosed,
    RunNotFound,
    Sleep,
    Status,
    step,
    workflow,
)
from dalsegno.core.events import RunContinued
from dalsegno.testing import Simulation


@step
def charge(amount: int) -> int:
    return amount


@workflow
def nap(hours: object) -> Flow[None]:
    yield from Sleep(1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c: c.get(5), "get(5): takes a workflow id, which is text"),
        (lambda c: c.runs(status="running"), "status='running': takes Status.RUNNING, or several"),
        (lambda c: c.runs(status=["running"]), "status=['running']: takes"),
        (lambda c: c.runs(limit=-1), "limit=-1: takes a whole number, 0 or more"),
        (lambda c: c.runs(workflow=5), "workflow=5: takes a @workflow, or the name of one"),
        (lambda c: c.runs(tags=["eu"]), "tags=['eu']: takes names and values"),
        (lambda c: c.start(nap.fn, 1), "takes a @workflow, or the name of one"),
        (lambda c: c.start(nap(1)), "takes a @workflow, or the name of one"),
        (lambda c: c.start(charge, 1), "start(charge, a @step): takes a @workflow, or the name of one"),
        (lambda c: c.start(nap, 1, id=5), "a workflow id is text, not 5"),
        (lambda c: c.start(nap, 1, id=""), "it is empty"),
        (lambda c: c.start(nap, 1, id="a\0b"), "NUL"),
        (lambda c: c.start(nap, 1, id="x" * 1001), "1001 characters"),
        (lambda c: c.start(nap, 1, tags=["eu"]), "tags=['eu']: takes names and values"),
        (lambda c: c.start(nap, 1, tags={"n": 1}), "a tag's value is text, not 1"),
        (lambda c: c.start(nap, 1, on_conflict="replace"), "'restart_closed'"),
        (
            lambda c: c.start_many(nap, [("one", 1)]),
            "start 0, ('one', 1): takes pairs (id, arguments), like ('one', (1",
        ),
        (lambda c: c.start_many(nap, ["one"]), "start 0, 'one': takes pairs"),
        (lambda c: c.start_many(nap, [("one", (1,)), (2, (1,))]), "a workflow id is text, not 2"),
        (lambda c: c.complete("x"), "this is not a callback token"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Callable[[Any], object], says: str):
    """The error says what was given and what could stand there, and no run comes to be."""
    with Client("memory:") as client:
        with pytest.raises(DalsegnoError) as raised:
            call(client)
        assert says in str(raised.value)
        assert client.runs() == []


def test_a_store_is_a_url_or_a_backend():
    """A path is told how to write it; what is neither is refused."""
    with pytest.raises(BadOption, match="write 'lmdb:orders'"):
        Client(Path("orders"))  # type: ignore[arg-type]
    with pytest.raises(BadOption, match=r"5: takes a URL like 'lmdb:./orders', or an opened store"):
        Client(5)  # type: ignore[arg-type]


def test_one_start_of_many_that_cannot_be_stored_is_named():
    """Of thousands, the one with the bad argument is said by number and id, and none is started."""
    with Client("memory:") as client:
        with pytest.raises(EncodeError, match="lock") as raised:
            client.start_many(nap, [("mail-1", (1,)), ("mail-2", (threading.Lock(),))])
        assert raised.value.__notes__ == ["(start 1 of start_many, id 'mail-2'; none was started)"]
        assert client.runs() == []


def test_several_statuses_are_taken():
    """One status, or any number of them."""
    with Client("memory:") as client:
        run = client.start(nap, 1)
        assert [one.id for one in client.runs(status=[Status.RUNNING, Status.FAILED])] == [run.id]
        assert client.runs(status=Status.FAILED) == []
        assert client.runs(limit=0) == []


@pytest.mark.parametrize("at", [0, 2, "1", None])
def test_a_fork_is_made_at_an_event_that_is_there(at: Any):
    """Anything else is told how many there are."""
    with Client("memory:") as client:
        run = client.start(nap, 1, id="n")
        with pytest.raises(BadOption, match="'n' has 1 events that can be kept, so between 1 and 1"):
            run.fork(at=at)


def test_an_id_that_no_run_can_have_is_not_found():
    """Looking for one is no mistake."""
    with Client("memory:") as client, pytest.raises(RunNotFound, match="no run with the id"):
        client.get("a\0b")


@workflow
def counting(count: int) -> Flow[int]:
    """Run in three generations, the last of which waits."""
    yield from Publish("count", count)
    if count < 2:
        yield from ContinueAsNew(count + 1)
    return count + (yield from Receive("more", int))


def test_a_listed_run_shows_itself_and_not_the_newest_of_its_id():
    """Status, state, history and id are those of the generation; what has continued as new comes to what that does."""
    with Simulation([counting]) as simulation:
        run = simulation.start(counting, 0, id="c")
        simulation.run(timeout=1)
        third, second, first = simulation.runs(workflow=counting)
        assert [each.run_id for each in (first, second, third, run)] == ["c#1", "c#2", "c#3", "c#3"]
        assert [each.status for each in (first, second)] == [Status.CONTINUED] * 2
        assert [each.state["count"] for each in (first, second, third)] == [0, 1, 2]
        assert [each.run_id for each in simulation.runs(status=Status.CONTINUED)] == ["c#2", "c#1"]
        assert isinstance(first.history()[-1], RunContinued)
        assert (first.ended, first.error) == (False, None)
        first.signal("more", 40)
        assert [each.result() for each in (first, second, third)] == [42] * 3


def test_a_listed_run_is_not_the_one_its_id_was_started_with_again():
    """What came of it stays, whether it is asked at once, later or by `await`; messages do not go to its successor."""

    async def waited(run: Run[Any]) -> Any:
        return await run

    with Engine("memory:", workflows=[counting]) as engine:
        old = engine.start(counting, 2, id="c")
        (listed,) = engine.runs()
        old.signal("more", 1)
        assert listed.result(timeout=10) == 3
        new = engine.start(counting, 2, id="c", on_conflict="restart_closed")
        with pytest.raises(RunClosed, match=r"'c' has ended \(completed\)"):
            listed.signal("more", 5)
        new.signal("more", 2)
        assert (new.result(timeout=10), old.result(timeout=10)) == (4, 4)
        assert listed.result(timeout=10) == asyncio.run(waited(listed)) == 3
        assert [each.outcome() for each in engine.runs()] == [4, 3]
        with Client(engine.backend) as client:
            assert [each.result() for each in client.runs()] == [4, 3]
            assert (client.get("c").run_id, client.get("c").result()) == ("c#2", 4)
