"""Compression of payloads with zstandard (`pip install dalsegno[zstd]`). Importing this module needs that package."""

from __future__ import annotations

from typing import Final

import attrs
import zstandard

SMALL: Final = 128
"""Bytes below which compressing gains nothing."""

_PLAIN, _PACKED = b"\x00", b"\x01"


@attrs.frozen
class Zstd:
    """Compresses payloads where that makes them smaller. Unpacks to at most `max_bytes`, whatever a frame claims.

    >>> layer = Zstd()
    >>> packed = layer.encode(b"again and " * 1000)
    >>> len(packed) < 100, layer.decode(packed) == b"again and " * 1000
    (True, True)
    """

    level: int = 3
    max_bytes: int = 256 * 1024 * 1024

    def encode(self, data: bytes, /) -> bytes:
        """Compress `data`, or keep it as it is where it is small or would grow."""
        if len(data) >= SMALL:
            packed = zstandard.ZstdCompressor(level=self.level).compress(data)
            if len(packed) < len(data):
                return _PACKED + packed
        return _PLAIN + data

    def decode(self, data: bytes, /) -> bytes:
        """Give back what was compressed. `ValueError` when it claims to be larger than `max_bytes`."""
        kind, body = data[:1], data[1:]
        if kind == _PLAIN:
            return body
        size = zstandard.get_frame_parameters(body).content_size
        if kind != _PACKED or not 0 <= size <= self.max_bytes:
            raise ValueError(f"not a compressed payload of at most {self.max_bytes} bytes")
        return zstandard.ZstdDecompressor().decompress(body)
