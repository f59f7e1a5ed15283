"""`replay check --ledger`: what was recorded against what step bodies wrote down themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Client, Engine, Flow, Retry, step, workflow
from dalsegno.examples.ledger import note
from tests.tools.conftest import Cli

LEDGER = "DALSEGNO_TEST_LEDGER"


@step(retry=Retry(max_attempts=2, initial=0.001, retry_on=(ConnectionError,)))
def fetch(number: int) -> int:
    """Fails at its first attempt where the number is odd."""
    again = Path(os.environ[LEDGER]).exists() and f"odd {number}" in Path(os.environ[LEDGER]).read_text("utf-8")
    note(os.environ[LEDGER], f"odd {number}" if number % 2 else "even")
    if number % 2 and not again:
        raise ConnectionError("not yet")
    return number


@step(once=True)
def announce(number: int) -> str:
    """Runs at most once."""
    note(os.environ[LEDGER], "announce")
    return f"told {number}"


@step
def silent(number: int) -> int:
    """Keeps no ledger."""
    return number


@workflow
def report(number: int) -> Flow[str]:
    """Fetch, then announce."""
    got = yield from fetch(number)
    return (yield from announce(got))


@workflow
def quiet(number: int) -> Flow[int]:
    """A workflow whose step writes nothing down."""
    return (yield from silent(number))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A store in which four reports were made, and the ledger of their steps."""
    ledger, url = tmp_path / "ledger.jsonl", f"lmdb:{tmp_path}/store"
    monkeypatch.setenv(LEDGER, str(ledger))
    with Engine(url, workflows=[report, quiet]) as engine:
        for number in range(4):
            engine.start(report, number, id=f"report-{number}").result(timeout=10)
    return url, ledger


def problems(run_replay: Cli, url: str, ledger: Path, *more: str, code: int = 1) -> list[dict[str, Any]]:
    """What `check` finds."""
    found = run_replay("check", "--ledger", str(ledger), *more, "--store", url, "--json", code=code)
    return list(json.loads(found.stdout)["problems"])


def lines_of(ledger: Path) -> list[dict[str, Any]]:
    """The lines of a ledger."""
    return [json.loads(line) for line in ledger.read_text("utf-8").splitlines()]


def write(ledger: Path, lines: list[dict[str, Any]]) -> None:
    """Write a ledger anew."""
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def test_what_was_recorded_was_done(kept: tuple[str, Path], run_replay: Cli):
    """Every outcome, those of failed attempts too, has its execution; the figures are told."""
    url, ledger = kept
    said = run_replay("check", "--ledger", str(ledger), "--store", url).stderr
    assert "everything fits together; 10 outcomes of 10 executions in the ledger" in said
    data = json.loads(run_replay("check", "--ledger", str(ledger), "--store", url, "--json").stdout)
    assert data["ledger"] == {
        "file": str(ledger), "executions": 10, "outcomes": 10, "elsewhere": 0, "torn": False,
    }  # fmt: skip


def test_an_execution_that_is_missing(kept: tuple[str, Path], run_replay: Cli):
    """An outcome without an execution is found for each line that is taken out, at its run and event."""
    url, ledger = kept
    whole = lines_of(ledger)
    for at, gone in enumerate(whole):
        write(ledger, [*whole[:at], *whole[at + 1 :]])
        (found,) = problems(run_replay, url, ledger)
        with Client(url) as client:
            event = client.get(gone["run"].partition("#")[0]).history()[found["event"]]
        assert found["run"] == gone["run"]
        assert (event.id, event.attempt) == (gone["key"].rpartition("/")[2], gone["attempt"])
        assert "no body ran" in found["what"]


