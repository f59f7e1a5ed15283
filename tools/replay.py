"""`replay`: the debugger over a store, or over a file that was exported from one.

Every command is thin: it finds what is meant, calls a function of this package that computes, and prints what that
answers. It never runs a step, takes no hold of the store, and writes only on `import`; an engine may be at work
meanwhile. Exit codes are in `dalsegno.tools.failures`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import click

from dalsegno.core.errors import BadOption
from dalsegno.core.store import Backend, RunRecord, open_store
from dalsegno.core.values.codec import Codec
from dalsegno.tools import reports
from dalsegno.tools.app import load_app
from dalsegno.tools.checking import check_runs
from dalsegno.tools.comparing import compare
from dalsegno.tools.drawing import Drawing
from dalsegno.tools.failures import NO, CalmGroup, say
from dalsegno.tools.forms import run_data
from dalsegno.tools.measuring import measure
from dalsegno.tools.options import (
    CONTEXT,
    RunName,
    app_option,
    busy,
    command_help,
    filter_options,
    json_option,
    now_us,
    show,
    show_json,
    statuses,
    store_option,
    watched,
)
from dalsegno.tools.render import payload_lines, problems_table, run_head, runs_table, timeline_data
from dalsegno.tools.stores import all_runs, find_run, open_for_reading, read_run, store_url
from dalsegno.tools.timeline import timeline
from dalsegno.tools.transfer import Exported, export_lines, import_runs, read_file, take
from dalsegno.tools.verifying import answer, verify

GROUP_HELP = """Look into the histories of a store: what ran, when, how long, and whether today's code still fits.

It never runs a step, and writes only on `import`; an engine may be at work meanwhile.

\b
Example:
  replay ls --store lmdb:./orders
  replay show order-42 --store lmdb:./orders

\b
Completion of commands, options and run ids in bash (zsh and fish likewise):
  eval "$(_REPLAY_COMPLETE=bash_source replay)"

\b
Exit codes: 0 done, 1 done and the answer is no (diverges, not found, problems), 2 not understood
or could not be told, 3 the store cannot be used, 4 data cannot be read.
"""


@click.group(cls=CalmGroup, context_settings=CONTEXT, help=GROUP_HELP)
@click.version_option(package_name="dalsegno")
def main() -> None:
    """The `replay` command."""


@contextmanager
def reading(store: str | None) -> Iterator[Backend]:
    """The store that is meant, opened to look at."""
    with open_for_reading(store_url(store)) as opened:
        yield opened


def codec_of(app: str | None) -> Codec:
    """The codec that an app's payloads are made with; the plain one without an app."""
    return load_app(app).codec if app else Codec()


# --- ls ------------------------------------------------------------------------------------------------------------


@main.command(
    "ls",
    help=command_help(
        "List runs, newest first.",
        "replay ls --status open --workflow fulfil --tag region=eu --since 7d",
        'With --json: {"runs": [{"id", "run_id", "generation", "workflow", "status", "active", "reason", "created_at", '
        '"closed_at", "tags", "parent"}], "more": whether --limit cut the list}.',
    ),
)
@filter_options
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@store_option
@json_option
def list_runs(store: str | None, json_wanted: bool, limit: int, **filters: Any) -> None:
    """List runs."""
    now = now_us()
    with reading(store) as opened:
        found = list(islice(filtered(opened, now, **filters), limit + 1))
    shown, more = found[:limit], len(found) > limit
    if json_wanted:
        show_json({"runs": [run_data(record) for record in shown], "more": more})
        return
    show(runs_table(shown, now))
    if more:
        say(f"only the newest {limit} are shown; --limit shows more", mark="")
    elif not shown:
        say("no runs" + (" that fit" if any(filters.values()) else " in this store"), mark="")


def filtered(
    store: Backend,
    now: int,
    *,
    status: Sequence[str] = (),
    workflow: str | None = None,
    tags: Sequence[tuple[str, str]] = (),
    age: int | None = None,
    since: int | None = None,
) -> Iterator[RunRecord]:
    """The runs that the filter options mean."""
    return all_runs(
        store,
        status=statuses(status),
        workflow=workflow,
        tags=dict(tags),
        since_us=None if since is None else now - since,
        until_us=None if age is None else now - age,
    )


# --- show ----------------------------------------------------------------------------------------------------------


