"""Steps: attempts, waits between them, time-outs, `once`, and what a body can know."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from dalsegno import (
    EncodeError,
    Engine,
    Flow,
    Permanent,
    Retry,
    RetryAfter,
    RunBlocked,
    StepContext,
    StepOutcomeUnknown,
    TimedOut,
    UseError,
    step,
    step_context,
    workflow,
)
from dalsegno.core.events import Event, StepAttemptFailed, StepCompleted, StepFailed, StepStarted
from dalsegno.testing.clock import EPOCH_US
from dalsegno.testing.simulation import Simulation


def of_type(history: list[Event], *kinds: type[Event]) -> list[tuple[str, float]]:
    """The events of these kinds, and how many seconds after the beginning they were recorded."""
    return [(type(e).__name__, (e.at_us - EPOCH_US) / 1e6) for e in history if isinstance(e, kinds)]


def test_attempts_follow_each_other_at_the_times_the_policy_says():
    """Waits grow from `initial` by `backoff` up to `maximum`; each failed attempt is recorded with its number."""
    times: list[float] = []

    @step(retry=Retry(max_attempts=5, initial=2, backoff=3, maximum=10, jitter=0))
    def flaky() -> str:
        times.append(simulation.elapsed)
        if step_context().attempt < 5:
            raise ConnectionError("not yet")
        return "at last"

    @workflow
    def insist() -> Flow[str]:
        return (yield from flaky())

    with Simulation([insist]) as simulation:
        run = simulation.start(insist)
        assert run.result() == "at last"
        assert times == [0, 2, 8, 18, 28]
        failed = [e for e in run.history() if isinstance(e, StepAttemptFailed)]
        assert [(e.attempt, (e.retry_at_us - e.at_us) / 1e6) for e in failed] == [(1, 2), (2, 6), (3, 10), (4, 10)]


def test_jitter_spreads_the_waits_within_its_share():
    """With a jitter of a tenth, the first wait of one second is between 0.9 and 1.1."""

    @step(retry=Retry(max_attempts=2, initial=1, jitter=0.1))
    def flaky() -> None:
        if step_context().attempt == 1:
            raise TimeoutError

    @workflow
    def insist() -> Flow[None]:
        yield from flaky()

    waits = set()
    for seed in range(20):
        with Simulation([insist], seed=seed) as simulation:
            simulation.start(insist).result()
            waits.add(simulation.elapsed)
    assert min(waits) >= 0.9
    assert max(waits) <= 1.1
    assert len(waits) > 10


def test_attempts_are_counted_across_crashes():
    """The number of the attempt and the moment of the next one are durable: a restart neither resets nor hastens."""
    times: list[tuple[int, float]] = []

    @step(retry=Retry(max_attempts=3, initial=100, backoff=2, maximum=1000, jitter=0))
    def flaky() -> None:
        times.append((step_context().attempt, simulation.elapsed))
        raise ConnectionError("never")

    @workflow
    def insist() -> Flow[None]:
        yield from flaky()

    with Simulation([insist]) as simulation:
        run = simulation.start(insist)
        simulation.at(50, simulation.restart)
        simulation.at(150, simulation.restart)
        with pytest.raises(ConnectionError, match="never"):
            run.result()
        assert times == [(1, 0), (2, 100), (3, 300)]


@pytest.mark.parametrize(
    ("error", "retry", "attempts"),
    [
        (ValueError("final"), Retry(jitter=0), 1),
        (ValueError("worth it"), Retry(retry_on=(ValueError,), max_attempts=3), 3),
        (ConnectionError("again"), Retry(max_attempts=4), 4),
        (ConnectionError("never"), Retry(never_on=(ConnectionError,)), 1),
        (Permanent("over"), Retry(retry_on=(Permanent,)), 1),
        (OSError(11, "busy"), Retry(max_attempts=2), 2),
        (OSError(2, "not there"), Retry(max_attempts=2), 1),
    ],
    ids=str,
)
def test_which_errors_are_tried_again(error: Exception, retry: Retry, attempts: int):
    """Transient errors and those of `retry_on` are retried, those of `never_on` and `Permanent` are not."""
    count = 0

    @step(retry=retry)
    def fail() -> None:
        nonlocal count
        count += 1
        raise error

    @workflow
    def attempt() -> Flow[None]:
        yield from fail()

    with Simulation([attempt]) as simulation:
        run = simulation.start(attempt)
        with pytest.raises(type(error)):
            run.result()
        assert count == attempts
        assert isinstance(run.history()[-2], StepFailed)


def test_permanent_hands_on_the_error_it_carries():
    """The workflow sees the reason that `Permanent` was given, in its own type."""

    @step
    def refuse() -> None:
        raise Permanent(KeyError("no such customer"))

    @workflow
    def attempt() -> Flow[str]:
        try:
            yield from refuse()
        except KeyError as error:
            return str(error)
        return "?"

    with Simulation([attempt]) as simulation:
        assert simulation.start(attempt).result() == "'no such customer'"


def test_retry_after_sets_the_wait_whatever_the_policy_says():
    """`RetryAfter` says when, and counts as an attempt."""
    times: list[float] = []

    @step(retry=Retry(max_attempts=3))
    def busy() -> str:
        times.append(simulation.elapsed)
        if len(times) < 3:
            raise RetryAfter(timedelta(hours=len(times)))
        return "served"

    @workflow
    def queue_up() -> Flow[str]:
        return (yield from busy())

    with Simulation([queue_up]) as simulation:
        assert simulation.start(queue_up).result() == "served"
        assert times == [0, 3600, 3 * 3600]


def test_once_is_started_on_record_and_never_tried_again():
    """A `once` step has its start recorded before the body, and fails for good at the first error."""
    count = 0

    @step(once=True, retry=Retry(max_attempts=5))
    def pay() -> None:
        nonlocal count
        count += 1
        raise ConnectionError("line dropped")

    @workflow
    def attempt() -> Flow[None]:
        yield from pay()

    with Simulation([attempt]) as simulation:
        run = simulation.start(attempt)
        with pytest.raises(ConnectionError):
            run.result()
        assert count == 1
        assert [type(e) for e in run.history()[1:3]] == [StepStarted, StepFailed]


def test_the_outcome_of_once_is_unknown_after_a_crash_in_between():
    """Killed while a `once` body runs, the workflow sees `StepOutcomeUnknown`, and the body is not run again."""
    count = 0

    @step(once=True)
    def pay() -> str:
        nonlocal count
        count += 1
        return "paid"

    @workflow
    def attempt() -> Flow[str]:
        try:
            return (yield from pay())
        except StepOutcomeUnknown as error:
            return f"{error.step}, attempt {error.attempt}: ask the bank"

    with Simulation([attempt]) as simulation:
        simulation.takes(pay, 10)
        run = simulation.start(attempt)
        simulation.at(5, simulation.restart)
        assert run.result() == "pay, attempt 1: ask the bank"
        assert count <= 1
        assert of_type(run.history(), StepStarted, StepFailed) == [("StepStarted", 0.0), ("StepFailed", 5.0)]


def test_an_attempt_that_takes_too_long_is_given_up_and_tried_again():
    """A time-out ends the attempt, is transient, and what the late body says later is heard by nobody."""

    @step(timeout=30, retry=Retry(max_attempts=3, initial=1, jitter=0))
    def slow() -> int:
        return step_context().attempt

    @workflow
    def hurry() -> Flow[int]:
        return (yield from slow())

    with Simulation([hurry]) as simulation:
        simulation.takes(slow, lambda attempt: 100 if attempt < 3 else 1)
        run = simulation.start(hurry)
        assert run.result() == 3
        assert of_type(run.history(), StepAttemptFailed, StepCompleted) == [
            ("StepAttemptFailed", 30.0),
            ("StepAttemptFailed", 61.0),
            ("StepCompleted", 64.0),
        ]


def test_a_heartbeat_starts_the_time_out_anew():
    """A body that says it is alive may take longer than its time-out."""

    @step(timeout=30)
    def long() -> str:
        return "done"

    @workflow
    def patient() -> Flow[str]:
        return (yield from long())

    with Simulation([patient]) as simulation:
        simulation.takes(long, 100, heartbeat=20)
        assert simulation.start(patient).result() == "done"
        assert simulation.elapsed == 100


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


def test_the_time_out_of_the_last_attempt_is_the_steps_error():
    """When no attempt is left, `TimedOut` is raised at the yield, with its facts."""

    @step(timeout=5, retry=Retry(max_attempts=1))
    def slow() -> None: ...

    @workflow
    def hurry() -> Flow[None]:
        yield from slow()

    with Simulation([hurry]) as simulation:
        simulation.takes(slow, float("inf"))
        with pytest.raises(TimedOut, match=r"step 'slow' took longer than its timeout of 5 s \(attempt 1\)"):
            simulation.start(hurry).result()


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
