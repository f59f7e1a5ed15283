"""Layers: what may be put around every payload, to compress or encrypt it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class PayloadLayer(Protocol):
    """One link of a codec chain: bytes to bytes and back.

    `decode(encode(data)) == data` has to hold. `decode` may raise anything for bytes it did not make; the codec turns
    that into a `DecodeError`. A layer that encrypts should authenticate as well, since payloads without any layer are
    read too (they may be older than the layer).
    """

    def encode(self, data: bytes, /) -> bytes:
        """Wrap a payload."""
        ...

    def decode(self, data: bytes, /) -> bytes:
        """Unwrap what `encode` gave."""
        ...
