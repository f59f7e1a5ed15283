"""The determinism guard: catches workflow code asking the machine for the time, for chance or for files, as it happens.

    with determinism_guard(mode="raise"):
        Simulation([fulfil]).start(fulfil, order).result()

`raise` raises `NondeterministicCall` at the offending line, so that the run fails there; `warn` issues a
`DeterminismWarning` that names the line; `collect` only remembers. Whichever the mode, `guard.findings` says what was
found: which workflow, what was called, at which file and line, why it matters and what to write instead.

How it looks is told in `dalsegno.testing.watching`. Nothing is patched, so nobody else notices; off, it costs one
comparison a fiber.

What it does not see: calls that C code makes of C functions (`map(time.time, …)` apart from its first argument,
`functools.partial(time.time)`, a `default` in a C type), properties and operators of objects whose class the workflow
does not name; the order of sets, which is no call of anything. `replay lint` reads the source for those.

It is for tests and for a staging system: one guard looks at a time, at all engines of the process. Measured on
workflows of steps that do nothing, it costs 1 to 3 % of a simulated step, and of one where a hundred runs share each
flush; `make bench` has a row for it. On 3.11 it takes a millisecond or two to read a workflow's code, and one that
leaves a doubt (it calls a method of an argument, a function out of a dict) costs 2 to 4 µs a step.
"""

from __future__ import annotations

import threading
import warnings
from types import TracebackType
from typing import Final, Literal, Self

import attrs

from dalsegno.core.errors import BadOption, UseError, WorkflowError
from dalsegno.testing import watching
from dalsegno.testing.suspects import Place, Suspect

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
        self._watch: watching.Watch | None = None

    @property
    def findings(self) -> list[Finding]:
        """What was found, in the order it was first met: one for each workflow, rule and line."""
        with self._lock:
            return list(self._found.values())

    def __enter__(self) -> Self:
        if self._watch is not None:
            raise UseError("this determinism guard is on already; make another one for what is inside")
        self._watch = watching.watch_for(self._met)
        self.lead()
        return self

    def lead(self) -> None:
        """Look in place of all other guards that are on, until they do so or this one ends. One that was just switched
        on does; a simulation's does whenever the simulation is driven."""
        if self._watch is not None:
            watching.look(self._watch)

    def stop(self) -> None:
        """Look no more; what was found stays."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watching.stop(watch)

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
    """A guard, to be switched on by `with`. Inside another one it takes its place until it ends. Raises `BadOption` for
    an unknown mode.

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
