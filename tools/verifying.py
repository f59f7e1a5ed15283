"""Does today's code still fit the histories that were recorded? Replays them, and groups what does not fit.

Replaying runs the workflow's generator against its recorded events, and nothing else: no step, no clock, no store. So
it can be done on a laptop, with histories of production, before a deploy.

    fits        the code yields what was recorded, to the end of the history
    diverges    at some event it yields something else; the first such event is named. Runs would be blocked there
    unknown     it cannot be told: no such workflow in the app, a payload of a class that is not here, a damaged record,
                half a history that fits as far as it goes

Many histories diverge for one reason; `grouped` puts those together that meet the same difference at the same line.

Thousands of histories are shared out among processes (`verify_in_processes`). This one reads them, as they are stored,
and the others decode and replay: so any store will do, an exported file too, and no process but this one opens it. No
more is read ahead than keeps them busy.
"""

from __future__ import annotations

import linecache
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from enum import Enum
from time import monotonic
from typing import Any, Final

import attrs

from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import AlienYield, BadOption, DalsegnoError, HistoryMismatch, UnknownDefinition
from dalsegno.core.events import Event
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.store import Backend, RunRecord
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import App, load_app
from dalsegno.tools.exported import missing_of
from dalsegno.tools.failures import NO, UNCLEAR
from dalsegno.tools.stores import Kept, kept_of, raw_history, read_run
from dalsegno.tools.timeline import Unreadable, words


