"""Forks: which histories they get, what runs on from them, and what a rehearsal says without writing anything."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dalsegno import Engine, collect
from dalsegno.core import events as ev
from dalsegno.core.history import decode_history
from dalsegno.core.store import open_store
from dalsegno.tools import replay
from tests.tools import shop
from tests.tools.conftest import Cli, everything

APP = ("--app", "tests.tools.shop")


def events_of(url: str, id: str) -> list[ev.Event]:
    with open_store(url) as store:
        record = store.find(id)
        assert record is not None
        return decode_history(store.history(record.number))


def place(url: str, id: str, kind: type[ev.Event]) -> str:
    """Where the first event of this kind stands."""
    return str(next(index for index, event in enumerate(events_of(url, id)) if isinstance(event, kind)))


def result_of(url: str, id: str) -> Any:
    with Engine(url, workflows=collect(shop)) as engine:
        return engine.get(id).result(timeout=10)


def rehearsed(run_replay: Cli, url: str, *args: str, code: int = 0) -> dict[str, Any]:
    done = run_replay("fork", *args, *APP, "--dry-run", "--store", url, "--json", code=code)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- real forks ------------------------------------------------------------------------------------------------------


def test_a_plain_prefix_goes_on(run_replay: Cli, url: str):
    """A fork keeps the events before N, remembers where it comes from, and runs the rest anew."""
    at = place(url, "order-1", ev.StepAttemptFailed)
    done = json.loads(run_replay("fork", "order-1", "--at", at, "--id", "again", "--store", url, "--json").stdout)
    assert done == {
        "id": "again",
        "run_id": "again#1",
        "origin": f"forked from order-1#1 at {at}",
        "events": int(at),
        "made": [],
    }
    first = events_of(url, "again")[0]
    assert isinstance(first, ev.RunStarted)
    assert (first.origin, first.workflow_id, first.parent) == (done["origin"], "again", ())
    assert result_of(url, "again") == "receipt 1: 10"
    run_replay("check", "--store", url)


def test_another_result(run_replay: Cli, url: str):
    """--set gives the step of event N another result, and the workflow goes on with it."""
    at = place(url, "stock-1", ev.StepFailed)
    shown = run_replay("fork", "stock-1", "--at", at, "--set", "result=7", "--id", "seven", *APP, "--store", url)
    assert "seven#1 forked from stock-1#1 at 1: 1 events kept, then step completed" in shown.stderr
    assert result_of(url, "seven") == 7


def test_another_error(run_replay: Cli, url: str):
    """--raise lets it fail, with a built-in type or with one that the app's modules know."""
    at = place(url, "order-1", ev.StepCompleted)
    run_replay("fork", "order-1", "--at", at, "--raise", "OSError:no line", "--id", "off", *APP, "--store", url)
    with pytest.raises(OSError, match="no line"):
        result_of(url, "off")
    assert (
        "write Type:message"
        in run_replay("fork", "order-1", "--at", at, "--raise", "no such thing", *APP, "--store", url, code=2).stderr
    )


def test_a_step_passed_over(run_replay: Cli, url: str):
    """--skip lets a step answer None, whatever became of its attempts."""
    at = place(url, "order-1", ev.StepAttemptFailed)
    run_replay("fork", "order-1", "--at", at, "--skip", "--id", "skipped", *APP, "--store", url)
    assert result_of(url, "skipped") == "receipt 1: 10"


def test_signals(run_replay: Cli, url: str):
    """A signal of the prefix can bring something else, or not have come."""
    at = place(url, "order-1", ev.SignalReceived)
    run_replay(
        "fork", "order-1", "--at", at, "--set", 'payload={"granted": false, "by": "eve"}', "--id", "no", "--store", url
    )
    assert result_of(url, "no") == "refused by eve"
    run_replay("fork", "order-1", "--at", at, "--skip", "--id", "never", *APP, "--store", url)
    assert not any(isinstance(event, ev.SignalReceived) for event in events_of(url, "never"))
    assert (
        "for which there is --set or --skip"
        in run_replay("fork", "order-1", "--at", at, "--raise", "OSError:x", *APP, "--store", url, code=2).stderr
    )


