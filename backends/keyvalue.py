"""The small base under every ordered store: a transaction with five methods.

A store that can do these five, and that hands out transactions which see one consistent state, gets everything else
from `dalsegno.backends.ordered.OrderedStore`. Keys are 1 to 500 bytes and sort as unsigned bytes; values are bytes of
any length, also empty ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class KeyValueTransaction(Protocol):
    """One consistent view of the store, and, in a write transaction, the changes to it.

    A transaction is used by one thread and ends with the `with` block it was begun in. Leaving the block without
    `commit` undoes every change. A write transaction sees its own changes.
    """

    def get(self, key: bytes, /) -> bytes | None:
        """The value under a key, as bytes that stay valid after the transaction, or None."""

    def put(self, key: bytes, value: bytes, /) -> object:
        """Store a value under a key, replacing what was there."""

    def delete(self, key: bytes, /) -> object:
        """Remove a key; removing one that is not there is fine."""

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys from `start` up to, but without, `stop`, with their values; from the last one down if `reverse`.

        The caller changes nothing while it iterates: it collects keys first and deletes them afterwards.
        """

    def commit(self) -> None:
        """Make all changes durable, all or nothing. Raises `StoreFull` (nothing applied) or `UnknownOutcome`."""
