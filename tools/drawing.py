"""A history drawn on a terminal: an event a line, the last column to scale, like a Gantt chart.

    #  since start  what                 id  name    took  payload          0                  1.54 s
    1     +3.59 ms  step attempt failed  1   charge  3 ms  TimeoutError: …  ━━╌╌
    2     +9.13 ms  step completed       1   charge  3 ms  "receipt 7"          ━━
    3     +1.29 s   timer set            2   sleep                                ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌▸

A dot is a point in time, a bar has a length, and an arrow has not ended. What works is drawn heavy, what only waits is
drawn broken, what other commands lie inside of is drawn thin. Children that are shown stand below the event that
started them, on the same scale. Payloads get what the other columns leave; on a narrow terminal some of those make
room.

Lines are made of rich's segments rather than put into one of its tables, which takes half a millisecond a row:
histories of ten thousand events are not rare. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from dalsegno.core.values.codec import Codec
from dalsegno.tools.render import row_payload
from dalsegno.tools.text import clean, clock, duration
from dalsegno.tools.timeline import Kind, Mark, Row, Timeline, Unreadable, bar

COLUMNS: Final = ("#", "time", "since start", "what", "id", "name", "took", "tries")
RIGHT: Final = frozenset({"#", "since start", "took", "tries"})
SPARED: Final[tuple[tuple[str, ...], ...]] = ((), ("time",), ("time", "tries"), ("time", "tries", "took"))
"""What is left out, step by step, as a terminal gets narrower."""

GAP: Final = 2  # cells between two columns
INDENT: Final = "  "  # of a child's events
PAYLOAD_MIN: Final = 10
NAME_MIN: Final = 4
TEXT_MAX: Final = 24  # of an id or name
BAR_MIN, BAR_MAX = 10, 48

_MARKS: Final = {
    Mark.GOOD: Style.parse("green"),
    Mark.BAD: Style.parse("red"),
    Mark.WAIT: Style.parse("yellow"),
    Mark.PLAIN: Style.parse("cyan"),
}
_PLAIN, _HEAD, _ALARM = Style.null(), Style.parse("bold"), Style.parse("bold red")

Cell = tuple[str, Style]


@attrs.frozen
class Drawing:
    """A timeline to be printed; it takes the width of the console it is printed on."""

    line: Timeline
    codec: Codec
    unreadable: Unreadable | None = None
    children: Mapping[int, Drawing] = attrs.field(factory=dict)
    """What is drawn below the event of this index."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        rows = list(self._rows(0, self.line.started_us))
        layout = _Layout.of([cell for _, cell in rows], width)
        axis = "0" + duration(self.line.length_us).rjust(layout.bar - 1)
        head = {name: (name, _HEAD) for name in [*COLUMNS, "payload"]}
        yield from layout.drawn({**head, "bar": (axis, _HEAD)})
        yield Segment("─" * min(width, layout.width))
        yield Segment.line()
        for row, cell in rows:
            if row is not None:
                if layout.payload:
                    style = _ALARM if row.is_error else _PLAIN
                    cell["payload"] = (row_payload(row, self.codec, layout.payload), style)
                cell["bar"] = (drawn_bar(row, self.line, layout.bar), _MARKS[row.mark])
            yield from layout.drawn(cell)

    def _rows(self, depth: int, started_us: int) -> Iterator[tuple[Row | None, dict[str, Cell]]]:
        """The rows from top to bottom, those of children further in."""
        for row in (*self.line.rows, *self.line.pending):
            yield row, _cells(row, depth, started_us)
            if row.index in self.children:
                yield from self.children[row.index]._rows(depth + 1, started_us)
        if self.unreadable is not None:
            index = "" if self.unreadable.how == "doubtful" else str(self.unreadable.index)
            what = f"{INDENT * depth}{self.unreadable.mark}"
            yield None, {"#": (index, _PLAIN), "what": (what, _ALARM)}


