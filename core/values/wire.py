"""The wire form: msgpack, plus numbered extension records for what msgpack would lose.

A plain payload is msgpack and nothing else. Two kinds of payload carry a frame in front: one that went through layers,
and one that is "loose" (JSON from outside, to be structured when it is read). A frame starts with 0xC1, the one byte
that no msgpack value can start with, so plain payloads pay nothing for the existence of frames.

The numbers below are in stored histories. They are never given another meaning; new ones go at the end.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.msgpack import Ext

__all__ = ["DEPTH_MAX", "FRAME", "FRAME_LAYERED", "FRAME_LOOSE", "MAX_BYTES", "SCALARS", "Ext", "pack"]

FRAME: Final = b"\xc1"
FRAME_LAYERED: Final = b"\xc1L"
FRAME_LOOSE: Final = b"\xc1J"

MAX_BYTES: Final = 32 * 1024 * 1024
"""The default limit for one payload, 32 MiB: it takes LMDB a quarter of a second to commit one on an ordinary disk, and
that is how long every other run of the store then waits. (Restate lets a message have as much.)"""

DEPTH_MAX: Final = 100
"""How deep a value may be nested. Reading costs up to five interpreter frames a level, and Python allows 1000 in all,
of which the program around us needs its share. (Protobuf has the same limit; serde_json has 128.)"""

SCALARS: Final[frozenset[type]] = frozenset({type(None), bool, int, float, str, bytes})
"""Exact types msgpack carries faithfully: but for huge ints and lone surrogates, which the packer itself refuses."""

# Extension codes.
BIG_INT: Final = 1
SURROGATES: Final = 2
TUPLE: Final = 3
SET: Final = 4
FROZENSET: Final = 5
MAP: Final = 6
BYTEARRAY: Final = 7
DATETIME: Final = 8
DATE: Final = 9
TIME: Final = 10
TIMEDELTA: Final = 11
TIMEZONE: Final = 12
ZONEINFO: Final = 13
DECIMAL: Final = 14
UUID: Final = 15
COMPLEX: Final = 16
RANGE: Final = 17
PATH: Final = 18
RECORD: Final = 19
ENUM: Final = 20
ERROR: Final = 21
ORDERED_DICT: Final = 22
DEFAULT_DICT: Final = 23
COUNTER: Final = 24
DEQUE: Final = 25
MODEL: Final = 26

pack = msgspec.msgpack.Encoder().encode
