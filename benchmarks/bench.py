"""The benchmark: `make bench` prints a table of what the engine does, each figure beside its yardstick.

    python benchmarks/bench.py --only fleet --runs 9 --json fleet.json

A yardstick is the same work by LMDB, a generator or msgpack alone, measured in the same run and on the same disk; see
`measuring` for how. The disk matters: on one in memory a flush costs nothing, and the table says nothing.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Result, Row, Scenario, Target, measure

STEPS = "steps/s"
WORKFLOWS = "workflows/s"
PUTS = "raw LMDB, a put per synced commit"
ANY = Target()
"""Where no figure was promised."""

WIDTH = 160
"""Of the table where it does not go to a terminal."""


def under_fire(policy: str, named: str) -> Scenario:
    """Kills at random under a checkpoint policy, beside what Young's model says of it."""
    return Scenario(
        name=f"kills-{policy.replace('_', '-')}",
        measured=f"kills.under_fire_{policy}",
        yardstick=f"kills.foretold_{policy}",
        against="Young's model, with LMDB's flush",
        size=3000,
        rows=(
            Row(f"killed each second, {named}: bodies run again", "repeated", "% of all", ANY),
            Row("flushes for 3,000 idempotent steps of 2 ms", "flushes", "flushes", ANY),
            Row("time at work", "s", "s", ANY),
        ),
        quick_size=20,
        rounds=1,
    )


SCENARIOS = (
    Scenario(
        name="sequence",
        measured="sequence",
        yardstick="raw_puts",
        against=PUTS,
        size=1000,
        rows=(Row("1,000 steps one after another, full", STEPS, STEPS, Target(least_ratio=0.8)),),
    ),
    Scenario(
        name="sequence-relaxed",
        measured="sequence_relaxed",
        yardstick="raw_puts_relaxed",
        against="raw LMDB, a put per commit, metasync off",
        size=1000,
        rows=(Row("the same, relaxed", STEPS, STEPS, Target(least_ratio=0.8)),),
    ),
    Scenario(
        name="sequence-idempotent",
        measured="sequence_idempotent",
        yardstick="raw_puts",
        against=PUTS,
        size=1000,
        rows=(Row("the same, full, idempotent=True", STEPS, STEPS, Target(least_ratio=6)),),
    ),
    Scenario(
        name="fleet",
        measured="fleet",
        yardstick="raw_group_commit",
        against="bare generators, group commit on LMDB",
        size=200,
        rows=(Row("200 workflows of 20 steps in flight, full", STEPS, STEPS, Target(50_000, least_ratio=0.15)),),
        quick_size=5,
    ),
    Scenario(
        name="starts",
        measured="starts",
        yardstick="raw_puts",
        against=PUTS,
        size=2000,
        rows=(Row("2,000 workflows of a step, one by one", WORKFLOWS, WORKFLOWS, Target(least_ratio=0.8)),),
    ),
    Scenario(
        name="starts-in-bulk",
        measured="starts_in_bulk",
        yardstick="raw_puts",
        against=PUTS,
        size=2000,
        rows=(Row("the same with start_many", WORKFLOWS, WORKFLOWS, Target(20_000)),),
    ),
    Scenario(
        name="recovery",
        prepare="record_history",
        measured="recovery",
        yardstick="bare_recovery",
        against="bare generator, msgpack, one LMDB scan",
        size=10_000,
        rows=(
            Row("10,000 steps: store opened to next body", "ms", "ms", Target(most=50)),
            Row("their history on the disk", "bytes/step", "bytes/step", Target(most=150)),
        ),
    ),
    Scenario(
        name="replay",
        measured="replay",
        yardstick="bare_replay",
        against="bare generator, msgpack",
        size=10_000,
        rows=(Row("their replay from stored bytes", "events/s", "events/s", Target(200_000)),),
    ),
    Scenario(
        name="reopen",
        prepare="waiting",
        measured="reopen",
        yardstick="raw_reopen",
        against="the same file in raw LMDB, one put",
        size=100_000,
        rows=(Row("100,000 runs wait: opened, signalled, ended", "s", "s", Target(most=1)),),
        quick_size=500,
    ),
    Scenario(
        name="waiting",
        measured="waiting",
        yardstick="bare_generators",
        against="suspended generators in a list",
        size=100_000,
        # Nothing is to grow with their number; the allocator itself wavers by some megabytes, which is 100 bytes a run.
        rows=(Row("memory of each, once put away", "bytes/run", "bytes/run", Target(most=100)),),
        quick_size=500,
        rounds=1,
    ),
    Scenario(
        name="two-workers",
        measured="sharing.two_workers",
        yardstick="sharing.one_worker",
        against="one worker process",
        size=200,
        rows=(Row("two worker processes, step bodies of 1 ms of CPU", "steps/s", "steps/s", Target(least_ratio=1.8)),),
        quick_size=5,
        rounds=3,
    ),
    Scenario(
        name="takeover",
        measured="sharing.takeover",
        yardstick="sharing.fresh_start",
        against="the same bodies begun for the first time",
        size=1000,
        rows=(
            Row("1,000 running workflows, after SIGKILL", "s after SIGKILL", "s", Target(most=1)),
            Row("the same frozen, beyond the lease of 2 s", "s beyond the lease", "s", Target(most=1)),
        ),
        quick_size=5,
        rounds=3,
    ),
    under_fire("every_1", "every step"),
    under_fire("every_10", "every 10 steps"),
    under_fire("every_100", "every 100 steps"),
    under_fire("adaptive", "adaptive"),
    Scenario(
        name="jumps",
        measured="debugger.jumps",
        yardstick="debugger.whole_replay",
        against="a bare replay of the whole history",
        size=10_000,
        rows=(
            Row("replay step: a jump in 10,000 events, drawn", "median ms", "ms", Target(most=100)),
            Row("the slowest of 200 such jumps", "worst ms", "ms", Target(most=100)),
        ),
    ),
    Scenario(
        name="jumps-among-branches",
        measured="debugger.jumps_among_branches",
        yardstick="debugger.whole_replay_of_branches",
        against="a bare replay of the whole history",
        size=10_000,
        rows=(
            Row("the same with 5,000 branches at once", "median ms", "ms", Target(most=100)),
            Row("the slowest of 200 such jumps", "worst ms", "ms", Target(most=100)),
        ),
    ),
    Scenario(
        name="verify",
        prepare="debugger.record_histories",
        measured="debugger.verifying",
        yardstick="debugger.bare_replays",
        against="bare replays in one process, from memory",
        size=10_000,
        rows=(
            Row("replay verify, 10,000 histories, on one process", "histories/s on one process", "histories/s", ANY),
            Row("their events", "events/s on one process", "events/s", ANY),
            Row("the same on two processes, their start included", "histories/s on two", "histories/s", ANY),
            Row("their events", "events/s on two", "events/s", ANY),
        ),
        rounds=3,
    ),
    Scenario(
        name="top",
        prepare="waiting",
        measured="debugger.watching",
        yardstick="debugger.raw_walk",
        against="LMDB's cursor over the same file",
        size=100_000,
        rows=(
            Row("replay top, 100,000 runs wait: a look after a change", "ms", "ms", Target(most=100)),
            Row("its first look, at all of them", "first ms", "ms", ANY),
            Row("a look in a calm", "calm ms", "ms", Target(most=1)),
        ),
        quick_size=500,
        rounds=3,
    ),
    Scenario(
        name="simulation",
        measured="simulated.simulating",
        yardstick="simulated.referring",
        against="run_reference, which works them out directly",
        size=2000,
        rows=(Row("random workflow programs in simulation, one core", "programs/min", "programs/min", Target(2000)),),
        rounds=3,
    ),
    Scenario(
        name="guard",
        measured="simulated.steps_under_guard",
        yardstick="simulated.steps_without_guard",
        against="the same without it",
        size=20_000,
        rows=(Row("steps in simulation under the determinism guard", STEPS, STEPS, Target(least_ratio=0.95)),),
    ),
    Scenario(
        name="postgresql-sequence",
        measured="postgresql.sequence_on_postgresql",
        yardstick="postgresql.inserts",
        against="psycopg alone, a prepared insert per commit",
        size=1000,
        rows=(Row("1,000 steps one after another, PostgreSQL", STEPS, STEPS, Target(least_ratio=0.8)),),
    ),
    Scenario(
        name="postgresql-fleet",
        measured="postgresql.fleet_on_postgresql",
        yardstick="postgresql.inserts_together",
        against="bare generators, an insert of lists",
        size=200,
        rows=(Row("200 workflows of 20 steps, PostgreSQL, one worker", STEPS, STEPS, Target(20_000)),),
        quick_size=5,
    ),
    Scenario(
        name="import",
        measured="import_time",
        yardstick="bare_interpreter",
        against="a bare interpreter's start and end",
        size=7,
        rows=(Row("import dalsegno, over a bare interpreter", "ms", "ms", Target(most=100)),),
        quick_size=1,
    ),
)


