"""What the harness has found in the engine, each with the shortest play that showed it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dalsegno import All, Checkpoint, Client, Engine, Flow, Receive, Retry, Status, Terminated, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.store import OnConflict
from dalsegno.testing.exploring import explore_crashes
from dalsegno.testing.faults import Call, Mischief
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.points import Pin, Pinned, parse_line
from dalsegno.testing.simulation import Simulation


@step(retry=Retry(max_attempts=3, initial=60, jitter=0))
def flaky(fails: int) -> int:
    """Fails as often as it is told to; the tests fake it."""
    raise NotImplementedError


@workflow
def tries() -> Flow[int]:
    """One step that needs several attempts."""
    return (yield from flaky(1))


@pytest.mark.parametrize("when", [30, 60, 65, 90])
def test_a_crash_in_the_second_attempt_does_not_lose_the_step(when: int):
    """The timer that began an attempt has left the store; if the process dies in that attempt, it is begun again."""
    attempts = []

    def fails_once(fails: int) -> int:
        attempts.append(fails)
        if len(attempts) == 1:
            raise ConnectionError("try again")
        return 5

    with Simulation([tries], fakes={flaky: fails_once}) as simulation:
        simulation.takes(flaky, lambda attempt: 0 if attempt == 1 else 10)
        run = simulation.start(tries)
        simulation.at(when, simulation.restart)
        assert run.result() == 5


class Failing(Mischief):
    """Fails the n-th call of one method."""

    def __init__(self, method: str, n: int) -> None:
        self.method, self.left = method, n

    def call(self, method: str, writes: bool) -> Call | None:
        self.left -= method == self.method
        return "error" if method == self.method and self.left == 0 else None


@pytest.mark.parametrize("n", range(1, 4))
def test_a_store_that_fails_while_a_run_is_terminated_only_delays_it(n: int):
    """Ending a run by force reads its history; when that fails, the run is not left hanging in mid-air."""
    mischief = Failing("history", n)
    with Simulation([tries], fakes={flaky: lambda fails: fails}, faults=mischief) as simulation:
        simulation.takes(flaky, 3600)
        run = simulation.start(tries)
        simulation.run(timeout=10)
        run.terminate("enough")
        with pytest.raises(Terminated):
            run.result(timeout=60)
        assert mischief.left <= 0 or n > 1


@workflow
def checked() -> Flow[str]:
    """Waits for nothing but a checkpoint."""
    yield from Checkpoint()
    return "durable"


@pytest.mark.parametrize("n", range(1, 5))
@pytest.mark.parametrize("way", ["crash-before", "crash-after"])
def test_a_crash_after_a_checkpoint_does_not_lose_the_run(n: int, way: str):
    """A run that waits only to be told that it is durable has work to do, and is picked up after a crash."""
    pins = Pinned([Pin(way, "store.commit", n)])  # type: ignore[arg-type]
    with Simulation([checked], faults=pins) as simulation:
        assert simulation.start(checked).result(timeout=60) == "durable"


@workflow
def at_once() -> Flow[int]:
    """Does one thing."""
    return (yield from flaky(0))


@pytest.mark.parametrize("on_conflict", ["attach", "reject"])
def test_a_start_whose_outcome_was_unknown_is_worked_on(on_conflict: OnConflict):
    """The run is there, and the second try of the same start finds its own run: it is taken on, and is no conflict."""
    pins = Pinned([Pin("error-after", "store.write", 1)])
    with Simulation([at_once], fakes={flaky: lambda fails: 5}, faults=pins) as simulation:
        run = simulation.start(at_once, id="one", on_conflict=on_conflict)
        assert run.result(timeout=60) == 5


def test_a_start_whose_outcome_was_unknown_is_worked_on_by_threads():
    """The same with an engine that has threads."""
    pins = Pinned([Pin("error-after", "store.write", 1)])
    store = FaultyStore(MemoryBackend(), pins)
    with Engine(store, workflows=[quick]) as engine:
        assert engine.start(quick, on_conflict="reject").result(timeout=10) == "quick"
    assert len(pins.struck) == 1


@step
def quickly() -> str:
    """Takes no time."""
    return "quick"


@workflow
def quick() -> Flow[str]:
    """Does one thing that takes no time."""
    return (yield from quickly())


@workflow
def waits_long() -> Flow[str]:
    """Waits for a word, for a month at most."""
    return (yield from Receive("word", str, timeout=timedelta(days=30)))


@pytest.mark.parametrize("method", ["news", "next_deadline_us"])
def test_news_that_could_not_be_read_is_read_with_the_next_tick(method: str):
    """A message from another process is not overlooked because the store failed as it was being looked for."""
    store = MemoryBackend()
    with Simulation([waits_long], store=store, faults=Failing(method, 10**9)) as simulation:
        run = simulation.start(waits_long, id="run")
        simulation.run(timeout=60)
        assert isinstance(simulation.faults, Failing)
        simulation.faults.left = 1
        Client(store).get("run").signal("word", "hello")
        simulation.run(timeout=60)
        assert run.status is Status.COMPLETED


@workflow
def family() -> Flow[list[str]]:
    """Starts children side by side."""
    return list((yield from All(quick(), quick())))


@pytest.mark.parametrize("lookup", ["store.history #1", "store.find #1", "store.find #2"])
def test_a_doubtful_commit_is_looked_up_until_the_store_says_what_is_there(lookup: str):
    """Children of a commit whose outcome was unknown are taken on, also when the first look at it fails."""
    line = f"error-after store.commit #1, then error-before {lookup}"
    report = explore_crashes(family, workflows=[quick], only=line, progress=False)
    assert report.tried == 1


def test_a_run_that_ended_in_a_doubtful_commit_wakes_who_waits_for_it():
    """The end is told to a thread that waits in `result`, though the commit and the first look at it failed."""
    pins = Pinned(parse_line("error-after store.commit #2, then error-before store.history #1"))
    with Engine(FaultyStore(MemoryBackend(), pins), workflows=[quick]) as engine:
        assert engine.start(quick).result(timeout=20) == "quick"
