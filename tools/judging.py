"""`replay verify` and `replay diff`: histories against today's code, and one against another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from dalsegno.core.errors import BadOption
from dalsegno.tools import reports
from dalsegno.tools.app import load_app
from dalsegno.tools.choosing import chosen_runs, codec_of, reading
from dalsegno.tools.comparing import compare
from dalsegno.tools.exported import cut_data
from dalsegno.tools.failures import NO, say
from dalsegno.tools.moving import whole_file
from dalsegno.tools.options import (
    RunName,
    StoreUrl,
    app_option,
    command_help,
    filter_options,
    json_option,
    show_json,
    show_long,
    store_option,
    watched,
)
from dalsegno.tools.stores import find_run, read_run
from dalsegno.tools.verdicts import junit, sarif
from dalsegno.tools.verifying import Finding, answer, sampled, verify_in_processes

Writer = Callable[[list[Finding]], str]


@click.command(
    "verify",
    help=command_help(
        "Replay histories against today's code, and report the first event at which it no longer fits.",
        "replay verify --open --workflow fulfil --app shop.orders --junit verify.xml",
        "No step is run. Runs that diverge for one reason are reported together, those with open runs first: an engine "
        "with this code would block those. Many histories are shared out among processes. Exit code 0: all fit; 1: "
        "some diverge; 2: none diverges, but some could not be told. With --json: "
        '{"counts": {"fits", "diverges", "unknown"}, "groups": [{…, "runs", "open", "run_ids"}], "runs": '
        '[{"run_id", "workflow", "open", "verdict", "events", "event", "recorded", "yielded", "differs", "cause", '
        '"line_then", "line_now", "file", "source", "reason"}], "cut"}, where line_then was recorded with the event.',
    ),
)
@click.argument("runs", nargs=-1, type=RunName())
@click.option("--all", "every", is_flag=True, help="Every run that the filters let through.")
@click.option("--open", "open_only", is_flag=True, help="Only runs that may still go on; short for --status open.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="About N runs of every age and workflow.")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="How many; else one for each processor.")
@click.option("--junit", "junit_file", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML too.")
@click.option("--sarif", "sarif_file", type=click.Path(path_type=Path, dir_okay=False), help="Write SARIF too.")
@app_option(required=True)
@filter_options
@store_option
@json_option
def verify_runs(
    runs: tuple[str, ...],
    every: bool,
    open_only: bool,
    sample: int | None,
    processes: int | None,
    junit_file: Path | None,
    sarif_file: Path | None,
    app: str,
    store: str | None,
    json_wanted: bool,
    **filters: Any,
) -> None:
    """Replay histories against code."""
    chosen_otherwise = bool(every or open_only or sample or any(filters.values()))
    if bool(runs) == chosen_otherwise:
        raise click.UsageError("name the runs, or say --all (or --open, --sample, --workflow, … for some of them)")
    if open_only:
        filters["status"] = ("open",)
    writers: list[tuple[Path | None, Writer]] = [(junit_file, junit), (sarif_file, partial(sarif, here=Path.cwd()))]
    for path, _ in writers:
        if path is not None and not path.resolve().parent.is_dir():
            raise BadOption(f"{path} cannot be written: there is no folder {path.resolve().parent}")
    loaded = load_app(app)
    with reading(store) as opened:
        chosen = chosen_runs(opened, runs, **filters)
        if sample is not None:
            chosen = sampled(chosen, sample)
        found = verify_in_processes(opened, chosen, loaded, processes)
        findings = list(watched(found, "replaying", len(chosen)))
        cut = cut_data(opened)
    for path, write in writers:
        if path is not None:
            with whole_file(path) as out:
                out.write(write(findings).encode())
    if json_wanted:
        show_json(reports.verify_data(findings) | {"cut": cut})
    else:
        show_long(*reports.verify_report(findings))
    click.get_current_context().exit(answer(findings))


@click.command(
    "diff",
    help=command_help(
        "Compare two histories: where they part first, and what differs after that.",
        "replay diff order-42 order-43",
        "Events are matched by the command they answer. Ids, times and source lines are left out; the times of runs "
        "that did the same are compared apart. Exit code 0: the same; 1: they differ. With --json: "
        '{"same", "events": {"a", "b"}, "divergences": [{"a", "b": indices or null, "id", "event", "moved", '
        '"differences": [{"field", "a", "b"}]}], "timings": null where the runs are not of one shape, else {"took_us": '
        '{"a", "b"}, "spans": [{"id", "what", "name", "a_us", "b_us"}]}, "cut"}.',
    ),
)
@click.argument("a", type=RunName())
@click.argument("b", type=RunName())
@click.option("--other", metavar="URL", type=StoreUrl(), help="The store that B is in, when it is another one.")
@app_option(required=False)
@store_option
@json_option
def diff_runs(a: str, b: str, other: str | None, app: str | None, store: str | None, json_wanted: bool) -> None:
    """Compare two histories."""
    codec = codec_of(app)
    with reading(store) as opened:
        first = read_run(opened, find_run(opened, a))
        second = read_run(opened, find_run(opened, b)) if other is None else None
        cut = cut_data(opened)
    if second is None:
        with reading(other) as opened:
            second = read_run(opened, find_run(opened, b))
            cut = cut or cut_data(opened)
    for kept in (first, second):
        if kept.unreadable is not None:
            upto = f"{kept.record.run_id} is compared up to event {kept.unreadable.index}"
            say(f"{upto}, and what the other has after that is listed: {kept.unreadable.why}", mark="warning")
    comparison = compare(first.events, second.events, codec)
    if json_wanted:
        show_json(reports.diff_data(comparison, first.events, second.events) | {"cut": cut})
    else:
        show_long(*reports.diff_report(comparison, first.events, second.events))
    click.get_current_context().exit(NO if comparison.divergences else 0)
