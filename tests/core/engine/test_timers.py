"""Timers: never early, once, and whatever the clock does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import timedelta

import pytest

from dalsegno import All, Engine, First, Flow, Now, Sleep, SleepUntil, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.events import TimerCancelled, TimerFired, TimerSet
from dalsegno.core.store import DueTimer
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.simulation import Simulation

HOUR = 3600.0


@workflow
def nap(seconds: float) -> Flow[list[float]]:
    """Sleep, and tell the time before and after, in seconds since the run began."""
    before = yield from Now()
    yield Sleep(seconds)
    after = yield from Now()
    return [0.0, (after - before).total_seconds()]


def test_a_month_takes_no_time():
    """A deadline is absolute and exact, however long the sleep."""
    with Simulation([nap]) as simulation:
        assert simulation.start(nap, timedelta(days=30).total_seconds()).result() == [0, 30 * 86400]


@pytest.mark.parametrize("restarts", [[], [1800], [0, 1, 3599], [3600]])
def test_a_deadline_outlives_the_process(restarts: list[float]):
    """Restarts in between neither lose a timer nor set it anew."""
    with Simulation([nap]) as simulation:
        run = simulation.start(nap, HOUR)
        for at in restarts:
            simulation.at(at, simulation.restart)
        assert run.result() == [0, HOUR]
        assert [type(e) for e in run.history()[1:3]] == [TimerSet, TimerFired]


def test_a_deadline_that_passed_while_nobody_worked_fires_at_once():
    """An engine that opens late catches up."""
    store, clock = MemoryBackend(), VirtualClock()
    with Simulation([nap], store=store, clock=clock) as simulation:
        simulation.start(nap, HOUR, id="n")
        simulation.run(timeout=10)
    clock.advance(5 * HOUR)
    with Simulation([nap], store=store, clock=clock) as simulation:
        assert simulation.get("n").result() == [0, 5 * HOUR + 10]


def test_the_wall_clock_going_back_fires_nothing_early_and_now_never_goes_back():
    """After a jump back by an hour, the timer waits for its wall-clock moment, and `Now` stands still meanwhile."""

    @workflow
    def watch() -> Flow[list[float]]:
        times = []
        begun = yield from Now()
        for _ in range(4):
            yield Sleep(600)
            times.append(((yield from Now()) - begun).total_seconds())
        return times

    with Simulation([watch]) as simulation:
        run = simulation.start(watch)
        simulation.at(900, lambda: simulation.clock.jump(-HOUR))
        times = run.result()
        assert times == sorted(times)
        assert simulation.elapsed == 4 * 600 + HOUR
        for set_, fired in zip(run.history()[1::2], run.history()[2::2], strict=False):
            if isinstance(set_, TimerSet) and isinstance(fired, TimerFired):
                assert fired.at_us >= set_.deadline_us


def test_the_wall_clock_going_forward_loses_no_timer():
    """After a jump forward by an hour everything due fires, once."""
    with Simulation([nap]) as simulation:
        runs = [simulation.start(nap, seconds) for seconds in (1800, 1900, 2 * HOUR)]
        simulation.at(1000, lambda: simulation.clock.jump(HOUR))
        for run in runs:
            run.result()
        assert simulation.elapsed == HOUR
        assert all(sum(isinstance(e, TimerFired) for e in run.history()) == 1 for run in runs)


def test_a_timer_that_lost_a_race_is_cancelled_and_never_fires():
    """The loser's deadline leaves history and store with the decision."""

    @workflow
    def race() -> Flow[object]:
        return (yield First(short=Sleep(1), long=Sleep(1000))).key

    with Simulation([race]) as simulation:
        run = simulation.start(race)
        assert run.result() == "short"
        kinds = [type(e) for e in run.history()]
        assert (kinds.count(TimerFired), kinds.count(TimerCancelled)) == (1, 1)
        assert simulation.backend.next_deadline_us() is None


def test_a_deadline_and_a_cancel_at_one_moment_end_in_one_way():
    """When the timer is due in the very moment the run is cancelled, exactly one of the two is recorded for it."""

    @workflow
    def wait() -> Flow[str]:
        yield All(Sleep(10), Sleep(20))
        return "slept"

    for seed in range(20):
        with Simulation([wait], seed=seed) as simulation:
            run = simulation.start(wait)
            simulation.at(20, run.cancel)
            simulation.run()
            last = [e for e in run.history() if isinstance(e, TimerFired | TimerCancelled) and e.id == "1.2"]
            assert len(last) == 1
            assert not run.status.open


def test_a_moment_in_the_past_is_over_at_once():
    """`SleepUntil` yesterday does not wait."""

    @workflow
    def late() -> Flow[None]:
        yield SleepUntil((yield from Now()) - timedelta(days=1))

    with Simulation([late]) as simulation:
        simulation.start(late).result()
        assert simulation.elapsed == 0


def test_short_sleeps_on_a_real_engine():
    """Sleeps of a few milliseconds on real clocks are not early."""
    with Engine("memory:", workflows=[nap]) as engine:
        for run in [engine.start(nap, 0.01) for _ in range(5)]:
            assert run.result(timeout=30)[1] >= 0.01


def test_a_clock_set_back_while_a_timer_is_under_way_does_not_make_it_early(monkeypatch: pytest.MonkeyPatch):
    """Due by the clock of one moment and recorded by that of the next, it is recorded as fired at its deadline."""
    with Simulation([nap]) as simulation:
        upkeep, live = simulation.works.upkeep, simulation.works.loop.live
        fire = upkeep.fire_timers

        def fire_and_set_back(ours: Callable[[Iterable[int]], Collection[int]]) -> None:
            fire(ours)
            if any(isinstance(arrived, DueTimer) for arrived in live[1].inputs):
                simulation.clock.jump(-HOUR)

        monkeypatch.setattr(upkeep, "fire_timers", fire_and_set_back)
        run = simulation.start(nap, 10)
        assert run.result() == [0, 10]
        (fired,) = [event for event in run.history() if isinstance(event, TimerFired)]
        (told,) = [event for event in run.history() if isinstance(event, TimerSet)]
        assert fired.at_us == told.deadline_us
        assert run.record.closed_at_us is not None
        assert run.record.closed_at_us < told.deadline_us - 1_000_000
