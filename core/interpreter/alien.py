"""Explaining what was yielded when it is not a command: the likely slip, and what to write instead.

What belongs to an event loop is explained by the first call of its package that the workflow made: that call stands in
the workflow's own line, and says what was meant. Coroutines that nobody will await now are closed, so that Python does
not warn of them somewhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Generator, Iterable, Iterator
from types import FrameType
from typing import Any

from dalsegno.core.commands import Command
from dalsegno.core.definitions import StepDefinition, WorkflowDefinition
from dalsegno.core.errors import AlienYield
from dalsegno.core.interpreter.frames import frames

LOOPS = ("asyncio", "anyio", "sniffio", "trio")
"""Packages whose functions need an event loop, which no workflow has."""

RUNNERS = ("asyncio.runners", "asyncio.base_events")
"""Who passes here has brought a loop along (`asyncio.run`), and fails for reasons of its own."""

NO_LOOP = ("no running event loop",)

SEVERAL = "Several at once: `All(a, b)`, or `First(a, b)` for whichever comes first."
LIMIT = (
    "A limit in time: `Receive(name, type, timeout=…)`, `timeout=` of a step, or `First(done=…, late=Sleep(seconds))`."
)
LATER = "Something beside the rest: `task = await Spawn(…)`, and `await task` later."
OUTSIDE = "Waiting for others: `Receive(name, type)` for a message, `NewCallback(type)` for an answer from outside."

INSTEAD = {
    "gather": SEVERAL,
    "wait": SEVERAL,
    "as_completed": SEVERAL,
    "TaskGroup": SEVERAL,
    "create_task": LATER,
    "ensure_future": LATER,
    "Task": LATER,
    "wait_for": LIMIT,
    "timeout": LIMIT,
    "timeout_at": LIMIT,
    "Timeout": LIMIT,
    "sleep": "Waiting for a while: `Sleep(seconds)`.",
    "to_thread": "Work on a thread: a plain `@step`, without async.",
    "Queue": OUTSIDE,
    "Event": OUTSIDE,
    "Condition": OUTSIDE,
    "Future": OUTSIDE,
}
"""What a function or class of asyncio is called among the commands."""


def async_slip(package: str, called: str) -> str:
    """Why something of an event loop cannot be awaited, and what can."""
    what = f"{package}.{called}" if called else f"something of {package}"
    slip = f"This is {what}: async workflows await only commands. Put the waiting into an async @step."
    instead = INSTEAD.get(called, "")
    return f"{slip} {instead}" if instead else slip


def alien_yield(workflow: str, generator: Any, thing: Any) -> AlienYield:
    """The error for a workflow that yielded `thing`."""
    awaits = isinstance(generator, Coroutine)
    frame, package, called = own_frame(frames(generator))
    file, line = (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)
    if not package and getattr(thing, "_asyncio_future_blocking", None) is not None:
        package, called = "asyncio", {"_GatheringFuture": "gather"}.get(type(thing).__name__, type(thing).__name__)
    verb = "awaited" if awaits else "yielded"
    slip = async_slip(package, called) if package else likely_slip(thing, awaits)
    error = _error(f"workflow {workflow!r} {verb} {_what(thing)}", workflow, file, line, thing, slip)
    let_go([thing])
    return error


def alien_branch(workflow: str, node: str, index: int, thing: Any, file: str, line: int) -> AlienYield:
    """The error for a branch that is neither a command nor a generator."""
    slip = likely_slip(thing, False) or "A branch is a command, or a generator or coroutine of commands."
    return _error(
        f"workflow {workflow!r}: branch {index} of {node} is {_what(thing)}", workflow, file, line, thing, slip
    )


def needs_a_loop(error: Exception) -> bool:
    """Whether a workflow fails because it called what needs an event loop, and not with what a step of it raised."""
    of_a_step = hasattr(error, "__notes__")  # which says where it was recorded
    if of_a_step or not isinstance(error, RuntimeError | AttributeError | TypeError):
        return False
    passed = list(traceback_frames(error))
    if not passed or any(frame.f_globals.get("__name__") in RUNNERS for frame in passed):
        return False
    return error.args == NO_LOOP or package_of(passed[-1]) in LOOPS


def alien_loop(error: Exception) -> AlienYield:
    """The error for a workflow of which `needs_a_loop` is true."""
    passed = list(traceback_frames(error))
    frame, package, called = own_frame(passed)
    lines = {id(at.tb_frame): at.tb_lineno for at in _entries(error)}
    file, line = (frame.f_code.co_filename, lines[id(frame)]) if frame is not None else ("", 0)
    name = f"{package}.{called}" if package else "something of asyncio"
    for inner in passed:
        if package_of(inner) in LOOPS:
            let_go(inner.f_locals.values())
    what = f"a workflow called {name}, which needs an event loop"
    return _error(what, "", file, line, error, async_slip(package or "asyncio", called))


def own_frame(passed: Iterable[FrameType]) -> tuple[FrameType | None, str, str]:
    """Of frames from the outermost inwards, the last before those of an event loop's package; that package, and the
    function or class of it that was called."""
    found = None
    for frame in passed:
        package = package_of(frame)
        if package in LOOPS:
            called = frame.f_code.co_qualname.partition(".")[0]
            return found, package, called if frame.f_globals["__name__"] != "asyncio.events" else "get_event_loop"
        found = frame
    return found, "", ""


def package_of(frame: FrameType) -> str:
    """The outermost package of the code in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def traceback_frames(error: BaseException) -> Iterator[FrameType]:
    """The frames an error has passed, from the outermost inwards."""
    return (at.tb_frame for at in _entries(error))


