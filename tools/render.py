"""How things look: rows into tables for people, and into data for `--json`. Pure; nothing here opens, asks or prints.

Whatever comes from a store is put into a `Text` after `clean`, never into markup, so that no name or payload can act
on the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dalsegno.core.errors import DecodeError
from dalsegno.core.store import Problem, RunRecord, Status
from dalsegno.core.values.codec import Codec
from dalsegno.tools.forms import payload_form
from dalsegno.tools.text import clean, clean_lines, clock, duration, iso
from dalsegno.tools.timeline import Row

SUMMARY_MAX: Final = 60  # characters of a payload in a table
SUMMARY_BYTES_MAX: Final = 64 * 1024  # bytes of a payload that is decoded only to be summarised
NAME_MAX: Final = 48

STATUS_STYLES: Final = {
    Status.RUNNING: "cyan",
    Status.PAUSED: "yellow",
    Status.BLOCKED: "bold red",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "yellow",
    Status.TERMINATED: "magenta",
    Status.CONTINUED: "dim",
}


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A plain table; columns named in `right` are aligned so."""
    numbers = set(right)
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return made


def text(value: object, style: str = "", limit: int | None = NAME_MAX) -> Text:
    """A cell: one line, nothing in it but what can be printed."""
    return Text(clean(value, limit), style=style)


def status_text(status: Status) -> Text:
    """A status in its colour."""
    return Text(status.value, style=STATUS_STYLES[status])


# --- runs ----------------------------------------------------------------------------------------------------------


def runs_table(records: Sequence[RunRecord], now_us: int) -> Table:
    """Runs, one a line."""
    made = table("run", "workflow", "status", "created", "age", "took", "tags", right=("age", "took"))
    for record in records:
        took = "" if record.closed_at_us is None else duration(record.closed_at_us - record.created_at_us)
        made.add_row(
            text(record.workflow_id if record.generation == 1 else record.run_id),
            text(record.workflow),
            _stand(record),
            clock(record.created_at_us)[:19],
            duration(now_us - record.created_at_us),
            took,
            text(" ".join(f"{key}={value}" for key, value in record.tags.items())),
        )
    return made


def _stand(record: RunRecord) -> Text:
    """A run's status, and that it has not begun where it waits in a queue."""
    said = status_text(record.status)
    return said.append(", queued", style="yellow") if record.queued else said


def run_head(record: RunRecord, events: int, published: dict[str, bytes], codec: Codec) -> RenderableType:
    """Who a run is and how it stands, in a few lines."""
    first = Text.assemble(
        (clean(record.run_id), "bold"),
        "  ",
        clean(record.workflow),
        "  ",
        status_text(record.status),
        f"  {events} events",
    )
    lines: list[RenderableType] = [first]
    if record.reason:
        lines.append(Text(clean_lines(record.reason), style="red"))
    if record.queue:
        waits = "waits in queue" if record.queued else "has its place in queue"
        lines.append(text(f"{waits} {record.queue}", "yellow" if record.queued else "dim", None))
    if record.parent:
        lines.append(text(f"child of {record.parent[0]}#{record.parent[1]}", "dim", None))
    if record.tags:
        lines.append(text("tags " + " ".join(f"{key}={value}" for key, value in record.tags.items()), "dim", None))
    for key, value in published.items():
        lines.append(text(f"state {key} = {summary(value, codec)}", "dim", None))
    return Lines(*lines)


# --- a history -----------------------------------------------------------------------------------------------------


def summary(
    payload: bytes | None, codec: Codec, *, is_error: bool = False, is_call: bool = False, limit: int = SUMMARY_MAX
) -> str:
    """A payload in one line, bounded; an error as its type and message, a call's arguments without an empty half."""
    if payload is None:
        return ""
    if len(payload) > SUMMARY_BYTES_MAX:
        return f"({len(payload):,} bytes)"
    try:
        if is_error:
            error = codec.describe_error(payload)
            return clean(f"{error.type.rpartition(':')[2]}: {error.message}", limit)
        node = codec.to_json(payload)
        if is_call and isinstance(node, list) and len(node) == 2 and not (node[0] and node[1]):
            node = node[1] or node[0]
        return clean(brief(node), limit)
    except DecodeError as error:
        return clean(f"(unreadable: {error})", limit)


