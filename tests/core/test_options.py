"""Arguments of the wrong kind: each is refused where it is written, and the message says what could stand there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from math import inf, nan
from pathlib import Path
from typing import Any, cast, get_type_hints

import attrs
import pytest

from dalsegno import (
    All,
    Cancel,
    CheckpointPolicy,
    Client,
    Codec,
    Completion,
    ContinueAsNew,
    Engine,
    First,
    Flow,
    Map,
    Observer,
    Patched,
    Publish,
    Queue,
    Rate,
    Receive,
    Retention,
    Retry,
    Send,
    SideEffect,
    Sleep,
    SleepUntil,
    UseError,
    Worker,
    step,
    workflow,
)
from dalsegno.core.engine.works import CommonOptions, WorkerOptions
from dalsegno.core.options import ENDLESS_S, duration
from dalsegno.core.policies import StepOptions, WorkflowOptions
from dalsegno.core.store import OWN_STORES
from dalsegno.testing import Simulation, VirtualClock

HALF = "\udcff"  # what a program reads of a file's name that is not UTF-8


@step
def work(item: int) -> int:
    return item


@workflow
def nap(hours: int = 1) -> Flow[None]:
    yield from Sleep(hours * 3600)


EVERYWHERE: list[tuple[str, object, str]] = [
    ("codec", 5, "takes a Codec"),
    ("codec", Codec, "takes a Codec"),
    ("clock", 5, r"takes a clock, with now_us\(\)"),
    ("clock", VirtualClock, "takes a clock"),
    ("entropy", 5, "takes a function"),
]
WORKING: list[tuple[str, object, str]] = [
    *EVERYWHERE,
    ("workflows", 5, "takes a list of definitions"),
    ("workflows", nap, r"takes several, like workflows=\[nap\]"),
    ("steps", 5, "takes a list of definitions"),
    ("steps", work, r"takes several, like steps=\[work\]"),
    ("steps", [print], "decorate it first"),
    ("checkpoint", 5, "takes a CheckpointPolicy"),
    ("put_away_after", "x", "takes a number of seconds, or a timedelta"),
    ("put_away_after", -1, "takes 0 seconds or more"),
    ("live_max", "x", "takes a whole number, 0 or more"),
    ("live_max", -1, "takes a whole number, 0 or more"),
    ("lease", "x", "takes a number of seconds, or a timedelta"),
    ("lease", nan, "takes a number of seconds, or a timedelta"),
    ("lease", 0.1, "half a second at least"),
    ("alone", 5, "takes True or False"),
    ("observers", 5, "takes a list of them"),
    ("observers", Observer(), "takes a list of them"),
    ("observers", [5], "class derives from dalsegno.Observer"),
    ("observers", [Observer], "class derives from dalsegno.Observer"),
]
THREADED: list[tuple[str, object, str]] = [
    *WORKING,
    ("durable", -1, "takes a whole number, 0 or more"),
    ("durable", "2", "takes a whole number, 0 or more"),
    ("step_threads", 2.5, "takes a whole number, 0 or more"),
    ("step_threads", True, "takes a whole number, 0 or more"),
    ("queues", 5, "takes limits"),
    ("queues", ["mail"], "takes limits"),
    ("serve", "mail", "takes names of queues"),
    ("serve", [""], "names no queue"),
    ("executor", 5, "takes a concurrent.futures.Executor"),
    ("grace", "x", "takes a number of seconds, or a timedelta"),
    ("grace", -1, "takes 0 seconds or more"),
    ("watchdog", "x", "takes a number of seconds, or a timedelta"),
    ("watchdog", 0, "takes 0.001 seconds or more"),
]
RETAINING: list[tuple[str, object, str]] = [
    ("workflow", [nap], r"(Engine|Worker|Simulation) has no option 'workflow'; it takes .*workflows"),
    ("retention", 5, "takes a Retention"),
    ("retention", 0, "takes a Retention"),
]
MAKERS: list[tuple[Callable[..., object], list[tuple[str, object, str]]]] = [
    (lambda **options: Client("memory:", **options), EVERYWHERE),
    (lambda **options: Worker("memory:", **options), [*THREADED, *RETAINING]),
    (lambda **options: Engine("memory:", **options), [*THREADED, *RETAINING]),
    (
        lambda **options: Simulation(options.pop("workflows", ()), **options),
        [
            *(each for each in WORKING if each[0] not in ("clock", "entropy")),
            *(each for each in THREADED if each[0] in ("queues", "serve")),
            *RETAINING,
            ("entropy", 5, "entropy=5"),
            ("clock", 5, "takes a VirtualClock"),
            ("seed", "x", "takes a whole number"),
            ("store", "memory:", "takes an opened store"),
            ("cold", 5, "takes True or False"),
            ("fakes", 5, "takes steps and functions"),
            ("fakes", {work: 5}, "has to be a function"),
            ("faults", 5, "takes a FaultPlan"),
            ("guard", "loud", "one of 'raise', 'warn', 'collect'"),
            ("unheard_of", 5, "Simulation has no option .unheard_of.; it takes alone, checkpoint"),
        ],
    ),
]
TABLE = [(make, *row) for make, rows in MAKERS for row in rows]


@pytest.mark.parametrize(
    ("make", "option", "given", "says"), TABLE, ids=[f"{at}-{row[1]}" for at, row in enumerate(TABLE)]
)
def test_an_argument_of_the_wrong_kind_is_named(make: Callable[..., object], option: str, given: object, says: str):
    """Engines, workers, clients and simulations say which argument it is and what it takes, and open nothing."""
    with pytest.raises((UseError, TypeError), match=says):
        make(**{option: given})


@pytest.mark.parametrize("make", [Client, Worker, Engine])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "takes a URL like"),
        (None, "takes a URL like"),
        (Path("orders"), "write 'lmdb:orders'"),
        ("orders", "write 'lmdb:orders'"),
        ("tape:orders", "no store is registered for 'tape'"),
        (b"memory:", "takes a URL like"),
    ],
)
def test_a_store_is_a_url_or_an_opened_store(make: Callable[[Any], object], given: Any, says: str):
    """A path is told how to write it, and what is neither is refused."""
    with pytest.raises(UseError, match=says):
        make(given)
    assert "memory" in OWN_STORES


def test_what_is_refused_opens_no_store(tmp_path: Path):
    """An engine that cannot be made leaves no folder behind."""
    for made in (
        lambda: Engine(f"lmdb:{tmp_path}/a", retention=cast(Any, 5)),
        lambda: Worker(f"lmdb:{tmp_path}/b", durable=-1),
        lambda: Worker(f"lmdb:{tmp_path}/c", queues=cast(Any, "mail")),
    ):
        with pytest.raises(UseError):
            made()
    assert list(tmp_path.iterdir()) == []


def a_step(**options: Any) -> object:
    return step(**options)


def a_workflow(**options: Any) -> object:
    return workflow(**options)


def test_the_table_knows_every_argument():
    """An argument that is new to an engine, a worker, a client or a simulation gets a row of its own."""
    for (_, rows), takes in zip(MAKERS, (Client, Worker, Engine, Simulation), strict=True):
        known = set(inspect.signature(takes).parameters) - {"options"}
        if takes is not Client:
            known |= set(get_type_hints(CommonOptions if takes is Simulation else WorkerOptions))
        assert known - {row[0] for row in rows} <= {"store"}, takes  # which the next test is about


DURATION = "a number of seconds or a timedelta"

OPTIONS: list[tuple[Callable[..., object], dict[str, Any], str]] = [
    (a_step, {"retry": 5}, "takes a Retry"),
    (a_step, {"retry": Retry}, "takes a Retry"),
    (a_step, {"timeout": "x"}, DURATION),
    (a_step, {"timeout": 0}, "more than zero"),
    (a_step, {"timeout": 1e300}, "at most"),
    (a_step, {"once": 5}, "takes True or False"),
    (a_step, {"idempotent": 5}, "takes True or False"),
    (a_step, {"long": 5}, "takes True or False"),
    (a_step, {"once": True, "idempotent": True}, "exclude each other"),
    (a_step, {"queue": 5}, "names no queue"),
    (a_step, {"queue": HALF}, "cannot be a queue's name"),
    (work.options, {"timeout": "x"}, DURATION),
    (a_workflow, {"timeout": "x"}, DURATION),
    (a_workflow, {"arguments": 5}, "one of 'strict'"),
    (a_workflow, {"arguments": ["strict"]}, "one of 'strict'"),
    (a_workflow, {"id": 5}, "a workflow id is text"),
    (a_workflow, {"id": HALF}, "surrogate"),
    (a_workflow, {"on_parent_close": 5}, "one of 'cancel'"),
    (nap.options, {"id": "x" * 1001}, "1001 characters"),
    (Retry, {"max_attempts": 2.5}, "takes a whole number"),
    (Retry, {"initial": "x"}, DURATION),
    (Retry, {"maximum": nan}, DURATION),
    (Retry, {"backoff": "x"}, "takes a number"),
    (Retry, {"jitter": 2}, "between 0 and 1"),
    (Retry, {"retry_on": 5}, "no type of exception"),
    (Retry, {"never_on": ["ValueError"]}, "no type of exception"),
    (CheckpointPolicy, {"every_steps": "x"}, "takes a whole number"),
    (CheckpointPolicy, {"every": 0}, "more than zero"),
    (CheckpointPolicy, {"long_step": "x"}, DURATION),
    (CheckpointPolicy, {"measured": 5}, "takes True or False"),
    (Completion, {"min_successful": 1.5}, "takes a whole number"),
    (Completion, {"tolerated_failures": -1}, "cannot be less than zero"),
    (Completion, {"tolerated_percentage": "x"}, "takes a number"),
    (Retention, {"completed": "x"}, DURATION),
    (Retention, {"failed": -1}, "cannot be less than zero"),
    (Retention, {"archive": 5}, "takes a folder"),
    (Codec, {"max_bytes": "x"}, "takes a whole number of bytes"),
    (Codec, {"layers": 5}, "takes a list of layers"),
    (Codec, {"renamed": 5}, "takes old names and classes"),
    (a_step, {"queue": "mail", "key": HALF}, "cannot be"),
    (a_step, {"key": "eu"}, "queue"),
    (a_step, {"queue": "mail", "key": 5}, "text"),
    (a_step, {"queue": "mail", "priority": "x"}, "takes a whole number"),
    (a_step, {"queue": "mail", "delay": "x"}, DURATION),
    (a_step, {"queue": "mail", "start_timeout": "x"}, DURATION),
    (a_step, {"total_timeout": "x"}, DURATION),
    (a_step, {"transactional": 5}, "takes True or False"),
    (a_workflow, {"queue": 5}, "names no queue"),
    (a_workflow, {"queue": "mail", "key": 5}, "text"),
    (a_workflow, {"queue": "mail", "priority": "x"}, "takes a whole number"),
    (a_workflow, {"queue": "mail", "delay": "x"}, DURATION),
    (a_workflow, {"queue": "mail", "dedup": 5}, "text"),
    (Queue, {"name": 5}, "text"),
    (Queue, {"name": "mail", "concurrency": "x"}, "takes a whole number"),
    (Queue, {"name": "mail", "per_key": 0}, "takes a whole number"),
    (Queue, {"name": "mail", "rate": 5}, "takes a Rate"),
    (Rate, {"count": "x"}, "takes a whole number"),
    (Rate, {"count": 1, "per": "x"}, "takes seconds or a timedelta"),
    (Retention, {"continued": "x"}, DURATION),
    (Retention, {"archive": "x", "archive_for": "x"}, DURATION),
]


def test_the_options_are_all_there():
    """An option that is new to a step, a workflow or a policy gets a row of its own."""
    told: dict[object, set[str]] = {}
    for make, given, _ in OPTIONS:
        told.setdefault({a_step: StepOptions, a_workflow: WorkflowOptions}.get(make, make), set()).update(given)
    for kind in (StepOptions, WorkflowOptions, Retry, CheckpointPolicy, Completion, Retention, Codec, Queue, Rate):
        assert {each.name for each in attrs.fields(kind) if each.init} - told[kind] == set(), kind


@pytest.mark.parametrize(("make", "given", "says"), OPTIONS)
def test_an_option_of_the_wrong_kind_says_what_it_takes(make: Callable[..., object], given: dict[str, Any], says: str):
    """Steps, workflows and policies refuse it where it is written."""
    with pytest.raises(UseError, match=says):
        make(**given)


@pytest.mark.parametrize("name", [5, HALF, ""])
def test_a_definition_has_a_name_that_can_be_stored(name: Any):
    """Neither a number nor half a character names a step or a workflow."""
    with pytest.raises(UseError, match="name"):
        step(name=name)(work.fn)
    with pytest.raises(UseError, match="name"):
        workflow(name=name)(nap.fn)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Sleep(cast(Any, "x")), DURATION),
        (lambda: Sleep(inf), "3,000 years"),
        (lambda: SleepUntil(cast(Any, 5)), "an aware datetime"),
        (lambda: Receive(cast(Any, 5)), "the signal's name"),
        (lambda: Receive(HALF), "cannot be a signal's name"),
        (lambda: Receive("x", timeout=nan), DURATION),
        (lambda: Receive("x", timeout=1e300), "at most"),
        (lambda: Receive("x", timeout=cast(Any, "x")), DURATION),
        (lambda: Patched(cast(Any, [1])), "the name of a change is text"),
        (lambda: Patched(HALF), "cannot be the name of a change"),
        (lambda: Publish(HALF, 1), "cannot be a key"),
        (lambda: Publish(cast(Any, 5), 1), "a key is text"),
        (lambda: Send("run-1", HALF), "cannot be a signal's name"),
        (lambda: Send("run-1", ""), "the signal's name"),
        (lambda: Send(HALF, "x"), "cannot be a workflow id"),
        (lambda: Send(cast(Any, nap), "x"), "a workflow id is text"),
        (lambda: SideEffect(cast(Any, 5)), "takes a function"),
        (lambda: Map(cast(Any, 5), []), "a function that makes a branch"),
        (lambda: Map(work, cast(Any, 5)), "the second argument is the items"),
        (lambda: Map(work, [], concurrency=0), "at least 1"),
        (lambda: Map(work, [], concurrency=cast(Any, "x")), "takes a whole number"),
        (lambda: Map(work, [], completion=cast(Any, 5)), "takes a Completion"),
        (lambda: All(cast(Any, 5)), "branches, or one list of branches"),
        (lambda: First(), "for ever"),
        (lambda: Cancel(cast(Any, 5)), "takes the Task"),
    ],
)
def test_a_wrong_command_cannot_exist(make: Callable[[], object], says: str):
    """What could not be recorded, or would never end, is refused where it is written."""
    with pytest.raises(UseError, match=says):
        make()


def test_a_command_that_is_right_is_made():
    """The same checks let through what is meant."""
    ContinueAsNew(1, retry=True)
    assert Receive("x", timeout=inf).timeout is None
    assert Receive("x", timeout=timedelta(minutes=1)).timeout == 60
    assert Map(work, iter([1, 2]), concurrency=1).items == (1, 2)


SAID: list[tuple[Callable[[Client], object], str]] = [
    (lambda client: client.start(cast(Any, 5)), "takes a @workflow"),
    (lambda client: client.start(HALF), "cannot be a workflow's name"),
    (lambda client: client.start(nap, id=cast(Any, 5)), "a workflow id is text"),
    (lambda client: client.start(nap, id=HALF), "cannot be a workflow id"),
    (lambda client: client.start(nap, tags=cast(Any, 5)), "takes names and values"),
    (lambda client: client.start(nap, tags={"a": HALF}), "cannot be a tag's value"),
    (lambda client: client.start(nap, on_conflict=cast(Any, 5)), "one of 'attach'"),
    (lambda client: client.start_many(nap, cast(Any, 5)), "takes pairs"),
    (lambda client: client.start_many(nap, cast(Any, [5])), "takes pairs"),
    (lambda client: client.get(cast(Any, 5)), "takes a workflow id"),
    (lambda client: client.get(HALF), "cannot be a workflow id"),
    (lambda client: client.runs(status=cast(Any, 5)), "takes Status"),
    (lambda client: client.runs(status=cast(Any, "failed")), "takes Status"),
    (lambda client: client.runs(workflow=cast(Any, 5)), "takes a @workflow"),
    (lambda client: client.runs(limit=cast(Any, "x")), "takes a whole number"),
    (lambda client: client.complete(cast(Any, 5)), "token"),
    (lambda client: client.complete(HALF), "token"),
    (lambda client: client.fail(cast(Any, 5), "x"), "token"),
    (lambda client: client.get("here").signal(cast(Any, 5)), "a signal's name is text"),
    (lambda client: client.get("here").signal(HALF), "cannot be a signal's name"),
    (lambda client: client.get("here").signal(""), "a signal has a name"),
    (lambda client: client.get("here").signal("x", dedup=cast(Any, 5)), "a dedup key is text"),
    (lambda client: client.get("here").cancel(cast(Any, 5)), "a reason is text"),
    (lambda client: client.get("here").terminate(HALF), "cannot be a reason"),
    (lambda client: client.get("here").pause(cast(Any, 5)), "a reason is text"),
    (lambda client: client.get("here").fork(cast(Any, "x")), "between 1 and"),
    (lambda client: client.get("here").fork(1, id=cast(Any, 5)), "a workflow id is text"),
    (lambda client: client.get("here").fork(1, id=HALF), "surrogate"),
    (lambda client: client.get("here").result(cast(Any, "x")), DURATION),
]


@pytest.mark.parametrize(("say", "says"), SAID, ids=[f"said-{at}" for at in range(len(SAID))])
def test_what_cannot_be_said_is_told_to_who_says_it(say: Callable[[Client], object], says: str):
    """Whatever is asked of a client or a run is looked at before anything is recorded."""
    with Client("memory:") as client:
        client.start(nap, id="here")
        with pytest.raises(UseError, match=says):
            say(client)
        assert [run.id for run in client.runs()] == ["here"]
        inbox = client.backend.inbox(client.get("here").record.number, 0)
        assert [message.kind for message in inbox] == ["wake"]  # what its creation left there


def test_a_time_without_end_is_a_hundred_years():
    """No thread can be told to wait for ever, and nobody sees the difference."""
    assert duration("grace", inf) == duration("grace", 1e300) == ENDLESS_S
    with Engine("memory:", workflows=[nap], put_away_after=inf, lease=inf, grace=inf, watchdog=inf) as engine:
        engine.start(nap, 0).result(timeout=10)