def _entries(error: BaseException) -> Iterator[Any]:
    at = error.__traceback__
    while at is not None:
        yield at
        at = at.tb_next


def let_go(things: Iterable[Any]) -> None:
    """Close coroutines that have not begun and never will, also those in a list or a task."""
    for thing in things:
        if inspect.iscoroutine(thing):
            if inspect.getcoroutinestate(thing) == inspect.CORO_CREATED:
                thing.close()
        elif isinstance(thing, list | tuple | set):
            let_go(thing)
        elif getattr(thing, "_asyncio_future_blocking", None) is not None:
            let_go(getattr(thing, "_children", ()))  # of a `gather`
            _let_go_of_task(thing)


def _let_go_of_task(future: Any) -> None:
    """Forget a task that some event loop was given: where one runs, it is cancelled there."""
    if future.get_loop().is_running():
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # which nobody will ask for
        future.cancel()
    elif hasattr(future, "get_coro"):
        future._log_destroy_pending = False
        let_go([future.get_coro()])


def _error(what: str, workflow: str, file: str, line: int, thing: Any, slip: str) -> AlienYield:
    where = f"{file}:{line}" if line else "an unknown line"
    hint = slip or "A workflow yields commands: calls of steps and workflows, Sleep, Receive, All, …"
    return AlienYield(f"{what}\n  at {where}\n{hint}", workflow=workflow, source=file, line=line, yielded=_what(thing))


def _what(thing: Any) -> str:
    if thing is None:
        return "nothing (None)"
    shown = repr(thing)
    return f"{shown[:77]}…" if len(shown) > 78 else shown


def likely_slip(thing: Any, awaits: bool) -> str:
    """What was likely meant, or "" when there is no guess."""
    if getattr(thing, "_asyncio_future_blocking", None) is not None or (thing is None and awaits):
        return async_slip("asyncio", "")
    if thing is None:
        return "Was this a bare `yield`? A workflow yields commands; to wait for a while, `yield Sleep(seconds)`."
    if isinstance(thing, Generator):
        return "Did you mean `yield from`? A generator's commands are reached by `yield from …`, or as a branch of All."
    if isinstance(thing, Coroutine):
        return (
            "Did you mean `await`? A coroutine of commands is awaited in an async workflow, or is a branch of All; "
            "one that does other work is made an async @step."
        )
    if isinstance(thing, StepDefinition | WorkflowDefinition):
        return f"Did you forget to call it? `{thing.name}(…)` makes the command."
    if isinstance(thing, list | tuple | set | frozenset):
        return "Several at once are written All([…]); one after another, each with a `yield` of its own."
    if inspect.isgeneratorfunction(thing):
        return f"Did you mean `yield from {thing.__name__}(…)`? This is the generator function itself."
    if isinstance(thing, type) and issubclass(thing, Command):
        return f"Did you mean {thing.__name__}(…)? This is the class, not a command."
    if callable(thing):
        return "A function is run by making it a @step and yielding a call of it."
    return ""
