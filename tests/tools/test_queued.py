"""What `replay why` and `show` say of a run's place in a queue, and of its steps that are out at queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from dalsegno import Client, Engine, Queue, Rate
from dalsegno.core.events import TimerSet
from dalsegno.core.queues import QueueState, Task
from dalsegno.core.store import Lease, open_store
from dalsegno.tools.checking import tasks_out_of_place
from dalsegno.tools.queued import Look
from dalsegno.tools.stores import read_run
from tests.tools import mailer
from tests.tools.conftest import Cli

NOW = 1_800_000_000_000_000
LIVING = {"here:1:aa": Lease(owner="here:1:aa", length_us=10_000_000, number=1, renewed_us=NOW - 1_000_000)}
LATE = {"here:1:aa": Lease(owner="here:1:aa", length_us=10_000_000, number=1, renewed_us=NOW - 60_000_000)}


def look(waiting: int = 1, at_work: int = 0, leases: Any = LIVING, next_us: int | None = None, **limits: Any) -> Look:
    """A look at a store with a queue of steps that stands so."""
    state = QueueState(kind="step", limits=Queue("mail", **limits), waiting=waiting, at_work=at_work, next_us=next_us)
    return Look([task()], {("step", "mail"): state}, leases, NOW)


def task(**given: Any) -> Task:
    """A task in the queue "mail"."""
    about = {"step": "1", "name": "send", "attempt": 1, "payload": b"", "at_us": NOW - 5_000_000}
    return Task(number=1, queue="mail", run=1, workflow_id="letters-1", generation=1, **{**about, **given})


HELD: dict[str, tuple[Look, str]] = {
    "nobody": (look(leases=LATE), "1 waits and none is at work: no worker that shares this store is alive"),
    "elsewhere": (look(2), "2 wait and none is at work: of the 1 worker alive, none serves it, knows the code and has"),
    "full": (look(3, 2, concurrency=2), "3 wait and 2 are at work, which is its limit"),
    "rate": (
        look(1, next_us=NOW + 7_000_000, rate=Rate(count=1)),
        "its rate, or a delay, lets the next one go in 7.00 s",
    ),
    "delay": (look(1, next_us=NOW + 7_000_000), "a delay lets the next one go in 7.00 s"),
    "turn": (look(9, 1), "9 wait and 1 is at work: others go before, or none of the 1 worker alive"),
    "key": (look(9, 1, per_key=1), "others go before, the limit of a key is reached, or none"),
}


@pytest.mark.parametrize("case", HELD)
def test_what_holds_a_queue(case: str):
    """Each reason that the store can tell is told, in words."""
    found, said = HELD[case]
    assert said in found.holds(found.states["step", "mail"])


def test_where_a_task_is():
    """Who has it and whether he lives, its key and priority, and who died at it."""
    here, gone = look(), look(leases=LATE)
    assert here.task(task(key="a", priority=-2)) == "at queue 'mail' (key 'a', priority -2), and no worker has taken it"
    assert here.task(task(owner="here:1:aa")) == "at queue 'mail', at work at here:1:aa, whose lease is valid"
    assert "others put it back in line; 2 of its workers died" in gone.task(task(owner="here:1:aa", deaths=2))
    assert "5.00 s ago, attempt 3)" in here.task(task(attempt=3), dated=True)


@pytest.mark.parametrize(
    ("found", "command"),
    [(look(leases=LATE), "worker"), (look(), "worker"), (look(3, 2, concurrency=2), "--set mail=concurrency:4"),
     (look(9, 1), "queues mail")],
)  # fmt: skip
def test_what_would_help(found: Look, command: str):
    """Each reason has its remedy, with a command."""
    with open_store("memory:") as store:
        with Client(store) as client:
            record = client.start("letters", []).record
        ((_, typed),) = found.remedies(record)
    assert command in " ".join(typed)


@pytest.fixture
def out(tmp_path: Path) -> str:
    """A store with a run whose three steps wait at a queue, one of them for its second attempt, and a queued run."""
    url = f"lmdb:{tmp_path}/mail"
    with Engine(url, workflows=[mailer.letters], steps=mailer.STEPS, serve=["other"]) as engine:
        run = engine.start(mailer.letters, ["ann", "bob", "alf"], id="letters-1")
        while len(engine.backend.tasks_of(run.record.number)) < 3:
            pass
        engine.start(mailer.report, 1, id="report-1")
    return url


def test_why_tells_of_tasks(run_replay: Cli, out: str):
    """With and without the code, each step that is out is named with its queue, and what would help is."""
    for app in ((), ("--app", "tests.tools.mailer")):
        said = " ".join(run_replay("why", "letters-1", *app, "--store", out).stdout.split())
        assert said.count("at queue 'mail' (key '") == 3
        assert said.count("it is given up") == 3
        assert (
            "In queue 'mail', of steps, 3 wait and none is at work: no worker that shares this store is alive." in said
        )
        assert "dalsegno worker --queue mail --app" in said
        assert "does not name what it waits for" not in said
    data = json.loads(run_replay("why", "letters-1", "--store", out, "--json").stdout)
    assert [(one["id"], one["key"], one["taken"]) for one in data["tasks"]] == [
        ("2.1", "a", 0),
        ("2.2", "b", 0),
        ("2.3", "a", 0),
    ]
    assert (data["queue"], data["workers"]) == (None, 0)


def test_why_tells_of_a_queued_run(run_replay: Cli, out: str):
    """A run that has not begun waits for its queue, and for nothing else."""
    said = " ".join(run_replay("why", "report-1", "--app", "tests.tools.mailer", "--store", out).stdout.split())
    assert "It has not begun: it waits in queue 'reports' to be let in." in said
    assert "In queue 'reports', of runs, 1 waits" in said
    assert "No engine has claimed it" not in said
    data = json.loads(run_replay("why", "report-1", "--store", out, "--json").stdout)
    assert (data["queue"]["name"], data["queue"]["waiting"], data["waits"]) == ("reports", 1, [])


def test_show_names_them(run_replay: Cli, out: str):
    """Above its timeline a run's place is named, and the steps that are out."""
    assert "waits in queue reports" in run_replay("show", "report-1", "--store", out).stdout
    shown = run_replay("show", "letters-1", "--store", out).stdout
    assert shown.count("and no worker has taken it") == 3