@attrs.frozen
class _Layout:
    """Which columns are shown, and how wide each is. `payload` is 0 where there is no room for one."""

    widths: dict[str, int]
    payload: int
    bar: int

    @property
    def width(self) -> int:
        """The width of a line."""
        return sum(self.widths.values()) + GAP * (len(self.widths) - 1)

    @classmethod
    def of(cls, cells: Sequence[dict[str, Cell]], width: int) -> _Layout:
        needed = {name: max([len(name), *(cell_len(c[name][0]) for c in cells if name in c)]) for name in COLUMNS}
        # The bars take a quarter of the line, and less of it before a column that says something is left out.
        widest = max(BAR_MIN, min(BAR_MAX, width // 4))
        tried = any(c.get("tries", ("", _PLAIN))[0] for c in cells)
        ways = [(spared, widest) for spared in SPARED[: 2 if tried else 3]]
        ways += [(spared, BAR_MIN) for spared in SPARED[1 if tried else 2 :]]
        rooms = {spared: width - sum(needed[name] + GAP for name in COLUMNS if name not in spared) for spared in SPARED}
        payload = PAYLOAD_MIN + GAP
        fits = [(spared, least) for spared, least in ways if rooms[spared] >= least + payload]
        if not fits:  # without payloads, then
            payload = 0
            fits = [(spared, least) for spared, least in ways if rooms[spared] >= least]
        spared = fits[0][0] if fits else SPARED[-1]
        drawn = max(BAR_MIN, min(widest, rooms[spared] - payload))
        left = rooms[spared] - drawn
        widths = {name: needed[name] for name in COLUMNS if name not in spared}
        if left < 0:
            widths["name"] = max(widths["name"] + left, NAME_MIN)
        if payload:
            payload = widths["payload"] = left - GAP
        return cls(widths | {"bar": drawn}, payload, drawn)

    def drawn(self, cell: dict[str, Cell]) -> Iterator[Segment]:
        """The segments of one line."""
        between = ""
        for name, width in self.widths.items():
            text, style = cell.get(name, ("", _PLAIN))
            yield Segment(between + (text if name == "bar" else _fitted(text, width, name in RIGHT)), style)
            between = " " * GAP
        yield Segment.line()


def _fitted(text: str, width: int, right: bool) -> str:
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    room = " " * (width - length)
    return room + text if right else text + room


def _cells(row: Row, depth: int, started_us: int) -> dict[str, Cell]:
    return {
        "#": ("" if row.index < 0 else str(row.index), _PLAIN),
        "time": (clock(row.at_us)[11:], _PLAIN),
        "since start": (f"+{duration(row.at_us - started_us)}", _PLAIN),
        "what": (INDENT * depth + row.what, _MARKS[row.mark]),
        "id": (clean(row.id, TEXT_MAX), _PLAIN),
        "name": (clean(row.name, TEXT_MAX), _PLAIN),
        "took": ("" if row.took_us is None else duration(row.took_us), _PLAIN),
        "tries": (str(row.attempt) if row.attempt and row.attempt > 1 else "", _PLAIN),
    }


STROKES: Final = {Kind.WAIT: "╌", Kind.PAUSE: "╌", Kind.SCOPE: "─", Kind.RACE: "─"}
"""What bars are made of; anything else is drawn heavy. The wait for another attempt is drawn like other waits."""


def drawn_bar(row: Row, line: Timeline, width: int) -> str:
    """When and how long, in `width` cells. A point in time is a dot; what is still open ends in an arrow.

    >>> wait = Row(index=1, event="", what="", kind=Kind.WAIT, at_us=5, since_us=5, began_us=5, ended_us=None,
    ...            mark=Mark.WAIT)
    >>> drawn_bar(wait, Timeline(rows=(wait,), started_us=0, stopped_us=10), 10)
    '     ╌╌╌╌▸'
    """
    first, cells, is_open = bar(row.began_us, row.ended_us, line, width)
    drawn = " " * first + _stroke(STROKES.get(row.kind, "━"), cells, is_open)
    if row.ended_us == row.began_us:
        drawn = " " * first + "•"
    if row.backoff is not None:
        after, cells, is_open = bar(row.backoff.began_us, row.backoff.ended_us, line, width)
        drawn += _stroke(STROKES[Kind.WAIT], after + cells - len(drawn), is_open)
    return drawn


def _stroke(stroke: str, cells: int, is_open: bool) -> str:
    return stroke * (cells - 1) + ("▸" if is_open else stroke) if cells > 0 else ""
