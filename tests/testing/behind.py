"""Records read and changed behind a store's back, as a bad disk or a later release would have left them."""

from __future__ import annotations

from typing import Any

from dalsegno.backends.ordered import OrderedStore


def keys_of(store: OrderedStore) -> list[bytes]:
    """Every key there is."""
    with store.begin(False) as txn:
        return [key for key, _ in txn.scan(b"\0", b"\xff" * 8)]


def rewrite(store: OrderedStore, key: bytes, change: Any) -> bytes:
    """Change the record under a key behind the store's back; answers what was there."""
    with store.begin(True) as txn:
        before = bytes(txn.get(key) or b"")
        txn.put(key, change(before))
        txn.commit()
    return before
