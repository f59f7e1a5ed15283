"""A ledger of the bodies that really ran, held against the histories: `replay check --ledger FILE`.

A history cannot tell of itself that what it says was done. So each step's body writes a line of JSON to a file that the
engine knows nothing of, before it does anything else (`docs/testing.md` has the lines of Python for it):

    {"key": "order-42#1/1", "attempt": 1, "at": 1767605400.25, "pid": 4711}

    key       `step_context().idempotency_key`
    attempt   `step_context().attempt`
    at        `time.time()`: seconds since 1970, by a clock that agrees with that of the engines
    pid       anything that names the process; may be left out

Other fields are let be; those are the lines of `dalsegno.examples.ledger`, which the demo and our torture keep. The
ledger is read after the histories: a body writes before its outcome is recorded, so that an engine may go on meanwhile.
What is judged, and the rules, are in `dalsegno.core.executions`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final

import attrs

from dalsegno.core import events as ev
from dalsegno.core.errors import DataError
from dalsegno.core.events import Event
from dalsegno.core.executions import Execution, check_executions
from dalsegno.core.store import Problem, RunRecord

ROUNDING_US: Final = 1
"""`time.time()` has a quarter of a microsecond for its last digit."""

OUTCOMES: Final = (ev.StepCompleted, ev.StepFailed, ev.StepAttemptFailed)
_FORKED: Final = re.compile(r"forked from .* at (\d{1,9})", re.DOTALL)


class BadLedger(DataError):
    """A ledger that cannot be read. Facts: `path`, `line`."""


@attrs.frozen(kw_only=True)
class Compared:
    """What came of it: the problems, how many bodies the ledger has and outcomes the histories have, and how many of
    those bodies are of runs that are not in this store. `torn`: the last line has no end, and was left out."""

    problems: list[Problem]
    executions: int
    outcomes: int
    elsewhere: int
    torn: bool


@attrs.define
class Outcomes:
    """What histories say of their steps, kept until the ledger is read. `steps` are the names of those that keep a
    ledger; none named: all of them."""

    steps: Collection[str] = ()
    histories: dict[str, list[Event | None]] = attrs.field(factory=dict)
    numbers: dict[str, int] = attrs.field(factory=dict)

    def note(self, record: RunRecord, events: Sequence[Event]) -> None:
        """Take in a history. What a fork took over was executed by the run it came from."""
        started = events[0] if events else None
        forked = _FORKED.fullmatch(started.origin) if isinstance(started, ev.RunStarted) else None
        own = int(forked[1]) if forked else 0
        self.numbers[record.run_id] = record.number
        self.histories[record.run_id] = [
            event if index >= own and self._matters(event) else None for index, event in enumerate(events)
        ]

    def _matters(self, event: Event) -> bool:
        return isinstance(event, (*OUTCOMES, ev.StepStarted)) and (not self.steps or event.name in self.steps)

    def against(self, path: Path, slack_us: int = 0) -> Compared:
        """Hold a ledger against them. Raises `BadLedger`."""
        executions, torn = read_ledger(path)
        here = [one for one in executions if one.key.rpartition("/")[0] in self.histories]
        found = check_executions(here, self.histories, slack_us=slack_us + ROUNDING_US)
        return Compared(
            problems=[
                Problem(
                    f"run {self.numbers[one.run]}" if one.line is None else f"{path}:{one.line}",
                    one.run,
                    one.event,
                    one.what,
                )
                for one in found
            ],
            executions=len(executions),
            outcomes=sum(isinstance(event, OUTCOMES) for events in self.histories.values() for event in events),
            elsewhere=len(executions) - len(here),
            torn=torn,
        )


def read_ledger(path: Path) -> tuple[list[Execution], bool]:
    """The bodies of a ledger, and whether its last line has no end yet and was left out. Raises `BadLedger`."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise BadLedger(f"{path} cannot be read: {error.strerror}", path=str(path), line=None) from error
    torn = bool(lines) and not lines[-1].endswith(b"\n")
    whole = lines[:-1] if torn else lines
    return [_execution(path, number, line) for number, line in enumerate(whole, 1) if line.strip()], torn


def _execution(path: Path, number: int, line: bytes) -> Execution:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _bad(path, number, f"is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise _bad(path, number, "is no object")
    key, attempt, at = (data.get(name) for name in ("key", "attempt", "at"))
    if not isinstance(key, str) or "#" not in key or "/" not in key:
        raise _bad(path, number, f"has the key {key!r}, and no step_context().idempotency_key, as order-42#1/1 is")
    if type(attempt) is not int or attempt < 1:
        raise _bad(path, number, f"has the attempt {attempt!r}, and attempts are numbered from 1")
    if isinstance(at, bool) or not isinstance(at, int | float) or not isfinite(at):
        raise _bad(path, number, f"has the time {at!r}, and time.time() is a number of seconds")
    return Execution(key, attempt, round(at * 1e6), _process(data.get("pid")), number)


def _process(pid: Any) -> str:
    return "" if pid is None else str(pid)


def _bad(path: Path, number: int, what: str) -> BadLedger:
    return BadLedger(f"{path}, line {number}: it {what}", path=str(path), line=number)
