"""`replay debug`: pdb inside the workflow's own frames, over its history."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dalsegno.tools import replay
from dalsegno.tools.debugging import Debugger
from tests.tools import shop, shop_stopping
from tests.tools.conftest import Cli
from tests.tools.test_stepping import Terminal, line_of

APP = "tests.tools.shop"
STOPPING = "tests.tools.shop_stopping"


def stopping_line(text: str) -> int:
    """The number of the line of the debugged shop that holds a text."""
    lines = Path(str(shop_stopping.__file__)).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def fed(url: str, *lines: str, app: str = APP, options: tuple[str, ...] = (), run: str = "order-1") -> Result:
    """A session of the debugger with these lines typed."""
    before = sys.gettrace(), sys.breakpointhook
    try:
        return CliRunner().invoke(
            replay.main,
            ["debug", run, "--app", app, "--store", url, *options],
            input="".join(f"{line}\n" for line in lines),
            catch_exceptions=False,
        )
    finally:
        assert (sys.gettrace(), sys.breakpointhook) == before


def test_it_stops_in_the_workflows_frame(url: str):
    """At event N it stands at the `yield` that is answered; next goes over it, and over every yield after it."""
    result = fed(url, "p order.id + 40", "n", "p receipt", "n", "n", "n", "w", "n", "c", options=("--at", "1"))
    assert f"shop.py({line_of('receipt = yield from charge')})fulfil()" in result.output
    assert "41" in result.output
    assert "'receipt 1: 10'" in result.output
    for text in ("approval = yield from Receive", "if not approval.granted", "yield from ship(order)"):
        assert f"shop.py({line_of(text)})fulfil()" in result.output
    assert "fiber.py" not in result.output
    assert "the history is told: 6 events" in result.output
    assert result.exit_code == 0


def test_before_anything_ran(url: str):
    """At event 0 it stops where the workflow begins."""
    result = fed(url, "n", "n", "q", options=("--at", "0"))
    assert f"shop.py({line_of('receipt = yield from charge')})fulfil()" in result.output


def test_no_other_generator_of_the_same_code(url: str):
    """One that is put away while the debugger waits for the beginning is not taken for it."""
    other = shop.fulfil.fn(shop.Order(9))
    next(other)
    debugger, before = Debugger(), sys.gettrace()
    try:
        debugger.stop_when_run(shop.fulfil.fn.__code__)
        other.close()
    finally:
        sys.settrace(before)
    assert debugger.stops == []


def test_generators_below(url: str):
    """It stops in the innermost generator; the stack is the workflow's, and next comes back out."""
    result = fed(url, "w", "n", "n", "n", "n", "c", app=STOPPING, options=("--at", "1"))
    assert f"shop_stopping.py({stopping_line('receipt = yield from charge')})paid()" in result.output
    assert f"shop_stopping.py({stopping_line('receipt = yield from paid')})fulfil()" in result.output
    assert f"shop_stopping.py({stopping_line('approval = yield')})fulfil()" in result.output
    assert "interpreter" not in result.output


def test_an_exception_is_told_with_what_it_says(url: str):
    """Where a `yield` raises, the error's type and message are shown, not only the note with run and event."""
    result = fed(url, "n", "q", options=("--at", "1"), run="stock-1")
    assert "ValueError: the shelf 'top' is empty" in result.output
    assert f"shop.py({line_of('yield from count(shelf)')})stocktaking()" in result.output


def test_breakpoints_in_the_code(url: str, monkeypatch: pytest.MonkeyPatch):
    """`breakpoint()` stops, with no N from the beginning, with one only after it; step goes into plain functions."""
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    result = fed(url, "p approval.by", "s", "s", "s", "p granted", "r", "c", app=STOPPING)
    assert f"shop_stopping.py({stopping_line('if not allowed')})fulfil()" in result.output
    assert "'ada'" in result.output
    assert "allowed()" in result.output
    assert "the history is told" in result.output
    late = fed(url, "c", app=STOPPING, options=("--at", "4"))
    assert f"({stopping_line('if not allowed')})" not in late.output


