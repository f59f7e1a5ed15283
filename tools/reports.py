"""How reports look: verify, diff and stats, for people and as data for `--json`. Pure, like `render`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dalsegno.core.events import Event
from dalsegno.tools.comparing import Comparison, Difference, Pair, Timings, timings
from dalsegno.tools.measuring import Share, Spread, Stats
from dalsegno.tools.queues import queue_data, queues_table, without_idle_twins
from dalsegno.tools.render import NAME_MAX, table, text
from dalsegno.tools.text import clean, counted, duration, size
from dalsegno.tools.timeline import words
from dalsegno.tools.verifying import Finding, Group, Verdict, grouped

RUNS_NAMED = 5
VALUE_MAX = 60
LATER_MAX = 40
SPANS_MAX = 12


# --- verify --------------------------------------------------------------------------------------------------------


def verify_report(findings: Sequence[Finding]) -> list[RenderableType]:
    """A group for each cause, then a line that counts."""
    parts: list[RenderableType] = []
    for group in grouped(findings):
        parts += [_group(group), Text("")]
    counts = {verdict: sum(one.verdict is verdict for one in findings) for verdict in Verdict}
    events = sum(one.events for one in findings)
    parts.append(
        Text.assemble(
            f"{counted(len(findings), 'history', 'histories')}, {counted(events, 'event')}: ",
            (f"{counts[Verdict.FITS]} fit", "green"),
            ", ",
            (f"{counts[Verdict.DIVERGES]} diverge", "red" if counts[Verdict.DIVERGES] else ""),
            ", ",
            (f"{counts[Verdict.UNKNOWN]} could not be told", "yellow" if counts[Verdict.UNKNOWN] else ""),
        )
    )
    return parts


def _group(group: Group) -> Text:
    one = group.example
    diverges = one.verdict is Verdict.DIVERGES
    what = "diverge" if group.runs > 1 else "diverges"
    head = f"{group.runs} run{'s' * (group.runs > 1)} of {clean(one.workflow)!r} " + (
        what if diverges else "could not be judged"
    )
    named = ", ".join(clean(run, NAME_MAX) for run in group.run_ids[:RUNS_NAMED])
    more = f" and {group.runs - RUNS_NAMED} more" if group.runs > RUNS_NAMED else ""
    lines = Text(head, style="bold red" if diverges else "bold yellow")
    lines.append(f" ({group.open} open): {named}{more}", style="default not bold")
    if not one.differs:
        for line in one.reason.splitlines():
            lines.append(f"\n  {clean(line)}", style="default not bold")
        return lines
    place = f"\n  first at event {one.event} of {clean(one.run_id)}" if one.event is not None else ""
    lines.append(place, style="default not bold")
    sides = (("recorded", one.recorded), ("yielded", one.yielded), ("differs", one.differs), ("cause", one.cause))
    for label, value in sides:
        lines.append(f"\n    {label:9} {clean(value)}", style="default not bold")
    if one.line_now is not None:
        then = f", recorded at line {one.line_then}" if one.line_then is not None else ""
        lines.append(f"\n    {clean(one.file)}:{one.line_now}{then}", style="dim")
    if one.source:
        lines.append(f"\n      {clean(one.source)}", style="default not bold")
    return lines


def verify_data(findings: Sequence[Finding]) -> dict[str, Any]:
    """What `verify --json` prints."""
    return {
        "counts": {verdict.value: sum(one.verdict is verdict for one in findings) for verdict in Verdict},
        "groups": [
            {**_finding_data(group.example), "runs": group.runs, "open": group.open, "run_ids": list(group.run_ids)}
            for group in grouped(findings)
        ],
        "runs": [_finding_data(one) for one in findings],
    }


def _finding_data(finding: Finding) -> dict[str, Any]:
    return attrs.asdict(finding) | {"verdict": finding.verdict.value}


# --- diff ----------------------------------------------------------------------------------------------------------


def diff_report(comparison: Comparison, a: Sequence[Event], b: Sequence[Event]) -> list[RenderableType]:
    """The first divergence at length, the later ones as a table."""
    found = comparison.divergences
    took = timings(comparison, a, b)
    times = _times(took) if took is not None else []
    if not found:
        same = f"The same: {len(a)} events, alike in everything but ids, times and lines."
        return [Text(same, style="green"), *times]
    first, later = found[0], found[1:]
    parts: list[RenderableType] = [_first(first, a, b)]
    if later:
        made = table("A", "B", "id", "what", "differs", right=("A", "B"))
        for pair in later[:LATER_MAX]:
            event = _event(pair, a, b)
            made.add_row(
                _at(pair.a), _at(pair.b), text(_id(event)), words(type(event).__name__), text(_how(pair), limit=80)
            )
        parts += [Text("\nLater:", style="bold"), made]
        if len(later) > LATER_MAX:
            parts.append(Text(f"and {len(later) - LATER_MAX} more; --json lists them all", style="dim"))
    return [*parts, *times]


def _times(took: Timings) -> list[RenderableType]:
    """What two runs of one shape took, and where the difference lies."""
    more = took.b_us - took.a_us
    how = f"{duration(abs(more))} {'more' if more > 0 else 'less'}" if more else "the same"
    head = Text(f"\nTimes: A took {duration(took.a_us)}, B {duration(took.b_us)}: {how}", style="bold")
    if not took.spans:
        return [head]
    made = table("id", "what", "name", "A", "B", "B - A", right=("A", "B", "B - A"))
    for span in took.spans[:SPANS_MAX]:
        times = (duration(span.a_us), duration(span.b_us), ("+" if span.more_us > 0 else "") + duration(span.more_us))
        made.add_row(text(span.id), span.what, text(span.name), *times)
    rest = len(took.spans) - SPANS_MAX
    return [
        head,
        made,
        *([Text(f"and {rest} that differ less; --json lists them all", style="dim")] if rest > 0 else []),
    ]


def _first(pair: Pair, a: Sequence[Event], b: Sequence[Event]) -> Text:
    event = _event(pair, a, b)
    about = f"command {_id(event)}, " if _id(event) else ""
    lines = Text(f"They part at event {_at(pair.a) or '-'} of A, {_at(pair.b) or '-'} of B", style="bold red")
    what = f"{words(type(event).__name__)} {clean(getattr(event, 'name', ''))}".rstrip()
    lines.append(f"  ({about}{what})\n", style="default not bold")
    if pair.a is None or pair.b is None:
        lines.append(f"  only in {'B' if pair.a is None else 'A'}", style="default not bold")
        return lines
    if pair.moved and not pair.differences:
        lines.append("  the same, in another order", style="default not bold")
    for difference in pair.differences:
        lines.append(
            f"  {clean(difference.field)}\n    A  {_value(difference.a)}\n    B  {_value(difference.b)}\n",
            style="default not bold",
        )
    return lines


def _event(pair: Pair, a: Sequence[Event], b: Sequence[Event]) -> Event:
    return a[pair.a] if pair.a is not None else b[pair.b or 0]


def _id(event: Event) -> str:
    return str(getattr(event, "id", ""))


def _at(index: int | None) -> str:
    return "" if index is None else str(index)


def _value(value: object) -> str:
    return clean(json.dumps(value, ensure_ascii=False, default=str), 4 * VALUE_MAX)


def _how(pair: Pair) -> str:
    if pair.a is None or pair.b is None:
        return "only in B" if pair.a is None else "only in A"
    said = [f"{one.field}: {_value(one.a)} | {_value(one.b)}" for one in pair.differences]
    return "; ".join(said) or "in another order"


def diff_data(comparison: Comparison, a: Sequence[Event], b: Sequence[Event]) -> dict[str, Any]:
    """What `diff --json` prints."""
    return {
        "same": not comparison.divergences,
        "events": {"a": len(a), "b": len(b)},
        "divergences": [
            {
                "a": pair.a,
                "b": pair.b,
                "id": _id(_event(pair, a, b)),
                "event": type(_event(pair, a, b)).__name__,
                "moved": pair.moved,
                "differences": [_difference_data(one) for one in pair.differences],
            }
            for pair in comparison.divergences
        ],
        "timings": _timings_data(timings(comparison, a, b)),
    }


def _timings_data(took: Timings | None) -> dict[str, Any] | None:
    if took is None:
        return None
    return {"took_us": {"a": took.a_us, "b": took.b_us}, "spans": [attrs.asdict(span) for span in took.spans]}


def _difference_data(one: Difference) -> dict[str, Any]:
    return {"field": one.field, "a": _plain(one.a), "b": _plain(one.b)}


def _plain(value: object) -> object:
    return json.loads(json.dumps(value, default=str))


# --- stats ---------------------------------------------------------------------------------------------------------


def stats_report(stats: Stats) -> list[RenderableType]:
    """The figures of a store."""
    store = stats.store
    facts = Table.grid(padding=(0, 2))
    facts.add_row("runs", f"{stats.all.runs:,}", _counts(stats.all))
    facts.add_row("success", _percent(stats.all.success), "of those that completed, failed or were terminated")
    facts.add_row("events", f"{stats.events:,}", f"per run {_spread(stats.events_per_run, str)}")
    facts.add_row(
        "payload",
        size(store.get("events_bytes", 0)),
        f"per run {_bytes(stats.bytes_per_run)}, per event {_bytes(stats.bytes_per_event)}",
    )
    facts.add_row("file", size(store.get("file_bytes", 0)), "")
    for name, counts in (("started", stats.started), ("ended", stats.ended)):
        facts.add_row(name, "", ", ".join(f"{count:,} in the last {span}" for span, count in counts.items()))
    made = table(
        "workflow",
        "runs",
        "success",
        "median",
        "p95",
        "longest",
        "status",
        right=("runs", "success", "median", "p95", "longest"),
    )
    for name, share in stats.workflows.items():
        took = share.took_us
        times = [duration(v) for v in (took.median, took.p95, took.most)] if took else ["", "", ""]
        made.add_row(text(name), f"{share.runs:,}", _percent(share.success), *times, _counts(share))
    parts: list[RenderableType] = [facts]
    if stats.workflows:
        parts += [Text(""), made]
    if stats.queues:
        parts += [Text(""), queues_table(without_idle_twins(stats.queues), stats.at_us)]
    return parts


def _counts(share: Share) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in share.statuses.items())


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _bytes(count: float | None) -> str:
    return "-" if count is None else size(round(count))


def _spread(spread: Spread | None, form: Any) -> str:
    if spread is None:
        return "-"
    return f"{form(spread.least)} to {form(spread.most)}, median {form(spread.median)}"


def stats_data(stats: Stats) -> dict[str, Any]:
    """What `stats --json` prints."""
    figures = attrs.asdict(stats, filter=lambda field, _: field.name not in ("queues", "at_us"))
    return figures | {"queues": [queue_data(state) for state in stats.queues]}
