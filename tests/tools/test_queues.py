"""`dalsegno queues`, and the options of `worker`, `start` and `ls` that are about queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dalsegno import BadOption, Client, Engine, Queue, Rate, Status
from dalsegno.core.queues import QueueState
from dalsegno.core.store import open_store
from dalsegno.tools import operate, queues
from dalsegno.tools.app import load_app
from tests.postgresql_server import Server
from tests.tools import mailer
from tests.tools.conftest import Cli

APP = ("--app", "tests.tools.mailer")


@pytest.fixture
def mail(tmp_path: Path) -> str:
    """A store with two runs of which one waits for a queue of runs, and the other, which nobody works on, has begun."""
    url = f"lmdb:{tmp_path}/mail"
    with Client(url) as client:
        client.start(mailer.report, 1, id="report-1")
        client.start(mailer.letters, ["ann", "bob", "alf"], id="letters-1")
    return url


def states(url: str) -> dict[tuple[str, str], QueueState]:
    """The queues of a store, by name and kind."""
    with open_store(url) as store:
        return {(state.name, state.kind): state for state in store.queues()}


def test_what_is_shown(run_dalsegno: Cli, mail: str):
    """What waits, where, and since when; the idle twin of a queue is left out for people and there for programs."""
    shown = run_dalsegno("queues", "--set", "reports=concurrency:1,rate:10/1m", "--store", mail)
    assert [line.split() for line in shown.stdout.splitlines()[2:]] == [
        ["reports", "runs", "1", *shown.stdout.splitlines()[2].split()[3:5], "concurrency:1,rate:10/60s"]
    ]
    assert shown.stderr == "warning: no worker that shares this store is alive\n"
    data = json.loads(run_dalsegno("queues", "--store", mail, "--json").stdout)["queues"]
    assert [(one["name"], one["kind"], one["waiting"]) for one in data] == [
        ("reports", "run", 1),
        ("reports", "step", 0),
    ]
    assert data[0]["limits"] == {"concurrency": 1, "per_key": None, "rate": {"count": 10, "per_s": 60.0}}


def test_limits_are_changed_one_by_one(run_dalsegno: Cli, mail: str):
    """A limit that is not named stays; `none` lifts one, or all."""
    for said, comes in (
        ("mail=concurrency:2,per-key:1", Queue("mail", concurrency=2, per_key=1)),
        ("mail=rate:5/1s", Queue("mail", concurrency=2, per_key=1, rate=Rate(count=5))),
        ("mail=concurrency:none", Queue("mail", per_key=1, rate=Rate(count=5))),
        ("mail=none", Queue("mail")),
    ):
        run_dalsegno("queues", "--set", said, "--store", mail)
        assert states(mail)["mail", "step"].limits == comes


def test_names(run_dalsegno: Cli, mail: str):
    """Some queues can be asked for; one that is not there is said to be so, with those that are."""
    run_dalsegno("queues", "--set", "mail=concurrency:2", "--store", mail)
    data = json.loads(run_dalsegno("queues", "mail", "--store", mail, "--json").stdout)["queues"]
    assert {one["name"] for one in data} == {"mail"}
    assert "no queue 'mial'; there is mail, reports" in run_dalsegno("queues", "mial", "--store", mail, code=1).stderr


def test_nothing_to_show(run_dalsegno: Cli, url: str, tmp_path: Path):
    """A store without queues says so, and one that is not there is not made."""
    assert "no queues in this store" in run_dalsegno("queues", "--store", url).stderr
    run_dalsegno("queues", "--set", "mail=none", "--store", f"lmdb:{tmp_path}/nowhere", code=3)
    assert not (tmp_path / "nowhere").exists()


def test_an_exported_file_holds_none(run_dalsegno: Cli, run_replay: Cli, mail: str, tmp_path: Path):
    """What is only a file of histories has none to show, and none to change."""
    run_replay("export", "--all", str(tmp_path / "all.jsonl"), "--store", mail)
    file = ("--store", f"file:{tmp_path}/all.jsonl")
    assert "no queues" in run_dalsegno("queues", *file).stderr
    assert "only read" in run_dalsegno("queues", "--set", "mail=none", *file, code=2).stderr


def test_ages_are_left_out_where_they_cost_much(monkeypatch: pytest.MonkeyPatch, mail: str):
    """Where very much waits, nobody reads it all only to tell the oldest."""
    with open_store(mail) as store:
        assert [state.oldest_us is None for state in queues.queue_states(store)] == [False]
        monkeypatch.setattr(queues, "AGES_UP_TO", 0)
        assert [state.oldest_us for state in queues.queue_states(store)] == [None]


def test_start_says_where_to_wait(run_dalsegno: Cli, tmp_path: Path):
    """The options of `start` are those of the workflow, with and without its code; a dedup id answers the same run."""
    url = f"lmdb:{tmp_path}/store"
    place = ("--queue", "q", "--key", "k", "--priority", "-3", "--delay", "1h", "--dedup", "one", "--store", url)
    data = json.loads(run_dalsegno("start", "anything", "[1]", "--id", "a", *place, "--json").stdout)
    assert (data["queue"], data["queued"]) == ("q", True)
    assert run_dalsegno("start", "anything", "[1]", "--id", "b", *place).stdout == "a#1 running\n"
    other = run_dalsegno("start", "letters", '["ann"]', "--id", "c", *APP, *place, code=1)
    assert "dedup='one' of queue 'q' is taken by a run with another workflow" in other.stderr
    assert states(url)["q", "run"].next_us is not None
    assert "is about a queue" in run_dalsegno("start", "letters", "[]", *APP, "--key", "k", code=2).stderr
    with Client(url) as client:
        assert client.start("anything", [1], id="a").status is Status.RUNNING


def test_the_queue_of_the_app_is_kept(run_dalsegno: Cli, tmp_path: Path):
    """A workflow that has a queue keeps it where only another option is given."""
    url = f"lmdb:{tmp_path}/store"
    run_dalsegno("start", "report", "1", "--priority", "9", *APP, "--store", url)
    assert states(url)["reports", "run"].waiting == 1


def test_runs_of_a_queue_are_listed(run_replay: Cli, mail: str):
    """`ls --queue` finds runs that wait there and those that have a step out there; a queued run is said to be."""
    listed = run_replay("ls", "--queue", "reports", "--store", mail).stdout
    assert "report-1" in listed
    assert "running, queued" in listed
    assert "letters-1" not in listed
    with Engine(mail, workflows=[mailer.letters], steps=[mailer.plain], serve=["other"]) as engine:
        letters = engine.get("letters-1").record.number
        while not engine.backend.tasks_of(letters):
            pass
        found = json.loads(run_replay("ls", "--queue", "mail", "--store", mail, "--json").stdout)
    assert [run["id"] for run in found["runs"]] == ["letters-1"]


def test_a_worker_for_workflows_and_one_for_steps(run_dalsegno: Cli, mail: str, monkeypatch: pytest.MonkeyPatch):
    """A worker declares what its app and --limit say; what moves workflows leaves steps to who runs them."""
    told: dict[str, Any] = {}

    class Recorded(Engine):
        def __init__(self, store: str, **options: Any) -> None:
            told.update(options)
            super().__init__(store, **options)

    monkeypatch.setattr(operate, "Engine", Recorded)
    with Engine(mail, workflows=[mailer.letters, mailer.report], steps=mailer.STEPS):
        begun = run_dalsegno(
            "worker", *APP, "--durable", "0", "--queue", "mail", "--limit", "mail=per-key:2", "--store", mail,
            "--until-done", "--json",
        )  # fmt: skip
    assert json.loads(begun.stdout)["queues"] == ["mail"]
    assert (told["durable"], told["step_threads"], told["serve"]) == (0, 16, ("mail",))
    assert told["queues"] == [Queue("mail", concurrency=2, per_key=2)]
    assert states(mail)["mail", "step"].limits == Queue("mail", concurrency=2, per_key=2)
    with Client(mail) as client:
        assert client.get("letters-1").result(timeout=10) == ["to ann", "to bob", "to alf"]


def test_what_a_worker_says(run_dalsegno: Cli, tmp_path: Path):
    """It says what it is there for; one without any threads is refused."""
    url = f"lmdb:{tmp_path}/store"
    Client(url).close()
    call = ("worker", *APP, "--store", url, "--until-done")
    assert "with letters, report; no steps here; Ctrl-C" in run_dalsegno(*call, "--steps", "0").stderr
    said = run_dalsegno(*call, "--durable", "0", "--queue", "mail", "--queue", "default").stderr
    assert "with plain, send; no workflows here; from queues mail, default; Ctrl-C" in said
    run_dalsegno(*call, "--durable", "0", "--steps", "0", code=2)


def test_queues_of_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The Queue objects at the top level of an app are found; two of one name with different limits are refused."""
    assert load_app("tests.tools.mailer").queues == (Queue("mail", concurrency=2),)
    assert load_app("tests.tools.mailer:STEPS").queues == (Queue("mail", concurrency=2),)
    monkeypatch.chdir(tmp_path)
    source = (
        "from dalsegno import Queue, step\n@step\ndef s(): pass\na = Queue('q')\nsame = a\nb = Queue('q', per_key=1)\n"
    )
    (tmp_path / "twice_declared.py").write_text(source)
    with pytest.raises(BadOption, match=r"b is a second Queue\('q'\)"):
        load_app("twice_declared")


