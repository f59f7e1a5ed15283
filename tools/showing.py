"""`replay show`: a run's history as a timeline, in the terminal, as data, or as a page with a Gantt chart.

All three show the same thing: a family of runs (`family`), each with its timeline. `drawing` puts it on the terminal,
`page` into a file, and `family_data` into JSON.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import click
from rich.text import Text

from dalsegno.core.errors import BadOption
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import load_app
from dalsegno.tools.choosing import reading
from dalsegno.tools.drawing import Drawing
from dalsegno.tools.exported import cut_data
from dalsegno.tools.failures import say
from dalsegno.tools.family import Limits, Member, family
from dalsegno.tools.forms import payload_form, run_data
from dalsegno.tools.moving import whole_file
from dalsegno.tools.options import (
    RunName,
    app_option,
    command_help,
    json_option,
    now_us,
    show_json,
    show_long,
    store_option,
)
from dalsegno.tools.page.contents import Contents
from dalsegno.tools.page.document import document
from dalsegno.tools.queued import Look
from dalsegno.tools.render import payload_lines, row_data, run_head
from dalsegno.tools.stores import find_run
from dalsegno.tools.text import clean
from dalsegno.tools.timeline import Timeline

TASKS_SHOWN = 5
LEVELS_ON_PAGE = 3
LEVELS_IN_TERMINAL = 0
"""Levels of children that are shown unless `--children` says otherwise. A page folds them away."""


@click.command(
    "show",
    help=command_help(
        "Show a run's history as a timeline: what happened, when, how long, attempts and payloads.",
        "replay show order-42 --html order-42.html",
        "RUN is a workflow id for its newest run, or id#2 for that one. --html writes one page with a Gantt chart of "
        "the run and its children, which opens in any browser, needs no network and may hold what is confidential; "
        "FILE - is standard output. With --app, what an open run waits for is told by its code; no step is run. With "
        '--json: {"run": as in ls, "state", "events": [{"index", "event", "what", "kind", "at", "since_us", '
        '"began_at", "ended_at", "id", "name", "line", "attempt", "took_us", "retried_at", "error", "summary", '
        '"payload": {"base64", "json"} with --payloads, "child": the same for a child that is shown, or "left_out": '
        'why it is not}], "pending": like events, what waits without one, "unreadable", "cut"}.',
    ),
)
@click.argument("run", type=RunName())
@click.option("--around", type=click.IntRange(min=0), metavar="N", help="Only the events near event N.")
@click.option("--payloads", is_flag=True, help="Print payloads in full below the timeline.")
@click.option("--children", type=click.IntRange(min=0), metavar="N", help="Levels of child runs to show [0; page: 3].")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True), metavar="FILE",
              help="Write a page to look at in a browser; with --around it opens at that event.")  # fmt: skip
@click.option("--full", is_flag=True, help="Cut no payload on the page, however large.")
@app_option(required=False)
@store_option
@json_option
def show_run(
    run: str,
    around: int | None,
    payloads: bool,
    children: int | None,
    page: Path | None,
    full: bool,
    app: str | None,
    store: str | None,
    json_wanted: bool,
) -> None:
    """Show one run."""
    if page is not None and (json_wanted or payloads):
        raise click.UsageError("--html writes a page that has all payloads in it; leave out --json and --payloads")
    if full and page is None:
        raise click.UsageError("--full is about the page that --html writes")
    loaded = load_app(app) if app else None
    codec = loaded.codec if loaded is not None else Codec()
    levels = children if children is not None else LEVELS_IN_TERMINAL if page is None else LEVELS_ON_PAGE
    now = now_us()
    with reading(store) as opened:
        root = family(opened, find_run(opened, run), now, Limits(depth=levels), loaded)
        look = Look.at(opened, root.record, {lease.owner: lease for lease in opened.leases()}, now)
        cut = cut_data(opened)
    if around is not None and around >= len(root.kept.events):
        raise BadOption(f"--around {around}: the history has {len(root.kept.events)} events, numbered from 0")
    if page is not None:
        _write(Contents(root, codec, made_us=now, full=full, around=around), root, page)
        return
    if around is not None:
        root.line = _near(root.line, around)
    if json_wanted:
        show_json(family_data(root, codec, payloads, cut))
        return
    below = [line for member in root.all() for line in payload_lines(member.line.rows, codec)] if payloads else []
    head = run_head(root.record, len(root.kept.records), root.published, codec)
    show_long(head, *_out(look), drawing_of(root, codec), *below)
    _tell_what_is_missing(root, levels)


def _out(look: Look) -> list[Text]:
    """The steps of the run that are out at queues."""
    lines = [f"step {task.name!r} ({task.step}) is {look.task(task, True)}" for task in look.tasks[:TASKS_SHOWN]]
    if (more := len(look.tasks) - TASKS_SHOWN) > 0:
        lines.append(f"{more:,} more steps are out at queues")
    return [Text(clean(line), style="yellow") for line in lines]


def _near(line: Timeline, around: int) -> Timeline:
    near = line.around(around)
    return near if near.rows[-1] is line.rows[-1] else attrs.evolve(near, pending=())


def _write(contents: Contents, root: Member, page: Path) -> None:
    if str(page) == "-":
        for piece in document(contents):
            sys.stdout.buffer.write(piece.encode())
        return
    with whole_file(page) as out:
        for piece in document(contents):
            out.write(piece.encode())
    children = sum(1 for _ in root.all()) - 1
    also = f" and {children:,} child run{'s' * (children != 1)}" if children else ""
    say(f"{root.record.run_id} with {len(root.kept.records):,} events{also} written to {page}", mark="")


def _tell_what_is_missing(root: Member, levels: int) -> None:
    for member in root.all():
        whose = "" if member is root else f"{member.record.run_id}: "
        if member.kept.unreadable is not None:
            say(f"{whose}{member.kept.unreadable.sentence}", mark="warning")
        if member.problem:
            say(f"the code cannot tell what {member.record.run_id} waits for: {member.problem}", mark="warning")
    if levels:
        for why, count in Counter(why for member in root.all() for why in member.left_out.values()).items():
            say(f"{count} child{'ren' * (count != 1)} left out: {why}", mark="")


def drawing_of(member: Member, codec: Codec) -> Drawing:
    """A run and its children as they are drawn on a terminal."""
    below = {index: drawing_of(child, codec) for index, child in member.children.items()}
    return Drawing(member.line, codec, member.kept.unreadable, below)


def family_data(member: Member, codec: Codec, payloads: bool, cut: dict[str, Any] | None) -> dict[str, Any]:
    """Everything `show --json` prints; `cut` is what the file lacks that they are in."""
    events = []
    for row in member.line.rows:
        data = row_data(row, codec, payloads)
        if row.index in member.children:
            data["child"] = family_data(member.children[row.index], codec, payloads, cut)
        elif row.index in member.left_out:
            data["left_out"] = member.left_out[row.index]
        events.append(data)
    unreadable = member.kept.unreadable
    return {
        "run": run_data(member.record),
        "state": {key: payload_form(value, codec) for key, value in member.published.items()},
        "events": events,
        "pending": [row_data(row, codec, payloads) for row in member.line.pending],
        "unreadable": attrs.asdict(unreadable) if unreadable else None,
        "cut": cut,
    }
