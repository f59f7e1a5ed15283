"""Steps that fail: how often, in how many runs right now, and with what error, gathered as events are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import attrs

from dalsegno.core.events import Event, StepAttemptFailed, StepCompleted, StepFailed
from dalsegno.core.store import RunRecord
from dalsegno.core.values.codec import Codec
from dalsegno.tools.render import summary

ERROR_MAX: Final = 160


@attrs.frozen(kw_only=True)
class Failing:
    """A step that fails: in how many open runs it is being retried now, how many attempts failed for a time and how
    many steps for good, as far as was read; the last error, of which run, and when."""

    workflow: str
    step: str
    retrying: int
    attempts: int
    failed: int
    error: str
    run_id: str
    at_us: int


@attrs.define
class _Known:
    attempts: int = 0
    failed: int = 0
    error: bytes = b""
    run_id: str = ""
    at_us: int = -1


class Troubles:
    """What is known of steps that fail, by workflow and name."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Known] = {}
        self._retrying: dict[int, dict[str, tuple[str, str]]] = {}
        """By run, and there by command."""

    def read(self, record: RunRecord, events: Iterable[Event]) -> None:
        """Take in what a run's next events say."""
        for event in events:
            if isinstance(event, StepAttemptFailed | StepFailed):
                self._failed(record, event)
            if isinstance(event, StepCompleted | StepFailed) and record.number in self._retrying:
                self._retrying[record.number].pop(event.id, None)
        if not record.status.open:
            self.forget(record.number)

    def _failed(self, record: RunRecord, event: StepAttemptFailed | StepFailed) -> None:
        about = (record.workflow, event.name)
        known = self._known.setdefault(about, _Known())
        if isinstance(event, StepAttemptFailed):
            known.attempts += 1
            self._retrying.setdefault(record.number, {})[event.id] = about
        else:
            known.failed += 1
        if event.at_us >= known.at_us:
            known.error, known.run_id, known.at_us = event.error, record.run_id, event.at_us

    def forget(self, number: int) -> None:
        """A run is over: nothing is retried there any more."""
        self._retrying.pop(number, None)

    def rows(self, codec: Codec, limit: int) -> tuple[Failing, ...]:
        """The worst first: what is being retried in most runs, then what failed last."""
        now = Counter(about for steps in self._retrying.values() for about in set(steps.values()))
        worst = sorted(self._known, key=lambda about: (-now[about], -self._known[about].at_us))
        return tuple(self._row(about, now[about], codec) for about in worst[:limit])

    def _row(self, about: tuple[str, str], retrying: int, codec: Codec) -> Failing:
        known = self._known[about]
        return Failing(
            workflow=about[0],
            step=about[1],
            retrying=retrying,
            attempts=known.attempts,
            failed=known.failed,
            error=summary(known.error, codec, is_error=True, limit=ERROR_MAX),
            run_id=known.run_id,
            at_us=known.at_us,
        )
