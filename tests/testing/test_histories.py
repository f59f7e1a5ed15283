"""The checks of recorded histories: sound runs pass, and each rule notices the history that breaks it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest

from dalsegno import Cancelled, Codec, Flow, Patched, Receive, Retry, Sleep, Status, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core import events as ev
from dalsegno.core.crosschecks import check_together, summarise
from dalsegno.core.events import CarriedSignal, Event
from dalsegno.core.history import encode_event
from dalsegno.core.store import NewRun, RunRecord, StoredMessage
from dalsegno.testing.histories import (
    RULES,
    Violation,
    all_records,
    assert_sound,
    check_delivery,
    check_history,
    check_store,
    read_history,
)
from dalsegno.testing.simulation import Simulation
from tests.testing import actors

D = b"digest"
START = ev.RunStarted(10, "nap", "n", 1, b"", b"seed")


def step_done(at: int, id: str = "1", attempt: int = 1, name: str = "a") -> ev.StepCompleted:
    return ev.StepCompleted(at, id, name, D, 3, attempt, 5, b"")


def attempt_failed(at: int, attempt: int, retry_at: int, id: str = "1") -> Event:
    return ev.StepAttemptFailed(at, id, "a", D, 3, attempt, 5, b"", retry_at)


def timer(at: int, deadline: int, id: str = "1") -> Event:
    return ev.TimerSet(at, id, "sleep", "", D, 3, deadline)


def child(at: int, id: str = "1") -> Event:
    return ev.ChildStarted(at, id, "nap", D, 3, f"n/{id}")


def signal(seq: int, name: str = "word", at: int = 20) -> Event:
    return ev.SignalReceived(at, seq, name, b"")


def scope(at: int, id: str = "1", consumed: tuple[int, ...] = ()) -> Event:
    return ev.ScopeCompleted(at, id, 3, b"", b"", consumed)


END = ev.RunCompleted(90, b"")

BROKEN: list[tuple[str, int | None, list[Event]]] = [
    ("beginning", None, []),
    ("beginning", 0, [END]),
    ("beginning", 1, [START, START]),
    ("closing", 1, [START, END, step_done(95)]),
    ("closing", 1, [START, END, END]),
    ("closing", 1, [START, ev.RunCancelled(20, b"")]),
    ("closing", 2, [START, ev.CancelRequested(20, ""), ev.CancelRequested(21, "")]),
    ("deadline", 1, [attrs.evolve(START, deadline_us=50), ev.RunTimedOut(40, 50)]),
    ("deadline", 1, [START, ev.RunTimedOut(60, 50)]),
    ("pauses", 1, [START, ev.RunResumed(20)]),
    ("pauses", 2, [START, ev.RunPaused(20, ""), ev.RunPaused(21, "")]),
    ("times", 1, [START, attrs.evolve(step_done(20), took_us=-5)]),
    ("order", 1, [START, ev.RunPaused(9, "")]),
    ("outcomes", 2, [START, step_done(20), step_done(30, attempt=2)]),
    ("outcomes", 3, [START, timer(20, 30), ev.TimerFired(31, "1"), ev.TimerCancelled(32, "1")]),
    ("outcomes", 3, [START, timer(20, 30), ev.TimerCancelled(25, "1"), ev.TimerFired(31, "1")]),
    ("outcomes", 2, [START, step_done(20), timer(21, 30)]),
    ("outcomes", 2, [START, ev.RaceDecided(20, "1", "", D, 3, 0), ev.RaceDecided(21, "1", "", D, 3, 1)]),
    ("outcomes", 2, [START, scope(20), scope(21)]),
    ("outcomes", 3, [START, child(20), ev.ChildCompleted(21, 1, "1", b""), ev.ChildFailed(22, 2, "1", b"")]),
    ("begun", 1, [START, ev.TimerFired(20, "1")]),
    ("begun", 1, [START, ev.ChildCompleted(20, 1, "1", b"")]),
    ("begun", 2, [START, timer(20, 30), timer(21, 30)]),
    ("attempts", 1, [START, step_done(20, attempt=2)]),
    ("attempts", 2, [START, attempt_failed(20, 1, 30), step_done(40, attempt=1)]),
    ("attempts", 2, [START, attempt_failed(20, 1, 30), step_done(40, attempt=2, name="b")]),
    ("attempts", 2, [START, ev.StepStarted(20, "1", "a", D, 3, 1), step_done(40, attempt=2)]),
    ("attempts", 2, [START, ev.StepStarted(20, "1", "a", D, 3, 1), ev.StepStarted(21, "1", "a", D, 3, 1)]),
    ("attempts", 1, [START, attempt_failed(20, 1, 19)]),
    ("retries", 2, [START, attempt_failed(20, 1, 30), step_done(29, attempt=2)]),
    ("timers", 2, [START, timer(20, 30), ev.TimerFired(29, "1")]),
    ("inbox", 2, [START, signal(5), signal(4)]),
    ("inbox", 2, [START, signal(5), signal(5)]),
    ("inbox", 3, [START, child(20), signal(5), ev.ChildCompleted(21, 3, "1", b"")]),
    ("inbox", 0, [attrs.evolve(START, carried=tuple(CarriedSignal(seq=s, name="w", payload=b"") for s in (3, 2)))]),
    ("unread", 2, [START, signal(5), ev.RunCompleted(90, b"", {"word": 2})]),
    ("scopes", 2, [START, scope(20), step_done(21, "1.1.1")]),
    ("scopes", 1, [START, scope(20, consumed=(7,))]),
    ("scopes", 3, [START, signal(7), scope(20, "1", (7,)), scope(21, "2", (7,))]),
    ("marks", 2, [START, ev.PatchAdopted(20, "new"), ev.PatchAdopted(21, "new")]),
    ("marks", 1, [START, ev.RaceDecided(20, "1", "", D, 3, -1)]),
]


@pytest.mark.parametrize(("rule", "event", "events"), BROKEN, ids=[f"{each[0]}-{n}" for n, each in enumerate(BROKEN)])
def test_a_broken_history_is_noticed(rule: str, event: int | None, events: list[Event]):
    """A history made to break one promise is reported under that rule, at that event."""
    found = check_history(events, steady_clock=True)
    assert (rule, event) in {(one.rule, one.event) for one in found}, found
    assert {one.rule for one in found} <= {rule, "closing"}, found


def test_every_rule_is_broken_above():
    """No rule is without a history that breaks it, and each says its promise."""
    assert {rule.name for rule in RULES} == {rule for rule, _, _ in BROKEN}
    assert all(rule.promise.endswith(".") for rule in RULES)


def record_of(**changes: Any) -> RunRecord:
    made = RunRecord(
        number=1,
        workflow_id="n",
        generation=1,
        workflow="nap",
        status=Status.COMPLETED,
        active=False,
        created_at_us=10,
        digest=D,
        closed_at_us=90,
    )
    return attrs.evolve(made, **changes)


@pytest.mark.parametrize(
    ("events", "changes"),
    [
        ([START, END], {"workflow": "walk"}),
        ([START, END], {"generation": 2}),
        ([START, END], {"status": Status.FAILED}),
        ([START, END], {"closed_at_us": 91}),
        ([START], {}),
        ([START], {"status": Status.RUNNING}),
        ([START], {"status": Status.PAUSED, "closed_at_us": None}),
        ([START, ev.RunPaused(20, "")], {"status": Status.RUNNING, "closed_at_us": None}),
    ],
)
def test_a_record_that_says_otherwise_is_noticed(events: list[Event], changes: dict[str, Any]):
    """History and record of a run have to agree on who it is, how it stands and when it ended."""
    assert check_history([START, END], record_of()) == []
    assert [one.rule for one in check_history(events, record_of(**changes))] == ["record"]


# --- between runs --------------------------------------------------------------------------------------------------


def message(seq: int, name: str = "word", kind: Any = "signal") -> StoredMessage:
    return StoredMessage(seq, kind, name, b"", False, 20)


def together(*runs: tuple[RunRecord, list[Event], list[StoredMessage]], timers: Any = None) -> list[Violation]:
    return check_together([summarise(*run) for run in runs], timers)


OPEN = record_of(status=Status.RUNNING, closed_at_us=None)
KID = attrs.evolve(START, workflow_id="n/1", parent=("n", 1, "1"))
KID_DONE = record_of(number=2, workflow_id="n/1", parent=("n", 1, "1"))
KID_OPEN = attrs.evolve(KID_DONE, status=Status.RUNNING, closed_at_us=None)
GONE_ON = record_of(status=Status.CONTINUED, closed_at_us=90)
NEXT = record_of(number=3, generation=2, status=Status.RUNNING, closed_at_us=None)
CONTINUED = ev.RunContinued(90, "1", b"again")
AGAIN = ev.RunStarted(90, "nap", "n", 2, b"again", b"seed")
CARRIED = CarriedSignal(seq=5, name="word", payload=b"")


def test_sound_runs_fit_together():
    """A parent and its child, a run and its continuation, a timer and its entry in the store."""
    answered = [START, child(20), ev.ChildCompleted(91, 4, "1", b""), timer(92, 100, "2")]
    assert together((OPEN, answered, []), (KID_DONE, [KID, END], []), timers=[(100, 1, "t:2")]) == []
    assert together((OPEN, [START, child(20)], [message(4, "1", "child")]), (KID_DONE, [KID, END], [])) == []
    handed = attrs.evolve(AGAIN, carried=(CARRIED,))
    assert together((GONE_ON, [START, signal(5), CONTINUED], []), (NEXT, [handed], [])) == []


BROKEN_TOGETHER: list[tuple[str, list[Any], list[Any] | None]] = [
    ("waiting", [(OPEN, [START, signal(5)], [message(5)])], None),
    ("waiting", [(record_of(), [START, END], [message(5)])], None),
    ("timers kept", [(OPEN, [START, timer(20, 30)], [])], []),
    ("timers kept", [(OPEN, [START], [])], [(30, 1, "t:1")]),
    ("timers kept", [(OPEN, [START, attempt_failed(20, 1, 30)], [])], [(31, 1, "r:1")]),
    ("timers kept", [(record_of(), [START, timer(20, 30), END], [])], [(30, 1, "t:1")]),
    ("child", [(OPEN, [START, child(20)], []), (KID_DONE, [KID, END], [])], None),
    ("child", [(OPEN, [START, child(20), ev.ChildCompleted(91, 4, "1", b"")], []), (KID_OPEN, [KID], [])], None),
    ("child", [(OPEN, [START, child(20), ev.ChildFailed(91, 4, "1", b"")], []), (KID_DONE, [KID, END], [])], None),
    ("child", [(OPEN, [START, child(20), ev.ChildCompleted(91, 4, "1", b"x")], []), (KID_DONE, [KID, END], [])], None),
    ("child", [(OPEN, [START], []), (KID_OPEN, [KID], [])], None),
    ("continued", [(GONE_ON, [START, CONTINUED], [])], None),
    ("continued", [(GONE_ON, [START, CONTINUED], []), (NEXT, [attrs.evolve(AGAIN, arguments=b"other")], [])], None),
    ("continued", [(GONE_ON, [START, CONTINUED], []), (NEXT, [attrs.evolve(AGAIN, carried=(CARRIED,))], [])], None),
    ("continued", [(OPEN, [START, step_done(95)], []), (NEXT, [AGAIN], [])], None),
]


@pytest.mark.parametrize(("rule", "runs", "timers"), BROKEN_TOGETHER)
def test_runs_that_do_not_fit_together_are_noticed(rule: str, runs: list[Any], timers: list[Any] | None):
    """A message told twice, a timer lost or left over, a child forgotten, a continuation that is another's."""
    assert {one.rule for one in together(*runs, timers=timers)} == {rule}


