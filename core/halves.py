"""Half files: an exported file that is cut short, damaged or of a later release, read as far as it goes.

`dalsegno.core.transfer` refuses such a file, since nothing may enter a store that is not whole. To look at, half a
history is better than none, as long as nobody takes it for a whole one. So everything here comes with a `Cut`, which
says where reading stopped, why, and what is missing of which run.

    a line cannot be read      nothing more of its run is; the next line that begins a run is read again
    the file ends too early    in a line, between two, or packed: what stands before is read
    all can be read, and       something was changed, and nobody can tell what: every run is shown, and in doubt
      the checksum is wrong

A file that ends within its first line, or whose first line is that of something else or of a newer format, is refused
here as well: there is nothing to show of it.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs

from dalsegno.core.errors import DataError
from dalsegno.core.packing import unpack_as_far
from dalsegno.core.transfer import UNFIT, BadHistoryFile, Exported, Reading, Watch, read_line, read_packed

RUNS_NAMED: Final = 3
DOUBT: Final = "its checksum is wrong, and nobody can tell where it was changed"
_FIRST_LINE: Final = b'{"dalsegno": "histories"'
_REFUSED: Final = frozenset({"alien", "newer"})


@attrs.frozen(kw_only=True)
class Shortfall:
    """What is missing of a run: `events` of its `of` are there, and `why` says the rest. `gone` is false where the next
    event stands in the file, and cannot be read."""

    run_id: str
    events: int
    of: int
    why: str
    gone: bool


@attrs.frozen(kw_only=True)
class Cut:
    """Where an exported file stops being one. `why` is one word, that of `BadHistoryFile`; `line`, counted from 1, is
    the first that is not there or cannot be read, and `byte` (of the unpacked file) where it begins; both are None
    where nobody can tell. `what` goes on where the name of the file ends. `runs` are those that are not whole."""

    file: str
    why: str
    line: int | None
    byte: int | None
    what: str
    runs: tuple[Shortfall, ...]


def read_as_far(data: bytes, name: str, watch: Watch = iter) -> tuple[list[Exported], Cut | None]:
    """Everything in an exported file, packed or not, and None; or as far as it goes, and what is missing.

    Raises `BadHistoryFile` for a file of which there is nothing to show, and for one that needs a newer release.
    """
    try:
        return read_packed(data, name, watch), None
    except BadHistoryFile as error:
        refused = error
    try:
        unpacked, trouble = unpack_as_far(data, name)
    except DataError:
        raise refused from None
    if not unpacked or (b"\n" not in unpacked and unpacked[: len(_FIRST_LINE)] == _FIRST_LINE[: len(unpacked)]):
        what = f"was cut short at byte {len(unpacked):,}, within its first line"
        if not unpacked:
            what = (
                f"was cut short or damaged, and nothing of its {len(data):,} bytes can be unpacked"
                if data
                else "is empty"
            )
        raise BadHistoryFile(f"{name} {what}: there is nothing to show.", path=name, why="cut") from refused
    if vars(refused).get("why") in _REFUSED:
        raise refused
    lines = unpacked.splitlines(keepends=True)
    found = _Walked.through(lines, watch)
    return [reading.so_far() for reading in found.runs], found.cut(name, refused, trouble, lines)


@attrs.define
class _Walked:
    """What came of going through the lines. `stops` says by the places of runs at which line each of them stopped."""

    runs: list[Reading] = attrs.field(factory=list)
    stops: dict[int, _Stop] = attrs.field(factory=dict)
    first: _Stop | None = None
    ended: bool = False

    @classmethod
    def through(cls, lines: list[bytes], watch: Watch) -> _Walked:
        """Read what can be read."""
        found, byte, skipping = cls(), len(lines[0]), False
        for number, line in enumerate(watch(lines[1:]), 2):
            last = number == len(lines)
            try:
                form = json.loads(line)
                if last and _is(form, "end"):
                    found.ended = True
                elif not skipping or _is(form, "run"):
                    read_line(form, found.runs)
                    skipping = False
            except UNFIT as error:
                if not skipping:
                    found.stop(_Stop.at(number, byte, error, cut=last and not line.endswith(b"\n")))
                skipping = True
            byte += len(line)
        if not found.ended:
            found.stop(_Stop(len(lines) + 1, byte, "cut", f"was cut short after line {len(lines)}"))
        return found

    def stop(self, stop: _Stop) -> None:
        """Remember where reading stopped, and of which run."""
        self.first = self.first or stop
        self.stops.setdefault(len(self.runs) - 1, stop)

    def cut(self, name: str, refused: BadHistoryFile, trouble: str, lines: list[bytes]) -> Cut:
        """What is missing, in words."""
        stop = self.first or _changed(name, refused)
        doubt = DOUBT if stop.why == "checksum" else ""
        missing = [short for place in range(len(self.runs)) if (short := self._missing(place, doubt)) is not None]
        said = [f"{one.run_id} has {one.events} of its {one.of} events" for one in missing if one.events < one.of]
        more = [f"{len(said) - RUNS_NAMED} more lack some"] if len(said) > RUNS_NAMED else []
        packed = f" of what it unpacks to; packed, it {trouble}" if trouble else ""
        place = "" if stop.byte is None else f" (byte {stop.byte:,}{packed})"
        after = ["what came after it is missing"] if stop.why == "cut" and stop.line is not None else []
        what = "; ".join([f"{stop.what}{place}{stop.reason}", *said[:RUNS_NAMED], *more, *after])
        return Cut(file=name, why=stop.why, line=stop.line, byte=stop.byte, what=what, runs=tuple(missing))

    def _missing(self, place: int, doubt: str) -> Shortfall | None:
        reading, stop = self.runs[place], self.stops.get(place)
        run_id, events, of = reading.so_far().run_id, len(reading.events), reading.run.events
        where = f"the file {stop.what}{stop.reason}" if stop is not None else "the file has no more of it"
        if events < of:
            why = f"{where}; {events} of the run's {of} events stand before that"
        elif stop is not None:
            why = f"{where}; what waits for the run, and what it has published, may be missing"
        elif doubt:
            why = f"of the file, {doubt}"
        else:
            return None
        return Shortfall(run_id=run_id, events=events, of=of, why=why, gone=stop is None or stop.why == "cut")


@attrs.frozen
class _Stop:
    """A line at which reading stopped. `what` goes on where "the file" ends, and `reason` after that."""

    line: int | None
    byte: int | None
    why: str
    what: str
    reason: str = ""

    @classmethod
    def at(cls, line: int, byte: int, error: Exception, *, cut: bool) -> _Stop:
        if cut:
            return cls(line, byte, "cut", f"was cut short in line {line}")
        why = "unknown" if getattr(error, "event", None) else "line"
        said = f"no JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else error
        return cls(line, byte, why, f"cannot be read in line {line}", f": {said}")


def _changed(name: str, refused: BadHistoryFile) -> _Stop:
    """What to say of a file that was refused though every line of it can be read."""
    why = str(vars(refused).get("why"))
    if why == "cut":
        return _Stop(None, None, why, "lacks the end of its closing line, and nothing else")
    if why == "checksum":
        return _Stop(None, None, why, f"is not what was exported: {DOUBT}")
    said = str(refused).removeprefix(name).removesuffix(" Nothing was imported.").strip(":,. ")
    return _Stop(None, None, why, "does not fit together", f": {said}")


def _is(form: Any, kind: str) -> bool:
    return isinstance(form, dict) and next(iter(form), None) == kind
