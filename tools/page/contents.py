"""A family of runs as the data of a page: runs, lanes and events, with everything said that is to be read there.

The page computes only where things lie; what they are called, and what of them is shown, is decided here. Times are
microseconds since the first run's start. Records are lists, in the order of the fields named in `FIELDS`, since a
history may have ten thousand of them; the page reads those names, too.

Every string has passed `clean`, so that no character of it can do anything on the page but be read.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final

from dalsegno.core.values.codec import Codec
from dalsegno.tools.family import Member
from dalsegno.tools.lanes import Lane, Span, lanes
from dalsegno.tools.page.payloads import Payloads
from dalsegno.tools.render import row_payload, summary
from dalsegno.tools.text import clean, clean_lines, iso
from dalsegno.tools.timeline import Row

NAME_MAX: Final = 200
SUMMARY_MAX: Final = 160
FACT_MAX: Final = 2_000
STATE_MAX: Final = 4_000
REASON_MAX: Final = 20_000

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "lane": ("depth", "kind", "name", "id", "run", "own", "mark", "line", "tries", "source", "note", "began", "ended",
             "summary", "spans", "points", "events"),
    "span": ("stretch", "began", "ended", "event", "due"),
    "point": ("at", "mark", "event"),
    "event": ("run", "index", "what", "mark", "at", "id", "attempt", "took", "error", "summary", "facts"),
}  # fmt: skip
"""The names of the parts of a record, by the sort of record."""

Data = dict[str, Any]


class Contents:
    """The data of one page. `data` is small and read at once; `payloads` yields one text for each event, in order."""

    def __init__(
        self, root: Member, codec: Codec, *, made_us: int, full: bool = False, around: int | None = None
    ) -> None:
        self._codec, self._full = codec, full
        self._runs, found = lanes(root)
        self._start = root.line.started_us
        self._first = [0]
        for member in self._runs:
            self._first.append(self._first[-1] + len(member.line.rows))
        stop = max([member.line.stopped_us for member in self._runs if member.line.rows], default=self._start)
        self.title = clean(f"{root.record.run_id} · {root.record.workflow}", NAME_MAX)
        self.data: Data = {
            "fields": FIELDS,
            "made": iso(made_us),
            "version": version("dalsegno"),
            "start": self._start,
            "stop": stop - self._start,
            "around": around,
            "runs": [self._run(place, member) for place, member in enumerate(self._runs)],
            "lanes": [self._lane(lane) for lane in found],
            "events": [self._event(place, row) for place, member in enumerate(self._runs) for row in member.line.rows],
        }

    def payloads(self) -> Iterator[list[str] | None]:
        """For each event the text it carries and what is missing of it, or None."""
        texts = Payloads(self._codec, self._full)
        for member in self._runs:
            for row in member.line.rows:
                shown = texts.shown(row)
                yield None if shown is None else [shown.text, shown.cut]

    # --- records ---------------------------------------------------------------------------------------------------

    def _run(self, place: int, member: Member) -> Data:
        record, rows = member.record, member.line.rows
        started = rows[0].facts if rows else {}
        unreadable = member.kept.unreadable
        return {
            "id": clean(record.run_id, NAME_MAX),
            "word": clean(shlex.quote(record.run_id), NAME_MAX),
            "workflow": clean(record.workflow, NAME_MAX),
            "status": record.status.value,
            "open": record.status.open,
            "reason": clean_lines(record.reason[:REASON_MAX]),
            "problem": clean_lines(member.problem[:REASON_MAX]),
            "began": member.line.started_us - self._start,
            "ended": None if record.status.open else member.line.stopped_us - self._start,
            "first": self._first[place],
            "events": len(member.kept.records),
            "unreadable": "" if unreadable is None else clean_lines(unreadable.sentence),
            "parent": clean(f"{record.parent[0]}#{record.parent[1]}", NAME_MAX) if record.parent else "",
            "origin": clean(started.get("origin", ""), NAME_MAX),
            "tags": [[clean(key, NAME_MAX), clean(value, NAME_MAX)] for key, value in record.tags.items()],
            "state": [
                [clean(key, NAME_MAX), summary(value, self._codec, limit=STATE_MAX)]
                for key, value in member.published.items()
            ],
        }

    def _lane(self, lane: Lane) -> list[Any]:
        started, span = self._start, self._span
        return [
            lane.depth,
            lane.kind,
            clean(lane.name, NAME_MAX),
            clean(lane.id, NAME_MAX),
            lane.run,
            lane.own,
            lane.mark.value,
            lane.line,
            lane.tries,
            clean(lane.source, NAME_MAX),
            clean(lane.note, FACT_MAX),
            lane.began_us - started,
            None if lane.ended_us is None else lane.ended_us - started,
            self._summary_of_lane(lane),
            [span(one) for one in lane.spans],
            [[one.at_us - started, one.mark.value, self._place(one.event)] for one in lane.points],
            [self._place(event) for event in lane.events],
        ]

    def _span(self, span: Span) -> list[Any]:
        started = self._start
        return [
            span.stretch.value,
            span.began_us - started,
            None if span.ended_us is None else span.ended_us - started,
            None if span.event is None else self._place(span.event),
            None if span.due_us is None else span.due_us - started,
        ]

    def _event(self, place: int, row: Row) -> list[Any]:
        return [
            place,
            row.index,
            row.what,
            row.mark.value,
            row.at_us - self._start,
            clean(row.id, NAME_MAX),
            row.attempt,
            row.took_us,
            row.is_error,
            "" if row.payload is None else row_payload(row, self._codec, SUMMARY_MAX),
            [[_label(name), self._fact(name, value)] for name, value in row.facts.items()],
        ]

    def _fact(self, name: str, value: Any) -> str | int:
        """A fact as text, or as a time on the page's clock."""
        if name.endswith("_us") and isinstance(value, int):
            return value - self._start
        if name == "carried":
            value = ", ".join(signal.name for signal in value)
        if isinstance(value, dict):
            value = ", ".join(f"{key}={item}" for key, item in value.items())
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        return clean(value, FACT_MAX)

    def _place(self, event: tuple[int, int]) -> int:
        run, index = event
        return self._first[run] + index

    def _summary_of_lane(self, lane: Lane) -> str:
        """What to say beside a name: the last thing that the command's events carried, or how a child was called."""
        rows = [self._runs[run].line.rows[index] for run, index in reversed(lane.events) if run == lane.run]
        if lane.own is not None:
            rows += self._runs[lane.own].line.rows[:1]
        carried = next((row for row in rows if row.payload is not None), None)
        if carried is not None:
            return row_payload(carried, self._codec, SUMMARY_MAX)
        targets = [row.facts["workflow_id"] for row in rows if "workflow_id" in row.facts]
        return clean(targets[0], SUMMARY_MAX) if targets else ""


def _label(field: str) -> str:
    return field.removesuffix("_us").replace("_", " ")
