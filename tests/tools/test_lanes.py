"""Timelines as lanes: a command a lane, nested as the commands are."""

from __future__ import annotations

from dalsegno.core import events as ev
from dalsegno.core.events import Event
from dalsegno.core.store import NewRun
from dalsegno.tools.family import Limits, Member, family, with_pending
from dalsegno.tools.lanes import Lane, lanes
from dalsegno.tools.standing import Wait
from dalsegno.tools.timeline import Mark
from tests.tools.histories import (
    BEGAN,
    CODEC,
    attempt_failed,
    child_completed,
    child_started,
    completed,
    failed,
    fired,
    found,
    new_run,
    started,
    step,
    step_failed,
    store_of,
    timer,
)

NOW = BEGAN + 1_000


def member_of(*runs: NewRun, depth: int = 3) -> Member:
    """The family of order-1 among these runs."""
    store = store_of(*runs)
    return family(store, found(store, "order-1"), NOW, Limits(depth=depth))


def lanes_of(*events: Event) -> list[Lane]:
    """The lanes of one history, without the run's own."""
    _, drawn = lanes(member_of(new_run([started(0), *events])))
    assert drawn[0].kind == "run"
    return drawn[1:]


def shape(drawn: list[Lane]) -> list[str]:
    """The lanes as an indented list of names."""
    return ["  " * lane.depth + lane.name for lane in drawn]


def spans(lane: Lane) -> list[tuple[str, int, int | None]]:
    """What a lane has that has a length, on the clock of the tests."""
    return [
        (span.stretch.value, span.began_us - BEGAN, None if span.ended_us is None else span.ended_us - BEGAN)
        for span in lane.spans
    ]


def test_attempts_share_a_lane_with_the_waits_between():
    """A step that was tried again is one lane: attempt, wait, attempt, wait, attempt."""
    (lane,) = lanes_of(
        attempt_failed("1", "charge", 10, 20, 30), attempt_failed("1", "charge", 31, 40, 60, 2),
        step("1", "charge", 62, 70, "receipt", 3),
    )  # fmt: skip
    assert spans(lane) == [
        ("failed", 10, 20), ("backoff", 20, 31), ("failed", 31, 40), ("backoff", 40, 62), ("work", 62, 70)
    ]  # fmt: skip
    assert (lane.name, lane.tries, lane.mark, lane.line) == ("charge", 3, Mark.GOOD, 7)
    assert lane.events == [(0, 1), (0, 2), (0, 3)]
    assert [span.event for span in lane.spans] == [(0, 1), (0, 1), (0, 2), (0, 2), (0, 3)]


def test_a_step_with_a_bound_is_a_step():
    """The timer of a total_timeout comes first, and makes no wait of a step; what passes before its attempt is one."""
    bound = ev.TimerSet(BEGAN + 10, "1", "step", "charge", b"", 7, BEGAN + 900)
    (lane,) = lanes_of(bound, step("1", "charge", 40, 70, "receipt"), ev.TimerCancelled(BEGAN + 70, "1"))
    assert (lane.name, lane.kind) == ("charge", "step")
    assert spans(lane)[-1] == ("work", 40, 70)
    assert spans(lane)[0][:2] == ("wait", 10)


def test_a_step_that_may_run_once_is_one_span():
    """The start of a `once=True` step and its outcome are the same stretch; without an outcome it is still open."""
    began = ev.StepStarted(BEGAN + 10, "1", "label", b"digest", 7, 1)
    (lane,) = lanes_of(began, step("1", "label", 11, 20))
    assert spans(lane) == [("work", 11, 20)]
    (lane,) = lanes_of(began)
    assert spans(lane) == [("work", 10, None)]
    assert lane.ended_us is None


