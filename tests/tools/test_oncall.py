"""`replay why`: what it says of runs in every state, with and without code, and which commands it proposes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import attrs
import pytest

from dalsegno import Engine, RunBlocked
from dalsegno.core import events as ev
from dalsegno.core.events import Event
from dalsegno.core.history import decode_history, encode_event
from dalsegno.core.store import Backend, Lease, NewRun, RunRecord, Status, open_store
from dalsegno.core.values.codec import Codec
from dalsegno.tools import operate, replay
from dalsegno.tools.explaining import Case, why
from dalsegno.tools.stores import Kept, find_run, read_run
from dalsegno.tools.text import iso
from tests.tools import shop
from tests.tools.conftest import Cli

APP = ("--app", "tests.tools.shop")
CODEC = Codec()
SECOND = 1_000_000


def told(run_replay: Cli, url: str, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_replay("why", *args, "--store", url, "--json").stdout)
    for one in found["advice"]:  # what is proposed can be typed
        words = shlex.split(one["command"])
        group = {"replay": replay.main, "dalsegno": operate.main}[words[0]]
        command = group.commands[words[1]]
        command.make_parser(command.make_context(words[1], [], resilient_parsing=True)).parse_args(words[2:])
    return found


def explained(
    store: Backend, id: str, now_us: int | None = None, events: list[Event] | None = None, **record: Any
) -> str:
    """The paragraph on a run, perhaps with another record or history."""
    kept = read_run(store, find_run(store, id))
    kept = attrs.evolve(kept, record=attrs.evolve(kept.record, **record))
    if events is not None:
        kept = Kept(kept.record, tuple(map(encode_event, events)), tuple(events))
    last = kept.events[-1].at_us
    return " ".join(why(Case(kept=kept, inbox=(), now_us=now_us or last + SECOND, codec=CODEC)).sentences)


# --- runs that wait --------------------------------------------------------------------------------------------------


def test_a_signal_by_the_code(run_replay: Cli, url: str):
    """With code: the line and its source, the signal, since when, the inbox, and the command that sends it."""
    found = told(run_replay, url, "order-3", *APP)
    (wait,) = found["waits"]
    assert (wait["kind"], wait["name"], wait["source"]) == (
        "receive", "approval", 'approval = yield from Receive("approval", Approval)',
    )  # fmt: skip
    assert found["by_code"] is True
    assert "It waits at shop.py:" in found["text"]
    assert "for receive 'approval' since" in found["text"]
    assert "not taken in yet" in found["text"]
    assert "signal 'late'" in found["text"]
    commands = [one["command"] for one in found["advice"]]
    assert f"dalsegno signal order-3 approval null --store {url}" in commands


def test_since_when_it_waits(store: Backend, run_replay: Cli, url: str):
    """A wait that left no event began with the event after which the code reached it."""
    found = told(run_replay, url, "order-3", *APP)
    record = store.find("order-3")
    assert record is not None
    charged = next(e for e in decode_history(store.history(record.number)) if isinstance(e, ev.StepCompleted))
    assert found["waits"][0]["since"] == iso(charged.at_us)


def test_a_signal_without_code(run_replay: Cli, url: str):
    """Without code: after which line it stands, and that its code would tell more."""
    found = told(run_replay, url, "order-3")
    assert found["waits"] == []
    assert "It stands after line" in found["text"]
    assert found["advice"][-1]["command"].startswith("replay why 'order-3#1' --app MODULE")


def test_a_timer(run_replay: Cli, url: str, store: Backend):
    """A timer is known without code, with its deadline; one that is overdue says that nobody works."""
    found = told(run_replay, url, "nap-1")
    assert found["waits"][0]["kind"] == "sleep"
    assert "it is over" in found["text"]
    assert "Nothing needs to be done." in found["text"]
    deadline = found["waits"][0]["until"]
    assert deadline > found["waits"][0]["since"]
    late = explained(store, "nap-1", now_us=2**52)
    assert "overdue" in late
    assert "start a worker" in late


def test_attempts_that_failed(store: Backend):
    """The attempts so far, the next one, and the error."""
    events = [
        ev.RunStarted(0, "fulfil", "order-3", 1, CODEC.encode_call((), {}), b""),
        *(
            ev.StepAttemptFailed(
                at * SECOND, "1", "ship", b"", 7, at, 5, CODEC.encode_error(OSError("no van")), (at + 10) * SECOND
            )
            for at in (1, 2)
        ),
    ]
    said = explained(store, "order-3", now_us=3 * SECOND, events=events)
    assert "It waits at line 7 for step 'ship'" in said
    assert "after 2 attempts that failed" in said
    assert "(in 9.00 s)" in said
    assert "OSError: no van" in said
    assert "event 2 (step attempt failed of 'ship', attempt 2)" in said


def test_a_step_whose_outcome_is_not_known(store: Backend):
    """A step that may run once, and began, is said to be in doubt."""
    events = [
        ev.RunStarted(0, "fulfil", "order-3", 1, CODEC.encode_call((), {}), b""),
        ev.StepStarted(5, "1", "charge", b"", 7, 1),
    ]
    assert "has begun, and its outcome is not known" in explained(store, "order-3", events=events)


def test_a_child(store: Backend):
    """A child that has not ended is named, with the command that asks about it."""
    events = [
        ev.RunStarted(0, "both", "both-1", 1, CODEC.encode_call((7, 8), {}), b""),
        ev.ChildStarted(5, "1", "quick", b"", 7, "both-1/1"),
    ]
    said = explained(store, "both-1", events=events, status=Status.RUNNING)
    assert "for child 'quick', run both-1/1," in said
    assert "see why its child both-1/1 has not ended" in said


def test_code_that_does_not_fit(run_replay: Cli, url: str):
    """Code that would block the run is said to, with the event and the cause."""
    found = told(run_replay, url, "order-3", "--app", "tests.tools.shop_changed")
    assert "at event 1 it yields step 'reserve'" in found["problem"]
    assert "nothing in the code calls step 'charge'" in found["text"]
    assert any(one["command"].startswith("replay verify 'order-3#1'") for one in found["advice"])
    missing = told(run_replay, url, "nap-1", "--app", "tests.tools.shop_changed")
    assert "has no workflow 'nap'" in missing["text"]


# --- runs that are held up --------------------------------------------------------------------------------------------


def test_paused_and_blocked(store: Backend):
    """What holds a run up is told with its reason, and how to let it go on."""
    paused = explained(store, "nap-1", status=Status.PAUSED, reason="the warehouse is closed")
    assert "is paused: the warehouse is closed" in paused
    assert "To go on: resume it." in paused
    reason = "workflow 'nap-1' left its recorded path at event 1\n  differs   name\n  cause     a step was renamed\nSee"
    blocked = explained(store, "nap-1", status=Status.BLOCKED, reason=reason)
    assert "is blocked: workflow 'nap-1' left its recorded path at event 1 (a step was renamed)" in blocked
    assert "start a worker with that code" in blocked
    assert "if it is not what kills" in explained(store, "nap-1", status=Status.BLOCKED, reason="quarantined: 5 times")


def test_a_run_that_a_payload_blocks(run_replay: Cli, tmp_path: Path):
    """Mended code is not what it needs: it is forked where the payload came, with one that fits, and that goes on."""
    url = f"lmdb:{tmp_path / 'store'}"
    with Engine(url, workflows=[shop.fulfil]) as engine:
        run = engine.start(shop.fulfil, shop.Order(5), id="order-5")
        run.signal_json("approval", {"granted": "perhaps"})
        with pytest.raises(RunBlocked, match="does not fit Approval"):
            run.result(timeout=10)
    found = told(run_replay, url, "order-5", *APP)
    assert "fork it at event 2 with a payload that fits" in found["text"]
    words = shlex.split(found["advice"][0]["command"])
    words[words.index("--set") + 1] = 'result={"granted": false, "by": "ada"}'
    forked = json.loads(run_replay(*words[1:], "--json").stdout)
    with Engine(url, workflows=[shop.fulfil]) as engine:
        assert engine.get(forked["id"]).result(timeout=10) == "refused by ada"


@pytest.mark.parametrize(
    ("lease", "said", "valid"),
    [
        ({"renewed_us": -2_000_000}, "its lease of 10.0 s was renewed", True),
        ({"renewed_us": -60_000_000}, "has run out: the process is frozen or cut off", False),
        ({"renewed_us": 0, "ended": True}, "its process has ended, and another worker takes the run over", False),
    ],
)
def test_whether_the_lease_of_who_holds_it_is_valid(lease, said, valid):
    """A lease is valid as long as it is renewed in time and its process lives."""
    held = Lease(
        owner="host-7",
        length_us=10_000_000,
        number=1,
        **{**lease, "renewed_us": 1_767_225_600_000_000 + lease["renewed_us"]},
    )
    record = RunRecord(
        number=1, workflow_id="w", generation=1, workflow="w", status=Status.RUNNING, active=True,
        created_at_us=1_767_225_600_000_000, digest=b"", owner="host-7", epoch=3,
    )  # fmt: skip
    case = Case(kept=Kept(record, (), ()), inbox=(), now_us=1_767_225_600_000_000, codec=Codec(), lease=held)
    found = why(case)
    assert said in " ".join(found.sentences)
    assert found.lease_is_valid is valid


def test_who_holds_it(store: Backend):
    """The engine that claimed it, and how often one died over it."""
    said = explained(store, "nap-1", owner="host-7", epoch=3, deaths=2)
    assert "host-7 has claimed it (claim 3)." in said
    assert "A process died 2 times" in said
    assert "No engine has claimed it." in explained(store, "nap-1", owner="")


# --- runs that have ended ---------------------------------------------------------------------------------------------


def test_a_failed_run(run_replay: Cli, url: str):
    """It says with which error it failed, and proposes to fork it where it did."""
    found = told(run_replay, url, "stock-1")
    assert "has ended, failed" in found["text"]
    assert "ValueError: the shelf 'top' is empty" in found["text"]
    assert found["advice"][0]["command"].startswith("replay fork 'stock-1#1' --at 1 --app MODULE")


def test_a_failure_is_traced_to_its_line(run_replay: Cli, url: str, store: Backend):
    """A run that failed of a step or child says of which event, and at which line; of a child, it is looked at next."""
    found = told(run_replay, url, "stock-1", *APP)
    assert found["last_error"]["cause"] == 1
    assert "It came out of event 1 (step failed 'count', line " in found["text"]
    assert ".. " not in found["text"]
    parent = find_run(store, "both-1")
    begun, asked = decode_history(store.history(parent.number, 0, 2))
    assert isinstance(asked, ev.ChildStarted)
    error = CODEC.encode_error(ValueError("no stock."))
    events = [begun, asked, ev.ChildFailed(asked.at_us, 9, asked.id, error), ev.RunFailed(asked.at_us, error)]
    said = explained(store, "both-1", events=events, status=Status.FAILED, closed_at_us=asked.at_us)
    assert f"It came out of event 2 (child failed, line {asked.line})." in said
    assert "see why its child both-1/1 failed; mend the code" in said
    own = explained(store, "both-1", events=[begun, events[3]], status=Status.FAILED, closed_at_us=asked.at_us)
    assert "It came out" not in own


def test_a_run_that_is_done(run_replay: Cli, url: str):
    """Nothing is to be done for a run that completed."""
    found = told(run_replay, url, "order-1", *APP)
    assert found["advice"] == []
    assert "completed" in found["text"]
    shown = run_replay("why", "order-1", "--store", url).stdout
    assert "Nothing needs to be done." in shown


def test_a_run_that_went_on(store: Backend):
    """A run that continued as new points to the one it became."""
    assert "it went on as nap-1#2" in explained(store, "nap-1", status=Status.CONTINUED, closed_at_us=2**51)


def test_half_a_history(url: str, run_replay: Cli):
    """What cannot be read is said to be so."""
    with open_store(url) as opened:
        record = opened.find("nap-1")
        assert record is not None
        events = (*opened.history(record.number), b"\x92\xcd\x27\x0f\x01")
        opened.create(
            [NewRun(workflow_id="half", workflow="nap", events=events, created_at_us=1, digest=record.digest)]
        )
    found = told(run_replay, url, "half", *APP)
    assert "Its history can be read up to event 2" in found["text"]


def test_nothing_acts_on_the_terminal(store: Backend, url: str, run_replay: Cli):
    """Names with escape sequences come out as text, in the paragraph and in the commands."""
    record = store.find("nap-1")
    assert record is not None
    events = tuple(store.history(record.number))
    store.create(
        [NewRun(workflow_id="nap\x1b[2J", workflow="nap", events=events, created_at_us=1, digest=record.digest)]
    )
    shown = run_replay("why", "nap\x1b[2J", "--store", url).stdout
    assert "\x1b" not in shown


@pytest.mark.parametrize("id", ["order-1", "order-3", "stock-1", "nap-1", "both-1"])
@pytest.mark.parametrize("app", [(), APP])
def test_every_run_is_explained(run_replay: Cli, made: Path, id: str, app: tuple[str, ...]):
    """Whatever a run is at, the paragraph begins with what it is and every command can be typed."""
    found = told(run_replay, f"lmdb:{made}", id, *app)
    assert found["text"].startswith(f"{id}#1 (")
