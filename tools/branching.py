"""`replay fork`: a new run from a prefix of another, or, with `--dry-run`, only what would become of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import click
from rich.text import Text

from dalsegno.core.errors import BadOption
from dalsegno.core.events import CallbackCompleted, Event, SignalReceived
from dalsegno.core.forms import event_form
from dalsegno.core.interpreter import Interpreter, Waiting
from dalsegno.core.store import open_store
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import App, load_app
from dalsegno.tools.choosing import reading
from dalsegno.tools.comparing import compare
from dalsegno.tools.exported import cut_data
from dalsegno.tools.failures import UNCLEAR, say
from dalsegno.tools.forking import Instead, error_payload, forked, put, the_one_waiting, value_payload
from dalsegno.tools.options import (
    Json,
    Name,
    RunName,
    app_option,
    command_help,
    json_option,
    now_us,
    show_json,
    show_long,
    store_option,
)
from dalsegno.tools.rehearsing import Known, Rehearsal, rehearse
from dalsegno.tools.reports import diff_data, diff_report
from dalsegno.tools.stores import Kept, find_run, read_run, store_url
from dalsegno.tools.text import clean
from dalsegno.tools.timeline import words

FROM_OUTSIDE: Final = (SignalReceived, CallbackCompleted)
"""What they bring has no type of its own."""


@attrs.frozen(kw_only=True)
class Wanted:
    """What the options say: where to part, and what should have happened there."""

    at: int
    value: str | None
    error: str | None
    skip: bool
    command: str | None


@click.command(
    "fork",
    help=command_help(
        "Start a new run from the first N events of another, with what should have happened at event N.",
        "replay fork order-42 --at 7 --raise 'ValueError:no such street' --app shop.orders --dry-run",
        "N is the event whose command gets the new outcome: --set gives its result, --raise lets it fail, --skip "
        "passes over it (a step answers None, a timer is over, a signal never came); without these it happens anew. "
        "N = the number of events means what an open run waits for now. With --app the prefix is replayed "
        "first, so that code which does not fit is found before anything is written, and --set makes the "
        "type that the step returns.\n\n"
        "The fork has an id, a history and an inbox of its own: its open timers are set anew for the same moments, "
        "children that had not answered are started again, signals count as far as the prefix holds them, and nothing "
        "in the prefix is done again. It goes on when an engine next works on the store.\n\n"
        "--dry-run writes nothing, and runs no step: it walks the code of --app on in memory, with outcomes from the "
        "history where the same command was answered, then from --answers FILE, then asked for (--ask), and compares "
        'the result with the original. FILE holds JSON: {"charge": {"result": 5}, "2.1": {"raise": "OSError:down"}, '
        '"approval": [{"result": true}]}, by name of a step, workflow or signal, or id of a command. Exit code 2: it '
        'stopped, since an outcome is not known. With --json: {"id", "run_id", "origin", "events", "made": [events]}; '
        'with --dry-run {"ended", "stopped", "outcomes": {"history", "file", "asked", "clock"}, "history": [events as '
        'export writes them], "diff": as of replay diff, "cut"}.',
    ),
)
@click.argument("run", type=RunName())
@click.option("--at", type=click.IntRange(min=1), required=True, metavar="N", help="The events before N are kept.")
@click.option("--id", "new_id", type=Name(), metavar="NEW", help="The id of the fork; else made from the other one's.")
@click.option("--set", "value", metavar="result=JSON", help="What the command of event N answered.")
@click.option("--raise", "error", metavar="TYPE:TEXT", help="What the command of event N raised.")
@click.option("--skip", is_flag=True, help="Pass over the command of event N.")
@click.option("--command", metavar="ID", help="Which command, where N is the end and several wait.")
@click.option("--dry-run", is_flag=True, help="Write nothing; walk on in memory and compare.")
@click.option("--answers", type=click.Path(path_type=Path, dir_okay=False), help="Outcomes for --dry-run, as JSON.")
@click.option("--ask", is_flag=True, help="With --dry-run, ask for outcomes that are not known.")
@app_option(required=False)
@store_option
@json_option
def fork_run(
    run: str, new_id: str | None, dry_run: bool, answers: Path | None, ask: bool, app: str | None, store: str | None,
    json_wanted: bool, **said: Any,
) -> None:  # fmt: skip
    """Fork a run."""
    wanted = Wanted(**said)
    if sum((wanted.value is not None, wanted.error is not None, wanted.skip)) > 1:
        raise click.UsageError("--set, --raise and --skip exclude each other")
    if dry_run and app is None:
        raise click.UsageError("--dry-run walks the code on, so say --app MODULE")
    if not dry_run and (answers is not None or ask):
        raise click.UsageError("--answers and --ask are for --dry-run; a fork's steps are run by an engine")
    loaded = load_app(app) if app else None
    codec = loaded.codec if loaded is not None else Codec()
    with reading(store) as opened:
        kept, cut = read_run(opened, find_run(opened, run)), cut_data(opened)
    if kept.unreadable is not None and wanted.at >= kept.unreadable.index:
        raise BadOption(f"--at {wanted.at} is too late; {kept.unreadable.sentence}")
    events, kept_to = _prefix(kept, wanted, loaded, codec)
    if dry_run:
        assert loaded is not None
        known = sources(answers, ask, loaded)
        code = loaded.workflow(kept.record.workflow)
        found = rehearse(code, codec, events, kept.events, kept_to, known)
        _show_rehearsal(found, kept, codec, cut, json_wanted)
        return
    if loaded is not None:
        _replayed(events, loaded, kept.record.workflow)
    _write(kept, events, wanted.at, new_id, store, json_wanted)


def _prefix(kept: Kept, wanted: Wanted, app: App | None, codec: Codec) -> tuple[list[Event], int]:
    """The fork's history, and how much of the original it makes use of."""
    events, at = kept.events, wanted.at
    if wanted.value is None and wanted.error is None and not wanted.skip:
        return forked(events, at, None, codec, None), at
    waiting = None
    if at == len(events) and app is not None and not events[-1].closes:
        waiting = the_one_waiting(_replayed(events, app, kept.record.workflow), wanted.command)
    if waiting is not None:
        name, typed_by_code = waiting.name, waiting.kind in ("receive", "callback")
    else:
        name, typed_by_code = _name_at(events, at), isinstance(events[at] if at < len(events) else None, FROM_OUTSIDE)
    instead = _instead(wanted, name, typed_by_code, app, codec)
    return forked(events, at, instead, codec, waiting), at + 1


