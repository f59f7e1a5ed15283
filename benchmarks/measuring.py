"""How things are measured: a probe is a function that does something once and answers figures, in a process of its own.

Two probes that are compared take turns (A B A B …) on the same disk within one run: a disk or a neighbour that is slow
for a minute is then slow for both. A figure is the median of the rounds and is shown with the lowest and the highest.
Figures of different runs or machines say little beside each other; ratios do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent
PROBE_TIMEOUT_S = 600

Figures = dict[str, float]
Probe = Callable[[Path, int], Figures]
"""Gets an empty folder on the disk, or a copy of what its scenario prepared, and a size; answers figures by name."""

PROBES: dict[str, Probe] = {}


def probe(function: Probe) -> Probe:
    """Enter a function among the probes, under its name."""
    PROBES[function.__name__] = function
    return function


def call(name: str, folder: Path, size: int) -> Figures:
    """Run a probe in a new process. Raises `subprocess.CalledProcessError` when it fails; it has said why."""
    command = [sys.executable, "-m", "benchmarks.probe", name, str(folder), str(size)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=keeping_bytecode(folder.parents[1]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PROBE_TIMEOUT_S,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


@frozen
class Target:
    """What a figure is to reach: bounds on itself, and on its ratio to the yardstick's."""

    least: float | None = None
    most: float | None = None
    least_ratio: float | None = None

    def met(self, value: float, ratio: float) -> bool:
        """Whether a figure reaches it."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.least_ratio is None or ratio >= self.least_ratio)
        )

    def __str__(self) -> str:
        parts = []
        if self.least is not None:
            parts.append(f"≥ {self.least:,g}")
        if self.most is not None:
            parts.append(f"≤ {self.most:,g}")
        if self.least_ratio is not None:
            parts.append(f"≥ {self.least_ratio:g} x")
        return ", ".join(parts)


@frozen
class Row:
    """One line of the table: a figure that both probes of a scenario answer, and what it is to reach."""

    what: str
    figure: str
    unit: str
    target: Target


@frozen
class Scenario:
    """Two probes to be compared, by name (`module.name` where they are not in `scenarios` or `yardsticks`), and the
    rows that their figures fill; `against` is the yardstick in words.

    `prepare` names a probe that is run once, and whose folder is copied for every round of `measured`. `rounds` bounds
    the rounds of what takes long.
    """

    name: str
    measured: str
    yardstick: str
    against: str
    size: int
    rows: tuple[Row, ...]
    prepare: str | None = None
    quick_size: int = 50
    rounds: int | None = None


@frozen
class Result:
    """A row with its readings, one of each kind per round."""

    scenario: Scenario
    row: Row
    measured: list[float]
    yardstick: list[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' own ratios, so that neighbours in time are compared."""
        return median(a / b if b else 0.0 for a, b in zip(self.measured, self.yardstick, strict=True))

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.row.target.met(median(self.measured), self.ratio)

    def as_data(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "scenario": self.scenario.name,
            "what": self.row.what,
            "unit": self.row.unit,
            "measured": self.measured,
            "yardstick": self.yardstick,
            "against": self.scenario.against,
            "ratio": self.ratio,
            "target": str(self.row.target),
            "met": self.met,
        }


def measure(
    scenario: Scenario, folder: Path, rounds: int, quick: bool, begin: Callable[[str], object]
) -> Iterator[Result]:
    """Run a scenario's probes in turn; `begin` is told what is being done. Raises what `call` raises."""
    size = scenario.quick_size if quick else scenario.size
    rounds = min(rounds, scenario.rounds or rounds)
    measured, yardstick = list[Figures](), list[Figures]()
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as base:
        prepared = Path(base, "prepared")
        prepared.mkdir()
        if scenario.prepare:
            begin(f"{scenario.name}: {scenario.prepare}")
            call(scenario.prepare, prepared, size)
        for at in range(1, rounds + 1):
            for name, readings in ((scenario.measured, measured), (scenario.yardstick, yardstick)):
                begin(f"{scenario.name}: {name}, round {at} of {rounds}")
                place = Path(base, name)
                shutil.copytree(prepared, place)
                os.sync()  # or the first flush would pay for the copy
                readings.append(call(name, place, size))
                shutil.rmtree(place)
    for row in scenario.rows:
        yield Result(scenario, row, [f[row.figure] for f in measured], [f[row.figure] for f in yardstick])


def keeping_bytecode(folder: Path) -> dict[str, str]:
    """An environment in which modules are compiled once and kept under `folder`: an installed package has its bytecode
    beside it, and without it the compiler would be measured."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


# --- small instruments ---------------------------------------------------------------------------------------------


def anonymous_bytes() -> int:
    """The memory of this process that is its own: without the pages of the store's file, which are the system's cache
    and go when somebody else needs them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not tell RssAnon")


def disk_bytes(folder: Path) -> int:
    """What a folder's files take on the disk; a sparse file counts as what it holds."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
