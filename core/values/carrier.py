"""One row of the table of extensions: see `carriers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import attrs


class Lowering(Protocol):
    """What a carrier may ask of the walk it is called from, for the values inside its own; see `lowering.Walk`."""

    depth: int
    account: Any

    def lower(self, value: Any) -> Any:
        """Lower one value."""
        ...

    def each(self, items: Iterable[Any]) -> list[Any]:
        """Lower every item."""
        ...

    def named(self, value: Mapping[Any, Any], step: str = ...) -> dict[Any, Any]:
        """Lower the values of a mapping, and leave its keys."""
        ...

    def pairs(self, value: Mapping[Any, Any]) -> list[Any]:
        """Lower keys and values to one list."""
        ...

    def sorted(self, members: Iterable[Any]) -> list[Any]:
        """Lower the members of a set, in an order that is the same in every process."""
        ...


class Restoring(Protocol):
    """What a carrier may ask of the reader it is called from; see `reading.Reader`."""

    def find(self, name: Any) -> type | None:
        """Find a class by its stored name, importing nothing."""
        ...


@attrs.frozen
class Carrier:
    """How values of one type travel: the code on the wire, the way out, the way back, and the look of it in JSON.

    A leaf holds no other values, and its body is given to `show` as it is; that of others has JSON forms inside.
    """

    code: int
    kind: type | None
    lower: Callable[[Any, Lowering], Any]
    restore: Callable[[Any, Restoring], Any]
    show: Callable[[Any], object]
    is_leaf: bool = False


def leaf(
    code: int,
    kind: type | None,
    lower: Callable[[Any], Any],
    restore: Callable[[Any], Any],
    show: Callable[[Any], object] | None = None,
) -> Carrier:
    """Make the row of a type that holds no other values; by default it is shown as the `str` of the value restored."""

    def show_restored(body: Any) -> object:
        value = restore(body)
        return show(value) if show else {"$type": type(value).__name__, "value": str(value)}

    return Carrier(code, kind, lambda value, _: lower(value), lambda body, _: restore(body), show_restored, True)
