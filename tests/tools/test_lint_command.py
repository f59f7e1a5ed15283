"""`replay lint` as a command: files, folders and modules in; text, JSON and SARIF out; exit codes; and our own code."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from dalsegno.tools.lint.command import lint
from dalsegno.tools.lint.linting import files_of, find_module
from dalsegno.tools.lint.linting import lint as lint_targets
from dalsegno.tools.lint.rules import RULES, document
from dalsegno.tools.replay import main

ROOT = Path(__file__).resolve().parent.parent.parent

FLAWED = """\
import time
from dalsegno import Sleep, workflow

@workflow
def nap():
    began = time.time()
    yield Sleep(1)
    time.sleep(1)  # dalsegno: ignore[sleep] to see what happens
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a package whose workflows use steps of another file."""
    package = tmp_path / "lintshop"
    (package / "inner").mkdir(parents=True)
    files = {
        "__init__.py": "raise RuntimeError('nothing of this is imported')",
        "steps.py": """\
            from dalsegno import step, workflow
            @step
            def charge(order): ...
            quick = charge.options(timeout=1)
            @workflow
            def child(): yield charge(1)
            """,
        "inner/__init__.py": "from ..steps import charge as passed_on",
        "flows.py": """\
            from dalsegno import workflow
            from lintshop.steps import child, quick
            from . import steps
            from .inner import passed_on
            from .steps import charge
            @workflow
            def flow():
                charge(1)
                steps.charge(2)
                passed_on(3)
                quick(4)
                child()
                yield charge(5)
            """,
    }
    for name, text in files.items():
        (package / name).write_text(textwrap.dedent(text))
    (tmp_path / "flawed.py").write_text(FLAWED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int) -> str:
    result = CliRunner().invoke(lint, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def test_it_is_a_command_of_replay():
    """`replay lint` is there, and says what it does."""
    assert main.commands["lint"] is lint
    assert "nothing is imported or run" in " ".join(run("--help", code=0).split())


def test_text(shop: Path):
    """Each finding says file, line, rule, reason and remedy; the last line counts."""
    said = run("flawed.py", code=1)
    assert said.startswith("flawed.py:6:13: clock: calls time.time() (in workflow 'nap')")
    assert "write instead: `now = yield from Now()`" in said
    assert said.rstrip().endswith("1 workflow in 1 file: 1 finding, 1 excused by comments")


def test_json(shop: Path):
    """The same for a script, with what was excused and why."""
    said = json.loads(run("flawed.py", "--json", code=1))
    assert [(one["rule"], one["line"], one["workflow"]) for one in said["findings"]] == [("clock", 6, "nap")]
    assert [(one["rule"], one["reason"]) for one in said["excused"]] == [("sleep", "to see what happens")]
    assert said["unreadable"] == []


def test_sarif(shop: Path):
    """What code hosts read: every rule described, every result located, excused ones suppressed."""
    said = json.loads(run("flawed.py", "--sarif", code=1))
    (only,) = said["runs"]
    assert said["version"] == "2.1.0"
    assert [rule["id"] for rule in only["tool"]["driver"]["rules"]] == list(RULES)
    for result in only["results"]:
        assert only["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
    found, excused = only["results"]
    place = found["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "flawed.py"}, "region": {"startLine": 6, "startColumn": 13}}
    assert "suppressions" not in found
    assert excused["suppressions"] == [{"kind": "inSource", "justification": "to see what happens"}]
    assert only["invocations"][0]["executionSuccessful"] is True


def test_rules_can_be_chosen_and_listed(shop: Path):
    """One rule only; the list of all; what does not go together."""
    run("flawed.py", "--rule", "uuid", code=0)
    run("flawed.py", "--rule", "clock", code=1)
    assert set(json.loads(run("--rules", "--json", code=0))) == set(RULES)
    assert "write instead" in run("--rules", code=0)
    run(code=2)
    run("flawed.py", "--sarif", "--json", code=2)


def test_what_cannot_be_read(shop: Path):
    """A file that is not Python or not text is named, the others are looked at, and the exit code says so."""
    (shop / "broken.py").write_text("def f(:\n")
    (shop / "binary.py").write_bytes(b"\xff\xfe\x00")
    said = json.loads(run(".", "--json", code=2))
    assert {each["file"] for each in said["unreadable"]} == {"broken.py", "binary.py"}
    assert said["findings"]
    sarif = json.loads(run(".", "--sarif", code=2))
    assert len(sarif["runs"][0]["invocations"][0]["toolExecutionNotifications"]) == 2
    result = CliRunner().invoke(main, ["lint", "nowhere.py"])
    assert (result.exit_code, "no file or folder, and no module" in result.stderr) == (2, True)


def test_folders(shop: Path):
    """A folder means its Python files, without environments, builds and hidden folders."""
    for name in (".hidden/a.py", "build/a.py", "env/lib/a.py", "src/a.py"):
        (shop / name).parent.mkdir(parents=True)
        (shop / name).write_text("")
    (shop / "env" / "pyvenv.cfg").write_text("")
    found = {path.as_posix() for path in files_of(".")}
    assert {"src/a.py", "flawed.py", "lintshop/flows.py"} <= found
    assert not {path for path in found if path.startswith((".hidden", "build", "env"))}


def test_modules_are_found_without_being_imported(shop: Path):
    """A module's name will do; the package around it is not imported, which would fail here."""
    assert [path.name for path in files_of("lintshop.flows")] == ["flows.py"]
    assert {path.name for path in files_of("lintshop")} == {"__init__.py", "steps.py", "flows.py"}
    assert find_module("lintshop.nothing") is None
    assert "lintshop" not in sys.modules
    assert [path.name for path in files_of("dalsegno.examples.hello")] == ["hello.py"]


def test_steps_of_other_files_are_known(shop: Path):
    """An imported step or workflow is one by whatever way it came, so a forgotten yield of it is found."""
    said = lint_targets(["lintshop"])
    assert [(finding.line, finding.rule) for finding in said.found] == [(n, "forgotten-yield") for n in range(8, 13)]


def test_our_own_workflows_are_clean():
    """Examples and benchmarks are written as the rules say."""
    said = lint_targets([str(ROOT / folder) for folder in ("examples", "benchmarks", "testing")])
    assert [f"{finding.file}:{finding.line} {finding.rule}" for finding in said.found] == []
    assert said.unreadable == ()
    assert said.workflows > 3


def test_the_document_is_the_table():
    """docs/lint.md is made from the rules."""
    assert (ROOT / "docs" / "lint.md").read_text("utf-8") == document()


def test_the_document_is_made_by_a_module():
    """`python -m dalsegno.tools.lint.rules` prints it."""
    made = subprocess.run(
        [sys.executable, "-m", "dalsegno.tools.lint.rules"], capture_output=True, check=True, timeout=60
    )
    assert made.stdout.decode() == document()
