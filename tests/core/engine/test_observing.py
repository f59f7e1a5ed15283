"""What observers hear: each thing once, when it is durable, and never anything that could harm a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Codec, Engine, Flow, Observer, Receive, Retry, Sleep, Status, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.engine.observing import HOOKS, Attempt, Outcome
from dalsegno.core.engine.vitals import Vitals
from dalsegno.core.engine.whereabouts import identities
from dalsegno.core.errors import BadOption, StoreFull
from dalsegno.core.events import Event
from dalsegno.core.history import decode_history
from dalsegno.core.store import Message, RunRecord
from dalsegno.testing import Simulation


class Ledger(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.events: list[Event] = []
        self.vitals: list[Vitals] = []
        self.written_: list[str] = []
        self.late: list[float] = []

    def of(self, *hooks: str) -> list[tuple[Any, ...]]:
        """What was told by these methods."""
        return [each for each in self.told if each[0] in hooks]

    def opened(self, vitals: Vitals) -> None:
        self.vitals.append(vitals)

    def closed(self) -> None:
        self.told.append(("closed",))

    def run_started(self, run: RunRecord) -> None:
        self.told.append(("started", run.run_id))

    def run_recovered(self, run: RunRecord, events: int, seconds: float) -> None:
        assert seconds >= 0
        self.told.append(("recovered", run.run_id, events))

    def recorded(self, run: RunRecord, events: Sequence[Event], size: int) -> None:
        assert size > 0
        self.events += events

    def run_closed(self, run: RunRecord, status: Status, seconds: float) -> None:
        assert seconds >= 0
        self.told.append(("ended", run.run_id, status))

    def run_blocked(self, run: RunRecord, reason: str) -> None:
        self.told.append(("blocked", run.run_id, reason))

    def step_started(self, attempt: Attempt, waited: float) -> None:
        assert waited >= 0
        self.told.append(("body", attempt.step, attempt.attempt))

    def step_ended(self, outcome: Outcome) -> None:
        self.told.append(("step", outcome.step, outcome.attempt, outcome.outcome))

    def written(self, what: str, seconds: float) -> None:
        assert seconds >= 0
        self.written_.append(what)

    def flushed(self, writes: int, size: int, seconds: float) -> None:
        assert writes > 0
        assert size >= 0

    def store_failed(self, error: Exception) -> None:
        self.told.append(("store", type(error).__name__))

    def timer_fired(self, late: float) -> None:
        self.late.append(late)

    def run_taken_over(self, run: RunRecord, owner: str) -> None:
        self.told.append(("taken over", run.run_id, owner))

    def watchdog_struck(self, run: RunRecord, reason: str) -> None:
        self.told.append(("struck", run.run_id, reason))

    def lease_lost(self) -> None:
        self.told.append(("lease lost",))


class Flaky:
    """A body that fails the first times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise ConnectionError("not yet")
        return "done"


@step(retry=Retry(max_attempts=3, initial=0.001, jitter=0))
def fetch() -> str:
    """A step."""
    return "fetched"


@step(idempotent=True)
def tidy() -> None:
    """A step that may be repeated."""


@workflow
def job() -> Flow[str]:
    """Fetches, waits for a day, is told to go on, tidies."""
    got = yield from fetch()
    yield from Sleep(timedelta(days=1))
    yield from Receive("go", str)
    for _ in range(3):
        yield from tidy()
    return got


def test_everything_is_told_once_over_a_crash_and_evictions():
    """With every activation a replay, and a crash in between, each outcome and each event is told just once."""
    ledger = Ledger()
    with Simulation([job], cold=True, observers=[ledger], fakes={fetch: Flaky(1)}) as simulation:
        run = simulation.start(job, id="a")
        simulation.at(timedelta(hours=12), simulation.restart)
        simulation.at(timedelta(days=2), lambda: run.signal("go", "on"))
        assert run.result() == "done"
        history = decode_history(simulation.backend.history(run.record.number))
    assert ledger.events == history[1:]  # all but RunStarted, which comes with the run's creation
    assert ledger.of("step") == [
        ("step", "fetch", 1, "retried"),
        ("step", "fetch", 2, "completed"),
        *[("step", "tidy", 1, "completed")] * 3,
    ]
    assert ledger.of("started") == [("started", "a#1")]
    assert ledger.of("ended") == [("ended", "a#1", Status.COMPLETED)]
    assert len(ledger.of("recovered")) > 3
    assert len(ledger.vitals) == 2  # two lives
    assert ledger.late
    assert all(late >= 0 for late in ledger.late)