@main.command(
    "show",
    help=command_help(
        "Show a run's history as a timeline: what happened, when, how long, attempts and payloads.",
        "replay show order-42 --around 17",
        'RUN is a workflow id for its newest run, or id#2 for that one. With --json: {"run": as in ls, "state", '
        '"events": [{"index", "event", "what", "at", "since_us", "began_at", "ended_at", "id", "name", "line", '
        '"attempt", "took_us", "error", "summary", "payload": {"base64", "json"} with --payloads}], "unreadable"}.',
    ),
)
@click.argument("run", type=RunName())
@click.option("--around", type=click.IntRange(min=0), metavar="N", help="Only the events near event N.")
@click.option("--payloads", is_flag=True, help="Print payloads in full below the timeline.")
@app_option(required=False)
@store_option
@json_option
def show_run(
    run: str, around: int | None, payloads: bool, app: str | None, store: str | None, json_wanted: bool
) -> None:
    """Show one run."""
    codec = codec_of(app)
    with reading(store) as opened:
        record = find_run(opened, run)
        kept = read_run(opened, record)
        published = opened.published(record.number)
    line = timeline(kept.events, now_us() if record.status.open else None)
    if around is not None:
        if around >= len(kept.events):
            raise BadOption(f"--around {around}: the history has {len(kept.events)} events, numbered from 0")
        line = line.around(around)
    if json_wanted:
        show_json(timeline_data(record, line, kept.unreadable, published, codec, payloads))
        return
    show(run_head(record, len(kept.records), published, codec), Drawing(line, codec, kept.unreadable))
    if payloads:
        show(*payload_lines(line.rows, codec))
    if kept.unreadable is not None:
        say(
            f"event {kept.unreadable.index} cannot be read, so the rest is not shown: {kept.unreadable.why}",
            mark="warning",
        )


# --- verify and diff -----------------------------------------------------------------------------------------------


@main.command(
    "verify",
    help=command_help(
        "Replay histories against today's code, and report the first event at which it no longer fits.",
        "replay verify --all --app shop.orders",
        "No step is run. Exit code 0: all fit; 1: some diverge; 2: none diverges, but some could not be told. With "
        '--json: {"counts": {"fits", "diverges", "unknown"}, "groups": [{…, "runs", "open", "run_ids"}], "runs": '
        '[{"run_id", "workflow", "open", "verdict", "events", "event", "recorded", "yielded", "differs", "line_then", '
        '"line_now", "file", "source", "reason"}]}.',
    ),
)
@click.argument("runs", nargs=-1, type=RunName())
@click.option("--all", "every", is_flag=True, help="Every run that the filters let through.")
@app_option(required=True)
@filter_options
@store_option
@json_option
def verify_runs(
    runs: tuple[str, ...], every: bool, app: str, store: str | None, json_wanted: bool, **filters: Any
) -> None:
    """Replay histories against code."""
    if bool(runs) == every:
        raise click.UsageError("name the runs, or say --all")
    loaded = load_app(app)
    with reading(store) as opened:
        chosen = chosen_runs(opened, runs, **filters)
        findings = list(verify(opened, watched(chosen, "replaying"), loaded))
    if json_wanted:
        show_json(reports.verify_data(findings))
    else:
        show(*reports.verify_report(findings))
    click.get_current_context().exit(answer(findings))


def chosen_runs(store: Backend, names: Sequence[str], **filters: Any) -> list[RunRecord]:
    """The runs named, or else all that the filters let through."""
    if names:
        return [find_run(store, name) for name in names]
    return list(filtered(store, now_us(), **filters))


@main.command(
    "diff",
    help=command_help(
        "Compare two histories: where they part first, and what differs after that.",
        "replay diff order-42 order-43",
        "Events are matched by the command they answer. Ids, times and source lines are left out. Exit code 0: "
        'the same; 1: they differ. With --json: {"same", "events": {"a", "b"}, "divergences": [{"a", "b": indices or '
        'null, "id", "event", "moved", "differences": [{"field", "a", "b"}]}]}.',
    ),
)
@click.argument("a", type=RunName())
@click.argument("b", type=RunName())
@click.option("--other", metavar="URL", help="The store that B is in, when it is another one.")
@app_option(required=False)
@store_option
@json_option
def diff_runs(a: str, b: str, other: str | None, app: str | None, store: str | None, json_wanted: bool) -> None:
    """Compare two histories."""
    codec = codec_of(app)
    with reading(store) as opened:
        first = read_run(opened, find_run(opened, a))
        second = read_run(opened, find_run(opened, b)) if other is None else None
    if second is None:
        with reading(other) as opened:
            second = read_run(opened, find_run(opened, b))
    for kept in (first, second):
        if kept.unreadable is not None:
            say(
                f"{kept.record.run_id} is compared up to event {kept.unreadable.index}: {kept.unreadable.why}",
                mark="warning",
            )
    comparison = compare(first.events, second.events, codec)
    if json_wanted:
        show_json(reports.diff_data(comparison, first.events, second.events))
    else:
        show(*reports.diff_report(comparison, first.events, second.events))
    click.get_current_context().exit(NO if comparison.divergences else 0)


# --- export and import ---------------------------------------------------------------------------------------------