def test_waits_children_and_moments():
    """Timers and children have a length, messages and marks are points; what is open has no end."""
    drawn = lanes_of(
        timer("1", "receive", 10, 90, "approval"),
        ev.SignalReceived(BEGAN + 20, 1, "approval", CODEC.encode(True)),
        ev.TimerCancelled(BEGAN + 21, "1"),
        timer("2", "sleep", 30, 900),
        ev.SideEffectRecorded(BEGAN + 40, "3", "dice", b"digest", 7, CODEC.encode(4)),
        ev.SignalReceived(BEGAN + 50, 2, "approval", CODEC.encode(False)),
    )
    assert [(lane.name, lane.kind) for lane in drawn] == [
        ("receive approval", "wait"), ("signal approval", "message"), ("sleep", "wait"), ("side effect dice", "mark")
    ]  # fmt: skip
    assert spans(drawn[0]) == [("wait", 10, 21)]
    assert [point.at_us - BEGAN for point in drawn[1].points] == [20, 50]
    assert spans(drawn[2]) == [("wait", 30, None)]
    assert drawn[2].spans[0].due_us == BEGAN + 900
    assert [point.at_us - BEGAN for point in drawn[3].points] == [40]


def test_branches_are_grouped_by_what_they_do():
    """Commands side by side stand in a group, those that do several things each in a branch of their own."""
    drawn = lanes_of(
        step("1", "list", 0, 5),
        step("2.1", "measure", 10, 20), step("2.2", "measure", 12, 22), step("2.3", "measure", 14, 24),
        step("3.1.1", "pick", 30, 40), step("3.1.2", "pack", 40, 50),
        step("3.2.1", "pick", 31, 41), step("3.2.2", "pack", 41, 51),
        step("4.1.1", "tidy", 60, 70), step("4.1.2", "close", 70, 80),
    )  # fmt: skip
    assert shape(drawn) == [
        "list",
        "3 \N{MULTIPLICATION SIGN} measure", "  measure", "  measure", "  measure",
        "2 \N{MULTIPLICATION SIGN} (pick, pack)", "  pick, pack", "    pick", "    pack", "  pick, pack", "    pick",
        "    pack",
        "tidy, close", "  tidy", "  close",
    ]  # fmt: skip
    assert [lane.kind for lane in drawn[5:8]] == ["group", "branch", "step"]
    assert spans(drawn[5]) == [("group", 30, 51)]


def test_a_group_of_one_thing_is_that_thing():
    """A command with one branch that did one thing is not shown around it."""
    assert shape(lanes_of(step("1.1.1", "charge", 0, 5), step("2", "ship", 6, 9))) == ["charge", "ship"]


def test_scopes_and_races_hold_what_lies_inside():
    """A scope and a race are lanes of their own, with what they surround below them."""
    drawn = lanes_of(
        step("1.1.1", "pick", 10, 20), step("1.1.2", "pack", 20, 30), ev.ScopeCompleted(BEGAN + 31, "1", 7, b"\xc0"),
        timer("2.1", "sleep", 40, 60), step("2.2", "ask", 40, 50), ev.RaceDecided(BEGAN + 50, "2", "", b"", 8, 1),
    )  # fmt: skip
    assert shape(drawn) == ["scope", "  pick", "  pack", "first", "  sleep", "  ask"]
    assert spans(drawn[0]) == [("group", 10, 31)]
    assert spans(drawn[3]) == [("group", 40, 50)]


def test_the_run_itself():
    """The run's own lane spans it, with pauses and requests; it is open until the run has ended."""
    events = [ev.RunPaused(BEGAN + 10, ""), ev.RunResumed(BEGAN + 20), ev.CancelRequested(BEGAN + 30, "enough")]
    _, (lane, *_) = lanes(member_of(new_run([started(0), *events])))
    assert spans(lane) == [("run", 0, None), ("pause", 10, 20)]
    assert [point.at_us - BEGAN for point in lane.points] == [30]
    _, (lane, *_) = lanes(member_of(new_run([started(0), *events, failed(40, ValueError("no"))])))
    assert spans(lane)[0] == ("run", 0, 40)
    assert (lane.name, lane.mark, len(lane.events)) == ("fulfil", Mark.BAD, 5)


