"""dalsegno beside its peers: the same work, the same machine, the same run. `make bench-peers`.

    python benchmarks/peers.py --only sequence --peer dura --rounds 5 --json peers.json

Each peer has a virtual environment of its own, made here on first use; what does not install is said and left out. The
work stands in `beside/`, one file a library. Every reading is a process of its own with an empty store (for recovery, a
copy of what a dead process left), and all take turns within a round, so that a slow minute is slow for everybody. What
is compared are readings of one round: the ratio shown is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import click
import psycopg
from attrs import define, field
from psycopg import sql
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import ABSURD, DBOS, DURA, OURS, SETTINGS, NotHere, Setting, environment, last_line, versions
from benchmarks.postgresql import server
from dalsegno.examples.provision_cluster import Cluster

BESIDE = Path(__file__).resolve().parent / "beside"
PROCESS_WITHIN_S = 400
WIDTH = 150
"""Of the tables where they do not go to a terminal."""

SIZES = {"sequence": 1000, "concurrent": 200, "starts": 2000, "recovery": 10_000}
QUICK = {"sequence": 30, "concurrent": 5, "starts": 20, "recovery": 50}
FIGURES = {"sequence": "steps/s", "concurrent": "steps/s", "starts": "workflows/s", "recovery": "ms"}
NAMES = ("dbos", "dura", "absurd", "none")
WHAT = {
    "sequence": "{:,} steps one after another, each durable before the next",
    "concurrent": "{:,} workflows of 20 steps in flight",
    "starts": "{:,} workflows of one step, started one by one, to the last result",
    "recovery": "{:,} recorded steps: store opened to the next body",
}


class Failed(Exception):
    """A peer's process did not do its work; the message is what it said last."""


# --- places ----------------------------------------------------------------------------------------------------------


@define
class Ground:
    """Where stores are: folders below one folder, and databases of one server."""

    folder: Path
    cluster: Cluster | None
    _count: int = 0

    def new(self, setting: Setting, python: Path) -> str:
        """An empty place."""
        self._count += 1
        if setting.kind == "file":
            folder = self.folder / f"place-{self._count}"
            folder.mkdir()
            return str(folder)
        name = f"place_{self._count}"
        self._sql("CREATE DATABASE {}", name)
        if setting.library is ABSURD:
            self._absurd(python, name)
        return name

    def copy(self, setting: Setting, place: str) -> str:
        """Another place with the same in it; what is copied is on the disk when this returns."""
        self._count += 1
        if setting.kind == "file":
            folder = self.folder / f"place-{self._count}"
            shutil.copytree(place, folder)
            os.sync()  # or the first flush would pay for the copy
            return str(folder)
        name = f"place_{self._count}"
        self._sql("CREATE DATABASE {} TEMPLATE {}", name, place)
        self._sql("CHECKPOINT")
        return name

    def drop(self, setting: Setting, place: str) -> None:
        """Be rid of one."""
        if setting.kind == "file":
            shutil.rmtree(place)
        else:
            self._sql("DROP DATABASE {} WITH (FORCE)", place)

    def named(self, setting: Setting, place: str) -> str:
        """What the program of a setting is told."""
        return setting.place(place if setting.kind == "file" else self._url(place))

    def _url(self, database: str) -> str:
        assert self.cluster is not None
        return f"postgresql://postgres@/{database}?host={self.cluster.sockets}"

    def _sql(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _absurd(self, python: Path, database: str) -> None:
        """Its schema, by its own command, which calls psql."""
        assert self.cluster is not None
        known = {**os.environ, "PATH": f"{self.cluster.programs}{os.pathsep}{os.environ['PATH']}"}
        command = [str(python.parent / "absurdctl"), "init", "-d", self._url(database)]
        done = subprocess.run(command, env=known, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"absurdctl init: {last_line(done.stderr or done.stdout)}")


# --- readings --------------------------------------------------------------------------------------------------------


@define
class Contest:
    """Readings of all settings, by scenario, with what could not be measured and why."""

    ground: Ground
    sizes: dict[str, int]
    pythons: dict[str, Path] = field(factory=dict)
    readings: dict[str, dict[str, list[float]]] = field(factory=dict)
    failures: dict[str, str] = field(factory=dict)

    def play(self, scenario: str, settings: list[Setting], rounds: int, told: Callable[[str], object]) -> None:
        """So many rounds of one scenario, in which all settings take turns."""
        table = self.readings.setdefault(scenario, {})
        left = dict[str, str]()
        for at in range(rounds):
            for setting in settings:
                told(f"{scenario}: {setting.name}, {at + 1} of {rounds}")
                if (scenario, setting.name) not in self._failed():
                    try:
                        figure = self._one(scenario, setting, left)
                    except (Failed, subprocess.TimeoutExpired) as error:
                        self.failures[f"{scenario}: {setting.name}"] = str(error)
                    else:
                        table.setdefault(setting.name, []).append(figure)
        for setting in settings:
            if setting.name in left:
                self.ground.drop(setting, left[setting.name])

    def _failed(self) -> set[tuple[str, str]]:
        return {(scenario, name) for scenario, _, name in (each.partition(": ") for each in self.failures)}

    def _one(self, scenario: str, setting: Setting, left: dict[str, str]) -> float:
        """One reading. For recovery, of a copy of what a process left that died the first time this was asked for."""
        ground, python = self.ground, self.pythons[setting.library.name]
        if scenario == "recovery":
            if setting.name not in left:
                place = ground.new(setting, python)
                self._call("record", setting, place, self.sizes[scenario])
                left[setting.name] = place
            place = ground.copy(setting, left[setting.name])
        else:
            place = ground.new(setting, python)
        try:
            figures = self._call(scenario, setting, place, self.sizes[scenario])
        finally:
            ground.drop(setting, place)
        return figures[FIGURES[scenario]]

    def _call(self, scenario: str, setting: Setting, place: str, size: int) -> dict[str, float]:
        python = self.pythons[setting.library.name]
        program = str(BESIDE / setting.library.program)
        command = [str(python), program, scenario, self.ground.named(setting, place), str(size)]
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            command, env=kept, cwd=self.ground.folder, capture_output=True, text=True, timeout=PROCESS_WITHIN_S
        )
        lines = done.stdout.splitlines()
        if done.returncode or not lines or not lines[-1].startswith("{"):
            raise Failed(last_line(done.stderr or done.stdout))
        figures: dict[str, float] = json.loads(lines[-1])
        if figures.get("repeated"):
            raise Failed(f"{figures['repeated']:g} recorded bodies ran again")
        return figures


