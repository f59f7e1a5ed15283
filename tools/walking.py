"""Walking through a history: where the workflow stood before each of its events, forwards, backwards, anywhere.

*At event N* the events before it have been told, and the workflow waits for what N says: N = 0 is before anything
ran, N = the number of events is where the run stands now. It is the same N at which `debug` stops and `fork` parts.

Nothing but the workflow's code runs, with recorded answers, so going back is replaying a prefix. A generator cannot be
copied; what is kept instead are *way points*, interpreters that stand at spaced positions, and a jump goes forward from
the nearest below. One that has gone forward has left its place, so `rest` puts a new one there, after the answer was
given and not before. What has been looked at is kept as a `Point`: plain data without frames, so that stepping back
over it costs nothing. Ten thousand events replay in 20 to 100 ms; way points keep a jump at a fraction of that.

Where today's code leaves the history, the walk ends, and `problem` says why. `breakpoint()` is silent here: it would
stop at every prefix again. `replay debug` is where it works.
"""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import FrameType
from typing import Any, Final

import attrs

from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import BadOption, DalsegnoError, HistoryMismatch
from dalsegno.core.events import Event, PatchAdopted, ScopeCompleted, SignalReceived
from dalsegno.core.interpreter import FiberView, Interpreter, Waiting
from dalsegno.core.values.codec import Codec
from dalsegno.tools.bounded import shown

WAY_POINTS: Final = 8
APART_MIN: Final = 200  # events; nearer together they would save less than looking them up costs
POINTS_KEPT: Final = 2000
BACK: Final = 25  # points that are made in one go when stepping back
FRAMES_MAX: Final = 50
NAMES_MAX: Final = 60
FIBERS_MAX: Final = 50  # beneath one fiber; nobody reads more, and thousands of them would take a second to tell


@attrs.frozen(kw_only=True)
class Local:
    """A local variable: `change` is "", "new" or "changed", seen from the event before."""

    name: str
    value: str
    change: str = ""


@attrs.frozen(kw_only=True)
class Level:
    """One generator of a fiber, and what is `gone` of its variables since the event before."""

    function: str
    file: str
    line: int
    locals: tuple[Local, ...]
    gone: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Stand:
    """A fiber, what it waits for, its generators outermost first, and the fibers beneath: of many, those nearest to the
    one that hears of the event. `left_out` says how many more there are."""

    path: str
    function: str
    file: str
    line: int
    waits_for: str
    levels: tuple[Level, ...]
    beneath: tuple[Stand, ...]
    left_out: int = 0

    def all(self) -> Iterator[Stand]:
        """This one and all beneath."""
        yield self
        for stand in self.beneath:
            yield from stand.all()


@attrs.frozen(kw_only=True)
class Answered:
    """The command that an event answers, as the workflow yielded it."""

    id: str
    kind: str
    name: str
    command: str
    fiber: str
    file: str
    line: int


@attrs.frozen(kw_only=True)
class Point:
    """Where a workflow stands at one event. `event` is None at the end; `file` and `line` are where the answer goes."""

    at: int
    event: Event | None
    answers: Answered | None
    file: str
    line: int
    function: str
    root: Stand
    now_us: int
    published: Mapping[str, bytes]
    outcome: str = ""


class _Walker:
    """An interpreter somewhere in the history, and what was published up to there."""

    def __init__(self, walk: Walk, upto: int) -> None:
        self.walk, self.published = walk, dict[str, bytes]()
        self.interpreter = Interpreter(walk.definition, walk.codec)
        self.at = upto
        with silenced():
            if upto:
                self.interpreter.replay(walk.events, upto, skip_scopes=walk.skips)
            self.noted()

    def noted(self) -> None:
        self.published |= self.interpreter.take().published

    def to(self, at: int) -> None:
        """Go forward."""
        if self.at == 0 < at:
            self.at = at
            with silenced():
                self.interpreter.replay(self.walk.events, at, skip_scopes=self.walk.skips)
        with silenced():
            for index in range(self.at, at):
                self.interpreter.apply(self.walk.events[index])
                self.at = index + 1
        self.noted()


