"""`dalsegno`, command by command."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dalsegno import BadOption, Client, Codec, Engine, Flow, NewCallback, Publish, Retention, Sleep, Status, workflow
from dalsegno.core.store import open_store
from dalsegno.tools import operate
from dalsegno.tools.app import App
from dalsegno.tools.serving import SafeFormatter
from tests.tools import shop
from tests.tools.conftest import Cli

APP = "tests.tools.shop"


def kinds(url: str, id: str) -> list[str]:
    """What waits in a run's inbox."""
    with open_store(url) as store:
        record = store.find(id)
        assert record is not None
        return [message.kind for message in store.inbox(record.number)]


def test_start_makes_types_of_json(run_dalsegno: Cli, tmp_path: Path):
    """Arguments given as JSON become what the workflow's annotations name, so that a later start in Python attaches."""
    url = f"lmdb:{tmp_path}/store"
    done = run_dalsegno(
        "start", "fulfil", '{"id": 5}', "--kw", "gift=true", "--id", "o-5", "--tag", "a=b", "--app", APP, "--store", url
    )
    assert done.stdout == "o-5#1 running\n"
    with Client(url) as client:
        assert client.start(shop.fulfil, shop.Order(5), True, id="o-5").tags == {"a": "b"}


def test_start_is_idempotent_by_id(run_dalsegno: Cli, url: str):
    """The same start attaches; other arguments are a conflict; `reject` refuses even the same."""
    same = ["start", "fulfil", '{"id": 3}', "--id", "order-3", "--app", APP, "--store", url]
    assert json.loads(run_dalsegno(*same, "--json").stdout)["id"] == "order-3"
    assert "is taken" in run_dalsegno(*same, "--on-conflict", "reject", code=1).stderr
    other = ["start", "fulfil", '{"id": 4}', "--id", "order-3", "--app", APP, "--store", url]
    assert "other arguments" in run_dalsegno(*other, code=1).stderr


def test_start_without_an_app(run_dalsegno: Cli, tmp_path: Path):
    """Without --app the name is taken as it is and the arguments stay JSON; an id is made up."""
    done = run_dalsegno("start", "anything", "[1, 2]", "--store", f"lmdb:{tmp_path}/store", "--json")
    assert json.loads(done.stdout)["id"].startswith("anything-")


def test_signal_reaches_the_inbox_once(run_dalsegno: Cli, url: str):
    """A signal is put into the inbox; a second one with the same key is not."""
    call = ["signal", "order-3", "approval", '{"granted": false}', "--dedup", "mail-1", "--store", url]
    before = kinds(url, "order-3")
    assert run_dalsegno(*call).stdout == "order-3: signal approval is taken\n"
    assert json.loads(run_dalsegno(*call, "--json").stdout)["sent"] == "signal"
    assert kinds(url, "order-3") == [*before, "signal"]


@pytest.mark.parametrize("command", ["cancel", "terminate", "pause", "resume"])
def test_commands_to_a_run(command: str, run_dalsegno: Cli, url: str):
    """Each leaves its message in the inbox, and is refused by a run that has ended or is not there."""
    reason = [] if command == "resume" else ["--reason", "because"]
    assert "is taken" in run_dalsegno(command, "nap-1", *reason, "--store", url).stdout
    assert kinds(url, "nap-1")[-1] == command
    found = json.loads(run_dalsegno(command, "nap-1", "--store", url, "--json").stdout)
    assert (found["sent"], found["run"]["id"]) == (command, "nap-1")
    assert "has ended" in run_dalsegno(command, "order-1", "--store", url, code=1).stderr
    assert "no run" in run_dalsegno(command, "nobody", "--store", url, code=1).stderr


def test_a_worker_takes_what_was_said(run_dalsegno: Cli, url: str):
    """A worker carries out what was said while nobody worked, and stops when nothing is left to do."""
    run_dalsegno("cancel", "nap-1", "--store", url)
    run_dalsegno("terminate", "order-3", "--reason", "tidy", "--store", url)
    begun = run_dalsegno("worker", "--app", APP, "--store", url, "--until-done", "--json")
    assert json.loads(begun.stdout)["workflows"] == ["both", "deliver", "fulfil", "nap", "quick", "stocktaking"]
    with open_store(url) as store:
        stand = {record.workflow_id: record.status for record in store.runs()}
    assert stand["nap-1"] is Status.CANCELLED
    assert stand["order-3"] is Status.TERMINATED


