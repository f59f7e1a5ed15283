"""The careful way to bytes: walk a value and replace what msgpack would lose by extension records.

A walk knows how deep it is and how many items it may still visit, so that a value which contains itself, or one whose
shared parts would unfold without end, is refused with a reason, and never ends in a `RecursionError` or in swap space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Raw

from dalsegno.core.values import wire
from dalsegno.core.values.carriers import carrier_of, lower_big, lower_text
from dalsegno.core.values.refusal import Refusal, short_repr
from dalsegno.core.values.wire import DEPTH_MAX, SCALARS, Ext, pack

_AS_THEY_ARE = frozenset({type(None), bool, float, bytes})
_all_scalars = SCALARS.issuperset


class Walk:
    """One walk over one value. `lower` gives back what `pack` then writes."""

    __slots__ = ("account", "depth", "items_max", "left")

    def __init__(self, items_max: int) -> None:
        self.depth = 0
        self.items_max = items_max
        self.left = items_max  # every item costs a byte or more, so more items than bytes can only be too large
        self.account: Any = None  # kept by `exceptions` while it writes an error

    def lower(self, value: Any) -> Any:
        """Give back a form of `value` that msgpack carries; `Refusal` when there is none."""
        kind = type(value)
        if kind in _AS_THEY_ARE:
            return value
        if kind is str:
            return value if value.isascii() else lower_text(value)
        if kind is int:
            return value if -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF else lower_big(value)
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise Refusal(
                f"it is nested more than {DEPTH_MAX} levels deep, more than can be read back within Python's recursion "
                "limit. Flatten it, or pass a list of nodes that refer to each other by id.",
                kind,
            )
        lowered: Any
        if kind is list:
            lowered = self.each(value)
        elif kind is dict:
            lowered = self.mapping(value)
        else:
            carrier = carrier_of(kind)
            lowered = Ext(carrier.code, pack(carrier.lower(value, self)))
        self.depth -= 1
        return lowered

    def each(self, items: Iterable[Any]) -> list[Any]:
        """Lower every item; its index is the step of the path."""
        lowered: list[Any] = []
        lower, add = self.lower, lowered.append
        for index, item in enumerate(items):
            try:
                add(lower(item))
            except Refusal as refusal:
                raise refusal.under(f"[{index}]", items) from None
        self._count(len(lowered))
        return lowered

    def mapping(self, value: Mapping[Any, Any]) -> Any:
        """Lower a dict: to a msgpack map where every key is a scalar, else to a list of keys and values in turn."""
        if _all_scalars(map(type, value)) and all(self.lower(key) is key for key in value):
            return self.named(value)
        return Ext(wire.MAP, pack(self.pairs(value)))

    def named(self, value: Mapping[Any, Any], step: str = "[{!r}]") -> dict[Any, Any]:
        """Lower the values of a mapping and leave its keys; `step` is how a path names one of them."""
        lowered: dict[Any, Any] = {}
        lower = self.lower
        for key, item in value.items():
            try:
                lowered[key] = lower(item)
            except Refusal as refusal:
                raise refusal.under(step.format(key), value) from None
        self._count(len(lowered))
        return lowered

    def pairs(self, value: Mapping[Any, Any]) -> list[Any]:
        """Lower keys and values to one list, `[key, value, key, value, ...]`, in the mapping's own order."""
        lowered: list[Any] = []
        for key, item in value.items():
            step = ".key({})"
            try:
                lowered.append(self.lower(key))
                step = "[{}]"
                lowered.append(self.lower(item))
            except Refusal as refusal:
                raise refusal.under(step.format(short_repr(key)), value) from None
        self._count(len(lowered))
        return lowered

    def sorted(self, members: Iterable[Any]) -> list[Any]:
        """Lower the members of a set in the order of their bytes, which is the same under any PYTHONHASHSEED."""
        packed: list[bytes] = []
        for member in members:
            try:
                packed.append(pack(self.lower(member)))
            except Refusal as refusal:
                raise refusal.under(f"{{{short_repr(member)}}}", members) from None
        self._count(len(packed))
        packed.sort()
        return [Raw(member) for member in packed]

    def _count(self, items: int) -> None:
        self.left -= items
        if self.left < 0:
            raise Refusal(
                f"it unfolds to more than {self.items_max} items, while a payload may have {self.items_max} bytes. A "
                "part that is shared is written once for every reference to it: pass ids instead, or keep it elsewhere."
            )
