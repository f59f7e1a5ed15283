"""Queues between workers: pools apart, tasks whose worker died, and cancelling what runs elsewhere."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from dalsegno import (
    Client,
    First,
    Flow,
    Queue,
    Receive,
    Retry,
    StepKilledWorkers,
    StepOutcomeUnknown,
    Worker,
    step,
    step_context,
    workflow,
)
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.engine.crew import Crew, Hands
from dalsegno.core.engine.tasks import DEATHS_MAX
from dalsegno.testing import Simulation

WAIT = 30


@step
def whoami() -> str:
    return threading.current_thread().name


@workflow
def ask() -> Flow[str]:
    return (yield from whoami())


def crew_of(hands: Hands[Any]) -> Crew[Any]:
    """The threads behind a worker's hands."""
    assert isinstance(hands, Crew)
    return hands


def test_a_worker_without_step_threads_leaves_bodies_to_one_that_has_only_those(tmp_path: Path):
    """One advances the run, the other runs its bodies, though the step names no queue."""
    store = f"lmdb:{tmp_path}/s"
    with (
        Client(store) as client,
        Worker(store, workflows=[ask], step_threads=0, lease=5) as advancing,
        Worker(store, steps=[whoami], durable=0, lease=5) as running,
    ):
        assert client.start(ask).result(timeout=WAIT).startswith("dalsegno-step")
        assert crew_of(advancing.steps).use[1] == 0
        assert crew_of(running.durable).use[1] == 0


def test_a_worker_serves_the_queues_it_was_told():
    """Of two queues it takes from one, and the other waits for somebody else."""

    @step(queue="cpu")
    def compute() -> str:
        return "computed"

    @step(queue="gpu")
    def train() -> str:
        return "trained"

    @workflow
    def both() -> Flow[str]:
        won = yield from First(train=train(), compute=compute())
        return str(won.value)

    with Simulation([both], seed=1, serve=["cpu"]) as sim:
        assert sim.start(both).result() == "computed"


def put_by_a_run(sim: Simulation, flow: Any) -> None:
    """Start a run and let it come to where its step waits in the queue."""
    sim.start(flow, id="r")
    sim.run()


def die_at_work(store: MemoryBackend, times: int) -> None:
    """So many workers take the task and die."""
    for n in range(times):
        owner = f"dead:{n}"
        store.join(owner, 5_000_000, 0)
        assert len(store.take(["q"], owner, 1, 10**16)) == 1
        store.leave(owner)


@step(queue="q", once=True)
def pay() -> str:
    return "paid"


@workflow
def paying() -> Flow[str]:
    try:
        return (yield from pay())
    except StepOutcomeUnknown as error:
        return f"unknown at attempt {error.attempt}"


@step(queue="q", retry=Retry(max_attempts=3))
def explode() -> str:
    return "survived"


@workflow
def exploding() -> Flow[str]:
    try:
        return (yield from explode())
    except StepKilledWorkers as error:
        return f"killed {error.deaths}"


@pytest.mark.parametrize(
    ("flow", "deaths", "outcome"),
    [
        (paying, 0, "paid"),
        (paying, 1, "unknown at attempt 1"),
        (exploding, DEATHS_MAX - 1, "survived"),
        (exploding, DEATHS_MAX, f"killed {DEATHS_MAX}"),
    ],
)
def test_what_was_at_work_at_deaths_of_workers_is_told(flow: Any, deaths: int, outcome: str):
    """A step that may run once is not repeated, and one that kills its workers is not given to another for ever."""
    store = MemoryBackend.open("")
    with Simulation([flow], seed=2, store=store, serve=[]) as sim:
        put_by_a_run(sim, flow)
    die_at_work(store, deaths)
    with Simulation([flow], seed=3, store=store) as sim:
        assert sim.get("r").result() == outcome


def test_cancelling_reaches_a_body_that_runs_in_another_worker(tmp_path: Path):
    """A plain body sees `cancelled`; one that is `async def` gets the exception."""
    begun, seen = threading.Barrier(3), []

    @step(queue="far")
    def plain() -> None:
        begun.wait(WAIT)
        while not step_context().cancelled:
            os.sched_yield()
        seen.append("plain")

    @step(queue="far")
    async def awaiting() -> None:
        await asyncio.to_thread(begun.wait, WAIT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("async")
            raise

    @workflow
    def race() -> Flow[str]:
        won = yield from First(plain=plain(), awaiting=awaiting(), asked=Receive("stop", str))
        return str(won.key)

    store = f"lmdb:{tmp_path}/s"
    with (
        Client(store) as client,
        Worker(store, workflows=[race], step_threads=0),
        Worker(store, steps=[plain, awaiting], durable=0, queues=[Queue("far", concurrency=2)]) as running,
    ):
        run = client.start(race)
        begun.wait(WAIT)
        run.signal("stop", "now")
        assert run.result(timeout=WAIT) == "asked"
        running.stop()
        assert sorted(seen) == ["async", "plain"]
