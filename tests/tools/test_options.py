"""What commands share: progress that keeps quiet, statuses, and the console."""

from __future__ import annotations

import io
import shutil
import sys
from contextlib import redirect_stderr
from itertools import count

import pytest

from dalsegno.core.store import Status
from dalsegno.tools import options
from dalsegno.tools.options import busy, console, statuses, watched
from tests.tools.conftest import Cli
from tests.tools.test_stepping import Terminal as RealTerminal


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal to stand for stderr."""
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_short_work_shows_no_bar(terminal: Terminal):
    """Under a second nothing is drawn, and the items are what they were."""
    with redirect_stderr(terminal):
        assert list(watched([1, 2, 3], "counting")) == [1, 2, 3]
    assert "counting" not in terminal.getvalue()


def test_long_work_shows_a_bar(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    """After a second there is a bar, with how many of how many."""
    seconds = count()
    monkeypatch.setattr(options, "monotonic", lambda: float(next(seconds)))
    with redirect_stderr(terminal):
        assert list(watched(range(5), "counting")) == list(range(5))
    assert "counting" in terminal.getvalue()
    assert "/5" in terminal.getvalue()


def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """In a pipe or a log there is none, however long it takes."""
    seconds = count()
    monkeypatch.setattr(options, "monotonic", lambda: float(next(seconds)))
    assert sum(watched(iter(range(5)), "counting")) == 10
    with busy("verifying"):
        pass
    assert capsys.readouterr().err == ""


def test_busy_says_what_goes_on(terminal: Terminal):
    """One call that takes as long as it takes has a line while it does."""
    with redirect_stderr(terminal), busy("verifying checksums"):
        pass
    assert "verifying checksums" in terminal.getvalue()


def test_statuses():
    """`open` and `closed` stand for several, each is there once."""
    assert statuses(["open"]) == (Status.RUNNING, Status.PAUSED, Status.BLOCKED)
    assert statuses(["running", "open", "failed"]) == (*statuses(["open"]), Status.FAILED)
    assert len(statuses(["open", "closed"])) == len(Status)


def test_the_console(monkeypatch: pytest.MonkeyPatch):
    """Without a terminal lines are long and there are no colours; COLUMNS decides where it is set."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert console().width == 160
    assert console().color_system is None
    monkeypatch.setenv("COLUMNS", "70")
    assert console().width == 70


LONG = (["ls"], ["show", "order-1"], ["diff", "order-1", "order-3"], ["stats"], ["where", "--app", "tests.tools.shop"])


@pytest.mark.parametrize("words", LONG, ids=lambda words: words[0])
def test_a_pager_for_what_is_longer_than_the_screen(words: list[str], url: str):
    """On a terminal, what does not fit goes through $PAGER; what does fit is just printed."""
    command = [sys.executable, "-m", "dalsegno.tools.replay", *words, "--store", url]
    for lines, paged in (("4", True), ("60", False)):
        terminal = RealTerminal(*command, LINES=lines, PAGER="sed s/^/PAGED:/")
        terminal.to_the_end()
        terminal.end()
        assert ("PAGED:" in terminal.raw) is paged, terminal.raw


def test_no_pager_without_a_terminal(run_replay: Cli, url: str, monkeypatch: pytest.MonkeyPatch):
    """In a pipe nothing waits for a key."""
    monkeypatch.setenv("PAGER", "false")
    assert "order-1" in run_replay("ls", "--store", url, COLUMNS="160", LINES="3").stdout


@pytest.mark.skipif(shutil.which("less") is None, reason="the program less is not installed")
def test_less_shows_colours(url: str):
    """Without $PAGER it is less, with colours, and leaving it early is no error."""
    command = [sys.executable, "-m", "dalsegno.tools.replay", "ls", "--store", url]
    terminal = RealTerminal(*command, LINES="4", PAGER="", LESS="")
    terminal.until("both-1/2")
    terminal.type("q")
    terminal.to_the_end()
    assert terminal.end() == 0
    assert "\x1b[32mcompleted" in terminal.raw
