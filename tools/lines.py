"""`replay where` and `replay coverage`: the workflows' source with what open runs are doing on each line.

    where       how many open runs stand at each line
    coverage    which lines open runs have passed (changing those needs `Patched`) and which none has reached yet

With `--since REV`, coverage lists the lines changed since a git revision that are already in somebody's past: lines of
today that a run has passed, and lines that are gone at which a run has recorded a command.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import click
from rich.console import Group, RenderableType
from rich.text import Text

from dalsegno.core.store import RunRecord
from dalsegno.tools.app import App, load_app
from dalsegno.tools.changed import Piece, changed_since
from dalsegno.tools.choosing import filtered, reading
from dalsegno.tools.exported import cut_data
from dalsegno.tools.failures import NO, say
from dalsegno.tools.options import (
    WorkflowName,
    app_option,
    command_help,
    json_option,
    now_us,
    show_json,
    show_long,
    store_option,
    watched,
)
from dalsegno.tools.passing import Function, Lines, Place, files_of, functions_of, look
from dalsegno.tools.text import clean, counted

RUNS_NAMED: Final = 3
UNTOLD_SAID: Final = 5


@attrs.frozen(kw_only=True)
class Touched:
    """A changed line that is in somebody's past: `then` for one that is gone, with no line of today."""

    file: str
    line: int
    then: bool
    runs: tuple[str, ...]


def touched(pieces: Iterable[Piece], lines: Lines) -> list[Touched]:
    """The changed lines that open runs have passed, or recorded a command at."""
    found: list[Touched] = []
    for piece in pieces:
        now = [Touched(file=piece.file, line=line, then=False, runs=_sorted(lines.passed, piece.file, line))
               for line in piece.now]  # fmt: skip
        gone = [Touched(file=piece.file, line=line, then=True, runs=_sorted(lines.recorded, piece.file, line))
                for line in piece.then]  # fmt: skip
        passed = [one for one in now if one.runs]
        found += passed or [one for one in gone if one.runs]
    return found


def _sorted(by_place: Mapping[Place, Iterable[str]], file: str, line: int) -> tuple[str, ...]:
    return tuple(sorted(by_place.get((file, line), ())))


# --- how it looks --------------------------------------------------------------------------------------------------


def where_report(functions: Sequence[Function], lines: Lines) -> list[RenderableType]:
    """The source of each function that somebody stands in, with counts in the margin."""
    parts: list[RenderableType] = []
    for function in functions:
        inside = range(function.first, function.last + 1)
        stood = {line: len(lines.stood.get((function.file, line), ())) for line in inside}
        held = {line: len(lines.held.get((function.file, line), ())) for line in inside}
        if any(stood.values()) or any(held.values()):
            margins = {n: f"{stood[n]:>6} " if stood[n] else f"({held[n]})".rjust(6) + " " for n in inside
                       if stood[n] or held[n]}  # fmt: skip
            styles = {line: "bold" if stood[line] else "dim" for line in margins}
            parts.append(_listing(function, margins, styles))
    standing = len({run for runs in lines.stood.values() for run in runs})
    stand = f"{standing} of {lines.runs} open runs stand{'s' * (standing == 1)} at {counted(len(lines.stood), 'line')}"
    parts.append(Text(f"{stand}; (n) wait further in"))
    return parts


def coverage_report(functions: Sequence[Function], lines: Lines) -> list[RenderableType]:
    """The source of each function; lines that somebody has passed with how many, the others marked free."""
    parts: list[RenderableType] = []
    free = passed = 0
    for function in functions:
        counts = {line: len(lines.passed.get((function.file, line), ())) for line in function.lines}
        margins = {line: f"{count:>6} " if count else "  free " for line, count in counts.items()}
        parts.append(_listing(function, margins, {line: "" if count else "green" for line, count in counts.items()}))
        passed += sum(bool(count) for count in counts.values())
        free += sum(not count for count in counts.values())
    told = f"{counted(passed, 'line')} passed by open runs: changing what they yield needs Patched"
    parts.append(Text(f"{told}; {counted(free, 'line')} free"))
    return parts


def _listing(function: Function, margins: Mapping[int, str], styles: Mapping[int, str]) -> RenderableType:
    head = f"{clean(function.name)}  {clean(function.file)}:{function.first}\n"
    text = Text(head, style="bold cyan", no_wrap=True, overflow="ellipsis")
    for number in range(function.first, function.last + 1):
        source = clean(linecache.getline(function.file, number).rstrip("\n").expandtabs(4), 160)
        style = f"default not bold {styles.get(number, 'dim')}".replace("not bold bold", "bold").strip()
        text.append(f"{margins.get(number, ' ' * 7)}{number:5} {source}\n", style=style)
    return Group(text)  # printed by itself, a text forgets that it is not to be wrapped


def touched_report(found: Sequence[Touched], revision: str) -> list[RenderableType]:
    """The changed lines in somebody's past, one a line."""
    if not found:
        return [Text(f"nothing changed since {clean(revision)} is in an open run's past", style="green")]
    text = Text(f"Changed since {clean(revision)}, and in the past of open runs:\n", style="bold red")
    for one in found:
        source = "(removed)" if one.then else linecache.getline(one.file, one.line).strip()
        named = ", ".join(clean(run, 40) for run in one.runs[:RUNS_NAMED])
        more = f" and {len(one.runs) - RUNS_NAMED} more" if len(one.runs) > RUNS_NAMED else ""
        count = f"{len(one.runs)} run{'s' * (len(one.runs) > 1)}"
        line = f"  {clean(one.file)}:{one.line}  {clean(source, 80)}\n      {count}: {named}{more}\n"
        text.append(line, style="default not bold")
    text.rstrip()
    return [text]


