"""Stores that fail: full, or unsure whether they have done it, or refusing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dalsegno import Flow, Receive, Sleep, Status, StoreFull, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.errors import UnknownOutcome
from dalsegno.core.events import RunCompleted, SignalReceived
from dalsegno.core.store import Message, NewRun, Transition
from dalsegno.testing.faults import FaultPlan, Faults
from dalsegno.testing.simulation import Simulation

ran: list[str] = []


@step
def work(what: str) -> str:
    """A step."""
    ran.append(what)
    return what


@workflow
def child(what: str) -> Flow[str]:
    """One step in a run of its own."""
    return (yield from work(what))


@workflow
def job() -> Flow[list[Any]]:
    """Some of everything that is written."""
    seen: list[Any] = [(yield work("a"))]
    yield Sleep(10)
    seen.append((yield child("b")))
    seen.append((yield Receive("word")))
    seen.append((yield work("c")))
    return seen


EXPECTED = ["a", "b", "hello", "c"]


class Unreliable(MemoryBackend):
    """A memory store of which `fault(number, call)` decides how the n-th write goes: it calls, and raises, or not."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.writes = 0
        self.fault: Callable[[int, Callable[[], Any]], Any] = lambda number, call: call()

    def _call(self, call: Callable[[], Any]) -> Any:
        self.writes += 1
        return self.fault(self.writes, call)

    def commit(self, transitions: Sequence[Transition]) -> Any:
        return self._call(lambda: MemoryBackend.commit(self, transitions))

    def write(
        self, creations: Sequence[NewRun], transitions: Sequence[Transition], messages: Sequence[Message], at_us: int
    ) -> Any:
        return self._call(lambda: MemoryBackend.write(self, creations, transitions, messages, at_us))


@pytest.fixture(autouse=True)
def nothing_ran():
    """Begin with an empty ledger."""
    ran.clear()


def play(store: Unreliable, seed: int = 0) -> list[Any]:
    """Run the job on this store."""
    with Simulation([job, child], store=store, seed=seed) as simulation:
        run = simulation.start(job, id="j")
        simulation.at(5, lambda: run.signal("word", "hello", dedup="once"))
        result = run.result()
        assert sum(isinstance(e, SignalReceived) for e in run.history()) == 1
        return result


def count_writes() -> int:
    """How many writes the job takes."""
    store = Unreliable()
    assert play(store) == EXPECTED
    ran.clear()
    return store.writes


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
def test_a_commit_with_an_unknown_outcome_is_looked_up(applied: bool):
    """Whichever write it is, and whether it was applied or not: nothing is lost, nothing is doubled."""
    for n in range(1, count_writes() + 1):
        ran.clear()
        store = Unreliable()

        def unsure(number: int, call: Callable[[], Any], n: int = n) -> Any:
            if number != n:
                return call()
            if applied:
                call()
            raise UnknownOutcome("the disk did not say")

        store.fault = unsure
        try:
            assert play(store) == EXPECTED, n
        except UnknownOutcome:
            continue  # the caller of `start` or `signal` is told; calling again is safe
        assert ran == ["a", "b", "c"], n
        assert len(store.runs()) == 2, n


def test_a_full_store_keeps_accepted_work_and_goes_on_when_there_is_room():
    """While it is full, callers get `StoreFull`; afterwards every run ends, and no body has run twice."""
    for n in range(2, count_writes() + 1):
        ran.clear()
        store = Unreliable()

        def full(number: int, call: Callable[[], Any], n: int = n) -> Any:
            if n <= number < n + 5:
                raise StoreFull("no room")
            return call()

        store.fault = full
        try:
            assert play(store) == EXPECTED, n
        except StoreFull:
            continue
        assert ran == ["a", "b", "c"], n


def test_callers_of_a_full_store_are_told_and_nothing_is_recorded():
    """`start` and `signal` raise `StoreFull`; the run is not there, the signal is not seen, the state can be read."""
    store = Unreliable()
    with Simulation([job, child], store=store) as simulation:
        run = simulation.start(job, id="j")
        simulation.run(timeout=1)

        def full(number: int, call: Callable[[], Any]) -> Any:
            raise StoreFull("no room")

        store.fault = full
        with pytest.raises(StoreFull):
            simulation.start(job, id="k")
        with pytest.raises(StoreFull):
            run.signal("word", "lost")
        assert (run.status, len(simulation.runs())) == (Status.RUNNING, 1)
        store.fault = lambda number, call: call()
        run.signal("word", "hello")
        assert run.result() == EXPECTED
        assert [run.id for run in simulation.runs()] == ["j/3", "j"]


def test_a_signal_that_races_the_end_is_seen_or_refused_never_lost():
    """A signal accepted between the last activation and its commit is in the history before the closing event."""

    @workflow
    def brief() -> Flow[str]:
        return (yield from work("a"))

    store = Unreliable()
    with Simulation([brief], store=store) as simulation:
        run = simulation.start(brief, id="b")

        def at_the_last_moment(number: int, call: Callable[[], Any]) -> Any:
            store.fault = lambda number, call: call()
            MemoryBackend.send(store, [Message(workflow_id="b", kind="signal", name="late", payload=b"\xc0")], 0)
            return call()

        simulation.run(lambda: bool(ran))
        store.fault = at_the_last_moment
        assert run.result() == "a"
        ended = run.history()[-1]
        assert isinstance(ended, RunCompleted)
        assert ended.unread == {"late": 1}
        assert any(isinstance(e, SignalReceived) for e in run.history())
        assert ran == ["a"]


def test_a_refused_run_that_cannot_be_looked_up_is_tried_again():
    """The lease is lost, and the store fails when it is asked whose the run is: the run goes on with the next tick."""
    fired = 0
    for seed in range(40):
        ran.clear()
        plan = FaultPlan(seed, only=("lease.lost", "store.error"), on=1.0)
        with Simulation([job, child], seed=seed, faults=plan) as simulation:
            run = simulation.start(job, id="j")
            simulation.at(20, lambda run=run: run.signal("word", "hello"))  # type: ignore[misc]
            assert run.result() == EXPECTED, f"seed {seed}"
            assert isinstance(simulation.faults, Faults)
            fired += bool(simulation.faults.fired["lease.lost"] and simulation.faults.fired["store.error"])
    assert fired
