"""The promises G11 and G14 where retention keeps them: it removes only closed trees, in bounded batches that may be cut
off anywhere, and it makes room in a store that is full. (The table of all promises stands in test_promises.py.)"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from dalsegno import (
    Cancelled,
    ContinueAsNew,
    Engine,
    Flow,
    Receive,
    Retention,
    Run,
    Sleep,
    Status,
    StoreFull,
    step,
    workflow,
)
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.memory import MemoryBackend
from dalsegno.backends.ordered import OrderedStore
from dalsegno.core.archive import Archive
from dalsegno.core.definitions import Definition
from dalsegno.core.folders import RemoteFolder
from dalsegno.core.store import Backend, RunRecord, open_store
from dalsegno.core.transfer import Exported, take
from dalsegno.testing.clock import EPOCH_US, VirtualClock
from dalsegno.testing.exploring import quiet
from dalsegno.testing.faults import Crash
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.histories import all_records, check_store
from dalsegno.testing.points import Pin, Pinned
from dalsegno.testing.simulation import Simulation
from tests.core.bygone import left

DAY_US = 86_400_000_000
PLACE = "memory://promises"
POLICY = Retention(archive=PLACE)
OPENED_US = EPOCH_US + 40 * DAY_US

Copy = Callable[[], "Watched"]


# --- a store with families of every kind ---------------------------------------------------------------------------


@workflow
def leaf(fails: bool = False) -> Flow[str]:
    """Ends at once."""
    yield Sleep(1)
    if fails:
        raise ValueError("a leaf fell")
    return "leaf"


@workflow
def waiter(word: str) -> Flow[str]:
    """Has a child that ends at once, and then waits for somebody."""
    yield from leaf()
    return (yield from Receive(word, str))


@workflow
def branch(depth: int, wait: str = "") -> Flow[str]:
    """A row of children, the last of which may wait."""
    if depth:
        return (yield from branch(depth - 1, wait))
    return (yield from (waiter(wait) if wait else leaf()))


@workflow
def leaver() -> Flow[str]:
    """Is terminated while it has a child that waits, and one that has ended."""
    yield from leaf()
    return (yield from waiter.options(on_parent_close="abandon", id="left-alone")("go"))


@workflow
def rounds(number: int, last: int) -> Flow[int]:
    """Has a child in every round, and continues as new until the last one, where it waits if that is below zero."""
    yield from leaf()
    if number == abs(last):
        if last < 0:
            yield from Receive("word", str)
        return number
    yield from ContinueAsNew(number + 1, last)
    raise AssertionError


WORKFLOWS: list[Definition] = [leaf, waiter, branch, leaver, rounds]

STAYS = {
    "waits": {"waits#1", "waits/1#1"},
    "deep": {"deep#1", "deep/1#1", "deep/1/1#1", "deep/1/1/1#1", "deep/1/1/1/1#1"},
    "leaves": {"leaves#1", "left-alone#1", "left-alone/1#1"},
    "eternal": {"eternal#1", "eternal#2", "eternal#3", "eternal~3/1#1"},
    "again": {"again#2"},
}
"""What retention may not touch, by the id of the family it belongs to."""


def plant(store: Backend) -> None:
    """Families of every kind: done, waiting above, waiting below, left behind, going on, failed and begun again."""
    clock = VirtualClock()
    with Simulation(WORKFLOWS, store=store, clock=clock) as simulation:
        start = simulation.start
        for n in range(3):
            start(branch, n, id=f"done-{n}")
        start(waiter, "never", id="waits")
        start(branch, 2, "never", id="deep")
        leaves = start(leaver, id="leaves")
        start(rounds, 1, 3, id="ended")
        start(rounds, 1, -3, id="eternal")
        start(leaf, True, id="failed")
        again = start(leaf, True, id="again")
        cancelled = start(waiter, "never", id="cancelled")
        simulation.run(timeout=60)
        cancelled.cancel()
        leaves.terminate()
        with pytest.raises(Cancelled):
            cancelled.result()
        assert again.status is Status.FAILED
        clock.advance(timedelta(days=15))
        start(leaf, True, id="again", on_conflict="restart_closed")
        simulation.run(timeout=60)


class Watched(FaultyStore):
    """Any store; looks at every deletion before it happens: what is deleted, and what is in the archive by then."""

    batch_max: ClassVar[int] = 100

    def purge(self, runs: Sequence[int]) -> int:
        there = {record.number: record for record in all_records(self)}
        places = {(r.workflow_id, r.generation): r for r in there.values()}
        going = [there[number] for number in runs if number in there]
        assert len(runs) <= self.batch_max
        for record in going:
            assert not record.status.open, f"{record.run_id} is open"
            above = record
            while above.parent and above.parent[:2] in places:
                above = places[above.parent[:2]]
                assert not above.status.open, f"{above.run_id} is open above {record.run_id}"
            for other in there.values():
                below = other.parent[:2] == (record.workflow_id, record.generation)
                before = other.workflow_id == record.workflow_id and other.generation < record.generation
                assert other in going or not (below or before), f"{record.run_id} goes before {other.run_id}"
            assert archived(record) == [take(self, record)], f"{record.run_id} is not archived"
        return super().purge(runs)


def archived(record: RunRecord) -> list[Exported]:
    """What the archive has of a run."""
    archive = Archive.open(PLACE, lambda: 0)
    found = [archive.read(entry) for entry in archive.find(record.workflow_id)]
    return [one for one in found if one.run.generation == record.generation]


@pytest.fixture(scope="module")
def planted() -> dict[bytes, bytes]:
    """The records of the store with the families, as they lie under their keys."""
    store = MemoryBackend()
    plant(store)
    with store.begin(False) as txn:
        return dict(txn.scan(b"\0", b"\xff" * 8))


@pytest.fixture(params=["memory", "lmdb", "postgresql"])
def copy(request: pytest.FixtureRequest, tmp_path: Path, planted: dict[bytes, bytes]) -> Iterator[Copy]:
    """Makes a store of one kind that holds the families; the archive is emptied each time."""
    kind, opened = request.param, list[Backend]()

    def make() -> Watched:
        if kind == "postgresql":
            opened.append(open_store(request.getfixturevalue("postgresql").schema()))
            plant(opened[-1])
        else:
            folder = str(tmp_path / f"store-{len(opened)}")
            opened.append(MemoryBackend() if kind == "memory" else LmdbBackend.open(folder, durability="relaxed"))
            copy_into(opened[-1], planted)
        empty_archive()
        return Watched(opened[-1])

    yield make
    empty_archive()
    for store in opened:
        store.close()


def copy_into(store: Backend, records: dict[bytes, bytes]) -> None:
    """Put records where they lay."""
    assert isinstance(store, OrderedStore)
    with store.begin(True) as txn:
        for key, value in records.items():
            txn.put(key, value)
        txn.commit()


def seldom(store: Watched) -> int:
    """How seldom something is tried on this kind of store, where each try takes longer than in memory."""
    return {MemoryBackend: 1, LmdbBackend: 3}.get(type(store.inner), 9)


def empty_archive() -> None:
    """Begin with no archive."""
    files = fsspec.filesystem("memory")
    if files.exists("/promises"):
        files.rm("/promises", recursive=True)


def sweep(store: Watched, pins: Sequence[Pin] = ()) -> Pinned:
    """Forty days after the beginning an engine with a policy works on the store for some hours."""
    faults = Pinned(pins)
    options: dict[str, Any] = {"retention": POLICY, "faults": faults, "clock": VirtualClock(OPENED_US)}
    with quiet(), Simulation(WORKFLOWS, store=store, **options) as simulation:
        for hour in range(5):
            simulation.at(timedelta(hours=hour, minutes=2), lambda: None)
        simulation.run()
        faults.heal()
    return faults


EXPECTED = set[str]().union(*STAYS.values())


class TestG14:
    """Retention removes only closed trees, in bounded, resumable batches."""

    def test_children_alive_and_parents_waiting(self, copy: Copy):
        """Everything that is done goes, archived; what waits stays with all above and below it, and can still end."""
        store = copy()
        before = {record.run_id: take(store, record) for record in all_records(store)}
        sweep(store)
        assert left(store) == EXPECTED
        assert check_store(store) == []
        archive = Archive.open(PLACE, lambda: 0)
        assert {one.run_id: one for one in map(archive.read, archive.entries())} == {
            run_id: one for run_id, one in before.items() if run_id not in EXPECTED
        }
        with Simulation(WORKFLOWS, store=store, clock=VirtualClock(OPENED_US)) as simulation:
            for id, word in (("waits", "never"), ("deep/1/1/1", "never"), ("left-alone", "go"), ("eternal", "word")):
                simulation.get(id).signal(word, "now")
            assert simulation.get("deep").result() == "now"
            assert simulation.get("eternal").result() == 3
            assert simulation.get("left-alone").result() == "now"

    def test_a_sweep_that_fails_or_dies_anywhere(self, copy: Copy):
        """At every call to the store that a sweep makes, it is told of an error, or the process dies: each deletion is
        looked at as it happens, and in the end the same runs are left. (Every seventh; at night, each.)"""
        store = copy()
        points = sweep(store).visits
        at_the_end = ("store.release", "store.leave")  # when all is healed
        pins = [pin for visit in points if visit.name not in at_the_end for pin in visit.pins()]
        assert len(pins) > 600
        assert {"store.purge", "store.history", "store.runs", "store.find"} <= {visit.name for visit in points}
        stride = 1 if os.environ.get("DALSEGNO_PROFILE") == "night" else 7
        for pin in [*pins[:: stride * seldom(store)], *(each for each in pins if each.name == "store.purge")]:
            store = copy()
            assert sweep(store, [pin]).struck, pin
            assert left(store) == EXPECTED, pin
            assert store.check() == [], pin

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_crash_between_archiving_and_deleting(self, copy: Copy, after: bool, monkeypatch: pytest.MonkeyPatch):
        """At every file that is written, the process dies before it or after it: nothing is deleted that is not in the
        archive, and nothing is in the archive twice."""
        write, written = RemoteFolder.write, 0

        def dies(self: RemoteFolder, name: str, data: bytes) -> None:
            nonlocal written
            written += 1
            if written == deadly and not after:
                raise Crash(f"before {name}")
            write(self, name, data)
            if written == deadly:
                raise Crash(f"after {name}")

        monkeypatch.setattr(RemoteFolder, "write", dies)
        for deadly in range(1, 100, seldom(copy())):
            written, store = 0, copy()
            count = len(left(store))
            sweep(store)
            assert left(store) == EXPECTED
            assert len(Archive.open(PLACE, lambda: 0).entries()) == count - len(EXPECTED)
            if written < deadly:
                break
        assert written == count - len(EXPECTED) < deadly

    def test_batches_are_small(self, copy: Copy, monkeypatch: pytest.MonkeyPatch):
        """However many runs a tree has, they go a few at a time, from below; a second engine finds nothing to do."""
        monkeypatch.setattr("dalsegno.core.retention.RUNS_A_BATCH", 3)
        monkeypatch.setattr(Watched, "batch_max", 3)
        store = copy()
        sweep(store)
        assert left(store) == EXPECTED
        assert not {"store.purge"} & {visit.name for visit in sweep(store).visits}


@step
def bulky(size: int) -> bytes:
    """Has a large result."""
    return bytes(size)


@workflow
def fills(size: int) -> Flow[int]:
    """Takes room."""
    return len((yield from bulky(size)))


class TestG11:
    """Disk full: accepted work is not lost, callers get `StoreFull`, reading goes on, retention can free space, and it
    resumes without a restart."""

    def test_retention_makes_room_in_a_full_store(self, tmp_path: Path):
        """Work comes until the store is full; days later the old runs go, and what was refused is taken."""
        store = LmdbBackend.open(str(tmp_path / "store"), durability="relaxed", quota=2_000_000)
        with store, Simulation([fills], store=store, retention=Retention(completed=timedelta(days=2))) as simulation:
            runs: list[Run[int]] = []

            def start_for_ever() -> None:
                while True:
                    runs.append(simulation.start(fills, 100_000))
                    runs[-1].result()

            with pytest.raises(StoreFull, match="retention"):
                start_for_ever()
            assert len(runs) > 10
            assert runs[0].result() == 100_000
            simulation.at(timedelta(days=2, hours=3), lambda: None)
            simulation.run()
            assert left(store) == set()
            assert simulation.start(fills, 100_000).result() == 100_000

    def test_a_full_store_does_not_wait_for_the_hour(self, tmp_path: Path):
        """A real engine that finds its store full looks at once for what may go, and work goes on by itself."""
        store = LmdbBackend.open(str(tmp_path / "store"), durability="relaxed", quota=2_000_000)
        with store, Engine(store, workflows=[fills], retention=Retention(completed=0)) as engine:
            refused = taken = 0
            while taken < 40:  # three times what there is room for
                try:
                    engine.start(fills, 100_000).result(timeout=30)
                    taken += 1
                except StoreFull:
                    refused += 1
            assert refused
            assert store.check() == []
