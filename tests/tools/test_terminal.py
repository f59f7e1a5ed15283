"""Names, payloads, errors and sources that hold control characters never reach a terminal raw, whatever prints them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dalsegno import Client, Engine
from dalsegno.core.store import Status, open_store
from dalsegno.tools import operate, replay
from dalsegno.tools.app import load_app
from tests.tools.test_help import commands

NASTY = "x\x1b[2J\x9b31m\u202e\r\b\x7f[bold]y[/bold]\\"
FILE = NASTY.replace("/", "")
QUEUE = "".join(character for character in NASTY if character >= " ")  # as far as a name of a queue may be
UNSAFE = set("\x1b\x9b\u202e\r\b\x7f")

SOURCE = f"""
from dalsegno import All, Flow, NewCallback, Publish, Receive, Retry, step, workflow

NASTY = {NASTY!r}

@step(name=NASTY + "fine")
def fine(text):
    return {{NASTY: text}}

@step(name=NASTY + "flaky", retry=Retry(max_attempts=9, initial=3600, retry_on=(ValueError,)))
def flaky(text):
    raise ValueError(NASTY + text)

@workflow(name=NASTY + "child")
def child(text):
    raise RuntimeError(text)
    yield

@workflow(name=NASTY)
def nasty(text):
    got = yield from fine(text)
    callback = yield NewCallback(str)
    yield from Publish(NASTY, {{NASTY: callback.token}})
    try:
        yield from child.options(id=NASTY + "child")(NASTY)
    except RuntimeError:
        pass
    total = [got] * 3
    yield from All(Receive(NASTY, str), flaky(text), callback)  # {NASTY.replace(chr(13), "")}
"""
LINTED = f"""
import time
from dalsegno import workflow

@workflow
def nasty(text):
    yield time.time()  # {NASTY.replace(chr(13), "")}
"""


@pytest.fixture(scope="session")
def made_nasty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with an app, and a store with a run of it that waits, retries, has failed in a child and has an unread
    message, all with nasty names; and the token of its callback."""
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "nasty_app.py").write_text(SOURCE, encoding="utf-8")
    app = load_app(str(folder / "nasty_app.py"))
    url = f"lmdb:{folder}/store"
    with Engine(url, workflows=app.definitions) as engine:
        run = engine.start(app.workflow(NASTY), NASTY, id=NASTY, tags={NASTY: NASTY})
        while not any(type(event).__name__ == "StepAttemptFailed" for event in run.history()):
            pass
        token = run.state[NASTY][NASTY]
    with Client(url) as client:
        client.get(NASTY).signal(NASTY + "2", {NASTY: NASTY})
    with open_store(url) as store:
        assert {record.status for record in store.runs()} == {Status.RUNNING, Status.FAILED}
    return folder, token