def test_what_a_crash_took_away_is_told_when_it_has_happened_again():
    """A body that ran, and whose outcome was not recorded, has begun twice and ended once."""
    ledger = Ledger()
    store = MemoryBackend()
    with Simulation([job], store=store, observers=[ledger]) as simulation:
        run = simulation.start(job, id="a")
        original = store.commit

        def dead(transitions: Any) -> Any:
            store.commit = original  # type: ignore[method-assign]
            raise StoreFull("no room")

        store.commit = dead  # type: ignore[method-assign]
        while not ledger.of("store"):
            assert simulation.works.piece()
        assert ledger.of("body", "step") == [("body", "fetch", 1)]
        simulation.restart()
        simulation.at(timedelta(days=2), lambda: run.signal("go", "on"))
        run.result()
    assert ledger.of("body", "step")[:3] == [
        ("body", "fetch", 1),
        ("body", "fetch", 1),
        ("step", "fetch", 1, "completed"),
    ]


def test_a_refused_transition_is_told_of_when_it_is_taken():
    """A signal that comes in while the end is on its way has the end thought over: it is told of once, with it."""
    ledger = Ledger()

    @workflow
    def brief() -> Flow[str]:
        return (yield from fetch())

    store = MemoryBackend()
    original, signal = store.commit, Message(workflow_id="a", kind="signal", name="late", payload=Codec().encode("x"))

    def just_before(transitions: Any) -> Any:
        if transitions[0].closed_at_us is not None:
            store.commit = original  # type: ignore[method-assign]
            store.send([signal], 0)
        return original(transitions)

    store.commit = just_before  # type: ignore[method-assign]
    with Simulation([brief], store=store, observers=[ledger]) as simulation:
        run = simulation.start(brief, id="a")
        assert run.result() == "fetched"
        assert run.history()[1:] == ledger.events
    assert "SignalReceived" in [type(event).__name__ for event in ledger.events]
    assert ledger.of("step") == [("step", "fetch", 1, "completed")]
    assert len(ledger.of("ended")) == 1


@workflow
def astray(mended: list[int]) -> Flow[str]:
    """Yields what is no command."""
    yield from fetch()
    yield 17  # type: ignore[misc]
    return "never"


def test_a_block_is_told_with_its_reason():
    """A run that cannot go on is told of as blocked, and not as ended."""
    ledger = Ledger()
    with Simulation([astray], observers=[ledger]) as simulation:
        simulation.start(astray, [], id="a")
        simulation.run()
    assert [told[:2] for told in ledger.of("blocked")] == [("blocked", "a#1")]
    assert "17" in ledger.of("blocked")[0][2]
    assert not ledger.of("ended")


def _fail(*facts: object) -> None:
    raise ZeroDivisionError("in the observer")


Raising: type[Observer] = type("Raising", (Observer,), dict.fromkeys(HOOKS, _fail))


def test_an_observer_that_fails_harms_no_run_and_no_other_observer(caplog: pytest.LogCaptureFixture):
    """Everything ends as without it, each method is logged once, and others hear of everything."""
    ledger, bad = Ledger(), Raising()
    with Simulation([job], observers=[bad, ledger], fakes={fetch: Flaky(1)}) as simulation:
        run = simulation.start(job, id="a")
        simulation.at(timedelta(days=2), lambda: run.signal("go", "on"))
        assert run.result() == "done"
    assert len(ledger.of("step")) == 5
    complaints = [record for record in caplog.records if "an observer failed" in record.message]
    named = [record.getMessage().partition(":")[0] for record in complaints]
    assert "an observer failed at Raising.step_ended" in named
    assert len(set(named)) == len(named) >= 8
    assert {record.levelno for record in complaints} == {logging.ERROR}
    assert all(record.exc_info for record in complaints)


class Around(Observer):
    """Holds something around each body."""

    def __init__(self) -> None:
        self.inside = threading.local()
        self.seen: list[str] = []

    def around_body(self, attempt: Attempt) -> AbstractContextManager[object]:
        return self._held(attempt.step)

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        self.inside.name = name
        yield
        self.inside.name = ""
        self.seen.append(name)
        raise ZeroDivisionError("while leaving")


