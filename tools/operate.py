"""`dalsegno`: works on a store, and starts runs there. A worker is an engine with the code of `--app`.

What is said to runs from a second terminal is in `dalsegno.tools.talking`, exit codes in `dalsegno.tools.failures`.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import click

from dalsegno import Checkpoint, Client, Engine, Flow
from dalsegno import workflow as define_workflow
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import BadOption
from dalsegno.core.store import OnConflict
from dalsegno.examples.demo import run_demo
from dalsegno.examples.demo_watch import DemoFailed
from dalsegno.tools.app import App, load_app
from dalsegno.tools.compact import compact_store
from dalsegno.tools.failures import NO, CalmGroup, say
from dalsegno.tools.forms import run_data
from dalsegno.tools.limits import Change, LimitsOf, changed
from dalsegno.tools.options import (
    CONTEXT,
    Age,
    Json,
    KeyValue,
    Name,
    QueueName,
    WorkflowName,
    app_option,
    command_help,
    console,
    json_option,
    show_json,
    store_option,
)
from dalsegno.tools.prune import retention_of, retention_options
from dalsegno.tools.queues import queues_of_store
from dalsegno.tools.serving import left_to_do, log_to_stderr, stopping_on_signals
from dalsegno.tools.stores import url_to_write
from dalsegno.tools.talking import cancel, complete, fail, pause, resume, send_signal, terminate
from dalsegno.tools.text import clean, without_password
from dalsegno.tools.watched import Watching, watched, watching_options

GROUP_HELP = """Run workflows that survive the death of their process, and talk to them.

\b
Example:
  dalsegno worker --app shop.orders --store lmdb:./orders
  dalsegno start fulfil '{"id": 42}' --id order-42 --app shop.orders --store lmdb:./orders
  dalsegno signal order-42 approval '{"granted": true}' --store lmdb:./orders

\b
Completion of commands, options and run ids in bash (zsh and fish likewise):
  eval "$(_DALSEGNO_COMPLETE=bash_source dalsegno)"

