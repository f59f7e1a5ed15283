"""The simulation: fakes, a script in virtual time, long steps, restarts, and the same histories from the same seed."""

from __future__ import annotations

import asyncio
import unittest
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalsegno import (
    All,
    BadOption,
    Cancelled,
    Flow,
    Now,
    Publish,
    Random,
    Receive,
    Retry,
    Sleep,
    Status,
    TimedOut,
    step,
    step_context,
    workflow,
)
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.testing.simulation import Simulation

RAN: list[str] = []

virtual_sleep = asyncio.sleep  # in a simulation it moves the virtual clock, and nobody waits


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()


@step
def charge(amount: int) -> str:
    """A step that a test must not really run."""
    raise NotImplementedError("costs money")


@step
async def ship(what: str) -> str:
    """An async step."""
    RAN.append(f"ship {what}")
    await virtual_sleep(3600)
    return f"shipped {what}"


@step(timeout=10, retry=Retry(max_attempts=3, jitter=0))
def fetch(name: str) -> str:
    """A step with a time-out."""
    RAN.append(f"fetch {name} {step_context().attempt} {step_context().cancelled}")
    return name


@step
def work(name: str) -> str:
    """A plain step."""
    RAN.append(name)
    return name


@workflow
def order(amount: int) -> Flow[str]:
    """Charges, waits for a signal, ships."""
    receipt = yield from charge(amount)
    what = yield from Receive("what", str)
    yield from Publish("receipt", receipt)
    return (yield from ship(what))


@workflow
def fetches() -> Flow[str]:
    """One step with a time-out."""
    return (yield from fetch("page"))


@workflow
def several(names: list[str]) -> Flow[list[str]]:
    """Steps side by side, with chance and time in between."""
    chance = yield from Random()
    yield from Sleep(chance.randint(1, 100))
    done = yield from All([work(name) for name in names])
    return [*done, (yield from Now()).isoformat()]


@workflow
def naps(times: int) -> Flow[int]:
    """Sleeps a day, works, and so on."""
    for at in range(times):
        yield from Sleep(timedelta(days=1))
        yield from work(f"day {at}")
    return times


def simulate(**options):
    return Simulation([order, fetches, several, naps], **options)


@pytest.mark.parametrize("key", [charge, "charge"], ids=["definition", "name"])
def test_a_fake_stands_in_for_a_step(key):
    """A step's function is replaced by definition or by name, and the step runs as it would."""
    with simulate(fakes={key: lambda amount: f"paid {amount}"}) as simulation:
        run = simulation.start(order, 5)
        simulation.at(30, lambda: run.signal("what", "book"))
        assert run.result() == "shipped book"
        assert run.state == {"receipt": "paid 5"}


def test_a_fake_serves_every_call_with_other_options_too():
    """A call with options of its own is still that step."""

    @workflow
    def patient() -> Flow[str]:
        return (yield from charge.options(timeout=5)(7))

    with Simulation([patient], fakes={charge: lambda amount: f"paid {amount}"}) as simulation:
        assert simulation.start(patient).result() == "paid 7"


def test_a_fake_may_be_async_where_the_step_is_not():
    """Either kind of function stands in for either kind of step."""

    async def paid(amount: int) -> str:
        await virtual_sleep(60)
        return "later"

    with simulate(fakes={charge: paid, ship: lambda what: "at once"}) as simulation:
        run = simulation.start(order, 5)
        run.signal("what", "book")
        assert run.result() == "at once"
        assert simulation.elapsed == 60


def test_a_fake_has_to_be_a_function():
    """What cannot be called is refused where it is given."""
    with pytest.raises(BadOption, match="has to be a function"):
        simulate(fakes={charge: 5})


def test_an_async_step_sleeps_in_virtual_time():
    """`asyncio.sleep` of an hour in a body moves the clock an hour."""
    with simulate(fakes={charge: str}) as simulation:
        run = simulation.start(order, 5)
        run.signal("what", "book")
        run.result()
        assert simulation.elapsed == 3600


def test_the_script_plays_at_its_times():
    """Signals, cancels and clock jumps happen when the script says, in the order it says."""
    seen = []
    with simulate(fakes={charge: str}) as simulation:
        run = simulation.start(order, 5)
        simulation.at(timedelta(hours=2), lambda: seen.append(("cancel", simulation.elapsed, run.cancel("enough"))))
        simulation.at(60, lambda: seen.append(("jump", simulation.elapsed, simulation.clock.jump(-3600))))
        with pytest.raises(Cancelled, match="enough"):
            run.result()
    assert seen == [("jump", 60, None), ("cancel", 7200, None)]


def test_a_restart_keeps_clock_script_and_handles():
    """The process dies in the middle of a month; nothing recorded runs again, and the handle goes on."""
    with simulate() as simulation:
        run = simulation.start(naps, 5)
        for day in (0.5, 1, 1.5, 3):
            simulation.at(timedelta(days=day), simulation.restart)
        assert run.result() == 5
        assert simulation.witness.life == 5
        assert simulation.clock.now.isoformat() == "2026-01-06T00:00:00+00:00"
    assert [f"day {at}" for at in range(5)] == RAN


def test_a_restart_on_lmdb(tmp_path):
    """A simulation runs on any store, and dies and opens again there."""
    with LmdbBackend.open(str(tmp_path / "store")) as store, simulate(store=store) as simulation:
        run = simulation.start(naps, 3)
        simulation.at(timedelta(days=1.5), simulation.restart)
        assert run.result() == 3
    assert RAN == ["day 0", "day 1", "day 2"]