def test_children_lie_below_their_lane():
    """What a child did stands below it, what happened to the child itself in its lane, and levels go on."""
    inner = new_run([started(12, "c", "wrap"), step("1", "fold", 13, 15), completed(16)], ("a", 1, "2"))
    child = new_run(
        [started(11, "a", "pack"), step("1", "pick", 11, 12), child_started("2", "wrap", 12, "c"),
         child_completed("2", 17), ev.CancelRequested(BEGAN + 18, "enough"), completed(19)],
        ("order-1", 1, "1"),
    )  # fmt: skip
    parent = new_run([started(0), child_started("1", "pack", 10, "a"), child_completed("1", 20), completed(21)])
    runs, drawn = lanes(member_of(parent, child, inner))
    assert [one.record.workflow_id for one in runs] == ["order-1", "a", "c"]
    assert shape(drawn) == ["fulfil", "pack", "  pick", "  wrap", "    fold"]
    assert (drawn[1].run, drawn[1].own) == (0, 1)
    assert spans(drawn[1]) == [("child", 10, 20)]
    assert [point.at_us - BEGAN for point in drawn[1].points] == [18]
    assert drawn[1].events == [(0, 1), (0, 2), (1, 0), (1, 4), (1, 5)]
    assert drawn[4].events == [(2, 1)]


def test_a_child_that_is_a_group_is_still_one_group():
    """A child whose whole work is one `Map` has its branches right below it, drawn once."""
    child = new_run([started(11, "a", "pack"), *(step(f"1.{n}", "pick", 12, 13) for n in (1, 2))], ("order-1", 1, "1"))
    _, drawn = lanes(member_of(new_run([started(0), child_started("1", "pack", 10, "a")]), child))
    assert shape(drawn) == ["fulfil", "pack", "  pick", "  pick"]
    assert len(drawn[1].spans) == 1


def test_what_is_missing_is_noted():
    """A child that is not shown, and a history that cannot be read to its end, say so in their lane."""
    parent = new_run([started(0), child_started("1", "pack", 10, "a"), child_started("2", "pack", 11, "b")])
    broken = new_run([started(11, "a", "pack")], ("order-1", 1, "1"), records=[b"\x91\xcd\x27\x0f"])
    _, drawn = lanes(member_of(parent, broken))
    assert drawn[1].note == "event 1 cannot be read, so the rest is not shown"
    assert drawn[2].note == "its history is not in this store"


def test_what_waits_without_an_event_has_a_lane():
    """What the code says a run waits for is an open lane among the others, in its place."""
    member = member_of(new_run([started(0), step("1", "charge", 5, 9), timer("2.1", "sleep", 10, 99)]))
    wait = Wait(id="2.2", kind="receive", name="approval", line=31, since_us=BEGAN + 10, source="x = yield from …")
    member.line = with_pending(member.line, (wait, Wait(id="2.1", kind="sleep", since_us=BEGAN + 10)))
    _, drawn = lanes(member)
    assert shape(drawn) == ["fulfil", "charge", "sleep, receive approval", "  sleep", "  receive approval"]
    assert spans(drawn[4]) == [("wait", 10, None)]
    assert (drawn[4].source, drawn[4].line, drawn[4].events) == ("x = yield from …", 31, [])


def test_siblings_stand_in_the_order_they_began():
    """Lanes that lie side by side are ordered by when they began, whenever they were recorded."""
    assert shape(lanes_of(step("2", "slow", 10, 90), step("1", "quick", 20, 30), fired("3", 40))) == [
        "slow", "quick", "timer fired"
    ]  # fmt: skip
    (lane,) = lanes_of(step_failed("1", "charge", 1, 2, ValueError("no")))
    assert (spans(lane), lane.mark) == ([("failed", 1, 2)], Mark.BAD)


def test_ids_nested_without_end_are_shown_flat():
    """An id of a thousand levels makes no thousand lanes, and no error."""
    drawn = lanes_of(step(".".join(["1"] * 1_000), "deep", 1, 2), step(".".join(["1"] * 999 + ["2"]), "deep", 2, 3))
    assert [lane.name for lane in drawn][-2:] == ["deep", "deep"]
    assert len(drawn) < 50


def test_an_empty_history():
    """A run of which nothing can be read has its own lane and nothing else."""
    unreadable = NewRun(
        workflow_id="order-1", workflow="fulfil", events=(b"\x91\xcd\x27\x0f",), created_at_us=BEGAN, digest=b"d"
    )
    _, drawn = lanes(member_of(unreadable))
    assert shape(drawn) == ["fulfil"]
    assert drawn[0].note == "event 0 cannot be read, so the rest is not shown"