class Walk:
    """A history and the code that made it, to be looked at from any of its events."""

    def __init__(self, events: Sequence[Event], definition: WorkflowDefinition[Any, Any], codec: Codec) -> None:
        self.events, self.definition, self.codec = tuple(events), definition, codec
        self.problem = ""
        self.last = len(self.events)
        """The last event one can stand at: the number of events, or where today's code leaves the history."""
        self.skips = False
        self._walkers: list[_Walker] = []
        self._points: OrderedDict[int, Point] = OrderedDict()
        self._apart = max(APART_MIN, len(self.events) // WAY_POINTS)
        self._reach()

    def _reach(self) -> None:
        """Replay everything once, to know how far it goes. The inside of scopes is walked through where it is kept."""
        if any(isinstance(event, ScopeCompleted) for event in self.events):
            try:
                self._walkers.append(_Walker(self, self.last))
                return
            except DalsegnoError:
                self.skips = True  # what was inside has been pruned, or does not fit any more
        try:
            self._walkers.append(_Walker(self, self.last))
        except HistoryMismatch as error:
            self._stops(error, vars(error).get("event_index"))
        except DalsegnoError as error:
            self._stops(error, vars(error).get("event_index"))

    def _stops(self, error: DalsegnoError, known: int | None) -> None:
        """Find how far the code goes along, by halves where the error does not say."""
        self.problem = f"{type(error).__name__}: {error}"
        low, high = 0, self.last if known is None else min(known + 1, self.last)
        while low < high:
            middle = high if known is not None and high == known else (low + high + 1) // 2
            try:
                _Walker(self, middle).interpreter.evict()
                low = middle
            except DalsegnoError:
                high = middle - 1
        self.last = low

    # --- looking ---------------------------------------------------------------------------------------------------

    def at(self, index: int) -> Point:
        """Where the workflow stands at an event. Raises `BadOption` for one that the walk does not reach."""
        if not 0 <= index <= self.last:
            more = f"; the code goes no further: {self.problem}" if self.problem and index > self.last else ""
            raise BadOption(f"there is no event {index} to stand at: they are numbered 0 to {self.last}{more}")
        if index in self._points:
            self._points.move_to_end(index)
            return self._points[index]
        before = self._points.get(index - 1)
        first = index
        if before is None and index:
            after = self._points.get(index + 1)  # who steps back will go on doing so; where points are dear, one by one
            first = max(index - (1 if after is None or after.root.left_out else BACK), 0)
        walker = self._nearest(first)
        if first < index:
            walker.to(first)
            before = self._point(walker, None)  # not kept: what changed there is not known
            first += 1
        for place in range(first, index + 1):
            walker.to(place)
            before = self._points[place] = point = self._point(walker, before)
        while len(self._points) > POINTS_KEPT:
            self._points.popitem(last=False)
        return point

    def forward(self, start: int, wanted: Callable[[int, Mapping[str, Any]], bool]) -> int | None:
        """The first event from `start` on at which this is true of its number and the local variables there."""
        walker = self._nearest(start)
        for index in range(start, self.last + 1):
            walker.to(index)
            if wanted(index, self.names(walker.interpreter, index)):
                return index
        return None

    def names_at(self, index: int) -> dict[str, Any]:
        """The local variables themselves, around the answer to an event."""
        walker = self._nearest(index)
        walker.to(index)
        return self.names(walker.interpreter, index)

    def names(self, interpreter: Interpreter, index: int) -> dict[str, Any]:
        """The local variables around the answer to an event, those of inner frames before those of outer ones."""
        found: dict[str, Any] = {}
        if interpreter.count:
            waiting = answered(interpreter, self.event(index))
            for frame in fiber_of(interpreter.fibers(), waiting).frames:
                found |= frame.f_locals
        return found

    def event(self, index: int) -> Event | None:
        """The event of that number; None at the end."""
        return self.events[index] if index < len(self.events) else None

    def rest(self) -> None:
        """Put one way point where one is missing; for when nobody waits."""
        for place in range(self._apart, self.last, self._apart):
            if not any(place - self._apart < walker.at <= place for walker in self._walkers):
                self._walkers.append(_Walker(self, place))
                return

    @property
    def rested(self) -> bool:
        """Whether every way point is in its place."""
        places = range(self._apart, self.last, self._apart)
        return all(any(p - self._apart < walker.at <= p for walker in self._walkers) for p in places)

    def close(self) -> None:
        """Put every generator away."""
        for walker in self._walkers:
            walker.interpreter.evict()
        self._walkers.clear()

    # --- the walkers -----------------------------------------------------------------------------------------------

    def _nearest(self, index: int) -> _Walker:
        """The walker nearest below, or a fresh one; the farthest of too many is put away."""
        below = [walker for walker in self._walkers if walker.at <= index]
        nearest = max(below, key=lambda walker: walker.at, default=None)
        if nearest is None or index - nearest.at > 2 * self._apart:
            nearest = _Walker(self, index)
            self._walkers.append(nearest)
        while len(self._walkers) > 2 * WAY_POINTS:
            spare = self._crowded(nearest)
            self._walkers.remove(spare)
            spare.interpreter.evict()
        return nearest

    def _crowded(self, used: _Walker) -> _Walker:
        """The walker that is least missed: the one closest above another."""
        ordered = sorted(self._walkers, key=lambda walker: walker.at)
        gaps = [(b.at - a.at, b) for a, b in pairwise(ordered) if b is not used]
        return min(gaps, key=lambda gap: gap[0])[1]

    def _point(self, walker: _Walker, before: Point | None) -> Point:
        interpreter, event = walker.interpreter, self.event(walker.at)
        if not interpreter.count:
            root = Stand(path="", function=self.definition.name, file="", line=0, waits_for="", levels=(), beneath=())
            return Point(
                at=0, event=event, answers=None, file="", line=0, function="", root=root, now_us=0, published={}
            )
        earlier = {stand.path: stand for stand in before.root.all()} if before is not None else {}
        fibers = interpreter.fibers()
        waiting = answered(interpreter, event)
        holder = fiber_of(fibers, waiting)
        return Point(
            at=walker.at,
            event=event,
            answers=None if waiting is None else _answered(waiting, holder),
            file=holder.file,
            line=holder.line,
            function=holder.frames[-1].f_code.co_qualname if holder.frames else "",
            root=_stand(fibers, earlier, holder.path),
            now_us=interpreter.now_us,
            published=dict(walker.published),
            outcome="" if interpreter.outcome is None else type(interpreter.outcome).__name__,
        )


# --- reading an interpreter ----------------------------------------------------------------------------------------


def answered(interpreter: Interpreter, event: Event | None) -> Waiting | None:
    """The command that an event will answer; at the end, the one that has waited longest."""
    if event is None:
        return next(iter(interpreter.waiting.values()), None)
    if isinstance(event, SignalReceived):
        receives = (one for one in interpreter.waiting.values() if one.kind == "receive" and one.name == event.name)
        return next(receives, None)
    id = f"patched:{event.change}" if isinstance(event, PatchAdopted) else getattr(event, "id", "")
    return interpreter.waiting.get(id)


def fiber_of(root: FiberView, waiting: Waiting | None) -> FiberView:
    """The fiber that hears of a command's answer; the root where there is no command."""
    fiber = root
    while waiting is not None:
        inner = [one for one in fiber.beneath if f"{waiting.id}.".startswith(f"{one.path}.") and one.path]
        if not inner:
            break
        fiber = max(inner, key=lambda one: len(one.path))
    return fiber


def _answered(waiting: Waiting, holder: FiberView) -> Answered:
    return Answered(
        id=waiting.id,
        kind=waiting.kind,
        name=waiting.name,
        command=shown(waiting.command),
        fiber=holder.path,
        file=holder.file,
        line=waiting.line,
    )


def _stand(fiber: FiberView, earlier: Mapping[str, Stand], holder: str) -> Stand:
    near = _near(fiber.beneath, holder)
    was = earlier.get(fiber.path)
    levels = [
        _level(frame, was.levels[depth] if was is not None and depth < len(was.levels) else None)
        for depth, frame in enumerate(fiber.frames[:FRAMES_MAX])
    ]
    return Stand(
        path=fiber.path,
        function=fiber.function,
        file=fiber.file,
        line=fiber.line,
        waits_for=fiber.waits_for,
        levels=tuple(levels),
        beneath=tuple(_stand(one, earlier, holder) for one in near),
        left_out=len(fiber.beneath) - len(near),
    )


def _near(beneath: Sequence[FiberView], holder: str) -> Sequence[FiberView]:
    """The fibers around the one that the holder is, or is beneath of; the first ones where there is none."""
    leads = (at for at, one in enumerate(beneath) if one.path and f"{holder}.".startswith(f"{one.path}."))
    first = max(0, min(next(leads, 0) - FIBERS_MAX // 2, len(beneath) - FIBERS_MAX))
    return beneath[first : first + FIBERS_MAX]


def _level(frame: FrameType, was: Level | None) -> Level:
    code = frame.f_code
    if was is not None and (was.function, was.file) != (code.co_qualname, code.co_filename):
        was = None
    values = {name: shown(value) for name, value in list(frame.f_locals.items())[:NAMES_MAX]}
    old = {one.name: one.value for one in was.locals} if was is not None else {}
    changes = {name: "new" if name not in old else "changed" for name in values if old.get(name) != values[name]}
    return Level(
        function=code.co_qualname,
        file=code.co_filename,
        line=frame.f_lineno,
        locals=tuple(Local(name=name, value=value, change=changes.get(name, "")) for name, value in values.items()),
        gone=tuple(name for name in old if name not in values),
    )


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the cycle collector away meanwhile: to look through a million objects of way points takes it 0.2 s."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def silenced() -> Iterator[None]:
    """Let `breakpoint()` pass while a prefix is replayed."""
    before = sys.breakpointhook
    sys.breakpointhook = lambda *_, **__: None
    try:
        yield
    finally:
        sys.breakpointhook = before