def ratio(ours: list[float], theirs: list[float], figure: str) -> float:
    """How many times better ours is, as the median over the rounds. Less is better only where it is a time."""
    pairs = list(zip(ours, theirs, strict=False))
    return median(their / our if figure == "ms" else our / their for our, their in pairs)


def as_table(contest: Contest, scenario: str, settings: list[Setting]) -> Table:
    """One scenario for people: every setting, and how ours of the same kind compare with it."""
    figure, readings = FIGURES[scenario], contest.readings[scenario]
    table = Table(title=WHAT[scenario].format(contest.sizes[scenario]), title_justify="left")
    table.add_column("what")
    table.add_column(figure, justify="right")
    table.add_column("lowest to highest", justify="right")
    ours = [setting for setting in settings if setting.ours and setting.name in readings]
    for mine in ours:
        table.add_column(f"{mine.name} is", justify="right")
    for setting in settings:
        if setting.name not in readings:
            continue
        values = readings[setting.name]
        cells = [setting.name, f"{median(values):,.0f}", f"{min(values):,.0f} to {max(values):,.0f}"]
        for mine in ours:
            if setting.ours or mine.kind != setting.kind:
                cells.append("")
            else:
                times = ratio(readings[mine.name], values, figure)
                cells.append(f"[{'green' if times >= 1 else 'red'}]{times:.2f} x as fast[/]")
        table.add_row(*cells)
    return table


def as_data(contest: Contest, about: dict[str, str]) -> dict[str, Any]:
    """Everything that was read."""
    durability = {setting.name: setting.durability for setting in SETTINGS}
    return {
        "machine": platform.platform(),
        "versions": about,
        "durability": durability,
        "sizes": contest.sizes,
        "readings": contest.readings,
        "failures": contest.failures,
    }


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(SIZES)), help="Only these scenarios.")
@click.option("--peer", "peers", multiple=True, type=click.Choice(NAMES), help="Only these libraries.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Rounds of each scenario.")
@click.option("--quick", is_flag=True, help="Tiny sizes: shows that it runs, not how fast.")
@click.option("--venvs", type=click.Path(path_type=Path), help="Where the environments are.  [build/peers]")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="A folder on the disk to measure.  [.bench]")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every reading here, too.")
def main(
    only: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int,
    quick: bool,
    venvs: Path | None,
    folder: Path | None,
    file: Path | None,
) -> None:
    """Measure dalsegno beside its peers. Takes a quarter of an hour; keep the machine quiet meanwhile.

    Example: python benchmarks/peers.py --only recovery --peer dura --rounds 5
    """
    venvs, folder = (venvs or Path("build/peers")).absolute(), (folder or Path(".bench")).absolute()
    venvs.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    about, found = dict[str, str](), dict[str, Path]()
    with ExitStack() as stack:
        status = stack.enter_context(Console(stderr=True).status(""))
        for library in (OURS, DBOS, DURA, ABSURD):
            if library is OURS or not peers or library.name.lower() in peers:
                status.update(f"an environment for {library.name}")
                try:
                    found[library.name] = environment(library, venvs)
                    about[library.name] = versions(found[library.name], library)
                except (NotHere, subprocess.CalledProcessError) as error:
                    about[library.name] = f"not measured: {error}"
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        (place / "server").mkdir()
        settings = _settings(found)
        on_postgresql = any(setting.kind == "postgresql" for setting in settings)
        cluster = stack.enter_context(server(place / "server")) if on_postgresql else None
        contest = Contest(Ground(place, cluster), QUICK if quick else SIZES, found)
        for scenario in only or SIZES:
            contest.play(scenario, settings, rounds, status.update)
    for name, version in about.items():
        console.print(f"{name}: {version}", highlight=False)
    for scenario in contest.readings:
        console.print(as_table(contest, scenario, settings))
    for setting in settings:
        console.print(f"{setting.name}: {setting.durability}", highlight=False)
    for where, why in contest.failures.items():
        console.print(f"[red]failed[/red] {where}: {why}", highlight=False)
    if file is not None:
        file.write_text(json.dumps(as_data(contest, about), indent=2))
    sys.exit(1 if contest.failures else 0)


def _settings(found: dict[str, Path]) -> list[Setting]:
    """The rows that can be filled: of what is installed, and ours only where there is something to compare it with."""
    there = [setting for setting in SETTINGS if setting.library.name in found]
    kinds = {setting.kind for setting in there if not setting.ours} or {"file", "postgresql"}
    return [setting for setting in there if setting.kind in kinds]


if __name__ == "__main__":
    main()
