"""The memory store keeps the contract, and is private, atomic and quick with many keys."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from dalsegno.backends.memory import PIECE_MAX, MemoryBackend
from dalsegno.core.errors import BadOption, StoreInUse, StoreUnusable
from dalsegno.core.store import NewRun, open_store
from dalsegno.testing.backend_contract import BackendContract
from dalsegno.testing.run_promises import begin, new_run, step


class TestMemory(BackendContract):
    """Every promise of the port, on memory."""

    @pytest.fixture(autouse=True)
    def _one_store(self):
        self.first: MemoryBackend | None = None

    def open_backend(self):
        store = MemoryBackend.open() if self.first is None else self.first.another()
        self.first = self.first or store
        return store

    def damage_event(self, store, run, index):
        table = store._table
        (key, value) = next(item for item in table.values.items() if item[0][:1] == b"z" and item[0][-1] == index)
        table.set(key, bytes([value[0] ^ 1]) + value[1:])


def test_each_memory_store_is_its_own():
    """Two stores opened by the same URL share nothing."""
    with open_store("memory:") as one, open_store("memory:") as two:
        begin(one)
        assert two.runs() == []


def test_a_memory_store_takes_no_name():
    """A name or an option, which would be ignored, is refused instead."""
    with pytest.raises(BadOption):
        open_store("memory:shared")
    with pytest.raises(BadOption):
        open_store("memory:", durability="full")


def test_another_handle_sees_the_same_records():
    """A second handle is like another process: same records, one engine between them, closed by itself."""
    with MemoryBackend.open() as one:
        two = one.another()
        run = begin(one)
        assert two.find("order-1") == run
        two.hold("two")
        with pytest.raises(StoreInUse, match="two"):
            one.hold("one")
        two.close()
        one.hold("one")
        assert one.history(run.number) == [b"started"]
        with pytest.raises(StoreUnusable):
            two.record(1)


def test_what_is_raised_inside_undoes_everything():
    """A transaction that does not come to its commit leaves the store as it was."""
    with MemoryBackend.open() as store:
        run = begin(store)
        before = dict(store._table.values), store.changes()
        broken = step(run, 1, b"fine", "not bytes", timers_set=((5, "t"),))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            store.write([new_run("other")], [broken], [], 1)
        assert (dict(store._table.values), store.changes()) == before
        assert store.check() == []
        assert [key for key, _ in store._table.scan(b"", b"\xff" * 9, False)] == sorted(before[0])


def test_the_caller_keeps_its_buffers():
    """What is stored is a copy: changing a buffer afterwards changes nothing."""
    with MemoryBackend.open() as store:
        event = bytearray(b"event")
        (created,) = store.create([NewRun(workflow_id="a", workflow="w", events=(event,), created_at_us=1, digest=b"")])  # type: ignore[arg-type]
        event[0] = 0
        assert store.history(created.record.number) == [b"event"]


def test_keys_stay_sorted_over_many_pieces():
    """However keys come and go, walking them forwards and backwards gives all of them in order."""
    choose = random.Random(7)
    with MemoryBackend.open() as store:
        with store.begin(True) as txn:
            keys = {choose.randbytes(3) for _ in range(10 * PIECE_MAX)}
            for key in keys:
                txn.put(b"y" + key, b"")
            gone = {key for key in keys if key[0] % 3}
            for key in gone:
                txn.delete(b"y" + key)
            txn.commit()
        with store.begin(False) as txn:
            left = sorted(b"y" + key for key in keys - gone)
            assert [key for key, _ in txn.scan(b"y", b"z")] == left
            assert [key for key, _ in txn.scan(b"y", b"z", reverse=True)] == left[::-1]
            for low, high in pairwise(sorted(choose.sample(left, 100))):
                assert [key for key, _ in txn.scan(low, high)] == [key for key in left if low <= key < high]
