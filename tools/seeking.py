"""Going through a walk by what one looks for: the next event of a kind or of a step, a line, a condition, a text.

Each function answers the number of an event to stand at, or None where there is none further on. `back` looks the other
way. A line is one that some fiber waits at, or that a generator further out has delegated from; it is written `17` for
the file one stands in, or `orders.py:17`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from dalsegno.core.errors import BadOption
from dalsegno.core.events import EVENTS
from dalsegno.core.values.codec import Codec
from dalsegno.tools.conditions import Condition
from dalsegno.tools.render import row_payload
from dalsegno.tools.text import clean
from dalsegno.tools.timeline import Row, Timeline, words
from dalsegno.tools.walking import Walk

KINDS = {cls.__name__: words(cls.__name__) for cls in EVENTS}


def kinds_like(text: str) -> frozenset[str]:
    """The events that `StepCompleted`, `step completed`, `completed` or `timer` mean. Raises `BadOption` for none."""
    wanted = text.strip().lower()
    exact = {name for name, said in KINDS.items() if wanted in (name.lower(), said)}
    found = exact or {name for name, said in KINDS.items() if wanted and (wanted in said or wanted in name.lower())}
    if not found:
        raise BadOption(f"no kind of event is called {clean(text, 40)!r}; there is {', '.join(sorted(KINDS))}")
    return frozenset(found)


def to_kind(walk: Walk, line: Timeline, at: int, kind: str, back: bool = False) -> int | None:
    """The next event of a kind."""
    kinds = kinds_like(kind)
    return _row(walk, line, at, back, lambda row: row.event in kinds)


def to_name(walk: Walk, line: Timeline, at: int, name: str, back: bool = False) -> int | None:
    """The next event of the step, child, signal or change of this name."""
    return _row(walk, line, at, back, lambda row: name in (row.name, row.id))


def to_text(walk: Walk, line: Timeline, at: int, text: str, codec: Codec, back: bool = False) -> int | None:
    """The next event whose line in the timeline, payload included, holds a text."""
    wanted = text.casefold()
    return _row(walk, line, at, back, lambda row: wanted in _said(row, codec).casefold())


def _said(row: Row, codec: Codec) -> str:
    return f"{row.what} {row.event} {row.id} {row.name} {row_payload(row, codec, 10_000)}"


def _row(walk: Walk, line: Timeline, at: int, back: bool, wanted: Callable[[Row], bool]) -> int | None:
    return next(
        (index for index in _beyond(walk, at, back) if index < len(line.rows) and wanted(line.rows[index])), None
    )


def _beyond(walk: Walk, at: int, back: bool) -> Iterable[int]:
    return range(at - 1, -1, -1) if back else range(at + 1, walk.last + 1)


def to_condition(walk: Walk, at: int, text: str, back: bool = False) -> int | None:
    """Where a condition on local variables becomes true: it is true there, and not at the event before.

    Where it is true already, that is after it has been false again. Back is the last such event before this one.
    """
    condition = Condition(text)
    return _becomes(walk, at, back, lambda names: condition(names))


def _becomes(walk: Walk, at: int, back: bool, true_of: Callable[[dict[str, Any]], bool]) -> int | None:
    found: int | None = None
    was = False

    def seen(index: int, names: Any) -> bool:
        nonlocal was, found
        now = true_of(names)
        becomes = now and not was
        was = now
        if back:
            if becomes and index < at:
                found = index
            return index >= at - 1
        return becomes and index > at

    ended = walk.forward(0 if back else at, seen)
    return found if back else ended


def to_line(walk: Walk, at: int, place: str, back: bool = False) -> int | None:
    """The next event at which something stands at a line, having been elsewhere before."""
    matched = re.fullmatch(r"(?:(.+):)?(\d{1,7})", place.strip())
    if matched is None:
        raise BadOption(f"{clean(place, 60)!r} is no line; write 17 or orders.py:17")
    line, file = int(matched[2]), matched[1] or walk.at(at).file or walk.definition.fn.__code__.co_filename

    def stands(index: int) -> bool:
        levels = (level for stand in walk.at(index).root.all() for level in stand.levels)
        return any(level.line == line and f"/{level.file}".endswith(f"/{file}") for level in levels)

    was = stands(at)
    for index in _beyond(walk, at, back):
        now = stands(index)
        if now and not was:
            return index
        was = now
    return None