def shown(readings: list[float], unit: str) -> str:
    """A median with its range, short enough for a table."""
    low, middle, high = min(readings), median(readings), max(readings)
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    span = f" ({low:,.{digits}f}–{high:,.{digits}f})" if len(readings) > 1 else ""  # noqa: RUF001  # a dash is right
    return f"{middle:,.{digits}f} {unit}{span}"


def as_table(results: list[Result]) -> Table:
    """The results for people."""
    table = Table(title="dalsegno beside its yardsticks", title_justify="left")
    for heading in ("what", "measured", "yardstick", "ratio", "target", "ok?"):
        table.add_column(heading, justify="right" if heading == "ratio" else "left")
    for result in results:
        unit = result.row.unit
        table.add_row(
            result.row.what,
            shown(result.measured, unit),
            f"{shown(result.yardstick, unit)}\n[dim]{result.scenario.against}[/dim]",
            f"{result.ratio:.2f} x",
            str(result.row.target),
            "[green]yes[/green]" if result.met else "[red]no[/red]",
        )
    return table


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only these scenarios (may be given more than once).")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="Rounds of each scenario.")
@click.option("--quick", is_flag=True, help="Tiny sizes: shows that it runs, not how fast.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="A folder on the disk to measure.  [.bench]")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every reading here, too.")
def main(only: tuple[str, ...], runs: int, quick: bool, folder: Path | None, file: Path | None) -> None:
    """Measure, and print a table. Takes about two minutes; keep the machine quiet meanwhile.

    Example: python benchmarks/bench.py --only sequence --only fleet --runs 9
    """
    names = [scenario.name for scenario in SCENARIOS]
    if unknown := set(only) - set(names):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: it is one of {', '.join(names)}", param_hint="--only")
    folder = folder or Path(".bench")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    results = list[Result]()
    with Console(stderr=True).status("") as status, tempfile.TemporaryDirectory(dir=folder) as place:
        for scenario in SCENARIOS:
            if not only or scenario.name in only:
                try:
                    results += measure(scenario, Path(place).absolute(), runs, quick, status.update)
                except subprocess.SubprocessError as error:
                    raise click.ClickException(f"{scenario.name}: {error}") from error
    console.print(as_table(results))
    if file is not None:
        about = {"python": platform.python_version(), "machine": platform.platform(), "quick": quick}
        file.write_text(json.dumps({**about, "rows": [result.as_data() for result in results]}, indent=2))
    sys.exit(0)


if __name__ == "__main__":
    main()
