"""What the ordered stores do for queues besides the contract: how much they read, and which releases may open them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from dalsegno.backends import layout
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.errors import StoreUnusable
from dalsegno.core.queues import Place, Queue, Rate
from dalsegno.core.store import Backend
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.run_promises import apply, begin, step
from dalsegno.testing.task_promises import answer, put, take, task


class Counted:
    """A transaction that counts what it is asked."""

    def __init__(self, txn: KeyValueTransaction, store: CountingStore) -> None:
        self._store = store
        self.put, self.delete, self.commit, self._get, self._scan = txn.put, txn.delete, txn.commit, txn.get, txn.scan

    def get(self, key: bytes) -> bytes | None:
        self._store.read += 1
        return self._get(key)

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        for item in self._scan(start, stop, reverse):
            self._store.read += 1
            yield item


class CountingStore(MemoryBackend):
    """A store that counts the records it reads."""

    read = 0

    @contextmanager
    def begin(self, write: bool) -> Iterator[KeyValueTransaction]:
        with super().begin(write) as txn:
            yield Counted(txn, self)

    def cost(self, act: Any) -> int:
        """How many records are read for something."""
        before = self.read
        act()
        return self.read - before


def full(many: int, **limits: Any) -> CountingStore:
    """A store in which so many tasks wait, of ten keys."""
    store = CountingStore.open()
    store.declare([Queue("q", **limits)])
    run = begin(store)
    put(store, run, *(task(str(n), key=str(n % 10)) for n in range(many)))
    return store


@pytest.mark.parametrize("limits", [{}, {"per_key": 2}, {"concurrency": 40, "rate": Rate(count=99)}], ids=str)
def test_taking_and_answering_reads_what_it_takes(limits: dict[str, Any]):
    """Not what waits: among fifty tasks or two thousand the same is read for ten of them, and for asking in vain."""
    costs = []
    for many in (50, 2000):
        with full(many, **limits) as store:
            first = store.cost(lambda store=store: store.take(["q"], "w", 10, 10))
            taken = store.take(["q"], "w", 10, 10)
            rest = store.cost(lambda store=store, taken=taken: [answer(store, one) for one in taken])
            vain = store.cost(lambda store=store: store.take(["other"], "w", 10, 10))
            costs.append((first, rest, vain))
    assert costs[0] == costs[1]


def format_of(store: MemoryBackend) -> int:
    """The format number that stands in a store."""
    with store.begin(False) as txn:
        record = txn.get(layout.FORMAT_KEY)
    assert record is not None
    found: int = msgspec.msgpack.decode(record[:-4])[0]
    return found


def declares(store: MemoryBackend) -> None:
    store.declare([Queue("q")])


def notes(store: MemoryBackend) -> None:
    assert store.note(1, 1, {"1": b"half"})


def puts_a_task(store: MemoryBackend) -> None:
    (run,) = store.look_up([1])
    apply(store, step(run, 1, tasks=(task(),)))


def creates_a_waiting_run(store: MemoryBackend) -> None:
    begin(store, "two", place=Place(queue="q"))


@pytest.mark.parametrize("act", [declares, notes, puts_a_task, creates_a_waiting_run])
def test_the_first_of_queues_shuts_out_releases_without_them(act: Any, monkeypatch: pytest.MonkeyPatch):
    """A store in which no queue was ever used opens with releases before them; from the first use on it does not, for
    they would leave the tasks lying and let the runs begin."""
    with MemoryBackend.open() as store:
        begin(store)
        assert (take(store), store.queues()) == ([], [])
        assert format_of(store) == layout.FORMAT_WITHOUT_QUEUES == 1
        act(store)
        assert format_of(store) == layout.FORMAT == 2
        assert store.check() == []
        store.another()
        monkeypatch.setattr(layout, "FORMAT", layout.FORMAT_WITHOUT_QUEUES)
        with pytest.raises(StoreUnusable, match="has format 2, and this release of dalsegno reads formats up to 1"):
            store.another()


def test_taking_in_vain_writes_nothing():
    """Nor does giving nothing back, declaring what holds, or holding a store of which nobody had a task."""
    with full(3, concurrency=1) as store:
        assert take(store) == ["0"]
        changes = store.changes()
        assert (take(store), take(store, queues=["r"]), store.admit(["q"], 9, 10)) == ([], [], [])
        store.give_back([], "w")
        store.declare([Queue("q", concurrency=1)])
        store.hold("w")
        assert store.changes() == changes


def test_taking_leaves_what_is_known_of_runs():
    """A run's next step is put without looking anything up, also when tasks were taken in between."""
    with full(20) as store:
        (run,) = store.look_up([1])
        apply(store, step(run, 1, b"one"))
        assert len(take(store, 5)) == 5
        assert store.cost(lambda: apply(store, step(run, 2, b"two"))) == 0


def test_a_faulty_store_passes_queues_through():
    """Each call reaches the store inside, and answers what it does."""
    with MemoryBackend.open() as inner:
        store: Backend = FaultyStore(inner)
        run = begin(store)
        store.declare([Queue("q")])
        put(store, run, task("1"), task("2"))
        one, two = store.take(["q"], "w", 2, 10, ["pay"])
        assert store.beat("w", {one.number: b"half"}) == [one.number, two.number]
        assert store.note(run.number, run.epoch, {"2": b"x"})
        assert store.notes(run.number) == inner.notes(run.number) == {"1": b"half", "2": b"x"}
        store.give_back([(two.number, two.claim)], "w")
        waiting = begin(store, "two", place=Place(queue="q"))
        assert store.admit(["q"], 1, 10) == [waiting.number]
        assert store.queues() == inner.queues() != store.queues(ages=False) == inner.queues(ages=False)
        assert store.tasks_of(run.number) == inner.tasks_of(run.number)
