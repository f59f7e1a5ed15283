"""The figures of a store."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.store import RunRecord, Status
from dalsegno.tools.measuring import Spread, measure, share

DAY = 86_400_000_000


def run(number: int, status: Status, created: int = 0, closed: int | None = None, **changes: Any) -> RunRecord:
    return RunRecord(
        number=number, workflow_id=f"r-{number}", generation=1, workflow="w", status=status, active=False,
        created_at_us=created, digest=b"", closed_at_us=closed, **changes,
    )  # fmt: skip


def test_success_counts_those_that_were_decided():
    """Cancelled, continued and open runs say nothing about success."""
    statuses = [Status.COMPLETED] * 3 + [Status.FAILED, Status.CANCELLED, Status.CONTINUED, Status.RUNNING]
    found = share([run(number, status) for number, status in enumerate(statuses)])
    assert found.success == pytest.approx(0.75)
    assert found.statuses["completed"] == 3
    assert share([run(1, Status.RUNNING)]).success is None
    assert share([]).took_us is None


def test_spread():
    """Least, median, 95th percentile and most."""
    assert Spread.of([]) is None
    assert Spread.of([5]) == Spread(least=5, median=5, p95=5, most=5)
    assert Spread.of(list(range(101))) == Spread(least=0, median=50, p95=95, most=100)


def test_rates_and_an_empty_store():
    """What began and ended lately is counted by window; nothing divides by nothing."""
    now = 10 * DAY
    records = [
        run(1, Status.COMPLETED, now - 5, now),
        run(2, Status.FAILED, now - DAY // 2, now - DAY // 3),
        run(3, Status.RUNNING, now - 2 * DAY),
    ]
    stats = measure(MemoryBackend.open(), records, now)
    assert stats.started == {"minute": 1, "hour": 1, "day": 2}
    assert stats.ended == {"minute": 1, "hour": 1, "day": 2}
    empty = measure(MemoryBackend.open(), [], now)
    assert (empty.events, empty.bytes_per_run, empty.events_per_run) == (0, None, None)
