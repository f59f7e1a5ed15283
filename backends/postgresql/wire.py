"""Values as PostgreSQL's binary protocol writes them.

Statements of this store are prepared once and called with parameters as bytes. A list of events goes out as one array,
which the server unfolds; written here with `struct`, a list of a thousand numbers takes some microseconds, where a
driver that asks each value for its type takes a millisecond.

PostgreSQL's texts hold every character but NUL, and no half of a surrogate pair, both of which Python's may: they are
written as U+001A ("substitute") and their code. What holds none of the three stands as it is.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain, repeat

INT8_MAX = 2**63 - 1
INT4_MAX = 2**31 - 1

_INT8 = struct.Struct(">q")
_INT4 = struct.Struct(">i")
_ARRAY = struct.Struct(">iiIii")  # dimensions, whether there are nulls, type of the elements, how many, from which
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)

_BOOL_OID, _BYTEA_OID, _INT8_OID, _INT4_OID, _TEXT_OID, _UUID_OID, _JSONB_OID = 16, 17, 20, 23, 25, 2950, 3802

int8 = _INT8.pack
int4 = _INT4.pack


def read_int8(data: bytes) -> int:
    value: int = _INT8.unpack(data)[0]
    return value


def read_int4(data: bytes) -> int:
    value: int = _INT4.unpack(data)[0]
    return value


def in_range(value: int) -> int:
    """A number of microseconds, with what lies beyond 292,000 years either way put at that edge."""
    return min(max(value, -INT8_MAX - 1), INT8_MAX)


# --- text ----------------------------------------------------------------------------------------------------------

_SPECIAL = re.compile("[\0\x1a\ud800-\udfff]")
_WRITTEN = re.compile("\x1a([0-9A-F]{4})")


def text(value: str) -> bytes:
    """A text of Python's as a text of PostgreSQL's."""
    try:
        data = value.encode()
        if b"\0" not in data and b"\x1a" not in data:
            return data
    except UnicodeEncodeError:
        pass
    return _SPECIAL.sub(lambda found: f"\x1a{ord(found[0]):04X}", value).encode()


def read_text(data: bytes) -> str:
    """The text that `text` wrote."""
    value = data.decode()
    return _WRITTEN.sub(lambda found: chr(int(found[1], 16)), value) if "\x1a" in value else value


def jsonb(value: Mapping[str, str]) -> bytes:
    """A mapping of texts as jsonb."""
    written = {text(key).decode(): text(one).decode() for key, one in value.items()}
    return b"\x01" + json.dumps(written, ensure_ascii=False).encode()


def read_jsonb(data: bytes) -> dict[str, str]:
    if data == b"\x01{}":
        return {}
    found: dict[str, str] = json.loads(data[1:])
    if b"\x1a" not in data and rb"\u001a" not in data:
        return found
    return {read_text(key.encode()): read_text(one.encode()) for key, one in found.items()}


def digest(value: str) -> bytes:
    """A text as 16 bytes, for an index: those of PostgreSQL take no keys of over 2,700 bytes."""
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).digest()


# --- arrays --------------------------------------------------------------------------------------------------------


def _array(oid: int, elements: Sequence[bytes]) -> bytes:
    count = len(elements)
    if not count:
        return _ARRAY.pack(0, 0, oid, 0, 0)[:12]
    lengths = map(_LENGTH.pack, map(len, elements))
    return _ARRAY.pack(1, 0, oid, count, 1) + b"".join(chain.from_iterable(zip(lengths, elements, strict=True)))


def _array_with_nulls(oid: int, elements: Sequence[bytes | None]) -> bytes:
    count = len(elements)
    if not count:
        return _array(oid, ())
    parts = (_NULL if one is None else _LENGTH.pack(len(one)) + one for one in elements)
    return _ARRAY.pack(1, 1, oid, count, 1) + b"".join(parts)


def _numbers(oid: int, size: int, code: str, values: Sequence[int]) -> bytes:
    count = len(values)
    if not count:
        return _array(oid, ())
    flat = chain.from_iterable(zip(repeat(size, count), values, strict=True))
    return _ARRAY.pack(1, 0, oid, count, 1) + struct.pack(">" + code * count, *flat)


def int8s(values: Sequence[int]) -> bytes:
    return _numbers(_INT8_OID, 8, "iq", values)


def int4s(values: Sequence[int]) -> bytes:
    return _numbers(_INT4_OID, 4, "ii", values)


def optional_int8s(values: Iterable[int | None]) -> bytes:
    return _array_with_nulls(_INT8_OID, [None if value is None else int8(value) for value in values])


def optional_int4s(values: Iterable[int | None]) -> bytes:
    return _array_with_nulls(_INT4_OID, [None if value is None else int4(value) for value in values])


def bools(values: Iterable[bool]) -> bytes:
    return _array(_BOOL_OID, [b"\x01" if value else b"\0" for value in values])


def byteas(values: Sequence[bytes]) -> bytes:
    return _array(_BYTEA_OID, values)


def texts(values: Iterable[str]) -> bytes:
    return _array(_TEXT_OID, [text(value) for value in values])


def optional_texts(values: Iterable[str | None]) -> bytes:
    return _array_with_nulls(_TEXT_OID, [None if value is None else text(value) for value in values])


def uuids(values: Sequence[bytes]) -> bytes:
    return _array(_UUID_OID, values)


def optional_uuids(values: Sequence[bytes | None]) -> bytes:
    return _array_with_nulls(_UUID_OID, values)


def jsonbs(values: Iterable[Mapping[str, str]]) -> bytes:
    return _array(_JSONB_OID, [jsonb(value) for value in values])