def test_what_is_held_around_a_body_is_there_in_its_thread(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Plain and async bodies run inside of it, and its failing at the end changes no outcome."""
    around, ledger = Around(), Ledger()

    @step
    def plain() -> str:
        return str(around.inside.name)

    @step
    async def awaiting() -> str:
        return str(around.inside.name)

    @workflow
    def both() -> Flow[list[str]]:
        one = yield from plain()
        two = yield from awaiting()
        return [one, two]

    with Engine(f"lmdb:{tmp_path / 'store'}", workflows=[both], observers=[around, ledger]) as engine:
        assert engine.start(both).result(timeout=20) == ["plain", "awaiting"]
        sample = ledger.vitals[0].sample()
    assert around.seen == ["plain", "awaiting"]
    assert sample.pools["step"].size == 16
    assert sample.pools["step"].threads >= sample.pools["step"].busy >= 0
    assert {name: queue.depth for name, queue in sample.queues.items()}["steps"] == 0
    assert not sample.stalled
    assert ledger.told[-1] == ("closed",)
    assert {"creation", "transition"} <= set(ledger.written_)


def test_waiting_bodies_are_seen_with_their_age():
    """A body that finds no thread shows in the queue, with how long it has waited; a cancelled one leaves it."""
    ledger, gate, began = Ledger(), threading.Event(), threading.Event()

    @step
    def hold() -> None:
        began.set()
        gate.wait(20)

    @workflow
    def holding() -> Flow[None]:
        yield from hold()

    with Engine("memory:", workflows=[holding], observers=[ledger], step_threads=1) as engine:
        first = engine.start(holding, id="first")
        assert began.wait(20)
        second = engine.start(holding, id="second")
        look = ledger.vitals[0].sample
        while not look().queues["steps"].depth:
            threading.Event().wait(0.005)
        assert look().queues["steps"].age >= 0
        assert look().pools["step"].busy == 1
        second.terminate("no longer wanted")
        gate.set()
        first.result(timeout=20)
        while look().queues["steps"].depth:
            threading.Event().wait(0.005)


def test_what_is_no_observer_is_refused():
    """A class instead of an object, or an object of another class, is refused at once, with what to write."""
    with pytest.raises(BadOption, match=r"derives from dalsegno\.Observer"):
        Engine("memory:", workflows=[job], observers=[Ledger])  # type: ignore[list-item]


class Dies(MemoryBackend):
    """A store whose engines may vanish: while `dead`, nobody's lease is renewed, and nothing is given back."""

    dead = False

    def release(self, runs: Sequence[int], owner: str) -> None:
        if not self.dead:
            super().release(runs, owner)

    def leave(self, owner: str) -> bool:
        return not self.dead and super().leave(owner)


@workflow
def patient(where: str) -> Flow[str]:
    """Waits for a word, in memory or at work."""
    yield from fetch()
    return (yield from Receive("go", str))


def test_runs_that_are_taken_over_are_told_of_once_each(tmp_path: Path):
    """Those of an engine that vanished are, with its name; those that one has given back in good order are not."""
    ledger, store = Ledger(), Dies()
    with Engine(store, workflows=[patient], lease=0.5) as engine:
        gone = [engine.start(patient, "", id=f"gone {n}") for n in range(3)]
        while any(len(run.history()) < 2 for run in gone):
            pass
        owner = gone[0].record.owner
        store.dead = True
    store.dead = False
    with Engine(store, workflows=[patient], lease=0.5) as engine:
        back = engine.start(patient, "", id="given back")
        while len(back.history()) < 2:
            pass
    with Engine(store, workflows=[patient], lease=0.5, observers=[ledger]) as engine:
        for run in [*gone, back]:
            engine.get(run.id).signal("go", "on")
            assert engine.get(run.id).result(timeout=60) == "on"
    assert sorted(ledger.of("taken over")) == [("taken over", f"gone {n}#1", owner) for n in range(3)]


def test_a_lease_that_was_not_renewed_in_time_is_told_of():
    """Somebody else ended it meanwhile: this engine begins anew, and says so."""
    ledger, store = Ledger(), MemoryBackend()
    with Engine(store, workflows=[patient], lease=0.5, observers=[ledger]) as engine:
        run = engine.start(patient, "")
        while not ledger.of("lease lost"):
            for lease in store.leases():
                store.expire(lease)
        run.signal("go", "on")
        assert run.result(timeout=60) == "on"


def test_code_that_is_interrupted_is_told_of_once():
    """However often it takes; the block is told of when it is durable."""
    ledger, may_end = Ledger(), threading.Event()

    @workflow
    def endless() -> Flow[None]:
        yield from fetch()
        while not may_end.is_set():
            pass

    try:
        with Engine("memory:", workflows=[endless], watchdog=0.1, observers=[ledger]) as engine:
            run = engine.start(endless, id="endless")
            while run.status is not Status.BLOCKED:
                pass
    finally:
        may_end.set()
    ((_, struck, reason),), ((_, blocked, why),) = ledger.of("struck"), ledger.of("blocked")
    assert (struck, blocked) == ("endless#1", "endless#1")
    assert "without a yield" in reason
    assert why == reason


def test_a_step_out_of_a_queue_is_told_with_its_run():
    """Whoever runs it hears of the run as the store has it, the queue, and since when it waited there."""
    heard: list[Attempt] = []

    class Listening(Observer):
        def step_started(self, attempt: Attempt, waited: float) -> None:
            heard.append(attempt)

    @step(queue="far")
    def far() -> dict[str, Any]:
        return identities()

    @workflow
    def sends_away() -> Flow[dict[str, Any]]:
        return (yield from far())

    with Simulation([sends_away], observers=[Listening()]) as simulation:
        run = simulation.start(sends_away, id="away")
        named = run.result()
    (attempt,) = heard
    assert (attempt.run.workflow, attempt.run.created_at_us) == ("sends_away", run.record.created_at_us)
    assert (attempt.run_id, attempt.queue) == ("away#1", "far")
    assert attempt.queued_us is not None
    assert attempt.queued_us <= attempt.at_us
    about = {"workflow_id": "away", "run_id": "away#1", "step": "far", "attempt": 1, "queue": "far", "task": 1}
    assert named == about