def _name_at(events: Sequence[Event], at: int) -> str:
    """The step or workflow whose outcome event `at` is; an outcome of a child is found by what began it."""
    if at >= len(events):
        return ""
    id = getattr(events[at], "id", None)
    same = (event for event in events[: at + 1] if id is not None and getattr(event, "id", None) == id)
    return next((name for event in same if (name := getattr(event, "name", ""))), "")


def _instead(wanted: Wanted, name: str, typed_by_code: bool, app: App | None, codec: Codec) -> Instead:
    """The outcome that the options say. JSON that comes from outside is stored as it is, and made into a type by the
    `Receive` or callback that takes it; of all else the type is known here, by the app."""
    if wanted.error is not None:
        return Instead("raise", error_payload(wanted.error, app, codec))
    if wanted.value is None:
        return Instead("skip")
    key, equals, value = wanted.value.partition("=")
    if key not in ("result", "payload") or not equals:
        raise BadOption(f"--set {wanted.value!r}: write result=JSON, as in --set 'result={{\"paid\": true}}'")
    parsed = Json().convert(value, None, None)
    if key == "payload" or typed_by_code:
        return Instead("set", codec.from_json(parsed))
    return Instead("set", value_payload(parsed, name, app, codec))


def _replayed(events: Sequence[Event], app: App, workflow: str) -> list[Waiting]:
    """What waits after these events in today's code. Raises what a replay raises: nothing is written then."""
    interpreter = Interpreter(app.workflow(workflow), app.codec)
    try:
        interpreter.replay(list(events), skip_scopes=False)
        return list(interpreter.waiting.values())
    finally:
        interpreter.evict()


