"""Ledgers, earlier readings and histories agree, and where they do not, the check says which promise is broken."""

from __future__ import annotations

import pytest

from dalsegno import Retry, step, step_context, workflow
from dalsegno.core import events as ev
from dalsegno.core.events import Event
from dalsegno.core.executions import RULES, Execution, check_executions, check_grown
from dalsegno.testing.faults import FaultPlan
from dalsegno.testing.simulation import Simulation

D = b"12345678"
START = ev.RunStarted(10, "shop", "shop", 1, b"", b"")
FAILED = ev.StepAttemptFailed(20, "1", "pay", D, 3, 1, 5, b"", 30)
DONE = ev.StepCompleted(40, "1", "pay", D, 3, 2, 5, b"")
ONCE = ev.StepStarted(50, "2", "wire", D, 4, 1)
UNKNOWN = ev.StepFailed(60, "2", "wire", D, 4, 1, 0, b"")
HISTORY: list[Event] = [START, FAILED, DONE, ONCE, UNKNOWN]
LEDGER = [
    Execution("shop#1/1", 1, 15, "a"),
    Execution("shop#1/1", 2, 35, "a"),
    Execution("shop#1/1", 2, 36, "b"),
]


def broken(ledger: list[Execution], slack_us: int = 0) -> list[tuple[str, int | None]]:
    """The rules that a ledger breaks, and where in the history."""
    return [(one.rule, one.event) for one in check_executions(ledger, {"shop#1": HISTORY}, slack_us=slack_us)]


def test_a_body_may_run_again_until_it_is_recorded():
    """An attempt that a crash cut short is made again by another process; a step of unknown outcome ran or did not."""
    assert broken(LEDGER) == []
    assert broken([*LEDGER, Execution("shop#1/2", 1, 55, "b")]) == []


@pytest.mark.parametrize(
    ("ledger", "found"),
    [
        (LEDGER[1:], [("executed", 1)]),
        (LEDGER[:1], [("executed", 2)]),
        ([*LEDGER, Execution("shop#1/1", 2, 41, "c")], [("never after", 2)]),
        ([*LEDGER, Execution("shop#1/1", 1, 21, "c")], [("never after", 1)]),
        ([*LEDGER, Execution("shop#1/1", 2, 37, "b")], [("at most once", None)]),
        ([*LEDGER, Execution("shop#1/2", 1, 55), Execution("shop#1/2", 1, 56)], [("at most once", None)]),
    ],
    ids=[
        "no first body",
        "no second body",
        "after its record",
        "after its failure",
        "twice in a process",
        "once, twice",
    ],
)
def test_what_is_broken_is_found(ledger: list[Execution], found: list[tuple[str, int | None]]):
    """Each promise by itself, at the event it is about."""
    assert broken(ledger) == found
    assert all(rule in RULES for rule, _ in found)


def test_a_failure_that_the_engine_recorded_needs_no_body():
    """A step out of a queue that nobody began, or of unknown outcome, took no time; one that ran took some."""
    place = ("1", "wire", D, 4, 1)
    unbegun, ran = ev.StepFailed(60, *place, 0, b""), ev.StepFailed(60, *place, 7, b"")
    assert check_executions([], {"q#1": [START, unbegun]}) == []
    assert [one.rule for one in check_executions([], {"q#1": [START, ran]})] == ["executed"]


def test_a_step_out_of_a_queue_that_may_run_once_is_named():
    """Its history does not tell, so the caller does; then two bodies of it are one too many."""
    done, twice = ev.StepCompleted(60, "1", "wire", D, 4, 1, 5, b""), [Execution("q#1/1", 1, at) for at in (1, 2)]
    assert check_executions(twice, {"q#1": [START, done]}) == []
    assert [one.rule for one in check_executions(twice, {"q#1": [START, done]}, once=["wire"])] == ["at most once"]


def test_clocks_may_be_apart():
    """A body that began later than its record by no more than the slack is none."""
    assert broken([*LEDGER, Execution("shop#1/1", 2, 41, "c")], slack_us=1) == []


def test_a_history_only_grows():
    """What was read once is still there; a place that holds something else, or nothing, is named."""
    assert check_grown(HISTORY[:3], HISTORY) == []
    assert check_grown([], HISTORY) == []
    (changed,) = check_grown([START, DONE], HISTORY, "shop#1")
    assert str(changed) == "shop#1, event 1: StepAttemptFailed stands where StepCompleted was read before [grown]"
    (other,) = check_grown([START, ev.StepAttemptFailed(21, "1", "pay", D, 3, 1, 5, b"", 30)], HISTORY)
    assert "StepAttemptFailed is not what was read before" in str(other)
    (shorter,) = check_grown(HISTORY, HISTORY[:2])
    assert (shorter.event, shorter.what) == (2, "5 events were read before, and 2 are there")


LEDGER_OF_STEPS: list[Execution] = []


@step(retry=Retry(max_attempts=5, jitter=0))
def writes() -> int:
    """Keeps a ledger, whatever the engine says of it."""
    context = step_context()
    LEDGER_OF_STEPS.append(Execution(context.idempotency_key, context.attempt, at_us=0))
    return context.attempt


@workflow
def shop():
    """Three steps."""
    for _ in range(3):
        yield from writes()


@pytest.mark.parametrize("seed", range(10))
def test_a_real_ledger_under_faults_agrees(seed: int):
    """Bodies that run while the process dies and the store fails leave a ledger that fits the histories."""
    LEDGER_OF_STEPS.clear()
    sites = ("store.unknown-after", "step.crash-before", "step.crash-after", "step.error-after")
    with Simulation([shop], faults=FaultPlan(seed, on=1, only=sites)) as simulation:
        run = simulation.start(shop)
        run.result()
        histories = {each.run_id: each.history() for each in simulation.runs()}
        assert check_executions(LEDGER_OF_STEPS, histories) == []
        assert check_executions(LEDGER_OF_STEPS[1:], histories) or len(LEDGER_OF_STEPS) > 3
