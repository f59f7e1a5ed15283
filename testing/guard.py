"""The determinism guard: catches workflow code asking the machine for the time, for chance or for files, as it happens.

    with determinism_guard(mode="raise"):
        Simulation([fulfil]).start(fulfil, order).result()

`raise` raises `NondeterministicCall` at the offending line, so that the run fails there; `warn` issues a
`DeterminismWarning` that names the line; `collect` only remembers. Whichever the mode, `guard.findings` says what was
found: which workflow, what was called, at which file and line, why it matters and what to write instead.

How it looks. Nothing is patched, so nobody else notices. The interpreter tells the guard of every generator before it
is driven. From CPython 3.12 on, `sys.monitoring` then reports the calls made by that generator's code and by the
functions it calls, as they are called, and the start of the functions that are looked out for (`random.randint`,
`uuid.uuid4`): code that no workflow runs is as fast as before. On 3.11 the code is read first (`foresight`); where all
that it can call is seen to be harmless, it runs as ever, and elsewhere a profile function is set while the generator is
driven, and only then; where another profiler is at work, the guard steps aside. Off, it costs one comparison a fiber.

What it does not see: calls that C code makes of C functions (`map(time.time, …)` apart from its first argument,
`functools.partial(time.time)`, a `default` in a C type), properties and operators of objects whose class the workflow
does not name; order of sets, `id` and `hash`, which are no calls of anything. `replay lint` reads the source for those.

It is for tests and for a staging system: one guard is on at a time in a process, for all its engines. Measured on
workflows of steps that do nothing, it costs 1 to 3 % of a simulated step, and nothing to be told from noise where a
hundred runs share each flush; `make bench` has a row for it. On 3.11 it takes a millisecond or two to read a workflow's
code, and one that leaves a doubt (it calls a method of an argument, a function out of a dict) costs 2 to 4 µs a step.
"""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    TracebackType,
)
from typing import Any, Final, Literal, Protocol, Self, cast

import attrs

from dalsegno.core.commands import Map
from dalsegno.core.errors import BadOption, UseError, WorkflowError
from dalsegno.core.interpreter import fiber
from dalsegno.testing.foresight import Foresight
from dalsegno.testing.suspects import Place, Suspect, applies, is_watched, place_in_workflow, suspects

Mode = Literal["raise", "warn", "collect"]
MODES: Final = ("raise", "warn", "collect")


class NondeterministicCall(WorkflowError):
    """Workflow code asked the machine for something that a replay cannot give it again.

    Facts: `workflow`, `call`, `rule`, `file`, `line`, `instead`.
    """


class DeterminismWarning(UserWarning):
    """The same as a warning, at the line it is about."""


@attrs.frozen
class Finding:
    """A call that workflow code made and must not make. `count` is how often; `str()` says all of it."""

    workflow: str
    call: str
    rule: str
    file: str
    line: int
    why: str
    instead: str
    count: int = 1

    def __str__(self) -> str:
        return (
            f"workflow {self.workflow!r} called {self.call} at {self.file}:{self.line}: {self.why}. "
            f"Write instead: {self.instead}"
        )


