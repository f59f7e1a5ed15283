"""Packed exports: what goes in comes out, by whatever it was packed, and what is wrong with a file is said."""

from __future__ import annotations

import gzip
import sys

import pytest
import zstandard

from dalsegno.core.errors import DataError
from dalsegno.core.packing import GZIP_MAGIC, ZSTD_MAGIC, pack, unpack

DATA = b'{"event": "StepCompleted"}\n' * 500


def test_packed_with_zstd():
    """Where zstandard is installed, zstd is what a file is packed with."""
    suffix, packed = pack(DATA)
    assert (suffix, packed[:4]) == (".zst", ZSTD_MAGIC)
    assert len(packed) < len(DATA) / 20
    assert unpack(packed) == DATA


def test_packed_with_gzip_where_zstd_is_missing(monkeypatch: pytest.MonkeyPatch):
    """Without the package, gzip is; what zstd packed is then refused with what to install."""
    _, with_zstd = pack(DATA)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    suffix, packed = pack(DATA)
    assert (suffix, packed[:2]) == (".gz", GZIP_MAGIC)
    assert unpack(packed) == gzip.decompress(packed) == DATA
    with pytest.raises(DataError, match=r"old.zst is packed with zstd.*pip install 'dalsegno\[zstd\]'"):
        unpack(with_zstd, "old.zst")


def test_what_others_packed():
    """Plain data, several gzip files in one and several zstd frames in one are read as the tools of the shell do."""
    assert unpack(DATA) == DATA
    assert unpack(b"") == b""
    assert unpack(gzip.compress(DATA[:100]) + gzip.compress(DATA[100:])) == DATA
    compress = zstandard.ZstdCompressor().compress
    assert unpack(compress(DATA[:100]) + compress(DATA[100:])) == DATA


@pytest.mark.parametrize("pack_with", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_no_damage_comes_through(pack_with: type[bytes]):
    """A flipped bit or a missing end is either said, or the data is as it was: never is something else read."""
    packed = pack_with(DATA)
    refused = 0
    for at in range(len(packed)):
        for wrong in (packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :], packed[:at]):
            try:
                found = unpack(wrong, "x")
            except DataError:
                refused += 1
            else:  # a beginning is told from the whole by the last line of an export
                assert found == wrong or DATA.startswith(found)
    assert refused > len(packed) / 2


def test_a_bomb_is_stopped():
    """A small file that unpacks to more than is allowed is refused before it has filled the memory."""
    zeros = bytes(1 << 22)
    for packed in (gzip.compress(zeros), zstandard.ZstdCompressor().compress(zeros)):
        assert unpack(packed, most=len(zeros)) == zeros
        with pytest.raises(DataError, match="more than 1,048,576 bytes"):
            unpack(packed, most=1 << 20)
