"""What `replay top` knows of a store, on the virtual clock; and how little it reads for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from dalsegno import Flow, Receive, Retry, Sleep, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import Status
from dalsegno.testing import Simulation
from dalsegno.testing.run_promises import apply, begin, end
from dalsegno.testing.run_promises import step as transition
from dalsegno.tools import watching
from dalsegno.tools.overview import waits_for
from dalsegno.tools.watching import AGAIN, PAGES, Frame, Rates, Watch


@step
def work(number: int) -> int:
    return number


@step(retry=Retry(max_attempts=3, initial=60, backoff=1, jitter=0, retry_on=(ValueError,)))
def weigh(number: int) -> int:
    if number:
        raise ValueError(f"number {number} has no weight")
    return number


@workflow
def quick(number: int) -> Flow[int]:
    first = yield from work(number)
    return first + (yield from work(number))


@workflow
def heavy(number: int) -> Flow[int]:
    return (yield from weigh(number))


@workflow
def patient() -> Flow[str]:
    return (yield from Receive("answer", str))


@workflow
def asleep() -> Flow[None]:
    yield from Sleep(600)


class Counted(MemoryBackend):
    """A store that notes what is asked of it."""

    asked: ClassVar[Counter[str]] = Counter()

    def __getattribute__(self, name: str) -> Any:
        if name in ("runs", "record", "history", "head", "active", "stats", "due", "inbox"):
            self.asked[name] += 1
        return super().__getattribute__(name)


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """An engine that works on a store while it is watched."""
    with Simulation([quick, heavy, patient, asleep], store=Counted()) as opened:
        yield opened


@pytest.fixture
def watch(simulation: Simulation) -> Watch:
    """A watch on that store that has had its first look."""
    watch = Watch(simulation.backend)
    look(watch, simulation)
    return watch


def look(watch: Watch, simulation: Simulation, after: float = 0) -> Frame:
    """The frame after so many seconds, in which everything happens that can."""
    until = simulation.clock.steady_us() + round(after * 1e6)
    simulation.run(timeout=after)
    simulation.clock.advance_us(until - simulation.clock.steady_us())
    return watch.frame(simulation.clock.now_us())


def test_an_empty_store(simulation: Simulation, watch: Watch):
    """Nothing is told of nothing, and rates are none."""
    frame = look(watch, simulation, after=2)
    assert (frame.runs, frame.counted, frame.complete, frame.workflows, frame.waiting) == (0, 0, True, {}, ())
    assert frame.rates == Rates(over_s=2, started=0, closed=0, steps=0, events=0)


def test_rates_between_frames(simulation: Simulation, watch: Watch):
    """Runs that came, and went, between two frames are counted with all their steps and events."""
    for number in range(6):
        simulation.start(quick, number)
    simulation.start(patient, id="p")
    frame = look(watch, simulation, after=2)
    assert frame.rates == Rates(over_s=2, started=3.5, closed=3, steps=6, events=12.5)
    assert frame.workflows == {"patient": {"running": 1}, "quick": {"completed": 6}}
    assert (frame.statuses["completed"], frame.statuses["running"]) == (6, 1)
    again = look(watch, simulation, after=2)
    assert again.rates == Rates(over_s=2, started=0, closed=0, steps=0, events=0)


def test_the_first_frame_looks_back_for_a_minute(simulation: Simulation):
    """One frame alone has the rates of the last minute, by what the records of the runs say."""
    simulation.start(quick, 1).result()
    simulation.clock.advance(100)
    for number in range(3):
        simulation.start(quick, number)
    simulation.start(patient)
    simulation.run()
    frame = Watch(simulation.backend).frame(simulation.clock.now_us(), everything=True)
    assert frame.rates == Rates(over_s=60, started=4 / 60, closed=3 / 60)


def test_a_clock_that_is_put_back(simulation: Simulation, watch: Watch):
    """Rates over no time are left out, and come again with the next frame."""
    simulation.clock.jump(-3600)
    assert look(watch, simulation).rates is None
    assert look(watch, simulation, after=1).rates is not None


def test_steps_that_fail(simulation: Simulation, watch: Watch):
    """While a step is retried it is told in how many runs, and with what error; afterwards what became of it."""
    for number in range(5):
        simulation.start(heavy, number, id=f"heavy-{number}")
    (one,) = look(watch, simulation, after=1).failing
    assert (one.workflow, one.step, one.retrying, one.attempts, one.failed) == ("heavy", "weigh", 4, 4, 0)
    assert one.error.startswith("ValueError: number ")
    assert one.run_id.startswith("heavy-")
    (one,) = look(watch, simulation, after=200).failing
    assert (one.retrying, one.attempts, one.failed) == (0, 8, 4)
    afterwards = Watch(simulation.backend).frame(simulation.clock.now_us(), everything=True)
    assert [(one.step, one.retrying, one.attempts, one.failed) for one in afterwards.failing] == [("weigh", 0, 8, 4)]


def test_who_waits_longest(simulation: Simulation, watch: Watch):
    """The runs whose last event is oldest, with what their histories say they wait for; active ones do not wait."""
    simulation.start(asleep, id="late")
    simulation.run(timeout=10)
    simulation.start(heavy, 1, id="retried")
    simulation.start(patient, id="asks")
    frame = look(watch, simulation, after=5)
    assert frame.waiting[0].run_id == "late#1"
    assert {one.run_id: waits_for(one) for one in frame.waiting} == {
        "late#1": ["sleep"],
        "asks#1": ["a message"],
        "retried#1": ["step 'weigh' to be retried"],
    }
    assert frame.at_us - frame.waiting[0].since_us == 15_000_000


def test_a_calm_frame_reads_nothing(simulation: Simulation, watch: Watch):
    """As long as nobody writes, the store is asked that and nothing else."""
    for _ in range(20):
        simulation.start(patient)
    look(watch, simulation, after=1)
    look(watch, simulation)
    Counted.asked.clear()
    assert len(watch.frame(simulation.clock.now_us() + 60_000_000).waiting) == 20
    assert not Counted.asked


def test_of_many_waiting_runs_some_are_looked_at_again(monkeypatch: pytest.MonkeyPatch):
    """A change among thousands of waiting runs costs a bounded number of reads a frame; it is met when its turn comes,
    and how many runs stand how is right at once."""
    monkeypatch.setattr(watching, "AGAIN", 50)
    store = Counted()
    runs = [begin(store, f"run-{number}") for number in range(400)]
    store.commit([transition(run, 1, b"waits", active=False) for run in runs])
    watch = Watch(store)
    watch.frame(0, everything=True)
    apply(store, end(runs[0], 2))
    frames = []
    for at in range(1, 9):
        Counted.asked.clear()
        frames.append(watch.frame(at * 1_000_000))
        assert Counted.asked["record"] <= 51
        assert Counted.asked["runs"] <= 1
    assert {frame.statuses["completed"] for frame in frames} == {1}
    assert [frame.rates.closed for frame in frames[:2] if frame.rates] == [1, 0]
    assert frames[0].workflows == {"fulfil": {"running": 400}}
    assert frames[-1].workflows == {"fulfil": {"completed": 1, "running": 399}}
    Counted.asked.clear()
    watch.frame(9_000_000)
    assert not Counted.asked


def test_a_slow_store_is_asked_less():
    """Where each question takes long, as over a network, a frame asks less; all runs come by all the same."""
    store = Counted()
    runs = [begin(store, f"run-{number}") for number in range(60)]
    store.commit([transition(run, 1, b"waits", active=False) for run in runs])
    watch = Watch(store, steady=lambda: Counted.asked["record"] * 0.01)
    watch.frame(0, everything=True)
    frames = 0
    apply(store, end(runs[0], 2))
    while watch.frame(frames).workflows == {"fulfil": {"running": 60}}:
        frames += 1
    assert 4 <= frames <= 6


def test_counting_takes_several_frames(monkeypatch: pytest.MonkeyPatch):
    """Runs that were there are counted page by page; what begins and ends meanwhile is counted once."""
    monkeypatch.setattr(watching, "PAGE", 5)
    monkeypatch.setattr(watching, "PAGES", 2)
    store = MemoryBackend()
    runs = [begin(store, f"run-{number}") for number in range(25)]
    watch = Watch(store)
    first = watch.frame(0)
    assert (first.counted, first.runs, first.complete, first.rates) == (15, 25, False, None)  # 5 of them are active
    apply(store, end(runs[0]))
    apply(store, end(runs[24]))
    begin(store, "new")
    last = [watch.frame(at) for at in range(1, 6)][-1]
    assert (last.counted, last.runs, last.complete) == (26, 26, True)
    assert last.workflows == {"fulfil": {"completed": 2, "running": 24}}


def test_what_was_purged_is_counted_no_more():
    """When closed runs are deleted, those that are left are counted anew; none is said to have started or ended."""
    store = MemoryBackend()
    runs = [begin(store, f"run-{number}") for number in range(6)]
    for run in runs[:4]:
        apply(store, end(run))
    watch = Watch(store)
    watch.frame(0, everything=True)
    store.purge([run.number for run in runs[:3]])
    frame = watch.frame(1_000_000)
    assert frame.workflows == {"fulfil": {"completed": 1, "running": 2}}
    assert frame.rates == Rates(over_s=1, started=0, closed=0, steps=0, events=0)


def test_damage_stops_nothing(monkeypatch: pytest.MonkeyPatch):
    """A run whose history or record is damaged is left as it was last seen."""
    store = MemoryBackend()
    run = begin(store)
    watch = Watch(store)
    watch.frame(0)

    def damaged(*_: object) -> Any:
        raise StoreDamaged("flipped", key="", run=None, event=None)

    monkeypatch.setattr(store, "history", damaged)
    begin(store, "order-2")
    assert watch.frame(1).workflows == {"fulfil": {"running": 2}}
    monkeypatch.setattr(store, "record", damaged)
    store.commit([end(run)])
    assert watch.frame(2).statuses[Status.COMPLETED.value] == 1


def test_the_bounds_are_small():
    """What a frame reads at most, besides what has happened, takes tenths of a second."""
    assert AGAIN <= 5000
    assert PAGES <= 20
