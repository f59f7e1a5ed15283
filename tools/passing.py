"""Which lines of the workflows' source open runs stand at, and which they have passed.

`replay` finds it out by replaying each history, with nothing but the workflow's code running. A line is *stood at* by a
run when one of its fibers waits there, and *held* when a generator further out has delegated from there.

A line is *passed* when a replay runs it. That is what matters for a change: a replay goes through it again, so what it
yields may not be changed without `Patched`, whereas a line that no open run has reached is free to change. Lines inside
a finished scope are not replayed and so not passed; changing those is free as well. Lines are traced in the source
files of the app alone, generators and plain helpers alike, by `sys.settrace`, which costs a replay some ten times its
time. Lines of plain functions and of generators are both counted; step bodies never run in a replay.

What could not be replayed to its end is named with the reason, since nothing is known of it beyond. The line that an
event was recorded at is kept without its file; it is taken for one of the file that defines the workflow.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import attrs

from dalsegno.core.definitions import Definition
from dalsegno.core.errors import DalsegnoError
from dalsegno.core.interpreter import FiberView, Interpreter
from dalsegno.core.store import Backend, RunRecord
from dalsegno.tools.app import App
from dalsegno.tools.stores import read_run
from dalsegno.tools.walking import silenced

Place = tuple[str, int]
SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE


@attrs.frozen
class Untold:
    """A run that could not be replayed to its end, and why."""

    run_id: str
    why: str


@attrs.define
class Lines:
    """What is known of each line, by file and line: the runs that stand there, hold it, passed it; recorded lines."""

    runs: int = 0
    stood: dict[Place, list[str]] = attrs.field(factory=dict)
    held: dict[Place, list[str]] = attrs.field(factory=dict)
    passed: dict[Place, set[str]] = attrs.field(factory=dict)
    recorded: dict[Place, set[str]] = attrs.field(factory=dict)
    untold: list[Untold] = attrs.field(factory=list)


@attrs.frozen
class Function:
    """A function of a workflow's source: its lines that can run, and whether it yields commands."""

    file: str
    name: str
    first: int
    lines: tuple[int, ...]
    suspends: bool

    @property
    def last(self) -> int:
        """Its last line."""
        return max(self.lines)


def look(store: Backend, records: Iterable[RunRecord], app: App, *, trace: bool) -> Lines:
    """Replay runs, and note where they stand; with `trace`, which lines they passed as well."""
    lines, files = Lines(), files_of(app)
    linecache.checkcache()  # whoever edits the source meanwhile sees it as it is now
    for record in records:
        lines.runs += 1
        try:
            _look_at(lines, store, record, app, files if trace else frozenset())
        except DalsegnoError as error:
            lines.untold.append(Untold(record.run_id, f"{type(error).__name__}: {error}"))
    return lines


def _look_at(lines: Lines, store: Backend, record: RunRecord, app: App, files: frozenset[str]) -> None:
    definition, kept = app.workflow(record.workflow), read_run(store, record)
    if kept.unreadable is not None:
        lines.untold.append(Untold(record.run_id, kept.unreadable.sentence))
    file = file_of(definition)
    for event in kept.events:
        if line := getattr(event, "line", 0):
            lines.recorded.setdefault((file, line), set()).add(record.run_id)
    interpreter, hit = Interpreter(definition, app.codec), set[Place]()
    try:
        with silenced(), tracing(files, hit):
            interpreter.replay(kept.events)
        stood, held = set[Place](), set[Place]()
        if interpreter.outcome is None:
            _places(interpreter.fibers(), stood, held)
        for place in stood:
            lines.stood.setdefault(place, []).append(record.run_id)
        for place in held - stood:
            lines.held.setdefault(place, []).append(record.run_id)
    finally:
        interpreter.evict()
        for place in hit:
            lines.passed.setdefault(place, set()).add(record.run_id)


def _places(fiber: FiberView, stood: set[Place], held: set[Place]) -> None:
    for depth, frame in enumerate(fiber.frames):
        innermost = depth == len(fiber.frames) - 1
        (stood if innermost else held).add((frame.f_code.co_filename, frame.f_lineno))
    for one in fiber.beneath:
        _places(one, stood, held)


@contextmanager
def tracing(files: frozenset[str], hit: set[Place]) -> Iterator[None]:
    """Note the lines of these files that run meanwhile, in this thread; without files, nothing is traced."""
    if not files:
        yield
        return

    def local(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        if event == "line":
            hit.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def begins(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        return local if frame.f_code.co_filename in files else None

    before = sys.gettrace()
    sys.settrace(begins)
    try:
        yield
    finally:
        sys.settrace(before)


# --- the source ----------------------------------------------------------------------------------------------------


def file_of(definition: Definition) -> str:
    """The source file of a definition; empty where it has none."""
    code = _code_of(definition)
    return code.co_filename if code is not None else ""


def _code_of(definition: Definition) -> CodeType | None:
    code: CodeType | None = getattr(inspect.unwrap(definition.fn), "__code__", None)
    return code


def files_of(app: App) -> frozenset[str]:
    """The source files an app is made of: those of its definitions, and of modules beside them in the same package
    whose generators they may delegate to."""
    files = {file_of(one) for one in app.definitions} - {""}
    packages = {one.fn.__module__.rpartition(".")[0] for one in app.definitions} - {""}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(name.startswith(f"{package}.") for package in packages):
            files.add(file)
    return frozenset(files)


def functions_of(app: App, lines: Lines) -> list[Function]:
    """The functions to tell of: those that yield commands, in the files of the app's workflows, and whatever else ran.

    Step bodies are left out, and so are functions of other files in which nothing ran.
    """
    steps = {_key(code) for one in app.steps.values() if (code := _code_of(one)) is not None}
    files = {file_of(one) for one in app.workflows.values()} | {file for file, _ in lines.passed}
    found: list[Function] = []
    for file in sorted(files - {""}):
        touched = {line for name, line in (*lines.passed, *lines.stood, *lines.held) if name == file}
        found += [
            function
            for code in sorted(_codes(file), key=lambda code: code.co_firstlineno)
            if _key(code) not in steps and (function := _function(file, code)) is not None
            if function.suspends or touched & set(function.lines)
        ]
    return found


def _key(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _codes(file: str) -> Iterator[CodeType]:
    """The code of every function in a file, those in classes included; compiled and not run."""
    try:
        todo = [compile("".join(linecache.getlines(file)), file, "exec", dont_inherit=True)]
    except (SyntaxError, ValueError):  # edited while it runs
        return
    while todo:
        code = todo.pop()
        todo += [one for one in code.co_consts if isinstance(one, CodeType)]
        if code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<"):
            yield code


def _function(file: str, code: CodeType) -> Function | None:
    """A function with its lines, those of comprehensions and lambdas in it included; those of its head are none."""
    own = {line for _, _, line in code.co_lines() if line}
    for one in code.co_consts:
        if isinstance(one, CodeType) and one.co_name.startswith("<"):
            own |= {line for _, _, line in one.co_lines() if line}
    body = tuple(sorted(line for line in own if line != code.co_firstlineno)) or tuple(own)
    if not body:
        return None
    return Function(file, code.co_qualname, code.co_firstlineno, body, bool(code.co_flags & SUSPENDS))
