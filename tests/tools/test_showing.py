"""`replay show` in the terminal and as data: children below their parent, what waits, and what is missing."""

from __future__ import annotations

import json

from dalsegno.core import events as ev
from dalsegno.core.store import open_store
from tests.tools import shop
from tests.tools.conftest import Cli
from tests.tools.histories import BEGAN, CODEC, child_started, new_run, started

APP = "tests.tools.shop"


def test_children_are_drawn_below_the_event_that_started_them(run_replay: Cli, url: str):
    """--children draws the events of children further in, on the clock of the run that was asked for."""
    lines = run_replay("show", "both-1", "--children", "1", "--store", url).stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if "child started" in line)
    assert "  run started" in lines[at + 1]
    assert "  step completed" in lines[at + 2]
    assert lines[at + 2].index("step completed") == lines[at].index("child started") + 2
    assert "+0 " not in lines[at + 1]
    assert run_replay("show", "both-1", "--store", url).stdout.count("run started") == 1


def test_children_as_data(run_replay: Cli, url: str):
    """--json has a child's run at the event that started it, or why it is not shown."""
    shown = json.loads(run_replay("show", "both-1", "--children", "1", "--payloads", "--store", url, "--json").stdout)
    child = shown["events"][1]["child"]
    assert child["run"]["parent"] == "both-1#1"
    assert child["events"][1]["payload"]["json"] == "receipt 7: 10"
    without = json.loads(run_replay("show", "both-1", "--store", url, "--json").stdout)
    assert without["events"][1]["left_out"] == "children are not shown"
    assert [event["kind"] for event in without["events"]] == ["run", "child", "child", "child", "child", "run"]


def test_the_wait_for_another_attempt_as_data(run_replay: Cli, url: str):
    """An attempt that failed says when the next one began."""
    events = json.loads(run_replay("show", "order-1", "--store", url, "--json").stdout)["events"]
    failed = next(event for event in events if event["event"] == "StepAttemptFailed")
    following = next(event for event in events if event["event"] == "StepCompleted" and event["id"] == failed["id"])
    assert failed["retried_at"] == following["began_at"]
    assert following["retried_at"] is None


def test_code_tells_what_an_open_run_waits_for(run_replay: Cli, url: str):
    """With --app a wait that has left no event is a line without a number, and is apart from events in the data."""
    lines = run_replay("show", "order-3", "--app", APP, "--store", url).stdout.splitlines()
    assert lines[-1].split()[3:7] == ["waits", "2", "receive", "approval"]
    assert "▸" in lines[-1]
    data = json.loads(run_replay("show", "order-3", "--app", APP, "--store", url, "--json").stdout)
    assert [(one["index"], one["name"]) for one in data["pending"]] == [(None, "receive approval")]
    assert len(data["events"]) == 3
    assert json.loads(run_replay("show", "order-3", "--store", url, "--json").stdout)["pending"] == []


def test_pending_waits_stand_at_the_end_only(run_replay: Cli, url: str):
    """Around an event in the middle, what waits at the end is not drawn."""
    with open_store(url) as opened:
        signals = [ev.SignalReceived(BEGAN + n, n, "unasked", CODEC.encode(n)) for n in range(1, 21)]
        opened.create([new_run([started(0, "long-1", "fulfil", shop.Order(1)), *signals])])
    assert "in flight" not in run_replay("show", "long-1", "--around", "3", "--app", APP, "--store", url).stdout
    assert "in flight" in run_replay("show", "long-1", "--around", "20", "--app", APP, "--store", url).stdout


def test_code_that_does_not_fit_is_a_warning(run_replay: Cli, url: str):
    """Code that left the recorded path cannot tell what a run waits for; the timeline is shown all the same."""
    shown = run_replay("show", "order-3", "--app", "tests.tools.shop_changed", "--store", url)
    assert "the code cannot tell what order-3#1 waits for" in shown.stderr
    assert "step completed" in shown.stdout


def test_what_is_left_out_is_counted(run_replay: Cli, url: str):
    """Children that were asked for and are not shown are counted by reason."""
    with open_store(url) as opened:
        opened.create(
            [new_run([started(0, "lonely-1"), *(child_started(str(n), "pack", n, f"gone-{n}") for n in (1, 2, 3))])]
        )
    assert "3 children left out: its history is not in this store" in run_replay(
        "show", "lonely-1", "--children", "2", "--store", url
    ).stderr.replace("\n", " ")
