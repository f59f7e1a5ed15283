"""A run with its children, and theirs: read from a store, each with its own timeline, as far as one wants to look.

A parent's history says when a child began and how it ended; what happened between stands in the child's own history.
`family` reads those too, level by level, so that where a limit cuts, the runs nearest to the one that was asked for are
there. What is left out is noted at the event that started it, with the reason.

Where code is at hand (`App`), an open run is replayed to learn what it waits for that has left no event: a `Receive`
without time-out, a callback, a step in its first attempt. These become the rows of `Timeline.pending`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import attrs

from dalsegno.core import events as ev
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import Backend, RunRecord
from dalsegno.tools.app import App
from dalsegno.tools.standing import Wait, standing
from dalsegno.tools.stores import Kept, read_run
from dalsegno.tools.timeline import Kind, Mark, Row, Timeline, timeline

RUNS_MAX: Final = 1_000
EVENTS_MAX: Final = 20_000
"""How much of a family is read besides the run itself: what a page still shows at once, and fits easily in memory."""

REPLAYED_MAX: Final = 20
"""Open runs that are replayed to learn what they wait for; each takes some replays of its history."""

GENERATIONS_MAX: Final = 100
"""How far back the run is looked for that a parent started, where its id has been used again since."""


@attrs.define(kw_only=True)
class Member:
    """A run, and by the index of the event that started them its children, or why they are left out."""

    kept: Kept
    line: Timeline
    published: dict[str, bytes]
    children: dict[int, Member] = attrs.field(factory=dict)
    left_out: dict[int, str] = attrs.field(factory=dict)
    problem: str = ""

    @property
    def record(self) -> RunRecord:
        """The run's record."""
        return self.kept.record

    def all(self) -> Iterator[Member]:
        """This run and everything below it, parents before children."""
        yield self
        for child in self.children.values():
            yield from child.all()


@attrs.frozen(kw_only=True)
class Limits:
    """How many generations of children are read, and how many runs and events of them."""

    depth: int
    runs: int = RUNS_MAX
    events: int = EVENTS_MAX


def family(store: Backend, record: RunRecord, now_us: int, limits: Limits, app: App | None = None) -> Member:
    """Read a run and its children. The run itself is always read whole."""
    root = _member(store, record, now_us)
    read = _Read(store, now_us, limits)
    replayed = 0
    waiting = deque([(root, 0)])
    while waiting:
        member, depth = waiting.popleft()
        if app is not None and member.record.status.open and replayed < REPLAYED_MAX:
            replayed += 1
            _tell_pending(member, app)
        for index, event in enumerate(member.kept.events):
            if isinstance(event, ev.ChildStarted):
                found = read.child(member.record, event, depth)
                if isinstance(found, Member):
                    member.children[index] = found
                    waiting.append((found, depth + 1))
                else:
                    member.left_out[index] = found
    return root


@attrs.define
class _Read:
    """Reads children for as long as the limits allow."""

    store: Backend
    now_us: int
    limits: Limits
    runs: int = 0
    events: int = 0

    def child(self, parent: RunRecord, event: ev.ChildStarted, depth: int) -> Member | str:
        """The child that was started, or why it is left out."""
        if depth >= self.limits.depth:
            return f"only {depth} level{'s' * (depth > 1)} of children are shown" if depth else "children are not shown"
        try:
            found = child_of(self.store, parent, event)
            if found is None:
                return "its history is not in this store"
            if self.runs >= self.limits.runs or self.events + self.store.head(found.number) > self.limits.events:
                return f"no more than {self.limits.runs:,} children with {self.limits.events:,} events are shown"
            member = _member(self.store, found, self.now_us)
        except StoreDamaged as error:
            return str(error)
        self.runs += 1
        self.events += len(member.kept.records)
        return member


def child_of(store: Backend, parent: RunRecord, event: ev.ChildStarted) -> RunRecord | None:
    """The run that this event started: the newest of its id with this parent.

    A forked or imported run shares its children with where it came from, so that none of them names it as its parent;
    then it is the newest of the id. One that had not answered is started again, and called after the fork.
    """
    place = (parent.workflow_id, parent.generation, event.id)
    newest = store.find(event.workflow_id)
    anew = store.find(f"{parent.workflow_id}/{event.id}")
    if anew is not None and anew.parent == place:
        return anew
    if newest is None:
        return None
    for generation in range(newest.generation, max(newest.generation - GENERATIONS_MAX, 0), -1):
        found = store.find(event.workflow_id, generation)
        if found is not None and found.parent == place:
            return found
    return newest


def _member(store: Backend, record: RunRecord, now_us: int) -> Member:
    kept = read_run(store, record)
    line = timeline(kept.events, now_us if record.status.open else None)
    return Member(kept=kept, line=line, published=store.published(record.number))


# --- what waits without an event -----------------------------------------------------------------------------------


def _tell_pending(member: Member, app: App) -> None:
    """Put what waits without an event into the timeline, where the code knows."""
    definition = app.workflows.get(member.record.workflow)
    if definition is None or member.kept.unreadable is not None or not member.kept.events:
        return
    found = standing(member.kept.events, definition, app.codec)
    member.problem = found.problem
    member.line = with_pending(member.line, found.waits)


def with_pending(line: Timeline, waits: tuple[Wait, ...]) -> Timeline:
    """The timeline with those of the waits that have no row yet."""
    known = {row.id for row in line.rows}
    return attrs.evolve(line, pending=tuple(_row(wait, line) for wait in waits if wait.id not in known))


def _row(wait: Wait, line: Timeline) -> Row:
    is_step = wait.kind == "step"
    return Row(
        index=-1,
        event="",
        what="in flight" if is_step else "waits",
        kind=Kind.STEP if is_step else Kind.WAIT,
        at_us=wait.since_us,
        since_us=wait.since_us - line.started_us,
        began_us=wait.since_us,
        ended_us=None,
        mark=Mark.WAIT,
        id=wait.id,
        name=wait.name if is_step else f"{wait.kind} {wait.name}".strip(),
        line=wait.line or None,
        facts={"source": wait.source} if wait.source else {},
    )
