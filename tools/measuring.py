"""How much there is, how it went, and how fast: the figures of `replay stats`.

What a store counts by itself comes from the store; the rest from the records of the runs, in one pass, and from the
length of each history. Rates are of what began and ended in the last minute, hour and day before `now_us`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from dalsegno.core.queues import QueueState
from dalsegno.core.store import Backend, RunRecord, Status
from dalsegno.tools.queues import queue_states

WINDOWS: Final = {"minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000}


@attrs.frozen(kw_only=True)
class Spread:
    """How a figure is spread over runs."""

    least: int
    median: int
    p95: int
    most: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Spread | None:
        """The spread of values; None of none."""
        if not values:
            return None
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(least=ordered[0], median=ordered[last // 2], p95=ordered[round(last * 0.95)], most=ordered[-1])


@attrs.frozen(kw_only=True)
class Share:
    """The runs of one workflow, or of all. `success` is the share of COMPLETED among those that completed, failed or
    were terminated (a cancelled run did what it was asked to, a continued one goes on); None while there are none."""

    runs: int
    statuses: dict[str, int]
    success: float | None
    took_us: Spread | None
    """How long closed runs took from creation to end."""


@attrs.frozen(kw_only=True)
class Stats:
    """Everything `replay stats` shows."""

    store: dict[str, int]
    all: Share
    workflows: dict[str, Share]
    events: int
    events_per_run: Spread | None
    bytes_per_run: float | None
    bytes_per_event: float | None
    started: dict[str, int]
    ended: dict[str, int]
    queues: tuple[QueueState, ...] = ()
    at_us: int = 0


def measure(store: Backend, records: Iterable[RunRecord], now_us: int) -> Stats:
    """Take the figures of a store and of these runs of it."""
    kept: list[RunRecord] = []
    lengths: list[int] = []
    for record in records:
        kept.append(record)
        lengths.append(store.head(record.number))
    figures = store.stats()
    by_workflow: dict[str, list[RunRecord]] = {}
    for record in kept:
        by_workflow.setdefault(record.workflow, []).append(record)
    payload, events = figures.get("events_bytes", 0), sum(lengths)
    return Stats(
        store=figures,
        all=share(kept),
        workflows={name: share(found) for name, found in sorted(by_workflow.items())},
        events=events,
        events_per_run=Spread.of(lengths),
        bytes_per_run=payload / len(kept) if kept else None,
        bytes_per_event=payload / events if events else None,
        started={name: sum(now_us - r.created_at_us <= span for r in kept) for name, span in WINDOWS.items()},
        ended={
            name: sum(r.closed_at_us is not None and now_us - r.closed_at_us <= span for r in kept)
            for name, span in WINDOWS.items()
        },
        queues=tuple(queue_states(store)),
        at_us=now_us,
    )


def share(records: Sequence[RunRecord]) -> Share:
    """The figures of some runs."""
    counts = Counter(record.status for record in records)
    decided = counts[Status.COMPLETED] + counts[Status.FAILED] + counts[Status.TERMINATED]
    return Share(
        runs=len(records),
        statuses={status.value: counts[status] for status in Status if counts[status]},
        success=counts[Status.COMPLETED] / decided if decided else None,
        took_us=Spread.of([r.closed_at_us - r.created_at_us for r in records if r.closed_at_us is not None]),
    )
