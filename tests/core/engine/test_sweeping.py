"""Retention in an engine: when it deletes, what it waits for, and what is different afterwards."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dalsegno import (
    BadOption,
    Client,
    ContinueAsNew,
    Engine,
    Flow,
    Receive,
    Retention,
    Run,
    RunConflict,
    RunNotFound,
    Status,
    Worker,
    step,
    workflow,
)
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.archive import Archive
from dalsegno.core.engine import sweeping
from dalsegno.core.events import RunStarted
from dalsegno.core.store import Created, NewRun
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.histories import check_store
from dalsegno.testing.simulation import Simulation
from tests.core.bygone import NOW_US, bygone, left

WEEK = Retention()


@step
def add(number: int) -> int:
    """A step like any other."""
    if number < 0:
        raise ValueError("negative")
    return number + 1


@workflow
def adds(number: int) -> Flow[int]:
    """Adds one."""
    return (yield from add(number))


@workflow
def rounds(number: int) -> Flow[int]:
    """Continues as new at every word."""
    yield Receive("word")
    yield ContinueAsNew(number + 1)
    raise AssertionError


def every(simulation: Simulation, hours: int, count: int) -> None:
    """Have something happen so often, so that the clock stops there."""
    for at in range(1, count + 1):
        simulation.at(timedelta(hours=hours * at), lambda: None)


def ends_of(simulation: Simulation) -> dict[str, float]:
    """After how many days each run of the store was seen to be gone, going on to the end of the script."""
    gone: dict[str, float] = {}
    there = left(simulation.backend)

    def look() -> bool:
        for run_id in there - left(simulation.backend) - set(gone):
            gone[run_id] = simulation.elapsed / 86400
        return False

    simulation.run(look)
    return gone


def test_nothing_is_deleted_unless_it_was_asked_for():
    """Without a policy an engine keeps every run for ever."""
    with Simulation([adds]) as simulation:
        run = simulation.start(adds, 1)
        every(simulation, 24, 1000)
        simulation.run()
        assert simulation.elapsed == 1000 * 86400
        assert run.result() == 2


def test_runs_go_when_their_time_has_come():
    """What completed goes after a week and what failed after a month, each within two hours of its time."""
    with Simulation([adds], retention=WEEK) as simulation:
        simulation.start(adds, 1, id="done").result()
        with pytest.raises(ValueError, match="negative"):
            simulation.start(adds, -1, id="failed").result()
        every(simulation, 1, 24 * 32)
        gone = ends_of(simulation)
    assert gone == {"done#1": pytest.approx(7, abs=2 / 24), "failed#1": pytest.approx(30, abs=2 / 24)}


def test_restarts_change_nothing():
    """An engine that is killed every few hours sweeps all the same."""
    with Simulation([adds], retention=WEEK) as simulation:
        for n in range(30):
            simulation.start(adds, n, id=str(n)).result()
        for hour in range(0, 24 * 8, 5):
            simulation.at(timedelta(hours=hour, seconds=61), simulation.restart)
        every(simulation, 1, 24 * 8)
        simulation.run()
        assert left(simulation.backend) == set()


def test_a_run_that_is_gone(tmp_path: Path):
    """Its handle says that retention removed it, its id is free, and its history lies in the archive."""
    with Simulation([adds], retention=Retention(archive=tmp_path)) as simulation:
        run = simulation.start(adds, 1, id="a")
        assert run.result() == 2
        history = run.history()
        every(simulation, 1, 24 * 8)
        simulation.run()
        with pytest.raises(RunNotFound, match="retention removed it"):
            run.result()
        assert simulation.start(adds, 5, id="a").result() == 6
        assert simulation.get("a").run_id == "a#1"
    archive = Archive.open(str(tmp_path), lambda: 0)
    (entry,) = archive.find("a")
    assert list(archive.read(entry).events) == history


def test_archives_end_as_well(tmp_path: Path):
    """`archive_for` counts from the run's end, too, in days."""
    policy = Retention(archive=tmp_path, archive_for=timedelta(days=20))
    with Simulation([adds], retention=policy) as simulation:
        simulation.start(adds, 1, id="a").result()
        archive = Archive.open(str(tmp_path), lambda: 0)
        every(simulation, 12, 2 * 19)
        simulation.run()
        assert len(archive.entries()) == 1
        every(simulation, 12, 2 * 23)
        simulation.run()
        assert archive.entries() == []


def test_an_archive_that_fails_keeps_the_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """While the archive cannot be written nothing is deleted, and the log says so; afterwards all goes on."""
    place = tmp_path / "archive"
    place.write_text("in the way")
    caplog.set_level(logging.WARNING, "dalsegno.engine.retention")
    with Simulation([adds], retention=Retention(archive=place)) as simulation:
        assert "nothing will be deleted until this is mended" in caplog.text
        for n in range(3):
            simulation.start(adds, n, id=str(n)).result()
        every(simulation, 1, 24 * 8)
        simulation.run()
        assert "will be tried again: the archive" in caplog.text
        assert len(left(simulation.backend)) == 3
        place.unlink()
        every(simulation, 1, 24 * 9)
        simulation.run()
        assert left(simulation.backend) == set()
    assert len(Archive.open(str(place), lambda: 0).entries()) == 3