def test_a_sleep_passed_over(run_replay: Cli, url: str):
    """A timer that is still running is over at once in the fork."""
    run_replay("fork", "nap-1", "--at", place(url, "nap-1", ev.TimerSet), "--skip", "--id", "awake", "--store", url)
    assert result_of(url, "awake") == "rested"
    run_replay("fork", "nap-1", "--at", "2", "--skip", "--id", "awake-2", *APP, "--store", url)
    assert result_of(url, "awake-2") == "rested"


def test_a_child_that_answered_otherwise(run_replay: Cli, url: str):
    """The outcome of a child is replaced where it answered; the other child is started anew."""
    at = place(url, "both-1", ev.ChildCompleted)
    run_replay("fork", "both-1", "--at", at, "--set", 'result="x, "', "--id", "both-2", *APP, "--store", url)
    assert result_of(url, "both-2") == "x, receipt 8: 10"


def test_a_child_that_is_started_again(run_replay: Cli, url: str):
    """A child that had not answered within the prefix runs again as the fork's own; it is shown, and check agrees."""
    at = place(url, "both-1", ev.ChildCompleted)
    run_replay("fork", "both-1", "--at", at, "--id", "anew", "--store", url)
    assert result_of(url, "anew") == "receipt 7: 10receipt 8: 10"
    run_replay("check", "--store", url)
    shown = json.loads(run_replay("show", "anew", "--children", "1", "--store", url, "--json").stdout)
    children = [event["child"]["run"] for event in shown["events"] if "child" in event]
    assert [(child["id"], child["parent"]) for child in children] == [("anew/1", "anew#1"), ("anew/2", "anew#1")]


def test_where_no_outcome_can_be_replaced(run_replay: Cli, url: str):
    """The start, a decision or the end have none, and the message says what to name instead."""
    end = str(len(events_of(url, "order-1")) - 1)
    at = place(url, "both-1", ev.ChildStarted)
    for run, number, why in (
        ("order-1", end, "run completed"),
        ("order-1", "99", "forked at 1 to"),
        ("both-1", at, "child started"),
    ):
        refused = run_replay("fork", run, "--at", number, "--set", "result=1", "--store", url, code=2)
        assert why in refused.stderr
    assert "say with --app" in run_replay("fork", "nap-1", "--at", "2", "--skip", "--store", url, code=2).stderr
    assert (
        "exclude each other"
        in run_replay("fork", "nap-1", "--at", "1", "--skip", "--set", "result=1", "--store", url, code=2).stderr
    )


def test_code_that_does_not_fit_writes_nothing(run_replay: Cli, url: str, store: Any):
    """With --app the prefix is replayed first; what does not fit leaves the store as it was."""
    before = everything(store)
    at = place(url, "order-1", ev.SignalReceived)
    refused = run_replay("fork", "order-1", "--at", at, "--app", "tests.tools.shop_changed", "--store", url, code=1)
    assert "left its recorded path at event 1" in refused.stderr
    run_replay("fork", "order-1", "--at", at, "--id", "order-2", "--store", url, code=1)
    assert everything(store) == before


def test_a_file_is_only_read(run_replay: Cli, url: str, tmp_path: Path):
    """A fork is not put into an exported file, but rehearsed from it."""
    file = tmp_path / "one.jsonl"
    run_replay("export", "order-1", str(file), "--store", url)
    refused = run_replay("fork", "order-1", "--at", "2", "--store", f"file:{file}", code=2)
    assert "is only read" in refused.stderr
    assert rehearsed(run_replay, f"file:{file}", "order-1", "--at", "2")["ended"] is True


# --- rehearsals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, 6))
def test_the_history_answers_itself(run_replay: Cli, url: str, at: int):
    """From wherever one starts, outcomes out of the history lead to the end it had, and nothing is written."""
    found = rehearsed(run_replay, url, "order-1", "--at", str(at))
    assert (found["ended"], found["stopped"]) == (True, "")
    different = {one["event"] for one in found["diff"]["divergences"]}
    assert different <= {"StepAttemptFailed", "StepCompleted"}  # an attempt that failed is not rehearsed
    with open_store(url) as store:
        assert not [record for record in store.runs() if "fork" in record.workflow_id]


