"""Every command prints with --json what docs/schemas says. (`conftest` holds what any other test prints against it.)"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from dalsegno import Engine
from dalsegno.tools import operate, replay
from tests.tools.conftest import Cli
from tests.tools.schemas import FOLDER, hold, schemas
from tests.tools.test_help import commands
from tests.tools.test_operate import asks, token_of

APP = ("--app", "tests.tools.shop")

CALLS: list[tuple[str, int]] = [
    ("replay ls", 0),
    ("replay ls --limit 1 --status closed", 0),
    ("replay show order-1 --payloads", 0),
    ("replay show both-1 --children 2", 0),
    ("replay show nap-1 --app tests.tools.shop", 0),
    ("replay show order-3 --app tests.tools.shop", 0),
    ("replay verify --all --app tests.tools.shop", 0),
    ("replay verify --all --app tests.tools.shop_changed", 1),
    ("replay diff order-1 order-2", 1),
    ("replay diff order-1 order-3", 1),
    ("replay diff order-1 order-1", 0),
    ("replay why order-3 --app tests.tools.shop", 0),
    ("replay why nap-1", 0),
    ("replay why stock-1", 0),
    ("replay step order-1 --at 3 --app tests.tools.shop", 0),
    ("replay step order-1 --at 0 --app tests.tools.shop", 0),
    ("replay step order-1 --event RunCompleted --app tests.tools.shop", 0),
    ("replay step nap-1 --at 2 --app tests.tools.shop", 0),
    ("replay step order-3 --app tests.tools.shop_changed", 0),
    ("replay debug order-1 --at 1 --app tests.tools.shop", 0),
    ("replay where --app tests.tools.shop", 0),
    ("replay where --app tests.tools.shop_changed", 0),
    ("replay coverage --app tests.tools.shop", 0),
    ("replay fork order-1 --at 3", 0),
    ("replay fork order-1 --at 3 --raise OSError:down --app tests.tools.shop --dry-run", 0),
    ("replay fork order-3 --at 3 --app tests.tools.shop --dry-run", 2),
    ("replay prune --completed 0s --dry-run", 0),
    ("replay top", 0),
    ("replay top --count 2 --interval 1ms", 0),
    ("replay stats", 0),
    ("replay check", 0),
    ("replay lint --rules", 0),
    ("replay lint tests/tools/shop.py", 0),
    ("replay lint tests/tools/shop_stopping.py", 1),
    ("dalsegno start nap [1] --id new", 0),
    ("dalsegno signal order-3 approval", 0),
    ("dalsegno cancel nap-1", 0),
    ("dalsegno pause nap-1", 0),
    ("dalsegno resume nap-1", 0),
    ("dalsegno terminate nap-1", 0),
    ("dalsegno queues", 0),
    ("dalsegno queues --set mail=concurrency:2,rate:10/60s", 0),
]
ELSEWHERE = {
    "replay export", "replay import", "dalsegno worker", "dalsegno complete", "dalsegno fail", "dalsegno compact",
    "dalsegno demo",
}  # fmt: skip


@pytest.fixture
def both(run_replay: Cli, run_dalsegno: Cli) -> dict[str, Cli]:
    """Both programs by name."""
    return {"replay": run_replay, "dalsegno": run_dalsegno}


@pytest.mark.parametrize(("call", "code"), CALLS, ids=[call for call, _ in CALLS])
def test_what_is_printed_is_documented(
    call: str, code: int, both: dict[str, Cli], url: str, monkeypatch: pytest.MonkeyPatch
):
    """Each command prints the form that its schema describes, whatever there is to tell."""
    monkeypatch.chdir(FOLDER.parents[1])
    program, command, *options = call.split(" ")
    store = () if command == "lint" else ("--store", url)
    done = both[program](command, *options, *store, "--json", code=code)
    assert done.stdout.strip()


def test_no_command_is_left_out():
    """Each command has a schema and is tried here; no schema is left from a command that is gone."""
    there = {f"{program} {name}" for program, name, _ in commands()}
    assert {" ".join(call.split(" ")[:2]) for call, _ in CALLS} | ELSEWHERE == there
    assert {name.removesuffix(".json").replace("-", " ", 1) for name in schemas()} - {"common"} == there
    told = set(re.findall(r"\]\((.*?\.json)\)", (FOLDER / "README.md").read_text("utf-8")))
    assert told == set(schemas())


@pytest.mark.parametrize("name", schemas())
def test_the_schemas_are_schemas(name: str):
    """Each is valid, and strict: every object says which fields it has, unless its names are somebody's own."""
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    for part in objects(schema):
        assert "additionalProperties" in part or "description" in part, part


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every part of a schema that is about an object."""
    if isinstance(schema, list):
        return [one for part in schema for one in objects(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [one for part in schema.values() for one in objects(part)]


def test_other_forms_are_noticed(run_replay: Cli, url: str):
    """A field that is missing, or that nobody has described, is found, also deep inside."""
    data = json.loads(run_replay("show", "both-1", "--children", "1", "--store", url, "--json").stdout)
    child = next(event["child"] for event in data["events"] if "child" in event)
    hold("replay", "show", data)
    for spoil in (
        lambda: child["run"].pop("tags"), lambda: child["run"].update(tags={}, mood="good"),
        lambda: data["run"].update(created_at="yesterday"),
    ):  # fmt: skip
        spoil()
        with pytest.raises(AssertionError, match=r"\$\.(events\[1\]\.child\.)?run"):
            hold("replay", "show", data)
        child["run"].pop("mood", None)
    assert child["run"]["tags"] == {}


def test_exported_lines(run_replay: Cli, url: str, tmp_path: Path):
    """Every line of an exported file is of the form described, and importing it says what it did."""
    file = tmp_path / "all.jsonl"
    run_replay("export", "--all", str(file), "--store", url)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {key for line in lines for key in line} >= {"dalsegno", "run", "event", "message", "published", "end"}
    for line in lines:
        hold("replay", "export", line)
    run_replay("import", str(file), "--store", f"lmdb:{tmp_path}/there", "--json")
    run_replay("import", str(file), "--skip-existing", "--store", f"lmdb:{tmp_path}/there", "--json")


def test_what_cannot_be_read(run_replay: Cli, half: str):
    """Problems of a store, runs that cannot be told, and events of a later release have their places in the forms."""
    run_replay("check", "--store", half, "--json", code=1)
    shown = json.loads(run_replay("show", "half-1", "--store", half, "--json").stdout)
    assert shown["unreadable"]["index"] == 2
    run_replay("verify", "half-1", *APP, "--store", half, "--json", code=2)
    for command in ("where", "coverage"):
        told = json.loads(run_replay(command, *APP, "--store", half, "--json").stdout)
        assert [one["run_id"] for one in told["untold"]] == ["half-1#1"]


def test_a_worker_and_a_compact_copy(run_dalsegno: Cli, url: str, tmp_path: Path):
    """What a worker says when it has begun, and what a copy saves."""
    for words in (["terminate", "nap-1"], ["signal", "order-3", "approval", '{"granted": false, "by": "x"}']):
        run_dalsegno(*words, "--store", url)
    run_dalsegno("worker", *APP, "--store", url, "--until-done", "--json")
    run_dalsegno("compact", str(tmp_path / "copy"), "--store", url, "--json")


def test_answered_callbacks(run_dalsegno: Cli, tmp_path: Path):
    """The two answers to a callback."""
    for word, said in (("complete", '{"granted": true}'), ("fail", "no funds")):
        url = f"lmdb:{tmp_path}/{word}"
        token = token_of(url)
        run_dalsegno(word, token, said, "--store", url, "--json")
        with Engine(url, workflows=[asks]) as engine:
            assert engine.get("asks").result(timeout=10)


def test_the_demo(run_dalsegno: Cli, tmp_path: Path):
    """The figures, the kills and the proof of a demo."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(30):
        (tree / f"m{number}.py").write_text("def f():\n    return 1\n" * 40)
    run_dalsegno("demo", str(tree), "--kills", "1", "--store", str(tmp_path / "store"), "--json")


def test_a_failure_prints_no_document(url: str):
    """Where a command fails, standard output stays empty."""
    for program, words in ((replay.main, ["show", "nobody"]), (operate.main, ["signal", "nobody", "x"])):
        done = CliRunner().invoke(program, [*words, "--store", url, "--json"])
        assert (done.stdout, done.exit_code) == ("", 1)
        assert done.stderr.startswith("error: ")
