"""Bodies: where they run, what they can know, and what becomes of whatever they return or raise."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dalsegno import (
    EncodeError,
    Engine,
    Flow,
    Retry,
    RunBlocked,
    StepContext,
    UseError,
    step,
    step_context,
    workflow,
)
from dalsegno.core.events import StepAttemptFailed, StepCompleted
from dalsegno.testing.simulation import Simulation


def test_a_time_out_on_real_threads():
    """On a real engine a stuck body is given up, its context says so, and its thread is replaced."""
    stuck, seen = threading.Event(), threading.Event()
    contexts: list[StepContext] = []

    @step(timeout=0.02, retry=Retry(max_attempts=2, initial=0, jitter=0))
    def sticky() -> str:
        contexts.append(step_context())
        if len(contexts) == 1:
            stuck.wait(30)
            seen.set()
        return f"attempt {step_context().attempt}"

    @workflow
    def hurry() -> Flow[str]:
        return (yield from sticky())

    with Engine("memory:", workflows=[hurry], step_threads=1) as engine:
        run = engine.start(hurry)
        assert run.result(timeout=30) == "attempt 2"
        assert contexts[0].cancelled
        stuck.set()
        assert seen.wait(30)
        assert [type(e) for e in run.history()[1:3]] == [StepAttemptFailed, StepCompleted]


@pytest.mark.parametrize("real", [False, True])
def test_async_steps_run_side_by_side(real: bool):
    """Two coroutines that wait for each other both end: they share an event loop."""

    @step
    async def add_one(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    @workflow
    async def count() -> int:
        total = 0
        for _ in range(3):
            total = await add_one(total)
        return total

    if real:
        with Engine("memory:", workflows=[count]) as engine:
            assert engine.start(count).result(timeout=30) == 3
    else:
        with Simulation([count]) as simulation:
            assert simulation.start(count).result() == 3


def test_a_body_knows_its_run_its_attempt_and_its_key():
    """The idempotency key is the same over attempts and crashes, and differs between calls."""
    seen: list[tuple[str, str, str, int, str]] = []

    @step(retry=Retry(initial=1, jitter=0))
    def look() -> None:
        context = step_context()
        seen.append((context.workflow_id, context.run_id, context.step, context.attempt, context.idempotency_key))
        if context.attempt == 1:
            raise ConnectionError

    @workflow
    def twice() -> Flow[None]:
        yield look()
        yield look()

    with Simulation([twice]) as simulation:
        run = simulation.start(twice, id="r")
        simulation.at(0.5, simulation.restart)
        run.result()
    assert seen == [("r", "r#1", "look", attempt, f"r#1/{call}") for call in (1, 2) for attempt in (1, 2)]
    with pytest.raises(UseError, match="no step is running"):
        step_context()


def test_a_result_that_cannot_be_stored_fails_the_step_and_is_not_tried_again():
    """An unencodable result is an `EncodeError` at the yield; the body ran once and is not repeated."""
    count = 0

    @step(retry=Retry(retry_on=(Exception,)))
    def lock() -> object:
        nonlocal count
        count += 1
        return threading.Lock()

    @workflow
    def attempt() -> Flow[str]:
        try:
            yield lock()
        except EncodeError as error:
            return "; ".join(error.__notes__)
        return "?"

    with Simulation([attempt]) as simulation:
        assert "it has run, and is not tried again" in simulation.start(attempt).result()
        assert count == 1


def test_a_plain_step_that_returns_a_coroutine_is_told_to_be_async():
    """What was meant is said, and the coroutine is closed without a warning."""

    async def later() -> int:
        return 1

    @step
    def wrong() -> object:
        return later()

    @workflow
    def attempt() -> Flow[None]:
        yield wrong()

    with Simulation([attempt]) as simulation, pytest.raises(TypeError, match="define it with `async def`"):
        simulation.start(attempt).result()


def test_bodies_may_raise_anything():
    """`SystemExit` in a body ends neither thread nor process; the workflow sees that it was raised."""

    @step
    def leave() -> None:
        raise SystemExit(3)

    @workflow
    def attempt() -> Flow[str]:
        try:
            yield leave()
        except Exception as error:
            return str(error)
        return "?"

    with Simulation([attempt]) as simulation:
        try:
            assert "SystemExit" in simulation.start(attempt).result()
        except RunBlocked:
            pytest.fail("an error of a step never blocks a run")
