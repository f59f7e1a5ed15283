"""Is this value plain, that is, does msgpack alone bring it back as it was?

This question is asked at every step, twice, so it is asked of whole containers at once: `SCALARS.issuperset(map(type,
items))` runs in C and stops at the first type that is not a scalar. Only exact types count: a subclass of `str` is not
plain, because it would come back as a `str`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from dalsegno.core.values.wire import DEPTH_MAX, SCALARS

LEVEL_MAX: Final = 1_000_000
"""Items in one level of nesting up to which the quick way is tried. More is either a large payload, for which the
careful walk costs little in comparison, or a value that contains itself and doubles at every level."""

_all_scalars = SCALARS.issuperset


def is_plain(value: object) -> bool:
    """Say whether msgpack brings `value` back equal in value and type. False means "look closer", never "impossible".

    >>> is_plain({"i": 1, "ok": True}), is_plain((1, 2)), is_plain({(1, 2): 3})
    (True, False, False)
    """
    kind = type(value)
    if kind in SCALARS:
        return True
    if kind is dict:
        if not _all_scalars(map(type, value)):  # type: ignore[call-overload]  # `kind` says it is a dict
            return False
        items: Iterable[Any] = value.values()  # type: ignore[attr-defined]
    elif kind is list:
        items = value  # type: ignore[assignment]
    else:
        return False
    return _all_scalars(map(type, items)) or _is_plain_below(items)


def _is_plain_below(items: Iterable[Any]) -> bool:
    """Go on level by level: no recursion, so neither depth nor a cycle can hurt."""
    for _ in range(DEPTH_MAX - 1):
        boxes = [item for item in items if type(item) not in SCALARS]
        if not boxes:
            return True
        below: list[Any] = []
        for box in boxes:
            if type(box) is dict:
                if not _all_scalars(map(type, box)):
                    return False
                below.extend(box.values())
            elif type(box) is list:
                below.extend(box)
            else:
                return False
        if len(below) > LEVEL_MAX:
            return False
        items = below
    return False