def test_a_run_that_is_not_activated_yet_may_lack_its_timers():
    """An imported run's timers are made by whoever first activates it."""
    assert together((attrs.evolve(OPEN, restore=True), [START, timer(20, 30)], []), timers=[]) == []


def test_delivery():
    """What was accepted has to come once and in order, or to wait still."""
    events = [START, signal(1, "a"), signal(2, "b")]
    assert check_delivery([("a", b""), ("b", b"")], events) == []
    assert check_delivery([("a", b""), ("c", b"")], events, [message(3, "c")]) == []
    lost, late = check_delivery([("c", b"")], events), check_delivery([("b", b""), ("a", b"")], events)
    twice = check_delivery([("a", b"")], [*events, signal(3, "a")])
    words = ["accepted and never came", "before one that was accepted earlier", "more than once"]
    assert [word in str(found[0]) for word, found in zip(words, (lost, late, twice), strict=True)] == [True] * 3


# --- real histories ------------------------------------------------------------------------------------------------


@step(retry=Retry(max_attempts=3, jitter=0))
def shaky(tries: list[int]) -> str:
    """Fails with what is retried, for ever."""
    raise ConnectionError("no")


@workflow
def mixed() -> Flow[str]:
    """Retries, a change, a cancelled wait."""
    yield from Patched("new")
    try:
        yield from shaky([])
    except ConnectionError:
        yield from Sleep(5)
    try:
        yield from Receive("never")
    except Cancelled:
        yield from Sleep(1)
        raise
    return "unreachable"


