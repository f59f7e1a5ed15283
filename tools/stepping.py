"""`replay step`: walking through a history in a terminal, forwards and backwards.

A line that is typed is a command; an empty one repeats the last. Everything shown is computed by `walking`, found by
`seeking` and drawn by `standpoint`; this only reads and answers. With `--json` it prints one point and ends, for
scripts and editors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import attrs
import click

from dalsegno.core.errors import BadOption, DalsegnoError
from dalsegno.core.store import RunRecord
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import load_app
from dalsegno.tools.bounded import shown
from dalsegno.tools.choosing import reading
from dalsegno.tools.completing import EventKind, StepName
from dalsegno.tools.conditions import Condition
from dalsegno.tools.drawing import Drawing
from dalsegno.tools.exported import cut_data
from dalsegno.tools.failures import say
from dalsegno.tools.options import (
    RunName,
    app_option,
    command_help,
    console,
    json_option,
    show,
    show_json,
    store_option,
)
from dalsegno.tools.seeking import to_condition, to_kind, to_line, to_name, to_text
from dalsegno.tools.standpoint import panels, point_data
from dalsegno.tools.stores import find_run, read_run
from dalsegno.tools.timeline import Timeline, Unreadable, timeline
from dalsegno.tools.walking import Walk, uncollected

HELP: Final = """\
n, Enter     forward one event; n 10: ten          b, b 10      back
g N          to event N; g end: to the end         t            the timeline around here
e KIND       to the next event of a kind: e step failed, e timer
s NAME       to the next event of the step, child or signal of this name
l LINE       to where something stands at a line: l 17, l orders.py:17
w CONDITION  to where this becomes true of local variables: w total > 100 and len(items) == 2
/ TEXT       to the next event that mentions a text
-e, -s, -l, -w, -/ look backwards                  p EXPRESSION what it is here
h            this help                             q            leave"""


@attrs.define
class Session:
    """Where one is, and how to get on."""

    record: RunRecord
    walk: Walk
    line: Timeline
    codec: Codec
    at: int = 0
    half: Unreadable | None = None
    cut: dict[str, Any] | None = None

    def seek(self, how: str, what: str) -> int:
        """The event that is looked for. Raises `BadOption` where there is none."""
        back = how.startswith("-")
        found = {
            "e": lambda: to_kind(self.walk, self.line, self.at, what, back),
            "s": lambda: to_name(self.walk, self.line, self.at, what, back),
            "l": lambda: to_line(self.walk, self.at, what, back),
            "w": lambda: to_condition(self.walk, self.at, what, back),
            "/": lambda: to_text(self.walk, self.line, self.at, what, self.codec, back),
        }[how.lstrip("-")]()
        if found is None:
            raise BadOption(f"nothing of that {'before' if back else 'after'} event {self.at}")
        return found

    def moved(self, word: str, rest: str) -> int:
        """The event that a moving command leads to."""
        if word in ("n", "b"):
            steps = _number(rest or "1")
            return min(max(self.at + (steps if word == "n" else -steps), 0), self.walk.last)
        if word == "g":
            return self.walk.last if rest == "end" else _number(rest)
        if not rest:
            raise BadOption(f"{word} what? h helps")
        return self.seek(word, rest)

    def print(self) -> None:
        """Show where one is."""
        show(*panels(self.record, self.walk, self.line, self.walk.at(self.at), self.codec, self.half))

    def evaluated(self, text: str) -> str:
        """What an expression is here."""
        return shown(Condition(text).value(self.walk.names_at(self.at)))


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise BadOption(f"{text!r} is no number of events")
    return int(text)


WORDS: Final = {
    "next": "n", "forward": "n", "f": "n", "back": "b", "goto": "g", "event": "e", "step": "s", "line": "l",
    "when": "w", "print": "p", "help": "h", "?": "h", "quit": "q", "exit": "q", "timeline": "t",
}  # fmt: skip
MOVES: Final = frozenset("nbgeslw/")


def parsed(typed: str) -> tuple[str, str]:
    """A typed line as its command and the rest; a bare number is a place to go."""
    typed = typed.strip()
    if typed.isdecimal():
        return "g", typed
    if typed.startswith(("/", "-/")):
        sign = typed.partition("/")[0]
        return f"{sign}/", typed.partition("/")[2].strip()
    word, _, rest = typed.partition(" ")
    sign = "-" if word.startswith("-") else ""
    return sign + WORDS.get(word.lstrip("-"), word.lstrip("-")), rest.strip()


def interact(session: Session, read: Callable[[str], str]) -> None:
    """Read and answer until the end of the input."""
    session.print()
    say("h helps", mark="")
    last = "n"
    while True:
        session.walk.rest()
        try:
            typed = read(f"({session.at}/{len(session.walk.events)}) ").strip() or last
        except (EOFError, KeyboardInterrupt):
            return
        last = typed
        word, rest = parsed(typed)
        if word == "q":
            return
        try:
            with uncollected():
                answer(session, word, rest)
        except DalsegnoError as error:
            say(error)


def answer(session: Session, word: str, rest: str) -> None:
    """Do what one command says."""
    if word.lstrip("-") in MOVES:
        at = session.moved(word, rest)
        session.walk.at(at)
        session.at = at
        if sys.stdout.isatty():
            console().clear()
        session.print()
    elif word == "t":
        show(Drawing(session.line.around(session.at), session.codec, None))
    elif word == "p":
        click.echo(session.evaluated(rest))
    elif word == "h":
        click.echo(HELP)
    else:
        raise BadOption(f"there is no command {word!r}; h helps")


# --- the command ---------------------------------------------------------------------------------------------------


def session_of(run: str, app: str, store: str | None) -> Session:
    """A walk through a run, with the code of an app."""
    loaded = load_app(app)
    with reading(store) as opened:
        record = find_run(opened, run)
        kept, cut = read_run(opened, record), cut_data(opened)
    if kept.unreadable is not None:
        say(kept.unreadable.sentence, mark="warning")
    walk = Walk(kept.events, loaded.workflow(record.workflow), loaded.codec)
    return Session(record, walk, timeline(kept.events), loaded.codec, half=kept.unreadable, cut=cut)


@click.command(
    "step",
    help=command_help(
        "Walk through a run's history forwards and backwards, with source, variables and what each fiber waits for.",
        "replay step order-42 --app shop.orders --at 17",
        "At event N the events before it have been told, and the workflow waits for what N says. No step is run. "
        'With --json: {"run": as in ls, "at", "events", "last", "problem", "event": as in show, "answers": {"id", '
        '"kind", "name", "command", "fiber", "file", "line"}, "file", "line", "function", "source": [{"line", '
        '"text"}], "now", "fibers": {"path", "function", "file", "line", "waits_for", "generators": [{"function", '
        '"file", "line", "locals": [{"name", "value", "change"}], "gone"}], "beneath", "left_out": how many beneath '
        'are not listed}, "state", "outcome", "cut"}.',
    ),
)
@click.argument("run", type=RunName())
@click.option("--at", type=click.IntRange(min=0), metavar="N", help="Begin at event N.")
@click.option("--event", "e", type=EventKind(), help="Go on to the next event of this kind.")
@click.option("--step", "s", type=StepName(), help="Go on to the next event of this step, child or signal.")
@click.option("--line", "l", metavar="[FILE:]LINE", help="Go on to where something stands at this line.")
@click.option("--when", "w", metavar="CONDITION", help="Go on to where this becomes true of local variables.")
@click.option("--find", "find", metavar="TEXT", help="Go on to the next event that mentions this.")
@app_option(required=True)
@store_option
@json_option
def step_run(
    run: str, at: int | None, find: str | None, app: str, store: str | None, json_wanted: bool, **sought: str | None
) -> None:
    """Walk through one run."""
    session = session_of(run, app, store)
    session.at = at or 0
    session.walk.at(session.at)
    for how, what in (*sought.items(), ("/", find)):
        if what is not None:
            session.at = session.seek(how, what)
    try:
        if json_wanted:
            point = session.walk.at(session.at)
            show_json(
                point_data(session.record, session.walk, session.line, point, session.codec) | {"cut": session.cut}
            )
        else:
            interact(session, input)
    finally:
        session.walk.close()
