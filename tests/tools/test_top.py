"""`replay top`: frames for people and programs, and a live view in a real terminal, which leaves it as it was."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import termios
from collections.abc import Callable

import pytest
from rich.console import Console

from dalsegno import Client
from dalsegno.core.store import Status
from dalsegno.tools.overview import overview
from dalsegno.tools.render import STATUS_STYLES
from dalsegno.tools.watching import Frame, Rates
from tests.tools import shop
from tests.tools.conftest import Cli
from tests.tools.test_stepping import Terminal


def test_one_frame(run_replay: Cli, url: str):
    """Without a terminal, or with --once, one frame is printed: counts, rates, workflows, who waits."""
    for options in ([], ["--once"]):
        shown = run_replay("top", "--store", url, *options).stdout
        assert url[:79] in shown
        assert "8 runs" in shown
        assert "2 running  5 completed  1 failed" in shown
        assert "(over the last minute)" in shown
        assert "fulfil" in shown
        assert "nap-1#1" in shown
        assert "sleep, due in 2d" in shown
        assert "ValueError: the shelf 'top' is empty" in shown
        assert "q leaves" not in shown


def test_one_frame_as_data(run_replay: Cli, url: str):
    """--json alone prints one document."""
    frame = json.loads(run_replay("top", "--store", url, "--json").stdout)
    assert frame["workflows"]["fulfil"] == {"completed": 2, "running": 1}
    assert frame["statuses"]["failed"] == 1
    assert [one["run_id"] for one in frame["waiting"]] == ["order-3#1", "nap-1#1"]
    assert {one["step"]: one["failed"] for one in frame["failing"]} == {"count": 1}
    assert frame["complete"]


def test_frames_as_lines(run_replay: Cli, url: str):
    """With --count or --interval each line is a frame; from the second on, rates are those since the one before."""
    done = run_replay("top", "--store", url, "--json", "--count", "3", "--interval", "10ms")
    first, *later = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["rates"]["over_s"] == 60
    assert [frame["rates"]["events"] for frame in later] == [0, 0]
    assert done.stdout.count("\n") == 3
    shown = run_replay("top", "--store", url, "--count", "2", "--interval", "10ms").stdout
    assert shown.count("8 runs") == 2


def test_options_that_exclude_each_other(run_replay: Cli, url: str):
    """One frame has no interval."""
    assert "--once is one frame" in run_replay("top", "--once", "--count", "2", "--store", url, code=2).stderr


def test_it_fits_on_the_screen():
    """However many workflows there are, a frame takes no more lines than it is given."""
    many = {f"workflow-{number}": {"running": number + 1} for number in range(40)}
    statuses = dict.fromkeys((status.value for status in Status), 7)
    frame = Frame(
        at_us=0, runs=56, counted=40, complete=False, statuses=statuses, file_bytes=1, workflows=many, waiting=(),
        rates=Rates(over_s=2, started=1234.5, closed=12.34, steps=0.25, events=0), failing=(),
    )  # fmt: skip
    out = Console(width=100, record=True, file=io.StringIO())
    out.print(overview(frame, "lmdb:x", height=24))
    shown = out.export_text()
    assert shown.count("\n") <= 24
    assert "(40 counted so far)" in shown
    assert "a second: 1,234 started, 12.3 ended, 0.25 steps, 0 events (over 2.00 s)" in shown
    assert "workflow-39" in shown
    assert "and 30 more" in shown
    assert set(STATUS_STYLES) == set(Status)


# --- live ----------------------------------------------------------------------------------------------------------


def by_key(terminal: Terminal) -> None:
    os.write(terminal.master, b"xq")


def by_interrupt(terminal: Terminal) -> None:
    terminal.process.send_signal(signal.SIGINT)


def by_signal(terminal: Terminal) -> None:
    terminal.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("leave", [by_key, by_interrupt, by_signal])
def test_live(leave: Callable[[Terminal], None], url: str):
    """The view follows what happens in the store, on a screen of its own; leaving it puts the terminal back."""
    command = ("-m", "dalsegno.tools.replay", "top", "--store", url, "--interval", "50ms")
    terminal = Terminal(sys.executable, *command)
    before = termios.tcgetattr(terminal.master)
    terminal.until("8 runs")
    terminal.until("q leaves; every 50.0 ms")
    with Client(url) as client:
        client.start(shop.quick, 1, id="new")
    terminal.until("9 runs")
    terminal.until("quick")
    leave(terminal)
    terminal.to_the_end()
    assert termios.tcgetattr(terminal.master) == before
    assert terminal.end() == 0
    assert terminal.raw.index("\x1b[?1049h") < terminal.raw.index("9 runs") < terminal.raw.index("\x1b[?1049l")
