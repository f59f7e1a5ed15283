"""How a point of a walk looks: panels for people, data for `--json`. Pure, like `render`.

Source code comes from the user's files and everything else from a store, so all of it passes `clean` before it is put
into a `Text`; a file may have been edited since, which nobody can tell from here.
"""

from __future__ import annotations

import linecache
from typing import Any, Final

from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text
from rich.tree import Tree

from dalsegno.core.store import RunRecord
from dalsegno.core.values.codec import Codec
from dalsegno.tools.forms import payload_form, run_data
from dalsegno.tools.render import NAME_MAX, row_data, row_payload, summary
from dalsegno.tools.text import clean, clock, duration, iso
from dalsegno.tools.timeline import Timeline, Unreadable
from dalsegno.tools.walking import Level, Point, Stand, Walk

AROUND: Final = 6  # lines of source above and below the current one
CHANGED: Final = {"new": ("+ ", "green"), "changed": ("* ", "yellow"), "": ("  ", "")}
ENDINGS: Final = {
    "Finished": "the workflow has returned",
    "Raised": "the workflow has raised",
    "CancelledOut": "the workflow has ended as it was asked to",
    "Continued": "the workflow continues as new",
}


def source_lines(file: str, line: int, around: int = AROUND) -> list[tuple[int, str]]:
    """The lines of a file near one of them; none where the file cannot be read."""
    lines = linecache.getlines(file)
    first = max(line - around, 1)
    return [(first + n, text.rstrip("\n")) for n, text in enumerate(lines[first - 1 : line + around])]


# --- for people ----------------------------------------------------------------------------------------------------


def panels(
    record: RunRecord, walk: Walk, line: Timeline, point: Point, codec: Codec, half: Unreadable | None = None
) -> list[RenderableType]:
    """Where the run is, the source, the event and its command, variables, fibers and state. `half`: where the history
    is not whole."""
    parts: list[RenderableType] = [_head(record, walk, point), _event(walk, line, point, codec, half)]
    if point.file and point.line:
        title = Text(f"{clean(point.file, 80)}:{point.line}  {clean(point.function, NAME_MAX)}")
        parts.append(Panel(_source(point), title=title, title_align="left"))
    holder = next((one for one in point.root.all() if point.answers and one.path == point.answers.fiber), point.root)
    if holder.levels:
        parts.append(Panel(_variables(holder.levels), title="variables", title_align="left"))
    if point.root.beneath or point.root.waits_for not in ("", "nothing"):
        parts.append(Panel(_tree(point.root), title="fibers", title_align="left"))
    for key, value in point.published.items():
        parts.append(Text(f"state {clean(key, NAME_MAX)} = {summary(value, codec)}", style="dim"))
    if walk.problem and point.at == walk.last:
        parts.append(Text(f"today's code goes no further: {clean(walk.problem, 600)}", style="red"))
    return parts


def _head(record: RunRecord, walk: Walk, point: Point) -> Text:
    now = clock(point.now_us) if point.now_us else "before it began"
    return Text.assemble(
        (clean(record.run_id, NAME_MAX), "bold"),
        f"  {clean(record.workflow, NAME_MAX)}  at event ",
        (str(point.at), "bold"),
        f" of {len(walk.events)}  {now}",
    )


def _event(walk: Walk, line: Timeline, point: Point, codec: Codec, half: Unreadable | None) -> Text:
    text = Text()
    if point.event is None and half is not None:
        text.append(f"end of what can be shown: {half.note}", style="bold red")
    elif point.event is None:
        ended = ENDINGS.get(point.outcome, "the run waits here")
        text.append(f"end of the history: {ended}")
    else:
        row = line.rows[point.at]
        text.append("next  ", style="dim")
        text.append(f"{row.what} {clean(row.name, NAME_MAX)}".rstrip(), style="cyan")
        text.append(f"  after {duration(max(point.event.at_us - point.now_us, 0)) if point.now_us else '0'}")
        text.append(f"  {row_payload(row, codec)}".rstrip())
    if point.answers is not None:
        words = "\nfor   " if point.event is not None else "\nfor a "
        text.append(words, style="dim")
        text.append(f"{clean(point.answers.command)} (id {clean(point.answers.id)})")
    return text


def _source(point: Point) -> Text:
    text = Text(no_wrap=True)
    for number, source in source_lines(point.file, point.line):
        here = number == point.line
        shown = f"{'→' if here else ' '} {number:4} {clean(source.expandtabs(4), 160)}\n"
        text.append(shown, style="bold reverse" if here else "")
    text.rstrip()
    return text or Text("(the source is not here)", style="dim")


def _variables(levels: tuple[Level, ...]) -> Text:
    """The variables of each generator, innermost first."""
    text = Text()
    for level in reversed(levels):
        text.append(f"{clean(level.function, NAME_MAX)}:{level.line}\n", style="dim")
        for one in level.locals:
            mark, style = CHANGED[one.change]
            text.append(f"  {mark}{clean(one.name)} = {one.value}\n", style=style)
        for name in level.gone:
            text.append(f"  - {clean(name)}\n", style="red")
    text.rstrip()
    return text


def _tree(root: Stand) -> Tree:
    tree = Tree(_fiber(root))
    _grow(tree, root)
    return tree


def _grow(tree: Tree, stand: Stand) -> None:
    for one in stand.beneath:
        _grow(tree.add(_fiber(one)), one)
    if stand.left_out:
        tree.add(Text(f"and {stand.left_out:,} more", style="dim"))


def _fiber(stand: Stand) -> Text:
    path = f"{clean(stand.path)} " if stand.path else ""
    at = f":{stand.line}" if stand.line else ""
    waits = clean(stand.waits_for or "nothing", 100)
    return Text.assemble((path, "bold"), f"{clean(stand.function, NAME_MAX)}{at}", (f"  waits for {waits}", "cyan"))


# --- for programs --------------------------------------------------------------------------------------------------


def point_data(record: RunRecord, walk: Walk, line: Timeline, point: Point, codec: Codec) -> dict[str, Any]:
    """What `step --json` prints."""
    answers = point.answers
    return {
        "run": run_data(record),
        "at": point.at,
        "events": len(walk.events),
        "last": walk.last,
        "problem": walk.problem,
        "event": row_data(line.rows[point.at], codec, True) if point.event is not None else None,
        "answers": None if answers is None else {
            "id": answers.id,
            "kind": answers.kind,
            "name": answers.name,
            "command": answers.command,
            "fiber": answers.fiber,
            "file": answers.file,
            "line": answers.line,
        },
        "file": point.file,
        "line": point.line,
        "function": point.function,
        "source": [{"line": number, "text": text} for number, text in source_lines(point.file, point.line)],
        "now": iso(point.now_us) if point.at else None,
        "fibers": _stand_data(point.root),
        "state": {key: payload_form(value, codec) for key, value in point.published.items()},
        "outcome": ENDINGS.get(point.outcome),
    }  # fmt: skip


def _stand_data(stand: Stand) -> dict[str, Any]:
    return {
        "path": stand.path,
        "function": stand.function,
        "file": stand.file,
        "line": stand.line,
        "waits_for": stand.waits_for,
        "generators": [
            {
                "function": level.function,
                "file": level.file,
                "line": level.line,
                "locals": [{"name": one.name, "value": one.value, "change": one.change} for one in level.locals],
                "gone": list(level.gone),
            }
            for level in stand.levels
        ],
        "beneath": [_stand_data(one) for one in stand.beneath],
        "left_out": stand.left_out,
    }