def brief(node: object) -> str:
    """The JSON of a payload, shorter: what has a type is written as Python would.

    >>> brief({"$type": "shop:Order", "id": 7, "items": {"$type": "tuple", "items": [1, "a"]}})
    'Order(id=7, items=(1, "a"))'
    """
    if isinstance(node, list):
        return f"[{', '.join(map(brief, node))}]"
    if not isinstance(node, dict):
        return json.dumps(node, ensure_ascii=False)
    if list(node) == ["$error"] and isinstance(error := node["$error"], dict):
        return (
            f"{str(error.get('type')).rpartition(':')[2]}({json.dumps(error.get('message', ''), ensure_ascii=False)})"
        )
    kind = node.get("$type")
    if not isinstance(kind, str):
        return "{" + ", ".join(f"{json.dumps(key)}: {brief(value)}" for key, value in node.items()) + "}"
    inside = {key: value for key, value in node.items() if key != "$type"}
    if list(inside) == ["items"]:
        inner = brief(inside["items"])
        return f"({inner[1:-1]})" if kind == "tuple" else f"{kind}({inner})"
    if list(inside) == ["value"]:
        return f"{kind}({brief(inside['value'])})"
    name = kind.rpartition(":")[2]
    return f"{name}({', '.join(f'{key}={brief(value)}' for key, value in inside.items())})"


def row_payload(row: Row, codec: Codec, limit: int = SUMMARY_MAX) -> str:
    """What an event carries, in one line: its payload, or else the facts only its kind has."""
    if row.payload is not None:
        return summary(row.payload, codec, is_error=row.is_error, is_call=row.is_call, limit=limit)
    shown = {
        name.removesuffix("_us"): clock(value)[:19] if name.endswith("_us") else value
        for name, value in row.facts.items()
    }
    return clean(" ".join(f"{name}={value}" for name, value in shown.items() if name not in ("kind", "change")), limit)


def payload_lines(rows: Iterable[Row], codec: Codec) -> list[Text]:
    """Every payload in full, each below a line that says whose it is."""
    lines: list[Text] = []
    for row in rows:
        if row.payload is None:
            continue
        lines.append(Text(f"\n#{row.index} {row.what} {clean(row.name)}".rstrip(), style="bold"))
        form = payload_form(row.payload, codec)
        shown = json.dumps(form["json"], indent=2, ensure_ascii=False) if "json" in form else form.get("unreadable", "")
        lines += [Text(f"  {clean(one)}") for one in shown.splitlines()]
    return lines


def row_data(row: Row, codec: Codec, payloads: bool) -> dict[str, Any]:
    """A row of a timeline for `--json`; `payload` in full with `payloads`, else a summary."""
    data: dict[str, Any] = {
        "index": row.index if row.index >= 0 else None,
        "event": row.event,
        "what": row.what,
        "kind": row.kind.value,
        "at": iso(row.at_us),
        "since_us": row.since_us,
        "began_at": iso(row.began_us),
        "ended_at": iso(row.ended_us),
        "id": row.id,
        "name": row.name,
        "line": row.line,
        "attempt": row.attempt,
        "took_us": row.took_us,
        "retried_at": iso(row.backoff.ended_us) if row.backoff is not None else None,
        "error": row.is_error,
        "summary": row_payload(row, codec),
    }
    if payloads and row.payload is not None:
        data["payload"] = payload_form(row.payload, codec)
    return data


def problems_table(problems: Sequence[Problem]) -> Table:
    """What `check` found."""
    made = table("run", "event", "what", "record", right=("event",))
    for problem in problems:
        event = "" if problem.event is None else str(problem.event)
        made.add_row(text(problem.run), event, text(problem.what, "red", None), text(problem.key))
    return made