def test_as_a_real_process(url: str):
    """A worker in another process finishes a run on a signal from a second terminal, another one works beside
    it, and it ends with Ctrl-C in order."""
    program, root = str(Path(sys.executable).with_name("dalsegno")), Path(__file__).parents[2]
    command = [program, "worker", "--app", APP, "--store", url, "--json"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "{\n"
        said = subprocess.run(
            [program, "signal", "order-3", "approval", '{"granted": true}', "--store", url],
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (said.returncode, said.stderr) == (0, "")
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as beside:
            assert beside.stdout is not None
            assert beside.stdout.readline() == "{\n"
            beside.send_signal(signal.SIGTERM)
            beside.communicate(timeout=20)
            assert beside.returncode == 0
        with Client(url) as client:
            assert client.get("order-3").result(timeout=20) == "receipt 3: 10"
        worker.send_signal(signal.SIGINT)
        _, words = worker.communicate(timeout=20)
        assert worker.returncode == 0
        assert words.startswith("stopping")


def test_demo_is_called_with_what_was_given(run_dalsegno: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Folder, seed, kills and store reach the demo, and its result decides the exit code."""
    called: dict[str, Any] = {}

    class Done:
        ok = False

    def run_demo(root: Path, store: Path, **options: Any) -> Done:
        called.update(options, root=root, store=store)
        return Done()

    monkeypatch.setattr(operate, "run_demo", run_demo)
    run_dalsegno("demo", str(tmp_path), "--seed", "7", "--kills", "1", "--store", f"lmdb:{tmp_path}/d", code=1)
    assert (called["root"], called["seed"], called["kills"]) == (tmp_path, 7, 1)
    assert called["store"] == tmp_path / "d"
    assert called["interactive"] is False


def test_demo_on_a_small_tree(run_dalsegno: Cli, tmp_path: Path):
    """The real demo, without a kill, on a folder of two files."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a.py", "b.py"):
        (tree / name).write_text("def f():\n    return 1\n")
    done = run_dalsegno("demo", str(tree), "--kills", "0", "--store", str(tmp_path / "store"), "--json")
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert found["files"] == 2


def test_log_lines_are_safe():
    """Ids in the engine's log lines cannot act on the terminal."""
    record = logging.LogRecord("dalsegno.engine", logging.WARNING, "", 0, "run %s is blocked", ("a\x1b[2J#1",), None)
    assert SafeFormatter("%(message)s").format(record) == "run a\\x1b[2J#1 is blocked"


def test_annotations_that_cannot_be_read(capsys: pytest.CaptureFixture[str]):
    """A workflow whose annotations name what is not there at run time takes JSON as it is, and says so."""

    @workflow
    def odd(order: Nowhere, *more: Nowhere) -> Flow[None]:  # type: ignore[name-defined]  # noqa: F821
        yield Sleep(1)

    app = App("odd", {"odd": odd}, {}, Codec())
    assert operate.structured(app, odd, ({"id": 1}, 2), {}) == (({"id": 1}, 2), {})
    assert "stay JSON" in capsys.readouterr().err


def test_a_worker_keeps_closed_runs_unless_it_is_told(run_dalsegno: Cli, url: str, monkeypatch: pytest.MonkeyPatch):
    """A worker deletes nothing by itself; any option of retention turns it on, with the usual times for the rest."""
    seen: list[Retention | None] = []

    def engine(*_: object, retention: Retention | None, **__: object) -> None:
        seen.append(retention)
        raise BadOption("that is enough")

    monkeypatch.setattr(operate, "Engine", engine)
    for options in ([], ["--archive", "there", "--archive-for", "1w"], ["--completed", "1h", "--failed", "never"]):
        run_dalsegno("worker", "--app", APP, "--store", url, *options, code=2)
    assert seen == [None, Retention(archive="there", archive_for=604800), Retention(completed=3600, failed=None)]
    run_dalsegno("worker", "--app", APP, "--store", url, "--archive-for", "1w", code=2)
    assert len(seen) == 3


def token_of(url: str) -> str:
    """The token of a callback that a run in the store waits for."""
    with Engine(url, workflows=[asks]) as engine:
        run = engine.start(asks, id="asks")
        while "token" not in run.state:
            pass
        return str(run.state["token"])


@workflow
def asks() -> Flow[str]:
    """Gives a token away and waits for the answer."""
    callback = yield NewCallback(shop.Approval)
    yield Publish("token", callback.token)
    try:
        approval = yield from callback
    except RuntimeError as error:
        return f"failed: {error}"
    return f"granted by {approval.by}"


@pytest.mark.parametrize(
    ("words", "result"),
    [(["complete", '{"granted": true, "by": "ada"}'], "granted by ada"), (["fail", "no funds"], "failed: no funds")],
)
def test_callbacks_are_answered(words: list[str], result: str, run_dalsegno: Cli, tmp_path: Path):
    """The answer is durable when the command ends, becomes the callback's type, and is taken once."""
    url, (command, answer) = f"lmdb:{tmp_path}/store", words
    token = token_of(url)
    assert run_dalsegno(command, token, answer, "--store", url).stdout == f"asks: {command} is taken\n"
    assert "was completed before" in run_dalsegno("complete", token, "--store", url, code=2).stderr
    with Engine(url, workflows=[asks]) as engine:
        assert engine.get("asks").result(timeout=10) == result
    assert "was completed before" in run_dalsegno("fail", token, "late", "--store", url, code=2).stderr


def test_a_token_that_is_none(run_dalsegno: Cli, url: str, tmp_path: Path):
    """A mistyped token, one of another store, and a store that is not there are refused; --json names the run."""
    token = token_of(f"lmdb:{tmp_path}/other")
    assert "cut off or mistyped" in run_dalsegno("complete", token[:-1], "--store", url, code=2).stderr
    assert "another store" in run_dalsegno("complete", token, "--store", url, code=2).stderr
    run_dalsegno("fail", token, "x", "--store", f"lmdb:{tmp_path}/typo", code=3)
    done = run_dalsegno("fail", token, "x", "--store", f"lmdb:{tmp_path}/other", "--json")
    found = json.loads(done.stdout)
    assert (found["sent"], found["run"]["id"]) == ("fail", "asks")
