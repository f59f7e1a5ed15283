"""A store in memory, for tests and for work that need not outlive its process.

It is the ordered layout over a dict, whose keys are kept sorted besides. A sorted list of all keys would cost time in
proportion to its length for each new one; here it is cut into pieces of some hundred keys, found by bisection in the
list of their first keys, so that a store of a million keys takes a few microseconds for each.

One lock guards it all: a transaction of either kind holds it from beginning to end. A write transaction changes the
dict at once and keeps what was there before; unless it commits, that is put back.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Self

from dalsegno.backends.heads import Heads
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.shareable import ShareableStore
from dalsegno.core.errors import BadOption, StoreInUse, StoreUnusable

PIECE_MAX = 1024  # keys; then a piece is halved. Moving 1,024 pointers takes well under a microsecond.


class _Table:
    """A dict whose keys can be walked in order."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.bytes = 0
        self.version = 0
        self.lock = threading.Lock()
        self.holder: object = None
        self.owner = ""
        self.joined: dict[str, weakref.ref[MemoryBackend]] = {}  # by which handle each engine came
        self._pieces: list[list[bytes]] = [[]]
        self._firsts: list[bytes] = [b""]  # a lower bound of each piece's keys, ascending

    def set(self, key: bytes, value: bytes | None) -> bytes | None:
        """Put a value, or remove it if None; answers what was there."""
        values = self.values
        before = values.get(key)
        if value is None:
            if before is not None:
                del values[key]
                self._remove(key)
        else:
            values[key] = value
            if before is None:
                self._insert(key)
        self.bytes += (len(key) + len(value) if value is not None else 0) - (
            len(key) + len(before) if before is not None else 0
        )
        return before

    def _insert(self, key: bytes) -> None:
        at = bisect_right(self._firsts, key) - 1
        piece = self._pieces[at]
        if not piece or key > piece[-1]:
            piece.append(key)
        else:
            piece.insert(bisect_left(piece, key), key)
        if len(piece) > PIECE_MAX:
            half = len(piece) // 2
            self._pieces.insert(at + 1, piece[half:])
            self._firsts.insert(at + 1, piece[half])
            del piece[half:]

    def _remove(self, key: bytes) -> None:
        at = bisect_right(self._firsts, key) - 1
        piece = self._pieces[at]
        del piece[bisect_left(piece, key)]
        if not piece and at:
            del self._pieces[at], self._firsts[at]

    def scan(self, start: bytes, stop: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        values = self.values
        low = bisect_right(self._firsts, start) - 1
        high = bisect_left(self._firsts, stop)
        pieces = self._pieces[max(low, 0) : high]
        for piece in reversed(pieces) if reverse else pieces:
            keys = piece[bisect_left(piece, start) : bisect_left(piece, stop)]
            for key in reversed(keys) if reverse else keys:
                yield key, values[key]


class _Transaction:
    """A transaction on a table; holds the table's lock from `__enter__` to `__exit__`."""

    def __init__(self, table: _Table, write: bool) -> None:
        self._table = table
        self._write = write
        self._before: dict[bytes, bytes | None] = {}
        self.get = table.values.get

    def __enter__(self) -> KeyValueTransaction:
        self._table.lock.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for key, value in self._before.items():
                self._table.set(key, value)
        finally:
            self._before = {}
            self._table.lock.release()

    def put(self, key: bytes, value: bytes) -> None:
        self._change(bytes(key), bytes(value))

    def delete(self, key: bytes) -> None:
        self._change(bytes(key), None)

    def _change(self, key: bytes, value: bytes | None) -> None:
        if not self._write:
            raise StoreUnusable("this transaction was begun for reading only")
        before = self._table.set(key, value)
        self._before.setdefault(key, before)

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._table.scan(start, stop, reverse)

    def commit(self) -> None:
        if self._before:
            self._table.version += 1
        self._before = {}


class MemoryBackend(ShareableStore):
    """A store in memory. Each one opened is empty and private; it is gone when nobody refers to it any more.

        >>> with MemoryBackend.open() as store:
        ...     store.head(1)
        0

    `another()` is a second handle on the same records, as another process would have on a store on disk.
    """

    survives_reopen: ClassVar[bool] = False
    shared: ClassVar[bool] = False

    def __init__(self, table: _Table | None = None) -> None:
        self._table = _Table() if table is None else table
        self._closed = False
        self.heads = Heads()
        self.prepare("memory")

    @classmethod
    def open(cls, location: str = "", **options: Any) -> Self:
        if location or options:
            given = location or ", ".join(options)
            raise BadOption(
                f"'memory:' takes no name and no options, and was given {given!r}: each one is its own store"
            )
        return cls()

    def another(self) -> Self:
        """A second handle on the same records. Closing one leaves the other open."""
        return type(self)(self._table)

    def close(self) -> None:
        self._closed = True
        with self._table.lock:
            if self._table.holder is self:
                self._table.holder = None

    def hold(self, owner: str) -> None:
        with self._table.lock:
            self._refuse_if_held()
            living = sorted(one for one in self._table.joined if self._is_open(one))
            if living:
                raise StoreInUse(
                    f"another engine in this process works on this store: {living[0]}. Close it first, or open this "
                    "one beside it, without alone=True.",
                    owner=living[0],
                )
            self._table.holder, self._table.owner = self, owner
        self.end_others(owner)

    def enter(self, owner: str) -> None:
        with self._table.lock:
            self._refuse_if_held()
            self._table.joined[owner] = weakref.ref(self)

    def depart(self, owner: str) -> None:
        with self._table.lock:
            self._table.joined.pop(owner, None)

    def has_ended(self, owner: str) -> bool:
        """Whether the handle by which he came is closed or gone."""
        return not self._is_open(owner)

    def _is_open(self, owner: str) -> bool:
        handle = self._table.joined.get(owner)
        store = None if handle is None else handle()
        return store is not None and not store._closed

    def _refuse_if_held(self) -> None:
        if self._table.holder not in (None, self):
            raise StoreInUse(
                f"another engine in this process works on this store: {self._table.owner}. Close it first.",
                owner=self._table.owner,
            )

    def begin(self, write: bool) -> AbstractContextManager[KeyValueTransaction]:
        if self._closed:
            raise StoreUnusable("this store was closed")
        return _Transaction(self._table, write)

    def changes(self) -> object:
        return self._table.version

    def serial(self, txn: KeyValueTransaction) -> int:
        return self._table.version

    def sizes(self) -> dict[str, int]:
        return {"events_bytes": self._table.bytes, "file_bytes": 0}
