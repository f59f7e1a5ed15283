"""`check` finds what does not fit together in queues, and damage there stays where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from dalsegno.backends import layout
from dalsegno.backends.memory import MemoryBackend
from dalsegno.backends.queue_checking import KINDS
from dalsegno.backends.queue_records import LANE_BYTES, STEPS, decode_key, decode_queue, encode
from dalsegno.backends.records import seal
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.queues import Place, Queue
from dalsegno.core.store import Applied, Refusal, Refused, RunRecord, Status
from dalsegno.testing.run_promises import apply, begin, end, new_run, refused, step
from dalsegno.testing.task_promises import answer, outcome, put, task

NAMES = {
    layout.QUEUE: "queue",
    layout.QUEUE_KEY: "key of a queue",
    layout.LINE: "line of a queue",
    layout.BEHIND: "what stands behind a key",
    layout.ASIDE: "what stands aside",
    layout.TASK: "task",
    layout.TASK_OF: "task index",
    layout.OWNED: "task at work",
    layout.NOTES: "note",
    layout.PLACE: "place in a queue",
    layout.PLACE_DEDUP: "deduplication of places",
}


def full_store() -> MemoryBackend:
    """A store with something of every kind in its queues."""
    store = MemoryBackend.open()
    store.declare([Queue("q", per_key=2)])
    store.join("w", 1000, 1)
    run = begin(store)
    put(store, run, *(task(str(n), key="k") for n in range(4)), task("aside", not_before_us=99))
    put(store, run, task("line", key="other"))
    store.take(["q"], "w", 2, 10)
    apply(store, step(run, 1, tasks_dropped=("0",)))
    store.note(run.number, run.epoch, {"1": b"half"})
    for name in ("two", "three", "four"):
        begin(store, name, place=Place(queue="q", key=name, dedup=name))
    store.admit(["q"], 1, 10)
    return store


def keys_of(store: MemoryBackend) -> list[bytes]:
    """All keys of queues in it."""
    with store.begin(False) as txn:
        return [key for key, _ in txn.scan(b"\0", b"\xff") if key[:1] in KINDS]


def rewrite(store: MemoryBackend, key: bytes, value: bytes | None) -> None:
    """Put other bytes under a key, or delete it."""
    with store.begin(True) as txn:
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)
        txn.commit()


def flip(store: MemoryBackend, key: bytes) -> None:
    """Damage the record under a key."""
    with store.begin(False) as txn:
        record = txn.get(key)
    assert record is not None
    rewrite(store, key, record[:-1] + bytes((record[-1] ^ 1,)))


def test_there_is_something_of_every_kind():
    """And all of it fits together."""
    with full_store() as store:
        assert {key[:1] for key in keys_of(store)} == set(KINDS) == set(NAMES)
        assert store.check() == []


def test_queues_that_were_used_fit_together():
    """When all has ended nothing is left but the queues themselves."""
    with full_store() as store:
        run = store.find("order-1")
        assert run is not None
        owned = [one for one in store.tasks_of(run.number) if one.owner]
        cancelled = [answer(store, one) for one in owned]
        assert len(cancelled) == 1
        inbox = store.inbox(run.number)
        assert store.leave("w")
        apply(store, end(run, seen=inbox[-1].seq))
        for name in ("two", "three", "four"):
            found = store.find(name)
            assert found is not None
            store.admit(["q"], 9, 10)
            (claimed,) = store.claim([found.number], "here")
            apply(store, end(claimed, seen=2**40))
        assert store.check() == []
        assert {key[:1] for key in keys_of(store)} == {layout.QUEUE}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: NAMES[kind].replace(" ", "-"))
def test_damage_is_named_and_holds_up_nobody(kind: bytes):
    """A record of a queue that does not carry its checksum is named; whatever else is asked of the store goes on."""
    for at in range(sum(key[:1] == kind for key in keys_of(full_store()))):
        with full_store() as store:
            key = [key for key in keys_of(store) if key[:1] == kind][at]
            flip(store, key)
            problems = store.check()
            assert len(problems) == 1, problems
            assert (problems[0].key.startswith(NAMES[kind]), "checksum" in problems[0].what) == (True, True)
            other = begin(store, "other")
            use(store, other)


def use(store: MemoryBackend, other: RunRecord) -> None:
    """Do with a store all that can be done; only what is asked for what is damaged may say so."""
    run = store.find("order-1")
    assert run is not None
    verdicts = store.commit([step(run, 1, tasks=(task("new", key="k"),)), step(other, 1, b"e")])
    assert isinstance(verdicts[1], Applied)
    assert isinstance(verdicts[0], Applied) or verdicts[0].why is Refusal.GONE
    store.queues()
    store.stats()
    taken = store.take(["q", "r"], "v", 9, 100)
    store.beat("w", {one.number: b"x" for one in taken})
    store.beat("v", {one.number: b"x" for one in taken})
    store.give_back([(one.number, one.claim) for one in taken[:1]], "v")
    store.send([outcome(one) for one in taken], 9)
    store.tasks_of(run.number)
    store.notes(run.number)
    store.admit(["q"], 9, 100)
    store.leave("w")
    for limits in (Queue("q"), Queue("q", per_key=1)):
        with suppress(StoreDamaged):
            store.declare([limits])
    with suppress(StoreDamaged):
        store.create([new_run("more", place=Place(queue="q", key="two", dedup="two"))])
    store.purge([found.number for found in closed(store)])


def closed(store: MemoryBackend) -> Iterator[RunRecord]:
    """All runs, closed."""
    for found in store.runs():
        for claimed in store.claim([found.number], "here"):
            store.commit([end(claimed, store.head(found.number), seen=2**40)])
    yield from store.runs(status=[Status.COMPLETED])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != layout.NOTES], ids=lambda kind: NAMES[kind])
def test_what_is_missing_is_found(kind: bytes):
    """Every record of queues has another that leads to it, or counts it. (A note stands for itself.)"""
    for key in [key for key in keys_of(full_store()) if key[:1] == kind]:
        with full_store() as store:
            rewrite(store, key, None)
            assert store.check() != [], key


@pytest.mark.parametrize("count", ["line", "behind", "aside", "at_work"])
def test_a_wrong_count_of_a_queue_is_found(count: str):
    """The counts are what is there."""
    with full_store() as store:
        key = next(key for key in keys_of(store) if key[:2] == layout.QUEUE + STEPS)
        with store.begin(False) as txn:
            row = decode_queue((txn.get(key) or b"")[:-4])
        there = getattr(row, count)
        setattr(row, count, there + 1)
        rewrite(store, key, seal(key, encode(row)))
        (problem,) = store.check()
        assert problem.what == f"counts {there + 1} {count.replace('_', ' ')}, and {there} are there"


def test_wrong_counts_and_leftovers_of_keys_are_found():
    """A key counts what is there of it, and is gone when nothing is."""
    with full_store() as store:
        key = next(key for key in keys_of(store) if key[:2] == layout.QUEUE_KEY + STEPS)
        with store.begin(False) as txn:
            row = decode_key((txn.get(key) or b"")[:-4])
        row.standing += 1
        rewrite(store, key, seal(key, encode(row)))
        gone = key[: 1 + LANE_BYTES] + b"\0" * 16
        rewrite(store, gone, seal(gone, encode([7, 0, 0, 0])))
        wrong = sorted(problem.what for problem in store.check())
        assert len(wrong) == 2
        assert "in line or at work, behind and aside" in wrong[0]
        assert wrong[1] == "is that of a key of which nothing is there"


def test_a_damaged_queue_takes_nothing_and_tells_its_own():
    """What is for it is refused by itself; a creation and a declaration say that it is damaged."""
    with full_store() as store:
        for key in [key for key in keys_of(store) if key[:1] == layout.QUEUE]:
            flip(store, key)
        run = store.find("order-1")
        assert run is not None
        why = refused(store, step(run, 1, tasks=(task("new"),)))
        assert why == Refused(Refusal.GONE, "the queue of a task is damaged; see: replay check")
        child = new_run("child", parent=("order-1", 1, "1"), place=Place(queue="q"))
        assert refused(store, step(run, 1, children=(child,))) == Refused(Refusal.CHILD, "child")
        assert (store.take(["q"], "v", 9, 10), store.admit(["q"], 9, 10), store.queues()) == ([], [], [])
        with pytest.raises(StoreDamaged, match="queue"):
            store.declare([Queue("q")])
        with pytest.raises(StoreDamaged, match="queue"):
            store.create([new_run("five", place=Place(queue="q"))])
        apply(store, step(run, 1, tasks=(task("new", queue="r"),)))
