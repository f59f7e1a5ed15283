"""`replay why`: what a run waits for, and what would make it go on."""

from __future__ import annotations

import click
from rich.text import Text

from dalsegno.core.errors import UnknownDefinition
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import load_app
from dalsegno.tools.choosing import reading
from dalsegno.tools.explaining import Case, why, why_data
from dalsegno.tools.exported import cut_data
from dalsegno.tools.forms import run_data
from dalsegno.tools.options import RunName, app_option, command_help, json_option, now_us, show, show_json, store_option
from dalsegno.tools.queued import Look
from dalsegno.tools.stores import find_run, read_run
from dalsegno.tools.text import clean


@click.command(
    "why",
    help=command_help(
        "Say in a paragraph why a run does not go on: where it stands, what it waits for, and what would help.",
        "replay why order-42 --app shop.orders",
        "Without --app it says what the history tells: timers, retries, children, errors. With it the history is "
        "replayed, and every wait is named with its line; no step is run. With --json: "
        '{"run": as in ls, "text", "waits": [{"id", "kind", "name", "line", "file", "source", "since", "until", '
        '"attempts", "attempts_max", "began", "error", "child"}], "after_line", "by_code", "problem", "last_error": '
        '{"event", "what", "name", "error", "at", "attempts", "cause", "line"} or null, "owner", '
        '"lease_valid", "claim", "deaths", "queue": the one it waits in to begin, or null, "tasks": [{"id", "name", '
        '"queue", "key", "priority", "attempt", "since", "owner", "lease_valid", "taken", "deaths", "holds"}], '
        '"workers": that are alive, "advice": [{"what", "command"}], "cut"}.',
    ),
)
@click.argument("run", type=RunName())
@app_option(required=False)
@store_option
@json_option
def why_run(run: str, app: str | None, store: str | None, json_wanted: bool) -> None:
    """Explain one run."""
    loaded = load_app(app) if app else None
    codec = loaded.codec if loaded is not None else Codec()
    with reading(store) as opened:
        kept = read_run(opened, find_run(opened, run))
        inbox = opened.inbox(kept.record.number)
        leases = {lease.owner: lease for lease in opened.leases()}
        now = now_us()
        look = Look.at(opened, kept.record, leases, now)
        cut = cut_data(opened)
    definition, problem = None, ""
    if loaded is not None and kept.unreadable is None:
        try:
            definition = loaded.workflow(kept.record.workflow)
        except UnknownDefinition as error:
            problem = str(error)
    found = why(
        Case(
            kept=kept,
            inbox=inbox,
            now_us=now,
            codec=codec,
            definition=definition,
            problem=problem,
            app=app,
            store=store,
            lease=leases.get(kept.record.owner),
            look=look,
        )
    )
    if json_wanted:
        show_json({"run": run_data(kept.record), **why_data(found, codec), "cut": cut})
        return
    show(Text(clean(" ".join(found.sentences))))
    for one in found.advice:
        show(Text(f"  {clean(one.command)}", style="bold"))
