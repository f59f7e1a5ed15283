"""Explaining what was yielded when it is not a command: the likely slip, and what to write instead."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Generator
from typing import Any

from dalsegno.core.commands import Command
from dalsegno.core.definitions import StepDefinition, WorkflowDefinition
from dalsegno.core.errors import AlienYield
from dalsegno.core.interpreter.frames import innermost

ASYNC_SLIP = "This is something of asyncio: async workflows await only commands. Put the waiting into an async @step."


def alien_yield(workflow: str, generator: Any, thing: Any) -> AlienYield:
    """The error for a workflow that yielded `thing`."""
    frame = innermost(generator)
    file, line = (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)
    awaits = isinstance(generator, Coroutine)
    verb = "awaited" if awaits else "yielded"
    return _error(
        f"workflow {workflow!r} {verb} {_what(thing)}", workflow, file, line, thing, likely_slip(thing, awaits)
    )


def alien_branch(workflow: str, node: str, index: int, thing: Any, file: str, line: int) -> AlienYield:
    """The error for a branch that is neither a command nor a generator."""
    slip = likely_slip(thing, False) or "A branch is a command, or a generator or coroutine of commands."
    return _error(
        f"workflow {workflow!r}: branch {index} of {node} is {_what(thing)}", workflow, file, line, thing, slip
    )


def alien_loop(error: RuntimeError) -> AlienYield:
    """The error for a workflow that called something of asyncio, which found no event loop to run in."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None and "asyncio" not in at.tb_next.tb_frame.f_code.co_filename:
        at = at.tb_next
    file, line = (at.tb_frame.f_code.co_filename, at.tb_lineno) if at is not None else ("", 0)
    called = "called something of asyncio that needs an event loop"
    return _error(f"a workflow {called}", "", file, line, error, ASYNC_SLIP)


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
        return ASYNC_SLIP
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
