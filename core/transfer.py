"""Runs between stores: histories as JSON lines, finished or in flight.

    {"dalsegno": "histories", "format": 1, "written_by": "0.1.0", "written_at": "2026-01-05T09:30:00.000000Z"}
    {"run": {"workflow_id": "order-42", "status": "running", "events": 2, …}}
    {"event": "RunStarted", "version": 1, "index": 0, "fields": {…}}
    {"event": "StepCompleted", "version": 1, "index": 1, "fields": {…}}
    {"message": {"kind": "signal", "name": "approval", …}}        what waits in its inbox
    {"published": "stage", "value": {…}}                          what `run.state` shows
    {"end": {"runs": 1, "events": 2, "checksum": "…"}}            of every byte before this line

The order of reading makes a copy beside a running engine whole: the inbox first, so that a message is either in it or
in the history that is read after it (or in both, and then it is dropped, by its number); the record last, so that it
is never older than the history.

A file may be packed with zstd or gzip, as those of an archive are (`dalsegno.core.archive`); it is read all the same.

Reading verifies the whole of a file before it answers anything. Writing runs into a store is the affair of
`replay import`; golden histories (`dalsegno.testing.replaying`) are only read. Half a file is refused here, and can be
looked at as far as it goes (`dalsegno.core.halves`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import attrs

from dalsegno.core.checks import check_history
from dalsegno.core.errors import DataError, DecodeError
from dalsegno.core.events import Event
from dalsegno.core.forms import (
    DoesNotFit,
    RunForm,
    bytes_from,
    event_form,
    event_from,
    message_form,
    message_from,
    payload_form,
    plain,
    run_form,
    run_from,
)
from dalsegno.core.history import decode_history
from dalsegno.core.packing import unpack
from dalsegno.core.store import Backend, RunRecord, StoredMessage
from dalsegno.core.values.codec import Codec

FORMAT: Final = 1
PAGE: Final = 1000
UNFIT: Final = (DoesNotFit, ValueError, KeyError, TypeError, RecursionError)
"""What comes out of a line that is not one of an exported file."""

Watch = Callable[[Iterable[Any]], Iterable[Any]]
"""What shows progress: takes something to go through, gives it back while drawing a bar."""


class BadHistoryFile(DataError):
    """An exported file that cannot be imported. Nothing was written. Facts: `path`, `line`, `why` (one word)."""


@attrs.frozen(kw_only=True)
class Exported:
    """One run with everything of its own."""

    run: RunForm
    events: tuple[Event, ...]
    messages: tuple[StoredMessage, ...] = ()
    published: dict[str, bytes] = attrs.field(factory=dict)

    @property
    def run_id(self) -> str:
        """Workflow id and generation."""
        return f"{self.run.workflow_id}#{self.run.generation}"


# --- out of a store ------------------------------------------------------------------------------------------------


def take(store: Backend, record: RunRecord) -> Exported:
    """Read a run whole, while an engine may be at work on it. Raises `DecodeError` for a history it cannot read."""
    waiting = [message for message in _inbox(store, record.number) if message.kind != "wake"]
    events = _events(store, record)
    latest = store.record(record.number) or record
    if not latest.status.open:  # it closed meanwhile: what it recorded last belongs to it
        events += _events(store, record, len(events))
    entered = {event.seq for event in events if hasattr(event, "seq")}
    run = run_form(latest, len(events))
    kept = tuple(message for message in waiting if message.seq not in entered) if latest.status.open else ()
    return Exported(run=run, events=tuple(events), messages=kept, published=store.published(record.number))


def _inbox(store: Backend, run: int) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    while page := store.inbox(run, found[-1].seq if found else 0, PAGE):
        found += page
    return found


def _events(store: Backend, record: RunRecord, start: int = 0) -> list[Event]:
    events: list[Event] = []
    while page := store.history(record.number, start + len(events), PAGE):
        try:
            events += decode_history(page)
        except DecodeError as error:
            raise DecodeError(f"{record.run_id} cannot be exported: {error}", run=record.run_id) from error
    return events


def export_lines(runs: Iterable[Exported], codec: Codec, written_at_us: int) -> Iterator[bytes]:
    """The lines of an exported file."""
    checksum = blake2b(digest_size=16)
    counted = [0, 0]

    def line(data: dict[str, Any]) -> bytes:
        written = json.dumps(data, ensure_ascii=True, separators=(", ", ": ")).encode() + b"\n"
        checksum.update(written)
        return written

    yield line(
        {
            "dalsegno": "histories",
            "format": FORMAT,
            "written_by": _release(),
            "written_at": _iso(written_at_us),
        }
    )
    for one in runs:
        yield from map(line, _forms(one, codec))
        counted = [counted[0] + 1, counted[1] + len(one.events)]
    yield line({"end": {"runs": counted[0], "events": counted[1], "checksum": checksum.hexdigest()}})


@cache
def _release() -> str:
    """Which release this is; asking takes longer than writing a short history."""
    return version("dalsegno")


def _iso(at_us: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _forms(one: Exported, codec: Codec) -> Iterator[dict[str, Any]]:
    yield {"run": plain(one.run)}
    for index, event in enumerate(one.events):
        yield event_form(index, event, codec)
    for message in one.messages:
        yield {"message": message_form(message, codec)}
    for key, value in one.published.items():
        yield {"published": key, "value": payload_form(value, codec)}


# --- out of a file -------------------------------------------------------------------------------------------------


def read_file(path: Path, watch: Watch = iter) -> list[Exported]:
    """Everything in an exported file, verified. Raises `BadHistoryFile` naming the line and what to do."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadHistoryFile(f"{path} cannot be read: {error.strerror}", path=str(path), why="unreadable") from error
    return read_packed(data, str(path), watch)


