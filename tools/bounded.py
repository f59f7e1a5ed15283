"""Values as a debugger shows them: what they say of themselves, bounded in length and depth, whatever they are.

A local variable may hold a list of a million rows, a class whose `__repr__` raises, or a text with escape sequences in
it. So containers are cut and say how many items they have in all (an item more is then seen as a change), data classes
are written field by field under the same bounds, a `__repr__` that fails is named instead of passed on, and addresses
are left out, since they differ from one replay to the next and mean nothing.

    >>> shown([0] * 1000)
    '[0, 0, 0, 0, 0, 0, … 1,000 in all]'
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import attrs

from dalsegno.tools.text import clean

ITEMS_MAX: Final = 6
DEPTH_MAX: Final = 4
TEXT_MAX: Final = 120
SHOWN_MAX: Final = 400

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def shown(value: object, limit: int = SHOWN_MAX) -> str:
    """A value in one line of printable text, at most `limit` characters of it."""
    return clean(_shown(value, DEPTH_MAX), limit)


def _shown(value: Any, depth: int) -> str:
    kind = type(value)
    try:
        if kind in (str, bytes, bytearray):
            return _text(value)
        if kind is int and value.bit_length() > 4 * TEXT_MAX:
            return f"(an integer of {value.bit_length():,} bits)"
        if kind in _BRACKETS:
            return _items(value, _BRACKETS[kind], depth)
        if kind is dict:
            return _mapping(value, depth)
        fields = _fields(value)
        if fields is not None:
            return _record(kind.__qualname__, fields, depth)
        return _ADDRESS.sub("", repr(value))
    except RecursionError:
        return f"({kind.__qualname__}, nested too deep)"
    except Exception as error:  # a class of the user's, whose own code runs here
        return f"({kind.__qualname__}, whose repr raises {type(error).__name__})"


def _text(value: Any) -> str:
    if len(value) <= TEXT_MAX:
        return repr(value)
    return f"{value[:TEXT_MAX]!r}… {len(value):,} in all"


def _items(value: Any, brackets: tuple[str, str], depth: int) -> str:
    opening, closing = brackets
    if not value:
        return f"{type(value).__name__}()" if isinstance(value, set | frozenset) else opening + closing
    if depth == 0:
        return f"{opening}… {len(value):,} in all{closing}"
    items: Iterable[Any] = value
    if isinstance(value, set | frozenset):
        items = _in_order(value)
    said = [_shown(item, depth - 1) for item in islice(items, ITEMS_MAX)]
    if len(value) > ITEMS_MAX:
        said.append(f"… {len(value):,} in all")
    comma = "," if type(value) is tuple and len(value) == 1 else ""
    return f"{opening}{', '.join(said)}{comma}{closing}"


def _in_order(value: Iterable[Any]) -> list[Any]:
    """A set in an order that does not change from one process to the next, where its items can be compared."""
    try:
        return sorted(value)
    except TypeError:
        return list(value)


def _mapping(value: Mapping[Any, Any], depth: int) -> str:
    if depth == 0 and value:
        return f"{{… {len(value):,} in all}}"
    said = [f"{_shown(key, depth - 1)}: {_shown(item, depth - 1)}" for key, item in islice(value.items(), ITEMS_MAX)]
    if len(value) > ITEMS_MAX:
        said.append(f"… {len(value):,} in all")
    return f"{{{', '.join(said)}}}"


def _fields(value: Any) -> list[tuple[str, Any]] | None:
    """The fields of a data class that shows them itself; None for anything else."""
    kind = type(value)
    if attrs.has(kind):
        names = [one.name for one in attrs.fields(kind) if one.repr]
    elif dataclasses.is_dataclass(kind):
        names = [one.name for one in dataclasses.fields(kind) if one.repr]
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        names = list(kind._fields)
    else:
        return None
    return [(name, getattr(value, name)) for name in names if hasattr(value, name)]


def _record(name: str, fields: list[tuple[str, Any]], depth: int) -> str:
    if depth == 0 and fields:
        return f"{name}(…)"
    said = [f"{field}={_shown(item, depth - 1)}" for field, item in fields[: 2 * ITEMS_MAX]]
    if len(fields) > len(said):
        said.append("…")
    return f"{name}({', '.join(said)})"