class Counting(MemoryBackend):
    """Counts the calls by which retention looks for candidates."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self.calls: Counter[str] = Counter()

    def runs(self, **options: Any) -> Any:
        self.calls["runs"] += 1
        return super().runs(**options)

    def find(self, *options: Any) -> Any:
        self.calls["find"] += 1
        return super().find(*options)


def test_a_calm_store_costs_a_few_looks_an_hour():
    """In a store whose runs are all young, a day's passes ask some dozens of questions, however many runs there are."""
    store = Counting()
    with Simulation([adds], store=store, retention=WEEK) as simulation:
        simulation.start_many(adds, [(f"run-{n}", (n,)) for n in range(1000)])
        simulation.run()
        every(simulation, 1, 2)
        simulation.run()  # the first pass is a thorough one
        store.calls.clear()
        simulation.at(timedelta(hours=22), lambda: None)
        simulation.run(timeout=20 * 3600)
        for _ in range(20_000):
            simulation.works.tick()
    assert 0 < store.calls["runs"] < 60
    assert store.calls["find"] == 0


def test_short_times_are_looked_at_more_often():
    """A policy of an hour is kept to minutes, one of no time at all to a minute."""
    for kept, within in ((3600, 300), (0, 130)):
        with Simulation([adds], retention=Retention(completed=kept)) as simulation:
            simulation.start(adds, 1, id="a").result()
            for minute in range(1, 80):
                simulation.at(60 * minute, lambda: None)
            assert ends_of(simulation)["a#1"] * 86400 == pytest.approx(kept + within / 2, abs=within / 2)


# --- what starting does afterwards ---------------------------------------------------------------------------------


def test_a_chain_goes_on_without_its_beginning():
    """Whoever starts a run again that continued as new long ago is attached to it, though nobody can tell any more what
    it was started with; another workflow is a conflict as ever."""
    policy = Retention(continued=timedelta(days=2))
    with Simulation([rounds, adds], retention=policy) as simulation:
        run = simulation.start(rounds, 0, id="for-ever")
        for day in range(10):
            simulation.at(timedelta(days=day), lambda: run.signal("word"))
        every(simulation, 6, 4 * 10)
        simulation.run()
        assert left(simulation.backend) == {"for-ever#10", "for-ever#11"}
        assert check_store(simulation.backend) == []
        assert simulation.start(rounds, 0, id="for-ever").run_id == "for-ever#11"
        with pytest.raises(RunConflict, match="another workflow"):
            simulation.start(adds, 0, id="for-ever")


def test_a_restart_is_no_chain():
    """A run that was started again has arguments of its own: other ones are a conflict, whatever went before it."""
    policy = Retention(completed=timedelta(days=1))
    with Simulation([adds], retention=policy) as simulation:
        simulation.start(adds, 1, id="a").result()
        every(simulation, 1, 20)
        simulation.run()
        simulation.start(adds, 2, id="a", on_conflict="restart_closed").result()
        every(simulation, 1, 40)
        simulation.run()
        assert left(simulation.backend) == {"a#2"}
        with pytest.raises(RunConflict, match="other arguments"):
            simulation.start(adds, 1, id="a")


def test_a_restart_that_meets_a_deletion_keeps_its_number():
    """If the run that is restarted is deleted in that very moment, the new one is called as its history says."""

    class Busy(MemoryBackend):
        def write(self, creations: Sequence[NewRun], *rest: Any) -> Any:
            if any(new.on_conflict == "restart_closed" for new in creations):
                self.purge([record.number for record in self.runs()])
            return super().write(creations, *rest)

        def create(self, runs: Sequence[NewRun]) -> list[Created]:
            return self.write(runs, (), (), 0)[0]  # type: ignore[no-any-return]

    with Simulation([adds], store=Busy()) as simulation:
        simulation.start(adds, 1, id="a").result()
        run = simulation.start(adds, 2, id="a", on_conflict="restart_closed")
        first = run.history()[0]
        assert isinstance(first, RunStarted)
        assert (run.run_id, first.generation, run.result()) == ("a#2", 2, 3)


# --- with threads --------------------------------------------------------------------------------------------------


def until_gone(run: Run[Any]) -> None:
    """Look until the run is deleted."""
    while True:
        try:
            assert run.status is Status.COMPLETED
        except RunNotFound:
            return


