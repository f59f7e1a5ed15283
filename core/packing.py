"""Packing: exported histories made small, and made readable again by what they begin with.

zstd where the package `zstandard` is installed (`pip install dalsegno[zstd]`), gzip otherwise, which every Python has.
(A history of 122 events, 26.9 kB: zstd 2.9 kB in 70 µs, gzip 3.3 kB in 140 µs.) A file says by its first bytes which it
is, so that a plain one, or one that somebody packed with the `gzip` or `zstd` command, is read too, whatever its name.
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any, Final

from dalsegno.core.errors import DataError

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
GZIP_MAGIC: Final = b"\x1f\x8b"
GZIP: Final = 31
"""zlib's word for a gzip header and the widest window."""

ZSTD_LEVEL: Final = 3
GZIP_LEVEL: Final = 6

UNPACKED_MAX: Final = 2 << 30
"""Bytes: no history comes near, and a file that was made to fill the memory of its reader stops here."""

PIECE: Final = 1 << 16
GZIP_PIECE: Final = 1 << 10
"""Bytes that are unpacked at a time: those of the piece in which something is wrong are lost. What is packed with gzip
goes in by pieces, and grows to a thousand times as much at most."""


def _zstandard() -> Any:
    """The package, or None where it is not installed."""
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        return None


def pack(data: bytes) -> tuple[str, bytes]:
    """The data packed, and what the file's name should end with."""
    zstandard = _zstandard()
    if zstandard is not None:
        packed: bytes = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(data)
        return ".zst", packed
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP)
    return ".gz", packer.compress(data) + packer.flush()


def unpack(data: bytes, name: str = "the file", most: int = UNPACKED_MAX) -> bytes:
    """What was packed; data that is not packed comes back as it is. Raises `DataError`, which says what to do.

    >>> unpack(pack(b"again and " * 1000)[1]) == b"again and " * 1000, unpack(b"plain")
    (True, b'plain')
    """
    unpacked, trouble = unpack_as_far(data, name, most)
    if trouble:
        raise DataError(f"{name} {trouble}. Copy it again.")
    return unpacked


def unpack_as_far(data: bytes, name: str = "the file", most: int = UNPACKED_MAX) -> tuple[bytes, str]:
    """The same for what may be cut short or damaged: what can be unpacked of it, and why there is no more ("" where
    nothing is known to be wrong; a file of zstd that ends too early does not say so). Raises `DataError` for what
    could be read elsewhere: without the package zstandard, or with more than `most` bytes of memory.

    >>> unpack_as_far(b"plain"), unpack_as_far(GZIP_MAGIC)
    ((b'plain', ''), (b'', 'was cut short'))
    """
    if data.startswith(ZSTD_MAGIC):
        return _unpack_zstd(data, name, most)
    return _unpack_gzip(data, name, most) if data.startswith(GZIP_MAGIC) else (data, "")


def _unpack_zstd(data: bytes, name: str, most: int) -> tuple[bytes, str]:
    zstandard = _zstandard()
    if zstandard is None:
        raise DataError(f"{name} is packed with zstd; to read it: pip install 'dalsegno[zstd]'")
    unpacked = bytearray()
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            while piece := reader.read(PIECE):
                unpacked += piece
                if len(unpacked) > most:
                    raise _too_large(name, most)
    except zstandard.ZstdError as error:
        return bytes(unpacked), f"cannot be unpacked: {error}"
    return bytes(unpacked), ""


def _unpack_gzip(data: bytes, name: str, most: int) -> tuple[bytes, str]:
    unpacked, unpacker = bytearray(), zlib.decompressobj(GZIP)
    try:
        for at in range(0, len(data), GZIP_PIECE):
            piece = data[at : at + GZIP_PIECE]
            while piece:
                if unpacker.eof:  # `cat a.gz b.gz` is a gzip file, too
                    unpacker = zlib.decompressobj(GZIP)
                unpacked += unpacker.decompress(piece)
                if len(unpacked) > most:
                    raise _too_large(name, most)
                piece = unpacker.unused_data
    except zlib.error as error:
        return bytes(unpacked), f"cannot be unpacked: {error}"
    return bytes(unpacked), "" if unpacker.eof else "was cut short"


def _too_large(name: str, most: int) -> DataError:
    return DataError(f"{name} unpacks to more than {most:,} bytes, which no history has")