@pytest.mark.parametrize("seed", range(4))
def test_what_the_engine_records_is_sound(seed: int):
    """Runs of every kind, restarted half-way, leave histories that keep every promise."""
    with Simulation(WORKFLOWS, seed=seed) as simulation:
        runs = [simulation.start(actor, *arguments) for actor, arguments in STARTS]
        words = simulation.start(actors.correspondence, id="words")
        simulation.start(actors.sender, "words")
        for number in (1, 2):
            runs[2].signal("number", number)
        for seconds in (1, 20, 4000):
            simulation.at(timedelta(seconds=seconds), simulation.restart)
        simulation.at(timedelta(days=1), lambda: simulation.get("mixed").cancel("enough"))
        mixed_run = simulation.start(mixed, id="mixed")
        for run in [*runs, words]:
            run.result()
        with pytest.raises(Cancelled):
            mixed_run.result()
        assert_sound(simulation.backend, steady_clock=True)
        assert len(list(all_records(simulation.backend))) >= 12


WORKFLOWS: list[Any] = [*actors.ALL, mixed]
STARTS: list[tuple[Any, tuple[Any, ...]]] = [
    (actors.chain, (3,)),
    (actors.fan, (3,)),
    (actors.generations, (2,)),
    (actors.payment, ()),
    (actors.race, ()),
]


def test_a_store_is_read_whole():
    """What is wrong in any run of a store is found: an event that follows the end, a history that cannot be read."""
    store = MemoryBackend.open()
    after = [START, END, step_done(95)]
    for number, records in enumerate([tuple(encode_event(e) for e in after), (encode_event(START), b"\xc1nonsense")]):
        made = attrs.evolve(NEW, workflow_id=f"n{number}", events=records)
        store.create([made])
    found = check_store(store)
    assert {one.rule for one in found} >= {"closing", "record", "readable"}
    with pytest.raises(AssertionError, match="promises are broken"):
        assert_sound(store)
    with pytest.raises(AssertionError, match="ends the run"):
        assert_sound(after)


NEW = NewRun(workflow_id="n", workflow="nap", events=(), created_at_us=10, digest=D)


def test_histories_are_read_page_by_page():
    """A history longer than a page comes whole."""
    with Simulation([actors.chain]) as simulation:
        run = simulation.start(actors.chain, 400)
        run.result()
        record = next(all_records(simulation.backend))
        assert len(read_history(simulation.backend, record)) == len(run.history()) > 1000
        assert Codec().decode(read_history(simulation.backend, record)[-1].result)  # type: ignore[attr-defined]