def test_a_restart_loses_what_a_body_was_doing():
    """A body that runs when the process dies runs again, from its beginning."""
    with simulate() as simulation:
        simulation.takes(work, 3600)
        run = simulation.start(naps, 1)
        simulation.at(timedelta(hours=24.5), simulation.restart)
        assert run.result() == 1
        assert simulation.elapsed == 25.5 * 3600
        assert simulation.witness.began_count(work) == 2
        assert [(repeat.step, repeat.why) for repeat in simulation.witness.repeats()] == [("work", "crash")]


def test_a_long_step_takes_its_virtual_time():
    """Steps side by side that take an hour each take an hour together."""
    with simulate() as simulation:
        simulation.takes("work", timedelta(hours=1))
        run = simulation.start(several, ["a", "b", "c"])
        simulation.run(lambda: bool(simulation.witness.bodies))
        begun = simulation.elapsed
        run.result()
        assert simulation.elapsed == begun + 3600


def test_an_attempt_that_takes_too_long_times_out():
    """The time-out passes in virtual time, the policy gives another attempt, and the late body ends unheard."""
    with simulate() as simulation:
        simulation.takes(fetch, lambda attempt: 60 if attempt == 1 else 1)
        run = simulation.start(fetches)
        assert run.result() == "page"
        assert simulation.elapsed == 12
        simulation.run(timeout=100)
    assert RAN == ["fetch page 2 False", "fetch page 1 True"]


def test_a_step_that_never_comes_back_times_out():
    """A body that hangs for ever costs its time-out, each time, and the step fails."""
    with simulate() as simulation:
        simulation.takes(fetch, float("inf"))
        with pytest.raises(TimedOut, match="attempt 3"):
            simulation.start(fetches).result()
        assert simulation.elapsed == 33
        assert simulation.witness.began_count("fetch") == 3


def test_a_heartbeat_keeps_a_long_step_alive():
    """A body that says it is alive may take longer than its time-out."""
    with simulate() as simulation:
        simulation.takes(fetch, 60, heartbeat=9)
        assert simulation.start(fetches).result() == "page"
        assert simulation.elapsed == 60


def test_a_fake_that_moves_the_clock_can_time_out():
    """A fake may let time pass by itself, and its time-out counts that, too."""
    with simulate() as simulation:
        simulation.fake(fetch, lambda name: simulation.clock.advance(11))
        with pytest.raises(TimedOut):
            simulation.start(fetches).result()


def histories(seed: int) -> list[list[bytes]]:
    """What a small busy simulation leaves in its store."""
    with simulate(seed=seed) as simulation:
        simulation.takes(work, lambda attempt: 7)
        for at in range(3):
            simulation.start(several, list("abcd"), id=f"run-{at}")
        simulation.at(40, simulation.restart)
        simulation.run()
        assert {run.status for run in simulation.runs()} == {Status.COMPLETED}
        return [simulation.backend.history(run.record.number) for run in simulation.runs()]


def test_one_seed_one_history():
    """Twice with one seed gives byte-equal histories, another seed gives others."""
    assert histories(1) == histories(1)
    assert histories(1) != histories(2)


def test_a_month_takes_milliseconds():
    """Time that nobody uses costs nothing: thirty days are under a thousand pieces of work."""
    with simulate() as simulation:
        simulation.start(naps, 30).result()
        assert simulation.pieces < 1000


def test_run_stops_after_its_virtual_seconds():
    """`run(timeout=…)` lets so much time pass and no more; nothing is lost by stopping there."""
    with simulate() as simulation:
        run = simulation.start(naps, 2)
        assert not simulation.run(lambda: run.ended, timeout=timedelta(days=1, hours=12))
        assert simulation.elapsed == 1.5 * 86400
        assert RAN == ["day 0"]
        assert run.result() == 2


def test_awaiting_a_run_drives_the_simulation():
    """In an async test a run is awaited, and async steps still run."""

    async def test() -> str:
        with simulate(fakes={charge: str}) as simulation:
            run = simulation.start(order, 5)
            run.signal("what", "book")
            result: str = await run
            return result

    assert asyncio.run(test()) == "shipped book"


def test_what_waits_for_nobody_is_told():
    """A run that waits for a signal nobody sends: `result` says that it has not ended, and does not hang."""
    with simulate(fakes={charge: str}) as simulation:
        run = simulation.start(order, 5)
        with pytest.raises(TimedOut, match="not ended after 3600 s"):
            run.result(timeout=3600)
        with pytest.raises(TimedOut, match="waits for receive what, and nothing is left to happen"):
            run.result()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), days=st.floats(0, 4))
def test_under_hypothesis(seed: int, days: float):
    """A simulation is opened and closed inside each example; a crash at any time changes nothing."""
    with Simulation([naps], seed=seed) as simulation:
        run = simulation.start(naps, 3)
        simulation.at(timedelta(days=days), simulation.restart)
        assert run.result() == 3


class UnderUnittest(unittest.TestCase):
    """The same from the standard library's test runner."""

    def test_a_sleep_of_days(self):
        """Nothing of pytest is needed."""
        with Simulation([naps]) as simulation:
            self.assertEqual(simulation.start(naps, 2).result(), 2)  # noqa: PT009
