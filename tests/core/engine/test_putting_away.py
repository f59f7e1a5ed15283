"""Code that leaves memory: nothing that a workflow's clean-up asks for is done because of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from dalsegno import ContinueAsNew, Engine, Flow, Receive, Run, Sleep, Spawn, Status, step, workflow
from dalsegno.core.store import Message
from dalsegno.testing.simulation import Simulation

cleaned: list[str] = []


@step
def tidy(what: str) -> None:
    """A step of a clean-up."""
    cleaned.append(what)


@workflow
def careful() -> Flow[str]:
    """Wait, and clean up afterwards."""
    try:
        return (yield from Receive("word", str))
    finally:
        yield tidy("up")


@pytest.fixture(autouse=True)
def nothing_cleaned():
    """Begin with an empty list, and let Python collect at the end what nobody holds."""
    cleaned.clear()
    yield
    gc.collect()


def leave(simulation: Simulation, run: Run[Any]) -> None:
    """The engine closes."""
    simulation.close()


def die(simulation: Simulation, run: Run[Any]) -> None:
    """The process dies."""
    simulation.crash()


def terminate(simulation: Simulation, run: Run[Any]) -> None:
    """The run is ended without asking its code."""
    run.terminate("enough")
    simulation.run()
    assert run.status is Status.TERMINATED


def choke(simulation: Simulation, run: Run[Any]) -> None:
    """A payload arrives that cannot be read."""
    simulation.send(Message(workflow_id=run.id, kind="signal", name="word", payload=b"\xc1"))
    simulation.run()
    assert run.status is Status.BLOCKED


@pytest.mark.parametrize("how", [leave, die, terminate, choke])
def test_no_clean_up_runs_when_code_leaves_memory(how: Callable[[Simulation, Run[Any]], None]):
    """However a suspended workflow leaves memory, nothing its `finally` yields is carried out, then or later."""
    simulation = Simulation([careful])
    run = simulation.start(careful)
    simulation.run()
    how(simulation, run)
    simulation.close()
    del run, simulation
    gc.collect()
    assert cleaned == []


def test_a_run_put_away_cleans_up_when_its_time_has_come():
    """The clean-up that was not run because of leaving memory runs, once, when the workflow gets there."""
    with Simulation([careful], live_max=0) as simulation:
        run = simulation.start(careful)
        simulation.run()
        assert simulation.works.loop.live == {}
        run.signal("word", "go")
        assert run.result() == "go"
    assert cleaned == ["up"]


def test_continuing_as_new_drops_what_is_open_without_clean_up():
    """A task that is open when its run continues as new is not cleaned up, neither then nor later."""

    @workflow
    def restless(round: int = 0) -> Flow[int]:
        def task() -> Flow[None]:
            try:
                yield Sleep(1000)
            finally:
                yield tidy("task")

        if round == 0:
            yield Spawn(task())
            yield Sleep(1)
            yield ContinueAsNew(1)
        return round

    with Simulation([restless]) as simulation:
        assert simulation.start(restless).result() == 1
        gc.collect()
    assert cleaned == []


def test_code_that_refuses_to_go_is_kept_alive():
    """A generator that catches everything and yields on is held for good; its run goes on from its history."""

    @workflow
    def stubborn() -> Flow[str]:
        while True:
            try:
                return (yield from Receive("word", str))
            except BaseException:
                cleaned.append("caught")

    with Simulation([stubborn], live_max=0) as simulation:
        run = simulation.start(stubborn)
        simulation.run()
        caught = len(cleaned)
        gc.collect()
        assert len(cleaned) == caught
        run.signal("word", "go")
        assert run.result() == "go"


def test_many_waiting_runs_leave_memory_on_a_real_engine():
    """Beyond `live_max`, waiting runs cost disk only; each comes back when its signal arrives."""
    with Engine("memory:", workflows=[careful], live_max=10) as engine:
        runs = engine.start_many(careful, [(f"c-{n}", ()) for n in range(200)])
        for run in runs:
            run.signal("word", run.id)
        assert [run.result(timeout=60) for run in runs] == [run.id for run in runs]
    assert cleaned == ["up"] * 200