\b
Exit codes: 0 done, 1 understood and refused (no such run, it has ended, the id is taken),
2 not understood, 3 the store cannot be used, 4 data cannot be read.
"""

LOOK_EVERY_S = 0.1
"""How often `worker --until-done` looks whether anything is left."""


@click.group(cls=CalmGroup, context_settings=CONTEXT, help=GROUP_HELP)
@click.version_option(package_name="dalsegno")
def main() -> None:
    """The `dalsegno` command."""


# --- worker --------------------------------------------------------------------------------------------------------


@main.command(
    "worker",
    help=command_help(
        "Work on the runs of a store with the code of an app, until Ctrl-C.",
        "dalsegno worker --app shop.orders --store lmdb:./orders",
        "Goes on with everything that is unfinished. Ctrl-C or SIGTERM stop it in good order: running steps get "
        "--grace, nothing that was recorded is lost, and other workers on the store "
        "go on with its runs. The store is made if it is not there. Closed runs stay for "
        "ever, unless --completed, --failed, --continued or --archive is given: then they are deleted in time, as "
        "`replay prune` does it. With --durable 0 it only runs steps that wait in queues, with --steps 0 it only moves "
        "workflows, whose steps go to their queues, or to the queue `default`. The Queue objects at the top level of "
        "the app are declared, with what --limit says of them. With --json: one object "
        'when it has begun, {"store", "pid", "workflows", "steps", "queues": those of --queue, or null for all}, and '
        '"metrics" with --metrics-port: where they are.',
    ),
)
@app_option(required=True)
@store_option
@click.option(
    "--steps",
    "--step-threads",
    "step_threads",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    help="Step bodies at a time; 0: none, they are for other workers.",
)
@click.option(
    "--durable",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Threads that move workflows; 0: only steps from queues run here.",
)
@click.option("--queue", "serve", multiple=True, type=QueueName(), help="Take from this queue only; may be repeated.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    type=LimitsOf(),
    help="Declare limits of a queue, over those of the app: mail=concurrency:2,per-key:1,rate:10/60s.",
)
@click.option(
    "--lease",
    type=Age(),
    default="10s",
    show_default=True,
    help="How long others wait for this worker when it is frozen or cut off, before they take its runs.",
)
@click.option("--alone", is_flag=True, help="Have the store alone: refuse to start beside others, and others later.")
@click.option(
    "--watchdog",
    type=Age(),
    default="30s",
    show_default=True,
    help="How long workflow code may run without a yield before it is interrupted; 0s: for ever.",
)
@click.option("--grace", type=Age(), default="10s", show_default=True, help="How long running steps may finish.")
@click.option("--until-done", is_flag=True, help="Stop when no run is left that could go on.")
@retention_options
@watching_options
@json_option
def worker(
    app: str,
    store: str | None,
    step_threads: int,
    durable: int,
    serve: tuple[str, ...],
    limits: tuple[Change, ...],
    lease: int,
    alone: bool,
    watchdog: int,
    grace: int,
    until_done: bool,
    json_wanted: bool,
    watching: Watching,
    **kept: Any,
) -> None:
    """Serve an app."""
    loaded, url, retention = load_app(app), url_to_write(store, make=True), retention_of(**kept)
    log_to_stderr(in_json=watching.log_json)
    stop, shown = threading.Event(), without_password(url)
    with (
        stopping_on_signals(stop),
        watched(watching) as (observers, metrics_at),
        Engine(
            url,
            workflows=loaded.definitions,
            codec=loaded.codec,
            step_threads=step_threads,
            durable=durable,
            lease=lease / 1e6,
            alone=alone,
            watchdog=watchdog / 1e6 or None,
            grace=grace / 1e6,
            retention=retention,
            observers=observers,
            queues=changed(loaded.queues, limits),
            serve=serve or None,
        ) as engine,
    ):
        if json_wanted:
            names = {"workflows": sorted(loaded.workflows), "steps": sorted(loaded.steps)}
            where = {"metrics": metrics_at} if metrics_at else {}
            show_json({"store": shown, "pid": os.getpid(), **names, "queues": list(serve) or None, **where})
        else:
            with_what = _work(loaded, durable, step_threads, serve)
            say(f"working on {shown} with {with_what}; Ctrl-C stops", mark="")
            if metrics_at:
                say(f"metrics at {metrics_at}", mark="")
        sys.stdout.flush()
        while not stop.wait(LOOK_EVERY_S if until_done else None):
            if not left_to_do(engine.backend):
                break
        if stop.is_set():
            say(f"stopping: running steps get {grace / 1e6:g} s; Ctrl-C again stops at once", mark="")


def _work(app: App, durable: int, step_threads: int, serve: Sequence[str]) -> str:
    """What a worker is there for, in words."""
    kinds = {"workflows": (durable, app.workflows), "steps": (step_threads, app.steps)}
    named = app.workflows if durable else app.steps
    said = [clean(", ".join(sorted(named))) or f"no {'workflows' if durable else 'steps'}"]
    said += [f"no {kind} here" for kind, (threads, _) in kinds.items() if not threads]
    if serve:
        said.append(f"from queue{'s' * (len(serve) > 1)} {clean(', '.join(serve))}")
    return "; ".join(said)


# --- start ---------------------------------------------------------------------------------------------------------


@main.command(
    "start",
    help=command_help(
        "Start a workflow; the run is durable when this returns, and starting is idempotent by --id.",
        """dalsegno start fulfil '{"id": 42, "amount": "9.90"}' --id order-42 --app shop.orders""",
        "ARGS are the workflow's arguments, each written as JSON. With --app they are made into the types that the "
        "workflow's annotations name, and checked; without it the name is not checked and they stay plain JSON. "
        "--queue and what follows it are options of the workflow, for this start: the run is there at once, and begins "
        "when the queue lets it in. With --json: the run, as in `replay ls`.",
    ),
)
@click.argument("workflow", type=WorkflowName())
@click.argument("args", nargs=-1, type=Json())
@click.option("--kw", "kwargs", multiple=True, type=KeyValue(), metavar="NAME=JSON", help="A keyword argument.")
@click.option("--id", "id", type=Name(), help="The workflow id; one is made up without it.")
@click.option("--tag", "tags", multiple=True, type=KeyValue(), help="A tag to find the run by.")
@click.option(
    "--on-conflict",
    type=click.Choice(["attach", "reject", "restart_closed"]),
    default="attach",
    show_default=True,
    help="What to do when the id is taken.",
)
@click.option("--queue", type=QueueName(), help="The queue that the run waits in until it may begin.")
@click.option("--key", type=Name(), help="There, runs of different keys take turns.")
@click.option("--priority", type=int, help="There, a higher one goes first.")
@click.option("--delay", type=Age(), help="There, it stands in line after so long (90s, 15m).")
@click.option("--dedup", type=Name(), metavar="ID", help="While an open run of the queue has this id, it is that one.")
@app_option(required=False)
@store_option
@json_option
def start(
    workflow: str,
    args: tuple[Any, ...],
    kwargs: Sequence[tuple[str, str]],
    id: str | None,
    tags: Sequence[tuple[str, str]],
    on_conflict: OnConflict,
    app: str | None,
    store: str | None,
    json_wanted: bool,
    **place: Any,
) -> None:
    """Start a run."""
    loaded = load_app(app) if app else None
    named = {name: Json().convert(value, None, click.get_current_context()) for name, value in kwargs}
    definition: WorkflowDefinition[Any, Any] | str = workflow
    if loaded is not None:
        definition = loaded.workflow(workflow)
        args, named = structured(loaded, definition, args, named)
    definition = placed(definition, **place)
    with Client(url_to_write(store, make=True), codec=loaded.codec if loaded else None) as client:
        run = client.start(definition, *args, id=id, on_conflict=on_conflict, tags=dict(tags), **named)
        data = run_data(run.record)
    if json_wanted:
        show_json(data)
    else:
        click.echo(f"{clean(data['run_id'])} {data['status']}")


def placed(
    workflow: WorkflowDefinition[Any, Any] | str, delay: int | None = None, **place: Any
) -> WorkflowDefinition[Any, Any] | str:
    """The workflow with what was said about its queue. Raises `BadOption`."""
    said = {name: value for name, value in place.items() if value is not None}
    if delay is not None:
        said["delay"] = delay / 1e6
    if not said:
        return workflow
    if isinstance(workflow, str):
        workflow = _of_any_arguments(workflow)
    return workflow.options(**said)


def _of_any_arguments(name: str) -> WorkflowDefinition[Any, Any]:
    """A workflow whose code is not known here, to say something about its start."""

    @define_workflow(name=name)
    def unknown(*args: Any, **kwargs: Any) -> Flow[None]:
        yield from Checkpoint()  # nobody runs it: a start needs the name and the options

    return unknown


def structured(
    app: App, definition: WorkflowDefinition[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """JSON arguments as the types the workflow's annotations name. Raises `BadOption` for a call that does not fit."""
    try:
        bound = definition.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise BadOption(f"{definition.name}{definition.signature}: {error}") from None
    try:
        hints = get_type_hints(definition.fn)
    except (NameError, TypeError, AttributeError) as error:
        say(
            f"the annotations of {definition.name} cannot be read ({error}), so its arguments stay JSON", mark="warning"
        )
        hints = {}
    for name, value in bound.arguments.items():
        hint, kind = hints.get(name, Any), definition.signature.parameters[name].kind
        if kind is kind.VAR_POSITIONAL:
            bound.arguments[name] = tuple(app.codec.structure(one, hint) for one in value)
        elif kind is kind.VAR_KEYWORD:
            bound.arguments[name] = {key: app.codec.structure(one, hint) for key, one in value.items()}
        else:
            bound.arguments[name] = app.codec.structure(value, hint)
    return bound.args, bound.kwargs


