"""The way back: msgpack, with a hook that restores extension records from the inside out.

Nothing in a payload is trusted. Whatever goes wrong on the way, in msgspec, in a constructor, in a hash function of a
user's class, ends as one `DecodeError`; the interpreter's own recursion limit bounds the depth, and msgspec allocates
no more than what the bytes at hand can fill.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dalsegno.core.errors import DecodeError
from dalsegno.core.values.carriers import BY_CODE
from dalsegno.core.values.classes import find


class Reader:
    """Reads payloads; `renamed` says under which names classes were stored that are called otherwise now."""

    def __init__(self, renamed: Mapping[str, type]) -> None:
        self._renamed = renamed
        self.unpack = msgspec.msgpack.Decoder(ext_hook=self._restore).decode

    def find(self, name: Any) -> type | None:
        """Find a class by its stored name; None when it is not here. Imports nothing."""
        return find(name, self._renamed)

    def _restore(self, code: int, data: memoryview) -> Any:
        carrier = BY_CODE.get(code)
        if carrier is None:
            raise unknown_code(code)
        return carrier.restore(self.unpack(data), self)


def unknown_code(code: int) -> DecodeError:
    """Make the error for an extension this version does not know."""
    return DecodeError(
        f"the payload has an extension record of kind {code}, which this version of dalsegno does not know. It was "
        "written by a later version, or it is damaged."
    )


def as_decode_error(error: Exception, data: Any) -> DecodeError:
    """Turn whatever reading raised into the one error the caller expects."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, DecodeError):  # msgspec may have wrapped ours
        seen = seen.__cause__
    if isinstance(seen, DecodeError):
        return seen
    if isinstance(error, RecursionError):
        return DecodeError(
            "the payload is nested deeper than Python's recursion limit allows; it is damaged or hostile"
        )
    if isinstance(error, TypeError) and not isinstance(data, (bytes, bytearray, memoryview)):
        return DecodeError(f"a payload is bytes, not {type(data).__name__}")
    return DecodeError(f"the payload ({len(data)} bytes) cannot be read: {type(error).__name__}: {error}")