def test_a_task_whose_worker_is_gone(run_replay: Cli, out: str):
    """A task that was taken is told of with who has it, and that he is not there any more."""
    with open_store(out) as store:
        record = store.find("letters-1")
        assert record is not None
        (taken,) = store.take(["mail"], "here:1:aa", 1, NOW)
        assert (taken.owner, taken.claim) == ("here:1:aa", 1)
    said = " ".join(run_replay("why", "letters-1", "--store", out).stdout.split())
    assert "and here:1:aa took it, whose lease has ended or run out" in said
    assert said.count("and no worker has taken it") == 2


def test_check_holds_tasks_against_histories(run_replay: Cli, out: str):
    """A store whose tasks fit its histories has no problems; a task of an attempt that was, or of a step that has
    ended, is named."""
    assert run_replay("check", "--store", out, "--json").exit_code == 0
    with open_store(out) as store:
        record = store.find("letters-1")
        assert record is not None
        events, tasks = read_run(store, record).events, store.tasks_of(record.number)
    wrong = [attrs.evolve(tasks[0], attempt=3), attrs.evolve(tasks[1], step="1", name="plain"), tasks[2]]
    assert [(problem.key, problem.what) for problem in tasks_out_of_place(record, events, wrong)] == [
        (
            "task 1",
            "step 'send' (2.1) is out at queue 'mail' as attempt 3, and the history has 0 attempts of it that failed",
        ),
        ("task 2", "step 'plain' (1) is out at queue 'mail' as attempt 1, and the history has its end"),
    ]