def read_packed(data: bytes, name: str, watch: Watch = iter) -> list[Exported]:
    """Everything in an exported file as it was packed for an archive; one that is not packed is read as well."""
    try:
        lines = unpack(data, name)
    except DataError as error:
        raise BadHistoryFile(str(error), path=name, why="packed") from error
    return read_lines(lines, name, watch)


def read_lines(data: bytes, name: str, watch: Watch = iter) -> list[Exported]:
    """Everything in an exported file. First its frame is verified (format, end, checksum), then each line."""
    body, end = _frame(data, name)
    runs: list[Reading] = []
    for number, line in enumerate(watch(body[1:]), 2):
        try:
            read_line(json.loads(line), runs)
        except UNFIT as error:
            why = "unknown" if getattr(error, "event", None) else "line"
            raise _bad(f"{name}, line {number}: {error}. Nothing was imported.", name, why, number) from error
    found = [reading.done(name) for reading in runs]
    events = sum(len(one.events) for one in found)
    if (end.get("runs"), end.get("events")) != (len(found), events):
        raise _bad(f"{name} says it holds {end.get('runs')} runs and holds {len(found)}.", name, "counts")
    return found


def _bad(what: str, name: str, why: str, line: int | None = None) -> BadHistoryFile:
    return BadHistoryFile(what, path=name, why=why, line=line)


def _frame(data: bytes, name: str) -> tuple[list[bytes], dict[str, Any]]:
    """The lines before the last, and what the last one says; the checksum has been compared."""
    lines = data.splitlines(keepends=True)
    header = _object(lines[0]) if lines else {}
    if header.get("dalsegno") != "histories":
        raise _bad(f"{name} is not a file that `replay export` wrote: its first line does not say so.", name, "alien")
    if not isinstance(header.get("format"), int) or header["format"] > FORMAT:
        raise _bad(
            f"{name} has format {header.get('format')} (written by dalsegno {header.get('written_by')}), and this "
            f"release reads up to {FORMAT}. Upgrade dalsegno to import it.",
            name,
            "newer",
        )
    end = _object(lines[-1]).get("end")
    if not isinstance(end, dict) or not lines[-1].endswith(b"\n"):
        raise _bad(
            f"{name} was cut short: after {len(lines)} lines ({len(data):,} bytes) the closing line is missing. "
            "Copy or export it again; nothing was imported.",
            name,
            "cut",
        )
    found = blake2b(b"".join(lines[:-1]), digest_size=16).hexdigest()
    if found != end.get("checksum"):
        raise _bad(
            f"{name} is not what was exported: its checksum is {found}, and its closing line says "
            f"{end.get('checksum')}. Copy or export it again; nothing was imported.",
            name,
            "checksum",
        )
    return lines[:-1], end


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@attrs.define
class Reading:
    """A run while its lines are read."""

    run: RunForm
    events: list[Event] = attrs.field(factory=list)
    messages: list[StoredMessage] = attrs.field(factory=list)
    published: dict[str, bytes] = attrs.field(factory=dict)

    def so_far(self) -> Exported:
        """The run with what was read of it."""
        return Exported(
            run=self.run, events=tuple(self.events), messages=tuple(self.messages), published=self.published
        )

    def done(self, name: str) -> Exported:
        """The whole run, if what has to hold holds."""
        one = self.so_far()
        if self.run.events != len(self.events):
            raise _bad(
                f"{name}: {one.run_id} has {self.run.events} events, here are {len(self.events)}.", name, "counts"
            )
        for found in check_history(self.events, self.run):
            at = f"{name}: {one.run_id}, event {found.event}"
            raise _bad(f"{at}: {found.what}. Nothing was imported.", name, "history")
        return one


def read_line(form: Any, runs: list[Reading]) -> None:
    """Add what a line says to the runs that were read before it. Raises what `UNFIT` lists."""
    if not isinstance(form, dict) or not form:
        raise DoesNotFit("not an object with a name")
    what = next(iter(form))
    if what == "run":
        runs.append(Reading(run_from(form["run"])))
    elif not runs:
        raise DoesNotFit("it stands before any run")
    elif what == "event":
        if form.get("index") != len(runs[-1].events):
            raise DoesNotFit(f"event {form.get('index')} stands where {len(runs[-1].events)} belongs")
        runs[-1].events.append(event_from(form))
    elif what == "message":
        runs[-1].messages.append(message_from(form["message"]))
    elif what == "published":
        runs[-1].published[str(form["published"])] = bytes_from(form["value"])
    else:
        raise DoesNotFit(f"this release knows no line that begins with {what!r}")
