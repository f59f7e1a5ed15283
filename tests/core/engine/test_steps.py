"""Steps: attempts, waits between them, time-outs, and `once`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dalsegno import (
    Flow,
    Permanent,
    Retry,
    RetryAfter,
    StepOutcomeUnknown,
    TimedOut,
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