for command in (send_signal, cancel, terminate, pause, resume, complete, fail, compact_store, queues_of_store):
    main.add_command(command)


# --- demo ----------------------------------------------------------------------------------------------------------


@main.command(
    "demo",
    help=command_help(
        "Audit a source tree in a process that is killed twice on the way, and prove that nothing was lost.",
        "dalsegno demo --seed 7",
        "PATH is the folder to audit, by default the standard library of this Python. The store goes into a new "
        "folder for temporary files unless --store names one. Exit code 0 when the run survived as promised. With "
        "--json: the figures, the kills and the proof.",
    ),
)
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--interactive", is_flag=True, help="Ask whether to publish, instead of answering by itself.")
@click.option("--seed", type=int, help="Chooses the moments of the kills; another one each time without it.")
@click.option("--kills", type=click.IntRange(0, 20), default=2, show_default=True, help="How often to kill the worker.")
@click.option("--store", metavar="FOLDER", help="Where the LMDB store goes; lmdb:FOLDER is taken too.")
@json_option
def demo(
    path: Path | None, interactive: bool, seed: int | None, kills: int, store: str | None, json_wanted: bool
) -> None:
    """Run the demo."""
    folder = Path(store.removeprefix("lmdb:")) if store else None
    chosen = secrets.randbelow(10_000) if seed is None else seed
    try:
        result = run_demo(
            path,
            folder,
            interactive=interactive,
            seed=chosen,
            kills=kills,
            json=json_wanted,
            console=console(markup=True),
        )
    except DemoFailed as error:
        say(error)
        click.get_current_context().exit(NO)
    click.get_current_context().exit(0 if result.ok else NO)


if __name__ == "__main__":
    main()
