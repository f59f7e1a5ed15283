"""Steps and runs that wait in queues, in one engine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dalsegno import (
    All,
    BadOption,
    Cancelled,
    First,
    Flow,
    Permanent,
    Queue,
    Rate,
    Receive,
    Retry,
    RetryAfter,
    Sleep,
    Status,
    StepContext,
    TimedOut,
    step,
    step_context,
    workflow,
)
from dalsegno.core.engine.run import Run
from dalsegno.testing import Simulation
from dalsegno.testing.points import Pin, Pinned

MINUTE = 60.0


@step(queue="mail")
def send(address: str) -> str:
    return f"sent to {address}"


@step(queue="mail")
def post(letter: int) -> int:
    return letter


@workflow
def greet(address: str) -> Flow[str]:
    return (yield from send(address))


@workflow
def newsletter(count: int) -> Flow[list[int]]:
    return (yield from All([post.options(key=f"to {n % 2}")(n) for n in range(count)]))


def kinds(run: Run[Any]) -> list[str]:
    return [type(event).__name__ for event in run.history()]


def test_a_step_with_a_queue_answers_like_any_other():
    """Its result is the step's, its history holds one outcome, and nothing is left in the queue."""
    with Simulation([greet], seed=1) as sim:
        run = sim.start(greet, "ada")
        assert run.result() == "sent to ada"
        assert kinds(run) == ["RunStarted", "StepCompleted", "RunCompleted"]
        assert [(state.waiting, state.at_work) for state in sim.backend.queues()] in ([], [(0, 0)])


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize(("queue", "minutes"), [(Queue("mail", concurrency=2), 30), (Queue("mail", per_key=1), 30)])
def test_no_more_are_at_work_than_the_queue_allows(queue: Queue, minutes: int, cold: bool):
    """Six steps of ten minutes, two at a time, or one of each of two keys: half an hour."""
    with Simulation([newsletter], seed=2, queues=[queue], cold=cold) as sim:
        sim.takes(post, 10 * MINUTE)
        run = sim.start(newsletter, 6)
        assert run.result() == [*range(6)]
        assert minutes * MINUTE <= sim.elapsed < minutes * MINUTE + 5


def test_a_rate_spreads_what_is_begun():
    """Twelve steps at four in a minute: the first four at once, the last after two minutes."""
    with Simulation([newsletter], seed=3, queues=[Queue("mail", rate=Rate(count=4, per=timedelta(minutes=1)))]) as sim:
        assert sim.start(newsletter, 12).result() == [*range(12)]
        assert 2 * MINUTE <= sim.elapsed < 2 * MINUTE + 5


def test_higher_priority_goes_first():
    """With one at work at a time, the urgent one that came last is the second to begin."""
    order: list[int] = []

    @step(queue="mail")
    def note(n: int) -> None:
        order.append(n)

    @workflow
    def several() -> Flow[None]:
        yield from All([note.options(priority=n)(n) for n in (0, 0, 0, 9)])

    with Simulation([several], seed=4, queues=[Queue("mail", concurrency=1)]) as sim:
        sim.start(several).result()
    assert order == [9, 0, 0, 0]


def test_a_delayed_step_stands_aside_until_its_time():
    """Nothing begins before the delay has passed, and then it does."""

    @workflow
    def later() -> Flow[str]:
        return (yield from send.options(delay=timedelta(days=2))("ada"))

    with Simulation([later], seed=5) as sim:
        assert sim.start(later).result() == "sent to ada"
        assert 2 * 86400 <= sim.elapsed < 2 * 86400 + 5


