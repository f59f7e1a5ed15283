"""Starting runs, finding them, and ids that are taken."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dalsegno import (
    BadOption,
    Client,
    DefinitionError,
    EncodeError,
    Engine,
    EngineClosed,
    Flow,
    Receive,
    Run,
    RunBlocked,
    RunConflict,
    RunNotFound,
    Sleep,
    Status,
    step,
    workflow,
)
from dalsegno.backends.memory import MemoryBackend
from dalsegno.testing.simulation import Simulation


@workflow
def double(n: int) -> Flow[int]:
    """Sleep a second and double a number."""
    yield Sleep(1)
    return 2 * n


@workflow
def triple(n: int) -> Flow[int]:
    """Another workflow."""
    yield Sleep(1)
    return 3 * n


@workflow
def wait_for_word() -> Flow[None]:
    """Wait for a signal."""
    yield from Receive("word")


def test_starting_twice_attaches_to_the_run_that_is_there():
    """The same id with the same workflow and arguments is one run, also after it has ended."""
    with Simulation([double]) as simulation:
        first = simulation.start(double, 4, id="d")
        again = simulation.start(double, 4, id="d")
        assert (again.run_id, again.result(), first.result()) == ("d#1", 8, 8)
        assert simulation.start(double, 4, id="d").result() == 8
        assert len(simulation.runs()) == 1


@pytest.mark.parametrize(("other", "said"), [((double, 5), "other arguments"), ((triple, 4), "another workflow")])
def test_an_id_with_other_arguments_or_workflow_is_a_conflict(other: tuple[Any, int], said: str):
    """`RunConflict` names the difference, and nothing is recorded."""
    with Simulation([double, triple]) as simulation:
        simulation.start(double, 4, id="d")
        with pytest.raises(RunConflict, match=said) as caught:
            simulation.start(*other, id="d")
        assert caught.value.workflow_id == "d"
        assert len(simulation.runs()) == 1


def test_reject_refuses_any_id_that_is_taken():
    """With `on_conflict="reject"` even the same start is refused."""
    with Simulation([double]) as simulation:
        simulation.start(double, 4, id="d")
        with pytest.raises(RunConflict, match="is taken"):
            simulation.start(double, 4, id="d", on_conflict="reject")


def test_restart_closed_waits_for_the_end_of_the_last_run():
    """`restart_closed` attaches to an open run, and makes the next generation of a closed one."""
    with Simulation([double]) as simulation:
        assert simulation.start(double, 4, id="d", on_conflict="restart_closed").run_id == "d#1"
        assert simulation.start(double, 4, id="d", on_conflict="restart_closed").run_id == "d#1"
        simulation.run()
        second = simulation.start(double, 5, id="d", on_conflict="restart_closed")
        assert (second.run_id, second.result()) == ("d#2", 10)
        assert simulation.start(double, 5, id="d").run_id == "d#2"


def test_an_unknown_way_with_conflicts_is_refused():
    """A misspelt `on_conflict` is a `BadOption`."""
    with Simulation([double]) as simulation, pytest.raises(BadOption, match="on_conflict"):
        simulation.start(double, 4, on_conflict="overwrite")  # type: ignore[arg-type]  # that is the point


def test_thousands_start_in_few_commits():
    """`start_many` makes one commit for a thousand runs, and each is a run of its own."""
    with Simulation([double]) as simulation:
        flushes = simulation.works.committer.flushes
        runs = simulation.start_many(double, [(f"d-{n}", (n,)) for n in range(2000)])
        assert simulation.works.committer.flushes - flushes <= 4
        simulation.run()
        assert [run.result() for run in runs] == [2 * n for n in range(2000)]


def test_starting_many_again_is_safe():
    """A repeated `start_many` attaches to what is there; a conflict among them is told."""
    with Simulation([double]) as simulation:
        simulation.start_many(double, [("a", (1,)), ("b", (2,))])
        simulation.start_many(double, [("a", (1,)), ("b", (2,)), ("c", (3,))])
        assert len(simulation.runs()) == 3
        with pytest.raises(RunConflict):
            simulation.start_many(double, [("a", (7,))])


def test_what_cannot_be_stored_is_refused_where_it_is_passed():
    """An unencodable argument, or arguments that do not fit, fail at `start`, and no run exists."""
    with Simulation([double]) as simulation:
        with pytest.raises(EncodeError):
            simulation.start(double, threading.Lock())
        with pytest.raises(TypeError, match="double"):
            simulation.start(double)
        with pytest.raises(BadOption, match="@workflow"):
            simulation.start(lambda: None)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(EncodeError):
            simulation.start_many(double, [("good", (1,)), ("bad", (threading.Lock(),))])
        assert simulation.runs() == []


def test_a_workflow_nobody_knows_blocks_its_run_until_somebody_does():
    """A run of an unregistered workflow is blocked, says what is registered, and goes on where it is known."""
    store = MemoryBackend()
    with Simulation([triple], store=store) as simulation:
        run: Run[Any] = simulation.start("double", 4, id="d")
        with pytest.raises(RunBlocked, match=r"no workflow called 'double'.*it has: triple"):
            run.result()
        assert simulation.start(triple, 1).result() == 3
    with Simulation([double], store=store) as simulation:
        assert simulation.get("d").result() == 8


def test_runs_are_found_by_status_workflow_and_tag():
    """`get` finds by id, `runs` by what is known of a run, newest first."""

    @workflow
    def wait() -> Flow[None]:
        yield Receive("go")

    with Simulation([double, wait]) as simulation:
        simulation.start(double, 1, id="a", tags={"team": "red"})
        simulation.start(wait, id="b", tags={"team": "red"})
        simulation.start(wait, id="c", tags={"team": "blue"})
        simulation.run()
        assert [run.id for run in simulation.runs()] == ["c", "b", "a"]
        assert [run.id for run in simulation.runs(status=Status.RUNNING)] == ["c", "b"]
        assert [run.id for run in simulation.runs(workflow=wait, tags={"team": "red"})] == ["b"]
        assert [run.id for run in simulation.runs(limit=1)] == ["c"]
        assert simulation.get("a").tags == {"team": "red"}
        with pytest.raises(RunNotFound, match="no run with the id 'nobody'"):
            simulation.get("nobody")


def test_two_definitions_of_one_name_are_refused():
    """An engine with two workflows of one name does not open."""

    @workflow(name="double")
    def other() -> Flow[None]:
        yield Sleep(1)

    with pytest.raises(DefinitionError, match="two definitions are called 'double'"):
        Simulation([double, other])


def test_a_closed_engine_says_so():
    """After `close` nothing can be started or said; what was recorded can still be read."""
    simulation = Simulation([double])
    run = simulation.start(double, 1)
    simulation.close()
    simulation.close()
    with pytest.raises(EngineClosed):
        simulation.start(double, 2)
    with pytest.raises(EngineClosed):
        run.signal("go")
    assert run.status is Status.RUNNING


@pytest.mark.parametrize("own", [True, False], ids=["its own store", "a store that stays open"])
def test_who_waits_while_the_engine_is_closed_is_told(own: bool):
    """`result` in a thread and `await` in a loop raise `EngineClosed` when nobody is left who would tell them."""
    store = MemoryBackend.open()
    engine = Engine("memory:" if own else store, workflows=[wait_for_word])
    run = engine.start(wait_for_word)
    told: list[BaseException] = []

    def wait() -> None:
        try:
            run.result()
        except EngineClosed as error:
            told.append(error)

    async def both() -> None:
        waiting = threading.Thread(target=wait)
        waiting.start()
        awaiting = asyncio.ensure_future(_result(run))
        await asyncio.sleep(0)  # a turn of the loop, in which it begins to wait
        await asyncio.to_thread(engine.close)
        with pytest.raises(EngineClosed, match="open another one on the store"):
            await asyncio.wait_for(awaiting, 30)
        await asyncio.to_thread(waiting.join, 30)

    asyncio.run(both())
    assert len(told) == 1


async def _result(run: Run[None]) -> None:
    await run


def test_what_has_ended_can_be_read_after_the_engine(tmp_path: Any):
    """A store that stays open answers for runs that ended, whoever ended them."""
    store = MemoryBackend.open()
    with Engine(store, workflows=[double]) as engine:
        run = engine.start(double, 4)
        assert run.result(timeout=30) == 8
    assert run.result() == 8
    assert asyncio.run(_value(run)) == 8


async def _value(run: Run[int]) -> int:
    return await run


def test_a_client_only_talks(tmp_path: Any):
    """A client beside no engine starts runs that an engine finds later."""
    url = f"lmdb:{tmp_path}/store"
    with Client(url) as client:
        assert client.start(double, 4, id="d").status is Status.RUNNING
        assert client.start("triple", 4, id="t").status is Status.RUNNING
    with Engine(url, workflows=[double]) as engine:
        assert engine.get("d").result(timeout=30) == 8


def test_steps_are_no_workflows():
    """A step cannot be started."""

    @step
    def work() -> None: ...

    with Simulation([double]) as simulation, pytest.raises(BadOption, match="takes a @workflow"):
        simulation.start(work)  # type: ignore[arg-type]  # that is the point
