"""Queues under every single fault: nothing is lost in them, and nothing stays there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from dalsegno import (
    All,
    Cancelled,
    First,
    Flow,
    Map,
    Queue,
    Rate,
    Retry,
    RunClosed,
    Sleep,
    StepKilledWorkers,
    StepOutcomeUnknown,
    StoreError,
    TimedOut,
    step,
    step_context,
    workflow,
)
from dalsegno.testing import FaultPlan, Simulation, explore_crashes


@step(queue="mail", timeout=30, retry=Retry(max_attempts=6, initial=1, retry_on=ValueError))
def post(number: int) -> int:
    if step_context().attempt == 1 and number % 3 == 1:
        raise ValueError("not at the first time")
    return number


@step(queue="bank", once=True)
def pay(amount: int) -> int:
    return amount


@workflow(queue="runs")
def child(number: int) -> Flow[int]:
    return (yield from post(number))


@workflow
def letters() -> Flow[list[int]]:
    posted = yield from All([post(number) for number in range(2)])
    return [*posted, (yield from child(2))]


def test_every_crash_and_error_ends_as_without():
    """A call of the store that fails, before or after it took effect, or a crash there, at each call of a run."""
    report = explore_crashes(letters, workflows=[child], pairs=0, compare=("outcome", "state"), progress=False)
    assert report.tried > 80


def one(number: int) -> Flow[int]:
    return (yield from post.options(key=str(number % 2))(number))


@workflow
def mixture(which: int) -> Flow[list[Any]]:
    seen: list[Any] = [(yield from Map(one, range(4), concurrency=3))]
    won = yield from First(post=post.options(start_timeout=20)(7), late=Sleep(5))
    seen.append(won.key)
    with suppress(StepOutcomeUnknown):
        seen.append((yield from pay(3)))
    with suppress(TimedOut):
        seen.append((yield from post.options(total_timeout=40)(4)))
    if which % 2:
        seen.append((yield from child(which)))
    return seen


LIMITS = [
    Queue("mail", concurrency=2, per_key=1),
    Queue("runs", concurrency=1),
    Queue("bank", rate=Rate(count=1, per=3)),
]


def meddled(sim: Simulation, chance: random.Random) -> Iterator[Any]:
    """Start some runs, and script what people do to them meanwhile."""

    def quietly(what: str, id: str) -> None:
        with suppress(RunClosed, StoreError):
            getattr(sim.get(id), what)()

    for which in range(3):
        yield sim.start(mixture, which, id=f"r{which}")
    if chance.random() < 0.4:
        sim.at(20 * chance.random(), lambda: quietly("cancel", "r0"))
    if chance.random() < 0.4:
        sim.at(20 * chance.random(), lambda: quietly("pause", "r1"))
        sim.at(60, lambda: quietly("resume", "r1"))


@pytest.mark.parametrize("seed", range(24))
def test_nothing_is_left_in_a_queue_whatever_went_wrong(seed: int):
    """Faults of every kind, people who cancel and pause: when all runs have ended, the queues are empty and sound."""
    chance = random.Random(seed)
    options: Any = {"queues": LIMITS, "cold": seed % 3 == 0, "steps": [post, pay]}
    with Simulation([mixture, child], seed=seed, faults=FaultPlan(seed=seed), **options) as sim:
        sim.takes(post, chance.choice([0, 0.5, 6, 25]))
        for run in list(meddled(sim, chance)):
            with suppress(Cancelled, StepKilledWorkers, ConnectionError):
                sim.get(run.id).result()
        sim.run(timeout=3600)
        assert [(state.name, state.waiting, state.at_work) for state in sim.backend.queues() if state.waiting] == []
        assert sum(state.at_work for state in sim.backend.queues()) == 0
        assert sim.backend.check() == []
