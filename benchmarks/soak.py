"""The soak: a mix of all that an engine does, for long, and is anything growing? `make soak` does both forms of it.

    python benchmarks/soak.py --simulated-day            24 hours of virtual time, with a crash every hour or so
    python benchmarks/soak.py --real 60                  an hour at full speed on a real store, in one process

Retention is on in both, so that as many runs go as come. Memory, objects, files, threads and the store are read again
and again; `flatness` says what counts as flat. The exit status is 0 when all are, 1 when one grows.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.flatness import FEWEST, SHARE, Course, Kind
from benchmarks.measuring import anonymous_bytes
from benchmarks.mixture import WORKFLOWS, Traffic
from dalsegno import DalsegnoError, Engine, Retention, Run
from dalsegno.core.store import Backend
from dalsegno.testing.simulation import Simulation

READINGS = 240
"""Of each figure, over the whole time."""

WIDTH = 120
"""Of the table where it does not go to a terminal."""

MIB = float(1 << 20)
MEMORY = Kind("memory of the process", "MiB", noise=2 * MIB, scale=MIB)
OBJECTS = Kind("objects that Python tracks", "", noise=2000)
FILES = Kind("open files", "", noise=2)
THREADS = Kind("threads", "", noise=2)
FILE = Kind("size of the store", "MiB", noise=4 * MIB, scale=MIB)
RUNS = Kind("runs in the store", "", noise=200)
EVENTS = Kind("their histories", "MiB", noise=MIB, scale=MIB)


@define
class Log:
    """Readings of several figures, taken together."""

    kinds: tuple[Kind, ...]
    at_s: list[float] = field(factory=list)
    values: dict[str, list[float]] = field(factory=dict)
    done: int = 0

    def read(self, at_s: float, backend: Backend) -> None:
        """One reading of everything."""
        gc.collect()
        stats = backend.stats()
        now = {
            MEMORY: anonymous_bytes(),
            OBJECTS: len(gc.get_objects()),
            FILES: len(os.listdir("/proc/self/fd")),
            THREADS: len(os.listdir("/proc/self/task")),
            FILE: stats["file_bytes"],
            RUNS: stats["runs"],
            EVENTS: stats["events_bytes"],
        }
        self.at_s.append(at_s)
        for kind in self.kinds:
            self.values.setdefault(kind.name, []).append(now[kind])

    def courses(self, warm_up: float) -> list[Course]:
        """Each figure over time."""
        return [Course(kind, self.at_s, self.values[kind.name], warm_up) for kind in self.kinds]


# --- in virtual time -------------------------------------------------------------------------------------------------

MINUTE_S = 60.0
DAY_WARM_UP = 0.25


def day_retention(end_s: float) -> Retention:
    """One and two hours in a day, and as much less in less: the oldest are gone long before the warm-up is over."""
    return Retention(completed=end_s / 24, failed=end_s / 12, continued=end_s / 24, archive=None)


def simulated(hours: float, seed: int, told: Callable[[float], object]) -> Log:
    """A round of the mixture each virtual minute, on the store in memory; the process dies 24 times or so, at moments
    drawn from the seed."""
    log = Log((MEMORY, OBJECTS, FILES, THREADS, RUNS, EVENTS))
    chance = random.Random(seed)
    end_s = hours * 3600
    traffic = Traffic(pause=end_s / 4000)
    with Simulation(WORKFLOWS, seed=seed, retention=day_retention(end_s), put_away_after=end_s / 300) as simulation:

        def minute() -> None:
            traffic.round(simulation)
            simulation.at(simulation.elapsed + MINUTE_S, minute)

        def crash() -> None:
            simulation.restart()
            simulation.at(simulation.elapsed + end_s / 12 * chance.random(), crash)

        simulation.at(0, minute)
        simulation.at(end_s / 24, crash)
        for at in range(1, READINGS + 1):
            simulation.run(timeout=end_s * at / READINGS - simulation.elapsed)
            simulation.witness.forget()  # what a test would ask it is not asked here
            log.read(simulation.elapsed, simulation.backend)
            told(at / READINGS)
        log.done = traffic.rounds * Traffic.RUNS
        simulation.crash()
    return log


# --- in real time ----------------------------------------------------------------------------------------------------

AHEAD = 8
"""Rounds that are under way at once."""

REOPEN_EVERY_S = 180.0
RESULT_WITHIN_S = 300.0
LEAST_MINUTES = 10
REAL_RETENTION = Retention(completed=20, failed=40, continued=20, archive=None)
REAL_WARM_UP = 0.3
REAL_WARM_UP_S = 240.0
"""Retention looks a minute after an engine has opened, and each minute from then on; after some of its passes there are
as many runs as there will be."""


@define
class Pressure:
    """Rounds of the mixture one after another on an engine, some of them under way at once."""

    engine: Engine
    traffic: Traffic
    under_way: deque[list[Run[Any]]] = field(factory=deque)

    def push(self) -> None:
        """Start a round, and wait for an old one if there are many."""
        self.under_way.append(self.traffic.round(self.engine))
        if len(self.under_way) > AHEAD:
            self._wait()

    def ease(self) -> None:
        """Wait for all of them."""
        while self.under_way:
            self._wait()

    def _wait(self) -> None:
        for run in self.under_way.popleft():
            try:
                run.result(timeout=RESULT_WITHIN_S)
            except DalsegnoError:
                if not run.ended:
                    raise
            except Exception:  # the run's own, which it was to end with
                pass


def real(url: str, seconds: float, told: Callable[[float], object]) -> Log:
    """Rounds of the mixture as fast as they go, by one engine, which is closed and opened anew from time to time."""
    log = Log((MEMORY, OBJECTS, FILES, THREADS, FILE, RUNS, EVENTS))
    traffic = Traffic(pause=0.02)
    begun = time.monotonic()
    every = seconds / READINGS
    while time.monotonic() - begun < seconds:
        opened = time.monotonic()
        with Engine(url, workflows=WORKFLOWS, retention=REAL_RETENTION, put_away_after=1.0) as engine:
            pressure = Pressure(engine, traffic)
            while (passed := time.monotonic() - begun) < seconds and time.monotonic() - opened < REOPEN_EVERY_S:
                pressure.push()
                if passed >= every * (len(log.at_s) + 1):
                    log.read(passed, engine.backend)
                    told(passed / seconds)
            pressure.ease()
    log.done = traffic.rounds * Traffic.RUNS
    return log


@contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a new store on the disk."""
    if kind == "lmdb":
        yield f"lmdb:{folder / 'store'}"
    else:
        from benchmarks.postgresql import server, url_of

        with server(folder) as cluster:
            yield url_of(cluster)