def _write(kept: Kept, events: list[Event], at: int, new_id: str | None, store: str | None, json_wanted: bool) -> None:
    url = store_url(store)
    if url.startswith(("file:", "archive:")):
        raise BadOption("an exported file is only read; import it into a store first, or fork with --dry-run")
    id = new_id or f"{kept.record.workflow_id}.fork-{secrets.token_hex(4)}"
    with open_store(url) as opened:
        made = put(opened, kept.record, events, at, id, now_us())
    names = [words(type(event).__name__) for event in events[at:]]
    origin = f"forked from {kept.record.run_id} at {at}"
    if json_wanted:
        show_json({"id": id, "run_id": made.run_id, "origin": origin, "events": len(events), "made": names})
        return
    then = f", then {', '.join(names)}" if names else ""
    say(f"{made.run_id} {origin}: {at} events kept{then}. It goes on when an engine next works on the store", mark="")


# --- what is known beside the history ----------------------------------------------------------------------------


def sources(answers: Path | None, ask: bool, app: App) -> dict[str, Known]:
    """The file and the person, as far as there are."""
    found: dict[str, Known] = {}
    if answers is not None:
        found["file"] = _from_file(answers, app)
    if ask:
        found["asked"] = lambda waiting: _asked(waiting, app)
    return found


def _from_file(path: Path, app: App) -> Known:
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadOption(f"--answers {path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise BadOption(f'--answers {path}: write {{"name or id": {{"result": …}}}}')
    left = {str(key): list(value) if isinstance(value, list) else value for key, value in data.items()}

    def known(waiting: Waiting) -> Instead | None:
        for key in (waiting.id, waiting.name):
            found = left.get(key)
            if isinstance(found, list):
                found = found.pop(0) if found else None
            if found is not None:
                return _said(found, waiting, app, f"--answers {path}, {key!r}")
        return None

    return known


def _said(found: Any, waiting: Waiting, app: App, where: str) -> Instead:
    if isinstance(found, dict) and list(found) == ["raise"]:
        return Instead("raise", error_payload(str(found["raise"]), app, app.codec))
    if not isinstance(found, dict) or list(found) != ["result"]:
        raise BadOption(f'{where}: write {{"result": …}} or {{"raise": "Type:message"}}')
    if waiting.kind in ("receive", "callback"):
        return Instead("set", app.codec.from_json(found["result"]))
    return Instead("set", value_payload(found["result"], waiting.name, app, app.codec))


def _asked(waiting: Waiting, app: App) -> Instead | None:
    """Ask the person for one outcome; an empty line leaves it open."""
    what = clean(f"{waiting.describe()} (id {waiting.id}, line {waiting.line})")
    while True:
        typed: str = click.prompt(
            f"{what}: JSON, or !Type:message, or nothing to leave it open", default="", show_default=False, err=True
        )
        if not typed:
            return None
        if typed.startswith("!"):
            return _said({"raise": typed[1:]}, waiting, app, what)
        try:
            return _said({"result": json.loads(typed)}, waiting, app, what)
        except ValueError as error:
            say(error, mark="")


# --- what came of it -----------------------------------------------------------------------------------------------


def _show_rehearsal(found: Rehearsal, kept: Kept, codec: Codec, cut: dict[str, Any] | None, json_wanted: bool) -> None:
    comparison = compare(kept.events, found.events, codec)
    if json_wanted:
        show_json(
            {
                "ended": found.ended,
                "stopped": found.stopped,
                "outcomes": dict(found.sources),
                "history": [event_form(index, event, codec) for index, event in enumerate(found.events)],
                "diff": diff_data(comparison, kept.events, found.events),
                "cut": cut,
            }
        )
    else:
        show_long(*diff_report(comparison, kept.events, found.events), Text(""), _summary(found, kept))
    click.get_current_context().exit(0 if found.ended else UNCLEAR)


def _summary(found: Rehearsal, kept: Kept) -> Text:
    """How it went, in a sentence or two."""
    came = ", ".join(f"{count} from the {name}" for name, count in found.sources.items() if count)
    came = came.replace("the asked", "you")
    went = f"A is {clean(kept.record.run_id)} ({len(kept.events)} events), B the rehearsal ({len(found.events)})."
    outcomes = f" After event {found.kept - 1}: {came or 'nothing more was needed'}."
    if found.ended:
        end = words(type(found.events[-1]).__name__)
        return Text(f"{went}{outcomes} It ends: {end}. Nothing was written.", style="bold")
    return Text(f"{went}{outcomes} It stops: {clean(found.stopped)}. Nothing was written.", style="bold yellow")