# --- attempts ------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_tried_again_and_reads_what_the_one_before_told():
    """Each attempt goes through the queue; details of a heartbeat reach the next."""
    seen: list[tuple[int, Any]] = []

    @step(queue="mail", retry=Retry(max_attempts=4, retry_on=ValueError))
    def walk() -> int:
        context = step_context()
        seen.append((context.attempt, context.details))
        context.heartbeat({"page": context.attempt * 10})
        if context.attempt < 3:
            raise ValueError("not yet")
        return context.attempt

    @workflow
    def walking() -> Flow[int]:
        return (yield from walk())

    with Simulation([walking], seed=6) as sim:
        run = sim.start(walking)
        assert run.result() == 3
        assert kinds(run)[1:-1] == ["StepAttemptFailed", "StepAttemptFailed", "StepCompleted"]
    assert seen == [(1, None), (2, {"page": 10}), (3, {"page": 20})]


def test_a_step_without_a_queue_reads_the_details_of_the_attempt_before_too():
    """Heartbeats are kept for the next attempt wherever the body runs, also over a crash of the process."""
    seen: list[Any] = []

    @step(retry=Retry(max_attempts=3, initial=60, retry_on=ValueError))
    def walk() -> str:
        context = step_context()
        seen.append(context.details)
        context.heartbeat(len(seen))
        if len(seen) < 3:
            raise ValueError("not yet")
        return "done"

    @workflow
    def walking() -> Flow[str]:
        return (yield from walk())

    with Simulation([walking], seed=7) as sim:
        sim.start(walking, id="w")
        sim.at(30, sim.restart)
        sim.run(lambda: len(seen) == 3)
        assert sim.get("w").result() == "done"
    assert seen == [None, 1, 2]


def test_what_a_failed_attempt_told_is_read_by_another_worker():
    """It is in the store when the attempt has ended, though no tick came in between."""
    seen: list[Any] = []

    @step(queue="mail", retry=Retry(max_attempts=2, initial=600, retry_on=ValueError))
    def walk() -> str:
        context = step_context()
        seen.append(context.details)
        if len(seen) == 1:
            context.heartbeat("half way")
            raise ValueError("and then the line broke")
        return "done"

    @workflow
    def walking() -> Flow[str]:
        return (yield from walk())

    with Simulation([walking], seed=1) as sim:
        sim.start(walking, id="w")
        sim.at(60, sim.restart)
        sim.run(lambda: len(seen) == 2)
        assert sim.get("w").result() == "done"
    assert seen == [None, "half way"]


def test_what_was_told_is_told_again_when_the_store_failed():
    """A heartbeat of a body that goes on is kept, although the store failed at the first time."""
    seen: list[Any] = []

    @step(queue="mail", timeout=600)
    def walk() -> str:
        seen.append(step_context().details)
        return "done"

    @workflow
    def walking() -> Flow[str]:
        return (yield from walk())

    faults = Pinned([Pin("error-before", "store.beat", 1)])
    with Simulation([walking], seed=1, faults=faults) as sim:
        sim.takes(walk, 100)
        sim.start(walking, id="w")
        sim.run(timeout=1)
        (held,) = sim.works.loop.tasks.held.values()
        (job,) = held.running.values()
        StepContext(job, sim.clock).heartbeat("half way")
        for _ in range(3):
            sim.run(timeout=2)
        sim.restart()
        assert sim.get("w").result() == "done"
    assert faults.struck
    assert seen == ["half way"]


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (Permanent(KeyError("gone")), 1),
        (KeyError("gone"), 1),
        (RetryAfter(5, "busy"), 2),
        (ConnectionError("reset"), 2),
    ],
)
def test_errors_are_judged_as_those_of_steps_without_a_queue(error: Exception, attempts: int):
    """Final ones end the step, others are tried again as often as the policy says."""
    begun: list[int] = []

    @step(queue="mail", retry=Retry(max_attempts=2))
    def fail() -> None:
        begun.append(step_context().attempt)
        raise error

    @workflow
    def failing() -> Flow[None]:
        yield from fail()

    with Simulation([failing], seed=8) as sim:
        run = sim.start(failing)
        with pytest.raises(KeyError if attempts == 1 else type(error)):
            run.result()
    assert begun == [*range(1, attempts + 1)]


