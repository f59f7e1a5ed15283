"""Does today's code still fit the histories that were recorded? Replays them, and groups what does not fit.

Replaying runs the workflow's generator against its recorded events, and nothing else: no step, no clock, no store. So
it can be done on a laptop, with histories of production, before a deploy.

    fits        the code yields what was recorded, to the end of the history
    diverges    at some event it yields something else; the first such event is named. Runs would be blocked there
    unknown     it cannot be told: no such workflow in the app, a payload of a class that is not here, a damaged record

Many histories diverge for one reason; `grouped` puts those together that meet the same difference at the same line.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import attrs

from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import AlienYield, DalsegnoError, HistoryMismatch, UnknownDefinition
from dalsegno.core.events import Event
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.store import Backend, RunRecord
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import App
from dalsegno.tools.failures import NO, UNCLEAR
from dalsegno.tools.stores import Kept, read_run
from dalsegno.tools.timeline import words


class Verdict(Enum):
    """What replaying one history came to."""

    FITS = "fits"
    DIVERGES = "diverges"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Finding:
    """The verdict on one run, and where it diverges first.

    `event` is the index of the recorded event, `recorded` what it answered, `yielded` what the code yields today,
    `differs` the first field that is not the same; `line_then` and `line_now` are lines of `file`, `source` what
    stands at `line_now` today. `reason` says it in a sentence.
    """

    run_id: str
    workflow: str
    open: bool
    verdict: Verdict
    events: int = 0
    event: int | None = None
    recorded: str = ""
    yielded: str = ""
    differs: str = ""
    line_then: int | None = None
    line_now: int | None = None
    file: str = ""
    source: str = ""
    reason: str = ""

    @property
    def cause(self) -> tuple[Any, ...]:
        """What findings of one group have in common."""
        if self.verdict is Verdict.DIVERGES and self.differs:
            return (self.verdict, self.workflow, self.differs, self.line_then, self.line_now, self.file)
        return (self.verdict, self.workflow, self.line_now, self.reason.replace(self.run_id, "…"))


@attrs.frozen(kw_only=True)
class Group:
    """Runs that diverge for one reason: the first found stands for all."""

    example: Finding
    run_ids: tuple[str, ...]
    open: int

    @property
    def runs(self) -> int:
        """How many they are."""
        return len(self.run_ids)


def verify(store: Backend, records: Iterable[RunRecord], app: App) -> Iterator[Finding]:
    """Replay runs against the code of an app, one after the other."""
    for record in records:
        try:
            kept = read_run(store, record)
        except DalsegnoError as error:
            yield _finding(record, Verdict.UNKNOWN, reason=str(error))
            continue
        yield verify_run(kept, app)


def verify_run(kept: Kept, app: App) -> Finding:
    """Replay one run."""
    record, count = kept.record, len(kept.events)
    if kept.unreadable is not None:
        reason = f"event {kept.unreadable.index}: {kept.unreadable.why}"
        return _finding(record, Verdict.UNKNOWN, events=count, event=kept.unreadable.index, reason=reason)
    try:
        definition = app.workflow(record.workflow)
    except UnknownDefinition as error:
        return _finding(record, Verdict.UNKNOWN, events=count, reason=str(error))
    return attrs.evolve(replay_events(record, kept.events, definition, app.codec), events=count)


def replay_events(
    record: RunRecord, events: Iterable[Event], definition: WorkflowDefinition[Any, Any], codec: Codec
) -> Finding:
    """Replay events against a workflow's code."""
    interpreter = Interpreter(definition, codec)
    try:
        interpreter.replay(list(events))
    except (HistoryMismatch, AlienYield) as error:
        return _divergence(record, error, definition)
    except DalsegnoError as error:
        return _finding(
            record,
            Verdict.UNKNOWN,
            event=vars(error).get("event_index"),
            reason=f"{words(type(error).__name__)}: {error}",
        )
    finally:
        interpreter.evict()
    return _finding(record, Verdict.FITS)


def _divergence(record: RunRecord, error: DalsegnoError, definition: WorkflowDefinition[Any, Any]) -> Finding:
    """Where the code left the history: the facts that the error carries, and the line of source they point at."""
    facts = vars(error)
    code = getattr(definition.fn, "__code__", None)
    file = _said(facts.get("source")) or (code.co_filename if code else "")
    line = facts.get("line_now") or facts.get("line")
    return _finding(
        record,
        Verdict.DIVERGES,
        event=facts.get("event_index"),
        recorded=_said(facts.get("recorded")),
        yielded=_said(facts.get("yielded")),
        differs=_said(facts.get("differs")),
        line_then=facts.get("line_then"),
        line_now=line,
        file=file,
        source=linecache.getline(file, line).strip() if line else "",
        reason=str(error),
    )


def _said(fact: Any) -> str:
    return "" if fact is None else str(fact)


def _finding(record: RunRecord, verdict: Verdict, **facts: Any) -> Finding:
    return Finding(run_id=record.run_id, workflow=record.workflow, open=record.status.open, verdict=verdict, **facts)


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Findings that do not fit, by cause; groups with open runs first, then the larger ones."""
    by_cause: dict[tuple[Any, ...], list[Finding]] = {}
    for finding in findings:
        if finding.verdict is not Verdict.FITS:
            by_cause.setdefault(finding.cause, []).append(finding)
    groups = [
        Group(example=same[0], run_ids=tuple(one.run_id for one in same), open=sum(one.open for one in same))
        for same in by_cause.values()
    ]
    return sorted(groups, key=lambda group: (-group.open, -group.runs))


def answer(findings: Iterable[Finding]) -> int:
    """The exit code: 0 all fit, 1 some diverge, 2 none diverges, but of some it could not be told."""
    verdicts = {finding.verdict for finding in findings}
    return NO if Verdict.DIVERGES in verdicts else UNCLEAR if Verdict.UNKNOWN in verdicts else 0
