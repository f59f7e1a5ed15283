"""`dalsegno queues`: what waits in the queues of a store, what is at work, and their limits, which it can change.

The tables and the data of queues that `replay top` and `replay stats` show are made here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click
from rich.table import Table

from dalsegno.core.errors import BadOption
from dalsegno.core.queues import QueueState
from dalsegno.core.store import Backend
from dalsegno.tools.choosing import reading
from dalsegno.tools.failures import NO, say
from dalsegno.tools.limits import Change, LimitsOf, changed, written
from dalsegno.tools.options import (
    QueueName,
    command_help,
    json_option,
    now_us,
    show_json,
    show_long,
    store_option,
)
from dalsegno.tools.render import table, text
from dalsegno.tools.talking import talking
from dalsegno.tools.text import clean, duration, iso

AGES_UP_TO: Final = 20_000
"""While so many wait at most, one looks how long the oldest of them has: a store may have to read them all for it."""


@click.command(
    "queues",
    help=command_help(
        "Show the queues of a store: what waits, what is at work, how old the oldest is, and the limits.",
        "dalsegno queues --set mail=concurrency:2,rate:10/60s --store lmdb:./orders",
        "NAMES are the queues to show, all of them if left out. A queue of steps and one of runs may have one name; "
        "limits hold for each of the two. --set changes them for all workers at once, while they run: "
        "`concurrency:N` bounds how many are at work, `per-key:N` how many of one key, `rate:N/60s` how many begin in "
        "a time. What is not named stays as it is; `concurrency:none` lifts that limit, and `mail=none` all. It holds "
        "until somebody declares others, as workers do when they begin: with the Queue objects of their app, and "
        'with --limit. With --json: {"queues": [{"name", "kind": "step" or "run", "waiting", "at_work", "oldest": '
        'when it was put there, or null, "next": when time lets one go, or null, "limits": {"concurrency", "per_key", '
        '"rate": {"count", "per_s"}}, each or null}]}.',
    ),
)
@click.argument("names", nargs=-1, type=QueueName())
@click.option("--set", "changes", multiple=True, type=LimitsOf(), help="Change the limits of a queue.")
@store_option
@json_option
def queues_of_store(names: tuple[str, ...], changes: tuple[Change, ...], store: str | None, json_wanted: bool) -> None:
    """Show queues."""
    if changes:
        declare(store, changes)
    with reading(store) as opened:
        if not opened.has_queues:
            raise BadOption("a store of this kind keeps no queues; lmdb: and postgresql:// do")
        there = opened.queues()
        living = bool(opened.leases())
    shown = [state for state in there if not names or state.name in names]
    missing = [name for name in names if name not in {state.name for state in there}]
    if missing:
        known = ", ".join(clean(name, 60) for name in sorted({state.name for state in there}))
        say(f"there is no queue '{clean(missing[0], 80)}'" + (f"; there is {known}" if known else " in this store"))
        click.get_current_context().exit(NO)
    if json_wanted:
        show_json({"queues": [queue_data(state) for state in shown]})
    elif shown:
        show_long(queues_table(without_idle_twins(shown), now_us()))
        if not living and any(state.waiting for state in shown):
            say("no worker that shares this store is alive", mark="warning")
    else:
        say("no queues in this store: nothing was declared, and nothing waits", mark="")


def declare(store: str | None, changes: Sequence[Change]) -> None:
    """Change limits in the store, over what was declared."""
    with talking(store) as client:
        declared = {state.name: state.limits for state in client.backend.queues(ages=False)}
        names = {change.name for change in changes}
        client.backend.declare(changed((declared[name] for name in names if name in declared), changes))


def queue_states(store: Backend) -> list[QueueState]:
    """The queues of a store, with ages where that costs little."""
    states = store.queues(ages=False)
    return store.queues() if 0 < sum(state.waiting for state in states) <= AGES_UP_TO else states


def without_idle_twins(states: Sequence[QueueState]) -> list[QueueState]:
    """Queues for people: of two with one name, those of steps and of runs, one that holds nothing is left out."""
    busy = {(state.name, state.kind) for state in states if state.waiting or state.at_work}
    names = {name for name, _ in busy}
    return [
        state
        for state in states
        if (state.name, state.kind) in busy or (state.name not in names and state.kind == "step")
    ]


def queues_table(states: Sequence[QueueState], now_us: int) -> Table:
    """Queues, one a line."""
    made = table("queue", "of", "waiting", "at work", "oldest", "limits", right=("waiting", "at work", "oldest"))
    for state in states:
        made.add_row(
            text(state.name, "bold"),
            f"{state.kind}s",
            f"{state.waiting:,}" if state.waiting else "",
            f"{state.at_work:,}" if state.at_work else "",
            "" if state.oldest_us is None else duration(max(0, now_us - state.oldest_us)),
            text(written(state.limits), "" if has_limits(state) else "dim", None),
        )
    return made


def has_limits(state: QueueState) -> bool:
    """Whether anything bounds this queue."""
    limits = state.limits
    return not (limits.concurrency is None and limits.per_key is None and limits.rate is None)


def queue_data(state: QueueState) -> dict[str, Any]:
    """A queue as every `--json` shows it."""
    limits, rate = state.limits, state.limits.rate
    return {
        "name": state.name,
        "kind": state.kind,
        "waiting": state.waiting,
        "at_work": state.at_work,
        "oldest": iso(state.oldest_us),
        "next": iso(state.next_us),
        "limits": {
            "concurrency": limits.concurrency,
            "per_key": limits.per_key,
            "rate": None if rate is None else {"count": rate.count, "per_s": rate.per},
        },
    }
