"""A run's timeline as a Gantt chart: a lane for each command, nested as commands are, instead of a row for each event.

What has a length becomes spans of its command's lane (attempts, waits for the next one, a timer, a child's life), what
has none becomes points. Signals of one name share a lane, and so do the events of the run itself.

Lanes are nested by the commands' ids: `3.2.1` lies in branch `3.2` of command `3`. `All`, `Map`, `Spawn` and `Shield`
record nothing of their own, so such a command is told by what lies inside, and called a group; a branch or group that
holds a single thing is left out, since that says it all. Below the lane of a child lie those of the child's own run.

Pure: timelines in, lanes out, in the order they are shown in, parents before what is inside of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

import attrs

from dalsegno.core.events import CLOSING
from dalsegno.tools.family import Member
from dalsegno.tools.timeline import Kind, Mark, Row, Timeline

GROUP: Final = "group"
BRANCH: Final = "branch"
"""The kinds of lanes that are told by what lies inside; other lanes have the kind of their rows."""

NESTED_MAX: Final = 40
"""Levels of commands inside commands; what lies deeper is shown on this one."""

NAMES_MAX: Final = 3
"""How many different names the name of a group lists."""

EventAt = tuple[int, int]
"""An event: the place of its run among the runs that are shown, and its index there."""


class Stretch(Enum):
    """What a span is."""

    RUN = "run"
    WORK = "work"
    FAILED = "failed"
    BACKOFF = "backoff"
    WAIT = "wait"
    PAUSE = "pause"
    CHILD = "child"
    GROUP = "group"


@attrs.frozen
class Span:
    """A stretch of time in a lane. `ended_us` None: it goes on; `due_us`, where known, is when it ends by itself."""

    stretch: Stretch
    began_us: int
    ended_us: int | None
    event: EventAt | None
    due_us: int | None = None


@attrs.frozen
class Point:
    """A moment in a lane: an event that has no length."""

    at_us: int
    mark: Mark
    event: EventAt


@attrs.define(kw_only=True)
class Lane:
    """A line of the chart. `run` is the place of its run among those shown, `own` that of the run below the lane of a
    child. `note` says what is missing below, and why. `ended_us` None: something in it, or inside, goes on."""

    name: str
    kind: str
    run: int
    id: str = ""
    depth: int = 0
    mark: Mark = Mark.PLAIN
    line: int | None = None
    tries: int = 0
    source: str = ""
    own: int | None = None
    note: str = ""
    began_us: int = 0
    ended_us: int | None = 0
    spans: list[Span] = attrs.field(factory=list)
    points: list[Point] = attrs.field(factory=list)
    events: list[EventAt] = attrs.field(factory=list)
    inside: list[Lane] = attrs.field(factory=list)


def lanes(root: Member) -> tuple[list[Member], list[Lane]]:
    """The runs of a family, and their lanes from top to bottom; a lane names its run by its place in the first list."""
    runs: list[Member] = []
    run, trees = _of_member(root, runs)
    return runs, list(_flat([run, *trees], 0))


def _of_member(member: Member, runs: list[Member]) -> tuple[Lane, list[Lane]]:
    """The lane of a run itself, and those of what it did."""
    place = len(runs)
    runs.append(member)
    run, commands = _commands(member.line, place)
    run.name = run.name or member.record.workflow
    if member.kept.unreadable is not None:
        run.note = member.kept.unreadable.note
    for command in commands:
        for at in [event[1] for event in command.events]:
            command.note = member.left_out.get(at, "") or command.note
            if at in member.children:
                _put_child_below(command, member.children[at], runs)
    return run, _nested(commands)


def _put_child_below(command: Lane, child: Member, runs: list[Member]) -> None:
    """What a child's run did goes below its parent's lane for it; the events of the run itself belong to that lane."""
    command.own = len(runs)
    run, command.inside = _of_member(child, runs)
    command.note = run.note
    command.spans += [span for span in run.spans if span.stretch is Stretch.PAUSE]
    command.points += run.points
    command.events += run.events


def _flat(nodes: Iterable[Lane], depth: int) -> Iterator[Lane]:
    for node in nodes:
        node.depth = depth
        yield node
        yield from _flat(node.inside, depth + 1)


# --- the rows of one history ---------------------------------------------------------------------------------------


def _commands(line: Timeline, place: int) -> tuple[Lane, list[Lane]]:
    """The lane of the run, and one for each command, in the order they first appear."""
    run = Lane(name="", kind=Kind.RUN.value, run=place)
    found: dict[str, Lane] = {}
    gathered: dict[str, list[Row]] = {}
    for row in line.rows:
        if row.kind in (Kind.RUN, Kind.PAUSE):
            _add_to_run(run, row)
            continue
        key = row.id or f"{row.event} {row.name}"
        if key not in found:
            found[key] = Lane(name=_title(row), kind=row.kind.value, run=place, id=row.id, line=row.line)
        gathered.setdefault(key, []).append(row)
    for key, rows in gathered.items():
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            _add(found[key], row, following)
    for row in line.pending:
        found.setdefault(row.id, _pending(row, place))
    closed = bool(line.rows) and line.rows[-1].event in _CLOSING
    run.spans.insert(0, Span(Stretch.RUN, line.started_us, line.stopped_us if closed else None, (place, 0)))
    run.began_us, run.ended_us = line.started_us, run.spans[0].ended_us
    return run, list(found.values())


_CLOSING: Final = frozenset(cls.__name__ for cls in CLOSING)
_TITLES: Final = {
    "SignalReceived": "signal",
    "SignalSent": "send",
    "SignalNotSent": "send",
    "CallbackCompleted": "callback",
    "CallbackFailed": "callback",
    "SideEffectRecorded": "side effect",
    "RaceDecided": "first",
    "ScopeCompleted": "scope",
    "CheckpointTaken": "checkpoint",
    "PatchAdopted": "patch",
}
"""What a lane is called by before its name. Steps, waits and children need nothing before theirs."""


def _title(row: Row) -> str:
    return f"{_TITLES.get(row.event, '')} {row.name}".strip() or row.what


def _add_to_run(run: Lane, row: Row) -> None:
    """What happened to the run as a whole: its start and end are those of its bar, the rest is marked in it."""
    event = (run.run, row.index)
    run.events.append(event)
    if row.event == "RunStarted":
        run.name = row.name
    elif row.event == "RunPaused":
        run.spans.append(Span(Stretch.PAUSE, row.began_us, row.ended_us, event))
    elif row.event in _CLOSING:
        run.mark = row.mark
    elif row.event != "RunResumed":
        run.points.append(Point(row.at_us, row.mark, event))


_STRETCHES: Final = {
    Kind.STEP: Stretch.WORK,
    Kind.WAIT: Stretch.WAIT,
    Kind.CHILD: Stretch.CHILD,
    Kind.SCOPE: Stretch.GROUP,
    Kind.RACE: Stretch.GROUP,
}


def _add(lane: Lane, row: Row, following: Row | None) -> None:
    """One event of a command: a span where it has a length, a point where it has none and tells something new."""
    event = (lane.run, row.index)
    lane.events.append(event)
    if row.kind is Kind.STEP and lane.kind == Kind.WAIT.value:  # what bounds all of a step comes before its attempts
        lane.kind, lane.name = row.kind.value, row.name
    lane.line, lane.tries = row.line or lane.line, max(lane.tries, row.attempt or 0)
    begins = row.event in _BEGIN
    if not begins or row.ended_us is None:
        lane.mark = row.mark
    if row.event == "StepStarted" and following is not None:
        return  # the outcome of the attempt spans the same time
    stretch = Stretch.FAILED if row.kind is Kind.STEP and row.mark is Mark.BAD else _STRETCHES.get(row.kind)
    if stretch is not None and (begins or row.ended_us != row.began_us):
        lane.spans.append(Span(stretch, row.began_us, row.ended_us, event, row.facts.get("deadline_us")))
    elif row.event not in _END or not lane.spans:
        lane.points.append(Point(row.at_us, row.mark, event))
    if row.backoff is not None:
        wait = row.backoff
        lane.spans.append(Span(Stretch.BACKOFF, wait.began_us, wait.ended_us, event, wait.due_us))


_BEGIN: Final = frozenset({"StepStarted", "TimerSet", "ChildStarted"})
"""Events that begin a span which another event ends."""

_END: Final = frozenset({"TimerFired", "TimerCancelled", "ChildCompleted", "ChildFailed"})
"""Those others: the end of the span shows them."""


def _pending(row: Row, place: int) -> Lane:
    stretch = Stretch.WORK if row.kind is Kind.STEP else Stretch.WAIT
    return Lane(
        name=row.name,
        kind=row.kind.value,
        run=place,
        id=row.id,
        mark=row.mark,
        line=row.line,
        source=row.facts.get("source", ""),
        spans=[Span(stretch, row.began_us, None, None)],
    )


# --- commands inside commands --------------------------------------------------------------------------------------


def _nested(commands: Iterable[Lane]) -> list[Lane]:
    """The lanes as trees, with groups and branches where a command tells only by what lies inside."""
    root = Lane(name="", kind=GROUP, run=0)
    found = {"": root}
    for lane in commands:
        if lane.id:
            found[lane.id] = lane
    for lane in commands:
        while lane is not root:
            outer = ".".join(lane.id.split(".")[:-1][:NESTED_MAX])
            around = found.get(outer)
            if around is not None:
                around.inside.append(lane)
                break
            kind = GROUP if outer.count(".") % 2 == 0 else BRANCH
            around = found[outer] = Lane(name="", kind=kind, run=lane.run, id=outer)
            around.inside.append(lane)
            lane = around
    _finish(root)
    return root.inside


def _finish(lane: Lane) -> None:
    """Leave out what says nothing, order what is inside by time, and reckon what depends on it."""
    for below in lane.inside if lane.own is None else ():  # what lies below a child was finished with its run
        _finish(below)
    lane.inside = [below.inside[0] if _is_told(below) and len(below.inside) == 1 else below for below in lane.inside]
    if len(lane.inside) == 1 and _is_told(lane.inside[0]):
        lane.inside = lane.inside[0].inside
    lane.inside.sort(key=lambda below: below.began_us)
    begins = [span.began_us for span in lane.spans] + [point.at_us for point in lane.points]
    ends = [span.ended_us for span in lane.spans] + [point.at_us for point in lane.points]
    begins += [below.began_us for below in lane.inside]
    ends += [below.ended_us for below in lane.inside]
    lane.began_us = min(begins, default=0)
    lane.ended_us = None if None in ends else max((end for end in ends if end is not None), default=0)
    if _is_told(lane):
        lane.name = _named(lane.inside)
        lane.spans.append(Span(Stretch.GROUP, lane.began_us, lane.ended_us, None))


def _is_told(lane: Lane) -> bool:
    """Whether a lane is there only because of what lies inside."""
    return lane.kind in (GROUP, BRANCH)


def _named(inside: list[Lane]) -> str:
    """The names of different things, or how often there is one thing again and again.

    >>> _named([Lane(name=name, kind="step", run=0) for name in ("pick", "pack", "pick")])
    'pick, pack'
    """
    names = list(dict.fromkeys(below.name for below in inside))
    branches = all(below.kind == BRANCH for below in inside)
    if branches and len(names) > 1:  # what they do together
        names = list(dict.fromkeys(below.name for branch in inside for below in branch.inside))
    listed = ", ".join(names[:NAMES_MAX]) + (", …" if len(names) > NAMES_MAX else "")
    if len(inside) == 1 or (len(names) > 1 and not branches):
        return listed
    return f"{len(inside)} \N{MULTIPLICATION SIGN} " + (f"({listed})" if ", " in listed else listed)
