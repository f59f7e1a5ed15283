"""Crash exploration: good workflows come through, planted faults are found, and each failure says how to repeat it."""

from __future__ import annotations

import io
import os
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from rich.console import Console

from dalsegno import (
    BadOption,
    Checkpoint,
    ContinueAsNew,
    Flow,
    Now,
    Publish,
    Receive,
    Retry,
    Sleep,
    step,
    step_context,
    workflow,
)
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.core.engine.live import Activation, LiveRun
from dalsegno.core.engine.recovery import Loader
from dalsegno.core.store import Transition
from dalsegno.examples.audit import Approval, audit_tree
from dalsegno.testing.exploring import CrashFound, Report, explore_crashes
from dalsegno.testing.points import Pin, Pinned, Visit, line_of, parse_line
from dalsegno.testing.witness import Repeat
from tests.testing import actors

FOUND: list[str] = []
SEEN: Counter[str] = Counter()
DONE: set[str] = set()


def clean() -> None:
    """Put the world in order."""
    for each in (FOUND, SEEN, DONE, actors.EFFECTS):
        each.clear()


@pytest.fixture(autouse=True)
def _clean():
    clean()


# --- planted faults --------------------------------------------------------------------------------------------------


@step
def collect_into_a_global(what: str) -> None:
    """Remembers what it found in memory, where no crash survives and no replay goes."""
    FOUND.append(what)


@workflow
def reads_what_steps_left_in_memory() -> Flow[list[str]]:
    """Takes results from a list that its steps change."""
    yield from collect_into_a_global("one")
    yield from collect_into_a_global("two")
    return list(FOUND)


@workflow
def asks_the_machine() -> Flow[int]:
    """Decides by something that is not recorded."""
    for _ in range(2):
        yield from actors.put("same")
    if len(SEEN) % 2 == 0:
        yield from actors.put("even")
    SEEN["changed"] += 1
    return 1


@step(retry=Retry(max_attempts=3, jitter=0))
def tries() -> int:
    """Tells how often it was tried."""
    return step_context().attempt


@workflow
def goes_by_the_attempt() -> Flow[str]:
    """Does something else where a step had to be tried again."""
    if (yield from tries()) > 1:
        yield from actors.put("again")
        return "again"
    return "first"


@step
def withdraw(amount: int) -> int:
    """Takes money each time it runs: not idempotent."""
    SEEN["withdrawn"] += amount
    return amount


@step
def withdraw_carefully(amount: int) -> int:
    """Takes money once for each key."""
    if step_context().idempotency_key not in DONE:
        DONE.add(step_context().idempotency_key)
        SEEN["withdrawn"] += amount
    return amount


@workflow
def pays(careful: bool) -> Flow[int]:
    """Withdraws an amount."""
    return (yield from (withdraw_carefully if careful else withdraw)(100))


@workflow
def swallows() -> Flow[str]:
    """Takes a step's error for an answer, so that a failed attempt changes how it ends."""
    try:
        return (yield from actors.put.options(retry=Retry(max_attempts=2, jitter=0), timeout=5)("x"))
    except ConnectionError:
        return "never mind"


@workflow
def tells_the_time() -> Flow[str]:
    """Returns the time, which is another one when something took longer."""
    yield from actors.put("x")
    return (yield from Now()).isoformat()


@workflow
def waits_for_a_word() -> Flow[str]:
    """Waits for a signal."""
    word: str = yield from Receive("word", str)
    yield from Publish("word", word)
    return word


@workflow
def checked() -> Flow[str]:
    """Waits for nothing but a checkpoint."""
    yield from Checkpoint()
    return "durable"


@workflow
def for_ever(round_: int = 0) -> Flow[None]:
    """Never ends."""
    yield from ContinueAsNew(round_ + 1)


def explore(workflow: Any, *args: Any, **options: Any) -> Report:
    """Explore with fewer pairs than users get, to be quick."""
    return explore_crashes(workflow, *args, **{"pairs": 20, "progress": False, **options})


def says(word: str):
    """A script that sends one signal after ten seconds."""
    return lambda simulation, run: simulation.at(10, lambda: run.signal("word", word))