def test_breakpoints_set_by_hand(url: str):
    """A breakpoint set in the debugger holds in generators that go on at a later event."""
    line = line_of("return receipt")
    result = fed(url, f"b {shop.__file__}:{line}", "c", "p approval.by", "c", options=("--at", "1"))
    assert "'ada'" in result.output
    assert f"shop.py({line})fulfil()" in result.output


@pytest.mark.parametrize("word", ["q", "exit", ""])
def test_leaving_runs_no_handler(url: str, word: str):
    """Leaving, by a word or at the end of the input, does not raise pdb's own exception in the workflow."""
    shop_stopping.CLEANED.clear()
    lines = ("n", word) if word else ()
    result = fed(url, *lines, app=STOPPING, options=("--at", "1"))
    assert result.exit_code == 0
    assert "BdbQuit" not in "".join(shop_stopping.CLEANED)
    assert "the history is told" not in result.output


def test_as_json(run_replay: Cli, url: str):
    """Afterwards --json says where it stopped; the session itself is on stderr."""
    result = fed(url, "n", "q", options=("--at", "1", "--json"))
    found = json.loads(result.stdout)
    assert [stop["line"] for stop in found["stops"]] == [line_of("receipt = yield"), line_of('Publish("stage", "wait')]
    assert found["run_id"] == "order-1#1"


def test_where_nothing_goes_on(run_replay: Cli, url: str):
    """At the closing event no code runs, which is said; an event that is not there is a question back."""
    last = "5"
    assert "nothing stopped" in fed(url, options=("--at", last)).output
    assert "numbered from 0" in fed(url, options=("--at", "99")).output
    assert fed(url, options=("--at", "99")).exit_code == 2


def test_code_that_has_changed(url: str):
    """Where today's code leaves the history, the debugger has shown the way there, and the mismatch follows."""
    result = fed(url, "n", "c", app="tests.tools.shop_changed", options=("--at", "0"))
    assert "leaves the history" in result.output
    assert "reserve" in result.output
    assert result.exit_code == 1


def test_in_a_terminal(url: str):
    """A person in a real terminal gets a prompt in the workflow's frame."""
    terminal = Terminal(
        sys.executable, "-m", "dalsegno.tools.replay", "debug", "order-1", "--at", "1", "--app", APP, "--store", url
    )
    assert "-> receipt = yield from charge(order)" in terminal.until("(replay) ")
    terminal.type("n")
    terminal.until("Publish")
    terminal.until("(replay) ")
    terminal.type("p receipt")
    terminal.until("'receipt 1: 10'")
    terminal.type("c")
    terminal.until("the history is told")
    assert terminal.end() == 0


def test_without_debugpy(run_replay: Cli, url: str, monkeypatch: pytest.MonkeyPatch):
    """--listen says what is missing."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run_replay("debug", "order-1", "--app", APP, "--store", url, "--listen", "5678", code=2)
    assert "pip install debugpy" in result.stderr


def test_with_debugpy(run_replay: Cli, url: str, monkeypatch: pytest.MonkeyPatch):
    """With debugpy it listens, waits for the editor, and asks for a stop in the workflow's frame at its next line."""
    said: list[Any] = []
    fake, below = ModuleType("debugpy"), ModuleType("pydevd")
    vars(fake).update(
        listen=lambda address: said.append(address),
        wait_for_client=lambda: said.append("waits"),
        breakpoint=lambda: said.append("breakpoint"),
    )
    vars(below).update(settrace=lambda **options: said.append(options["stop_at_frame"].f_lineno))
    monkeypatch.setitem(sys.modules, "debugpy", fake)
    monkeypatch.setitem(sys.modules, "pydevd", below)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    options = ("--listen", "localhost:5678", "--at", "1", "--json")
    result = run_replay("debug", "order-1", "--app", STOPPING, "--store", url, *options)
    assert said == [("localhost", 5678), "waits", stopping_line("receipt = yield from charge"), "breakpoint"]
    assert json.loads(result.stdout)["stops"][0]["line"] == stopping_line("receipt = yield from charge")
    early = run_replay("debug", "order-1", "--app", APP, "--store", url, "--listen", "5678", "--at", "0", code=2)
    assert "begin with --at 1" in early.stderr
    assert "HOST:PORT" in run_replay("debug", "order-1", "--app", APP, "--store", url, "--listen", "x", code=2).stderr