@pytest.fixture
def here(made_nasty: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DALSEGNO_STORE", raising=False)
    shutil.copytree(made_nasty[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "answers.json").write_text(json.dumps({NASTY: {"result": NASTY}}))
    (tmp_path / f"{FILE}.py").write_text(LINTED, encoding="utf-8")
    return tmp_path


def safe(result: Result, code: int) -> None:
    """Assert that nothing printed acts on a terminal, and that it was the command that printed it."""
    assert result.exit_code == code, result.output
    assert not UNSAFE & set(result.stdout + result.stderr), result.output


APP = ["--app", "nasty_app.py"]
RUN = [NASTY, "--store", "lmdb:store"]
STORE = ["--store", "lmdb:store"]
READING: list[tuple[int, list[str]]] = [
    (0, ["ls", *STORE]),
    (0, ["show", *RUN]),
    (0, ["show", *RUN, "--payloads", "--children", "2", *APP]),
    (1, ["show", NASTY + "?", *STORE]),
    (1, ["diff", *RUN, NASTY + "child"]),
    (0, ["verify", *RUN, *APP]),
    (2, ["verify", *RUN, "--app", "tests.tools.shop"]),
    (0, ["why", *RUN]),
    (0, ["why", *RUN, *APP]),
    (0, ["why", NASTY + "child", *STORE]),
    (0, ["stats", *STORE]),
    (0, ["check", *STORE]),
    (0, ["top", *STORE]),
    (3, ["top", "--store", f"lmdb:{NASTY}"]),
    (0, ["where", *STORE, *APP]),
    (0, ["coverage", *STORE, *APP]),
    (0, ["step", *RUN, *APP, "--at", "3"]),
    (0, ["step", *RUN, *APP, "--find", "flaky"]),
    (2, ["step", *RUN, *APP, "--find", NASTY + "?"]),
    (0, ["debug", *RUN, *APP, "--at", "1"]),
    (0, ["fork", *RUN, "--at", "1", "--id", NASTY + "fork"]),
    (2, ["fork", *RUN, *APP, "--at", "1", "--dry-run"]),
    (0, ["fork", *RUN, *APP, "--at", "1", "--dry-run", "--raise", f"ValueError:{NASTY}", "--answers", "answers.json"]),
    (0, ["prune", *STORE, "--completed", "0s", "--failed", "0s", "--dry-run"]),
    (1, ["lint", f"{FILE}.py"]),
    (0, ["export", *RUN, "-"]),
    (2, ["import", f"{FILE}.jsonl", *STORE]),
]
FED = {"step": "n\ng end\nt\ng 3\np got\np text\nq\n", "debug": "w\nn\np got\np text\na\nq\n"}


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(("code", "command"), READING, ids=[f"{at}-{one[1][0]}" for at, one in enumerate(READING)])
def test_reading(command: list[str], code: int, as_json: list[str], here: Path):
    """Whatever `replay` shows of a store, on either stream, acts on no terminal, with --json or without."""
    if command[0] == "export" and as_json:
        return  # it is JSON in any case
    result = CliRunner(env={"COLUMNS": "160"}).invoke(
        replay.main, [*command, *as_json], input=FED.get(command[0]), catch_exceptions=False
    )
    safe(result, 4 if command[0] == "import" else code)
    if command[0] in ("show", "diff", "step", "why", "top") and code in (0, 1):
        assert "[bold]" in result.output  # it was not taken for markup


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    ("code", "command"),
    [
        (0, ["start", NASTY, '"x"', "--id", NASTY + "new", "--tag", f"{NASTY}={NASTY}", *STORE]),
        (0, ["start", NASTY, '"x"', "--queue", QUEUE, "--key", NASTY, "--dedup", NASTY, *STORE]),
        (2, ["start", NASTY, '"x"', "--queue", NASTY, *STORE]),
        (1, ["start", NASTY + "?", *APP, *STORE]),
        (0, ["queues", "--set", f"{QUEUE}=concurrency:1", *STORE]),
        (1, ["queues", NASTY, "--set", f"{QUEUE}=none", *STORE]),
        (2, ["queues", "--set", NASTY, *STORE]),
        (2, ["queues", "--set", f"{NASTY}=none", *STORE]),
        (0, ["signal", NASTY, NASTY, *STORE]),
        (1, ["signal", NASTY + "?", "x", *STORE]),
        (0, ["cancel", NASTY, "--reason", NASTY, *STORE]),
        (0, ["terminate", NASTY, "--reason", NASTY, *STORE]),
        (0, ["pause", NASTY, "--reason", NASTY, *STORE]),
        (0, ["resume", NASTY, *STORE]),
        (0, ["complete", "TOKEN", '"x"', *STORE]),
        (0, ["fail", "TOKEN", NASTY, *STORE]),
        (2, ["fail", NASTY, NASTY, *STORE]),
        (0, ["compact", FILE, *STORE]),
        (3, ["worker", *APP, "--store", "sqlite:."]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_operating(command: list[str], code: int, as_json: list[str], here: Path, made_nasty: tuple[Path, str]):
    """What a command that acts says of a run is safe, too."""
    words = [made_nasty[1] if word == "TOKEN" else word for word in command]
    safe(CliRunner().invoke(operate.main, [*words, *as_json], catch_exceptions=False), code)


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
def test_the_demo(as_json: list[str], here: Path):
    """A tree whose names are nasty is audited, and its name is told safely."""
    tree = here / FILE
    tree.mkdir()
    (tree / "a.py").write_text("x = 1\n")
    command = ["demo", str(tree), "--kills", "0", "--store", str(here / "demo"), *as_json]
    safe(CliRunner().invoke(operate.main, command, catch_exceptions=False), 0)


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("command", ["why", "show", "ls", "top", "stats", "check"])
def test_queues_are_told_of_safely(command: str, as_json: list[str], here: Path):
    """A run in a queue whose name, key and all that is nasty."""
    place = ["--id", "queued", "--queue", QUEUE, "--key", NASTY, *STORE]
    safe(CliRunner().invoke(operate.main, ["start", NASTY, '"x"', *place], catch_exceptions=False), 0)
    run = ["queued"] if command in ("why", "show") else []
    result = CliRunner().invoke(replay.main, [command, *run, *STORE, *as_json], catch_exceptions=False)
    assert not UNSAFE & set(result.stdout + result.stderr), result.output
    assert command in ("check", "ls") or "[bold]" in result.output


def test_a_worker_says_safely_what_it_works_with(here: Path, monkeypatch: pytest.MonkeyPatch):
    """The names that a worker lists when it begins."""
    stops: list[Callable[[], None]] = []
    monkeypatch.setattr(operate, "left_to_do", lambda _: stops.append(lambda: None))
    result = CliRunner().invoke(operate.main, ["worker", *APP, *STORE, "--until-done"], catch_exceptions=False)
    safe(result, 0)
    assert "[bold]" in result.stderr


def test_no_command_is_left_out():
    """Every command is tried above."""
    tried = {("replay", command[0]) for _, command in READING} | {("dalsegno", "demo")}
    marks = [mark for mark in test_operating.pytestmark if mark.args[0] == ("code", "command")]
    tried |= {("dalsegno", command[0]) for _, command in marks[0].args[1]}
    assert tried == {(program, name) for program, name, _ in commands()}
