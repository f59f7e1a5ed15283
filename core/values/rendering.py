"""Payloads as JSON for people and tools. Needs none of the classes: a data class is shown by its name and fields.

What JSON has is shown as itself; everything else is an object with `"$type"` in it. The form is for reading. It is
unambiguous, but it is not read back: use `Codec.from_json` for values that come from outside.
"""

from __future__ import annotations

import math
from base64 import b64encode
from typing import Any

import msgspec

from dalsegno.core.values.carriers import BY_CODE
from dalsegno.core.values.exceptions import ErrorSummary, summarize
from dalsegno.core.values.reading import unknown_code
from dalsegno.core.values.wire import ERROR


class _Shown:
    """A part that is JSON already, so that what is around it does not walk it again."""

    __slots__ = ("node",)

    def __init__(self, node: object) -> None:
        self.node = node


def render(data: Any) -> object:
    """Give the JSON form of a payload without frame."""
    return _shown(_unpack(data))


def render_error(data: Any) -> ErrorSummary | None:
    """Give the summary of a payload that is an error; None when it is something else."""
    found: object = msgspec.msgpack.decode(data)
    if not isinstance(found, msgspec.msgpack.Ext) or found.code != ERROR:
        return None
    return summarize(_shown(_unpack(found.data)))


def _show(code: int, data: memoryview) -> _Shown:
    carrier = BY_CODE.get(code)
    if carrier is None:
        raise unknown_code(code)
    body = _unpack(data)
    return _Shown(carrier.show(body if carrier.is_leaf else _shown(body)))


_unpack = msgspec.msgpack.Decoder(ext_hook=_show).decode


def _shown(value: Any) -> Any:
    kind = type(value)
    if kind is _Shown:
        return value.node
    if kind is list:
        return [_shown(item) for item in value]
    if kind is dict:
        return _shown_dict(value)
    if kind is float and not math.isfinite(value):
        return {"$type": "float", "value": repr(value)}
    if kind is bytes:
        return _shown_bytes(value)
    return value


def _shown_dict(value: dict[Any, Any]) -> object:
    if all(type(key) is str for key in value) and "$type" not in value:
        return {key: _shown(item) for key, item in value.items()}
    return {"$type": "dict", "items": [[_shown(key), _shown(item)] for key, item in value.items()]}


def _shown_bytes(value: bytes) -> object:
    """Bytes as base64; those that are text are shown as text too, since most bytes people store are."""
    node: dict[str, object] = {"$type": "bytes", "base64": b64encode(value).decode()}
    if value.isascii() and (text := value.decode()).isprintable():
        node["text"] = text
    return node