def test_on_postgresql(run_dalsegno: Cli, run_replay: Cli, postgresql: Server):
    """The same on a server: places at a start, limits that are changed, what holds a run, and workers apart."""
    url = postgresql.schema()
    run_dalsegno("start", "report", "1", "--id", "report-1", "--key", "b", *APP, "--store", url)
    run_dalsegno("start", "letters", '["ann", "bob"]', "--id", "letters-1", *APP, "--store", url)
    run_dalsegno("queues", "--set", "reports=concurrency:1", "--store", url)
    assert "It has not begun" in run_replay("why", "report-1", "--store", url).stdout
    with Engine(url, workflows=[mailer.letters, mailer.report], step_threads=0):
        run_dalsegno("worker", *APP, "--durable", "0", "--limit", "mail=per-key:1", "--store", url, "--until-done")
    data = json.loads(run_dalsegno("queues", "--store", url, "--json").stdout)["queues"]
    assert {(one["name"], one["limits"]["concurrency"], one["waiting"]) for one in data if one["kind"] == "step"} == {
        ("mail", 2, 0), ("reports", 1, 0),
    }  # fmt: skip
    with Client(url) as client:
        assert client.get("letters-1").result(timeout=10) == ["to ann", "to bob"]
        assert client.get("report-1").result(timeout=10) == 2
    assert run_replay("check", "--store", url).exit_code == 0
