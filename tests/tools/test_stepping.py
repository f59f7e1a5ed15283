"""`replay step`: as data for scripts, with lines fed to it, and in a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dalsegno.core.errors import BadOption
from dalsegno.tools import replay
from dalsegno.tools.stepping import Session, parsed, session_of
from tests.tools import shop
from tests.tools.conftest import Cli
from tests.tools.test_help import completions

APP = "tests.tools.shop"
ROOT = Path(__file__).resolve().parents[2]


def line_of(text: str) -> int:
    """The number of the line of the shop that holds a text."""
    lines = Path(str(shop.__file__)).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def point(run_replay: Cli, url: str, *options: str, run: str = "order-1", code: int = 0) -> dict[str, Any]:
    """What --json says of a point."""
    found = run_replay("step", run, "--app", APP, "--store", url, "--json", *options, code=code)
    data: dict[str, Any] = json.loads(found.stdout) if code == 0 else {}
    return data


def test_a_point_as_data(run_replay: Cli, url: str):
    """Event, command, line, source, variables, time and state are there for scripts and editors."""
    found = point(run_replay, url, "--at", "1")
    assert found["event"]["event"] == "StepCompleted"
    assert found["answers"]["name"] == "charge"
    assert found["answers"]["command"] == "RunStep(step='charge', args=(Order(id=1, amount=10),), kwargs={})"
    assert found["line"] == found["answers"]["line"] == line_of("receipt = yield from charge(order)")
    assert found["file"] == shop.__file__
    assert {"line": found["line"], "text": "    receipt = yield from charge(order)"} in found["source"]
    generator = found["fibers"]["generators"][0]
    assert [(one["name"], one["value"], one["change"]) for one in generator["locals"]] == [
        ("order", "Order(id=1, amount=10)", "new"), ("gift", "False", "new")
    ]  # fmt: skip
    assert found["state"]["stage"]["json"] == "charging"
    assert found["now"].endswith("Z")
    after = point(run_replay, url, "--at", "2")
    assert [one for one in after["fibers"]["generators"][0]["locals"] if one["change"]] == [
        {"name": "receipt", "value": "'receipt 1: 10'", "change": "new"}
    ]


def test_the_ends_as_data(run_replay: Cli, url: str):
    """Before anything ran there are no generators; at the end there is no event, and an outcome or a wait."""
    first = point(run_replay, url, "--at", "0")
    assert first["fibers"]["generators"] == []
    assert first["now"] is None
    last = point(run_replay, url, "--at", str(first["events"]))
    assert last["event"] is None
    assert last["outcome"] == "the workflow has returned"
    waiting = point(run_replay, url, "--event", "completed", "--at", "0", run="order-3")
    assert waiting["event"]["event"] == "StepCompleted"
    end = point(run_replay, url, "--at", str(waiting["events"]), run="order-3")
    assert end["answers"]["kind"] == "receive"
    assert end["outcome"] is None


@pytest.mark.parametrize(
    ("options", "event"),
    [
        (["--event", "StepAttemptFailed"], "StepAttemptFailed"),
        (["--event", "signal received"], "SignalReceived"),
        (["--step", "ship"], "StepAttemptFailed"),
        (["--find", "NO VAN"], "StepAttemptFailed"),
        (["--when", "approval.granted"], "StepAttemptFailed"),
        (["--line", str(line_of("yield from ship(order)"))], "StepAttemptFailed"),
        (["--line", f"shop.py:{line_of('Receive(')}"], "SignalReceived"),
    ],
)
def test_going_there_at_once(run_replay: Cli, url: str, options: list[str], event: str):
    """Options look for a kind, a name, a line, a condition and a text."""
    assert point(run_replay, url, *options)["event"]["event"] == event


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--at", "99"], "numbered 0 to"),
        (["--event", "nonsense"], "no kind of event"),
        (["--step", "nothing"], "nothing of that after event 0"),
        (["--when", "open('x')"], "nothing can be called"),
        (["--line", "x"], "is no line"),
    ],
)
def test_what_is_not_there(run_replay: Cli, url: str, options: list[str], says: str):
    """A place that is not there is one calm sentence."""
    assert says in run_replay("step", "order-1", "--app", APP, "--store", url, *options, code=2).stderr


# --- with lines fed to it ------------------------------------------------------------------------------------------


def fed(url: str, *lines: str, run: str = "order-1", app: str = APP) -> Result:
    """A session with these lines typed."""
    typed = "\n".join(lines) + "\n"
    return CliRunner(env={"COLUMNS": "100"}).invoke(
        replay.main, ["step", run, "--app", app, "--store", url], input=typed, catch_exceptions=False
    )


def test_a_session(url: str):
    """Forward, back, a jump, a search and an expression; the prompt says where one stands."""
    result = fed(
        url, "n", "", "b", "g end", "-e step attempt failed", "p len(receipt) == 13", "p order.id", "t", "h", "q"
    )
    assert result.exit_code == 0
    assert re.findall(r"^\((\d+)/", result.output.replace(") (", ")\n("), re.M)[:4] == ["0", "1", "2", "1"]
    assert "\nTrue\n" in result.output.replace(") True", ")\nTrue")
    assert f"→ {line_of('yield from ship(order)'):4} " in result.output
    assert "* " not in result.output.split("variables")[0]
    assert "+ order = Order(id=1, amount=10)" in result.output
    assert "the workflow has returned" in result.output
    assert "ConnectionError: no van for order 1" in result.output
    assert "forward one event" in result.output


def test_mistakes_end_no_session(url: str):
    """What cannot be done is said, and the session goes on; the end of the input ends it."""
    result = fed(url, "g 99", "g x", "e", "e nonsense", "w 1 +", "p nothing", "xyzzy", "-s ship", "n")
    for says in ("numbered 0 to", "no number of events", "e what?", "no kind", "no expression", "no local variable"):
        assert says in result.output
    assert "there is no command 'xyzzy'" in result.output
    assert "nothing of that before event 0" in result.output
    assert result.exit_code == 0


def test_code_that_has_changed(url: str):
    """Changed code is walked up to where it leaves the history, and the reason is shown there."""
    result = fed(url, "g end", "g 2", app="tests.tools.shop_changed")
    assert "today's code goes no further: HistoryMismatch" in result.output
    assert "the code goes no further" in result.output


def test_commands_are_read_as_people_type_them():
    """Long words, signs and bare numbers."""
    assert parsed("next 3") == ("n", "3")
    assert parsed(" -event step failed ") == ("-e", "step failed")
    assert parsed("/no van") == ("/", "no van")
    assert parsed("-/ x") == ("-/", "x")
    assert parsed("17") == ("g", "17")


def test_looking_back_for_a_condition(made: Path):
    """Back is the last place before this one at which it became true."""
    session: Session = session_of("order-1", APP, f"lmdb:{made}")
    session.at = session.walk.last - 1
    assert session.seek("-w", "receipt is not None") == 2
    assert session.seek("-l", str(line_of("receipt = yield"))) == 1
    with pytest.raises(BadOption, match="nothing of that before"):
        session.seek("-w", "order.id == 2")


def test_completion(url: str):
    """Run ids, kinds of event, and the names in that run's history are completed."""
    assert completions("replay", "step", "--store", url, "order-") == ["order-3", "order-2", "order-1"]
    assert completions("replay", "step", "order-1", "--store", url, "--step", "") == ["charge", "ship"]
    assert completions("replay", "step", "order-1", "--event", "timerf") == ["TimerFired"]
    assert completions("replay", "step", "nobody", "--store", url, "--step", "") == []


