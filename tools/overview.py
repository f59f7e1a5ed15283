"""How a frame of `replay top` looks: tables for people, data for `--json`. Pure, like `render`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import attrs
from rich.console import Group, RenderableType
from rich.text import Text

from dalsegno.core.store import Status
from dalsegno.tools.queues import queue_data, queues_table, without_idle_twins
from dalsegno.tools.render import STATUS_STYLES, table, text
from dalsegno.tools.text import clean, clock, duration, iso, size
from dalsegno.tools.troubles import Failing
from dalsegno.tools.watching import Frame, Rates, Waiting

ROWS: Final = 10
HEAD_LINES: Final = 3  # above the tables
TABLE_LINES: Final = 4  # of a table besides its rows: the line above, its head, and what says how many more there are
NAME_MAX: Final = 32


def overview(frame: Frame, url: str, height: int | None = None) -> RenderableType:
    """A frame as it fits on so many lines."""
    queues = without_idle_twins(frame.queues)
    needs = [min(ROWS, len(one)) for one in (frame.workflows, queues, frame.failing, frame.waiting)]
    if height is not None:
        needs = shared(needs, height - HEAD_LINES - TABLE_LINES * sum(map(bool, needs)))
    parts: list[RenderableType] = [_head(frame, url), _statuses(frame), _rates(frame)]
    for rows, drawn in zip(needs, (_workflows, _queues, _failing, _waiting), strict=True):
        if rows:
            parts += [Text(""), drawn(frame, rows)]
    return Group(*parts)


def shared(needs: Sequence[int], room: int) -> list[int]:
    """How many rows each table gets: what one does not need goes to the others, and none that has any gets none.

    >>> shared([2, 0, 10], 10), shared([10, 10, 10], 10), shared([5, 5, 0], -3)
    ([2, 0, 8], [4, 3, 3], [1, 1, 0])
    """
    given = [min(1, need) for need in needs]
    while sum(given) < room and given != list(needs):
        least = min((at for at, need in enumerate(needs) if given[at] < need), key=lambda at: given[at])
        given[least] += 1
    return given


def _head(frame: Frame, url: str) -> Text:
    head = Text(f"{clock(frame.at_us)[:19]}  {frame.runs:,} runs", no_wrap=True, overflow="ellipsis")
    if not frame.complete:
        head.append(f" ({frame.counted:,} counted so far)", style="yellow")
    head.append(f"  {size(frame.file_bytes)}  ")
    return head.append(clean(url, 80), style="bold")


def _statuses(frame: Frame) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for status in Status:
        if count := frame.statuses[status.value]:
            line.append(f"{count:,} {status.value}  ", style=STATUS_STYLES[status])
    return line or Text("no runs", style="dim")


def _rates(frame: Frame) -> Text:
    rates = frame.rates
    if rates is None:
        return Text("rates need two looks", style="dim")
    said = [f"{per_second(rates.started)} started", f"{per_second(rates.closed)} ended"]
    if rates.steps is not None and rates.events is not None:
        said += [f"{per_second(rates.steps)} steps", f"{per_second(rates.events)} events"]
    over = "the last minute" if frame.rates and rates.events is None else duration(round(rates.over_s * 1e6))
    return Text(f"a second: {', '.join(said)} (over {over})", no_wrap=True, overflow="ellipsis")


def per_second(rate: float) -> str:
    """A rate with as many digits as say something.

    >>> per_second(1234.5), per_second(12.34), per_second(0.25), per_second(0)
    ('1,234', '12.3', '0.25', '0')
    """
    return "0" if rate == 0 else f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def _workflows(frame: Frame, rows: int) -> RenderableType:
    known = [status for status in Status if any(status.value in counts for counts in frame.workflows.values())]
    made = table("workflow", *(status.value for status in known), right=[status.value for status in known])
    by_size = sorted(frame.workflows, key=lambda name: (-sum(frame.workflows[name].values()), name))
    for name in by_size[:rows]:
        counts = [frame.workflows[name].get(status.value, 0) for status in known]
        cells = [
            Text(f"{count:,}" if count else "", style=STATUS_STYLES[status])
            for status, count in zip(known, counts, strict=True)
        ]
        made.add_row(text(name, limit=NAME_MAX), *cells)
    return Group(made, *_more(len(by_size) - rows))


def _queues(frame: Frame, rows: int) -> RenderableType:
    """The fullest first."""
    fullest = sorted(without_idle_twins(frame.queues), key=lambda state: -(state.waiting + state.at_work))
    return Group(queues_table(fullest[:rows], frame.at_us), *_more(len(fullest) - rows))


def _failing(frame: Frame, rows: int) -> RenderableType:
    made = table("failing step", "of", "retried now", "attempts", "failed", "last", "run", "error",
                 right=("retried now", "attempts", "failed"))  # fmt: skip
    for one in frame.failing[:rows]:
        made.add_row(
            text(one.step, "bold red" if one.retrying else "red", NAME_MAX),
            text(one.workflow, limit=NAME_MAX),
            *(f"{count:,}" if count else "" for count in (one.retrying, one.attempts, one.failed)),
            _ago(one.at_us, frame),
            text(one.run_id, limit=NAME_MAX),
            text(one.error, limit=60),
        )
    return Group(made, *_more(len(frame.failing) - rows))


def _waiting(frame: Frame, rows: int) -> RenderableType:
    made = table("waiting longest", "workflow", "since", "for")
    for one in frame.waiting[:rows]:
        made.add_row(
            text(one.run_id, limit=NAME_MAX),
            text(one.workflow, limit=NAME_MAX),
            _ago(one.since_us, frame),
            text(", ".join(waits_for(one)) + _due(one, frame), limit=60),
        )
    return made


def _due(one: Waiting, frame: Frame) -> str:
    """When the first of the deadlines is, if there is one."""
    until = min((wait.until_us for wait in one.standing.waits if wait.until_us is not None), default=None)
    if until is None:
        return ""
    left = until - frame.at_us
    return f", due in {duration(left)}" if left >= 0 else f", {duration(-left)} overdue"


def waits_for(one: Waiting) -> list[str]:
    """What its history says a run waits for, and what is out at queues."""
    if one.queue:
        return [f"its turn in queue {one.queue!r}"]
    ids = {task.step for task in one.tasks}
    out = Counter((task.name, task.queue) for task in one.tasks)
    found = [
        f"step {name!r} at queue {queue!r}" if count == 1 else f"{count:,} of step {name!r} at queue {queue!r}"
        for (name, queue), count in out.items()
    ]
    waits = [wait for wait in one.standing.waits if wait.id not in ids]
    found += [wait.what if not wait.attempts else f"{wait.what} to be retried" for wait in waits]
    after = one.standing.after_line
    return found or [f"a message, after line {after}" if after else "a message"]


def _ago(at_us: int, frame: Frame) -> str:
    since = (frame.at_us - at_us) // 1_000_000
    return f"{duration(since * 1_000_000)} ago" if since > 0 else "now"


def _more(count: int) -> Sequence[RenderableType]:
    return [Text(f"and {count:,} more", style="dim")] if count > 0 else []


# --- for programs --------------------------------------------------------------------------------------------------


def frame_data(frame: Frame, url: str) -> dict[str, Any]:
    """What `top --json` prints of a frame."""
    return {
        "at": iso(frame.at_us),
        "store": url,
        "runs": frame.runs,
        "counted": frame.counted,
        "complete": frame.complete,
        "statuses": frame.statuses,
        "file_bytes": frame.file_bytes,
        "rates": _rates_data(frame.rates),
        "workflows": frame.workflows,
        "waiting": [
            {"run_id": one.run_id, "workflow": one.workflow, "since": iso(one.since_us), "for": waits_for(one)}
            for one in frame.waiting
        ],
        "failing": [_failing_data(one) for one in frame.failing],
        "queues": [queue_data(state) for state in frame.queues],
    }


def _rates_data(rates: Rates | None) -> dict[str, float | None] | None:
    return None if rates is None else attrs.asdict(rates)


def _failing_data(one: Failing) -> dict[str, Any]:
    return attrs.asdict(one, filter=lambda field, _: field.name != "at_us") | {"at": iso(one.at_us)}
