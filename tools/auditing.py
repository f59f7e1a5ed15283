"""`replay check`: everything that has to hold in a store, and between it and a ledger of what was really done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dalsegno.tools.checking import check_runs
from dalsegno.tools.choosing import reading
from dalsegno.tools.exported import cut_data
from dalsegno.tools.failures import NO, say
from dalsegno.tools.ledger import Compared, Outcomes
from dalsegno.tools.options import (
    Age,
    Name,
    busy,
    command_help,
    json_option,
    show_json,
    show_long,
    store_option,
    watched,
)
from dalsegno.tools.render import problems_table
from dalsegno.tools.stores import all_runs
from dalsegno.tools.text import counted


@click.command(
    "check",
    help=command_help(
        "Read everything, verify every checksum and what has to hold between records; exit code 1 on problems.",
        "replay check --store lmdb:./orders",
        "--ledger FILE holds the histories against what step bodies wrote themselves: every recorded outcome has to "
        "have been executed, and nothing may be executed once its outcome is recorded. FILE has a line of JSON for "
        'each body that began: {"key": step_context().idempotency_key, "attempt": step_context().attempt, "at": '
        'time.time(), "pid": the process, or nothing}. Where not all steps keep it, --step names those that do; '
        "--slack is how far the clocks of the machines may be apart. "
        'With --json: {"runs": how many, "problems": [{"run", "event", "what", "key"}], "together": whether what '
        'has to hold between runs could be told, no engine having written meanwhile, "ledger": {"file", "executions", '
        '"outcomes", "elsewhere": executions of runs that are not in this store, "torn": whether a last line without '
        'end was left out} or null, "cut"}.',
    ),
)
@click.option("--ledger", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="What bodies wrote.")
@click.option("--step", "steps", multiple=True, type=Name(), help="With --ledger: only steps of this name.")
@click.option("--slack", type=Age(), help="With --ledger: what the clocks may be apart (5ms, 1s).  [0s]")
@store_option
@json_option
def check_store(
    ledger: Path | None, steps: tuple[str, ...], slack: int | None, store: str | None, json_wanted: bool
) -> None:
    """Verify a store."""
    if ledger is None and (steps or slack is not None):
        raise click.UsageError("--step and --slack are about a ledger; say --ledger FILE")
    outcomes = Outcomes(steps)
    with reading(store) as opened:
        with busy("verifying checksums"):
            problems = opened.check()
        records = list(all_runs(opened))
        note = outcomes.note if ledger is not None else None
        checked = check_runs(opened, watched(records, "reading histories"), note)
        problems += checked.problems
        cut = cut_data(opened)
    compared = outcomes.against(ledger, slack or 0) if ledger is not None else None
    if compared is not None:
        problems += compared.problems
        if compared.torn:
            say(
                f"the last line of {ledger} has no end and is left out: somebody writes, or died writing",
                mark="warning",
            )
    if not checked.together:
        say("an engine wrote meanwhile, so what has to hold between runs could not be told", mark="warning")
    if json_wanted:
        found = [{"run": p.run, "event": p.event, "what": p.what, "key": p.key} for p in problems]
        more = {"ledger": ledger_data(ledger, compared), "cut": cut}
        show_json({"runs": len(records), "problems": found, "together": checked.together, **more})
    elif problems:
        show_long(problems_table(problems))
        say(f"{counted(len(problems), 'problem')} in {counted(len(records), 'run')}", mark="")
    else:
        said = f"{len(records)} runs: every checksum is right and everything fits together"
        say(said + (f"; {_said(compared)}" if compared is not None else ""), mark="")
    click.get_current_context().exit(NO if problems else 0)


def _said(compared: Compared) -> str:
    away = f", {compared.elsewhere:,} more of runs that are not here" if compared.elsewhere else ""
    bodies = compared.executions - compared.elsewhere
    return f"{counted(compared.outcomes, 'outcome')} of {counted(bodies, 'execution')} in the ledger{away}"


def ledger_data(ledger: Path | None, compared: Compared | None) -> dict[str, Any] | None:
    """How `--json` tells of the ledger."""
    if compared is None:
        return None
    return {
        "file": str(ledger),
        "executions": compared.executions,
        "outcomes": compared.outcomes,
        "elsewhere": compared.elsewhere,
        "torn": compared.torn,
    }