def test_an_attempt_that_takes_too_long_is_given_up():
    """The time-out counts from when the body began, not while it waited."""

    @step(queue="mail", timeout=60, retry=Retry(max_attempts=1))
    def slow(n: int) -> int:
        return n

    @workflow
    def two() -> Flow[list[int]]:
        return (yield from All([slow(0), slow(1)]))

    with Simulation([two], seed=9, queues=[Queue("mail", concurrency=1)]) as sim:
        sim.takes(slow, 50)
        assert sim.start(two).result() == [0, 1]
    with Simulation([two], seed=9) as sim:
        sim.takes(slow, 70)
        with pytest.raises(TimedOut, match="longer than its timeout of 60 s"):
            sim.start(two).result()


# --- bounds on waiting ---------------------------------------------------------------------------------------------


def test_a_step_that_nobody_begins_in_time_fails():
    """`start_timeout` counts the wait in the queue, and ends with the beginning of the body."""

    @workflow
    def impatient() -> Flow[list[Any]]:
        bound = post.options(start_timeout=90)
        found: list[Any] = []
        for branch in (yield from First(both=All([bound(1), bound(2)]))).value:
            found.append(branch)
        return found

    with Simulation([impatient], seed=10, queues=[Queue("mail", concurrency=1)]) as sim:
        sim.takes(post, 60)
        assert sim.start(impatient).result() == [1, 2]
    with Simulation([impatient], seed=10, queues=[Queue("mail", concurrency=1)]) as sim:
        sim.takes(post, 100)
        run = sim.start(impatient)
        with pytest.raises(TimedOut, match="no worker began it within its start_timeout of 90 s, in queue 'mail'"):
            run.result()
        assert sim.elapsed < 100


@pytest.mark.parametrize("queue", ["", "mail"])
def test_a_bound_on_all_of_a_step_counts_every_attempt_and_pause(queue: str):
    """`total_timeout` fails the step between two attempts, or in one, and nothing of it goes on."""

    @step(queue=queue, retry=Retry(max_attempts=100, initial=60, maximum=60, jitter=0, retry_on=ValueError))
    def fail() -> None:
        raise ValueError("again")

    @workflow
    def bounded() -> Flow[str]:
        try:
            yield from fail.options(total_timeout=timedelta(minutes=5, seconds=30))()
        except TimedOut as error:
            yield from Sleep(3600)
            return str(error)
        return "?"

    with Simulation([bounded], seed=11) as sim:
        run = sim.start(bounded)
        assert run.result() == "step 'fail' did not end within its total_timeout of 330 s"
        assert kinds(run).count("StepAttemptFailed") == 6
        assert "TimerFired" in kinds(run)


def test_a_step_that_ends_in_time_cancels_its_bound():
    """The timer goes with the outcome, and the history stays one that checks and replays."""

    @workflow
    def bounded() -> Flow[str]:
        sent = yield from send.options(total_timeout=60)("ada")
        yield from Receive("on", str)
        return sent

    with Simulation([bounded], seed=12) as sim:
        run = sim.start(bounded)
        sim.run()
        assert kinds(run) == ["RunStarted", "TimerSet", "StepCompleted", "TimerCancelled"]
        assert sim.backend.next_deadline_us() is None
        run.signal("on", "go")
        assert run.result() == "sent to ada"
        assert sim.elapsed < 1


# --- cancelling ----------------------------------------------------------------------------------------------------


def test_a_step_that_lost_its_race_leaves_the_queue():
    """Whether it waits or is at work, its place is free for the next one when the body has ended."""

    @workflow
    def race() -> Flow[str]:
        won = yield from First(step=post(1), late=Sleep(30))
        return str(won.key)

    with Simulation([race], seed=13, queues=[Queue("mail", concurrency=1)]) as sim:
        sim.takes(post, 3600)
        first = sim.start(race, id="at work")
        second = sim.start(race, id="waiting")
        assert (first.result(), second.result()) == ("late", "late")
        sim.run(timeout=2 * 3600)
        (state,) = [state for state in sim.backend.queues() if state.kind == "step"]
        assert (state.waiting, state.at_work) == (0, 0)


