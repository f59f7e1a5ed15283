"""Names out of one run's history, proposed by a shell: kinds of event, steps, signals.

Names of runs and workflows are in `options`, as every command has those. A shell that completes has no use for an
error, and none for a name that a person could not type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
from click.shell_completion import CompletionItem

from dalsegno.core.store import RunRecord
from dalsegno.tools.options import Name
from dalsegno.tools.seeking import KINDS
from dalsegno.tools.stores import find_run, open_for_reading, read_run, store_url
from dalsegno.tools.timeline import Row, timeline

ALIKE_MAX = 20
"""Runs of the same workflow whose signals are proposed, besides those of the run itself."""


class EventKind(Name):
    """A kind of event. Completed from all there are."""

    name = "kind"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(kind) for kind in KINDS if kind.lower().startswith(incomplete.lower())]


class StepName(Name):
    """A name in a run's history. Completed from that run."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        rows = _rows(ctx, alike=False)
        return proposed((row.name for row in rows if row.id), incomplete)


class SignalName(Name):
    """A signal. Completed from what the run waits for and has received, and newer runs of its workflow."""

    name = "signal"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        rows = _rows(ctx, alike=True)
        signals = (row for row in rows if row.event == "SignalReceived" or row.facts.get("kind") == "receive")
        return proposed((row.name.removeprefix("receive ") for row in signals), incomplete)


def proposed(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Names that begin so, each once."""
    fitting = {name for name in names if name.startswith(incomplete) and name.isprintable()}
    return [CompletionItem(name) for name in sorted(fitting)]


def _rows(ctx: click.Context, alike: bool) -> list[Row]:
    """The events of the run that the command line names, and, with `alike`, of others of its workflow."""
    name = ctx.params.get("run") or next(iter(ctx.args), "")  # click leaves it there where an option lacks its value
    try:
        with open_for_reading(store_url(ctx.params.get("store"))) as opened:
            record = find_run(opened, name)
            records = [record, *(opened.runs(workflow=record.workflow, limit=ALIKE_MAX) if alike else ())]
            return [row for one in _once(records) for row in timeline(read_run(opened, one).events).rows]
    except Exception:
        return []


def _once(records: Iterable[RunRecord]) -> Iterator[RunRecord]:
    yield from {record.number: record for record in records}.values()