# --- what came of it -----------------------------------------------------------------------------------------------


def as_table(courses: list[Course], title: str) -> Table:
    """The courses for people."""
    table = Table(title=title, title_justify="left")
    for heading in ("what", "after warm-up", "lowest", "highest", "at the end", "growth", "allowed", "flat?"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for course in courses:
        counted, shown = [value for _, value in course.counted], course.kind.shown
        table.add_row(
            course.kind.name,
            *(shown(value) for value in (counted[0], min(counted), max(counted), counted[-1])),
            shown(course.growth),
            shown(course.allowed),
            "[green]yes[/green]" if course.flat else "[red]no[/red]",
        )
    return table


def as_data(log: Log, courses: list[Course]) -> dict[str, Any]:
    """Everything that was read, and the verdicts."""
    verdicts = {
        course.kind.name: {"growth": course.growth, "allowed": course.allowed, "flat": course.flat}
        for course in courses
    }
    about = {"python": platform.python_version(), "machine": platform.platform(), "runs": log.done}
    return {**about, "verdicts": verdicts, "at_s": log.at_s, "values": log.values}


@contextmanager
def bar(console: Console, what: str) -> Iterator[Callable[[float], object]]:
    """A progress bar, and the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)


@click.command()
@click.option("--simulated-day", is_flag=True, help="In virtual time, about two minutes.")
@click.option("--hours", default=24.0, show_default=True, type=click.FloatRange(1), help="Of virtual time.")
@click.option("--seed", default=0, show_default=True, help="Of the simulation.")
@click.option("--real", "minutes", type=click.FloatRange(LEAST_MINUTES), metavar="MINUTES", help="In real time.")
@click.option("--store", "kind", default="lmdb", show_default=True, type=click.Choice(["lmdb", "postgresql"]))
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="A folder on the disk to use.  [.bench]")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every reading here, too.")
def main(
    simulated_day: bool,
    hours: float,
    seed: int,
    minutes: float | None,
    kind: str,
    folder: Path | None,
    file: Path | None,
) -> None:
    """Have an engine do a mix of everything for long, and see whether anything grows.

    Example: python benchmarks/soak.py --real 60 --json soak.json
    """
    if simulated_day == (minutes is not None):
        raise click.UsageError("say either --simulated-day or --real MINUTES")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    begun = time.monotonic()
    with ExitStack() as stack:
        if minutes is None:
            told = stack.enter_context(bar(Console(stderr=True), f"{hours:g} virtual hours"))
            log, warm_up = simulated(hours, seed, told), DAY_WARM_UP
            what = f"{hours:g} virtual hours in {time.monotonic() - begun:,.0f} seconds"
        else:
            told = stack.enter_context(bar(Console(stderr=True), f"{minutes:g} minutes on {kind}"))
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_made(folder or Path(".bench")))))
            log = real(stack.enter_context(store(kind, place.absolute())), minutes * 60, told)
            warm_up = max(REAL_WARM_UP_S / (minutes * 60), REAL_WARM_UP)
            what = f"{minutes:g} minutes on {kind}"
    courses = log.courses(warm_up)
    console.print(as_table(courses, f"{what}: {log.done:,} runs"))
    console.print(_criterion(warm_up))
    if file is not None:
        file.write_text(json.dumps(as_data(log, courses), indent=2))
    sys.exit(0 if all(course.flat for course in courses) else 1)


def _criterion(warm_up: float) -> str:
    return (
        f"flat: after the first {warm_up:.0%} of the time, a line through the readings (by Theil and Sen) climbs no "
        f"more than {SHARE:.0%} of their median, or than what is noise; at least {FEWEST} readings"
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    return folder


if __name__ == "__main__":
    main()