def test_a_cancelled_run_takes_its_steps_out_of_the_queue():
    """Nothing of a run that has ended is begun any more."""
    with Simulation([newsletter], seed=14, queues=[Queue("mail", concurrency=1)]) as sim:
        sim.takes(post, 600)
        run = sim.start(newsletter, 5)
        sim.at(60, lambda: run.cancel("enough"))
        with pytest.raises(Cancelled):
            run.result()
        sim.run(timeout=7200)
        assert [state.waiting + state.at_work for state in sim.backend.queues() if state.kind == "step"] == [0]
        assert len(sim.witness.bodies) == 1


# --- runs ----------------------------------------------------------------------------------------------------------


@workflow(queue="audits")
def audit(number: int) -> Flow[int]:
    yield from Sleep(600)
    return number


def test_runs_wait_until_their_queue_lets_them_begin():
    """Five runs of ten minutes, two at a time: half an hour; each is there from the start."""
    with Simulation([audit], seed=15, queues=[Queue("audits", concurrency=2)]) as sim:
        runs = [sim.start(audit, n, id=f"a{n}") for n in range(5)]
        assert {run.status for run in runs} == {Status.RUNNING}
        assert [run.result() for run in runs] == [*range(5)]
        assert 1800 <= sim.elapsed < 1805


def test_a_run_in_a_queue_can_be_cancelled_before_it_begins():
    """It leaves the queue, and ends without waiting for its turn."""
    with Simulation([audit], seed=16, queues=[Queue("audits", concurrency=1)]) as sim:
        first, second = sim.start(audit, 1), sim.start(audit, 2)
        sim.at(10, lambda: second.cancel("not needed"))
        with pytest.raises(Cancelled):
            second.result()
        assert sim.elapsed < 20
        assert first.result() == 1


def test_a_signal_waits_for_a_run_that_waits_in_a_queue():
    """It does not let the run begin before its turn, and is there when it does."""

    @workflow(queue="audits")
    def asking() -> Flow[str]:
        return (yield from Receive("word", str))

    with Simulation([audit, asking], seed=17, queues=[Queue("audits", concurrency=1)]) as sim:
        sim.start(audit, 1)
        run = sim.start(asking)
        sim.at(10, lambda: run.signal("word", "go"))
        assert run.result() == "go"
        assert sim.elapsed >= 600


def test_one_run_is_started_for_one_deduplication_id():
    """While one is open, a second start with the same id of its own answers the first."""
    with Simulation([audit], seed=18) as sim:
        first = sim.start(audit.options(dedup="daily"), 1)
        second = sim.start(audit.options(dedup="daily"), 1)
        assert first.id == second.id
        assert first.result() == 1
        assert sim.start(audit.options(dedup="daily"), 1).id != first.id


def test_a_child_takes_its_turn_in_a_queue():
    """A parent may start more children than the queue lets in at a time."""

    @workflow
    def parent() -> Flow[list[int]]:
        return (yield from All([audit(n) for n in range(4)]))

    with Simulation([parent, audit], seed=19, queues=[Queue("audits", concurrency=2)]) as sim:
        assert sim.start(parent).result() == [*range(4)]
        assert 1200 <= sim.elapsed < 1205


# --- crashes -------------------------------------------------------------------------------------------------------


def test_what_was_at_work_in_a_crash_is_begun_again():
    """The process dies in the body; the next takes the task again, and the run has one outcome."""
    with Simulation([greet], seed=20) as sim:
        sim.takes(send, 60)
        sim.start(greet, "ada", id="g")
        sim.at(30, sim.restart)
        sim.run(lambda: sim.elapsed > 200)
        run = sim.get("g")
        assert run.result() == "sent to ada"
        assert kinds(run).count("StepCompleted") == 1


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [{"key": "a"}, {"priority": 3}, {"delay": 5}, {"start_timeout": 5}])
def test_what_is_about_a_queue_needs_one(option: dict[str, Any]):
    """An option that would have no effect is refused where it is written."""
    with pytest.raises(BadOption, match="is about a queue"):
        step(**option)
