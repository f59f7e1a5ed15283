"""What has to hold in the histories of a store, for `replay check`: read here, judged by `dalsegno.core.checks`.

A store's own `check` verifies checksums and its indexes. This reads every history, and what lies beside it. An engine
may be at work meanwhile: a run that ends while it is read is read again; what has to hold between runs is told only if
nobody wrote while they were read, as a parent read before its child would be said to have missed its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import attrs

from dalsegno.core import events as ev
from dalsegno.core.checks import Violation, check_history
from dalsegno.core.crosschecks import Summary, check_together, summarise
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.events import Event
from dalsegno.core.queues import Task
from dalsegno.core.store import Backend, Problem, RunRecord
from dalsegno.tools.stores import read_run

TIMERS_MAX = 10_000_000
END_OF_TIME_US = 2**62


@attrs.frozen
class Checked:
    """What was found wrong, and whether what has to hold between runs could be told."""

    problems: list[Problem]
    together: bool


def problems_of(record: RunRecord, events: Sequence[Event]) -> list[Problem]:
    """Everything that does not hold inside one history, as the store's own `check` words it."""
    return [_problem(record, found) for found in check_history(events, record)]


Note = Callable[[RunRecord, Sequence[Event]], None]
"""What is told of every history that could be read."""


def check_runs(store: Backend, records: Iterable[RunRecord], note: Note | None = None) -> Checked:
    """Read these runs, which should be all, and say what does not hold in them and between them."""
    before = store.changes()
    problems: list[Problem] = []
    beside: list[Problem] = []
    summaries: dict[str, Summary] = {}
    records_read: dict[str, RunRecord] = {}
    for record in records:
        found, summary = _inside(store, record, note, beside)
        problems += found
        if summary is not None:
            summaries[summary.run], records_read[summary.run] = summary, record
    timers = [(due.deadline_us, due.run, due.key) for due in store.due(END_OF_TIME_US, TIMERS_MAX)]
    together = store.changes() == before
    if together:
        problems += beside
        problems += [_problem(records_read[each.run], each) for each in check_together(summaries.values(), timers)]
    return Checked(problems, together)


def _inside(
    store: Backend, record: RunRecord, note: Note | None, beside: list[Problem]
) -> tuple[list[Problem], Summary | None]:
    """What is wrong inside one history; a damaged record has been reported by the store itself. What is wrong between
    the history and the run's tasks, unless somebody has written meanwhile, is put `beside`."""
    try:
        kept = read_run(store, record)
        while (latest := store.record(record.number)) is not None and latest.status is not kept.record.status:
            kept = read_run(store, latest)  # the engine went on meanwhile
        inbox, tasks = store.inbox(record.number), store.tasks_of(record.number)
    except StoreDamaged:
        return [], None
    if kept.unreadable is not None and kept.unreadable.how != "doubtful":  # a doubt is that of a whole file
        where = Problem(f"run {record.number}", record.run_id, kept.unreadable.index, kept.unreadable.sentence)
        return [where], None
    if note is not None:
        note(kept.record, kept.events)
    beside += tasks_out_of_place(kept.record, kept.events, tasks)
    return problems_of(kept.record, kept.events), summarise(kept.record, kept.events, inbox)


def tasks_out_of_place(record: RunRecord, events: Sequence[Event], tasks: Sequence[Task]) -> list[Problem]:
    """Tasks at queues that a run's history does not wait for: of steps that have ended, or of another attempt."""
    ended = {event.id for event in events if isinstance(event, ev.StepCompleted | ev.StepFailed)}
    failed = Counter(event.id for event in events if isinstance(event, ev.StepAttemptFailed))
    problems = []
    for task in tasks:
        what = f"step {task.name!r} ({task.step}) is out at queue {task.queue!r} as attempt {task.attempt}, and "
        if task.step in ended:
            what += "the history has its end"
        elif task.attempt != failed[task.step] + 1:
            what += f"the history has {failed[task.step]} attempts of it that failed"
        else:
            continue
        problems.append(Problem(f"task {task.number}", record.run_id, None, what))
    return problems


def _problem(record: RunRecord, found: Violation) -> Problem:
    return Problem(f"run {record.number}", record.run_id, found.event, found.what)