def test_an_execution_too_many(kept: tuple[str, Path], run_replay: Cli):
    """A body that begins when the outcome of its step is recorded is named with its line, run and event."""
    url, ledger = kept
    whole = lines_of(ledger)
    late = next(line for line in whole if line["key"] == "report-2#1/1")
    write(ledger, [*whole, late | {"at": late["at"] + 60, "pid": 1}])
    (found,) = problems(run_replay, url, ledger)
    assert (found["key"], found["run"], found["event"]) == (f"{ledger}:11", "report-2#1", 1)
    assert "a body (attempt 1) began" in found["what"]
    problems(run_replay, url, ledger, "--slack", "2m", code=0)
    shown = run_replay("check", "--ledger", str(ledger), "--store", url, code=1)
    assert "report-2#1" in shown.stdout
    assert "1 problem in 4 runs" in shown.stderr


def test_a_step_run_at_most_once_has_one_body(kept: tuple[str, Path], run_replay: Cli):
    """A second body of a step that runs at most once is named with its line, also where it came before the record."""
    url, ledger = kept
    whole = lines_of(ledger)
    once = next(line for line in whole if line["about"] == "announce")
    write(ledger, [*whole, once | {"at": once["at"] - 0.0001, "pid": 1}])
    (found,) = problems(run_replay, url, ledger)
    assert found["key"] == f"{ledger}:11"
    assert "may run once, and 2 bodies began" in found["what"]


def test_steps_that_keep_no_ledger(kept: tuple[str, Path], run_replay: Cli):
    """Where some steps write nothing down, --step names those that do."""
    url, ledger = kept
    with Engine(url, workflows=[quiet]) as engine:
        engine.start(quiet, 1, id="quiet-1").result(timeout=10)
    (found,) = problems(run_replay, url, ledger)
    assert found["run"] == "quiet-1#1"
    problems(run_replay, url, ledger, "--step", "fetch", "--step", "announce", code=0)


def test_a_fork_and_a_run_elsewhere(kept: tuple[str, Path], run_replay: Cli):
    """What a fork took over was executed by the other run; executions of runs that are gone are counted."""
    url, ledger = kept
    run_replay("fork", "report-0", "--at", "2", "--id", "again", "--store", url)
    assert problems(run_replay, url, ledger, code=0) == []
    write(ledger, [*lines_of(ledger), {"key": "gone#1/1", "attempt": 1, "at": 1.5}])
    assert (
        "10 executions in the ledger, 1 more of runs that are not here"
        in run_replay("check", "--ledger", str(ledger), "--store", url).stderr
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "is not JSON"),
        ("[1]", "is no object"),
        ('{"attempt": 1, "at": 1}', "has the key None"),
        ('{"key": "pay", "attempt": 1, "at": 1}', "has the key 'pay'"),
        ('{"key": "a#1/1", "attempt": 0, "at": 1}', "has the attempt 0"),
        ('{"key": "a#1/1", "attempt": true, "at": 1}', "has the attempt True"),
        ('{"key": "a#1/1", "attempt": 1, "at": "now"}', "has the time 'now'"),
        ('{"key": "a#1/1", "attempt": 1, "at": NaN}', "has the time nan"),
    ],
)
def test_a_line_that_is_none(line: str, said: str, kept: tuple[str, Path], run_replay: Cli):
    """A bad line is named with file and number, and what it should have been."""
    url, ledger = kept
    ledger.write_text(f"{ledger.read_text('utf-8')}{line}\n", "utf-8")
    refused = run_replay("check", "--ledger", str(ledger), "--store", url, code=4)
    assert f"error: {ledger}, line 11: it {said}" in refused.stderr


def test_a_line_that_is_being_written(kept: tuple[str, Path], run_replay: Cli, tmp_path: Path):
    """A last line without its end is left out, and that is said; a ledger that is not there is named."""
    url, ledger = kept
    with ledger.open("a", encoding="utf-8") as out:
        out.write('{"key": "report-')
    found = run_replay("check", "--ledger", str(ledger), "--store", url, "--json")
    assert f"the last line of {ledger} has no end and is left out" in found.stderr
    assert json.loads(found.stdout)["ledger"]["torn"] is True
    missing = run_replay("check", "--ledger", str(tmp_path / "no"), "--store", url, code=4)
    assert "no cannot be read: No such file" in missing.stderr
    assert "about a ledger" in run_replay("check", "--step", "fetch", "--store", url, code=2).stderr