def test_top_and_stats_show_queues(run_replay: Cli, out: str):
    """What waits stands between the workflows and the runs that wait longest; of a store's figures it is the last."""
    for command in ("top", "stats"):
        shown = run_replay(command, "--store", out).stdout
        assert [
            " ".join(line.split()[:3]) for line in shown.splitlines() if line.split()[1:2] in (["steps"], ["runs"])
        ][-2:] == ["mail steps 3", "reports runs 1"]
        data = json.loads(run_replay(command, "--store", out, "--json").stdout)
        assert [(one["name"], one["waiting"]) for one in data["queues"]] == [("mail", 3), ("reports", 1)]


def test_top_says_what_is_out(run_replay: Cli, out: str):
    """A run that waits longest waits for its steps that are out, or for its turn."""
    waiting = json.loads(run_replay("top", "--store", out, "--json").stdout)["waiting"]
    assert {one["run_id"]: one["for"] for one in waiting} == {
        "letters-1#1": ["3 of step 'send' at queue 'mail'"],
        "report-1#1": ["its turn in queue 'reports'"],
    }


@pytest.fixture
def sent(tmp_path: Path) -> str:
    """A store with a run whose queued steps, each with a total_timeout, have ended."""
    url = f"lmdb:{tmp_path}/sent"
    with Engine(url, workflows=[mailer.letters], steps=mailer.STEPS) as engine:
        engine.start(mailer.letters, ["ann", "bob"], id="letters-1").result(timeout=10)
    return url


def test_queued_steps_are_rehearsed(run_replay: Cli, sent: str):
    """A rehearsal takes the outcomes of queued steps from the history, sets the timers of their total_timeout as the
    engine does, and comes to the same end."""
    app = ("--app", "tests.tools.mailer", "--store", sent)
    told = json.loads(run_replay("fork", "letters-1", "--at", "1", *app, "--dry-run", "--json").stdout)
    assert (told["ended"], told["outcomes"]["history"], told["diff"]["divergences"]) == (True, 3, [])
    assert sum("TimerSet" in str(event) for event in told["history"]) == 2


def test_a_step_is_not_rehearsed_into_its_time_out(run_replay: Cli, sent: str):
    """A queued step whose outcome is not known is asked for: virtual time does not make it one that took too long."""
    app = ("--app", "tests.tools.mailer", "--store", sent)
    with open_store(sent) as store:
        record = store.find("letters-1")
        assert record is not None
        at = 1 + max(index for index, event in enumerate(read_run(store, record).events) if isinstance(event, TimerSet))
    run_replay("fork", "letters-1", "--at", str(at), "--id", "cut-1", *app)
    told = json.loads(run_replay("fork", "cut-1", "--at", str(at), *app, "--dry-run", "--json", code=2).stdout)
    assert not told["ended"]
    assert "no outcome is known for" in told["stopped"]


@pytest.mark.parametrize("event", ["TimerSet", "StepCompleted"])
def test_a_bounded_step_is_forked_with_another_outcome(run_replay: Cli, sent: str, event: str):
    """At the timer of its total_timeout or at its end a step can be given another outcome; the fork ends with it."""
    with open_store(sent) as store:
        record = store.find("letters-1")
        assert record is not None
        events = read_run(store, record).events
    at = next(i for i, one in enumerate(events) if type(one).__name__ == event and getattr(one, "id", "") == "2.1")
    call = (
        "fork",
        "letters-1",
        "--at",
        str(at),
        "--id",
        "other",
        "--set",
        'result="lost"',
        "--app",
        "tests.tools.mailer",
    )
    told = json.loads(run_replay(*call, "--dry-run", "--store", sent, "--json").stdout)
    assert told["ended"]
    run_replay(*call, "--store", sent)
    with Engine(sent, workflows=[mailer.letters], steps=mailer.STEPS) as engine:
        assert engine.get("other").result(timeout=10) == ["lost", "to bob"]
    assert run_replay("check", "--store", sent).exit_code == 0
