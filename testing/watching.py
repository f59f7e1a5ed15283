"""How a determinism guard sees what workflow code calls; two ways, by the release of Python.

The interpreter tells the watch of every generator before that is driven. From CPython 3.12 on, `sys.monitoring` then
reports the calls made by that generator's code and by the functions it calls, as they are called, and the start of the
functions that are looked out for (`random.randint`, `uuid.uuid4`): code that no workflow runs is as fast as before. On
3.11 the code is read first (`foresight`); where all that it can call is seen to be harmless, it runs as ever, and
elsewhere a profile function is set while the generator is driven, and only then; where another profiler is at work, the
guard steps aside.

One watch looks at a time, for whatever it sees belongs to one guard: they take turns.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodDescriptorType, MethodType
from typing import Any, Final, Protocol

import attrs

from dalsegno.core.commands import Map
from dalsegno.core.errors import UseError
from dalsegno.core.interpreter import fiber
from dalsegno.testing.foresight import Foresight
from dalsegno.testing.suspects import Place, Suspect, applies, counts, is_watched, place_in_workflow, suspects

Met = Callable[[Suspect, Place, str], None]
INSIDE: ContextVar[str] = ContextVar("dalsegno_inside")
"""Set in a run's own context, so in whatever thread its code runs, and nowhere else: the workflow's name."""


class Watch(Protocol):
    """A way of looking at what workflow code calls. While it is `silent` it finds nothing: another one looks."""

    silent: bool

    def generator(self, workflow: str, generator: Any) -> fiber.Drive:
        """A generator is going to be driven: answer how."""

    def stop(self) -> None:
        """Look no more."""


_ON: Final[list[Watch]] = []
"""Those that are on in this process. The last one looks."""

_CHANGING: Final = threading.Lock()


def watch_for(met: Met) -> Watch:
    """A watch that calls `met(suspect, place, workflow)` for what it sees, once it looks. Raises `UseError` where it
    cannot."""
    return Monitoring(met) if hasattr(sys, "monitoring") else Profiling(met)


def look(watch: Watch) -> None:
    """Have this one look, in place of all others that are on."""
    if not _ON or _ON[-1] is not watch:
        with _CHANGING:
            _ON[:] = [each for each in _ON if each is not watch] + [watch]
            _take_turns()


def stop(watch: Watch) -> None:
    """Have this one look no more; the one that looked before it does."""
    with _CHANGING:
        _ON.remove(watch)
        _take_turns()
    watch.stop()


def _take_turns() -> None:
    for watch in _ON:
        watch.silent = watch is not _ON[-1]
    fiber.watch = _ON[-1].generator if _ON else None


class Profiling:
    """CPython 3.11: a profile function, set for as long as a generator is driven."""

    silent = False

    def __init__(self, met: Met) -> None:
        self._met = met
        self._suspects = suspects()
        self._foresight = Foresight(self._suspects)

    def stop(self) -> None:
        self.silent = True  # generators that live on are driven as before, and nobody hears of it

    def generator(self, workflow: str, generator: Any) -> fiber.Drive:
        send, throw, profile, setprofile = generator.send, generator.throw, self._profile(), sys.setprofile
        if self._foresight.clears(generator) or sys.getprofile() is not None:  # somebody else's, who was there first
            return send, throw
        INSIDE.set(workflow)

        def watched(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def under_watch(*arguments: Any) -> Any:
                setprofile(profile)
                try:
                    answer: Any = function(*arguments)
                finally:
                    setprofile(None)
                if type(answer) is Map and isinstance(answer.fn, FunctionType | MethodType):
                    command: Any = answer
                    answer = attrs.evolve(command, fn=watched(answer.fn))  # the interpreter is going to call it
                return answer

            return under_watch

        return watched(send), watched(throw)

    def _profile(self) -> Callable[[FrameType, str, Any], None]:
        # Called some fifteen times for a step. Names are looked up before code, whose hash is slow to compute.
        builtins, builtin, started = self._suspects.builtins, self._builtin, self._started
        names = frozenset(code.co_name for code in self._suspects.codes)

        def profile(frame: FrameType, event: str, arg: Any) -> None:
            if event == "call":
                if frame.f_code.co_name in names:
                    started(frame)
            elif event == "c_call" and arg in builtins:
                builtin(frame, arg)

        return profile

    def _builtin(self, frame: FrameType, function: Any) -> None:
        suspect = self._suspects.builtins[function]
        if counts(suspect, frame):
            self._tell(suspect, frame)

    def _started(self, frame: FrameType) -> None:
        suspect = self._suspects.codes.get(frame.f_code)
        if suspect is not None and applies(suspect, frame):
            self._tell(suspect, frame.f_back)

    def _tell(self, suspect: Suspect, frame: FrameType | None) -> None:
        place = place_in_workflow(frame)
        if place is not None and not self.silent:
            self._met(suspect, place, INSIDE.get(""))


class Monitoring:
    """CPython 3.12 and later: events of `sys.monitoring`, for the code objects that concern workflows only."""

    silent = False

    def __init__(self, met: Met) -> None:
        self._met = met
        self._suspects = suspects()
        self._followed: dict[int, CodeType] = {}  # by identity: code of a function made twice is equal
        self._classes: set[type] = set()
        self._monitoring: Any = getattr(sys, "monitoring")  # noqa: B009  # not there in the oldest release we support
        self._tool = self._free_tool()
        events = self._monitoring.events
        self._monitoring.register_callback(self._tool, events.CALL, self._called)
        self._monitoring.register_callback(self._tool, events.PY_START, self._started)
        for code in self._suspects.codes:
            self._monitoring.set_local_events(self._tool, code, events.PY_START)

    def _free_tool(self) -> int:
        for number in (4, 3, 5, 2, 1, 0):  # the first two are nobody's by convention
            if self._monitoring.get_tool(number) is None:
                self._monitoring.use_tool_id(number, "dalsegno determinism guard")
                return number
        raise UseError("all six tools of sys.monitoring are in use, so the determinism guard cannot look")

    def stop(self) -> None:
        for code in [*self._suspects.codes, *self._followed.values()]:
            self._monitoring.set_local_events(self._tool, code, 0)
        for event in (self._monitoring.events.CALL, self._monitoring.events.PY_START):
            self._monitoring.register_callback(self._tool, event, None)
        self._monitoring.free_tool_id(self._tool)

    def generator(self, workflow: str, generator: Any) -> fiber.Drive:
        INSIDE.set(workflow)
        code = getattr(generator, "gi_code", None) or getattr(generator, "cr_code", None)
        if code is not None and id(code) not in self._followed:
            self._follow_code(code)
        return generator.send, generator.throw

    # --- following calls ---------------------------------------------------------------------------------------------

    def _follow_code(self, code: CodeType) -> None:
        """Have the calls of this code reported, and of the functions and comprehensions written inside it."""
        self._followed[id(code)] = code
        if code not in self._suspects.codes:
            self._monitoring.set_local_events(self._tool, code, self._monitoring.events.CALL)
        for inner in code.co_consts:
            if isinstance(inner, CodeType) and id(inner) not in self._followed:
                self._follow_code(inner)

    def _follow(self, called: Any) -> None:
        """Have the calls of what is called reported as well."""
        if isinstance(called, MethodType):
            called = called.__func__
        if isinstance(called, FunctionType):
            code = called.__code__
            if id(code) not in self._followed:
                if is_watched(called):
                    self._follow_code(code)
                else:
                    self._followed[id(code)] = code
        elif isinstance(called, type) and called not in self._classes:
            self._classes.add(called)
            for base in called.__mro__:
                for member in list(vars(base).values()):
                    if isinstance(member, FunctionType | staticmethod | classmethod | property):
                        self._follow_member(member)

    def _follow_member(self, member: Any) -> None:
        if isinstance(member, property):
            for accessor in (member.fget, member.fset):
                if isinstance(accessor, FunctionType):
                    self._follow(accessor)
        else:
            self._follow(getattr(member, "__func__", member))

    # --- what is reported --------------------------------------------------------------------------------------------

    def _called(self, code: CodeType, offset: int, called: Any, first: Any) -> None:
        kind = type(called)
        if kind is BuiltinFunctionType:
            if called in self._suspects.builtins:
                suspect, frame = self._suspects.builtins[called], sys._getframe(1)
                if counts(suspect, frame):
                    self._tell(suspect, frame)
        elif kind is FunctionType:
            if id(called.__code__) not in self._followed:
                self._follow(called)
        elif kind is MethodType or isinstance(called, type):
            self._follow(called)
        elif kind is not MethodDescriptorType:
            self._follow(type(called).__call__)
            self._follow(getattr(called, "__wrapped__", None))  # what `functools.lru_cache` made is of C
        if type(first) is FunctionType:
            self._follow(first)

    def _started(self, code: CodeType, offset: int) -> None:
        if INSIDE.get(None) is None:
            return
        frame = sys._getframe(1)
        suspect = self._suspects.codes[code]
        if applies(suspect, frame):
            self._tell(suspect, frame.f_back)

    def _tell(self, suspect: Suspect, frame: FrameType | None) -> None:
        workflow = INSIDE.get(None)
        place = place_in_workflow(frame) if workflow is not None else None
        if place is not None and not self.silent:
            self._met(suspect, place, workflow or "")
