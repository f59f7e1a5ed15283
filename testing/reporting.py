"""What an exploration tells: a report when everything held, an error with two histories when something did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dalsegno.core.events import Event
from dalsegno.core.values.codec import Codec
from dalsegno.testing.points import Pin, Visit, Way, line_of
from dalsegno.testing.trial import essence
from dalsegno.testing.witness import Repeat

SHOWN_MAX = 60
"""Events of each history that an error shows, around the first difference."""

PATIENCE_S = 1.0
"""A progress bar appears when an exploration takes longer than this."""


@attrs.define(kw_only=True)
class Report:
    """What `explore_crashes` has tried.

    `points` counts the points of the undisturbed run by name, `tried` how many runs were disturbed, `pairs` how many of
    them twice; `fired` counts the faults by way, `repeats` the bodies that ran again, by step and reason. `complete`:
    every single fault was tried; without it a failure ended it (`failed`), it was about one line, or the budget ran
    out. `unknown` counts the runs whose workflow was told that a `once=True` step may or may not have happened; their
    outcome is not compared. Printed, it is one line; `report.print()` shows a table.

    >>> print(Report(workflow="fulfil", seed=7, tried=120, pairs=20, complete=True, seconds=0.4))
    fulfil: 120 disturbed runs (every single fault, 20 pairs), 0 faults, 0 bodies ran again, 0.4 s
    """

    workflow: str
    seed: int
    points: Counter[str] = attrs.field(factory=Counter)
    tried: int = 0
    pairs: int = 0
    fired: Counter[Way] = attrs.field(factory=Counter)
    repeats: Counter[Repeat] = attrs.field(factory=Counter)
    unknown: int = 0
    complete: bool = False
    failed: bool = False
    only: str = ""
    seconds: float = 0.0

    def add(self, tried: Tried) -> None:
        """Count one run in."""
        self.tried += 1
        self.pairs += len(tried.pins) > 1
        self.fired.update(pin.way for pin in tried.pins[: tried.struck])
        self.repeats.update(tried.repeats)
        self.unknown += tried.unknown

    @property
    def extent(self) -> str:
        """How much was tried, in words."""
        if self.complete:
            return "every single fault"
        if self.only:
            return "one line only"
        return f"not every single fault: {'it ended with the first failure' if self.failed else 'the budget ran out'}"

    def __str__(self) -> str:
        how = self.extent
        return (
            f"{self.workflow}: {self.tried} disturbed runs ({how}, {self.pairs} pairs), {sum(self.fired.values())} "
            f"faults, {sum(self.repeats.values())} bodies ran again, {self.seconds:.1f} s"
        )

    def table(self) -> Table:
        """The report as a table for people."""
        table = Table(title=f"explore_crashes({self.workflow}), seed {self.seed}", title_justify="left")
        table.add_column("what")
        table.add_column("count", justify="right")
        table.add_column("of it")
        whole = self.extent if self.complete or self.only else f"[yellow]{self.extent}[/]"
        table.add_row("points passed undisturbed", str(sum(self.points.values())), _list(self.points))
        table.add_row("runs disturbed", str(self.tried), f"{whole}, {self.pairs} with a second one")
        table.add_row("faults", str(sum(self.fired.values())), _list(self.fired))
        again = Counter({f"{each.step} ({each.why})": n for each, n in self.repeats.items()})
        table.add_row("bodies that ran again", str(sum(again.values())), _list(again))
        if self.unknown:
            table.add_row("told that it may have happened", str(self.unknown), "a once=True step; not compared")
        table.add_row("seconds", f"{self.seconds:.1f}", "")
        return table

    def print(self, console: Console | None = None) -> None:
        """Print the table."""
        (console or Console()).print(self.table())


def _list(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@attrs.frozen(kw_only=True)
class Tried:
    """One disturbed run, as much of it as a report needs. `visits` are the points that came after the fault."""

    pins: tuple[Pin, ...]
    struck: int
    problem: str | None = None
    comparison: str = ""
    repeats: Counter[Repeat] = attrs.field(factory=Counter)
    visits: tuple[Visit, ...] = ()
    unknown: bool = False


class CrashFound(AssertionError):
    """A workflow did not survive. Facts: `problem`, `line` (for `only=`), `comparison` (two histories), `report`."""

    def __init__(self, problem: str, line: str, comparison: str, report: Report) -> None:
        self.problem, self.line, self.comparison, self.report = problem, line, comparison, report
        again = f"repeat it with: explore_crashes(…, seed={report.seed}, only={line!r})" if line else ""
        super().__init__("\n".join(filter(None, [f"{report.workflow}: {problem}", again, comparison])))


def found(tried: Tried, report: Report) -> CrashFound:
    """The error that a failed run is told with."""
    report.failed = True
    return CrashFound(tried.problem or "", line_of(tried.pins), tried.comparison, report)


# --- histories -------------------------------------------------------------------------------------------------------


def words(event: Any, codec: Codec) -> str:
    """One event in one line."""
    said = [type(event).__name__.ljust(18), getattr(event, "id", "").ljust(6), getattr(event, "name", "")]
    for field in ("result", "payload"):
        data = getattr(event, field, None)
        if data:
            said.append(f"{field}={_short(_attempt(codec.decode, data))}")
    if getattr(event, "error", b""):
        error = codec.describe_error(event.error)
        said.append(f"error={error.type}: {_short(error.message)}")
    if hasattr(event, "attempt"):
        said.append(f"attempt={event.attempt}")
    return " ".join(filter(None, said)).rstrip()


def _attempt(decode: Callable[[bytes], object], data: bytes) -> object:
    try:
        return decode(data)
    except Exception as error:  # a history is shown as far as it can be read
        return error


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def compare_histories(
    undisturbed: Mapping[str, Sequence[Event]], disturbed: Mapping[str, Sequence[Event]], codec: Codec
) -> str:
    """The histories of the first run that has different ones (else of the first run), and their first difference.
    Where both are of one and the same trial, there is but one history to show."""
    if undisturbed is disturbed:
        first = list(undisturbed)[:1]
        return "\n".join(line for name in first for line in (f"run {name}", *_shown(undisturbed[name], None, codec)))
    names = sorted(undisturbed.keys() | disturbed.keys(), key=lambda name: (name not in undisturbed, name))
    if not names:
        return ""
    chosen = next((name for name in names if _differ(undisturbed.get(name, ()), disturbed.get(name, ()))), names[0])
    before, after = undisturbed.get(chosen, ()), disturbed.get(chosen, ())
    at = _first_difference(before, after)
    where = f"first difference at event {at}" if at is not None else "no difference in what has to be the same"
    return "\n".join(
        [
            f"run {chosen}: {where}",
            "  undisturbed",
            *_shown(before, _index_of(before, at), codec),
            "  disturbed",
            *_shown(after, _index_of(after, at), codec),
        ]
    )


def _essences(events: Iterable[Event]) -> list[tuple[int, str]]:
    return [(index, said) for index, event in enumerate(events) if (said := essence(event)) is not None]


def _differ(before: Sequence[Event], after: Sequence[Event]) -> bool:
    return _first_difference(before, after) is not None


def _first_difference(before: Sequence[Event], after: Sequence[Event]) -> int | None:
    """The number, among the events that have to be the same, of the first that is not."""
    left, right = _essences(before), _essences(after)
    for at, ((_, one), (_, other)) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return at
    return None if len(left) == len(right) else min(len(left), len(right))


def _index_of(events: Sequence[Event], at: int | None) -> int | None:
    said = _essences(events)
    return None if at is None or at >= len(said) else said[at][0]


def _shown(events: Sequence[Event], marked: int | None, codec: Codec) -> list[str]:
    if not events:
        return ["      (there is no such run)"]
    first = max(0, (marked or 0) - SHOWN_MAX // 2)
    lines = [
        f"    {'>' if index == marked else ' '} {index:3} {words(event, codec)}"
        for index, event in enumerate(events[first : first + SHOWN_MAX], first)
    ]
    left = len(events) - first - SHOWN_MAX
    return ["      …", *lines] if first else [*lines, f"      … {left} more"] if left > 0 else lines


# --- progress --------------------------------------------------------------------------------------------------------


class Bar:
    """A progress bar on stderr that appears after a second; on no terminal, nothing."""

    def __init__(self, title: str, total: int, *, shown: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._progress.add_task(title, total=total)
        self._begun = False

    def step(self, elapsed: float) -> None:
        """One more is done."""
        if not self._begun and elapsed > PATIENCE_S:
            self._begun = True
            self._progress.start()
        self._progress.advance(self._task)

    def close(self) -> None:
        """Take it away."""
        if self._begun:
            self._progress.stop()