class Guard:
    """A guard that is on, or was. Made by `determinism_guard`."""

    def __init__(self, mode: Mode) -> None:
        if mode not in MODES:
            raise BadOption(f"determinism_guard(mode={mode!r}): one of {', '.join(map(repr, MODES))}")
        self.mode = mode
        self._found: dict[tuple[str, str, str, int], Finding] = {}
        self._lock = threading.Lock()
        self._raised: NondeterministicCall | None = None
        self._watch: Watch | None = None

    @property
    def findings(self) -> list[Finding]:
        """What was found, in the order it was first met: one for each workflow, rule and line."""
        with self._lock:
            return list(self._found.values())

    def __enter__(self) -> Self:
        if fiber.watch is not None:
            raise UseError("a determinism guard is on in this process already; one is enough for all its engines")
        self._watch = Monitoring(self._met) if hasattr(sys, "monitoring") else Profiling(self._met)
        fiber.watch = self._watch.generator
        return self

    def stop(self) -> None:
        """Look no more; what was found stays."""
        watch, self._watch = self._watch, None
        if watch is not None:
            fiber.watch = None
            watch.stop()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()
        if error is None and self._raised is not None:
            raise self._raised  # a workflow that swallowed it, or a run whose result nobody asked for, does not hide it

    def _met(self, suspect: Suspect, place: Place, workflow: str) -> None:
        """Workflow code called a suspect."""
        hazard = suspect.hazard
        call = suspect.name if suspect.name in hazard.reads else f"{suspect.name}()"
        finding = Finding(workflow, call, hazard.rule, place.file, place.line, hazard.why, hazard.instead)
        key = (workflow, hazard.rule, place.file, place.line)
        with self._lock:
            before = self._found.get(key)
            self._found[key] = finding if before is None else attrs.evolve(before, count=before.count + 1)
        if self.mode == "raise":
            facts = {name: getattr(finding, name) for name in ("workflow", "call", "rule", "file", "line", "instead")}
            raised = NondeterministicCall(str(finding), **facts)
            self._raised = self._raised or NondeterministicCall(str(finding), **facts)
            raise raised
        if self.mode == "warn" and before is None:
            warnings.warn_explicit(str(finding), DeterminismWarning, place.file, place.line)


def determinism_guard(mode: Mode = "raise") -> Guard:
    """A guard, to be switched on by `with`. Raises `BadOption` for an unknown mode, and on entering `UseError` where
    one is on already.

    >>> import time
    >>> from dalsegno import Sleep, workflow
    >>> from dalsegno.testing.simulation import Simulation
    >>> @workflow
    ... def late():
    ...     began = time.time()
    ...     yield Sleep(1)
    >>> with determinism_guard(mode="collect") as guard, Simulation([late]) as simulation:
    ...     simulation.start(late).result()
    >>> guard.findings[0].call, guard.findings[0].count
    ('time.time()', 1)
    """
    return Guard(mode)


# --- how it looks --------------------------------------------------------------------------------------------------

Met = Callable[[Suspect, Place, str], None]
INSIDE: ContextVar[str] = ContextVar("dalsegno_inside")
"""Set in a run's own context, so in whatever thread its code runs, and nowhere else: the workflow's name."""


class Watch(Protocol):
    """A way of looking at what workflow code calls."""

    def generator(self, workflow: str, generator: Any) -> fiber.Drive:
        """A generator is going to be driven: answer how."""

    def stop(self) -> None:
        """Look no more."""


class Profiling:
    """CPython 3.11: a profile function, set for as long as a generator is driven."""

    def __init__(self, met: Met) -> None:
        self._met: Met | None = met
        self._suspects = suspects()
        self._foresight = Foresight(self._suspects)

    def stop(self) -> None:
        self._met = None  # generators that live on are driven as before, and nobody hears of it

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
                    return attrs.evolve(
                        cast(Any, answer), fn=watched(answer.fn)
                    )  # which the interpreter is going to call
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
        if (frame.f_globals.get("__name__") or "").partition(".")[0] in sys.stdlib_module_names:
            return  # what the standard library's own functions use is known by their names
        self._tell(self._suspects.builtins[function], frame)

    def _started(self, frame: FrameType) -> None:
        suspect = self._suspects.codes.get(frame.f_code)
        if suspect is not None and applies(suspect, frame):
            self._tell(suspect, frame.f_back)

    def _tell(self, suspect: Suspect, frame: FrameType | None) -> None:
        place = place_in_workflow(frame)
        if place is not None and self._met is not None:
            self._met(suspect, place, INSIDE.get(""))


class Monitoring:
    """CPython 3.12 and later: events of `sys.monitoring`, for the code objects that concern workflows only."""

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
                self._tell(self._suspects.builtins[called], sys._getframe(1))
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
        if place is not None:
            self._met(suspect, place, workflow or "")
