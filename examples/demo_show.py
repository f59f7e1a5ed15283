"""Showing what the demo came to: its progress, where the time went, and the proof.

Pure: what is shown is made from histories, ledger lines and the result, and nothing here looks anything up.
"""

from __future__ import annotations

import json as json_text
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dalsegno.examples.demo_proof import Kill, Proof
from dalsegno.examples.ledger import Entry

TEXT_WIDTH, BAR_WIDTH = 28, 60
PACKAGES_SHOWN = 10


@dataclass(frozen=True)
class Moment:
    """Something that happened, so many seconds after the demo began."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A stretch of the timeline, in seconds since the demo began: a package, a wait, a step of the audit itself."""

    what: str
    begin: float
    end: float
    steps: int = 1
    package: bool = False


@dataclass(frozen=True)
class DemoResult:
    """Everything the demo found out. `mismatch` says where the code no longer fits the histories, if anywhere."""

    root: str
    store: str
    workflow_id: str
    seed: int
    files: int
    findings: int
    published: bool
    html: str
    json: str
    ledger: str
    seconds: float
    kills: tuple[Kill, ...]
    moments: tuple[Moment, ...]
    bars: tuple[Bar, ...]
    proof: Proof
    runs: int
    events: int
    mismatch: str

    @property
    def ok(self) -> bool:
        """Whether the run survived as promised."""
        return self.proof.holds and not self.mismatch

    def as_data(self) -> dict[str, Any]:
        """The result as plain data for JSON, without the timeline."""
        data = asdict(self)
        del data["bars"]
        data["kills"] = [{"at": kill.at, "bodies": kill.lines, "recorded": len(kill.recorded)} for kill in self.kills]
        data["moments"] = [{"at": m.at, "text": Text.from_markup(m.text).plain} for m in self.moments]
        return data | {"ok": self.ok}


def timeline(began_at: float, histories: Sequence[Sequence[Any]], ledger: Iterable[Entry]) -> tuple[Bar, ...]:
    """The stretches of the first history: its children, its steps and its wait, in the order they began.

    `ledger` tells which package a child measured: its files are what the child's bodies noted.
    """
    if not histories:
        return ()
    folders = {entry.run.rpartition("#")[0]: str(PurePosixPath(entry.about).parent) for entry in ledger}
    sizes = {history[0].workflow_id: sum(type(e).__name__ == "StepCompleted" for e in history) for history in histories}
    begun: dict[str, Any] = {}
    bars: list[Bar] = []

    def add(what: str, begin_us: int, end_us: int, **more: Any) -> None:
        bars.append(Bar(what, begin_us / 1e6 - began_at, end_us / 1e6 - began_at, **more))

    for event in histories[0]:
        match type(event).__name__:
            case "ChildStarted" | "TimerSet":
                begun[event.id] = event
            case "ChildCompleted":
                child, began_us = begun[event.id].workflow_id, begun[event.id].at_us
                folder = folders.get(child, child)
                what = "modules at the top" if folder == "." else f"package {folder}"
                add(what, began_us, event.at_us, steps=sizes.get(child, 0), package=True)
            case "StepCompleted":
                add(event.name, event.at_us - event.took_us, event.at_us)
            case "SignalReceived":
                waits = [one.at_us for one in begun.values() if getattr(one, "kind", "") == "receive"]
                add(f"wait for {event.name}", min(waits, default=event.at_us), event.at_us, steps=0)
    return tuple(sorted(bars, key=lambda bar: bar.begin))


def show(result: DemoResult, *, json: bool, console: Console, replay: str = "replay") -> None:
    """Print the result: for people, or as one JSON object. `replay` is how that command is called here."""
    if json:
        console.file.write(json_text.dumps(result.as_data(), indent=2).replace("\x7f", "\\u007f") + "\n")
        return
    console.print()
    console.print(_timeline_table(result, console.width))
    console.print(_proof_panel(result))
    if result.html:
        console.print(f"Report: [bold]{printable(result.html)}[/]", soft_wrap=True)
    look = f"{replay} show {result.workflow_id} --store {shlex.quote(result.store)}"
    console.print(f"Look at the histories yourself: [bold]{printable(look)}[/]", soft_wrap=True)


def printable(text: str) -> str:
    """A name of a file or folder for a terminal: nothing in it acts there, and nothing is taken for rich's markup."""
    return escape("".join(one if one.isprintable() else repr(one)[1:-1] for one in text))


def _timeline_table(result: DemoResult, width: int) -> Table:
    """The audit's own steps and the longest packages, drawn to scale; a red line marks each kill."""
    table = Table(title="Where the time went", title_justify="left", box=None, padding=(0, 1), expand=False)
    table.add_column(no_wrap=True, width=TEXT_WIDTH)
    table.add_column("steps", justify="right", no_wrap=True, min_width=5)
    table.add_column("seconds", justify="right", no_wrap=True, min_width=7)
    room = max(10, min(BAR_WIDTH, width - TEXT_WIDTH - 20))
    table.add_column(no_wrap=True, width=room)
    packages = sorted((bar for bar in result.bars if bar.package), key=lambda bar: bar.begin - bar.end)
    hidden = packages[PACKAGES_SHOWN:]
    for bar in result.bars:
        if bar not in hidden:
            steps = f"{bar.steps:,}" if bar.steps else ""
            table.add_row(printable(bar.what), steps, f"{bar.end - bar.begin:.2f}", _drawn(bar, result, room))
    if hidden:
        steps = f"{sum(bar.steps for bar in hidden):,}"
        table.add_row(Text(f"{len(hidden)} shorter packages", style="dim"), Text(steps, style="dim"), "", "")
    return table


def _drawn(bar: Bar, result: DemoResult, room: int) -> Text:
    def column(at: float) -> int:
        return min(room - 1, max(0, int(at / result.seconds * room)))

    kills = {column(kill.at) for kill in result.kills}
    begin, end = column(bar.begin), column(bar.end)
    drawn = Text()
    for place in range(room):
        inside = begin <= place <= end
        style = "red" if place in kills else "cyan"
        drawn.append("━" if inside else "┊" if place in kills else " ", style)
    return drawn


def _proof_panel(result: DemoResult) -> Panel:
    proof = result.proof
    rows = [
        ("histories", f"{result.runs:,} runs, {result.events:,} events"),
        ("step bodies that ran", f"{proof.bodies:,}"),
        ("different steps", f"{proof.steps:,}"),
        (f"repeated: in flight at one of {len(result.kills)} kills", f"{proof.repeated:,}"),
        ("recorded steps that ran again", f"{len(proof.again):,}"),
        ("recorded twice, or without a body", f"{len(proof.twice) + len(proof.unseen):,}"),
        ("lost, or repeated without a reason", f"{len(proof.lost) + len(proof.unexplained):,}"),
    ]
    rows.append(("replayed against today's code", result.mismatch or "fits"))
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, Text(value, style="bold"))
    verdict = "[bold green]no recorded step ran again[/]" if result.ok else "[bold red]a promise was broken[/]"
    return Panel(table, title=f"The ledger of the step bodies: {verdict}", title_align="left", expand=False)
