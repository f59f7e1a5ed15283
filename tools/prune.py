"""`replay prune`: retention by hand, once. What may go is decided by `dalsegno.core.retention`, as in an engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from rich.table import Table

from dalsegno.core.archive import Archive, sink_for
from dalsegno.core.errors import BadOption, StoreError
from dalsegno.core.policies import Retention
from dalsegno.core.retention import Sweep
from dalsegno.core.store import Backend, open_store
from dalsegno.tools.compact import Compactable
from dalsegno.tools.failures import say
from dalsegno.tools.options import Age, command_help, json_option, now_us, show, show_json, store_option, watched
from dalsegno.tools.stores import open_for_reading, url_to_write
from dalsegno.tools.text import clean, duration, without_password

F = TypeVar("F", bound=Callable[..., Any])


class Kept(Age):
    """An age, or `never`: how long something is kept, in microseconds; None, for ever, is written as -1."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return -1 if value == "never" else super().convert(value, param, ctx)


def retention_options(function: F) -> F:
    """What says how long runs are kept, and where their histories go."""
    options = (
        click.option("--completed", type=Kept(), metavar="AGE", help="Keep what completed so long; else 7d."),
        click.option("--failed", type=Kept(), metavar="AGE", help="Keep what ended otherwise so long; else 30d."),
        click.option(
            "--continued", type=Kept(), metavar="AGE", help="Keep runs of a chain so long; else as the chain."
        ),
        click.option("--archive", metavar="FOLDER", help="A folder, or a URL of fsspec, for the histories."),
        click.option("--archive-for", type=Kept(), metavar="AGE", help="Keep in the archive so long; else for ever."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def retention_of(**given: Any) -> Retention | None:
    """The policy that those options say; None where nothing is said."""
    said = {name: value for name, value in given.items() if value is not None}
    if "archive_for" in said and not said.get("archive"):
        raise BadOption("--archive-for says how long an archive keeps runs; name it with --archive")
    ages = {name: None if us < 0 else us / 1e6 for name, us in said.items() if name != "archive"}
    return Retention(**ages, archive=said.get("archive")) if said else None


@click.command(
    "prune",
    help=command_help(
        "Delete runs that closed long enough ago, in closed trees; with --archive, put their histories there first.",
        "replay prune --store lmdb:./orders --completed 7d --failed 30d --archive ./archive --dry-run",
        "An open run never goes, nor what is above or below one, nor whatever depends on a run that stays. An engine "
        "may be at work meanwhile; what was cut off is taken up by the next prune. AGE is like 90s, 36h, 7d or never. "
        'With --json: {"removed", "archived", "dry_run", "more": whether --limit cut it short, "went": [{"workflow", '
        '"status", "runs"}], "stays": {"young", "above", "below", "chain", "earlier", "forever", "unreadable": how '
        'many of those looked at}, "expired": files deleted from the archive}.',
    ),
)
@retention_options
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many runs.")
@click.option("--yes", is_flag=True, help="Ask nothing; where no terminal is, nothing is asked anyway.")
@store_option
@json_option
def prune_runs(store: str | None, json_wanted: bool, dry_run: bool, limit: int | None, yes: bool, **kept: Any) -> None:
    """Delete old runs."""
    url, policy = url_to_write(store), retention_of(**kept) or Retention()
    put = sink_for(policy.archive, now_us)
    opened = open_for_reading(url)  # which makes no store where there is none
    if not dry_run:
        opened.close()
        _ask(url, policy, yes or json_wanted)
        if isinstance(policy.archive, str):
            Archive.open(policy.archive, now_us).folder.ready()
        opened = open_store(url)
    with opened:
        sweep = Sweep(opened, policy, now_us(), put=put, dry=dry_run, limit=limit)
        try:
            _go_through(sweep, opened, dry_run)
            expired = 0 if dry_run else _expire(policy)
        except StoreError:
            if not dry_run:
                say(f"{sweep.removed} runs were deleted before this:", mark="")
            raise
        shrinks = isinstance(opened, Compactable)
    if json_wanted:
        show_json(_data(sweep, dry_run, expired))
    else:
        _tell(sweep, policy, dry_run, expired, shrinks)


def _ask(url: str, policy: Retention, answered: bool) -> None:
    """A person at a terminal, who names no archive, is asked once."""
    if policy.archive is None and not answered and sys.stdin.isatty():
        ages = ", ".join(
            f"{what} {'for ever' if age is None else duration(round(age * 1e6))}"
            for what, age in (("completed runs", policy.completed), ("all others", policy.failed))
        )
        click.confirm(
            f"This deletes closed runs of {clean(without_password(url))} for good, as there is no --archive. "
            f"Kept are {ages}. Go on?",
            abort=True,
            err=True,
        )


def _go_through(sweep: Sweep, store: Backend, dry: bool) -> None:
    """The pass, with a bar that counts the runs looked at."""
    counts = store.stats()
    closed = sum(counts[name] for name in ("completed", "failed", "cancelled", "terminated", "continued"))

    def examined() -> Iterator[None]:
        told = 0
        for _ in sweep.portions():
            while told < sweep.examined:
                told += 1
                yield

    for _ in watched(examined(), "looking" if dry else "pruning", closed):
        pass


def _expire(policy: Retention) -> int:
    """Delete from the archive what it has held long enough; answers how many files."""
    if policy.archive_for is None or not isinstance(policy.archive, str):
        return 0
    before_us = now_us() - round(policy.archive_for * 1e6)
    gone = Archive.open(policy.archive, now_us).expire(before_us)
    return sum(1 for _ in watched(gone, "expiring"))


def _data(sweep: Sweep, dry: bool, expired: int) -> dict[str, Any]:
    return {
        "removed": sweep.removed,
        "archived": sweep.archived,
        "dry_run": dry,
        "more": sweep.more,
        "went": [
            {"workflow": workflow, "status": status.value, "runs": count}
            for (workflow, status), count in sorted(sweep.went.items(), key=lambda one: (one[0][0], one[0][1].value))
        ],
        "stays": {why.name.lower(): count for why, count in sweep.stays.items()},
        "expired": expired,
    }


def _tell(sweep: Sweep, policy: Retention, dry: bool, expired: int, shrinks: bool) -> None:
    """What went and what stays, for people."""
    if sweep.went:
        table = Table("workflow", "status", "would go" if dry else "gone", box=None, pad_edge=False)
        table.columns[2].justify = "right"
        for one in _data(sweep, dry, expired)["went"]:
            table.add_row(clean(one["workflow"], 60), one["status"], f"{one['runs']:,}")
        show(table, "")
    word = "would be deleted" if dry else "deleted"
    said = f"{sweep.removed:,} run{'s' * (sweep.removed != 1)} {word}"
    if policy.archive is not None and sweep.removed:
        place = clean(without_password(str(policy.archive)))
        said += f", {'after archiving' if dry else 'archived'} in {place}"
    say(said + (f"; --limit {sweep.removed} is reached, there are more" if sweep.more else ""), mark="")
    for why, count in sweep.stays.most_common():
        say(f"{count:,} closed run{'s' * (count != 1)} stay{'s' * (count == 1)}: {why.value}", mark="")
    if expired:
        say(f"{expired:,} file{'s' * (expired != 1)} deleted from the archive", mark="")
    if sweep.removed and shrinks and not dry:
        say("The file keeps its size, and fills its free pages again; `dalsegno compact` writes a small copy.", mark="")
