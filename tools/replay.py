"""`replay`: the debugger over a store, or over a file that was exported from one.

Every command is thin: it finds what is meant, calls a function of this package that computes, and prints what that
answers. It never runs a step, takes no hold of the store, and writes only on `fork`, `import` and `prune`; an engine
may be at work meanwhile. Exit codes are in `dalsegno.tools.failures`.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from dalsegno.tools import reports
from dalsegno.tools.auditing import check_store
from dalsegno.tools.branching import fork_run
from dalsegno.tools.choosing import filtered, reading
from dalsegno.tools.debugging import debug_run
from dalsegno.tools.exported import cut_data
from dalsegno.tools.failures import CalmGroup, say
from dalsegno.tools.forms import run_data
from dalsegno.tools.judging import diff_runs, verify_runs
from dalsegno.tools.lines import coverage_of_runs, where_runs
from dalsegno.tools.lint.command import lint
from dalsegno.tools.measuring import measure
from dalsegno.tools.moving import export_runs, import_file
from dalsegno.tools.oncall import why_run
from dalsegno.tools.options import (
    CONTEXT,
    command_help,
    filter_options,
    json_option,
    now_us,
    show_json,
    show_long,
    store_option,
    watched,
)
from dalsegno.tools.prune import prune_runs
from dalsegno.tools.render import runs_table
from dalsegno.tools.showing import show_run
from dalsegno.tools.stepping import step_run
from dalsegno.tools.stores import all_runs
from dalsegno.tools.top import top_of_store

GROUP_HELP = """Look into the histories of a store: what ran, when, how long, and whether today's code still fits.

It never runs a step, and writes only on `fork`, `import` and `prune`; an engine may be at work meanwhile.

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


# --- ls ------------------------------------------------------------------------------------------------------------


@main.command(
    "ls",
    help=command_help(
        "List runs, newest first.",
        "replay ls --status open --workflow fulfil --tag region=eu --since 7d",
        'With --json: {"runs": [{"id", "run_id", "generation", "workflow", "status", "active", "reason", "created_at", '
        '"closed_at", "tags", "parent", "queue", "queued"}], "more": whether --limit cut the list, "cut": what a file '
        "lacks, or null}.",
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
        cut = cut_data(opened)
    shown, more = found[:limit], len(found) > limit
    if json_wanted:
        show_json({"runs": [run_data(record) for record in shown], "more": more, "cut": cut})
        return
    show_long(runs_table(shown, now))
    if more:
        say(f"only the newest {limit} are shown; --limit shows more", mark="")
    elif not shown:
        say("no runs" + (" that fit" if any(filters.values()) else " in this store"), mark="")


main.add_command(show_run)
main.add_command(verify_runs)
main.add_command(diff_runs)
main.add_command(why_run)
main.add_command(export_runs)
main.add_command(import_file)
main.add_command(step_run)
main.add_command(debug_run)
main.add_command(where_runs)
main.add_command(coverage_of_runs)
main.add_command(fork_run)
main.add_command(prune_runs)
main.add_command(top_of_store)

# --- stats -----------------------------------------------------------------------------------------------


@main.command(
    "stats",
    help=command_help(
        "Sizes, counts per status, success rate, events and bytes per run, rates.",
        "replay stats --store lmdb:./orders",
        'With --json: {"store": the store\'s own counts, "all" and "workflows": {name: {"runs", "statuses", "success", '
        '"took_us": {"least", "median", "p95", "most"}}}, "events", "events_per_run", "bytes_per_run", '
        '"bytes_per_event", "started" and "ended": {"minute", "hour", "day"}, "queues": as in '
        '`dalsegno queues`, "cut"}.',
    ),
)
@store_option
@json_option
def show_stats(store: str | None, json_wanted: bool) -> None:
    """Figures of a store."""
    with reading(store) as opened:
        stats = measure(opened, watched(all_runs(opened), "counting"), now_us())
        cut = cut_data(opened)
    if json_wanted:
        show_json(reports.stats_data(stats) | {"cut": cut})
    else:
        show_long(*reports.stats_report(stats))


main.add_command(check_store)
main.add_command(lint)


if __name__ == "__main__":
    main()