def test_an_engine_sweeps_in_the_background(tmp_path: Path):
    """A real engine deletes and archives on a thread of its own, which is gone when there is no more to do."""
    clock, seen = VirtualClock(), list[str]()
    policy = Retention(archive=lambda run_id, data: seen.append(threading.current_thread().name))
    with Engine(f"lmdb:{tmp_path}/store", workflows=[adds], clock=clock, retention=policy) as engine:
        runs = [engine.start(adds, n) for n in range(150)]
        for run in runs:
            run.result(timeout=20)
        clock.advance(timedelta(days=8))
        for run in runs:
            until_gone(run)
        while any(thread.name == "dalsegno-retention" for thread in threading.enumerate()):
            pass
        assert engine.start(adds, 1).result(timeout=20) == 2
    assert seen == ["dalsegno-retention"] * 150


def test_a_worker_sweeps_as_an_engine_does(tmp_path: Path):
    """A worker with `retention` deletes what has closed, also what ran before it came; stopping it ends that."""
    url, clock = f"lmdb:{tmp_path}/store", VirtualClock()
    with Engine(url, workflows=[adds], clock=clock) as engine:
        assert engine.start(adds, 1, id="a").result(timeout=20) == 2
    clock.advance(timedelta(days=8))
    with Worker(url, workflows=[adds], clock=clock, retention=WEEK), Client(url) as client:
        clock.advance(timedelta(hours=1))
        until_gone(client.get("a"))
    assert not any(thread.name == "dalsegno-retention" for thread in threading.enumerate())


def test_closing_does_not_wait_for_an_archive_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An engine closes while an archive does not answer; when it does after all, the run is still in the store."""
    monkeypatch.setattr(sweeping, "STOP_S", 0.01)
    asked, answer, clock = threading.Event(), threading.Event(), VirtualClock()

    def archive(run_id: str, data: bytes) -> None:
        asked.set()
        assert answer.wait(60)

    url = f"lmdb:{tmp_path}/store"
    engine = Engine(url, workflows=[adds], clock=clock, retention=Retention(archive=archive))
    run = engine.start(adds, 1, id="a")
    run.result(timeout=20)
    clock.advance(timedelta(days=8))
    assert asked.wait(20)
    (sweep,) = (thread for thread in threading.enumerate() if thread.name == "dalsegno-retention")
    engine.close()
    answer.set()
    sweep.join(20)
    with Engine(url, workflows=[adds], clock=clock) as again:
        assert again.get("a").result(timeout=20) == 2


def test_a_place_that_cannot_be_served_is_refused_at_once(tmp_path: Path):
    """A URL that fsspec does not know stops the engine from opening, and its store is free for the next one."""
    url = f"lmdb:{tmp_path}/store"
    with pytest.raises(BadOption, match="names no place that fsspec knows"):
        Engine(url, workflows=[adds], retention=Retention(archive="nowhere://x"))
    with pytest.raises(BadOption, match="names no place that fsspec knows"):
        Worker(url, workflows=[adds], retention=Retention(archive="nowhere://x"))
    with Engine(url, workflows=[adds]) as engine:
        assert engine.start(adds, 1).result(timeout=20) == 2


class Rests(threading.Event):
    """Counts how often somebody rests, who never has to."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.taken.append(timeout)
        return False


def aged(count: int) -> tuple[MemoryBackend, VirtualClock]:
    """A store with so many runs that are old enough to go, and a clock of their future."""
    store = MemoryBackend()
    store.create([bygone(f"run-{i}") for i in range(count)])
    return store, VirtualClock(NOW_US)


def test_a_pass_works_in_bouts(monkeypatch: pytest.MonkeyPatch):
    """A thread rests after some milliseconds of work, not after each run: where it has to wait for the interpreter lock
    after each rest, it would fall behind."""
    store, clock = aged(1000)
    rests = Rests()
    monkeypatch.setattr(sweeping, "BOUT_S", 0.001)
    sweeper = sweeping.BackgroundSweeper(store, clock, WEEK)
    monkeypatch.setattr(sweeper, "_stopping", rests)
    clock.advance(61)
    sweeper.tick(full=False)
    assert sweeper._thread is not None
    sweeper._thread.join()
    assert left(store) == set()
    assert 0 < len(rests.taken) < 500
    assert min(rests.taken) >= 4 * 0.001  # four times what it has used


def sweeps(sweeper: sweeping.Sweeper) -> bool:
    """Let it begin or go on by a portion; whether a pass is under way then."""
    sweeper.tick(full=False)
    return sweeper.sweeping


def test_a_pass_that_is_late_is_followed_at_once():
    """The next pass is due an hour after the last one began; one that took two hours is followed by it at once."""
    store, clock = aged(300)
    sweeper = sweeping.Sweeper(store, clock, WEEK)
    clock.advance(61)
    for at, took_s in enumerate((7200, 600)):
        assert sweeps(sweeper)
        clock.advance(took_s)
        while sweeps(sweeper):
            pass
        store.create([bygone(f"another-{at}-{i}") for i in range(300)])
        assert not sweeps(sweeper) or took_s == 7200
    clock.advance(3000)
    assert sweeps(sweeper)