@main.command(
    "export",
    help=command_help(
        "Write runs, finished or in flight, to a file as JSON lines.",
        "replay export order-42 order-42.jsonl",
        "An id means all its runs, id#2 only that one. FILE - is standard output. Payloads are written as they are "
        "stored, with their meaning beside them: a file may hold what is confidential. The form is described in "
        "dalsegno.tools.transfer.",
    ),
)
@click.argument("runs", nargs=-1, type=RunName(), metavar="[RUN]...")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@click.option("--all", "every", is_flag=True, help="Every run that the filters let through.")
@app_option(required=False)
@filter_options
@store_option
def export_runs(
    runs: tuple[str, ...], file: Path, every: bool, app: str | None, store: str | None, **filters: Any
) -> None:
    """Write runs to a file."""
    if bool(runs) == every:
        raise click.UsageError("name the runs and then a FILE, or say --all FILE")
    codec = codec_of(app)
    with reading(store) as opened:
        chosen = [one for run in runs for one in _generations(opened, run)] or filtered(opened, now_us(), **filters)
        records = list({record.number: record for record in chosen}.values())
        taken = (take(opened, record) for record in watched(records[::-1], "exporting"))
        if str(file) == "-":
            for line in export_lines(taken, codec, now_us()):
                sys.stdout.buffer.write(line)
            return
        with whole_file(file) as out:
            out.writelines(export_lines(taken, codec, now_us()))
    say(f"{len(records)} run{'s' * (len(records) != 1)} exported to {file}", mark="")


def _generations(store: Backend, name: str) -> list[RunRecord]:
    """The run that is named, and, where an id is named, those before it under that id; newest first."""
    newest = find_run(store, name)
    earlier = range(newest.generation - 1, 0, -1) if newest.workflow_id == name else ()
    return [newest, *(found for number in earlier if (found := store.find(newest.workflow_id, number)) is not None)]


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is whole, and not at all otherwise; only its owner may read it.

    What is no file (a device, a pipe) is written to as it is.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as out:
            yield out
        return
    if not target.parent.is_dir():
        raise BadOption(f"{path} cannot be written: there is no folder {target.parent}")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


@main.command(
    "import",
    help=command_help(
        "Put exported runs into a store; the whole file is verified before anything is written.",
        "replay import order-42.jsonl --store lmdb:./orders",
        "A run that was in flight goes on when an engine next works on the store; what it left open (timers, children) "
        "is set up anew then. The store is made if it is not there. With --json: "
        '{"imported": [run ids], "skipped": [run ids]}.',
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--skip-existing", is_flag=True, help="Leave out runs whose id is taken, instead of importing nothing.")
@store_option
@json_option
def import_file(file: Path, skip_existing: bool, store: str | None, json_wanted: bool) -> None:
    """Put exported runs into a store."""
    runs: list[Exported] = read_file(file, lambda lines: watched(lines, "verifying"))
    with open_store(store_url(store, make=True)) as opened, busy("importing"):
        done = import_runs(opened, runs, now_us(), skip=skip_existing)
    imported = [one.run_id for one in done]
    skipped = [one.run_id for one in runs if one.run_id not in set(imported)]
    if json_wanted:
        show_json({"imported": imported, "skipped": skipped})
        return
    left_out = f", {len(skipped)} left out because their ids are taken" if skipped else ""
    say(f"{len(imported)} run{'s' * (len(imported) != 1)} imported{left_out}", mark="")


# --- stats and check -----------------------------------------------------------------------------------------------


@main.command(
    "stats",
    help=command_help(
        "Sizes, counts per status, success rate, events and bytes per run, rates.",
        "replay stats --store lmdb:./orders",
        'With --json: {"store": the store\'s own counts, "all" and "workflows": {name: {"runs", "statuses", "success", '
        '"took_us": {"least", "median", "p95", "most"}}}, "events", "events_per_run", "bytes_per_run", '
        '"bytes_per_event", "started" and "ended": {"minute", "hour", "day"}}.',
    ),
)
@store_option
@json_option
def show_stats(store: str | None, json_wanted: bool) -> None:
    """Figures of a store."""
    with reading(store) as opened:
        stats = measure(opened, watched(all_runs(opened), "counting"), now_us())
    if json_wanted:
        show_json(reports.stats_data(stats))
    else:
        show(*reports.stats_report(stats))


@main.command(
    "check",
    help=command_help(
        "Read everything, verify every checksum and what has to hold between records; exit code 1 on problems.",
        "replay check --store lmdb:./orders",
        'With --json: {"runs": how many, "problems": [{"run", "event", "what", "key"}], "together": whether what '
        "has to hold between runs could be told, no engine having written meanwhile}.",
    ),
)
@store_option
@json_option
def check_store(store: str | None, json_wanted: bool) -> None:
    """Verify a store."""
    with reading(store) as opened:
        with busy("verifying checksums"):
            problems = opened.check()
        records = list(all_runs(opened))
        checked = check_runs(opened, watched(records, "reading histories"))
        problems += checked.problems
    if not checked.together:
        say("an engine wrote meanwhile, so what has to hold between runs could not be told", mark="warning")
    if json_wanted:
        found = [{"run": p.run, "event": p.event, "what": p.what, "key": p.key} for p in problems]
        show_json({"runs": len(records), "problems": found, "together": checked.together})
    elif problems:
        show(problems_table(problems))
        say(f"{len(problems)} problem{'s' * (len(problems) != 1)} in {len(records)} runs", mark="")
    else:
        say(f"{len(records)} runs: every checksum is right and everything fits together", mark="")
    click.get_current_context().exit(NO if problems else 0)


if __name__ == "__main__":
    main()
