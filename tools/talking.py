"""`dalsegno signal`, `cancel`, `complete` and the like: a word to a run, from a second terminal.

Each puts a message into the store, which is durable when the command returns, whether a worker is there or not; the
worker hears of it within a fraction of a second. With `--app`, JSON is first held against what the run waits for
(`dalsegno.tools.fitting`), because what was sent cannot be taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from dalsegno import Client, Run
from dalsegno.core.errors import BadOption
from dalsegno.core.interpreter import parse_token
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import load_app
from dalsegno.tools.completing import SignalName
from dalsegno.tools.failures import say
from dalsegno.tools.fitting import check_answer, check_signal
from dalsegno.tools.forms import run_data
from dalsegno.tools.options import Json, Name, RunName, app_option, command_help, json_option, show_json, store_option
from dalsegno.tools.stores import open_for_reading, store_url, url_to_write
from dalsegno.tools.text import clean

SENT_JSON = 'With --json: {"run": as in `replay ls`, "sent": the name of the command}.'

reason_option = click.option("--reason", type=Name(), default="", help="Why; it is recorded in the history.")


@contextmanager
def talking(store: str | None, codec: Codec | None = None) -> Iterator[Client]:
    """A client on a store that is there. A message to a store that is not there would make an empty one."""
    open_for_reading(store_url(store)).close()
    with Client(url_to_write(store), codec=codec) as client:
        yield client


def told(client: Client, id: str, what: str, json_wanted: bool) -> None:
    """Print that something was taken."""
    data = run_data(client.get(id).record)
    if json_wanted:
        show_json({"run": data, "sent": what.split()[0]})
    else:
        click.echo(f"{clean(id)}: {what} is taken")


# --- with a payload ------------------------------------------------------------------------------------------------


@click.command(
    "signal",
    help=command_help(
        "Send a signal to a run; it is durable when this returns, and is received exactly once.",
        """dalsegno signal order-42 approval '{"granted": true}' --dedup mail-7""",
        "PAYLOAD is JSON (null if left out); the workflow's Receive makes it into the type it asks for, and a run that "
        "cannot is blocked. With --app that is tried first: what does not fit is not sent, and a name that nothing "
        'waits for is remarked upon. With --json: {"run": as in `replay ls`, "sent": "signal"}.',
    ),
)
@click.argument("run", type=RunName())
@click.argument("name", type=SignalName())
@click.argument("payload", type=Json(), default="null")
@click.option("--dedup", type=Name(), metavar="KEY", help="A second signal with this key is not delivered again.")
@app_option(required=False)
@store_option
@json_option
def send_signal(
    run: str, name: str, payload: Any, dedup: str | None, app: str | None, store: str | None, json_wanted: bool
) -> None:
    """Send a signal."""
    if not name:
        raise BadOption("the signal's name is empty; it is the first argument of a Receive")
    loaded = load_app(app) if app else None
    with talking(store, loaded.codec if loaded else None) as client:
        found = client.get(run)
        if loaded is not None and (remark := check_signal(client.backend, found.record, name, payload, loaded)):
            say(remark, mark="warning")
        found.signal_json(name, payload, dedup=dedup)
        told(client, run, f"signal {clean(name)}", json_wanted)


@click.command(
    "complete",
    help=command_help(
        "Keep the promise of a callback: the workflow that waits for it goes on; durable when this returns.",
        """dalsegno complete lKdvcmRlci00MgGhM8QQ '{"granted": true}' --store lmdb:./orders""",
        "TOKEN is the `token` of a NewCallback, as the workflow gave it away. VALUE is JSON (null if left out), which "
        "is made into the callback's type; with --app that is tried first, and what does not fit is not sent. A second "
        'answer is refused. With --json: {"run": as in `replay ls`, "sent": "complete"}.',
    ),
)
@click.argument("token", type=Name())
@click.argument("value", type=Json(), default="null")
@app_option(required=False)
@store_option
@json_option
def complete(token: str, value: Any, app: str | None, store: str | None, json_wanted: bool) -> None:
    """Answer a callback."""
    meant = parse_token(token)
    loaded = load_app(app) if app else None
    with talking(store, loaded.codec if loaded else None) as client:
        if loaded is not None:
            record = client.backend.find(meant.workflow_id, meant.generation)
            check_answer(client.backend, record, meant.id, value, loaded)
        client.complete_json(token, value)
        told(client, meant.workflow_id, "complete", json_wanted)


@click.command(
    "fail",
    help=command_help(
        "Report that the promise of a callback cannot be kept; a RuntimeError is raised where the workflow waits.",
        "dalsegno fail lKdvcmRlci00MgGhM8QQ 'the bank refused' --store lmdb:./orders",
        "TOKEN is the `token` of a NewCallback; ERROR is what the error says. A second answer is refused. With --json: "
        '{"run": as in `replay ls`, "sent": "fail"}.',
    ),
)
@click.argument("token", type=Name())
@click.argument("error", type=Name())
@app_option(required=False)
@store_option
@json_option
def fail(token: str, error: str, app: str | None, store: str | None, json_wanted: bool) -> None:
    """Answer a callback with an error."""
    meant = parse_token(token)
    with talking(store, load_app(app).codec if app else None) as client:
        client.fail(token, error)
        told(client, meant.workflow_id, "fail", json_wanted)


# --- with a reason -------------------------------------------------------------------------------------------------


def _with_reason(name: str, text: str, example: str, say_it: Callable[[Run[Any], str], None]) -> click.Command:
    """A command that says one thing to a run, and why."""

    @click.command(name, help=command_help(text, example, SENT_JSON))
    @click.argument("run", type=RunName())
    @reason_option
    @store_option
    @json_option
    def command(run: str, reason: str, store: str | None, json_wanted: bool) -> None:
        with talking(store) as client:
            say_it(client.get(run), reason)
            told(client, run, name, json_wanted)

    return command


cancel = _with_reason(
    "cancel",
    "Ask a run to end itself: Cancelled is raised where it waits, and its clean-up runs.",
    "dalsegno cancel order-42 --reason 'the customer called'",
    Run.cancel,
)
terminate = _with_reason(
    "terminate",
    "End a run without asking its code; works for a blocked one too.",
    "dalsegno terminate order-42 --reason 'started by mistake'",
    Run.terminate,
)
pause = _with_reason(
    "pause",
    "Have a run's code stand still until it is resumed; what runs already is recorded, what arrives waits.",
    "dalsegno pause order-42 --reason 'the warehouse is closed'",
    Run.pause,
)


@click.command(
    "resume",
    help=command_help(
        "Let a paused run go on, or have a blocked one tried again with the code the worker has now.",
        "dalsegno resume order-42",
        SENT_JSON,
    ),
)
@click.argument("run", type=RunName())
@store_option
@json_option
def resume(run: str, store: str | None, json_wanted: bool) -> None:
    """Resume a run."""
    with talking(store) as client:
        client.get(run).resume()
        told(client, run, "resume", json_wanted)