def warn_untold(lines: Lines) -> None:
    """Say which runs are not in the figures, or only in part."""
    for one in lines.untold[:UNTOLD_SAID]:
        say(f"{one.run_id} could not be replayed to its end: {one.why.splitlines()[0]}", mark="warning")
    if len(lines.untold) > UNTOLD_SAID:
        say(f"and {len(lines.untold) - UNTOLD_SAID} more; replay verify --all tells of each", mark="warning")


def _untold_data(lines: Lines) -> list[dict[str, str]]:
    return [{"run_id": one.run_id, "why": one.why} for one in lines.untold]


# --- the commands --------------------------------------------------------------------------------------------------


def _looked(store: str | None, app: App, workflow: str | None, trace: bool) -> tuple[Lines, dict[str, Any] | None]:
    """What open runs do, and what the file lacks that they are in."""
    if workflow is not None:
        app.workflow(workflow)
    with reading(store) as opened:
        records: list[RunRecord] = list(filtered(opened, now_us(), status=["open"], workflow=workflow))
        return look(opened, watched(records, "replaying"), app, trace=trace), cut_data(opened)


def _of_workflow(app: App, workflow: str | None) -> App:
    return app if workflow is None else attrs.evolve(app, workflows={workflow: app.workflow(workflow)})


@click.command(
    "where",
    help=command_help(
        "Show the workflows' source with the number of open runs that stand at each line.",
        "replay where --app shop.orders --workflow fulfil",
        "Each run is replayed; no step is run. A number in brackets counts runs that wait in a generator further in. "
        'With --json: {"runs", "lines": [{"file", "line", "function", "source", "standing": [run ids], "within": '
        '[run ids]}], "untold": [{"run_id", "why"}], "cut"}.',
    ),
)
@click.option("--workflow", type=WorkflowName(), help="Only runs of this workflow.")
@app_option(required=True)
@store_option
@json_option
def where_runs(workflow: str | None, app: str, store: str | None, json_wanted: bool) -> None:
    """Where open runs stand."""
    loaded = load_app(app)
    lines, cut = _looked(store, loaded, workflow, trace=False)
    functions = functions_of(_of_workflow(loaded, workflow), lines)
    if json_wanted:
        places = sorted({*lines.stood, *lines.held})
        show_json({
            "runs": lines.runs,
            "lines": [
                _line_data(functions, place)
                | {"standing": lines.stood.get(place, []), "within": lines.held.get(place, [])}
                for place in places
            ],
            "untold": _untold_data(lines),
            "cut": cut,
        })  # fmt: skip
        return
    show_long(*where_report(functions, lines))
    warn_untold(lines)


@click.command(
    "coverage",
    help=command_help(
        "Show which lines of the workflows open runs have passed, and which none has reached and are free to change.",
        "replay coverage --app shop.orders --since main",
        "With --since, lists instead the lines changed since that git revision that are in somebody's past; exit code "
        '1 if there are any. With --json: {"runs", "functions": [{"file", "function", "lines": [{"line", "passed": '
        'how many runs}]}], "changed": [{"file", "line", "removed", "source", "runs"}] or null, "untold": [{"run_id", '
        '"why"}], "cut"}.',
    ),
)
@click.option("--workflow", type=WorkflowName(), help="Only runs of this workflow.")
@click.option("--since", metavar="REV", help="Only lines changed since this git revision.")
@app_option(required=True)
@store_option
@json_option
def coverage_of_runs(workflow: str | None, since: str | None, app: str, store: str | None, json_wanted: bool) -> None:
    """What open runs have passed."""
    loaded = load_app(app)
    pieces = None if since is None else changed_since(since, files_of(loaded))
    lines, cut = _looked(store, loaded, workflow, trace=True)
    functions = functions_of(_of_workflow(loaded, workflow), lines)
    found = None if pieces is None else touched(pieces, lines)
    if json_wanted:
        show_json(_coverage_data(functions, lines, found) | {"cut": cut})
    elif found is not None:
        show_long(*touched_report(found, since or ""))
    else:
        show_long(*coverage_report(functions, lines))
    if not json_wanted:
        warn_untold(lines)
    click.get_current_context().exit(NO if found else 0)


def _coverage_data(functions: Sequence[Function], lines: Lines, found: Sequence[Touched] | None) -> dict[str, Any]:
    return {
        "runs": lines.runs,
        "functions": [
            {
                "file": one.file,
                "function": one.name,
                "lines": [{"line": n, "passed": len(lines.passed.get((one.file, n), ()))} for n in one.lines],
            }
            for one in functions
        ],
        "changed": None if found is None else [
            {
                "file": one.file,
                "line": one.line,
                "removed": one.then,
                "source": "" if one.then else linecache.getline(one.file, one.line).strip(),
                "runs": list(one.runs),
            }
            for one in found
        ],
        "untold": _untold_data(lines),
    }  # fmt: skip


def _line_data(functions: Sequence[Function], place: Place) -> dict[str, Any]:
    file, line = place
    inside = [one for one in functions if one.file == file and one.first <= line <= one.last]
    name = max(inside, key=lambda one: one.first).name if inside else ""
    return {"file": file, "line": line, "function": name, "source": linecache.getline(file, line).strip()}
