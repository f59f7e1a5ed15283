"""Checks of recorded histories, in the manner of Elle: what a run was promised is told from what it left behind.

    with Simulation([fulfil], seed=7) as simulation:
        simulation.start(fulfil, order).result()
        assert check_store(simulation.backend) == []

`check_history` judges one history: no message lost, doubled or out of order; no timer early, doubled, or fired after
it was cancelled; one outcome for each command, attempts numbered without a gap, nothing after the end. `check_store`
reads a store and judges all its histories, and what has to hold between them: parents and children, runs that
continued as new, timers and inboxes. `assert_sound` raises, with every violation on a line of its own. The same rules
are behind `replay check`.

Three more compare histories with what others saw. `check_delivery`: what a sender saw accepted, with what arrived.
`check_executions`: a ledger that step bodies keep, with what was recorded of them: every outcome executed at least
once, and never after. `check_grown`: what was read of a history before, with what is there: one writer for each place.

What cannot be told from histories is whether the code still fits: `dalsegno.testing.replaying`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dalsegno.core.checks import RULES, Rule, Violation, check_history
from dalsegno.core.crosschecks import check_delivery, check_together, summarise
from dalsegno.core.errors import DecodeError, StoreDamaged
from dalsegno.core.events import Event
from dalsegno.core.executions import Execution, check_executions, check_grown
from dalsegno.core.history import decode_history
from dalsegno.core.store import Backend, RunRecord

__all__ = [
    "RULES",
    "Execution",
    "Rule",
    "Violation",
    "all_records",
    "assert_sound",
    "check_delivery",
    "check_executions",
    "check_grown",
    "check_history",
    "check_store",
    "read_history",
]

PAGE = 1000
TIMERS_MAX = 10_000_000
END_OF_TIME_US = 2**62


def check_store(backend: Backend, *, steady_clock: bool = False) -> list[Violation]:
    """Everything that does not hold in a store that nobody writes to meanwhile: its own check, then every history, then
    what has to hold between them. `steady_clock` says that no clock was set back.

    >>> from dalsegno.backends.memory import MemoryBackend
    >>> with MemoryBackend() as store:
    ...     check_store(store)
    []
    """
    found = [Violation("store", each.event, each.what, each.run) for each in backend.check()]
    summaries = []
    for record in all_records(backend):
        try:
            events = read_history(backend, record)
        except (DecodeError, StoreDamaged) as error:
            found.append(Violation("readable", vars(error).get("event_index"), str(error), record.run_id))
            continue
        found += check_history(events, record, steady_clock=steady_clock)
        summaries.append(summarise(record, events, backend.inbox(record.number)))
    timers = [(due.deadline_us, due.run, due.key) for due in backend.due(END_OF_TIME_US, TIMERS_MAX)]
    return found + check_together(summaries, timers)


def assert_sound(subject: Backend | Sequence[Event], *, steady_clock: bool = False) -> None:
    """Raise `AssertionError` that lists every violation in a store, or in one history. `steady_clock`: no clock was set
    back meanwhile.

    >>> from dalsegno import Flow, Sleep, workflow
    >>> from dalsegno.testing.simulation import Simulation
    >>> @workflow
    ... def nap() -> Flow[None]:
    ...     yield from Sleep(60)
    >>> with Simulation([nap]) as simulation:
    ...     run = simulation.start(nap)
    ...     run.result()
    ...     assert_sound(run.history())
    ...     assert_sound(simulation.backend)
    """
    if isinstance(subject, Backend):
        found = check_store(subject, steady_clock=steady_clock)
    else:
        found = check_history(subject, steady_clock=steady_clock)
    if found:
        raise AssertionError("\n".join([f"{len(found)} promises are broken:", *map(str, found)]))


def all_records(backend: Backend) -> Iterator[RunRecord]:
    """Every run of a store, newest first."""
    before: int | None = None
    while page := backend.runs(before=before, limit=PAGE):
        yield from page
        before = page[-1].number


def read_history(backend: Backend, record: RunRecord) -> list[Event]:
    """A run's whole history. Raises `DecodeError` where it cannot be read."""
    records: list[bytes] = []
    while page := backend.history(record.number, len(records), PAGE):
        records += page
    return decode_history(records)