# --- what comes through ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workflow", "args", "script"),
    [
        (actors.chain, (2,), None),
        (actors.fan, (2,), None),
        (actors.payment, (), None),
        (actors.race, (), None),
        (waits_for_a_word, (), says("hello")),
        (swallows, (), None),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_good_workflows_survive_every_single_fault(workflow, args, script):
    """No single fault at any point, and no pair that was drawn, changes how a good workflow ends."""
    report = explore(workflow, *args, script=script)
    assert report.complete
    assert report.pairs == 20
    assert report.tried == sum(report.fired.values()) - report.pairs
    assert {"error-before", "error-after", "crash-before", "crash-after"} == set(report.fired)


def test_signals_near_each_other_may_reach_either_generation():
    """A workflow that continues as new ends the same, though its histories are cut elsewhere."""
    numbers = lambda simulation, run: [  # noqa: E731
        simulation.at(n, lambda n=n: run.signal("number", n)) for n in (1, 2)
    ]
    explore(actors.generations, 2, script=numbers, compare=("outcome", "state"))


def test_a_run_on_lmdb_is_explored_like_any(tmp_path: Path):
    """The store is opened anew for every run, by the function that is given."""
    count = iter(range(10_000))
    report = explore(
        actors.payment,
        store=lambda: LmdbBackend.open(str(tmp_path / str(next(count))), durability="relaxed"),
        pairs=5,
        budget=20,
    )
    assert report.tried > 20


def test_a_careful_step_passes_a_check_of_the_world():
    """A step that uses its idempotency key has its effect once, whatever happens."""

    def check(run: Any) -> None:
        assert SEEN["withdrawn"] == 100

    report = explore(pays, True, setup=clean, check=check)
    assert report.repeats[Repeat(step="withdraw_carefully", why="crash")] > 0


def test_setup_may_replace_the_arguments():
    """What `setup` returns as a tuple are the arguments of the next run."""
    given = []

    def setup() -> tuple[int]:
        given.append(1)
        return (1,)

    report = explore(actors.chain, setup=setup, pairs=0)
    assert len(given) == report.tried + 2  # undisturbed, and once replayed at every activation


def test_long_steps_and_fakes_are_explored_too():
    """`takes` and `fakes` are those of the simulation."""
    fakes = {actors.put: lambda what: f"fake {what}"}
    report = explore(actors.chain, 1, fakes=fakes, takes={"put": 20}, check=lambda run: check_fake(run))
    assert report.complete


def check_fake(run: Any) -> None:
    """The fake was there."""
    assert run.result() == ["fake put 0", "LOOK 0"]


# --- what is found ---------------------------------------------------------------------------------------------------


def test_results_left_in_memory_are_found():
    """A workflow that reads what steps left in a global list is told, with its line."""
    with pytest.raises(CrashFound, match="it ended otherwise") as caught:
        explore(reads_what_steps_left_in_memory, setup=FOUND.clear)
    assert caught.value.line == "error-after step.collect_into_a_global #1" or "crash" in caught.value.line
    assert "repeat it with: explore_crashes(…, seed=0, only='" in str(caught.value)


def test_a_line_repeats_the_failure_and_only_that():
    """`only=` tries one line, fails in the same way, and passes for a line that is harmless."""
    with pytest.raises(CrashFound) as caught:
        explore(reads_what_steps_left_in_memory, setup=FOUND.clear)
    with pytest.raises(CrashFound) as again:
        explore(reads_what_steps_left_in_memory, setup=FOUND.clear, only=caught.value.line)
    assert (again.value.problem, again.value.line) == (caught.value.problem, caught.value.line)
    assert again.value.report.tried == 1
    harmless = explore(reads_what_steps_left_in_memory, setup=FOUND.clear, only="crash-before store.join #1")
    assert harmless.tried == 1


def test_code_that_asks_the_machine_is_found_without_any_fault():
    """Replaying at every activation is enough to see a decision that was not recorded."""
    with pytest.raises(CrashFound, match="replay"):
        explore(asks_the_machine, setup=SEEN.clear)


def test_an_effect_that_happens_twice_is_found_by_the_check():
    """A crash between a step's effect and its record repeats the effect, which only a look at the world shows."""

    def check(run: Any) -> None:
        assert SEEN["withdrawn"] == 100, f"withdrawn: {SEEN['withdrawn']}"

    with pytest.raises(CrashFound, match="AssertionError: withdrawn: 200") as caught:
        explore(pays, False, setup=SEEN.clear, check=check)
    assert caught.value.line in ("crash-after step.withdraw #1", "error-after step.withdraw #1")


def test_a_check_that_fails_undisturbed_is_told_as_that():
    """What fails without any fault has no line to repeat."""

    def check(run: Any) -> None:
        raise AssertionError

    with pytest.raises(CrashFound, match=r"undisturbed, AssertionError at .*test_exploring.py:\d+") as caught:
        explore(actors.payment, check=check)
    assert caught.value.line == ""
    assert caught.value.comparison.startswith("run explored#1\n")
    assert "disturbed" not in caught.value.comparison  # there is but one history


def test_a_result_that_depends_on_the_time_is_found():
    """The time is another one when something took longer; such a workflow compares fewer aspects."""
    with pytest.raises(CrashFound, match="it ended otherwise: completed: '2026-01-01T00:00:0"):
        explore(tells_the_time)
    explore(tells_the_time, compare=("state", "history"))


def test_a_workflow_that_waits_for_nobody_is_told_what_it_waits_for():
    """Without a script, a workflow that waits for a signal does not end, undisturbed."""
    with pytest.raises(CrashFound, match="undisturbed, it does not end; it waits for receive word"):
        explore(waits_for_a_word)


def test_a_workflow_without_end_is_told(monkeypatch: pytest.MonkeyPatch):
    """A workflow that continues for ever goes round in circles."""
    monkeypatch.setattr("dalsegno.testing.trial.PIECES_MAX", 500)
    with pytest.raises(CrashFound, match="undisturbed, it goes round in circles"):
        explore(for_ever)


def test_both_histories_are_shown_with_their_first_difference():
    """An error shows what happened undisturbed and what happened then, and marks where they part in each."""
    with pytest.raises(CrashFound, match="the history of 'explored' has") as caught:
        explore(goes_by_the_attempt, compare=("history",))
    told = caught.value.comparison.splitlines()
    assert told[0] == "run explored#1: first difference at event 2"
    before, after = told[2 : told.index("  disturbed")], told[told.index("  disturbed") + 1 :]
    marked = [[line.split() for line in lines if line.startswith("    >")] for lines in (before, after)]
    assert [lines[0][2:4] for lines in marked] == [["RunCompleted", "result=first"], ["StepCompleted", "2"]]
    assert caught.value.line == "error-before step.tries #1"


WHOLE = Activation.transition


def without_checkpoints(act: Activation, run: LiveRun) -> Transition:
    """A transition that takes a run which waits for its checkpoint for one that has nothing to do."""
    made = WHOLE(act, run)
    return attrs.evolve(made, active=made.active and bool(act.bodies or run.running))


@pytest.mark.parametrize(
    ("place", "name", "broken", "workflow", "args"),
    [
        (Loader, "_await_retries", lambda *_: None, actors.chain, (2,)),
        (Activation, "transition", without_checkpoints, checked, ()),
    ],
    ids=["a retry is not begun again", "a checkpoint is no work"],
)
def test_faults_planted_in_the_engine_are_found(place, name, broken, workflow, args, monkeypatch):
    """The harness finds what it once found, should it come back."""
    monkeypatch.setattr(place, name, staticmethod(broken) if name == "_await_retries" else broken)
    with pytest.raises(CrashFound, match=r"does not end|ended otherwise"):
        explore_crashes(workflow, *args, pairs=600, progress=False)


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_report_says_what_was_tried():
    """Points, faults, bodies that ran again and why: as numbers, as a line and as a table."""
    report = explore(actors.chain, 1)
    out = io.StringIO()
    report.print(Console(file=out, width=150))
    for said in ("explore_crashes(chain), seed 0", "every single fault, 20 with a second one", "put (crash)"):
        assert said in out.getvalue()
    assert str(report).startswith(f"chain: {report.tried} disturbed runs (every single fault, 20 pairs)")
    assert report.points["step.put"] == 1


def test_a_report_says_why_not_everything_was_tried():
    """A failure, one line asked for, and a budget that is used up are told apart, in words and in the table."""
    with pytest.raises(CrashFound) as caught:
        explore(reads_what_steps_left_in_memory, setup=FOUND.clear)
    ended = [caught.value.report, explore(actors.chain, 1, only="crash-before store.join #1")]
    for report, said in zip(ended, ("it ended with the first failure", "one line only"), strict=True):
        out = io.StringIO()
        report.print(Console(file=out, width=150))
        assert said in out.getvalue()
        assert said in str(report)
        assert "budget" not in out.getvalue()


def test_a_progress_bar_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    """A bar that counts the runs appears on stderr when it takes long, and goes away; elsewhere there is none."""
    for terminal in (True, False):
        out = io.StringIO()
        made = partial(Console, file=out, force_terminal=terminal, width=100)
        monkeypatch.setattr("dalsegno.testing.reporting.Console", lambda stderr, made=made: made())
        monkeypatch.setattr("dalsegno.testing.reporting.PATIENCE_S", -1)
        explore(actors.chain, 1, progress=True)
        assert ("explore_crashes(chain)" in out.getvalue()) is terminal
    explore(actors.chain, 1, progress=False)


def test_a_budget_ends_an_exploration():
    """When the time is used up, the report says that not everything was tried."""
    report = explore(actors.chain, 3, budget=0)
    assert not report.complete
    assert report.tried == 0
    assert "the budget ran out" in str(report)


def test_several_processes_find_the_same():
    """Trials in two processes count up to the same report."""
    alone, together = explore(actors.chain, 1), explore(actors.chain, 1, processes=2)
    assert (alone.tried, alone.fired, alone.repeats) == (together.tried, together.fired, together.repeats)
    with pytest.raises(CrashFound, match="withdrawn twice"):
        explore(pays, False, setup=SEEN.clear, check=withdrawn_once, processes=2)


def withdrawn_once(run: Any) -> None:
    """The money was taken once."""
    assert SEEN["withdrawn"] == 100, "withdrawn twice"


def test_an_unknown_aspect_is_refused():
    """`compare` takes three words."""
    with pytest.raises(BadOption, match="takes outcome, state, history"):
        explore(actors.payment, compare=("result",))


# --- points and pins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["", "crash store.commit #1", "crash-after store.commit", "late-after step.x #1"])
def test_a_line_that_no_failure_prints_is_refused(line: str):
    """What cannot be a point says how one looks."""
    with pytest.raises(BadOption, match=r"one looks like 'crash-after store\.commit #7'"):
        parse_line(line)


def test_lines_and_pins_are_the_same_thing():
    """A line is read back as the pins that print it, also with a step's unusual name."""
    pins = (Pin("crash-after", "step.my step, then", 3), Pin("error-before", "store.claim", 1))
    assert parse_line(line_of(pins[1:])) == pins[1:]
    assert Pin.parse(str(pins[0])) == pins[0]


def test_a_line_for_a_point_that_is_not_there_is_refused():
    """A line of another workflow, or of code that has changed since, says that the run never comes by."""
    with pytest.raises(BadOption, match=r"never comes by crash-after step.put #99"):
        explore(actors.chain, 1, only="crash-after step.put #99")


def test_counting_begins_anew_after_a_pin_has_struck():
    """The second pin of a line counts from the first one on."""
    pinned = Pinned(parse_line("error-before store.find #2, then error-after store.send #1"))
    ways = [pinned.call(method, method == "send") for method in ("find", "send", "find", "send", "send")]
    assert ways == [None, None, "error", "unknown-after", None]
    assert pinned.struck == [2, 3]


def test_the_last_attempt_is_not_failed():
    """An attempt that has none after it is only crashed, since failing it would rightly end the step."""
    assert [str(pin) for pin in Visit("step.x", 1, "only body").pins()] == [
        "crash-before step.x #1",
        "crash-after step.x #1",
    ]


# --- the demo's workflow ---------------------------------------------------------------------------------------------

TREE = {
    "top.py": "x = 1\n",
    "one/__init__.py": '"""One."""\n',
    "one/code.py": "import os\n\ndef f(x):\n    return 1 if x else 2\n",
    "one/two/old.py": "print 'old'\n",
}


def test_the_audit_survives_any_crash(tmp_path: Path):
    """The demo's workflow, children, approval and all, comes out the same with a fault at every single point."""
    for path, text in TREE.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_text(text)

    def approve(simulation: Any, run: Any) -> None:
        simulation.at(timedelta(hours=1), lambda: run.signal("approval", Approval(granted=True, by="Ada")))

    def published(run: Any) -> None:
        assert os.path.getsize(run.result().json) > 0

    places = [str(tmp_path / name) for name in ("tree", "out", "ledger")]
    report = explore_crashes(audit_tree, *places, script=approve, check=published, budget=50)
    assert report.complete
    assert report.points["step.measure_file"] == 4
    assert report.pairs == 100


def test_sleep_is_not_slept():
    """A workflow that sleeps for months is explored in moments."""

    @workflow
    def sleeper() -> Flow[str]:
        for _ in range(3):
            yield from Sleep(timedelta(days=30))
        return "awake"

    assert explore(sleeper).seconds < 10