def test_a_changed_outcome_is_compared(run_replay: Cli, url: str):
    """The difference that an outcome makes shows in the diff, up to the value returned."""
    at = place(url, "order-1", ev.StepCompleted)
    found = rehearsed(run_replay, url, "order-1", "--at", at, "--set", 'result="paid"')
    fields = {change["field"]: change["b"] for one in found["diff"]["divergences"] for change in one["differences"]}
    assert fields["result"] == "paid"
    shown = run_replay(
        "fork", "order-1", "--at", at, "--set", 'result="paid"', *APP, "--dry-run", "--store", url
    ).stdout
    assert "They part at event 1 of A, 1 of B" in shown
    assert "It ends: run completed. Nothing was written." in shown


def test_mended_code_is_walked_on(run_replay: Cli, url: str, tmp_path: Path):
    """Code that asks for more than the history knows stops there, and goes on with a file's answers."""
    changed = ("--app", "tests.tools.shop_changed", "--dry-run", "--store", url, "--json")
    stopped = json.loads(run_replay("fork", "order-1", "--at", "1", *changed, code=2).stdout)
    assert "no outcome is known for step 'reserve'" in stopped["stopped"]
    answers = tmp_path / "answers.json"
    answers.write_text('{"reserve": {"result": "van 7"}}')
    done = json.loads(run_replay("fork", "order-1", "--at", "1", *changed, "--answers", str(answers)).stdout)
    assert done["ended"] is True
    assert done["outcomes"] == {"history": 1, "file": 1, "asked": 0, "clock": 0}
    assert done["history"][-1]["fields"]["result"]["json"] == "ada"


def test_answers_that_fail_or_run_out(run_replay: Cli, url: str, tmp_path: Path):
    """What happened counts before what is made up; answers of another form are refused."""
    answers = tmp_path / "answers.json"
    answers.write_text('{"count": [{"raise": "KeyError:shelf"}]}')
    found = rehearsed(run_replay, url, "stock-1", "--at", "1", "--answers", str(answers))
    assert found["outcomes"]["history"] == 1
    answers.write_text('{"charge": [{"raise": "KeyError:shelf"}]}')
    at = place(url, "order-3", ev.StepCompleted)
    assert rehearsed(run_replay, url, "order-3", "--at", at, "--skip", code=2)["stopped"].startswith("no outcome")
    for wrong in ("[]", "{", '{"approval": 5}'):
        answers.write_text(wrong)
        args = ("order-3", "--at", "2", *APP, "--dry-run", "--answers", str(answers), "--store", url)
        assert "--answers" in run_replay("fork", *args, code=2).stderr


def test_a_person_is_asked(url: str):
    """With --ask, what is not known is asked for; nothing leaves it open."""
    args = ["fork", "order-3", "--at", "2", *APP, "--dry-run", "--ask", "--store", url, "--json"]
    done = CliRunner().invoke(replay.main, args, input='oops\n{"granted": false, "by": "eve"}\n')
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["outcomes"]["asked"] == 1
    assert found["history"][-1]["fields"]["result"]["json"] == "refused by eve"
    left = CliRunner().invoke(replay.main, args, input="\n")
    assert left.exit_code == 2


def test_time_passes_in_virtual_time(run_replay: Cli, url: str):
    """A sleep ends at once when nothing else can happen."""
    found = rehearsed(run_replay, url, "nap-1", "--at", "1")
    assert (found["ended"], found["outcomes"]["clock"]) == (True, 1)
    fired = next(event for event in found["history"] if event["event"] == "TimerFired")
    start = found["history"][0]["fields"]["at_us"]
    assert fired["fields"]["at_us"] - start >= timedelta(days=3) / timedelta(microseconds=1)


def test_children_are_not_started(run_replay: Cli, url: str):
    """A rehearsal takes what the children answered from the history."""
    found = rehearsed(run_replay, url, "both-1", "--at", "1")
    assert found["ended"] is True
    assert found["outcomes"]["history"] == 2


def test_options_that_need_each_other(run_replay: Cli, url: str):
    """A rehearsal needs code, and answers are for a rehearsal."""
    assert "say --app" in run_replay("fork", "nap-1", "--at", "1", "--dry-run", "--store", url, code=2).stderr
    assert "--dry-run" in run_replay("fork", "nap-1", "--at", "1", "--ask", "--store", url, code=2).stderr