class Verdict(Enum):
    """What replaying one history came to."""

    FITS = "fits"
    DIVERGES = "diverges"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Finding:
    """The verdict on one run, and where it diverges first.

    `event` is the index of the recorded event, `recorded` what it answered, `yielded` what the code yields today,
    `differs` the first field that is not the same, `cause` the likeliest reason; `line_then` and `line_now` are lines
    of `file`, `source` what stands at `line_now` today. `reason` says it all in a message.
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
    cause: str = ""
    line_then: int | None = None
    line_now: int | None = None
    file: str = ""
    source: str = ""
    reason: str = ""

    @property
    def alike(self) -> tuple[Any, ...]:
        """What findings of one group have in common."""
        if self.verdict is Verdict.DIVERGES and self.differs:
            sides = (_without_place(self.recorded), _without_place(self.yielded))
            return (self.verdict, self.workflow, *sides, self.differs, self.line_then, self.line_now, self.file)
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


CHUNK: Final = 50
"""Histories that a process gets at a time: enough that handing them over does not count."""

WAITING: Final = 3
"""Chunks that are read ahead for each process."""

ALONE_S: Final = 1.0
"""What takes no longer than this is done by one process: starting more of them takes half of it."""

Raw = tuple[RunRecord, list[bytes], Unreadable | None]


def verify_in_processes(
    store: Backend, records: Sequence[RunRecord], app: App, processes: int | None = None
) -> Iterator[Finding]:
    """The same, shared out among processes; findings come in the order of the runs. `processes` None: one for each
    processor, once it turns out to take long. Raises `BadOption` when the app makes a process die.
    """
    wanted = processes if processes is not None else multiprocessing.cpu_count()
    if processes is None or wanted == 1:
        begun, alone = monotonic(), 0
        for finding in verify(store, records, app):
            yield finding
            alone += 1
            if wanted > 1 and monotonic() - begun > ALONE_S / 2 and len(records) > 2 * alone:
                break
        records = records[alone:]
    if not records:
        return
    context = multiprocessing.get_context("spawn")  # a store that is open here must not be inherited
    with ProcessPoolExecutor(wanted, mp_context=context, initializer=_begin, initargs=(app.name,)) as pool:
        pending: deque[Future[list[Finding]] | Finding] = deque()
        try:
            for at in range(0, len(records), CHUNK):
                raw: list[Raw] = []
                for record in records[at : at + CHUNK]:
                    try:
                        raw.append((record, raw_history(store, record), missing_of(store, record)))
                    except DalsegnoError as error:
                        pending.append(_finding(record, Verdict.UNKNOWN, reason=str(error)))
                pending.append(pool.submit(_verify_chunk, raw))
                while len(pending) > wanted * WAITING:
                    yield from _found(pending.popleft())
            while pending:
                yield from _found(pending.popleft())
        except BrokenProcessPool as error:
            raise BadOption(
                f"a process that replayed histories with the code of {app.name} died; --processes 1 shows what happens"
            ) from error
        finally:
            pool.shutdown(wait=not pending, cancel_futures=True)  # nobody waits for what is not wanted any more


def _found(one: Future[list[Finding]] | Finding) -> list[Finding]:
    return [one] if isinstance(one, Finding) else one.result()


_APP: list[App] = []
"""The app of a process that replays for another one."""


def _begin(app: str) -> None:
    _APP[:] = [load_app(app)]


def _verify_chunk(chunk: list[Raw]) -> list[Finding]:
    return [verify_run(kept_of(record, records, missing), _APP[0]) for record, records, missing in chunk]


def sampled(records: Sequence[RunRecord], count: int) -> list[RunRecord]:
    """About so many of them, the same each time: spread over their age, and at least one of every workflow."""
    by_workflow: dict[str, list[RunRecord]] = {}
    for record in records:
        by_workflow.setdefault(record.workflow, []).append(record)
    chosen: list[RunRecord] = []
    for same in by_workflow.values():
        share = max(1, round(count * len(same) / len(records)))
        chosen += [same[at * len(same) // share] for at in range(min(share, len(same)))]
    return chosen


def verify_run(kept: Kept, app: App) -> Finding:
    """Replay one run."""
    record, count = kept.record, len(kept.events)
    unreadable = kept.unreadable
    if unreadable is not None and not kept.events:
        return _finding(record, Verdict.UNKNOWN, event=0, reason=unreadable.sentence)
    try:
        definition = app.workflow(record.workflow)
    except UnknownDefinition as error:
        keep = f'If it was renamed, @workflow(name="{record.workflow}") keeps the name that its runs know.'
        return _finding(record, Verdict.UNKNOWN, events=count, reason=f"{error}. {keep}", cause=keep)
    finding = attrs.evolve(replay_events(record, kept.events, definition, app.codec), events=count)
    if unreadable is None or finding.verdict is not Verdict.FITS:
        return finding
    upto = "" if unreadable.how == "doubtful" else f" up to event {unreadable.index}, which {unreadable.mark}"
    reason = f"it fits{upto}, and nobody can tell about the rest: {unreadable.why}"
    return _finding(record, Verdict.UNKNOWN, events=count, event=unreadable.index, reason=reason)


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
        cause=_said(facts.get("cause")),
        line_then=facts.get("line_then"),
        line_now=line,
        file=file,
        source=linecache.getline(file, line).strip() if line else "",
        reason=str(error),
    )


def _without_place(side: str) -> str:
    """What was recorded or yielded without its id, line and values, which differ from one round of a loop to the next.

    >>> _without_place("step 'ship' (id 2, shop.py:14) with (7)")
    "step 'ship'"
    """
    return side.partition(" (id ")[0]


def _said(fact: Any) -> str:
    return "" if fact is None else str(fact)


def _finding(record: RunRecord, verdict: Verdict, **facts: Any) -> Finding:
    return Finding(run_id=record.run_id, workflow=record.workflow, open=record.status.open, verdict=verdict, **facts)


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Findings that do not fit, by cause; groups with open runs first, then the larger ones."""
    by_cause: dict[tuple[Any, ...], list[Finding]] = {}
    for finding in findings:
        if finding.verdict is not Verdict.FITS:
            by_cause.setdefault(finding.alike, []).append(finding)
    groups = [
        Group(example=same[0], run_ids=tuple(one.run_id for one in same), open=sum(one.open for one in same))
        for same in by_cause.values()
    ]
    return sorted(groups, key=lambda group: (-group.open, -group.runs))


def answer(findings: Iterable[Finding]) -> int:
    """The exit code: 0 all fit, 1 some diverge, 2 none diverges, but of some it could not be told."""
    verdicts = {finding.verdict for finding in findings}
    return NO if Verdict.DIVERGES in verdicts else UNCLEAR if Verdict.UNKNOWN in verdicts else 0
