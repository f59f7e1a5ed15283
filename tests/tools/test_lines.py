"""`replay where` and `replay coverage`: the source, with what open runs do on each line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Engine, collect
from dalsegno.core.errors import BadOption
from dalsegno.tools.app import load_app
from dalsegno.tools.changed import changed_since
from dalsegno.tools.passing import functions_of, look
from dalsegno.tools.stores import all_runs, open_for_reading
from tests.tools import shop
from tests.tools.conftest import Cli
from tests.tools.test_help import completions
from tests.tools.test_stepping import line_of

APP = "tests.tools.shop"

HELPED = """
from dalsegno import All, Flow, Receive, Scope, step, workflow

@step
def charge(amount: int) -> int:
    return amount

def rounded(amount: int) -> int:
    whole = amount // 1
    return whole

class Paying:
    @staticmethod
    def pay(amount: int) -> Flow[int]:
        paid = yield from charge(rounded(amount))
        word = yield from Receive("word", str)
        return paid + len(word)

@workflow
def order(amount: int) -> Flow[int]:
    first = yield from Scope(inner(amount))
    both = yield from All(Paying.pay(1), Paying.pay(2))
    return first + sum(both)

def inner(amount: int) -> Flow[int]:
    got = yield from charge(amount)
    return got
"""


def data(run_replay: Cli, *words: str, code: int = 0) -> dict[str, Any]:
    """What a command prints as JSON."""
    found: dict[str, Any] = json.loads(run_replay(*words, "--json", code=code).stdout)
    return found


def test_where_open_runs_stand(run_replay: Cli, url: str):
    """The source of each workflow somebody stands in, with how many at each line; closed runs are not counted."""
    shown = run_replay("where", "--app", APP, "--store", url).stdout
    line = next(one for one in shown.splitlines() if "Receive(" in one)
    assert line.split()[:2] == ["1", str(line_of("Receive("))]
    assert "2 of 2 open runs stand at 2 lines" in shown
    assert "stocktaking" not in shown
    found = data(run_replay, "where", "--app", APP, "--store", url, "--workflow", "nap")
    assert found["lines"] == [
        {
            "file": shop.__file__,
            "line": line_of("yield from Sleep(rest)"),
            "function": "nap",
            "source": "yield from Sleep(rest)",
            "standing": ["nap-1#1"],
            "within": [],
        }
    ]


def test_what_open_runs_have_passed(run_replay: Cli, url: str):
    """Lines that a run went through are counted, the others are free; so are workflows nobody is in."""
    functions = data(run_replay, "coverage", "--app", APP, "--store", url)["functions"]
    passed = {one["line"]: one["passed"] for function in functions for one in function["lines"]}
    assert passed[line_of("receipt = yield from charge")] == 1
    assert passed[line_of('approval = yield from Receive("approval"')] == 1
    assert passed[line_of("if not approval.granted")] == 0
    assert passed[line_of("one = yield from quick")] == 0
    assert "charge" not in [function["function"] for function in functions]
    shown = run_replay("coverage", "--app", APP, "--store", url, "--workflow", "fulfil").stdout
    assert any(one.split()[0] == "free" and "if not approval" in one for one in shown.splitlines())
    assert "Patched" in shown


def test_code_that_no_longer_fits_is_named(run_replay: Cli, url: str):
    """What cannot be replayed is said, and not counted where it does not stand."""
    result = run_replay("where", "--app", "tests.tools.shop_changed", "--store", url)
    assert "order-3#1 could not be replayed to its end: HistoryMismatch" in result.stderr
    assert "has no workflow 'nap'" in result.stderr
    found = data(run_replay, "coverage", "--app", "tests.tools.shop_changed", "--store", url)
    assert {one["run_id"] for one in found["untold"]} == {"order-3#1", "nap-1#1"}
    assert "has no workflow" in run_replay("where", "--app", APP, "--store", url, "--workflow", "x", code=1).stderr


# --- with code and a git repository of its own ---------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an app under git, and a store in which one of its runs waits."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "helped_shop.py").write_text(HELPED)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "helped_shop", raising=False)
    git(folder, "init", "--quiet")
    git(folder, "add", "helped_shop.py")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    load_app("helped_shop")
    module: Any = sys.modules["helped_shop"]
    with Engine(f"lmdb:{folder}/store", workflows=collect(module)) as engine:
        run = engine.start(module.order, 5, id="held")
        while len(run.history()) < 5:
            pass
    yield folder
    sys.modules.pop("helped_shop", None)


def git(folder: Path, *words: str) -> None:
    """Call git there."""
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


def lines_with(text: str) -> int:
    """The number of a line of the helped app."""
    return next(number for number, line in enumerate(HELPED.splitlines(), 1) if text in line)


def test_generators_further_in_and_helpers(project: Path, run_replay: Cli):
    """Runs are counted where they wait, and apart where they delegated; plain helpers are covered as they are run."""
    url = f"lmdb:{project}/store"
    found = {one["line"]: one for one in data(run_replay, "where", "--app", "helped_shop", "--store", url)["lines"]}
    assert found[lines_with('Receive("word"')]["standing"] == ["held#1"]
    assert found[lines_with('Receive("word"')]["function"] == "Paying.pay"
    assert found[lines_with("both = ")]["standing"] == ["held#1"]
    functions = data(run_replay, "coverage", "--app", "helped_shop", "--store", url)["functions"]
    assert [one["function"] for one in functions] == ["rounded", "Paying.pay", "order", "inner"]
    passed = {one["line"]: one["passed"] for function in functions for one in function["lines"]}
    assert passed[lines_with("whole = ")] == 1
    assert passed[lines_with("return paid")] == 0
    assert passed[lines_with("got = yield")] == 0, "the inside of a finished scope is not replayed"


def test_changes_in_somebodys_past(project: Path, run_replay: Cli):
    """Since a revision: changed lines that a run has passed, removed ones it recorded at; free ones are not listed."""
    url, words = f"lmdb:{project}/store", ("coverage", "--app", "helped_shop", "--since", "HEAD", "--store")
    assert data(run_replay, *words, url)["changed"] == []
    assert "nothing changed since HEAD" in run_replay(*words, url).stdout
    changed = HELPED.replace("whole = amount // 1", "whole = amount // 1 + 0").replace(
        "return paid +", "return 1 + paid +"
    )
    (project / "helped_shop.py").write_text(changed)
    sys.modules.pop("helped_shop")
    shutil.rmtree(project / "__pycache__", ignore_errors=True)
    found = data(run_replay, *words, url, code=1)
    assert [(one["line"], one["removed"], one["runs"]) for one in found["changed"]] == [
        (lines_with("whole = "), False, ["held#1"])
    ]
    shown = run_replay(*words, url, code=1).stdout
    assert "in the past of open runs" in shown
    assert "whole = amount // 1 + 0" in shown
    (project / "helped_shop.py").write_text(
        HELPED.replace("    first = yield from Scope(inner(amount))\n", "    first = 0\n")
    )
    sys.modules.pop("helped_shop")
    shutil.rmtree(project / "__pycache__", ignore_errors=True)
    found = data(run_replay, *words, url, code=1)
    assert found["untold"][0]["run_id"] == "held#1"
    assert found["changed"][0]["line"] == lines_with("first = yield")


def test_what_git_cannot_tell(project: Path):
    """A revision that is not there, an option in its place, and a folder without git are one calm sentence."""
    file = str(project / "helped_shop.py")
    for revision in ("nonsense", "--output=x"):
        with pytest.raises(BadOption):
            changed_since(revision, [file])
    shutil.rmtree(project / ".git")
    with pytest.raises(BadOption, match="git cannot tell"):
        changed_since("HEAD", [file])


def test_tracing_leaves_nothing_behind(url: str):
    """Whoever traces this thread finds their tracing as it was; a run is replayed the same with it."""
    before, app = sys.gettrace(), load_app(APP)
    with open_for_reading(url) as store:
        traced = look(store, all_runs(store), app, trace=True)
        plain = look(store, all_runs(store), app, trace=False)
    assert sys.gettrace() is before
    assert plain.stood == traced.stood
    assert plain.passed == {}
    assert len(functions_of(app, traced)) == 6


def test_completion_of_workflows(url: str):
    """--workflow is completed from the store."""
    assert completions("replay", "where", "--store", url, "--workflow", "f") == ["fulfil"]
    assert completions("replay", "coverage", "--store", url, "--workflow", "n") == ["nap"]
