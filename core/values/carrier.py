"""One row of the table of extensions: see `carriers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from dalsegno.core.values.lowering import Walk
    from dalsegno.core.values.reading import Reader


@attrs.frozen
class Carrier:
    """How values of one type travel: the code on the wire, the way out, the way back, and the look of it in JSON.

    A leaf holds no other values, and its body is given to `show` as it is; that of others has JSON forms inside.
    """

    code: int
    kind: type | None
    lower: Callable[[Any, Walk], Any]
    restore: Callable[[Any, Reader], Any]
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