# --- in a terminal -------------------------------------------------------------------------------------------------


class Terminal:
    """A program in a pseudo-terminal, talked to as a person would."""

    def __init__(self, *command: str, **env: str) -> None:
        self.master, slave = pty.openpty()
        env = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40", "PYTHONPATH": str(ROOT)} | env
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT)
        os.close(slave)
        self.unread = self.raw = ""

    def until(self, text: str) -> str:
        """Read until a text comes, and answer what came up to its end, without colours; the rest is for next time."""
        while text not in self.unread:
            assert select.select([self.master], [], [], 60)[0], f"no {text!r} in {self.unread!r}"
            try:
                data = os.read(self.master, 65536)
            except OSError:
                raise AssertionError(f"it ended without {text!r}: {self.unread!r}") from None
            self.raw += data.decode("utf-8", "replace")
            self.unread = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.unread + data.decode("utf-8", "replace"))
        got, _, self.unread = self.unread.partition(text)
        return got + text

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self.master, f"{line}\n".encode())

    def to_the_end(self) -> None:
        """Read whatever else it says before it ends."""
        try:
            while data := os.read(self.master, 65536):
                self.raw += data.decode("utf-8", "replace")
        except OSError:  # nobody has it open any more
            pass

    def end(self) -> int:
        """Wait until it has ended."""
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()
            os.close(self.master)


def test_in_a_terminal(url: str):
    """In a real terminal the screen is drawn anew at each event, and q leaves."""
    terminal = Terminal(
        sys.executable, "-m", "dalsegno.tools.replay", "step", "order-1", "--app", APP, "--store", url, "--at", "1"
    )
    terminal.until("(1/")
    terminal.type("n")
    assert "+ receipt = 'receipt 1: 10'" in terminal.until("(2/")
    terminal.type("b")
    assert "step completed charge" in terminal.until("(1/")
    terminal.type("q")
    assert terminal.end() == 0
