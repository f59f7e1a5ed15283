"""`replay debug`: pdb inside the workflow's own frames, over its history."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
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


class Editor:
    """What an editor does with debugpy, as far as it matters here: the Debug Adapter Protocol over a socket."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._file = self._socket.makefile("rb")
        self._number = 0

    def ask(self, command: str, **arguments: object) -> int:
        self._number += 1
        body = json.dumps({"seq": self._number, "type": "request", "command": command, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return self._number

    def until(self, kind: str, name: str) -> dict[str, Any]:
        """The next event of this name, or response to a request of this name."""
        while True:
            length = 0
            while (line := self._file.readline().strip()) or not length:
                assert line or length or self._file.peek(1), "debugpy hung up"
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            told: dict[str, Any] = json.loads(self._file.read(length))
            if told["type"] == kind and told.get("event" if kind == "event" else "command") == name:
                return told

    def standing(self, expression: str) -> tuple[str, int, str]:
        """Wait until it has stopped: in which function, at which line, and what an expression is there."""
        self._thread = self.until("event", "stopped")["body"]["threadId"]
        self.ask("stackTrace", threadId=self._thread)
        top = self.until("response", "stackTrace")["body"]["stackFrames"][0]
        assert top["source"]["path"] == shop_stopping.__file__
        self.ask("evaluate", expression=expression, frameId=top["id"])
        return top["name"], top["line"], self.until("response", "evaluate")["body"]["result"]

    def go_on(self) -> None:
        self.ask("continue", threadId=self._thread)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_an_editor_stops_in_the_workflows_frame(url: str):
    """With --listen it waits for the editor, which stops at the line behind the yield, and at each `breakpoint()`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--app", STOPPING, "--store", url, "--at", "1", "--listen", str(port), "--json")
    replaying = subprocess.Popen(
        [sys.executable, "-m", "dalsegno.tools.replay", "debug", "order-1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert replaying.stderr is not None
    told = iter(replaying.stderr.readline, "")
    assert any(str(port) in line for line in told), "it says where it listens"
    editor = Editor(port)
    editor.ask("initialize", adapterID="test", clientID="test", pathFormat="path", linesStartAt1=True)
    editor.until("response", "initialize")
    editor.ask("attach", justMyCode=False)
    editor.until("event", "initialized")
    editor.ask("configurationDone")
    name, line, shown = editor.standing("receipt")
    assert (name, line, shown) == ("paid", stopping_line('"waiting"'), "'receipt 1: 10'")
    editor.go_on()
    name, line, shown = editor.standing("approval.granted")
    assert (name, shown) == ("fulfil", "True")
    assert line in (stopping_line("breakpoint()"), stopping_line("if not allowed"))
    editor.go_on()
    editor.until("event", "terminated")
    editor.close()
    out, _ = replaying.communicate(timeout=60)
    assert json.loads(out)["stops"][0]["line"] == stopping_line("receipt = yield from charge")


def test_where_to_listen_is_checked_first(run_replay: Cli, url: str):
    """There has to be a frame to stop in, and a port."""
    early = run_replay("debug", "order-1", "--app", APP, "--store", url, "--listen", "5678", "--at", "0", code=2)
    assert "begin with --at 1" in early.stderr
    assert "HOST:PORT" in run_replay("debug", "order-1", "--app", APP, "--store", url, "--listen", "x", code=2).stderr
